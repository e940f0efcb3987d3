//! The model's lengths as kernels take them, and how the buffers of a pass are cut on a device.
//!
//! A buffer has the plan's bytes. A plan in f32 is sized for what the CPU keeps. A device keeps the same of a layer but for attention, of
//! which it needs the logarithm of each row's sum, `[batch * heads, sequence]`, where the CPU keeps all probabilities, `[batch, heads, sequence,
//! keys]`: the logarithms lie at the start of their place, and what the probabilities would take beyond them is unused. A plan in bf16 has
//! room for the logarithms only. Logits lie `[tokens, rows]` where the CPU has `[rows, tokens]`: the same size.

use crate::cuda::{Address, CudaError, Matrix};
use crate::execute::model::{LayerAct, LayerDelta, OutputAct, Sizes};
use crate::kernels::Stored;

/// Lengths, each an `int` of the kernels.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shape {
    /// Sequences in a microbatch.
    pub(super) batch: u32,
    /// Tokens of a sequence that a pass works on.
    pub(super) sequence: u32,
    /// Tokens that a pass works on.
    pub(super) tokens: u32,
    /// Width of the residual stream.
    pub(super) hidden: u32,
    /// Attention heads.
    pub(super) heads: u32,
    /// Width of one.
    pub(super) head: u32,
    /// How activations and their gradients lie in memory.
    pub(super) stored: Stored,
    /// Tokens of a whole sequence.
    keys: u32,
}

/// How the activations of a plan lie in memory.
fn stored(sizes: &Sizes) -> Stored {
    if sizes.packed == 1 { Stored::F32 } else { Stored::Bf16 }
}

/// The most blocks along the second side of a launch.
const MOST_ALONG_Y: usize = 65_535;

impl Shape {
    /// Lengths that every kernel can take.
    ///
    /// # Errors
    /// One is too long.
    pub(super) fn of(sizes: &Sizes) -> Result<Self, CudaError> {
        let length = |what: &'static str, length: usize| {
            let too_long = CudaError::OversizedPass { what, length: length as u64 };
            i32::try_from(length).map(i32::cast_unsigned).map_err(|_| too_long)
        };
        let Sizes { batch, sequence, keys, tokens, hidden, heads, vocab, .. } = *sizes;
        if batch * heads > MOST_ALONG_Y {
            let length = (batch * heads) as u64;
            return Err(CudaError::OversizedPass { what: "sequences times heads", length });
        }
        length("tokens times heads", tokens * heads)?;
        length("hidden", 4 * hidden)?;
        length("vocab", vocab)?;
        Ok(Self {
            batch: length("batch", batch)?,
            sequence: length("sequence", sequence)?,
            tokens: length("tokens", tokens)?,
            hidden: length("hidden", hidden)?,
            heads: length("heads", heads)?,
            head: length("hidden", sizes.head())?,
            stored: stored(sizes),
            keys: length("sequence", keys)?,
        })
    }

    /// Elements of `[tokens, hidden]`.
    pub(super) fn wide(&self) -> u64 {
        u64::from(self.tokens) * u64::from(self.hidden)
    }

    /// Bytes of activations `[tokens, hidden]`.
    pub(super) fn wide_bytes(&self) -> u64 {
        u64::from(self.stored.bytes()) * self.wide()
    }

    /// A dense matrix of activations, or of weights as products read them, whose rows have so many elements.
    pub(super) fn rows(&self, at: Address, columns: u32) -> Matrix {
        Matrix { at, stored: self.stored, stride: columns, turned: false }
    }

    /// The same with rows and columns exchanged.
    pub(super) fn turned(&self, at: Address, columns: u32) -> Matrix {
        Matrix { turned: true, ..self.rows(at, columns) }
    }

    /// Heads of all sequences.
    pub(super) fn all_heads(&self) -> u32 {
        self.batch * self.heads
    }

    /// Whether sequences are cut into slices.
    pub(super) fn sliced(&self) -> bool {
        self.keys > self.sequence
    }
}

/// What is left of a buffer that is being cut.
pub(super) struct Rest(pub(super) Address);

impl Rest {
    /// Cuts off the first `words` of four bytes.
    pub(super) fn take(&mut self, words: u64) -> Address {
        let at = self.0;
        self.0 = at.plus(4 * words);
        at
    }

    /// Cuts off the first `elements` of activations.
    fn activations(&mut self, stored: Stored, elements: u64) -> Address {
        let at = self.0;
        self.0 = at.plus(u64::from(stored.bytes()) * elements);
        at
    }
}

/// One layer's share of `act`: see [`LayerAct`].
#[derive(Clone, Copy, Debug)]
pub(super) struct ActAt {
    pub(super) input: Address,
    pub(super) norm1: Address,
    pub(super) qkv: Address,
    pub(super) attended: Address,
    pub(super) middle: Address,
    pub(super) norm2: Address,
    pub(super) up: Address,
    pub(super) gelu: Address,
    /// `[batch * heads, sequence]`
    pub(super) logarithms: Address,
    pub(super) stats1: Address,
    pub(super) stats2: Address,
    /// Not a place where sequences are whole.
    pub(super) owed: Address,
}

impl ActAt {
    /// The share of a layer, counted on its stage.
    pub(super) fn of(sizes: &Sizes, act: Address, layer: usize) -> Self {
        let (n, nh) = (sizes.tokens as u64, (sizes.tokens * sizes.hidden) as u64);
        let kept = if sizes.packed == 1 { sizes.keys } else { 1 };
        let mut rest = Rest(act.plus(4 * (layer * LayerAct::elements(sizes)) as u64));
        let mut wide = |elements: u64| rest.activations(stored(sizes), elements);
        let [input, norm1, qkv, attended] = [nh, nh, 3 * nh, nh].map(&mut wide);
        let [middle, norm2, up, gelu] = [nh, nh, 4 * nh, 4 * nh].map(&mut wide);
        Self {
            input,
            norm1,
            qkv,
            attended,
            middle,
            norm2,
            up,
            gelu,
            logarithms: rest.take(n * (sizes.heads * kept) as u64),
            stats1: rest.take(2 * n),
            stats2: rest.take(2 * n),
            owed: rest.take(if sizes.sliced() { 2 * nh } else { 0 }),
        }
    }
}

/// One layer's share of `delta`: see [`LayerDelta`].
#[derive(Clone, Copy, Debug)]
pub(super) struct DeltaAt {
    pub(super) output: Address,
    pub(super) up: Address,
    pub(super) middle: Address,
    pub(super) qkv: Address,
}

impl DeltaAt {
    /// The share of a layer, counted on its stage.
    pub(super) fn of(sizes: &Sizes, delta: Address, layer: usize) -> Self {
        let nh = (sizes.tokens * sizes.hidden) as u64;
        let mut rest = Rest(delta.plus(4 * (layer * LayerDelta::elements(sizes)) as u64));
        let wide = |elements: u64| rest.activations(stored(sizes), elements);
        let [output, up, middle, qkv] = [nh, 4 * nh, nh, 3 * nh].map(wide);
        Self { output, up, middle, qkv }
    }
}

/// The last stage's share of `act`: see [`OutputAct`].
#[derive(Clone, Copy, Debug)]
pub(super) struct OutputAt {
    pub(super) input: Address,
    pub(super) stats: Address,
    /// Not a place where the output layer is sharded, nor is the next.
    pub(super) normed: Address,
    /// `[tokens, vocab]`
    pub(super) logits: Address,
}

impl OutputAt {
    /// What lies behind so many layers.
    pub(super) fn of(sizes: &Sizes, act: Address, layers: usize, sharded: bool) -> Self {
        let (n, nh) = (sizes.tokens as u64, (sizes.tokens * sizes.hidden) as u64);
        let start = act.plus(4 * (layers * LayerAct::elements(sizes)) as u64);
        let mut rest = Rest(start);
        let at = Self {
            input: rest.activations(stored(sizes), nh),
            stats: rest.take(2 * n),
            normed: rest.activations(stored(sizes), if sharded { 0 } else { nh }),
            logits: rest.activations(stored(sizes), if sharded { 0 } else { n * sizes.vocab as u64 }),
        };
        // An odd vocabulary leaves a half of its last word.
        debug_assert!(rest.0.0 - start.0 <= 4 * OutputAct::elements(sizes, sharded) as u64);
        at
    }
}
