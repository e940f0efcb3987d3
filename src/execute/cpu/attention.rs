//! Causal multi-head attention between the projections (Vaswani et al. 2017, arXiv:1706.03762), head by head on strided slices.

use crate::execute::model::Sizes;

use super::product::{Into, Matrix, MatrixMut, product};
use super::vector::{dot, exponentiate, max, scale, vectorised};

/// Where one head of one sequence lies.
struct Head {
    /// Its columns of the first token's row of `qkv`; keys follow after `hidden`, values after twice that.
    query: usize,
    /// Its columns of the first token's row of a `[tokens, hidden]` matrix.
    column: usize,
    /// Its square of the probabilities.
    square: std::ops::Range<usize>,
}

/// Every head of every sequence.
fn heads(sizes: &Sizes) -> impl Iterator<Item = Head> {
    let Sizes { batch, sequence, hidden, heads, .. } = *sizes;
    let (width, area) = (hidden / heads, sequence * sequence);
    (0..batch * heads).map(move |index| {
        let (row, column) = (index / heads * sequence, index % heads * width);
        Head {
            query: row * 3 * hidden + column,
            column: row * hidden + column,
            square: index * area..(index + 1) * area,
        }
    })
}

/// `attended = softmax(Q Kᵀ / √head, causal) V`; keeps the probabilities, `[batch, heads, sequence, sequence]`.
pub(super) fn forward(sizes: &Sizes, qkv: &[f32], probabilities: &mut [f32], attended: &mut [f32]) {
    let (s, hidden, width) = (sizes.sequence, sizes.hidden, sizes.head());
    for head in heads(sizes) {
        let strip = |part: usize| Matrix::strided(&qkv[head.query + part * hidden..], s, width, 3 * hidden);
        let (queries, keys, values) = (strip(0), strip(1), strip(2));
        let square = &mut probabilities[head.square];
        let factor = 1.0 / (width as f32).sqrt();
        product(MatrixMut::new(square, s, s), Into::Replace, factor, queries, keys.t());
        vectorised!(|| {
            for (token, row) in square.chunks_exact_mut(s).enumerate() {
                let (past, future) = row.split_at_mut(token + 1);
                let total = exponentiate(past, max(past));
                scale(past, 1.0 / total);
                future.fill(0.0);
            }
        });
        let output = MatrixMut::strided(&mut attended[head.column..], s, width, hidden);
        product(output, Into::Replace, 1.0, Matrix::new(square, s, s), values);
    }
}

/// The gradients of queries, keys and values by that of `attended`. `scores` is one square of scratch.
pub(super) fn backward(
    sizes: &Sizes,
    qkv: &[f32],
    probabilities: &[f32],
    d_attended: &[f32],
    d_qkv: &mut [f32],
    scores: &mut [f32],
) {
    let (s, hidden, width) = (sizes.sequence, sizes.hidden, sizes.head());
    let factor = 1.0 / (width as f32).sqrt();
    for head in heads(sizes) {
        let strip = |part: usize| Matrix::strided(&qkv[head.query + part * hidden..], s, width, 3 * hidden);
        let (queries, keys, values) = (strip(0), strip(1), strip(2));
        let output = Matrix::strided(&d_attended[head.column..], s, width, hidden);
        let square = &probabilities[head.square];
        let mut give = |part: usize, left: Matrix<'_>, right: Matrix<'_>| {
            let place = MatrixMut::strided(&mut d_qkv[head.query + part * hidden..], s, width, 3 * hidden);
            product(place, Into::Replace, 1.0, left, right);
        };
        give(2, Matrix::new(square, s, s).t(), output);
        product(MatrixMut::new(scores, s, s), Into::Replace, 1.0, output, values.t());
        vectorised!(|| {
            let rows = scores.chunks_exact_mut(s).zip(square.chunks_exact(s));
            for (token, (scores, probabilities)) in rows.enumerate() {
                let (past, future) = scores.split_at_mut(token + 1);
                let probabilities = &probabilities[..=token];
                let mean = dot(past, probabilities);
                for (score, probability) in past.iter_mut().zip(probabilities) {
                    *score = probability * (*score - mean) * factor;
                }
                future.fill(0.0);
            }
        });
        give(0, Matrix::new(scores, s, s), keys);
        give(1, Matrix::new(scores, s, s).t(), queries);
    }
}
