//! The whole output layer on one rank: logits, softmax cross entropy, and their gradients; and the three products that its shards
//! share with it.
//!
//! Logits lie `[rows, tokens]`: the table and its gradient then meet them row by row, and only `[tokens, hidden]` matrices are
//! turned.

use super::product::{Matrix, MatrixMut, Onto, product};
use super::softmax::{columns_exponentiate, columns_max, columns_scale};
use super::tables::OutputTable;
use super::transpose::transpose;
use super::workspace::Factors;

/// Rows of the gradient by the logits that are packed at once.
pub(super) const PACKED_ROWS: usize = 512;

/// The mean loss of a microbatch's tokens; leaves `(softmax - target) * share`, the gradient by the logits, in `logits`.
/// `share` is what one token weighs in the mean loss of a step. `each` is scratch, `[4, tokens]`.
pub(super) fn forward(
    table: &OutputTable<'_>,
    normed: &[f32],
    targets: &[u32],
    share: f32,
    logits: &mut [f32],
    each: &mut [f32],
    factors: &mut Factors,
) -> f64 {
    let n = targets.len();
    multiply(table, normed, n, logits, factors);
    let (most, rest) = each.split_at_mut(n);
    let (totals, rest) = rest.split_at_mut(n);
    let (of_targets, partial) = rest.split_at_mut(n);
    for (token, &target) in targets.iter().enumerate() {
        of_targets[token] = logits[target as usize * n + token];
    }
    columns_max(logits, most);
    columns_exponentiate(logits, most, totals, partial);
    let mut loss = 0.0;
    for token in 0..n {
        loss += f64::from(totals[token].ln() + (most[token] - of_targets[token]));
        totals[token] = share / totals[token];
    }
    columns_scale(logits, totals);
    for (token, &target) in targets.iter().enumerate() {
        logits[target as usize * n + token] -= share;
    }
    loss / n as f64
}

/// `logits = W xᵀ`, `[rows, tokens]`.
pub(super) fn multiply(
    table: &OutputTable<'_>,
    x: &[f32],
    n: usize,
    logits: &mut [f32],
    factors: &mut Factors,
) {
    let (rows, width) = (table.rows.len(), x.len() / n);
    let x = factors.packed.pack_turned(x, width, n, width);
    product(MatrixMut::new(logits, n), Onto::Nothing, Matrix::new(table.value, rows, width), x);
}

/// The gradient by the layer's input, `[tokens, hidden]`, of that by the logits.
pub(super) fn input_grad(
    table: &OutputTable<'_>,
    d_logits: &[f32],
    n: usize,
    dx: &mut [f32],
    factors: &mut Factors,
) {
    let Factors { turned, packed, .. } = factors;
    let (rows, width) = (table.rows.len(), dx.len() / n);
    let turned = &mut turned[..width * n];
    turned.fill(0.0);
    for first in (0..rows).step_by(PACKED_ROWS) {
        let count = PACKED_ROWS.min(rows - first);
        let weight = Matrix::strided(&table.turned[first..], width, count, rows);
        let d_logits = packed.pack(&d_logits[first * n..], count, n, n);
        product(MatrixMut::new(turned, n), Onto::Itself, weight, d_logits);
    }
    transpose(turned, width, n, n, dx);
}

/// Accumulates the table's gradient.
pub(super) fn weight_grad(
    table: &mut OutputTable<'_>,
    x: &[f32],
    n: usize,
    d_logits: &[f32],
    factors: &mut Factors,
) {
    let (rows, width) = (table.rows.len(), x.len() / n);
    let x = factors.packed.pack(x, n, width, width);
    product(MatrixMut::new(table.gradient, width), Onto::Itself, Matrix::new(d_logits, rows, n), x);
}
