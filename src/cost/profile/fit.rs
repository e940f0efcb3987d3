//! Times of passes that are made of parts -> the rate of each part.
//!
//! A pass takes the sum of what its parts take. Several passes say more or less of a part: B and W of two stages tell layers from the output
//! layer, a fused B alone does not tell its two gradients apart. So the rates are those that explain what was measured, within the error of each
//! mean, and of all that do, those nearest to one rate for all operations: least squares with a prior (Bishop 2006, section 3.3.1), of
//! which a part keeps what no measurement contradicts.

use super::parts::{PARTS, Parts};

/// The mean of a pass at a site.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Mean {
    /// Microseconds.
    pub(super) time: f64,
    /// The standard error of it.
    pub(super) error: f64,
}

/// Sites that should take the same differ at least by this part of it.
const APART: f64 = 1e-3;
/// What a trace can resolve, in microseconds.
const RESOLUTION: f64 = 1e-3;
/// Rates differ from the one for all operations by about this part of it, where nothing is measured.
const SPREAD: f64 = 1.0;

/// Microseconds of an operation of each part.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Fit {
    rates: Parts,
    /// Whether any pass that was measured has the part.
    pub(super) seen: [bool; PARTS],
}

impl Fit {
    /// The rates that follow from what was measured.
    pub(super) fn of(measured: &[(Parts, Mean)]) -> Self {
        let mut seen = [false; PARTS];
        let (mut time, mut operations) = (0.0, 0.0);
        for (parts, mean) in measured {
            let all: f64 = parts.iter().sum();
            if all > 0.0 {
                (time, operations) = (time + mean.time, operations + all);
            }
            for (seen, &part) in seen.iter_mut().zip(parts) {
                *seen |= part > 0.0;
            }
        }
        let common = if operations > 0.0 { time / operations } else { 0.0 };
        // The unknowns are rates over the common one, less 1.
        let mut matrix = [[0.0; PARTS]; PARTS];
        let mut right = [0.0; PARTS];
        for (at, row) in matrix.iter_mut().enumerate() {
            row[at] = 1.0 / (SPREAD * SPREAD);
        }
        for (parts, mean) in measured {
            let expected = parts.map(|part| part * common);
            let error = mean.error.hypot(APART * mean.time).hypot(RESOLUTION);
            let left = mean.time - expected.iter().sum::<f64>();
            for (at, row) in matrix.iter_mut().enumerate() {
                right[at] += expected[at] * left / (error * error);
                for (cell, other) in row.iter_mut().zip(expected) {
                    *cell += expected[at] * other / (error * error);
                }
            }
        }
        let off = solve(matrix, right);
        Self { rates: off.map(|off| common * (1.0 + off)), seen }
    }

    /// How long a pass of these parts takes.
    pub(super) fn time(&self, parts: &Parts) -> f64 {
        let time: f64 = parts.iter().zip(self.rates).map(|(part, rate)| part * rate).sum();
        time.max(0.0)
    }
}

/// Solves a system that is symmetric and positive definite, by elimination.
#[allow(clippy::needless_range_loop, reason = "rows are changed by rows above them")]
fn solve(mut matrix: [[f64; PARTS]; PARTS], mut right: Parts) -> Parts {
    for at in 0..PARTS {
        let (above, below) = matrix.split_at_mut(at + 1);
        let pivot = &above[at];
        for (row, value) in below.iter_mut().zip(at + 1..) {
            let factor = row[at] / pivot[at];
            for (cell, other) in row.iter_mut().zip(pivot) {
                *cell -= factor * other;
            }
            right[value] -= factor * right[at];
        }
    }
    let mut solved = [0.0; PARTS];
    for at in (0..PARTS).rev() {
        let known: f64 = (at + 1..PARTS).map(|other| matrix[at][other] * solved[other]).sum();
        solved[at] = (right[at] - known) / matrix[at][at];
    }
    solved
}
