//! The right factor of a product, packed: panels of 16 columns, each row of a panel one cache line.
//!
//! A product walks a panel line after line, so that it never meets rows that lie a power of two apart. Weights are packed once a
//! step, other factors before their product.

use super::transpose::{SIDE, tile};
use super::vector::vectorised;

/// Columns of a panel: a cache line of them.
pub(super) const WIDTH: usize = SIDE;

/// A row of a panel.
#[derive(Clone, Copy, Debug)]
#[repr(align(64))]
pub(super) struct Line(pub(super) [f32; WIDTH]);

/// Storage for a packed matrix.
#[derive(Clone)]
pub(super) struct Panels {
    lines: Vec<Line>,
    rows: usize,
    columns: usize,
}

/// A packed matrix that is read, or some of its rows.
#[derive(Clone, Copy, Default)]
pub(super) struct Packed<'a> {
    lines: &'a [Line],
    /// Rows of every panel in memory.
    depth: usize,
    first: usize,
    rows: usize,
    columns: usize,
}

impl Panels {
    /// Room for any matrix of at most so many lines.
    pub(super) fn new(lines: usize) -> Self {
        Self { lines: vec![Line([0.0; WIDTH]); lines], rows: 0, columns: 0 }
    }

    /// Its size.
    pub(super) fn bytes(&self) -> u64 {
        size_of_val(&self.lines[..]) as u64
    }

    /// Packs `rows` rows of `columns` elements, `row_stride` apart.
    pub(super) fn pack(
        &mut self,
        from: &[f32],
        rows: usize,
        columns: usize,
        row_stride: usize,
    ) -> Packed<'_> {
        (self.rows, self.columns) = (rows, columns);
        let panels = &mut self.lines[..lines(rows, columns)];
        vectorised!(|| {
            for (panel, column) in panels.chunks_exact_mut(rows.max(1)).zip((0..columns).step_by(WIDTH)) {
                let width = WIDTH.min(columns - column);
                for (row, line) in panel.iter_mut().enumerate() {
                    let from = &from[row * row_stride + column..];
                    if let Some(whole) = from.first_chunk().filter(|_| width == WIDTH) {
                        line.0 = *whole;
                    } else {
                        line.0 = [0.0; WIDTH];
                        line.0[..width].copy_from_slice(&from[..width]);
                    }
                }
            }
        });
        self.all()
    }

    /// Packs the transpose, `[rows, columns]`, of `columns` rows of `rows` elements, `row_stride` apart.
    pub(super) fn pack_turned(
        &mut self,
        from: &[f32],
        rows: usize,
        columns: usize,
        row_stride: usize,
    ) -> Packed<'_> {
        (self.rows, self.columns) = (rows, columns);
        let panels = &mut self.lines[..lines(rows, columns)];
        vectorised!(|| {
            for (panel, column) in panels.chunks_exact_mut(rows.max(1)).zip((0..columns).step_by(WIDTH)) {
                let height = WIDTH.min(columns - column);
                for (block, row) in panel.chunks_mut(SIDE).zip((0..rows).step_by(SIDE)) {
                    let turned = tile(&from[column * row_stride + row..], height, block.len(), row_stride);
                    for (line, turned) in block.iter_mut().zip(&turned) {
                        line.0 = *turned;
                    }
                }
            }
        });
        self.all()
    }

    /// What was packed last.
    pub(super) fn all(&self) -> Packed<'_> {
        let (rows, columns) = (self.rows, self.columns);
        Packed { lines: &self.lines[..lines(rows, columns)], depth: rows, first: 0, rows, columns }
    }
}

impl<'a> Packed<'a> {
    /// Some of its rows.
    pub(super) fn rows_in(self, rows: std::ops::Range<usize>) -> Self {
        debug_assert!(rows.end <= self.rows, "rows of a matrix lie within it");
        Self { first: self.first + rows.start, rows: rows.len(), ..self }
    }

    /// Its first columns.
    pub(super) fn columns_to(self, columns: usize) -> Self {
        debug_assert!(columns <= self.columns, "columns of a matrix lie within it");
        Self { columns, ..self }
    }

    /// How many rows there are.
    pub(super) fn rows(&self) -> usize {
        self.rows
    }

    /// How many columns there are.
    pub(super) fn columns(&self) -> usize {
        self.columns
    }

    /// The lines of the panel that begins at a column.
    pub(super) fn panel(&self, column: usize) -> &'a [Line] {
        let start = column / WIDTH * self.depth + self.first;
        &self.lines[start..start + self.rows]
    }
}

/// Lines of a packed matrix.
pub(super) fn lines(rows: usize, columns: usize) -> usize {
    rows * columns.div_ceil(WIDTH)
}

#[cfg(test)]
mod tests {
    use super::{Panels, lines};

    #[test]
    fn both_ways_of_packing_agree_and_pad_with_zeros() {
        for (rows, columns) in [(1, 1), (5, 16), (40, 33), (16, 50)] {
            let plain: Vec<f32> = (0..rows * columns).map(|i| i as f32 + 1.0).collect();
            let mut turned = vec![0.0; plain.len()];
            for i in 0..rows {
                for j in 0..columns {
                    turned[j * rows + i] = plain[i * columns + j];
                }
            }
            let [mut one, mut other] = [(); 2].map(|()| Panels::new(lines(rows, columns)));
            let one = one.pack(&plain, rows, columns, columns);
            let other = other.pack_turned(&turned, rows, columns, rows);
            for column in (0..columns).step_by(16) {
                for (i, (a, b)) in one.panel(column).iter().zip(other.panel(column)).enumerate() {
                    let exact: [f32; 16] = std::array::from_fn(|j| {
                        plain
                            .get(i * columns + column + j)
                            .copied()
                            .filter(|_| column + j < columns)
                            .unwrap_or(0.0)
                    });
                    assert_eq!((a.0, b.0), (exact, exact));
                }
            }
        }
    }
}
