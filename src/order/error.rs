//! Patterns and blocks that do not fit their passes.

use miette::Diagnostic;
use thiserror::Error;

use crate::diag::Located;
use crate::ir::{FileId, Rank, Span};

/// Why a pattern or a block gives no order.
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
    /// Two passes overlap, and one needs the other.
    #[error(
        "`{pass}` cannot run overlapped with `{needed}` on {rank}: it needs it, directly or through others"
    )]
    #[diagnostic(
        code(schedc::order::dependent_pair),
        help(
            "overlap passes of different microbatches: place more forwards before the pairs, so that a backward meets a later forward"
        )
    )]
    DependentPair {
        /// The pass that would have to wait.
        pass: String,
        /// What it would wait for.
        needed: String,
        /// On which rank.
        rank: Rank,
        /// The pair.
        #[label("neither may wait for the other")]
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
    /// Two passes of a block in one slot.
    #[error("{first} and `{second}` meet on {rank}, in slot {slot} of every {every}")]
    #[diagnostic(code(schedc::order::collision), help("{help}"))]
    Collision {
        /// A pass, in backticks.
        first: String,
        /// Another one.
        second: String,
        /// On which rank.
        rank: Rank,
        /// The slot, modulo the interval.
        slot: i64,
        /// The interval.
        every: u32,
        /// The slots that are idle, or how many it would take.
        help: String,
        /// The first pass, where it is another one.
        #[label("takes slot {slot} modulo {every} on {rank}")]
        first_at: Option<Span>,
        /// The second one.
        #[label("takes slot {slot} modulo {every} on {rank}")]
        at: Span,
    },
    /// A pass of a block before what it needs has ended.
    #[error(
        "`{pass}` of {rank} starts in slot {starts}, and `{needed}` of {on}, which it needs, is not over before slot {ready}"
    )]
    #[diagnostic(
        code(schedc::order::too_early),
        help("start `{pass}` of {rank} in slot {ready} or later, or `{needed}` of {on} earlier")
    )]
    TooEarly {
        /// The pass.
        pass: String,
        /// Its rank.
        rank: Rank,
        /// Its first slot, for microbatch 0.
        starts: i64,
        /// What it needs.
        needed: String,
        /// The rank that runs that.
        on: Rank,
        /// The first slot after the needed pass.
        ready: i64,
        /// The needed pass, where it stands on another line.
        #[label("over from slot {ready} on, on {on}")]
        needed_at: Option<Span>,
        /// The pass.
        #[label("slot {starts} on {rank}")]
        at: Span,
    },
    /// No idle slot for a pass.
    #[error("`{pass}` finds {} on {rank}, in a block of {every}", if *.count == 1 { "no idle slot" } else { "no two idle slots in a row" })]
    #[diagnostic(code(schedc::order::no_slot), help("{help}"))]
    NoSlot {
        /// The pass.
        pass: String,
        /// How many slots it takes.
        count: i64,
        /// The interval.
        every: u32,
        /// On which rank.
        rank: Rank,
        /// How many slots it would take, or what to move.
        help: String,
        /// The pass.
        #[label("finds no slot on {rank}")]
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
            | Self::DependentPair { at, .. }
            | Self::Endless { at, .. }
            | Self::LimitTooTight { at, .. }
            | Self::Collision { at, .. }
            | Self::TooEarly { at, .. }
            | Self::NoSlot { at, .. } => *at,
        }
    }
}

impl Located for OrderError {
    fn file(&self) -> Option<FileId> {
        Some(self.place().file)
    }
}
