//! Patterns that do not fit their passes.

use miette::Diagnostic;
use thiserror::Error;

use crate::diag::Located;
use crate::ir::{FileId, Rank, Span};

/// Why a pattern gives no order.
#[derive(Clone, Debug, Error, Diagnostic)]
pub enum OrderError {
    /// The pattern asks for a pass when its stream has run out.
    #[error("the order takes `{pass}` {times} times on {rank}, which has only {has}")]
    #[diagnostic(
        code(schedc::order::too_many),
        help(
            "shorten the repeats before it, bound them with `min(…, microbatches)`, or repeat until it runs out with `^*`"
        )
    )]
    TooMany {
        /// The pass, as written.
        pass: String,
        /// Which one is asked for, from 1.
        times: u64,
        /// How many there are.
        has: u64,
        /// On which rank.
        rank: Rank,
        /// Where.
        #[label("no `{pass}` is left here")]
        at: Span,
    },
    /// The pattern ends before the passes do.
    #[error("the order leaves {left} of {has} `{pass}` of {rank} over")]
    #[diagnostic(
        code(schedc::order::left_over),
        help("add `{pass}^*` at the end of the order, or count its repeats again")
    )]
    LeftOver {
        /// The pass.
        pass: String,
        /// How many are left over.
        left: u64,
        /// How many there are.
        has: u64,
        /// On which rank.
        rank: Rank,
        /// The order.
        #[label("ends too early on {rank}")]
        at: Span,
    },
    /// A repeat until its passes run out that takes none.
    #[error("this repeat takes no pass, so it would never run out")]
    #[diagnostic(
        code(schedc::order::endless),
        help("put at least one pass inside, or give a number of times")
    )]
    Endless {
        /// The repeat.
        #[label("takes nothing on {rank}")]
        at: Span,
        /// On which rank.
        rank: Rank,
    },
    /// Under its caps a rank comes to a halt with passes left.
    #[error("no order keeps `{class}` within {most} on {rank}")]
    #[diagnostic(code(schedc::order::limit_too_tight), help("the smallest limit that works is {works}"))]
    LimitTooTight {
        /// The class that is limited.
        class: String,
        /// The limit.
        most: u32,
        /// The smallest limit that works.
        works: u32,
        /// A rank that it holds on.
        rank: Rank,
        /// The limit.
        #[label("{most} are too few to finish one microbatch")]
        at: Span,
    },
}

impl OrderError {
    /// One error of each kind and place: 64 ranks that fail alike are one mistake.
    pub(super) fn distinct(errors: Vec<Self>) -> Vec<Self> {
        let mut kept: Vec<Self> = Vec::new();
        for error in errors {
            let alike = |other: &Self| {
                std::mem::discriminant(other) == std::mem::discriminant(&error)
                    && other.place() == error.place()
            };
            if !kept.iter().any(alike) {
                kept.push(error);
            }
        }
        kept
    }

    fn place(&self) -> Span {
        match self {
            Self::TooMany { at, .. }
            | Self::LeftOver { at, .. }
            | Self::Endless { at, .. }
            | Self::LimitTooTight { at, .. } => *at,
        }
    }
}

impl Located for OrderError {
    fn file(&self) -> Option<FileId> {
        Some(self.place().file)
    }
}
