//! How the buffers of a pass are cut, in words of four bytes, and on the CPU, where a word is an f32. Each part is a dense row-major matrix with a row per token, one part after the other.

use super::Sizes;

/// What is left of a buffer that is being cut.
struct Rest<'a>(&'a mut [f32]);

impl<'a> Rest<'a> {
    /// Cuts off the first `length` elements.
    fn take(&mut self, length: usize) -> &'a mut [f32] {
        let (head, tail) = std::mem::take(&mut self.0).split_at_mut(length);
        self.0 = tail;
        head
    }
}

/// One layer's share of `act`: what its backward needs of its forward.
#[derive(Debug)]
pub struct LayerAct<'a> {
    /// The layer's input, `[tokens, hidden]`.
    pub input: &'a mut [f32],
    /// First norm's output, `[tokens, hidden]`.
    pub norm1: &'a mut [f32],
    /// Queries, keys, values, `[tokens, 3 * hidden]`.
    pub qkv: &'a mut [f32],
    /// Attention's output before its projection, `[tokens, hidden]`.
    pub attended: &'a mut [f32],
    /// The residual stream after attention, `[tokens, hidden]`.
    pub middle: &'a mut [f32],
    /// Second norm's output, `[tokens, hidden]`.
    pub norm2: &'a mut [f32],
    /// The MLP before the GELU, `[tokens, 4 * hidden]`.
    pub up: &'a mut [f32],
    /// The MLP after the GELU, `[tokens, 4 * hidden]`.
    pub gelu: &'a mut [f32],
    /// Attention probabilities, `[batch, heads, sequence, keys]`.
    pub probabilities: &'a mut [f32],
    /// First norm's means, then its inverse deviations, `[2, tokens]`.
    pub stats1: &'a mut [f32],
    /// Second norm's means, then its inverse deviations, `[2, tokens]`.
    pub stats2: &'a mut [f32],
    /// Gradients of keys and values by what later slices made of them, `[tokens, 2 * hidden]`; empty where sequences are whole.
    pub owed: &'a mut [f32],
}

impl<'a> LayerAct<'a> {
    /// Words for one layer. In bf16 only the logarithms of the rows' sums of attention are kept, `[batch * heads, sequence]`, and what is
    /// owed is f32.
    #[must_use]
    pub fn elements(sizes: &Sizes) -> usize {
        let owed = if sizes.sliced() { 2 * sizes.hidden } else { 0 };
        let attention = sizes.heads * if sizes.packed == 1 { sizes.keys } else { 1 };
        sizes.tokens * (16 * sizes.hidden / sizes.packed + owed + attention + 4)
    }

    /// Cuts one layer's elements.
    #[must_use]
    pub fn cut(sizes: &Sizes, buffer: &'a mut [f32]) -> Self {
        let (n, nh) = (sizes.tokens, sizes.tokens * sizes.hidden);
        let mut rest = Rest(buffer);
        Self {
            input: rest.take(nh),
            norm1: rest.take(nh),
            qkv: rest.take(3 * nh),
            attended: rest.take(nh),
            middle: rest.take(nh),
            norm2: rest.take(nh),
            up: rest.take(4 * nh),
            gelu: rest.take(4 * nh),
            probabilities: rest.take(n * sizes.heads * sizes.keys),
            stats1: rest.take(2 * n),
            stats2: rest.take(2 * n),
            owed: rest.take(if sizes.sliced() { 2 * nh } else { 0 }),
        }
    }
}

/// One layer's share of `delta`: the gradients of its four products' outputs, which the weight gradients need.
#[derive(Debug)]
pub struct LayerDelta<'a> {
    /// Of the layer's output, `[tokens, hidden]`.
    pub output: &'a mut [f32],
    /// Of the MLP before the GELU, `[tokens, 4 * hidden]`.
    pub up: &'a mut [f32],
    /// Of the residual stream after attention, `[tokens, hidden]`.
    pub middle: &'a mut [f32],
    /// Of queries, keys and values, `[tokens, 3 * hidden]`.
    pub qkv: &'a mut [f32],
}

impl<'a> LayerDelta<'a> {
    /// Words for one layer.
    #[must_use]
    pub fn elements(sizes: &Sizes) -> usize {
        9 * sizes.tokens * sizes.hidden / sizes.packed
    }

    /// Cuts one layer's elements.
    #[must_use]
    pub fn cut(sizes: &Sizes, buffer: &'a mut [f32]) -> Self {
        let nh = sizes.tokens * sizes.hidden;
        let mut rest = Rest(buffer);
        Self { output: rest.take(nh), up: rest.take(4 * nh), middle: rest.take(nh), qkv: rest.take(3 * nh) }
    }
}

/// The last stage's share of `act`, after its layers.
#[derive(Debug)]
pub struct OutputAct<'a> {
    /// The final norm's input, `[tokens, hidden]`.
    pub input: &'a mut [f32],
    /// The final norm's means, then its inverse deviations, `[2, tokens]`.
    pub stats: &'a mut [f32],
    /// The final norm's output, `[tokens, hidden]`; empty where the output layer is sharded.
    pub normed: &'a mut [f32],
    /// The gradient of the loss by the logits, `[vocab, tokens]`; empty where the output layer is sharded. The targets are known
    /// in the forward pass, so it takes the logits' place at once.
    pub logits: &'a mut [f32],
}

impl<'a> OutputAct<'a> {
    /// Words of the output layer.
    #[must_use]
    pub fn elements(sizes: &Sizes, sharded: bool) -> usize {
        let wide = sizes.hidden / sizes.packed;
        let unsharded = if sharded { 0 } else { wide + sizes.vocab.div_ceil(sizes.packed) };
        sizes.tokens * (wide + 2 + unsharded)
    }

    /// Cuts the output layer's elements.
    #[must_use]
    pub fn cut(sizes: &Sizes, sharded: bool, buffer: &'a mut [f32]) -> Self {
        let (n, nh) = (sizes.tokens, sizes.tokens * sizes.hidden);
        let mut rest = Rest(buffer);
        Self {
            input: rest.take(nh),
            stats: rest.take(2 * n),
            normed: rest.take(if sharded { 0 } else { nh }),
            logits: rest.take(if sharded { 0 } else { n * sizes.vocab }),
        }
    }
}

/// The buffer of class `logits`: what T needs of S.
#[derive(Debug)]
pub struct LogitsState<'a> {
    /// The output layer's input, `[tokens, hidden]`.
    pub input: &'a mut [f32],
    /// Exponentials of the owned rows' logits less their token's maximum, `[owned, tokens]`.
    pub exponentials: &'a mut [f32],
}

impl<'a> LogitsState<'a> {
    /// Cuts the buffer for a shard of `owned` rows; a shorter last shard leaves elements unused.
    #[must_use]
    pub fn cut(sizes: &Sizes, owned: usize, buffer: &'a mut [f32]) -> Self {
        let mut rest = Rest(buffer);
        Self { input: rest.take(sizes.tokens * sizes.hidden), exponentials: rest.take(sizes.tokens * owned) }
    }
}
