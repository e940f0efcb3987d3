//! Plans that do not keep what their schedule requires, or what the user allows.

use miette::Diagnostic;
use thiserror::Error;

use crate::diag::Located;
use crate::ir::{Bytes, FileId, Rank, Span};

/// What a simulation shows to be over a bound.
#[derive(Clone, Debug, PartialEq, Eq, Error, Diagnostic)]
pub enum SimulateError {
    /// A `require` of the schedule is not kept.
    #[error("the schedule requires {required}, and {found}")]
    #[diagnostic(code(schedc::simulate::unmet_requirement), help("{help}"))]
    UnmetRequirement {
        /// What is required: `a peak of at most 4 microbatches`.
        required: String,
        /// What is found: `r0 holds 6`.
        found: String,
        /// When and by whom, and what to do.
        help: String,
        /// The requirement.
        #[label("required here")]
        at: Span,
    },
    /// A rank needs more memory than it may have.
    #[error("{rank} needs {}, which is more than the {} that it may have", needed.short(), limit.short())]
    #[diagnostic(code(schedc::simulate::over_memory_limit), help("{help}"))]
    OverMemoryLimit {
        /// The rank that needs most.
        rank: Rank,
        /// What it needs.
        needed: Bytes,
        /// What it may have.
        limit: Bytes,
        /// When and by whom, and what to do.
        help: String,
    },
}

impl Located for SimulateError {
    fn file(&self) -> Option<FileId> {
        match self {
            Self::UnmetRequirement { at, .. } => Some(at.file),
            Self::OverMemoryLimit { .. } => None,
        }
    }
}
