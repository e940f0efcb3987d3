//! A tile of a product: a few rows by a few panels, their sums in registers.
#![allow(clippy::inline_always, reason = "a function that is not inlined loses the loop's instruction set")]

use std::ops::Range;

use pulp::Simd;

use super::panels::{Line, WIDTH};
use super::product::Onto;

/// Steps of depth between two updates of the addresses.
const UNROLLED: usize = 4;

/// `P` panels, and the columns of the destination that they make.
pub(super) struct Strip<'a, const P: usize> {
    /// As many lines of each.
    pub(super) panels: [&'a [Line]; P],
    /// What is left to be brought near of the panels that follow, and how much of each with each tile.
    pub(super) next: [&'a [Line]; P],
    pub(super) share: usize,
    pub(super) onto: Onto<'a>,
    pub(super) to: &'a mut [f32],
    pub(super) to_stride: usize,
    /// The destination's columns: where they begin, and how many.
    pub(super) column: usize,
    pub(super) width: usize,
}

/// `V` vectors for each of `P` panels and each of `R` rows.
type Sums<S, const R: usize, const P: usize, const V: usize> = [[[<S as Simd>::f32s; V]; P]; R];

impl<const P: usize> Strip<'_, P> {
    /// Multiplies rows that start `stride` elements apart, `R` at once and the last ones in parts.
    #[inline(always)]
    pub(super) fn of_rows<S: Simd, const R: usize, const V: usize>(
        mut self,
        simd: S,
        left: &[f32],
        stride: usize,
        rows: Range<usize>,
    ) {
        let mut row = rows.start;
        while row < rows.end {
            let from = (left, stride, row);
            row += match rows.end - row {
                1 => self.tile::<S, 1, V>(simd, from),
                2 => self.tile::<S, 2, V>(simd, from),
                3 => self.tile::<S, 3, V>(simd, from),
                // Two of 4 hide more of a multiplication's latency than one of 6 and one of 2.
                few if few <= 8 && few != R => self.tile::<S, 4, V>(simd, from),
                _ => self.tile::<S, R, V>(simd, from),
            };
        }
    }

    /// Multiplies `R` rows and says how many they were.
    #[inline(always)]
    fn tile<S: Simd, const R: usize, const V: usize>(
        &mut self,
        simd: S,
        (left, stride, row): (&[f32], usize, usize),
    ) -> usize {
        self.fetch(row, R);
        let sums = sums::<S, R, P, V>(simd, &left[row * stride..], stride, self.panels);
        self.finish::<S, R, V>(simd, sums, row, R);
        R
    }

    /// Multiplies rows that were packed as tiles of `R`.
    #[inline(always)]
    pub(super) fn of_tiles<S: Simd, const R: usize, const V: usize>(
        mut self,
        simd: S,
        tiles: &[f32],
        rows: Range<usize>,
    ) {
        let depth = self.panels[0].len();
        let (lines, _) = tiles.as_chunks::<R>();
        for (tile, row) in rows.clone().step_by(R).enumerate() {
            let height = R.min(rows.end - row);
            self.fetch(row, height);
            let tile = &lines[tile * depth..(tile + 1) * depth];
            let sums = packed_sums::<S, R, P, V>(simd, tile, self.panels);
            self.finish::<S, R, V>(simd, sums, row, height);
        }
    }

    /// Has the places of a tile, and a part of the panels that follow, brought near while the tile's sums are computed: weights and
    /// gradients of a whole model lie far away.
    #[inline(always)]
    fn fetch(&mut self, row: usize, height: usize) {
        for next in &mut self.next {
            let (soon, later) = next.split_at(self.share.min(next.len()));
            for line in soon {
                near(&line.0[0]);
            }
            *next = later;
        }
        for line in self.to[row * self.to_stride + self.column..].chunks(self.to_stride).take(height) {
            let line = &line[..self.width.min(line.len())];
            for part in line.chunks(WIDTH) {
                near(&part[0]);
            }
            near(&line[line.len() - 1]);
        }
    }

    /// Writes the first `height` rows of a tile.
    #[inline(always)]
    fn finish<S: Simd, const R: usize, const V: usize>(
        &mut self,
        simd: S,
        sums: Sums<S, R, P, V>,
        row: usize,
        height: usize,
    ) {
        let Self { onto, to_stride, column, width, .. } = *self;
        let to = &mut self.to[row * to_stride + column..];
        let (itself, shared) = match onto {
            Onto::Nothing => (false, None),
            Onto::Itself => (true, None),
            Onto::Row(shared) => (false, Some(&shared[column..])),
            Onto::ItselfAndRow(shared) => (true, Some(&shared[column..])),
        };
        if width < P * WIDTH || height < R {
            edge::<S, R, P, V>(sums, itself, shared, to, to_stride, [height, width]);
            return;
        }
        // Indices, because the sums stay in registers only if these loops are unrolled early.
        for i in 0..R {
            for at in 0..P {
                let to = to[i * to_stride + at * WIDTH..].first_chunk_mut();
                let to = to.expect("a full tile has full lines");
                let mut line = sums[i][at];
                if let Some(shared) = shared.and_then(|shared| shared[at * WIDTH..].first_chunk()) {
                    line = plus(simd, line, shared);
                }
                if itself {
                    line = plus(simd, line, to);
                }
                store::<S, V>(line, to);
            }
        }
    }
}

/// Writes a tile whose last rows or columns lie beyond the destination's.
fn edge<S: Simd, const R: usize, const P: usize, const V: usize>(
    sums: Sums<S, R, P, V>,
    itself: bool,
    shared: Option<&[f32]>,
    to: &mut [f32],
    to_stride: usize,
    [height, width]: [usize; 2],
) {
    for (i, sums) in sums.into_iter().enumerate().take(height) {
        let to = &mut to[i * to_stride..i * to_stride + width];
        for (at, (sums, to)) in sums.into_iter().zip(to.chunks_mut(WIDTH)).enumerate() {
            let mut line = [0.0; WIDTH];
            store::<S, V>(sums, &mut line);
            for (column, value) in to.iter_mut().enumerate() {
                let sum = shared.map_or(line[column], |shared| line[column] + shared[at * WIDTH + column]);
                *value = if itself { *value + sum } else { sum };
            }
        }
    }
}

/// The scalar products of the `R` rows of a tile with the columns of the panels.
#[inline(always)]
fn packed_sums<S: Simd, const R: usize, const P: usize, const V: usize>(
    simd: S,
    tile: &[[f32; R]],
    panels: [&[Line]; P],
) -> Sums<S, R, P, V> {
    let depth = panels[0].len();
    let whole = depth - depth % UNROLLED;
    let (chunks, tile_chunks) = (chunks(panels), &tile.as_chunks::<UNROLLED>().0[..whole / UNROLLED]);
    let mut sums = [[[simd.splat_f32s(0.0); V]; P]; R];
    // Indices, because the sums stay in registers only if these loops are unrolled early.
    for at in 0..whole / UNROLLED {
        for step in 0..UNROLLED {
            deepen(simd, &mut sums, tile_chunks[at][step], std::array::from_fn(|i| &chunks[i][at][step]));
        }
    }
    for at in whole..depth {
        deepen(simd, &mut sums, tile[at], std::array::from_fn(|i| &panels[i][at]));
    }
    sums
}

/// The scalar products of `R` rows with the columns of the panels.
#[inline(always)]
fn sums<S: Simd, const R: usize, const P: usize, const V: usize>(
    simd: S,
    left: &[f32],
    stride: usize,
    panels: [&[Line]; P],
) -> Sums<S, R, P, V> {
    let depth = panels[0].len();
    let whole = depth - depth % UNROLLED;
    let rows: [&[f32]; R] = std::array::from_fn(|i| &left[i * stride..i * stride + depth]);
    let (chunks, row_chunks) =
        (chunks(panels), rows.map(|row| &row.as_chunks::<UNROLLED>().0[..whole / UNROLLED]));
    let mut sums = [[[simd.splat_f32s(0.0); V]; P]; R];
    // Indices, because the sums stay in registers only if these loops are unrolled early.
    for at in 0..whole / UNROLLED {
        for step in 0..UNROLLED {
            let factors = std::array::from_fn(|i| row_chunks[i][at][step]);
            deepen(simd, &mut sums, factors, std::array::from_fn(|i| &chunks[i][at][step]));
        }
    }
    for at in whole..depth {
        let factors = rows.map(|row| row[at]);
        deepen(simd, &mut sums, factors, std::array::from_fn(|i| &panels[i][at]));
    }
    sums
}

/// The lines of panels, as many of each, in steps of the depth.
#[inline(always)]
fn chunks<const P: usize>(panels: [&[Line]; P]) -> [&[[Line; UNROLLED]]; P] {
    let steps = panels[0].len() / UNROLLED;
    panels.map(|panel| &panel.as_chunks().0[..steps])
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

/// Adds one factor of each row times a line of each panel.
#[inline(always)]
fn deepen<S: Simd, const R: usize, const P: usize, const V: usize>(
    simd: S,
    sums: &mut Sums<S, R, P, V>,
    factors: [f32; R],
    lines: [&Line; P],
) {
    let lines = lines.map(|line| vectors::<S, V>(&line.0));
    for i in 0..R {
        let factor = simd.splat_f32s(factors[i]);
        for at in 0..P {
            for v in 0..V {
                sums[i][at][v] = simd.mul_add_f32s(factor, lines[at][v], sums[i][at][v]);
            }
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
