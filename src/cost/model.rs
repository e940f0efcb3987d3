//! The text of a model file -> [`ModelFile`]: dimensions, and how it is trained.

use super::problem::{FileError, Problem};
use super::toml::{self, Table};
use crate::ir::Dims;

/// What a model file says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ModelFile {
    /// The dimensions.
    pub dims: Dims,
    /// Number formats, optimizer, recomputation, tensor parallelism.
    pub training: Training,
}

/// What decides over time and memory beside the dimensions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Training {
    /// The format of activations, and of parameters as passes read them.
    pub precision: Precision,
    /// The format that gradients are summed in.
    pub gradients: Precision,
    /// What is kept beside parameters and gradients.
    pub optimizer: Optimizer,
    /// What is computed again in the backward rather than kept.
    pub recompute: Recompute,
    /// Devices that share the products of one rank.
    pub tensor_parallel: u32,
}

/// A number format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Precision {
    /// 4 bytes.
    Fp32,
    /// 4 bytes, products of 19 bits.
    Tf32,
    /// 2 bytes, the exponent of `fp32`.
    Bf16,
    /// 2 bytes.
    Fp16,
    /// Products of 1 byte; activations are kept in 2.
    Fp8,
}

/// What is kept beside parameters and gradients; with parameters of less than 4 bytes also a copy in `fp32`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Optimizer {
    /// Two moments (Kingma & Ba 2015, arXiv:1412.6980), `fp32`.
    Adam,
    /// One, `fp32`.
    Momentum,
    /// Nothing.
    Sgd,
}

/// What is computed again in the backward (Korthikanti et al. 2022, arXiv:2205.05198).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recompute {
    /// Nothing.
    None,
    /// The inside of attention, which a fused attention does by itself.
    Selective,
    /// A layer, from its input.
    Full,
}

impl Precision {
    /// Every format with its word.
    pub const WORDS: [(&'static str, Self); 5] = [
        ("fp32", Self::Fp32),
        ("tf32", Self::Tf32),
        ("bf16", Self::Bf16),
        ("fp16", Self::Fp16),
        ("fp8", Self::Fp8),
    ];

    /// Bytes of an activation.
    #[must_use]
    pub fn bytes(self) -> u64 {
        match self {
            Self::Fp32 | Self::Tf32 => 4,
            Self::Bf16 | Self::Fp16 | Self::Fp8 => 2,
        }
    }

    /// The word that files have for it.
    #[must_use]
    pub fn word(self) -> &'static str {
        Self::WORDS[self as usize].0
    }
}

impl Optimizer {
    const WORDS: [(&'static str, Self); 3] =
        [("adam", Self::Adam), ("momentum", Self::Momentum), ("sgd", Self::Sgd)];
}

impl Recompute {
    const WORDS: [(&'static str, Self); 3] =
        [("none", Self::None), ("selective", Self::Selective), ("full", Self::Full)];
}

impl Training {
    /// How a model is trained that keeps its activations so: a plan in bf16 is in bf16 whatever else is said.
    #[must_use]
    pub fn of(self, model: &Dims) -> Self {
        match model.precision {
            crate::ir::Precision::F32 => self,
            crate::ir::Precision::Bf16 => Self { precision: Precision::Bf16, ..self },
        }
    }

    /// Bytes that one of a shape's words takes: of a plan in f32, whose words stand for activations of any precision, what one of those
    /// does.
    pub(super) fn bytes_per_word(self, model: &Dims) -> u64 {
        if model.precision.is_single() { self.precision.bytes() } else { 4 }
    }

    /// Bytes of each parameter: its own, its gradient's, the optimizer's.
    #[must_use]
    pub fn bytes_per_parameter(&self) -> [u64; 3] {
        let own = self.precision.bytes();
        let copy = if own < 4 { 4 } else { 0 };
        let moments = match self.optimizer {
            Optimizer::Adam => 8,
            Optimizer::Momentum => 4,
            Optimizer::Sgd => 0,
        };
        [own, self.gradients.bytes(), copy + moments]
    }
}

impl Default for Training {
    /// As the interpreter trains: `fp32`, Adam, nothing computed again.
    fn default() -> Self {
        Self {
            precision: Precision::Fp32,
            gradients: Precision::Fp32,
            optimizer: Optimizer::Adam,
            recompute: Recompute::None,
            tensor_parallel: 1,
        }
    }
}

const KEYS: [&str; 12] = [
    "layers",
    "hidden",
    "heads",
    "sequence",
    "vocabulary",
    "microbatch",
    "tied",
    "precision",
    "gradients",
    "optimizer",
    "recompute",
    "tensor-parallel",
];

impl ModelFile {
    /// Reads a model file; `name` is what diagnostics call it.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn parse(name: &str, text: &str) -> Result<Self, FileError> {
        read(text).map_err(|problem| FileError::new(problem, name, text))
    }
}

fn read(text: &str) -> Result<ModelFile, Problem> {
    let parsed = toml::parse(text)?;
    let file = Table::root(&parsed, "a model file", &KEYS)?;
    let dims = Dims {
        layers: file.count("layers")?,
        hidden: file.count("hidden")?,
        heads: file.count("heads")?,
        sequence: file.count("sequence")?,
        batch: file.maybe_count("microbatch")?.unwrap_or(1),
        vocab: file.count("vocabulary")?,
        tied: file.flag("tied")?,
        precision: crate::ir::Precision::F32,
    };
    if !dims.hidden.is_multiple_of(dims.heads) {
        return Err(Problem::UnevenHeads { heads: dims.heads, hidden: dims.hidden, at: file.place("heads") });
    }
    let precision = file.required_word("precision", &Precision::WORDS, "\"bf16\"")?;
    let format = if precision.bytes() < 4 { Precision::Bf16 } else { Precision::Fp32 };
    let training = Training {
        precision,
        gradients: file.word("gradients", &Precision::WORDS)?.unwrap_or(format),
        optimizer: file.word("optimizer", &Optimizer::WORDS)?.unwrap_or(Optimizer::Adam),
        recompute: file.word("recompute", &Recompute::WORDS)?.unwrap_or(Recompute::None),
        tensor_parallel: file.maybe_count("tensor-parallel")?.unwrap_or(1),
    };
    let (heads, devices) = (dims.heads, training.tensor_parallel);
    if !heads.is_multiple_of(devices) {
        return Err(Problem::UnevenTensors { heads, devices, at: file.place("tensor-parallel") });
    }
    Ok(ModelFile { dims, training })
}
