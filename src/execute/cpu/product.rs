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

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        match S::F32_LANES {
            16 => self.run::<S, 12, 1>(simd),
            8 => self.run::<S, 6, 2>(simd),
            4 => self.run::<S, 6, 4>(simd),
            _ => self.run::<S, 6, 16>(simd),
        }
    }
}

impl Product<'_> {
    /// All blocks, in tiles of `R` rows and `V` vectors.
    #[inline(always)]
    fn run<S: Simd, const R: usize, const V: usize>(mut self, simd: S) {
        let (rows, columns) = match self.tiles {
            None => (self.left.rows, self.left.columns),
            Some(_) => (self.left.columns, self.left.rows),
        };
        let deepest = if self.tiles.is_some() { TURNED_DEPTH } else { DEPTH };
        // The rows of a block and the panel that they meet next share the second cache, whatever the depth is.
        let step = if columns <= SHALLOW { SHALLOW_ROWS } else { ROWS };
        for first_row in (0..rows).step_by(step) {
            let block = first_row..rows.min(first_row + step);
            // A product without depth still replaces its destination.
            for first in (0..columns.max(1)).step_by(deepest) {
                let deep = first..columns.min(first + deepest);
                if let Some(tiles) = &mut self.tiles {
                    pack::<R>(&self.left, block.clone(), deep.clone(), tiles);
                }
                self.meet::<S, R, V>(simd, block.clone(), deep);
            }
        }
    }

    /// The rows of a block times all panels.
    #[inline(always)]
    fn meet<S: Simd, const R: usize, const V: usize>(
        &mut self,
        simd: S,
        rows: std::ops::Range<usize>,
        deep: std::ops::Range<usize>,
    ) {
        let Self { to, onto, left, right, tiles } = self;
        let onto = if deep.start == 0 { *onto } else { Onto::Itself };
        for column in (0..right.columns()).step_by(WIDTH) {
            let last = column + WIDTH >= right.columns();
            let next = if last { &[][..] } else { &right.panel(column + WIDTH)[deep.clone()] };
            let strip = Strip {
                panel: &right.panel(column)[deep.clone()],
                share: next.len().div_ceil(rows.len().div_ceil(R).max(1)),
                next,
                onto,
                to: &mut *to.data,
                to_stride: to.row_stride,
                column,
                width: WIDTH.min(right.columns() - column),
            };
            match tiles {
                None => strip.of_rows::<S, R, V>(simd, left, deep.start, rows.clone()),
                Some(tiles) => strip.of_tiles::<S, R, V>(simd, tiles, rows.clone()),
            }
        }
    }
}

/// Packs columns `rows` of lines `deep` of a matrix: tiles of `R`, line after line; what lies beyond the last is left as it was.
#[inline(always)]
fn pack<const R: usize>(
    from: &Matrix<'_>,
    rows: std::ops::Range<usize>,
    deep: std::ops::Range<usize>,
    tiles: &mut [f32],
) {
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

/// One panel, and the columns of the destination that it makes.
struct Strip<'a> {
    panel: &'a [Line],
    /// What is left to be brought near of the panel that follows, and how much of it with each tile.
    next: &'a [Line],
    share: usize,
    onto: Onto<'a>,
    to: &'a mut [f32],
    to_stride: usize,
    /// The destination's columns: where they begin, and how many.
    column: usize,
    width: usize,
}

impl Strip<'_> {
    /// Multiplies `R` rows at once, from their column `first` on; the last ones in two parts where one would be thin.
    #[inline(always)]
    fn of_rows<S: Simd, const R: usize, const V: usize>(
        mut self,
        simd: S,
        left: &Matrix<'_>,
        first: usize,
        rows: std::ops::Range<usize>,
    ) {
        let from = |row: usize| (&left.data[row * left.row_stride + first..], left.row_stride);
        let mut row = rows.start;
        while row + R + 2 < rows.end || row + R == rows.end {
            row += self.tile::<S, R, V>(simd, from(row), row);
        }
        while row < rows.end {
            match rows.end - row {
                1 => row += self.tile::<S, 1, V>(simd, from(row), row),
                2 => row += self.tile::<S, 2, V>(simd, from(row), row),
                3 => row += self.tile::<S, 3, V>(simd, from(row), row),
                5 => row += self.tile::<S, 5, V>(simd, from(row), row),
                _ => row += self.tile::<S, 4, V>(simd, from(row), row),
            }
        }
    }

    /// Multiplies `R` rows and says how many they were.
    #[inline(always)]
    fn tile<S: Simd, const R: usize, const V: usize>(
        &mut self,
        simd: S,
        (left, left_stride): (&[f32], usize),
        row: usize,
    ) -> usize {
        self.fetch(row, R);
        let sums = sums::<S, R, V>(simd, left, left_stride, self.panel);
        self.finish::<S, R, V>(simd, sums, row, R);
        R
    }

    /// Multiplies rows that were packed as tiles.
    #[inline(always)]
    fn of_tiles<S: Simd, const R: usize, const V: usize>(
        mut self,
        simd: S,
        tiles: &[f32],
        rows: std::ops::Range<usize>,
    ) {
        let depth = self.panel.len();
        let (lines, _) = tiles.as_chunks::<R>();
        for (tile, row) in rows.clone().step_by(R).enumerate() {
            self.fetch(row, R.min(rows.end - row));
            let sums = packed_sums::<S, R, V>(simd, &lines[tile * depth..(tile + 1) * depth], self.panel);
            self.finish::<S, R, V>(simd, sums, row, R.min(rows.end - row));
        }
    }

    /// Has the places of a tile, and a part of the panel that follows, brought near while the tile's sums are computed: weights and gradients
    /// of a whole model lie far away.
    #[inline(always)]
    fn fetch(&mut self, row: usize, height: usize) {
        let (soon, later) = self.next.split_at(self.share.min(self.next.len()));
        for line in soon {
            near(&line.0[0]);
        }
        self.next = later;
        let lines = self.to[row * self.to_stride + self.column..].chunks(self.to_stride).take(height);
        for line in lines {
            near(&line[0]);
            near(&line[self.width.min(line.len()) - 1]);
        }
    }

    /// Writes the first `height` rows of a tile.
    #[inline(always)]
    fn finish<S: Simd, const R: usize, const V: usize>(
        &mut self,
        simd: S,
        sums: [[S::f32s; V]; R],
        row: usize,
        height: usize,
    ) {
        let Self { onto, to_stride, column, width, .. } = *self;
        let to = &mut self.to[row * to_stride + column..];
        let (itself, shared) = match onto {
            Onto::Nothing => (false, None),
            Onto::Itself => (true, None),
            Onto::Row(shared) => (false, Some(shared)),
            Onto::ItselfAndRow(shared) => (true, Some(shared)),
        };
        if width < WIDTH || height < R {
            let shared = shared.map(|shared| &shared[column..]);
            edge::<S, R, V>(sums, itself, shared, to, to_stride, [height, width]);
            return;
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
    }
}

/// Writes a tile whose last rows or columns lie beyond the destination's.
fn edge<S: Simd, const R: usize, const V: usize>(
    sums: [[S::f32s; V]; R],
    itself: bool,
    shared: Option<&[f32]>,
    to: &mut [f32],
    to_stride: usize,
    [height, width]: [usize; 2],
) {
    for (i, sums) in sums.into_iter().enumerate().take(height) {
        let mut line = [0.0; WIDTH];
        store::<S, V>(sums, &mut line);
        for (column, value) in to[i * to_stride..i * to_stride + width].iter_mut().enumerate() {
            let sum = shared.map_or(line[column], |shared| line[column] + shared[column]);
            *value = if itself { *value + sum } else { sum };
        }
    }
}

/// The scalar products of the `R` rows of a tile with the columns of a panel.
#[inline(always)]
fn packed_sums<S: Simd, const R: usize, const V: usize>(
    simd: S,
    tile: &[[f32; R]],
    panel: &[Line],
) -> [[S::f32s; V]; R] {
    let (chunks, rest) = panel.as_chunks::<UNROLLED>();
    let (tile_chunks, tile_rest) = tile.as_chunks::<UNROLLED>();
    let tile_chunks = &tile_chunks[..chunks.len()];
    let mut sums = [[simd.splat_f32s(0.0); V]; R];
    // Indices, because the sums stay in registers only if these loops are unrolled early.
    for at in 0..chunks.len() {
        for step in 0..UNROLLED {
            deepen(simd, &mut sums, tile_chunks[at][step], &chunks[at][step]);
        }
    }
    for (factors, line) in tile_rest.iter().zip(rest) {
        deepen(simd, &mut sums, *factors, line);
    }
    sums
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

/// Asks for a place to be brought to the nearest cache.
#[inline(always)]
#[allow(unsafe_code, reason = "an instruction without an effect but on time")]
fn near(place: &f32) {
    // SAFETY: SSE is there on every processor of this architecture, and nothing is read.
    #[cfg(target_arch = "x86_64")]
    unsafe {
        std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(
            std::ptr::from_ref(place).cast(),
        );
    }
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
    use super::{Matrix, MatrixMut, Onto, TILES, product, product_of_turned};

    #[test]
    fn products_of_any_sides_agree_with_plain_loops() {
        for (m, n, k) in
            [(1, 1, 0), (1, 5, 3), (7, 16, 1), (13, 33, 70), (150, 48, 130), (145, 17, 300), (8, 20, 1030)]
        {
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
