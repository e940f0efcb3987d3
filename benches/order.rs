//! Ordering: every schedule of the library from text to every rank's order, at p=32, m=256.
//!
//! Criterion prints the time of a schedule; those that share no vocabulary, under unit costs.

use criterion::{Criterion, criterion_group, criterion_main};
use schedc::cost::UNIT;
use schedc::driver::{Input, Job, schedule};
use schedc::ir::{Dims, Mode, Precision};
use schedc::resolve::{Model, Partitioning};
use schedc::source::{Library, Sources};

const RANKS: u32 = 32;
const MICROBATCHES: u32 = 256;

fn job<'a>(name: &'a str, set: &'a [(String, i64)]) -> Job<'a> {
    let dims = Dims {
        layers: 0,
        hidden: 16,
        heads: 2,
        sequence: 8,
        batch: 1,
        vocab: 256,
        tied: false,
        precision: Precision::F32,
    };
    Job {
        input: Input::Library(name),
        with: &[],
        set,
        ranks: RANKS,
        microbatches: MICROBATCHES,
        model: Model { layers: None, dims, partition: Partitioning::Uniform },
        costs: &UNIT,
        retime: None,
        mode: Mode::Training,
    }
}

fn orders(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group(format!("order, p={RANKS}, m={MICROBATCHES}"));
    group.sample_size(10);
    let mut sources = Sources::default();
    let library = Library::load(&mut sources);
    let plain = library.schedules().map(|entry| (entry.name.to_owned(), Vec::new()));
    let more = [("interleaved-zb", "v", 4), ("seq1f1b", "s", 4)];
    let more = more.map(|(name, parameter, value)| (name.to_owned(), vec![(parameter.to_owned(), value)]));
    for (name, set) in plain.chain(more) {
        let job = job(&name, &set);
        if schedule(&job, &mut Sources::default()).is_err() {
            continue;
        }
        let values: Vec<String> =
            set.iter().map(|(parameter, value)| format!(":{parameter}={value}")).collect();
        group.bench_function(format!("{name}{}", values.concat()), |bencher| {
            bencher.iter(|| schedule(&job, &mut Sources::default()));
        });
    }
    group.finish();
}

criterion_group!(benches, orders);
criterion_main!(benches);
