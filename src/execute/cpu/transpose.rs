//! Transposition of a tile.

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

#[cfg(test)]
mod tests {
    use super::{SIDE, tile};

    #[test]
    fn every_element_changes_its_indices_and_nothing_lies_beyond() {
        for (height, width, stride) in
            [(1, 1, 1), (16, 16, 16), (16, 16, 40), (5, 16, 48), (16, 3, 17), (7, 9, 33)]
        {
            let from: Vec<f32> = (1..=SIDE * stride).map(|i| i as f32).collect();
            let turned = tile(&from, height, width, stride);
            for (j, line) in turned.iter().enumerate() {
                for (i, found) in line.iter().enumerate() {
                    let inside = i < height && j < width;
                    let expected = if inside { from[i * stride + j] } else { 0.0 };
                    assert_eq!(found.to_bits(), expected.to_bits());
                }
            }
        }
    }
}
