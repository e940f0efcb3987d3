//! The dimensions of a model -> operations and bytes of what its passes are made of.

use super::model::{Recompute, Training};
use super::pipeline::Pipeline;

/// Activations that a layer reads or writes outside its products, in units of `nh`: two norms, two residual additions with their
/// dropouts, bias and GELU of width 4.
const LAYER_FORWARD: f64 = 18.0;
/// The same in the backward.
const LAYER_BACKWARD: f64 = 26.0;
/// Bytes read and written for each logit by a softmax with its loss in single precision: converted, maximum, shifted, exponentials, sum, quotient.
pub(super) const SOFTMAX: f64 = 38.0;
/// Bytes for each logit to turn it into its gradient.
pub(super) const SOFTMAX_BACKWARD: f64 = 8.0;
/// Bytes for each parameter of the input layer to clear its gradient and to add it up: the scatter touches the whole table.
const SCATTER: f64 = 10.0;
/// Activations that a lookup or a scatter reads or writes, in units of `nh`.
const LOOKUP: f64 = 4.0;

/// Work of one kind of product and of memory.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Work {
    /// Operations of linear layers.
    pub(super) linear: f64,
    /// Of attention's products with the sequence.
    pub(super) attention: f64,
    /// Of products with the vocabulary.
    pub(super) vocabulary: f64,
    /// Bytes.
    pub(super) memory: f64,
}

impl Work {
    pub(super) fn plus(self, other: Self) -> Self {
        Self {
            linear: self.linear + other.linear,
            attention: self.attention + other.attention,
            vocabulary: self.vocabulary + other.vocabulary,
            memory: self.memory + other.memory,
        }
    }

    pub(super) fn times(self, factor: f64) -> Self {
        Self {
            linear: self.linear * factor,
            attention: self.attention * factor,
            vocabulary: self.vocabulary * factor,
            memory: self.memory * factor,
        }
    }
}

/// The dimensions as numbers, for one unit of the batch.
#[derive(Clone, Copy, Debug)]
pub(super) struct Size {
    /// Tokens.
    pub(super) n: f64,
    /// Width.
    pub(super) h: f64,
    /// Tokens of a sequence.
    s: f64,
    /// Entries of the vocabulary.
    pub(super) v: f64,
    /// Rows of the vocabulary on a rank, where it is sharded.
    pub(super) shard: f64,
    /// Bytes of an activation.
    pub(super) bytes: f64,
    recompute: Recompute,
}

impl Size {
    #[allow(clippy::cast_precision_loss, reason = "a duration needs no more than 52 bits")]
    pub(super) fn of(pipeline: &Pipeline<'_>, training: Training) -> Self {
        let model = pipeline.model;
        Self {
            n: model.tokens() as f64 / f64::from(pipeline.slices),
            h: f64::from(model.hidden),
            s: f64::from(model.sequence),
            v: f64::from(model.vocab),
            shard: model.shard(pipeline.ranks.max(1)) as f64,
            bytes: training.precision.bytes() as f64,
            recompute: training.recompute,
        }
    }

    pub(super) fn over_memory(self, activations: f64) -> Work {
        Work { memory: activations * self.n * self.h * self.bytes, ..Work::default() }
    }

    pub(super) fn layer_forward(self) -> Work {
        let Self { n, h, s, .. } = self;
        Work { linear: 24.0 * n * h * h, attention: 4.0 * n * s * h, ..self.over_memory(LAYER_FORWARD) }
    }

    /// The gradient of the input, with what is computed again for it.
    pub(super) fn layer_input(self) -> Work {
        let Self { n, h, s, .. } = self;
        let attention = 4.0 * n * s * h;
        let own =
            Work { linear: 24.0 * n * h * h, attention: 2.0 * attention, ..self.over_memory(LAYER_BACKWARD) };
        match self.recompute {
            // A fused attention computes its inside again within its own rate.
            Recompute::None | Recompute::Selective => own,
            Recompute::Full => own.plus(self.layer_forward()),
        }
    }

    pub(super) fn layer_weights(self) -> Work {
        Work { linear: 24.0 * self.n * self.h * self.h, ..Work::default() }
    }

    pub(super) fn lookup(self) -> Work {
        self.over_memory(LOOKUP)
    }

    pub(super) fn scatter(self, rows: f64) -> Work {
        let Work { memory, .. } = self.over_memory(LOOKUP);
        Work { memory: memory + SCATTER * rows * self.h, ..Work::default() }
    }

    /// So many products of activations and rows of the output layer, and passes over the logits of so many bytes each.
    pub(super) fn output(self, rows: f64, products: f64, bytes: f64) -> Work {
        Work {
            vocabulary: products * 2.0 * self.n * self.h * rows,
            memory: bytes * self.n * rows,
            ..Work::default()
        }
    }
}
