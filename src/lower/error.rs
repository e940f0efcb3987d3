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
    /// Two kinds of pass make the same class at the same site.
    #[error("`{first}` and `{second}` both make `{class}` at one site")]
    #[diagnostic(
        code(schedc::lower::class_made_twice),
        help("declare a class for each of them, so that it is clear which one is read and freed")
    )]
    ClassMadeTwice {
        /// The class.
        class: String,
        /// The first maker.
        first: String,
        /// The second.
        second: String,
        /// The second's declaration.
        #[label("makes `{class}` again")]
        at: Option<Span>,
    },
}

impl Located for LowerError {
    fn file(&self) -> Option<FileId> {
        match self {
            Self::Deadlock(deadlock) => deadlock.file(),
            Self::HalfSharded { at, .. } | Self::ClassMadeTwice { at, .. } => at.map(|at| at.file),
        }
    }
}
