//! Compile time: `1f1b` with `vocab-2` on 64 ranks, from text to verified plan, and its parts; growth with the microbatches.
//!
//! Criterion prints the time of a plan; `elem/s` are instructions a second, so that 1 µs an instruction reads 1 Melem/s.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use schedc::cost::UNIT;
use schedc::driver::{Input, Job, compile, schedule};
use schedc::ir::{Dims, Mode, Precision};
use schedc::lower::lower;
use schedc::resolve::{Model, Partitioning};
use schedc::source::Sources;
use schedc::verify::{Options, verify};

const RANKS: u32 = 64;

fn job(microbatches: u32, with: &[String]) -> Job<'_> {
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
    let model = Model { layers: None, dims, partition: Partitioning::Uniform };
    Job {
        input: Input::Library("1f1b"),
        with,
        set: &[],
        ranks: RANKS,
        microbatches,
        model,
        costs: &UNIT,
        retime: None,
        mode: Mode::Training,
    }
}

fn whole(criterion: &mut Criterion) {
    let with = ["vocab-2".to_owned()];
    let mut group = criterion.benchmark_group("1f1b + vocab-2, p=64");
    group.sample_size(10);
    for microbatches in [256, 1024, 4096] {
        let job = job(microbatches, &with);
        let plan = compile(&job, &mut Sources::default()).expect("the library compiles");
        let instrs: usize = plan.ranks.iter().map(|rank| rank.instrs.len()).sum();
        group.throughput(Throughput::Elements(instrs as u64));
        group.bench_function(BenchmarkId::new("compile and verify", microbatches), |bencher| {
            bencher.iter(|| compile(&job, &mut Sources::default()).expect("the library compiles"));
        });
    }
    group.finish();
}

fn parts(criterion: &mut Criterion) {
    let with = ["vocab-2".to_owned()];
    let job = job(1024, &with);
    let ordered = schedule(&job, &mut Sources::default()).expect("the library compiles");
    let costs = UNIT.bind(&ordered.catalog, &ordered.shape, &ordered.model).expect("unit costs fit");
    let plan = lower(&ordered, &costs).expect("the library compiles");
    let instrs: usize = plan.ranks.iter().map(|rank| rank.instrs.len()).sum();
    let mut group = criterion.benchmark_group("1f1b + vocab-2, p=64, m=1024");
    group.sample_size(10);
    group.throughput(Throughput::Elements(instrs as u64));
    group.bench_function("order and transform", |bencher| {
        bencher.iter(|| schedule(&job, &mut Sources::default()).expect("the library compiles"));
    });
    group.bench_function("lower", |bencher| {
        bencher.iter(|| lower(&ordered, &costs).expect("the library compiles"));
    });
    group.bench_function("verify", |bencher| {
        let plans = || plan.clone();
        let check = |plan| verify(plan, &Options::default()).expect("lowered plans are sound");
        bencher.iter_batched(plans, check, criterion::BatchSize::PerIteration);
    });
    group.finish();
}

criterion_group!(benches, whole, parts);
criterion_main!(benches);
