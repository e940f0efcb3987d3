//! The whole output layer on one rank: logits, softmax cross entropy, and their gradients.

use super::product::{Into, Matrix, MatrixMut, product};
use super::tables::OutputTable;
use super::vector::{exponentiate, max, scale, vectorised};

/// The mean loss of a microbatch's tokens; leaves `(softmax - target) * share`, the gradient by the logits, in `logits`.
/// `share` is what one token weighs in the mean loss of a step.
pub(super) fn forward(
    table: &OutputTable<'_>,
    normed: &[f32],
    targets: &[u32],
    share: f32,
    logits: &mut [f32],
) -> f64 {
    let (n, vocab) = (targets.len(), table.rows.len());
    let width = normed.len() / n;
    let weight = Matrix::new(table.value, vocab, width);
    product(MatrixMut::new(logits, n, vocab), Into::Replace, 1.0, Matrix::new(normed, n, width), weight.t());
    let mut loss = 0.0;
    for (row, &target) in logits.chunks_exact_mut(vocab).zip(targets) {
        let target = target as usize;
        let logit = row[target];
        let (most, total) = vectorised!(|| {
            let most = max(row);
            let total = exponentiate(row, most);
            scale(row, share / total);
            (most, total)
        });
        row[target] -= share;
        loss += f64::from(total.ln() + (most - logit));
    }
    loss / n as f64
}

/// The gradient by the normed input.
pub(super) fn input_grad(table: &OutputTable<'_>, d_logits: &[f32], d_normed: &mut [f32]) {
    let vocab = table.rows.len();
    let n = d_logits.len() / vocab;
    let width = d_normed.len() / n;
    let weight = Matrix::new(table.value, vocab, width);
    let d_logits = Matrix::new(d_logits, n, vocab);
    product(MatrixMut::new(d_normed, n, width), Into::Replace, 1.0, d_logits, weight);
}

/// Accumulates the table's gradient.
pub(super) fn weight_grad(table: &mut OutputTable<'_>, normed: &[f32], d_logits: &[f32]) {
    let vocab = table.rows.len();
    let n = d_logits.len() / vocab;
    let width = normed.len() / n;
    let d_logits = Matrix::new(d_logits, n, vocab);
    let gradient = MatrixMut::new(table.gradient, vocab, width);
    product(gradient, Into::Add, 1.0, d_logits.t(), Matrix::new(normed, n, width));
}
