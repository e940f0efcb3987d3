//! The dimensions of the model that a plan's buffers are sized for.

use serde::{Deserialize, Serialize};

use super::Stage;

/// A GPT: pre-norm layers of causal attention and a GELU MLP of width `4 * hidden`, learned positions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Dims {
    /// Transformer layers, spread over the stages.
    pub layers: u32,
    /// Width of the residual stream, `h`.
    pub hidden: u32,
    /// Attention heads; divides `hidden`.
    pub heads: u32,
    /// Tokens in a sequence.
    pub sequence: u32,
    /// Sequences in a microbatch.
    pub batch: u32,
    /// Entries of the vocabulary, `V`.
    pub vocab: u32,
    /// Whether the input and the output embedding are one matrix.
    pub tied: bool,
    /// How activations lie in buffers.
    #[serde(default, skip_serializing_if = "Precision::is_single")]
    pub precision: Precision,
}

/// How activations and their gradients lie in buffers. Statistics are f32 in either case, as are parameters, their gradients and the
/// optimizer's moments.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Precision {
    /// Four bytes: one in each word of a buffer.
    #[default]
    F32,
    /// The upper two bytes of an f32: two in each word of a buffer. Only devices run such plans.
    Bf16,
}

impl Precision {
    /// Both, with their words.
    pub const WORDS: [(Self, &'static str); 2] = [(Self::F32, "f32"), (Self::Bf16, "bf16")];

    /// As it is written.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
        }
    }

    /// Whether it is that of a plan that says nothing of it.
    #[must_use]
    #[allow(clippy::trivially_copy_pass_by_ref, reason = "serde hands a reference")]
    pub fn is_single(&self) -> bool {
        *self == Self::F32
    }

    /// Activations in a word of four bytes.
    #[must_use]
    pub fn packed(self) -> u32 {
        match self {
            Self::F32 => 1,
            Self::Bf16 => 2,
        }
    }
}

impl Dims {
    /// Tokens in a microbatch, `n`.
    #[must_use]
    pub fn tokens(&self) -> u64 {
        u64::from(self.batch) * u64::from(self.sequence)
    }

    /// Rows of the vocabulary on each of `ranks` ranks; the last ranks may own fewer real ones.
    #[must_use]
    pub fn shard(&self, ranks: u32) -> u64 {
        u64::from(self.vocab).div_ceil(u64::from(ranks))
    }

    /// Elements of the parameters that a stage with so many layers among `stages` of one flow holds, as far as no transform shards them: the layers; at
    /// the first stage the positions and the input embedding; at the last the final norm and the output embedding. The embedding
    /// counts at neither end where it is tied: its gradient is summed apart.
    #[must_use]
    pub fn stage_parameters(&self, layers: usize, stage: Stage, stages: u32, sharded: [bool; 2]) -> u64 {
        let [hidden, sequence, vocab] = [self.hidden, self.sequence, self.vocab].map(u64::from);
        let table = |sharded: bool| if sharded || self.tied { 0 } else { vocab.saturating_mul(hidden) };
        let layer =
            hidden.saturating_mul(hidden).saturating_mul(12).saturating_add(hidden.saturating_mul(13));
        let mut elements = (layers as u64).saturating_mul(layer);
        if stage.0 == 0 {
            elements =
                elements.saturating_add(sequence.saturating_mul(hidden)).saturating_add(table(sharded[0]));
        }
        if stage.0 + 1 == stages {
            elements = elements.saturating_add(2 * hidden).saturating_add(table(sharded[1]));
        }
        elements
    }

    /// The layers of a stage among `stages`: uniform, the first stages take the remainder.
    #[must_use]
    pub fn layers_of(&self, stage: Stage, stages: u32) -> std::ops::Range<u32> {
        let (each, extra) = (self.layers / stages, self.layers % stages);
        let first = stage.0 * each + stage.0.min(extra);
        first..first + each + u32::from(stage.0 < extra)
    }
}
