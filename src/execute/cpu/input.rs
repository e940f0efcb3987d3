//! The input layer: embeddings of tokens and positions.

use std::ops::Range;

use super::param::Param;
use super::vector::{add, vectorised};

/// The rows of the tokens that a table owns, 0 elsewhere.
pub(super) fn lookup(table: &Param, tokens: &[u32], width: usize, x: &mut [f32]) {
    let rows = table.rows();
    for (x, &token) in x.chunks_exact_mut(width).zip(tokens) {
        let token = token as usize;
        if rows.contains(&token) {
            let start = (token - rows.start) * width;
            x.copy_from_slice(&table.value[start..start + width]);
        } else {
            x.fill(0.0);
        }
    }
}

/// Adds the gradient of every token's row to the rows that a table owns, in the order of tokens.
pub(super) fn scatter(table: &mut Param, tokens: &[u32], width: usize, dx: &[f32]) {
    let rows = table.rows();
    for (dx, &token) in dx.chunks_exact(width).zip(tokens) {
        let token = token as usize;
        if rows.contains(&token) {
            let start = (token - rows.start) * width;
            let row = &mut table.gradient[start..start + width];
            vectorised!(|| add(row, dx));
        }
    }
}

/// Adds each position's embedding; `range` is that of the tokens' positions in the table's elements.
pub(super) fn add_positions(positions: &Param, range: Range<usize>, x: &mut [f32]) {
    let table = &positions.value[range];
    vectorised!(|| x.chunks_exact_mut(table.len()).for_each(|sequence| add(sequence, table)));
}

/// Accumulates the positions' gradient.
pub(super) fn positions_grad(positions: &mut Param, range: Range<usize>, dx: &[f32]) {
    let gradient = &mut positions.gradient[range];
    vectorised!(|| dx.chunks_exact(gradient.len()).for_each(|sequence| add(gradient, sequence)));
}
