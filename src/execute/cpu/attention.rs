//! Causal multi-head attention between the projections (Vaswani et al. 2017, arXiv:1706.03762), head by head on strided slices.

use crate::execute::model::Sizes;

use super::panels::Packed;
use super::product::{Matrix, MatrixMut, Onto, product};
use super::transpose::transpose;
use super::vector::{dot, exponentiate, max, scale, vectorised};
use super::workspace::Factors;

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

/// `attended = softmax(Q Kᵀ / √head, causal) V`; keeps the probabilities, `[batch, heads, sequence, sequence]`.
pub(super) fn forward(
    sizes: &Sizes,
    qkv: &[f32],
    probabilities: &mut [f32],
    attended: &mut [f32],
    factors: &mut Factors,
) {
    let (s, hidden, width) = (sizes.sequence, sizes.hidden, sizes.head());
    let factor = 1.0 / (width as f32).sqrt();
    let [keys, values, ..] = &mut factors.strips;
    for head in heads(sizes) {
        let square = &mut probabilities[head.square];
        let keys = keys.pack_turned(&qkv[head.query + hidden..], width, s, 3 * hidden);
        let values = values.pack(&qkv[head.query + 2 * hidden..], s, width, 3 * hidden);
        for block in blocks(s) {
            let (rows, end) = (block.len(), block.end);
            let queries = &qkv[head.query + block.start * 3 * hidden..];
            let queries = Matrix::strided(queries, rows, width, 3 * hidden);
            let scores = MatrixMut::new(&mut square[block.start * s..], s);
            product(scores, Onto::Nothing, queries, keys.columns_to(end));
            vectorised!(|| {
                for token in block.clone() {
                    let (past, future) = square[token * s..(token + 1) * s].split_at_mut(token + 1);
                    let total = exponentiate(past, max(past), factor);
                    scale(past, 1.0 / total);
                    future.fill(0.0);
                }
            });
            let output = MatrixMut::new(&mut attended[head.column + block.start * hidden..], hidden);
            let probabilities = Matrix::strided(&square[block.start * s..], rows, end, s);
            product(output, Onto::Nothing, probabilities, values.rows_in(0..end));
        }
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
    factors: &mut Factors,
) {
    let (s, hidden, width) = (sizes.sequence, sizes.hidden, sizes.head());
    let factor = 1.0 / (width as f32).sqrt();
    let Factors { turned, strips: [queries, keys, values, outputs], .. } = factors;
    for head in heads(sizes) {
        let mut give = |part: usize, first: usize, left: Matrix<'_>, right: Packed<'_>| {
            let place =
                MatrixMut::new(&mut d_qkv[head.query + part * hidden + first * 3 * hidden..], 3 * hidden);
            product(place, Onto::Nothing, left, right);
        };
        let strip = |part: usize| &qkv[head.query + part * hidden..];
        let queries = queries.pack(strip(0), s, width, 3 * hidden);
        let keys = keys.pack(strip(1), s, width, 3 * hidden);
        let values = values.pack_turned(strip(2), width, s, 3 * hidden);
        let outputs = outputs.pack(&d_attended[head.column..], s, width, hidden);
        let square = &probabilities[head.square];
        transpose(square, s, s, s, turned);
        for block in blocks(s) {
            let (first, rows, end) = (block.start, block.len(), block.end);
            // Later tokens only saw the values of this block.
            let left = Matrix::strided(&turned[first * s + first..], rows, s - first, s);
            give(2, first, left, outputs.rows_in(first..s));
            let d_output = Matrix::strided(&d_attended[head.column + first * hidden..], rows, width, hidden);
            let place = MatrixMut::new(&mut scores[first * s..], s);
            product(place, Onto::Nothing, d_output, values.columns_to(end));
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
            give(0, first, Matrix::strided(&scores[first * s..], rows, end, s), keys.rows_in(0..end));
        }
        transpose(scores, s, s, s, turned);
        for block in blocks(s) {
            let (first, rows) = (block.start, block.len());
            let left = Matrix::strided(&turned[first * s + first..], rows, s - first, s);
            give(1, first, left, queries.rows_in(first..s));
        }
    }
}
