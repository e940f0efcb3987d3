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
