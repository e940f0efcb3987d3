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

/// A thread for each pack of elements.
fn elementwise(kernel: Kernel, stored: Stored, count: u64) -> Launch {
    let packs = count.div_ceil(stored.lanes().into());
    let blocks = packs.div_ceil(ROW_THREADS.into());
    Launch { kernel, grid: [blocks as u32, 1, 1], block: [ROW_THREADS, 1, 1], shared: 0 }
}

/// `gelu_forward` on `[count]`.
#[must_use]
pub fn gelu_forward(stored: Stored, count: u64) -> Launch {
    elementwise(Kernel::GeluForward, stored, count)
}

/// `gelu_backward` on `[count]`.
#[must_use]
pub fn gelu_backward(stored: Stored, count: u64) -> Launch {
    elementwise(Kernel::GeluBackward, stored, count)
}

/// `adam` on `[count]`.
#[must_use]
pub fn adam(stored: Stored, count: u64) -> Launch {
    elementwise(Kernel::Adam, stored, count)
}

/// `bias_add` on `[rows, width]`.
#[must_use]
pub fn bias_add(stored: Stored, rows: u32, width: u32) -> Launch {
    by_row(Kernel::BiasAdd, stored, rows, width)
}

/// `embedding_forward` for so many tokens.
#[must_use]
pub fn embedding_forward(stored: Stored, tokens: u32, width: u32) -> Launch {
    by_row(Kernel::EmbeddingForward, stored, tokens, width)
}

/// `positions_add` for so many tokens.
#[must_use]
pub fn positions_add(stored: Stored, tokens: u32, width: u32) -> Launch {
    by_row(Kernel::PositionsAdd, stored, tokens, width)
}

/// `positions_backward` for the tokens of a sequence.
#[must_use]
pub fn positions_backward(stored: Stored, sequence: u32, width: u32) -> Launch {
    by_row(Kernel::PositionsBackward, stored, sequence, width)
}

/// `embedding_backward` for so many tokens; strips of columns lie along y.
#[must_use]
pub fn embedding_backward(stored: Stored, tokens: u32, width: u32) -> Launch {
    let threads = row_threads(stored, width, COLUMN_THREADS);
    let strips = width.div_ceil(threads * stored.lanes());
    Launch { kernel: Kernel::EmbeddingBackward, grid: [tokens, strips, 1], block: [threads, 1, 1], shared: 0 }
}

/// Threads that work on one token's logits.
const LOGITS_THREADS: u32 = 512;

/// A block for each token's logits.
fn by_logits(kernel: Kernel, stored: Stored, tokens: u32, rows: u32) -> Launch {
    let block = [row_threads(stored, rows, LOGITS_THREADS), 1, 1];
    Launch { kernel, grid: [tokens, 1, 1], block, shared: 0 }
}

/// `vocab_statistics` on `[tokens, rows]`.
#[must_use]
pub fn vocab_statistics(stored: Stored, tokens: u32, rows: u32) -> Launch {
    by_logits(Kernel::VocabStatistics, stored, tokens, rows)
}

/// `vocab_exponentials` on `[tokens, rows]`.
#[must_use]
pub fn vocab_exponentials(stored: Stored, tokens: u32, rows: u32) -> Launch {
    by_logits(Kernel::VocabExponentials, stored, tokens, rows)
}

/// `vocab_gradient` on `[tokens, rows]`.
#[must_use]
pub fn vocab_gradient(stored: Stored, tokens: u32, rows: u32) -> Launch {
    by_logits(Kernel::VocabGradient, stored, tokens, rows)
}

/// `vocab_normalise` on `[tokens, width]`.
#[must_use]
pub fn vocab_normalise(stored: Stored, tokens: u32, width: u32) -> Launch {
    by_row(Kernel::VocabNormalise, stored, tokens, width)
}

/// `vocab_rescale` on `[tokens, width]`.
#[must_use]
pub fn vocab_rescale(stored: Stored, tokens: u32, width: u32) -> Launch {
    by_row(Kernel::VocabRescale, stored, tokens, width)
}

/// `vocab_combine` for so many tokens.
#[must_use]
pub fn vocab_combine(tokens: u32) -> Launch {
    let grid = [tokens.div_ceil(COLUMN_THREADS), 1, 1];
    Launch { kernel: Kernel::VocabCombine, grid, block: [COLUMN_THREADS, 1, 1], shared: 0 }
}

/// `vocab_loss`: one block.
#[must_use]
pub fn vocab_loss() -> Launch {
    Launch { kernel: Kernel::VocabLoss, grid: [1, 1, 1], block: [ROW_THREADS, 1, 1], shared: 0 }
}

/// Rows of a tile of attention without tensor cores.
const TILE: u32 = 32;

/// Bytes of tiles of rows of a head, and of tiles of scores.
fn tiles(head: u32, of_rows: u32, of_scores: u32) -> u32 {
    4 * TILE * (of_rows * (head.next_multiple_of(8) + 1) + of_scores * (TILE + 1))
}

/// Whether attention runs on tensor cores: heads of whole steps of them, that a thread has registers for.
#[must_use]
pub fn on_tensor_cores(stored: Stored, head: u32) -> bool {
    stored == Stored::Bf16 && head.is_multiple_of(16) && head <= 128
}

/// Rows of a tile of attention on tensor cores.
const TENSOR_TILE: u32 = 64;

/// Bytes of what a block on tensor cores keeps: four tiles of rows of a head, each 16 bytes longer than the head.
fn tensor_tiles(head: u32) -> u32 {
    2 * 4 * TENSOR_TILE * (head + 8)
}

/// A block of 128 threads for each tile of a sequence, of each head of each sequence. `shared`: what it takes without tensor cores.
fn attention(
    kernel: Kernel,
    (stored, head): (Stored, u32),
    heads: u32,
    sequence: u32,
    shared: u32,
) -> Launch {
    let (tile, shared) =
        if on_tensor_cores(stored, head) { (TENSOR_TILE, tensor_tiles(head)) } else { (TILE, shared) };
    Launch { kernel, grid: [sequence.div_ceil(tile), heads, 1], block: [COLUMN_THREADS, 1, 1], shared }
}

/// `attention_forward` on so many heads, all sequences together, of one width.
#[must_use]
pub fn attention_forward(stored: Stored, heads: u32, sequence: u32, head: u32) -> Launch {
    attention(Kernel::AttentionForward, (stored, head), heads, sequence, tiles(head, 2, 1))
}

/// `attention_products` on so many heads, all sequences together.
#[must_use]
pub fn attention_products(heads: u32, sequence: u32) -> Launch {
    let grid = [(heads * sequence).div_ceil(COLUMN_THREADS), 1, 1];
    Launch { kernel: Kernel::AttentionProducts, grid, block: [COLUMN_THREADS, 1, 1], shared: 0 }
}

/// `attention_queries` on so many heads, all sequences together, of one width.
#[must_use]
pub fn attention_queries(stored: Stored, heads: u32, sequence: u32, head: u32) -> Launch {
    attention(Kernel::AttentionQueries, (stored, head), heads, sequence, tiles(head, 4, 1))
}

/// `attention_keys` on so many heads, all sequences together, of one width.
#[must_use]
pub fn attention_keys(stored: Stored, heads: u32, sequence: u32, head: u32) -> Launch {
    attention(Kernel::AttentionKeys, (stored, head), heads, sequence, tiles(head, 4, 2))
}
