//! Causal multi-head attention between the projections (Vaswani et al. 2017, arXiv:1706.03762), head by head on strided slices.
//!
//! Where sequences are sliced, a slice's tokens also attend to all tokens of the slices before it: their keys and values lie in those
//! slices' `act`, and the gradients by them are added up there until the slice's own backward pass comes (Sun et al. 2024,
//! arXiv:2406.03488, section 3.2).

use crate::execute::model::{LayerAct, Sizes};

use super::product::{Into, Matrix, MatrixMut, product};
use super::transpose::transpose;
use super::vector::{add, dot, exponentiate, max, scale, vectorised};

/// Where one head of one sequence lies.
struct Head {
    /// Its columns of the first token's row of `qkv`; keys follow after `hidden`, values after twice that.
    query: usize,
    /// Its columns of the first token's row of `owed`: keys; values follow after `hidden`.
    owed: usize,
    /// Its columns of the first token's row of a `[tokens, hidden]` matrix.
    column: usize,
    /// Its area of the probabilities.
    area: std::ops::Range<usize>,
}

/// Every head of every sequence.
fn heads(sizes: &Sizes) -> impl Iterator<Item = Head> {
    let Sizes { batch, sequence, keys, hidden, heads, .. } = *sizes;
    let (width, area) = (hidden / heads, sequence * keys);
    (0..batch * heads).map(move |index| {
        let (row, column) = (index / heads * sequence, index % heads * width);
        Head {
            query: row * 3 * hidden + column,
            owed: row * 2 * hidden + column,
            column: row * hidden + column,
            area: index * area..(index + 1) * area,
        }
    })
}

/// One layer's state of the slices before one, first to last.
pub(super) struct Before<'a, 'b> {
    slices: &'a mut [&'b mut [f32]],
    layer: usize,
}

impl<'a, 'b> Before<'a, 'b> {
    /// The share of a layer, counted on its stage, in the state of earlier slices.
    pub(super) fn new(slices: &'a mut [&'b mut [f32]], layer: usize) -> Self {
        Self { slices, layer }
    }

    /// No earlier slices.
    pub(super) fn none() -> Self {
        Self { slices: &mut [], layer: 0 }
    }

    fn len(&self) -> usize {
        self.slices.len()
    }

    fn of(&mut self, slice: usize, sizes: &Sizes) -> LayerAct<'_> {
        let length = LayerAct::elements(sizes);
        LayerAct::cut(sizes, &mut self.slices[slice][self.layer * length..(self.layer + 1) * length])
    }
}

/// Rows of scores that are computed at once. A block needs the keys up to its last row only.
const BLOCK: usize = 32;

/// The blocks of a sequence.
fn blocks(sequence: usize) -> impl Iterator<Item = std::ops::Range<usize>> {
    (0..sequence).step_by(BLOCK).map(move |start| start..(start + BLOCK).min(sequence))
}

/// `attended = softmax(Q Kᵀ / √head, causal) V`; keeps the probabilities, `[batch, heads, sequence, keys]`. `turned` is scratch.
pub(super) fn forward(
    sizes: &Sizes,
    qkv: &[f32],
    before: &mut Before<'_, '_>,
    probabilities: &mut [f32],
    attended: &mut [f32],
    turned: &mut [f32],
) {
    let (s, all, hidden, width) = (sizes.sequence, sizes.keys, sizes.hidden, sizes.head());
    let (offset, factor) = (before.len() * s, 1.0 / (width as f32).sqrt());
    for head in heads(sizes) {
        let strip = |part: usize, first: usize, rows: usize| {
            Matrix::strided(&qkv[head.query + part * hidden + first * 3 * hidden..], rows, width, 3 * hidden)
        };
        let square = &mut probabilities[head.area];
        for slice in 0..before.len() {
            transpose(&before.of(slice, sizes).qkv[head.query + hidden..], s, width, 3 * hidden, turned);
            let scores = MatrixMut::strided(&mut square[slice * s..], s, s, all);
            product(scores, Into::Replace, factor, strip(0, 0, s), Matrix::strided(turned, width, s, s));
        }
        transpose(&qkv[head.query + hidden..], s, width, 3 * hidden, turned);
        for block in blocks(s) {
            let (rows, end) = (block.len(), block.end);
            let scores = MatrixMut::strided(&mut square[block.start * all + offset..], rows, end, all);
            let keys = Matrix::strided(turned, width, end, s);
            product(scores, Into::Replace, factor, strip(0, block.start, rows), keys);
            vectorised!(|| {
                for token in block.clone() {
                    let (past, future) =
                        square[token * all..(token + 1) * all].split_at_mut(offset + token + 1);
                    let total = exponentiate(past, max(past));
                    scale(past, 1.0 / total);
                    future.fill(0.0);
                }
            });
            let output = &mut attended[head.column + block.start * hidden..];
            let output = MatrixMut::strided(output, rows, width, hidden);
            let probabilities = Matrix::strided(&square[block.start * all + offset..], rows, end, all);
            product(output, Into::Replace, 1.0, probabilities, strip(2, 0, end));
        }
        for slice in 0..before.len() {
            let output = MatrixMut::strided(&mut attended[head.column..], s, width, hidden);
            let probabilities = Matrix::strided(&square[slice * s..], s, s, all);
            let act = before.of(slice, sizes);
            let values = Matrix::strided(&act.qkv[head.query + 2 * hidden..], s, width, 3 * hidden);
            product(output, Into::Add, 1.0, probabilities, values);
        }
    }
}

/// The gradients of queries, keys and values by that of `attended`; those of earlier slices' keys and values are added to what these are
/// owed. `scores` is one head's area of scratch, `turned` a square of a slice and a strip.
pub(super) fn backward(
    sizes: &Sizes,
    act: &LayerAct<'_>,
    before: &mut Before<'_, '_>,
    d_attended: &[f32],
    d_qkv: &mut [f32],
    [scores, turned]: [&mut [f32]; 2],
) {
    let (s, all, hidden, width) = (sizes.sequence, sizes.keys, sizes.hidden, sizes.head());
    let (offset, factor) = (before.len() * s, 1.0 / (width as f32).sqrt());
    let (turned, values) = turned.split_at_mut(s * s);
    let qkv = &*act.qkv;
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
        let square = &act.probabilities[head.area.clone()];
        owe_values(sizes, &head, before, square, output(0, s), scores, [turned, values]);
        transpose(&square[offset..], s, s, all, turned);
        transpose(&qkv[head.query + 2 * hidden..], s, width, 3 * hidden, values);
        for block in blocks(s) {
            let (first, rows, end) = (block.start, block.len(), block.end);
            // Later tokens only saw the values of this block.
            let left = Matrix::strided(&turned[first * s + first..], rows, s - first, s);
            give(2, first, left, output(first, s - first));
            let place = MatrixMut::strided(&mut scores[first * all + offset..], rows, end, all);
            product(place, Into::Replace, 1.0, output(first, rows), Matrix::strided(values, width, end, s));
            vectorised!(|| {
                for token in block {
                    let row = token * all..(token + 1) * all;
                    let (past, future) = scores[row.clone()].split_at_mut(offset + token + 1);
                    let probabilities = &square[row][..=offset + token];
                    let mean = dot(past, probabilities);
                    for (score, probability) in past.iter_mut().zip(probabilities) {
                        *score = probability * (*score - mean) * factor;
                    }
                    future.fill(0.0);
                }
            });
            let left = Matrix::strided(&scores[first * all + offset..], rows, end, all);
            give(0, first, left, strip(1, 0, end));
        }
        transpose(&scores[offset..], s, s, all, turned);
        for block in blocks(s) {
            let (first, rows) = (block.start, block.len());
            let left = Matrix::strided(&turned[first * s + first..], rows, s - first, s);
            give(1, first, left, strip(0, first, s - first));
        }
        owe_keys(sizes, &head, before, strip(0, 0, s), scores, d_qkv, turned);
    }
    collect(sizes, act.owed, d_qkv);
}

/// One head's gradients by the weights of earlier slices' tokens, in their columns of `scores`; the values get what they are owed.
fn owe_values(
    sizes: &Sizes,
    head: &Head,
    before: &mut Before<'_, '_>,
    probabilities: &[f32],
    output: Matrix<'_>,
    scores: &mut [f32],
    [turned, values]: [&mut [f32]; 2],
) {
    let (s, all, hidden, width) = (sizes.sequence, sizes.keys, sizes.hidden, sizes.head());
    for slice in 0..before.len() {
        let earlier = before.of(slice, sizes);
        transpose(&earlier.qkv[head.query + 2 * hidden..], s, width, 3 * hidden, values);
        let place = MatrixMut::strided(&mut scores[slice * s..], s, s, all);
        product(place, Into::Replace, 1.0, output, Matrix::strided(values, width, s, s));
        transpose(&probabilities[slice * s..], s, s, all, turned);
        let owed = MatrixMut::strided(&mut earlier.owed[head.owed + hidden..], s, width, 2 * hidden);
        product(owed, Into::Add, 1.0, Matrix::strided(turned, s, s, s), output);
    }
}

/// The share of one head's queries' gradients that goes through earlier slices' keys; the keys get what they are owed.
fn owe_keys(
    sizes: &Sizes,
    head: &Head,
    before: &mut Before<'_, '_>,
    queries: Matrix<'_>,
    scores: &[f32],
    d_qkv: &mut [f32],
    turned: &mut [f32],
) {
    let (s, all, hidden, width) = (sizes.sequence, sizes.keys, sizes.hidden, sizes.head());
    for slice in 0..before.len() {
        let earlier = before.of(slice, sizes);
        let keys = Matrix::strided(&earlier.qkv[head.query + hidden..], s, width, 3 * hidden);
        let place = MatrixMut::strided(&mut d_qkv[head.query..], s, width, 3 * hidden);
        product(place, Into::Add, 1.0, Matrix::strided(&scores[slice * s..], s, s, all), keys);
        transpose(&scores[slice * s..], s, s, all, turned);
        let owed = MatrixMut::strided(&mut earlier.owed[head.owed..], s, width, 2 * hidden);
        product(owed, Into::Add, 1.0, Matrix::strided(turned, s, s, s), queries);
    }
}

/// Adds what later slices owe to a slice's keys and values to the gradients by its own tokens.
fn collect(sizes: &Sizes, owed: &[f32], d_qkv: &mut [f32]) {
    let hidden = sizes.hidden;
    vectorised!(|| {
        for (d_qkv, owed) in d_qkv.chunks_exact_mut(3 * hidden).zip(owed.chunks_exact(2 * hidden)) {
            add(&mut d_qkv[hidden..], owed);
        }
    });
}
