//! The whole output layer on one rank: logits, softmax cross entropy, and their gradients; and the three products that its shards
//! share with it.
//!
//! Logits lie `[rows, tokens]`: the table and its gradient then meet them row by row, and only `[tokens, hidden]` matrices are
//! turned.

use super::product::{Into, Matrix, MatrixMut, product};
use super::softmax::{columns_exponentiate, columns_max, columns_scale};
use super::tables::OutputTable;
use super::transpose::transpose;

/// The mean loss of a microbatch's tokens; leaves `(softmax - target) * share`, the gradient by the logits, in `logits`.
/// `share` is what one token weighs in the mean loss of a step. `each` is scratch, `[4, tokens]`.
pub(super) fn forward(
    table: &OutputTable<'_>,
    normed: &[f32],
    targets: &[u32],
    share: f32,
    logits: &mut [f32],
    [turned, each]: [&mut [f32]; 2],
) -> f64 {
    let n = targets.len();
    multiply(table, normed, n, logits, turned);
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

/// `logits = W xᵀ`, `[rows, tokens]`. `turned` is scratch for x.
pub(super) fn multiply(table: &OutputTable<'_>, x: &[f32], n: usize, logits: &mut [f32], turned: &mut [f32]) {
    let (rows, width) = (table.rows.len(), x.len() / n);
    transpose(x, n, width, width, turned);
    let weight = Matrix::new(table.value, rows, width);
    product(MatrixMut::new(logits, rows, n), Into::Replace, 1.0, weight, Matrix::new(turned, width, n));
}

/// The gradient by the layer's input, `[tokens, hidden]`, of that by the logits. `turned` is scratch for it.
pub(super) fn input_grad(
    table: &OutputTable<'_>,
    d_logits: &[f32],
    n: usize,
    dx: &mut [f32],
    turned: &mut [f32],
) {
    let (rows, width) = (table.rows.len(), dx.len() / n);
    let (weight, d_logits) = (Matrix::new(table.turned, width, rows), Matrix::new(d_logits, rows, n));
    product(MatrixMut::new(turned, width, n), Into::Replace, 1.0, weight, d_logits);
    transpose(turned, width, n, n, dx);
}

/// Accumulates the table's gradient.
pub(super) fn weight_grad(table: &mut OutputTable<'_>, x: &[f32], n: usize, d_logits: &[f32]) {
    let (rows, width) = (table.rows.len(), x.len() / n);
    let gradient = MatrixMut::new(table.gradient, rows, width);
    product(gradient, Into::Add, 1.0, Matrix::new(d_logits, rows, n), Matrix::new(x, n, width));
}
