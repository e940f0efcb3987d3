//! Simulation: a plan run under unit costs, and the whole report; growth with the instructions, which is linear.
//!
//! Criterion prints the time of a plan; `elem/s` are instructions a second.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use schedc::cost::UNIT;
use schedc::driver::{Input, Job, compile};
use schedc::ir::{Dims, Mode, Precision};
use schedc::resolve::{Model, Partitioning};
use schedc::simulate::{Known, Report, simulate};
use schedc::source::Sources;
use schedc::verify::Verified;

const RANKS: u32 = 64;

fn plan(microbatches: u32) -> Verified {
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
        with: &["vocab-2".to_owned()],
        set: &[],
        ranks: RANKS,
        microbatches,
        model: Model { layers: None, dims, partition: Partitioning::Uniform },
        costs: &UNIT,
        retime: None,
        mode: Mode::Training,
    };
    compile(&job, &mut Sources::default()).expect("the library compiles")
}

fn growth(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("1f1b + vocab-2, p=64");
    group.sample_size(10);
    for microbatches in [128, 1024, 8192] {
        let plan = plan(microbatches);
        let costs = UNIT.bind_plan(&plan.header).expect("unit costs fit");
        let instrs: usize = plan.ranks.iter().map(|rank| rank.instrs.len()).sum();
        group.throughput(Throughput::Elements(instrs as u64));
        group.bench_function(BenchmarkId::new("simulate", instrs), |bencher| {
            bencher.iter(|| simulate(&plan, &costs));
        });
        group.bench_function(BenchmarkId::new("report", instrs), |bencher| {
            bencher.iter(|| Report::of(&plan, &costs, &Known::default()));
        });
    }
    group.finish();
}

criterion_group!(benches, growth);
criterion_main!(benches);
