//! Transposition, tile by tile: products read rows only, so whoever has columns turns them first.

use super::vector::vectorised;

/// Side of a tile: the rows of one are whole cache lines, read once and written once whatever the strides are. A power of two
/// between rows would let the rows of a larger tile push each other out of the cache.
pub(super) const SIDE: usize = 16;

/// The transpose of a tile of `height` by `width` elements whose rows start `row_stride` apart; 0 beyond.
#[allow(clippy::inline_always, reason = "a function that is not inlined loses the loop's instruction set")]
#[inline(always)]
pub(super) fn tile(from: &[f32], height: usize, width: usize, row_stride: usize) -> [[f32; SIDE]; SIDE] {
    let mut rows = [[0.0; SIDE]; SIDE];
    if height == SIDE && width == SIDE {
        for (i, row) in rows.iter_mut().enumerate() {
            row.copy_from_slice(&from[i * row_stride..i * row_stride + SIDE]);
        }
    } else {
        for (i, row) in rows.iter_mut().enumerate().take(height) {
            row[..width].copy_from_slice(&from[i * row_stride..i * row_stride + width]);
        }
    }
    std::array::from_fn(|j| std::array::from_fn(|i| rows[i][j]))
}

/// Writes `rows` rows of `columns` elements, `row_stride` apart in `from`, as the dense columns of `to`, `[columns, rows]`.
pub(super) fn transpose(from: &[f32], rows: usize, columns: usize, row_stride: usize, to: &mut [f32]) {
    let to = &mut to[..rows * columns];
    vectorised!(|| {
        for row in (0..rows).step_by(SIDE) {
            let height = SIDE.min(rows - row);
            for column in (0..columns).step_by(SIDE) {
                let width = SIDE.min(columns - column);
                let turned = tile(&from[row * row_stride + column..], height, width, row_stride);
                for (to, line) in to[column * rows..].chunks_mut(rows).zip(&turned).take(width) {
                    if height == SIDE {
                        to[row..row + SIDE].copy_from_slice(line);
                    } else {
                        to[row..row + height].copy_from_slice(&line[..height]);
                    }
                }
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use super::transpose;

    #[test]
    fn every_element_changes_its_indices() {
        for (rows, columns, stride) in [(1, 1, 1), (16, 32, 32), (33, 17, 40), (5, 48, 48), (48, 16, 16)] {
            let from: Vec<f32> = (0..rows * stride).map(|i| i as f32).collect();
            let mut to = vec![-1.0; rows * columns];
            transpose(&from, rows, columns, stride, &mut to);
            for i in 0..rows {
                for j in 0..columns {
                    assert_eq!(to[j * rows + i].to_bits(), from[i * stride + j].to_bits());
                }
            }
        }
    }
}
