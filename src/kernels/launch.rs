//! The shape in which each kernel is launched. Arguments are those of the kernel's definition, in its order.

use super::{Kernel, Stored};

/// How often a kernel runs, and in what company.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Launch {
    /// The kernel.
    pub kernel: Kernel,
    /// Blocks along x, y, z.
    pub grid: [u32; 3],
    /// Threads of a block along x, y, z.
    pub block: [u32; 3],
    /// Bytes of dynamic shared memory. Above 48 KiB the function's limit must be raised first.
    pub shared: u32,
}

/// Threads of a warp.
const WARP: u32 = 32;
/// The most threads that work on one row.
const ROW_THREADS: u32 = 256;
/// Threads of blocks that work on single columns.
const COLUMN_THREADS: u32 = 128;
/// Rows whose sum one block of [`layer_norm_partial`] takes.
pub const CHUNK: u32 = 128;

/// Enough whole warps for a row, up to a limit.
fn row_threads(stored: Stored, width: u32, most: u32) -> u32 {
    width.div_ceil(stored.lanes()).next_multiple_of(WARP).clamp(WARP, most)
}

/// A block for each row.
fn by_row(kernel: Kernel, stored: Stored, rows: u32, width: u32) -> Launch {
    Launch { kernel, grid: [rows, 1, 1], block: [row_threads(stored, width, ROW_THREADS), 1, 1], shared: 0 }
}

/// `layer_norm_forward` on `[rows, width]`.
#[must_use]
pub fn layer_norm_forward(stored: Stored, rows: u32, width: u32) -> Launch {
    by_row(Kernel::LayerNormForward, stored, rows, width)
}

/// `layer_norm_backward` on `[rows, width]`.
#[must_use]
pub fn layer_norm_backward(stored: Stored, rows: u32, width: u32) -> Launch {
    by_row(Kernel::LayerNormBackward, stored, rows, width)
}

/// Blocks of 32 columns' packs by 8 rows, for chunks of [`CHUNK`] rows.
fn partial(kernel: Kernel, stored: Stored, rows: u32, width: u32) -> Launch {
    let grid = [width.div_ceil(WARP * stored.lanes()), rows.div_ceil(CHUNK), 1];
    Launch { kernel, grid, block: [WARP, 8, 1], shared: 0 }
}

/// `layer_norm_partial` on `[rows, width]`: its `chunk` is [`CHUNK`], the chunks are the grid's second side.
#[must_use]
pub fn layer_norm_partial(stored: Stored, rows: u32, width: u32) -> Launch {
    partial(Kernel::LayerNormPartial, stored, rows, width)
}

/// `bias_partial` on `[rows, width]`: its `chunk` is [`CHUNK`], the chunks are the grid's second side.
#[must_use]
pub fn bias_partial(stored: Stored, rows: u32, width: u32) -> Launch {
    partial(Kernel::BiasPartial, stored, rows, width)
}

/// `column_collect` on `[chunks, width]`.
#[must_use]
pub fn column_collect(width: u32) -> Launch {
    let grid = [width.div_ceil(COLUMN_THREADS), 1, 1];
    Launch { kernel: Kernel::ColumnCollect, grid, block: [COLUMN_THREADS, 1, 1], shared: 0 }
}
