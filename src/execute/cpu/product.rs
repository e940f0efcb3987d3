//! Matrix products of one core: rows times packed panels (see `panels`), block by block.
//!
//! Blocks are such that what the tiles of a block (see `tile`) share of a panel's depth stays near while all rows of a block pass by, and
//! the rows stay in the second cache (Goto & van de Geijn 2008). One rounding per term and one per block of depth, in an order that
//! depends on the sizes only.
#![allow(clippy::inline_always, reason = "a function that is not inlined loses the loop's instruction set")]

use std::ops::Range;

use pulp::{Arch, Simd, WithSimd};

use super::panels::{Line, Packed, WIDTH};
use super::tile::Strip;

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

/// Depth of a block.
const DEPTH: usize = 512;
/// Rows of a block.
const ROWS: usize = 144;
/// At most this depth is little: the rows of a block stay in the nearest cache.
const SHALLOW: usize = 128;
/// Rows of a block of little depth.
const SHALLOW_ROWS: usize = 48;
/// Depth of a block of a left factor that lies turned: its rows, packed, and a panel's share stay in the second cache.
const TURNED_DEPTH: usize = 256;

/// Elements that a block of a turned left factor takes.
pub(super) const TILES: usize = ROWS * TURNED_DEPTH;

/// `to = onto + left * right`.
pub(super) fn product(to: MatrixMut<'_>, onto: Onto<'_>, left: Matrix<'_>, right: Packed<'_>) {
    assert!(left.columns == right.rows(), "the sides of a product meet");
    Arch::new().dispatch(Product { to, onto, left, right, tiles: None });
}

/// `to = onto + leftᵀ * right`. `tiles` is scratch of [`TILES`] elements, for blocks of the left factor.
pub(super) fn product_of_turned(
    to: MatrixMut<'_>,
    onto: Onto<'_>,
    left: Matrix<'_>,
    right: Packed<'_>,
    tiles: &mut [f32],
) {
    assert!(left.rows == right.rows() && tiles.len() >= TILES, "the sides of a product meet");
    Arch::new().dispatch(Product { to, onto, left, right, tiles: Some(tiles) });
}

/// The operands of [`product`], and of [`product_of_turned`] where there is scratch.
struct Product<'a> {
    to: MatrixMut<'a>,
    onto: Onto<'a>,
    left: Matrix<'a>,
    right: Packed<'a>,
    tiles: Option<&'a mut [f32]>,
}

impl WithSimd for Product<'_> {
    type Output = ();

    /// Sixteen sums in flight hide the latency of a multiplication; with vectors that are whole lines, every factor of a row that is loaded
    /// meets two panels, which leaves the loads far behind the multiplications.
    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        match S::F32_LANES {
            16 => self.run::<S, 8, 2, 1>(simd),
            8 => self.run::<S, 6, 1, 2>(simd),
            4 => self.run::<S, 6, 1, 4>(simd),
            _ => self.run::<S, 6, 1, 16>(simd),
        }
    }
}

impl Product<'_> {
    /// All blocks, in tiles of `R` rows by `P` panels of `V` vectors.
    #[inline(always)]
    fn run<S: Simd, const R: usize, const P: usize, const V: usize>(mut self, simd: S) {
        let (rows, columns) = match self.tiles {
            None => (self.left.rows, self.left.columns),
            Some(_) => (self.left.columns, self.left.rows),
        };
        let deepest = if self.tiles.is_some() { TURNED_DEPTH } else { DEPTH };
        // The rows of a block and the panels that they meet next share the second cache, whatever the depth is.
        let step = if columns <= SHALLOW { SHALLOW_ROWS } else { ROWS };
        for first_row in (0..rows).step_by(step) {
            let block = first_row..rows.min(first_row + step);
            // A product without depth still replaces its destination.
            for first in (0..columns.max(1)).step_by(deepest) {
                let deep = first..columns.min(first + deepest);
                if let Some(tiles) = &mut self.tiles {
                    pack::<R>(&self.left, block.clone(), deep.clone(), tiles);
                }
                self.meet::<S, R, P, V>(simd, block.clone(), deep);
            }
        }
    }

    /// The rows of a block times all panels: `P` at once, those that are left over one by one.
    #[inline(always)]
    fn meet<S: Simd, const R: usize, const P: usize, const V: usize>(
        &mut self,
        simd: S,
        rows: Range<usize>,
        deep: Range<usize>,
    ) {
        let columns = self.right.columns();
        let together = columns - columns % (P * WIDTH);
        for column in (0..together).step_by(P * WIDTH) {
            self.meet_some::<S, R, P, V>(simd, rows.clone(), deep.clone(), column);
        }
        for column in (together..columns).step_by(WIDTH) {
            self.meet_some::<S, R, 1, V>(simd, rows.clone(), deep.clone(), column);
        }
    }

    /// The rows of a block times the `P` panels from a column on.
    #[inline(always)]
    fn meet_some<S: Simd, const R: usize, const P: usize, const V: usize>(
        &mut self,
        simd: S,
        rows: Range<usize>,
        deep: Range<usize>,
        column: usize,
    ) {
        let Self { to, onto, left, right, tiles } = self;
        let panel = |column| &right.panel(column)[deep.clone()];
        let follow = column + P * WIDTH;
        let next: [&[Line]; P] = if follow + P * WIDTH <= right.columns() {
            std::array::from_fn(|i| panel(follow + i * WIDTH))
        } else {
            [&[]; P]
        };
        let strip = Strip {
            panels: std::array::from_fn(|i| panel(column + i * WIDTH)),
            share: next[0].len().div_ceil(rows.len().div_ceil(R).max(1)),
            next,
            onto: if deep.start == 0 { *onto } else { Onto::Itself },
            to: &mut *to.data,
            to_stride: to.row_stride,
            column,
            width: (P * WIDTH).min(right.columns() - column),
        };
        match tiles {
            None => {
                let left = &left.data[deep.start.min(left.data.len())..];
                strip.of_rows::<S, R, V>(simd, left, self.left.row_stride, rows);
            }
            Some(tiles) => strip.of_tiles::<S, R, V>(simd, tiles, rows),
        }
    }
}

/// Packs columns `rows` of lines `deep` of a matrix: tiles of `R`, line after line; what lies beyond the last is left as it was.
#[inline(always)]
fn pack<const R: usize>(from: &Matrix<'_>, rows: Range<usize>, deep: Range<usize>, tiles: &mut [f32]) {
    let depth = deep.len();
    for (at, line) in deep.enumerate() {
        let line = &from.data[line * from.row_stride..][rows.clone()];
        let (whole, rest) = line.as_chunks::<R>();
        for (tile, part) in whole.iter().enumerate() {
            tiles[(tile * depth + at) * R..][..R].copy_from_slice(part);
        }
        if !rest.is_empty() {
            tiles[(whole.len() * depth + at) * R..][..rest.len()].copy_from_slice(rest);
        }
    }
}

#[cfg(test)]
mod tests {
    use pulp::{Scalar, Scalar128b, Scalar256b, Scalar512b, Simd, WithSimd};

    use super::super::panels::{Packed, Panels, lines};
    use super::{Matrix, MatrixMut, Onto, Product, TILES, product, product_of_turned};

    /// Sides of products: `[m, k] * [k, n]`.
    const SIDES: [(usize, usize, usize); 7] =
        [(1, 1, 0), (1, 5, 3), (7, 16, 1), (13, 33, 70), (150, 48, 130), (145, 17, 300), (8, 20, 1030)];

    /// A product and that of its left factor turned, by vectors of one length.
    fn both<S: Simd>(simd: S, left: Matrix<'_>, turned: Matrix<'_>, right: Packed<'_>) -> [Vec<f32>; 2] {
        let (mut tiles, columns) = (vec![0.0; TILES], right.columns());
        [(left, None), (turned, Some(&mut tiles[..]))].map(|(factor, tiles)| {
            let mut found = vec![0.5; left.rows * columns];
            let to = MatrixMut::new(&mut found, columns);
            Product { to, onto: Onto::Itself, left: factor, right, tiles }.with_simd(simd);
            found
        })
    }

    #[test]
    fn vectors_of_every_length_make_the_same_sums() {
        for (m, n, k) in SIDES {
            // Small integers: their sums are exact, with and without a rounding between.
            let number = |i: usize| (i * 37 % 15) as f32 - 7.0;
            let [left, right]: [Vec<f32>; 2] = [m * k, k * n].map(|length| (0..length).map(number).collect());
            let turned: Vec<f32> = (0..m * k).map(|at| left[at % m * k + at / m]).collect();
            let mut panels = Panels::new(lines(k, n));
            let packed = panels.pack(&right, k, n, n);
            let exact: Vec<f32> = (0..m * n)
                .map(|at| 0.5 + (0..k).map(|i| left[at / n * k + i] * right[i * n + at % n]).sum::<f32>())
                .collect();
            let (left, turned) = (Matrix::new(&left, m, k), Matrix::new(&turned, k, m));
            for found in [
                both(Scalar::new(), left, turned, packed),
                both(Scalar128b, left, turned, packed),
                both(Scalar256b, left, turned, packed),
                both(Scalar512b, left, turned, packed),
            ]
            .as_flattened()
            {
                assert!(found == &exact, "[{m}, {k}] [{k}, {n}]");
            }
        }
    }

    #[test]
    fn products_of_any_sides_agree_with_plain_loops() {
        for (m, n, k) in SIDES {
            let number = |i: usize| ((i * 37 % 101) as f32) / 50.0 - 1.0;
            let [left, right]: [Vec<f32>; 2] = [m * k, k * n].map(|length| (0..length).map(number).collect());
            let shared: Vec<f32> = (0..n).map(number).collect();
            let turned: Vec<f32> = (0..m * k).map(|at| left[at % m * k + at / m]).collect();
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
                let mut of_turned = vec![0.5; m * n];
                let place = MatrixMut::new(&mut of_turned, n);
                product_of_turned(place, onto, Matrix::new(&turned, k, m), packed, &mut vec![0.0; TILES]);
                for (found, other) in to.iter().zip(&of_turned) {
                    assert!((found - other).abs() < 1e-3, "[{m}, {k}] [{k}, {n}], turned");
                }
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
