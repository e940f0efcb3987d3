//! Schedules that nothing of is left forward.

use miette::Diagnostic;
use thiserror::Error;

use crate::diag::Located;
use crate::ir::{FileId, Span};

/// Why a schedule has no forward-only twin.
#[derive(Clone, Debug, PartialEq, Eq, Error, Diagnostic)]
pub enum ForwardError {
    /// Nothing says that it computes the loss.
    #[error("no pass of `{schedule}` says that it computes the loss, so nothing is left forward")]
    #[diagnostic(code(schedc::forward::no_loss), help("declare {wanted}"))]
    NoLoss {
        /// The schedule.
        schedule: String,
        /// What would compute it.
        wanted: &'static str,
        /// The pass that the loss would follow from, where there is one.
        #[label("the loss follows from this pass, and no pass computes it")]
        at: Option<Span>,
    },
}

impl Located for ForwardError {
    fn file(&self) -> Option<FileId> {
        let Self::NoLoss { at, .. } = self;
        at.map(|span| span.file)
    }
}
