//! The passes of the sharded output layer.

use schedc::execute::cpu::plain::Shard;
use schedc::kernels::{Stored, launch};

use super::host::Host;
use super::{Arg, Buffer, Draws, close, hosts};

/// Tokens, hidden, and the rows of each shard.
const SIZES: [(usize, usize, &[usize]); 4] =
    [(1, 1, &[1]), (17, 3, &[17, 1, 0]), (5, 40, &[257, 257, 100]), (3, 17, &[5000])];
const SHARE: f32 = 0.125;

/// One rank's part of a case.
struct Part {
    first: usize,
    rows: usize,
    table: Vec<f32>,
    logits: Vec<f32>,
    exponentials: Vec<f32>,
}

/// Every rank's part, the targets, and the gathered statistics `[ranks, 3, tokens]` by the CPU.
fn parts(
    draws: &mut Draws,
    stored: Stored,
    tokens: usize,
    hidden: usize,
    shards: &[usize],
) -> (Vec<Part>, Vec<u32>, Vec<f32>) {
    let targets = draws.ids(tokens, shards.iter().sum::<usize>() as u32);
    let (mut parts, mut gathered, mut first) = (Vec::new(), Vec::new(), 0);
    for &rows in shards {
        let [table, logits] = [(rows * hidden, 1.0), (tokens * rows, 8.0)]
            .map(|(count, most)| draws.numbers(stored, count, most));
        let shard = Shard { first, rows, value: &table };
        let [exponentials, stats] = shard.statistics(&logits, &targets);
        gathered.extend(stats);
        parts.push(Part { first, rows, table, logits, exponentials });
        first += rows;
    }
    (parts, targets, gathered)
}

/// S of one rank: its statistics, and its exponentials.
fn softmax(host: &Host, part: &Part, targets: &[u32], expected: &[f32]) {
    let (stored, n) = (host.stored, targets.len());
    let (stats, logits, ids) =
        (Buffer::f32(&vec![0.0; 3 * n]), Buffer::stored(stored, &part.logits), Buffer::ids(targets));
    let sides = [part.first, part.rows, n].map(|side| Arg::Int(side as i32));
    let pointers = [&stats, &logits, &ids].map(Arg::To);
    host.run(launch::vocab_statistics(stored, n as u32, part.rows as u32), &[&pointers[..], &sides].concat());
    close("statistics", Stored::F32, &stats.values(), expected, 1e-6);
    host.run(
        launch::vocab_exponentials(stored, n as u32, part.rows as u32),
        &[Arg::To(&logits), Arg::To(&stats), sides[1]],
    );
    close("exponentials", stored, &logits.values(), &part.exponentials, 1e-6);
}

/// Combination, T and the rescale of one rank.
fn gradients(
    host: &Host,
    draws: &mut Draws,
    part: &Part,
    targets: &[u32],
    gathered: &[f32],
    rank: usize,
    hidden: usize,
) {
    let (stored, n) = (host.stored, targets.len());
    let ranks = gathered.len() / (3 * n);
    let own = Buffer::f32(&gathered[rank * 3 * n..(rank + 1) * 3 * n]);
    let (combined, all, ids) = (Buffer::f32(&vec![0.0; 2 * n]), Buffer::f32(gathered), Buffer::ids(targets));
    let sides = [rank, ranks, n].map(|side| Arg::Int(side as i32));
    host.run(launch::vocab_combine(n as u32), &[&[Arg::To(&combined), Arg::To(&all)][..], &sides].concat());
    let losses = Buffer::f32(&combined.values()[n..]);
    let mean = Buffer::f32(&[0.0]);
    host.run(launch::vocab_loss(), &[Arg::To(&mean), Arg::To(&losses), Arg::Int(n as i32)]);
    let shard = Shard { first: part.first, rows: part.rows, value: &part.table };
    let (expected, loss) = shard.gradient(rank, gathered, targets, SHARE, &part.exponentials);
    close("loss", Stored::F32, &mean.values(), &[loss as f32], 1e-5);
    let shape = launch::vocab_gradient(stored, n as u32, part.rows as u32);
    for (held, exponentials) in [(&part.logits, 0), (&part.exponentials, 1)] {
        let held = Buffer::stored(stored, held);
        let pointers = [&held, &combined, &own, &ids].map(Arg::To);
        let rest = [
            Arg::Float(SHARE),
            Arg::Int(part.first as i32),
            Arg::Int(part.rows as i32),
            Arg::Int(exponentials),
        ];
        host.run(shape, &[&pointers[..], &rest].concat());
        // Exponentials that were rounded leave their rounding times `share`.
        let part = if stored == Stored::Bf16 { 4e-3 } else { 1e-5 };
        close("gradient by the logits", stored, &held.values(), &expected, part);
    }
    let unscaled = draws.numbers(stored, n * hidden, 1.0);
    let expected = shard.rescale(rank, gathered, targets, SHARE, &unscaled);
    let (dx, unscaled) = (Buffer::stored(stored, &vec![0.0; n * hidden]), Buffer::stored(stored, &unscaled));
    let table = Buffer::stored(stored, &part.table);
    let pointers = [&dx, &unscaled, &combined, &own, &table, &ids].map(Arg::To);
    let rest = [part.first, part.rows, n, hidden].map(|side| Arg::Int(side as i32));
    host.run(
        launch::vocab_rescale(stored, n as u32, hidden as u32),
        &[&pointers[..], &[Arg::Float(SHARE)], &rest].concat(),
    );
    close("rescaled", stored, &dx.values(), &expected, 1e-5);
}

#[test]
fn every_ranks_vocabulary_passes_are_those_of_the_cpu() {
    let mut draws = Draws::new();
    for host in hosts().into_iter().flatten() {
        for (tokens, hidden, shards) in SIZES {
            let (parts, targets, gathered) = parts(&mut draws, host.stored, tokens, hidden, shards);
            for (rank, part) in parts.iter().enumerate() {
                softmax(host, part, &targets, &gathered[rank * 3 * tokens..(rank + 1) * 3 * tokens]);
                gradients(host, &mut draws, part, &targets, &gathered, rank, hidden);
            }
        }
    }
}

#[test]
fn sums_are_taken_out_of_a_shards_gradient_and_an_empty_shard_has_none() {
    let mut draws = Draws::new();
    for host in hosts().into_iter().flatten() {
        let (tokens, width) = (3, 17);
        let x = draws.numbers(host.stored, tokens * width, 1.0);
        let sums = [2.0, 0.0, 0.5];
        let expected: Vec<f32> = x
            .iter()
            .enumerate()
            .map(|(i, x)| if i / width == 1 { 0.0 } else { x / sums[i / width] })
            .collect();
        let (dx, stats) =
            (Buffer::stored(host.stored, &x), Buffer::f32(&[&[0.0; 3][..], &sums, &[0.0; 3]].concat()));
        let sides = [tokens, width].map(|side| Arg::Int(side as i32));
        let shape = launch::vocab_normalise(host.stored, tokens as u32, width as u32);
        host.run(shape, &[&[Arg::To(&dx), Arg::To(&stats)][..], &sides].concat());
        close("normalised", host.stored, &dx.values(), &expected, 1e-6);
    }
}
