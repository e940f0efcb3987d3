//! The output layer sharded over all ranks (Yeung et al. 2024, arXiv:2411.05288, algorithms 1 and 2): S, T and what lies between.
//!
//! Each rank owns some rows of the output embedding, maybe none. Its statistics of a token are the largest logit m, the sum s of
//! e^(logit - m), and the target's logit z, negative infinity where another rank owns the target. A shard without rows has
//! m = z = -inf and s = 0, which no combination notices.

use crate::execute::model::{LogitsState, Sizes};

use super::output;
use super::softmax::{columns_exponentiate, columns_max, columns_scale};
use super::tables::OutputTable;
use super::vector::{add_scaled, exp, scale, vectorised};
use super::workspace::Factors;

/// The position of a target among the rows of a shard, where it is owned.
fn owned(table: &OutputTable<'_>, target: u32) -> Option<usize> {
    let target = target as usize;
    table.rows.contains(&target).then(|| target - table.rows.start)
}

/// Pass S: exponentials of the shard's logits, and its statistics `[3, tokens]`. Scratch as in [`output::forward`].
pub(super) fn softmax(
    table: &OutputTable<'_>,
    x: &[f32],
    targets: &[u32],
    kept: &mut LogitsState<'_>,
    stats: &mut [f32],
    each: &mut [f32],
    factors: &mut Factors,
) {
    let n = targets.len();
    kept.input.copy_from_slice(x);
    output::multiply(table, x, n, kept.exponentials, factors);
    let (most, rest) = stats.split_at_mut(n);
    let (sums, of_targets) = rest.split_at_mut(n);
    for (token, &target) in targets.iter().enumerate() {
        of_targets[token] =
            owned(table, target).map_or(f32::NEG_INFINITY, |row| kept.exponentials[row * n + token]);
    }
    columns_max(kept.exponentials, most);
    columns_exponentiate(kept.exponentials, most, sums, &mut each[..n]);
}

/// Algorithm 2's share of S: the shard's softmax times its rows, `[tokens, hidden]`.
pub(super) fn unscaled_grad(
    sizes: &Sizes,
    table: &OutputTable<'_>,
    exponentials: &[f32],
    sums: &[f32],
    dx: &mut [f32],
    factors: &mut Factors,
) {
    output::input_grad(table, exponentials, sizes.tokens, dx, factors);
    if !table.rows.is_empty() {
        vectorised!(|| {
            for (dx, sum) in dx.chunks_exact_mut(sizes.hidden).zip(sums) {
                scale(dx, 1.0 / sum);
            }
        });
    }
}

/// What the gathered statistics `[ranks, 3, tokens]` say of one token.
struct Combined {
    /// The token's loss.
    loss: f32,
    /// `e^(m_r - m) / s`: what turns this rank's exponentials into probabilities.
    factor: f32,
    /// This rank's own sum of exponentials.
    sum: f32,
}

/// Combines one token's statistics as rank `rank` needs them.
fn combine(stats: &[f32], n: usize, token: usize, rank: usize) -> Combined {
    let of = |which: usize| stats.chunks_exact(3 * n).map(move |shard| shard[which * n + token]);
    let larger = |most: f32, value: f32| if most < value { value } else { most };
    let most = of(0).fold(f32::NEG_INFINITY, larger);
    let total: f32 = of(0).zip(of(1)).map(|(shard_most, sum)| sum * exp(shard_most - most)).sum();
    let logit = of(2).fold(f32::NEG_INFINITY, larger);
    let own = &stats[rank * 3 * n..];
    Combined {
        loss: total.ln() + (most - logit),
        factor: exp(own[token] - most) / total,
        sum: own[n + token],
    }
}

/// Algorithm 2, between the gather and the sum: this shard's gradient by the output layer's input.
pub(super) fn rescale(
    table: &OutputTable<'_>,
    rank: usize,
    stats: &[f32],
    targets: &[u32],
    share: f32,
    unscaled: &[f32],
    dx: &mut [f32],
) {
    let n = targets.len();
    let width = dx.len() / n;
    dx.copy_from_slice(unscaled);
    for (token, dx) in dx.chunks_exact_mut(width).enumerate() {
        let Combined { factor, sum, .. } = combine(stats, n, token, rank);
        vectorised!(|| scale(dx, factor * sum * share));
        if let Some(row) = owned(table, targets[token]) {
            let row = &table.value[row * width..(row + 1) * width];
            vectorised!(|| add_scaled(dx, -share, row));
        }
    }
}

/// The mean loss of a microbatch of `n` tokens by its gathered statistics.
pub(super) fn loss(stats: &[f32], n: usize) -> f64 {
    let of = |token| f64::from(combine(stats, n, token, 0).loss);
    (0..n).map(of).sum::<f64>() / n as f64
}

/// Turns a shard's exponentials into its gradient by the logits, `(softmax - target) * share`, in place; returns the mean loss.
/// `each` is scratch, an element a token.
pub(super) fn logits_grad(
    table: &OutputTable<'_>,
    rank: usize,
    stats: &[f32],
    targets: &[u32],
    share: f32,
    exponentials: &mut [f32],
    each: &mut [f32],
) -> f64 {
    let n = targets.len();
    let factors = &mut each[..n];
    let mut loss = 0.0;
    for (token, factor) in factors.iter_mut().enumerate() {
        let combined = combine(stats, n, token, rank);
        loss += f64::from(combined.loss);
        *factor = combined.factor * share;
    }
    columns_scale(exponentials, factors);
    for (token, &target) in targets.iter().enumerate() {
        if let Some(row) = owned(table, target) {
            exponentials[row * n + token] -= share;
        }
    }
    loss / n as f64
}
