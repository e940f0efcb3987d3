//! Matrix products of one core: rows times packed panels (see `panels`), tile by tile in registers.
//!
//! A tile is a few rows by one panel: 12 vectors of sums, which hide the latency of a multiplication. Blocks are such that a panel's
//! share of the depth stays in the nearest cache while all rows of a block pass by, and the rows stay in the second
//! (Goto & van de Geijn 2008). One rounding per term and one per block of depth, in an order that depends on the sizes only.
#![allow(clippy::inline_always, reason = "a function that is not inlined loses the loop's instruction set")]

use pulp::{Arch, Simd, WithSimd};

use super::panels::{Line, Packed, WIDTH};

/// A matrix that is read: `rows` by `columns`, rows that start `row_stride` elements apart.
#[derive(Clone, Copy)]
pub(super) struct Matrix<'a> {
    data: &'a [f32],
    rows: usize,
    columns: usize,
    row_stride: usize,
}

impl<'a> Matrix<'a> {
    /// Dense rows.
    pub(super) fn new(data: &'a [f32], rows: usize, columns: usize) -> Self {
        Self::strided(data, rows, columns, columns)
    }

    /// Rows that start `row_stride` elements apart.
    pub(super) fn strided(data: &'a [f32], rows: usize, columns: usize, row_stride: usize) -> Self {
        Self { data, rows, columns, row_stride }
    }
}

/// A matrix that is written: rows that start `row_stride` elements apart, as many as the left factor has.
pub(super) struct MatrixMut<'a> {
    data: &'a mut [f32],
    row_stride: usize,
}

impl<'a> MatrixMut<'a> {
    /// Rows that start `row_stride` elements apart, no less than they have columns.
    pub(super) fn new(data: &'a mut [f32], row_stride: usize) -> Self {
        Self { data, row_stride }
    }
}

/// What a product is added to.
#[derive(Clone, Copy)]
pub(super) enum Onto<'a> {
    /// Nothing: it replaces what lies in the destination.
    Nothing,
    /// What lies in the destination.
    Itself,
    /// The same row everywhere.
    Row(&'a [f32]),
    /// What lies in the destination, and the same row everywhere.
    ItselfAndRow(&'a [f32]),
}

/// Steps of depth between two updates of the addresses.
const UNROLLED: usize = 4;
/// Depth of a block.
const DEPTH: usize = 512;
/// Rows of a block.
const ROWS: usize = 144;
/// At most this depth is little: the rows of a block stay in the nearest cache.
const SHALLOW: usize = 128;
/// Rows of a block of little depth.
const SHALLOW_ROWS: usize = 48;

/// `to = onto + left * right`.
pub(super) fn product(to: MatrixMut<'_>, onto: Onto<'_>, left: Matrix<'_>, right: Packed<'_>) {
    assert!(left.columns == right.rows(), "the sides of a product meet");
    Arch::new().dispatch(Product { to, onto, left, right });
}

/// The operands of [`product`].
struct Product<'a> {
    to: MatrixMut<'a>,
    onto: Onto<'a>,
    left: Matrix<'a>,
    right: Packed<'a>,
}

impl WithSimd for Product<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { to, onto, left, right } = self;
        // The rows of a block and the panel that they meet next share the second cache, whatever the depth is.
        let step = if left.columns <= SHALLOW { SHALLOW_ROWS } else { ROWS };
        for first_row in (0..left.rows).step_by(step) {
            let rows = first_row..left.rows.min(first_row + step);
            // A product without depth still replaces its destination.
            for first in (0..left.columns.max(1)).step_by(DEPTH) {
                let deep = first..left.columns.min(first + DEPTH);
                let onto = if first == 0 { onto } else { Onto::Itself };
                for column in (0..right.columns()).step_by(WIDTH) {
                    let width = WIDTH.min(right.columns() - column);
                    let strip = Strip {
                        left: left.data,
                        left_stride: left.row_stride,
                        first,
                        panel: &right.panel(column)[deep.clone()],
                        onto,
                        to: &mut *to.data,
                        to_stride: to.row_stride,
                        column,
                        width,
                    };
                    match S::F32_LANES {
                        16 => strip.run::<S, 12, 1>(simd, rows.clone()),
                        8 => strip.run::<S, 6, 2>(simd, rows.clone()),
                        4 => strip.run::<S, 6, 4>(simd, rows.clone()),
                        _ => strip.run::<S, 6, 16>(simd, rows.clone()),
                    }
                }
            }
        }
    }
}

/// Rows times one panel.
struct Strip<'a> {
    left: &'a [f32],
    left_stride: usize,
    /// The column of the left factor that meets the panel's first line.
    first: usize,
    panel: &'a [Line],
    onto: Onto<'a>,
    to: &'a mut [f32],
    to_stride: usize,
    /// The destination's columns: where they begin, and how many.
    column: usize,
    width: usize,
}

impl Strip<'_> {
    /// Multiplies `R` rows at once; the last ones in two parts where one would be thin.
    #[inline(always)]
    fn run<S: Simd, const R: usize, const V: usize>(mut self, simd: S, rows: std::ops::Range<usize>) {
        let mut row = rows.start;
        while row + R + 2 < rows.end || row + R == rows.end {
            self.tile::<S, R, V>(simd, row);
            row += R;
        }
        while row < rows.end {
            match rows.end - row {
                1 => row += self.tile::<S, 1, V>(simd, row),
                2 => row += self.tile::<S, 2, V>(simd, row),
                3 => row += self.tile::<S, 3, V>(simd, row),
                5 => row += self.tile::<S, 5, V>(simd, row),
                _ => row += self.tile::<S, 4, V>(simd, row),
            }
        }
    }

    /// Multiplies `R` rows and says how many they were.
    #[inline(always)]
    fn tile<S: Simd, const R: usize, const V: usize>(&mut self, simd: S, row: usize) -> usize {
        let Self { left, left_stride, first, panel, onto, to_stride, column, width, .. } = *self;
        let sums = sums::<S, R, V>(simd, &left[row * left_stride + first..], left_stride, panel);
        let to = &mut self.to[row * to_stride + column..];
        let (itself, shared) = match onto {
            Onto::Nothing => (false, None),
            Onto::Itself => (true, None),
            Onto::Row(shared) => (false, Some(shared)),
            Onto::ItselfAndRow(shared) => (true, Some(shared)),
        };
        if width < WIDTH {
            edge::<S, R, V>(sums, itself, shared.map(|shared| &shared[column..]), to, to_stride, width);
            return R;
        }
        let shared = shared.and_then(|shared| shared[column..].first_chunk());
        for i in 0..R {
            let to = to[i * to_stride..].first_chunk_mut().expect("a full tile has full lines");
            let mut line = sums[i];
            if let Some(shared) = shared {
                line = plus(simd, line, shared);
            }
            if itself {
                line = plus(simd, line, to);
            }
            store::<S, V>(line, to);
        }
        R
    }
}

/// Writes a tile whose last columns lie beyond the destination's.
fn edge<S: Simd, const R: usize, const V: usize>(
    sums: [[S::f32s; V]; R],
    itself: bool,
    shared: Option<&[f32]>,
    to: &mut [f32],
    to_stride: usize,
    width: usize,
) {
    for (i, sums) in sums.into_iter().enumerate() {
        let mut line = [0.0; WIDTH];
        store::<S, V>(sums, &mut line);
        for (column, value) in to[i * to_stride..i * to_stride + width].iter_mut().enumerate() {
            let sum = shared.map_or(line[column], |shared| line[column] + shared[column]);
            *value = if itself { *value + sum } else { sum };
        }
    }
}

/// The scalar products of `R` rows with the columns of a panel.
#[inline(always)]
fn sums<S: Simd, const R: usize, const V: usize>(
    simd: S,
    left: &[f32],
    left_stride: usize,
    panel: &[Line],
) -> [[S::f32s; V]; R] {
    let depth = panel.len();
    let rows: [&[f32]; R] = std::array::from_fn(|i| &left[i * left_stride..i * left_stride + depth]);
    let (chunks, rest) = panel.as_chunks::<UNROLLED>();
    let row_chunks: [&[[f32; UNROLLED]]; R] = std::array::from_fn(|i| &rows[i].as_chunks().0[..chunks.len()]);
    let mut sums = [[simd.splat_f32s(0.0); V]; R];
    // Indices, because the sums stay in registers only if these loops are unrolled early.
    for at in 0..chunks.len() {
        for step in 0..UNROLLED {
            let factors = std::array::from_fn(|i| row_chunks[i][at][step]);
            deepen(simd, &mut sums, factors, &chunks[at][step]);
        }
    }
    for (step, line) in rest.iter().enumerate() {
        let factors = std::array::from_fn(|i| rows[i][depth - rest.len() + step]);
        deepen(simd, &mut sums, factors, line);
    }
    sums
}

/// Adds one factor of each row times a line.
#[inline(always)]
fn deepen<S: Simd, const R: usize, const V: usize>(
    simd: S,
    sums: &mut [[S::f32s; V]; R],
    factors: [f32; R],
    line: &Line,
) {
    let line = vectors::<S, V>(&line.0);
    for i in 0..R {
        let factor = simd.splat_f32s(factors[i]);
        for v in 0..V {
            sums[i][v] = simd.mul_add_f32s(factor, line[v], sums[i][v]);
        }
    }
}

/// A line as vectors.
#[inline(always)]
fn vectors<S: Simd, const V: usize>(line: &[f32; WIDTH]) -> &[S::f32s; V] {
    let vectors = S::as_simd_f32s(line).0;
    vectors.first_chunk().expect("V vectors make a line")
}

/// The sums of vectors and a line.
#[inline(always)]
fn plus<S: Simd, const V: usize>(simd: S, sums: [S::f32s; V], line: &[f32; WIDTH]) -> [S::f32s; V] {
    let vectors = vectors::<S, V>(line);
    std::array::from_fn(|v| simd.add_f32s(sums[v], vectors[v]))
}

/// Writes vectors to a line.
#[inline(always)]
fn store<S: Simd, const V: usize>(sums: [S::f32s; V], line: &mut [f32; WIDTH]) {
    let vectors = S::as_mut_simd_f32s(line).0;
    *vectors.first_chunk_mut().expect("V vectors make a line") = sums;
}

#[cfg(test)]
mod tests {
    use super::super::panels::{Panels, lines};
    use super::{Matrix, MatrixMut, Onto, product};

    #[test]
    fn products_of_any_sides_agree_with_plain_loops() {
        for (m, n, k) in [(1, 1, 0), (1, 5, 3), (7, 16, 1), (13, 33, 70), (150, 48, 130), (8, 20, 1030)] {
            let number = |i: usize| ((i * 37 % 101) as f32) / 50.0 - 1.0;
            let [left, right]: [Vec<f32>; 2] = [m * k, k * n].map(|length| (0..length).map(number).collect());
            let shared: Vec<f32> = (0..n).map(number).collect();
            let mut panels = Panels::new(lines(k, n));
            let packed = panels.pack(&right, k, n, n);
            let cases = [
                (Onto::Nothing, 0.0, 0.0),
                (Onto::Itself, 1.0, 0.0),
                (Onto::Row(&shared), 0.0, 1.0),
                (Onto::ItselfAndRow(&shared), 1.0, 1.0),
            ];
            for (onto, of_itself, of_row) in cases {
                let mut to = vec![0.5; m * n];
                product(MatrixMut::new(&mut to, n), onto, Matrix::new(&left, m, k), packed);
                for (i, found) in to.iter().enumerate() {
                    let (row, column) = (i / n, i % n);
                    let terms =
                        (0..k).map(|at| f64::from(left[row * k + at]) * f64::from(right[at * n + column]));
                    let exact = terms.sum::<f64>() + 0.5 * of_itself + f64::from(shared[column]) * of_row;
                    assert!(
                        (f64::from(*found) - exact).abs() < 1e-3,
                        "[{m}, {k}] [{k}, {n}] at {row}, {column}"
                    );
                }
            }
        }
    }
}
