//! Transforms that do not fit a schedule.

use miette::Diagnostic;
use thiserror::Error;

use crate::diag::Located;
use crate::graph::Deadlock;
use crate::ir::{FileId, Rank, Span};

/// Why a transform can't be applied.
#[derive(Clone, Debug, Error, Diagnostic)]
pub enum TransformError {
    /// The order with the transform's edges in it.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Deadlock(#[from] Deadlock),
    /// A limit under which a pass can never run.
    #[error("under this limit `{pass}` can never run on {rank}")]
    #[diagnostic(
        code(schedc::transform::limit_too_tight),
        help("raise the limit: what would make room under it waits, in the end, for `{pass}` itself")
    )]
    LimitTooTight {
        /// The first pass that is held back.
        pass: String,
        /// The rank that it should run on.
        rank: Rank,
        /// The limit.
        #[label("too tight")]
        at: Span,
    },
}

impl Located for TransformError {
    fn file(&self) -> Option<FileId> {
        match self {
            Self::Deadlock(deadlock) => deadlock.file(),
            Self::LimitTooTight { at, .. } => Some(at.file),
        }
    }
}
