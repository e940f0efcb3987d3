//! The ways to say an order without a pattern: slots and priorities.

use super::{Expr, Word};
use crate::ir::Span;

/// `block every 6 { … }`: one microbatch's passes, repeated.
#[derive(Clone, Debug)]
pub struct Block {
    /// Slots from one microbatch to the next.
    pub every: Expr,
    /// Its lines.
    pub entries: Vec<BlockEntry>,
}

/// A line of a block.
#[derive(Clone, Debug)]
pub struct BlockEntry {
    /// The pass.
    pub pass: Member,
    /// Its slot for microbatch 0; `None`: an idle one, `fill`.
    pub at: Option<Expr>,
    /// The whole line.
    pub span: Span,
}

/// A pass, of one chunk or of all.
#[derive(Clone, Debug)]
pub struct Member {
    /// The pass.
    pub pass: Word,
    /// Of this chunk only.
    pub chunk: Option<Expr>,
    /// Both.
    pub span: Span,
}

/// `greedy { … }`: the first ready pass of a list, within limits.
#[derive(Clone, Debug)]
pub struct Greedy {
    /// What it says.
    pub items: Vec<GreedyItem>,
}

/// An item of a `greedy`.
#[derive(Clone, Debug)]
pub struct GreedyItem {
    /// What it says.
    pub form: GreedyForm,
    /// Where.
    pub span: Span,
}

/// What an item of a `greedy` says.
#[derive(Clone, Debug)]
pub enum GreedyForm {
    /// `limit act <= 2 * ranks`.
    Limit {
        /// The class.
        class: Word,
        /// How many of its buffers may be live on a rank.
        most: Expr,
    },
    /// `prefer B.1 B.0 F.1 F.0 W`.
    Prefer(Vec<Member>),
}
