//! Causal multi-head attention between the projections (Vaswani et al. 2017, arXiv:1706.03762), head by head on strided slices.

use crate::execute::model::Sizes;

use super::product::{Into, Matrix, MatrixMut, product};
use super::transpose::transpose;
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

/// Rows of scores that are computed at once. A block needs the keys up to its last row only.
const BLOCK: usize = 32;

/// The blocks of a sequence.
fn blocks(sequence: usize) -> impl Iterator<Item = std::ops::Range<usize>> {
    (0..sequence).step_by(BLOCK).map(move |start| start..(start + BLOCK).min(sequence))
}

/// `attended = softmax(Q Kᵀ / √head, causal) V`; keeps the probabilities, `[batch, heads, sequence, sequence]`. `turned` is scratch.
pub(super) fn forward(
    sizes: &Sizes,
    qkv: &[f32],
    probabilities: &mut [f32],
    attended: &mut [f32],
    turned: &mut [f32],
) {
    let (s, hidden, width) = (sizes.sequence, sizes.hidden, sizes.head());
    let factor = 1.0 / (width as f32).sqrt();
    for head in heads(sizes) {
        let strip = |part: usize, first: usize, rows: usize| {
            Matrix::strided(&qkv[head.query + part * hidden + first * 3 * hidden..], rows, width, 3 * hidden)
        };
        let square = &mut probabilities[head.square];
        transpose(&qkv[head.query + hidden..], s, width, 3 * hidden, turned);
        for block in blocks(s) {
            let (rows, end) = (block.len(), block.end);
            let scores = MatrixMut::strided(&mut square[block.start * s..], rows, end, s);
            let keys = Matrix::strided(turned, width, end, s);
            product(scores, Into::Replace, factor, strip(0, block.start, rows), keys);
            vectorised!(|| {
                for token in block.clone() {
                    let (past, future) = square[token * s..(token + 1) * s].split_at_mut(token + 1);
                    let total = exponentiate(past, max(past));
                    scale(past, 1.0 / total);
                    future.fill(0.0);
                }
            });
            let output = &mut attended[head.column + block.start * hidden..];
            let output = MatrixMut::strided(output, rows, width, hidden);
            let probabilities = Matrix::strided(&square[block.start * s..], rows, end, s);
            product(output, Into::Replace, 1.0, probabilities, strip(2, 0, end));
        }
    }
}

/// The gradients of queries, keys and values by that of `attended`. `scores` is one square of scratch, `turned` one and a strip.
pub(super) fn backward(
    sizes: &Sizes,
    qkv: &[f32],
    probabilities: &[f32],
    d_attended: &[f32],
    d_qkv: &mut [f32],
    [scores, turned]: [&mut [f32]; 2],
) {
    let (s, hidden, width) = (sizes.sequence, sizes.hidden, sizes.head());
    let factor = 1.0 / (width as f32).sqrt();
    let (turned, values) = turned.split_at_mut(s * s);
    for head in heads(sizes) {
        let strip = |part: usize, first: usize, rows: usize| {
            Matrix::strided(&qkv[head.query + part * hidden + first * 3 * hidden..], rows, width, 3 * hidden)
        };
        let output = |first: usize, rows: usize| {
            Matrix::strided(&d_attended[head.column + first * hidden..], rows, width, hidden)
        };
        let mut give = |part: usize, first: usize, left: Matrix<'_>, right: Matrix<'_>| {
            let place = &mut d_qkv[head.query + part * hidden + first * 3 * hidden..];
            let place = MatrixMut::strided(place, left.rows(), width, 3 * hidden);
            product(place, Into::Replace, 1.0, left, right);
        };
        let square = &probabilities[head.square];
        transpose(square, s, s, s, turned);
        transpose(&qkv[head.query + 2 * hidden..], s, width, 3 * hidden, values);
        for block in blocks(s) {
            let (first, rows, end) = (block.start, block.len(), block.end);
            // Later tokens only saw the values of this block.
            let left = Matrix::strided(&turned[first * s + first..], rows, s - first, s);
            give(2, first, left, output(first, s - first));
            let place = MatrixMut::strided(&mut scores[first * s..], rows, end, s);
            product(place, Into::Replace, 1.0, output(first, rows), Matrix::strided(values, width, end, s));
            vectorised!(|| {
                for token in block {
                    let row = token * s..(token + 1) * s;
                    let (past, future) = scores[row.clone()].split_at_mut(token + 1);
                    let probabilities = &square[row][..=token];
                    let mean = dot(past, probabilities);
                    for (score, probability) in past.iter_mut().zip(probabilities) {
                        *score = probability * (*score - mean) * factor;
                    }
                    future.fill(0.0);
                }
            });
            give(0, first, Matrix::strided(&scores[first * s..], rows, end, s), strip(1, 0, end));
        }
        transpose(scores, s, s, s, turned);
        for block in blocks(s) {
            let (first, rows) = (block.start, block.len());
            let left = Matrix::strided(&turned[first * s + first..], rows, s - first, s);
            give(1, first, left, strip(0, first, s - first));
        }
    }
}
