//! Softmax over columns: logits lie `[vocabulary, tokens]`, so that the table and its gradient meet them row by row, and a vector
//! holds neighbouring tokens.

use super::vector::{add, exp, vectorised};

/// Rows whose exponentials are summed on their own before they join the total: long sums lose no bits, and a row is still in
/// the nearest cache when it is added.
const BLOCK: usize = 64;

/// The largest element of every column; negative infinity where there are no rows.
pub(super) fn columns_max(logits: &[f32], most: &mut [f32]) {
    most.fill(f32::NEG_INFINITY);
    vectorised!(|| {
        for row in logits.chunks_exact(most.len()) {
            for (most, &logit) in most.iter_mut().zip(row) {
                *most = if *most < logit { logit } else { *most };
            }
        }
    });
}

/// Replaces every element by e^(element - its column's `most`); leaves the columns' sums in `totals`. `partial` is scratch, one
/// element a column.
pub(super) fn columns_exponentiate(
    logits: &mut [f32],
    most: &[f32],
    totals: &mut [f32],
    partial: &mut [f32],
) {
    totals.fill(0.0);
    vectorised!(|| {
        for block in logits.chunks_mut(BLOCK * most.len()) {
            partial.fill(0.0);
            for row in block.chunks_exact_mut(most.len()) {
                for ((value, most), sum) in row.iter_mut().zip(most).zip(partial.iter_mut()) {
                    *value = exp(*value - most);
                    *sum += *value;
                }
            }
            add(totals, partial);
        }
    });
}

/// Multiplies every column by its factor.
pub(super) fn columns_scale(values: &mut [f32], factors: &[f32]) {
    vectorised!(|| {
        for row in values.chunks_exact_mut(factors.len()) {
            for (value, factor) in row.iter_mut().zip(factors) {
                *value *= factor;
            }
        }
    });
}
