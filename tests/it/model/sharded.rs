//! The vocabulary layers sharded over ranks, driven by hand, against the reference.

use schedc::execute::backend::{Backend, Batch, InOut, Views};
use schedc::execute::cpu::CpuBackend;
use schedc::execute::reference::Reference;
use schedc::ir::{Compute, Dims, Microbatch};

use super::rig::{
    Backward, Data, Vocabulary, ascending, backends, backward, forward, header, rank_pass, relative, tiny,
    train,
};

/// What the collectives between S and T leave: gathered statistics, and the input gradient where algorithm 2 has it already.
struct Barrier {
    stats: Vec<f32>,
    logits: Vec<Vec<f32>>,
    dx: Option<Vec<f32>>,
}

/// Adds up the ranks' buffers, in rank order.
fn reduce(parts: &[Vec<f32>]) -> Vec<f32> {
    let mut sum = parts[0].clone();
    for part in &parts[1..] {
        sum.iter_mut().zip(part).for_each(|(sum, part)| *sum += part);
    }
    sum
}

/// Runs a pass on every rank; each writes an x or a dx.
fn everywhere(
    backends: &mut [CpuBackend],
    elements: usize,
    mut run: impl FnMut(usize, &mut CpuBackend, &mut [f32]),
) -> Vec<Vec<f32>> {
    let each = backends.iter_mut().enumerate().map(|(rank, backend)| {
        let mut out = vec![f32::NAN; elements];
        run(rank, backend, &mut out);
        out
    });
    each.collect()
}

/// Pass S on every rank and the first barrier.
fn softmax(
    dims: &Dims,
    backends: &mut [CpuBackend],
    which: Vocabulary,
    x: &[f32],
    j: Microbatch,
    batch: Batch<'_>,
) -> Barrier {
    let (n, ranks) = (dims.tokens() as usize, backends.len());
    let length = x.len() + n * dims.shard(ranks as u32) as usize;
    let (mut stats, mut logits) = (Vec::new(), Vec::new());
    let compute = if which == Vocabulary::Two { Compute::OutputSoftmaxGrad } else { Compute::OutputSoftmax };
    let unscaled = everywhere(backends, x.len(), |rank, backend, dx| {
        let (mut own, mut kept) = (vec![f32::NAN; 3 * n], vec![f32::NAN; length]);
        let views = Views {
            x: InOut { read: Some(x), write: None },
            dx: InOut { read: None, write: (which == Vocabulary::Two).then_some(dx) },
            stats: InOut { read: None, write: Some(&mut own) },
            logits: Some(&mut kept),
            ..Views::default()
        };
        backend.pass(compute, rank_pass(rank, j), views, batch);
        stats.extend(own);
        logits.push(kept);
    });
    let dx = (which == Vocabulary::Two).then(|| {
        reduce(&everywhere(backends, x.len(), |rank, backend, dx| {
            let views = Views {
                dx: InOut { read: Some(&unscaled[rank]), write: Some(dx) },
                stats: InOut { read: Some(&stats), write: None },
                ..Views::default()
            };
            backend.pass(Compute::OutputRescale, rank_pass(rank, j), views, batch);
        }))
    });
    Barrier { stats, logits, dx }
}

/// Pass T on every rank, and the sum of its input gradients where algorithm 1 makes them.
fn gradient(
    backends: &mut [CpuBackend],
    mut barrier: Barrier,
    elements: usize,
    j: Microbatch,
    batch: Batch<'_>,
) -> Vec<f32> {
    let one = barrier.dx.is_none();
    let compute = if one { Compute::OutputGrad } else { Compute::OutputWeightGrad };
    let parts = everywhere(backends, elements, |rank, backend, dx| {
        let views = Views {
            dx: InOut { read: None, write: one.then_some(dx) },
            stats: InOut { read: Some(&barrier.stats), write: None },
            logits: Some(&mut barrier.logits[rank]),
            ..Views::default()
        };
        backend.pass(compute, rank_pass(rank, j), views, batch);
    });
    barrier.dx.unwrap_or_else(|| reduce(&parts))
}

/// One step with sharded vocabulary layers: loss and every gradient within 1e-5 of the reference.
fn agrees(dims: &Dims, ranks: u32, which: Vocabulary) {
    let m = 2;
    let places: Vec<u32> = (0..ranks).collect();
    let header = header(dims, &places, m, Backward::Split, which);
    let data = Data::new(dims, m);
    let mut backends = backends(&header);
    let wide = (dims.tokens() * u64::from(dims.hidden)) as usize;
    for j in ascending(m) {
        let batch = data.batches()[j.index()];
        let input = reduce(&everywhere(&mut backends, wide, |rank, backend, x| {
            let views = Views { x: InOut { read: None, write: Some(x) }, ..Views::default() };
            backend.pass(Compute::InputLookup, rank_pass(rank, j), views, batch);
        }));
        let (x, mut acts) = forward(&header, &mut backends, Some(&input), j, batch);
        let barrier = softmax(dims, &mut backends, which, &x, j, batch);
        let dx = gradient(&mut backends, barrier, wide, j, batch);
        let dx = backward(&header, &mut backends, &mut acts, Some(&dx), j, batch)
            .expect("the first stage gives dx");
        for (rank, backend) in backends.iter_mut().enumerate() {
            let views = Views { dx: InOut { read: Some(&dx), write: None }, ..Views::default() };
            backend.pass(Compute::InputScatter, rank_pass(rank, j), views, batch);
        }
    }
    let mut reference = Reference::new(dims, &train(), m).expect("the model runs");
    let loss = reference.accumulate(&data.batches(), &ascending(m));
    let last = backends.len() - 1;
    let found = backends[last].loss().expect("the last rank knows the loss");
    assert!((found - loss).abs() <= 1e-5 * loss, "loss {found}, without a pipeline {loss}");
    compare(&mut backends, &mut reference, &format!("{which:?}, {ranks} ranks, tied {}", dims.tied));
}

/// Puts the shards together and compares.
fn compare(backends: &mut [CpuBackend], reference: &mut Reference, case: &str) {
    let mut held: Vec<_> = backends.iter_mut().flat_map(Backend::tensors).collect();
    held.sort_by_key(|tensor| tensor.rows.start);
    for whole in reference.tensors() {
        let mine: Vec<_> = held.iter().filter(|tensor| tensor.name == whole.name).collect();
        let join = |of: fn(&schedc::execute::backend::Tensor<'_>) -> Vec<f32>| {
            mine.iter().flat_map(|tensor| of(tensor)).collect::<Vec<f32>>()
        };
        assert_eq!(join(|tensor| tensor.value.to_vec()), whole.value, "{case}: rows of {}", whole.name);
        let off = relative(&join(|tensor| tensor.gradient.to_vec()), whole.gradient);
        assert!(off < 1e-5, "{case}: gradient of {} is {off} off", whole.name);
    }
}

#[test]
fn both_algorithms_agree_with_the_whole_output_layer() {
    for which in [Vocabulary::One, Vocabulary::Two] {
        for tied in [false, true] {
            for ranks in 1..=3 {
                agrees(&tiny(tied), ranks, which);
            }
        }
    }
}

#[test]
fn a_rank_without_rows_changes_nothing() {
    for which in [Vocabulary::One, Vocabulary::Two] {
        for tied in [false, true] {
            // Four ranks own two rows each: 0..2, 2..4, 4..5 and none.
            agrees(&Dims { vocab: 5, ..tiny(tied) }, 4, which);
            agrees(&Dims { vocab: 2, ..tiny(tied) }, 6, which);
        }
    }
}
