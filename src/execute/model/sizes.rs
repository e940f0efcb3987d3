//! The model's dimensions as lengths.

use std::ops::Range;

use crate::ir::Dims;

use super::ModelError;

/// The most f32 elements that a buffer can have.
const ADDRESSABLE: u128 = 1 << 45;

/// The dimensions as `usize`, checked: none is 0, heads divide the width.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// Sequences in a microbatch.
    pub batch: usize,
    /// Tokens that a pass works on in each sequence: all of them, or those of a slice.
    pub sequence: usize,
    /// Tokens in a whole sequence: the most keys that one of them attends to.
    pub keys: usize,
    /// Tokens that a pass works on: those of a microbatch, or of a slice of it.
    pub tokens: usize,
    /// Width of the residual stream.
    pub hidden: usize,
    /// Attention heads.
    pub heads: usize,
    /// Entries of the vocabulary.
    pub vocab: usize,
    /// Activations in a word of four bytes: 1, or 2 in bf16. Divides the width.
    pub packed: usize,
}

impl Sizes {
    /// Checks dimensions.
    ///
    /// Requires: `slices` divides the sequence, as it does in every verified plan.
    ///
    /// # Errors
    /// A dimension other than the number of layers is 0, the heads do not divide the width, or a width in bf16 is odd.
    pub fn of(dims: &Dims, slices: u32) -> Result<Self, ModelError> {
        let named = [
            ("hidden", dims.hidden),
            ("heads", dims.heads),
            ("sequence", dims.sequence),
            ("batch", dims.batch),
            ("vocab", dims.vocab),
        ];
        if let Some((dimension, _)) = named.into_iter().find(|&(_, side)| side == 0) {
            return Err(ModelError::EmptyModel { dimension });
        }
        if !dims.hidden.is_multiple_of(dims.heads) {
            return Err(ModelError::UnevenHeads { heads: dims.heads, hidden: dims.hidden });
        }
        let packed = dims.precision.packed() as usize;
        if !(dims.hidden as usize).is_multiple_of(packed) {
            return Err(ModelError::OddWidth { hidden: dims.hidden });
        }
        let [hidden, heads, sequence, batch, vocab] = named.map(|(_, side)| u128::from(side));
        let layer = 18 * hidden + heads * sequence + 4;
        let widest = batch
            .checked_mul(sequence)
            .and_then(|tokens| tokens.checked_mul(u128::from(dims.layers.max(1)) * layer + hidden + vocab));
        if widest.is_none_or(|elements| elements > ADDRESSABLE) {
            return Err(ModelError::OversizedModel);
        }
        Ok(Self {
            batch: dims.batch as usize,
            sequence: (dims.sequence / slices.max(1)) as usize,
            keys: dims.sequence as usize,
            tokens: dims.batch as usize * (dims.sequence / slices.max(1)) as usize,
            hidden: dims.hidden as usize,
            heads: dims.heads as usize,
            vocab: dims.vocab as usize,
            packed,
        })
    }

    /// Whether sequences are cut into slices.
    #[must_use]
    pub fn sliced(&self) -> bool {
        self.keys > self.sequence
    }

    /// The elements of the table of positions that a slice's tokens add.
    #[must_use]
    pub fn positions(&self, slice: usize) -> Range<usize> {
        let length = self.sequence * self.hidden;
        slice * length..(slice + 1) * length
    }

    /// Width of one head.
    #[must_use]
    pub fn head(&self) -> usize {
        self.hidden / self.heads
    }
}
