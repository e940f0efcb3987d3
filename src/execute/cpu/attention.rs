//! Causal multi-head attention between the projections (Vaswani et al. 2017, arXiv:1706.03762), head by head on strided slices.
//!
//! Where sequences are sliced, a slice's tokens also attend to all tokens of the slices before it: their keys and values lie in those
//! slices' `act`, and the gradients by them are added up there until the slice's own backward pass comes (Sun et al. 2024,
//! arXiv:2406.03488, section 3.2).

use crate::execute::model::{LayerAct, Sizes};

use super::panels::{Packed, Panels};
use super::product::{Matrix, MatrixMut, Onto, product, product_of_turned};
use super::vector::{add, dot, exponentiate, max, scale, vectorised};
use super::workspace::Factors;

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

/// `attended = softmax(Q Kᵀ / √head, causal) V`; keeps the probabilities, `[batch, heads, sequence, keys]`.
pub(super) fn forward(
    sizes: &Sizes,
    qkv: &[f32],
    before: &mut Before<'_, '_>,
    probabilities: &mut [f32],
    attended: &mut [f32],
    factors: &mut Factors,
) {
    let (s, all, hidden, width) = (sizes.sequence, sizes.keys, sizes.hidden, sizes.head());
    let (offset, factor) = (before.len() * s, 1.0 / (width as f32).sqrt());
    let [keys, values, ..] = &mut factors.strips;
    for head in heads(sizes) {
        let square = &mut probabilities[head.area];
        let queries = |block: &std::ops::Range<usize>| {
            Matrix::strided(&qkv[head.query + block.start * 3 * hidden..], block.len(), width, 3 * hidden)
        };
        for slice in 0..before.len() {
            let act = before.of(slice, sizes);
            let keys = keys.pack_turned(&act.qkv[head.query + hidden..], width, s, 3 * hidden);
            let scores = MatrixMut::new(&mut square[slice * s..], all);
            product(scores, Onto::Nothing, queries(&(0..s)), keys);
        }
        let keys = keys.pack_turned(&qkv[head.query + hidden..], width, s, 3 * hidden);
        let own = values.pack(&qkv[head.query + 2 * hidden..], s, width, 3 * hidden);
        for block in blocks(s) {
            let (rows, end) = (block.len(), block.end);
            let scores = MatrixMut::new(&mut square[block.start * all + offset..], all);
            product(scores, Onto::Nothing, queries(&block), keys.columns_to(end));
            vectorised!(|| {
                for token in block.clone() {
                    let (past, future) =
                        square[token * all..(token + 1) * all].split_at_mut(offset + token + 1);
                    let total = exponentiate(past, max(past), factor);
                    scale(past, 1.0 / total);
                    future.fill(0.0);
                }
            });
            let output = MatrixMut::new(&mut attended[head.column + block.start * hidden..], hidden);
            let probabilities = Matrix::strided(&square[block.start * all + offset..], rows, end, all);
            product(output, Onto::Nothing, probabilities, own.rows_in(0..end));
        }
        for slice in 0..before.len() {
            let act = before.of(slice, sizes);
            let values = values.pack(&act.qkv[head.query + 2 * hidden..], s, width, 3 * hidden);
            let output = MatrixMut::new(&mut attended[head.column..], hidden);
            product(output, Onto::Itself, Matrix::strided(&square[slice * s..], s, s, all), values);
        }
    }
}

/// The gradients of queries, keys and values by that of `attended`; those of earlier slices' keys and values are added to what these are
/// owed. `scores` is one head's area of scratch.
pub(super) fn backward(
    sizes: &Sizes,
    act: &LayerAct<'_>,
    before: &mut Before<'_, '_>,
    d_attended: &[f32],
    d_qkv: &mut [f32],
    scores: &mut [f32],
    factors: &mut Factors,
) {
    let (s, all, hidden, width) = (sizes.sequence, sizes.keys, sizes.hidden, sizes.head());
    let (offset, factor) = (before.len() * s, 1.0 / (width as f32).sqrt());
    let Factors { tiles, strips: [queries, keys, values, outputs], .. } = factors;
    for head in heads(sizes) {
        let place = |part: usize, first: usize| head.query + part * hidden + first * 3 * hidden;
        let strip = |part: usize| &act.qkv[head.query + part * hidden..];
        let d_output = |block: &std::ops::Range<usize>| {
            let rows = &d_attended[head.column + block.start * hidden..];
            Matrix::strided(rows, block.len(), width, hidden)
        };
        let queries = queries.pack(strip(0), s, width, 3 * hidden);
        let own_keys = keys.pack(strip(1), s, width, 3 * hidden);
        let outputs = outputs.pack(&d_attended[head.column..], s, width, hidden);
        let square = &act.probabilities[head.area.clone()];
        owe_values(sizes, &head, before, square, (d_output(&(0..s)), outputs), scores, (tiles, values));
        let values = values.pack_turned(strip(2), width, s, 3 * hidden);
        for block in blocks(s) {
            let (first, rows, end) = (block.start, block.len(), block.end);
            // Only this block's and later tokens saw the values of this block.
            let left = Matrix::strided(&square[first * all + offset + first..], s - first, rows, all);
            let d_values = MatrixMut::new(&mut d_qkv[place(2, first)..], 3 * hidden);
            product_of_turned(d_values, Onto::Nothing, left, outputs.rows_in(first..s), tiles);
            let d_scores = MatrixMut::new(&mut scores[first * all + offset..], all);
            product(d_scores, Onto::Nothing, d_output(&block), values.columns_to(end));
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
            let d_queries = MatrixMut::new(&mut d_qkv[place(0, first)..], 3 * hidden);
            product(d_queries, Onto::Nothing, left, own_keys.rows_in(0..end));
        }
        for block in blocks(s) {
            let (first, rows) = (block.start, block.len());
            let left = Matrix::strided(&scores[first * all + offset + first..], s - first, rows, all);
            let d_keys = MatrixMut::new(&mut d_qkv[place(1, first)..], 3 * hidden);
            product_of_turned(d_keys, Onto::Nothing, left, queries.rows_in(first..s), tiles);
        }
        owe_keys(sizes, &head, before, queries, scores, d_qkv, (tiles, keys));
    }
    collect(sizes, act.owed, d_qkv);
}

/// One head's gradients by the weights of earlier slices' tokens, in their columns of `scores`; the values get what they are owed.
fn owe_values(
    sizes: &Sizes,
    head: &Head,
    before: &mut Before<'_, '_>,
    probabilities: &[f32],
    (d_output, outputs): (Matrix<'_>, Packed<'_>),
    scores: &mut [f32],
    (tiles, values): (&mut [f32], &mut Panels),
) {
    let (s, all, hidden, width) = (sizes.sequence, sizes.keys, sizes.hidden, sizes.head());
    for slice in 0..before.len() {
        let earlier = before.of(slice, sizes);
        let values = values.pack_turned(&earlier.qkv[head.query + 2 * hidden..], width, s, 3 * hidden);
        product(MatrixMut::new(&mut scores[slice * s..], all), Onto::Nothing, d_output, values);
        let owed = MatrixMut::new(&mut earlier.owed[head.owed + hidden..], 2 * hidden);
        let probabilities = Matrix::strided(&probabilities[slice * s..], s, s, all);
        product_of_turned(owed, Onto::Itself, probabilities, outputs, tiles);
    }
}

/// The share of one head's queries' gradients that goes through earlier slices' keys; the keys get what they are owed.
fn owe_keys(
    sizes: &Sizes,
    head: &Head,
    before: &mut Before<'_, '_>,
    queries: Packed<'_>,
    scores: &[f32],
    d_qkv: &mut [f32],
    (tiles, keys): (&mut [f32], &mut Panels),
) {
    let (s, all, hidden, width) = (sizes.sequence, sizes.keys, sizes.hidden, sizes.head());
    for slice in 0..before.len() {
        let earlier = before.of(slice, sizes);
        let keys = keys.pack(&earlier.qkv[head.query + hidden..], s, width, 3 * hidden);
        let place = MatrixMut::new(&mut d_qkv[head.query..], 3 * hidden);
        product(place, Onto::Itself, Matrix::strided(&scores[slice * s..], s, s, all), keys);
        let owed = MatrixMut::new(&mut earlier.owed[head.owed..], 2 * hidden);
        let scores = Matrix::strided(&scores[slice * s..], s, s, all);
        product_of_turned(owed, Onto::Itself, scores, queries, tiles);
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
