//! The whole output layer on one rank: logits, softmax cross entropy, and their gradients; and the three products that its shards
//! share with it.
//!
//! Logits lie `[rows, tokens]`: the table and its gradient then meet them row by row.

use super::product::{Matrix, MatrixMut, Onto, product, product_of_turned};
use super::softmax::{columns_exponentiate, columns_max, columns_scale};
use super::tables::OutputTable;
use super::workspace::Factors;

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
    let d_logits = Matrix::new(d_logits, table.rows.len(), n);
    let width = dx.len() / n;
    product_of_turned(MatrixMut::new(dx, width), Onto::Nothing, d_logits, table.packed, &mut factors.tiles);
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
