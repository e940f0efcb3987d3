//! The model's lengths as kernels take them, and how the buffers of a pass are cut on a device.
//!
//! A buffer has the plan's bytes, which are sized for what the CPU keeps. A device keeps the same of a layer but for attention, of which it
//! needs the logarithm of each row's sum, `[batch * heads, sequence]`, where the CPU keeps all probabilities, `[batch, heads, sequence, keys]`:
//! the logarithms lie at the start of their place. Logits lie `[tokens, rows]` where the CPU has `[rows, tokens]`: the same size. So
//! everything fits, and what the probabilities would take beyond the logarithms is unused.

use crate::cuda::{Address, CudaError};
use crate::execute::model::{LayerAct, LayerDelta, OutputAct, Sizes};

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
    /// Tokens of a whole sequence.
    keys: u32,
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
        let Sizes { batch, sequence, keys, tokens, hidden, heads, vocab } = *sizes;
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
            keys: length("sequence", keys)?,
        })
    }

    /// Elements of `[tokens, hidden]`.
    pub(super) fn wide(&self) -> u64 {
        u64::from(self.tokens) * u64::from(self.hidden)
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
    /// Cuts off the first `elements`.
    pub(super) fn take(&mut self, elements: u64) -> Address {
        let at = self.0;
        self.0 = at.plus(4 * elements);
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
        let mut rest = Rest(act.plus(4 * (layer * LayerAct::elements(sizes)) as u64));
        Self {
            input: rest.take(nh),
            norm1: rest.take(nh),
            qkv: rest.take(3 * nh),
            attended: rest.take(nh),
            middle: rest.take(nh),
            norm2: rest.take(nh),
            up: rest.take(4 * nh),
            gelu: rest.take(4 * nh),
            logarithms: rest.take(n * (sizes.heads * sizes.keys) as u64),
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
        Self { output: rest.take(nh), up: rest.take(4 * nh), middle: rest.take(nh), qkv: rest.take(3 * nh) }
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
            input: rest.take(nh),
            stats: rest.take(2 * n),
            normed: rest.take(if sharded { 0 } else { nh }),
            logits: rest.take(if sharded { 0 } else { n * sizes.vocab as u64 }),
        };
        debug_assert_eq!(rest.0.0 - start.0, 4 * OutputAct::elements(sizes, sharded) as u64);
        at
    }
}
