//! Why a plan's model cannot be run.

use miette::Diagnostic;
use thiserror::Error;

/// Why a plan's model cannot be run.
#[derive(Clone, Debug, Diagnostic, Error, PartialEq, Eq)]
pub enum ModelError {
    /// A dimension is 0.
    #[error("the model's `{dimension}` is 0")]
    #[diagnostic(code(schedc::execute::empty_model), help("give `{dimension}` a value of at least 1"))]
    EmptyModel {
        /// Its name.
        dimension: &'static str,
    },
    /// One pass's buffers are larger than any machine's memory.
    #[error("a pass of this model needs more memory than a machine can address")]
    #[diagnostic(
        code(schedc::execute::oversized_model),
        help("reduce `batch`, `sequence`, `hidden`, `vocab` or `layers`")
    )]
    OversizedModel,
    /// The heads do not divide the width.
    #[error("{heads} heads do not divide a hidden width of {hidden}")]
    #[diagnostic(code(schedc::execute::uneven_heads), help("choose `heads` so that it divides `hidden`"))]
    UnevenHeads {
        /// Attention heads.
        heads: u32,
        /// Width.
        hidden: u32,
    },
    /// A width that words of two activations do not fill.
    #[error("a hidden width of {hidden} is odd, and in bf16 two activations share a word")]
    #[diagnostic(code(schedc::execute::odd_width), help("compile the plan again with an even `--hidden`"))]
    OddWidth {
        /// Width.
        hidden: u32,
    },
    /// A tied embedding is sharded on one side only.
    #[error("a tied embedding is sharded on one side of the pipeline only")]
    #[diagnostic(
        code(schedc::execute::half_sharded),
        help("shard the input and the output layer together, or untie the embeddings")
    )]
    HalfSharded,
    /// A buffer does not have the shape that the computation cuts.
    #[error("buffers of class `{class}` hold {found} elements where the model needs {needed}")]
    #[diagnostic(
        code(schedc::execute::buffer_shape),
        help(
            "compile the plan again for this model; the standard library's classes have the shapes that run"
        )
    )]
    BufferShape {
        /// The class.
        class: String,
        /// Elements in the plan.
        found: u64,
        /// Elements that the computation needs.
        needed: u64,
    },
    /// A part of the model is computed by half.
    #[error("no pass computes `{lacks}`, without which the model is not trained")]
    #[diagnostic(
        code(schedc::execute::lacks_computation),
        help("declare one pass for each of {way}, as the standard library does")
    )]
    LacksComputation {
        /// What is missing.
        lacks: &'static str,
        /// All that belongs together.
        way: String,
    },
    /// Two passes do the same work, which would count twice.
    #[error("`{first}` and `{second}` both compute `{computes}`, which would count twice")]
    #[diagnostic(
        code(schedc::execute::computed_twice),
        help("declare one pass that computes `{computes}`; apply one transform of each layer only")
    )]
    ComputedTwice {
        /// The computation.
        computes: &'static str,
        /// The first pass.
        first: String,
        /// The second.
        second: String,
    },
    /// Computations of two algorithms.
    #[error("`{pass}` computes `{computes}` and `{other}` computes `{mixed}`, which do not go together")]
    #[diagnostic(
        code(schedc::execute::mixed_computations),
        help(
            "stages: stage_forward with stage_backward, or with stage_input_grad and stage_weight_grad; a sharded output: output_softmax with output_grad, or output_softmax_grad with output_rescale and output_weight_grad"
        )
    )]
    MixedWays {
        /// A pass.
        pass: String,
        /// What it computes.
        computes: &'static str,
        /// Another pass.
        other: String,
        /// What that computes.
        mixed: &'static str,
    },
    /// A pass computes something that needs a buffer which its declaration does not bring.
    #[error("`{pass}` cannot compute `{computes}`: it {lacks}")]
    #[diagnostic(
        code(schedc::execute::pass_contract),
        help("declare the pass as the standard library does (`schedc show prelude`, `schedc show vocab`)")
    )]
    PassContract {
        /// The kind of pass.
        pass: String,
        /// Its computation.
        computes: &'static str,
        /// What is missing: "must read `act`", "must run at every rank".
        lacks: String,
    },
}
