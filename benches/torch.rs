//! Verifying PyTorch schedules: read and check files of up to a million actions. `elem/s` are actions a second.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use schedc::cost::UNIT;
use schedc::driver::{Input, Job, compile};
use schedc::ir::{Dims, Mode, Precision};
use schedc::resolve::{Model, Partitioning};
use schedc::source::Sources;
use schedc::torch::{Channel, Form, Target, check, read, write};

const RANKS: u32 = 64;

/// `1f1b` as PyTorch's `compute_comms`.
fn file(microbatches: u32) -> String {
    let dims = Dims {
        layers: RANKS,
        hidden: 64,
        heads: 4,
        sequence: 64,
        batch: 1,
        vocab: 256,
        tied: false,
        precision: Precision::F32,
    };
    let job = Job {
        input: Input::Library("1f1b"),
        with: &[],
        set: &[],
        ranks: RANKS,
        microbatches,
        model: Model { layers: None, dims, partition: Partitioning::Uniform },
        costs: &UNIT,
        retime: None,
        mode: Mode::Training,
    };
    let plan = compile(&job, &mut Sources::default()).expect("the library compiles");
    write(&plan, Target::Torch2_15, Form::Comms).expect("1f1b is one of PyTorch's")
}

fn verify(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("1f1b as PyTorch's CSV, p=64");
    group.sample_size(10);
    for microbatches in [256, 2048] {
        let text = file(microbatches);
        let actions = read("1f1b.csv", text.as_bytes()).expect("it was written so").actions.len();
        group.throughput(Throughput::Elements(actions as u64));
        for channel in [Channel::Gloo, Channel::Nccl, Channel::Rendezvous] {
            let id = BenchmarkId::new(format!("verify on {channel}"), actions);
            group.bench_function(id, |bencher| {
                bencher.iter(|| {
                    let rows = read("1f1b.csv", text.as_bytes()).expect("it was written so");
                    check(rows, channel, None).expect("exports are sound")
                });
            });
        }
    }
    group.finish();
}

criterion_group!(benches, verify);
criterion_main!(benches);
