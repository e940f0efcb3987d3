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
    /// The orders hold more than a limit allows: what the base schedule makes is never held back.
    #[error("{rank} holds {held} `{class}` at once, and the limit is {most}")]
    #[diagnostic(
        code(schedc::transform::limit_not_met),
        help(
            "raise the limit to {held}, or choose an order with fewer in flight: a limit places the transform's own passes only"
        )
    )]
    LimitNotMet {
        /// The class.
        class: String,
        /// How many are held.
        held: u32,
        /// How many are allowed.
        most: u32,
        /// On which rank.
        rank: Rank,
        /// The limit.
        #[label("not met on {rank}")]
        at: Span,
    },
    /// A transform that asks for more microbatches in flight and does nothing between forward and backward.
    #[error(
        "no pass of `{transform}` stands between forward and backward, so `deepen` has nothing to make room for"
    )]
    #[diagnostic(
        code(schedc::transform::nothing_to_deepen),
        help(
            "leave `deepen` out, or let a backward pass need one of the transform's passes that itself needs a forward pass"
        )
    )]
    NothingToDeepen {
        /// The transform.
        transform: String,
        /// Its name.
        #[label("deepens nothing")]
        at: Span,
    },
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
            Self::LimitTooTight { at, .. }
            | Self::LimitNotMet { at, .. }
            | Self::NothingToDeepen { at, .. } => Some(at.file),
        }
    }
}
