//! Schedules that have no plan.

use miette::Diagnostic;
use thiserror::Error;

use crate::diag::Located;
use crate::graph::Deadlock;
use crate::ir::{FileId, Span};

/// Why a schedule can't be lowered.
#[derive(Clone, Debug, Error, Diagnostic)]
pub enum LowerError {
    /// The ranks' orders do not fit together.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Deadlock(#[from] Deadlock),
    /// Only one half of a tied embedding is sharded.
    #[error("the embedding is tied, but only the {sharded} layer is sharded over the ranks")]
    #[diagnostic(
        code(schedc::lower::half_sharded),
        help("shard both vocabulary layers in the transform, or untie the embedding")
    )]
    HalfSharded {
        /// Which layer: `input` or `output`.
        sharded: &'static str,
        /// The pass that shards it.
        #[label("shards the {sharded} layer only")]
        at: Option<Span>,
    },
}

impl Located for LowerError {
    fn file(&self) -> Option<FileId> {
        match self {
            Self::Deadlock(deadlock) => deadlock.file(),
            Self::HalfSharded { at, .. } => at.map(|at| at.file),
        }
    }
}
