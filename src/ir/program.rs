//! A schedule with every name bound and every number known: what `resolve` hands to `order` and `transform`.

use super::{Catalog, Chunk, ClassId, Collective, Dims, Kind, KindId, Microbatch, Need, Shape, Span, Where};

/// A schedule for one number of ranks and microbatches.
#[derive(Clone, Debug)]
pub struct Program {
    /// The schedule's name.
    pub name: String,
    /// Where the name was declared.
    pub span: Span,
    /// Ranks, microbatches, slices, chunks, placement.
    pub shape: Shape,
    /// The model that buffers are sized for.
    pub model: Dims,
    /// Classes (all of them), and the kinds and collectives of the base schedule; transforms bring their own.
    pub catalog: Catalog,
    /// What each rank does, by `Rank`.
    pub ranks: Vec<RankProgram>,
    /// The `order` construct; errors about the whole order point here.
    pub order: Span,
    /// Transforms in the order of application.
    pub transforms: Vec<Transform>,
}

/// One rank's streams and its order.
#[derive(Clone, Debug)]
pub struct RankProgram {
    /// For each kind at a stage, by [`KindId`]: the order in which its passes come. `None`: by microbatch, slice, then chunk.
    /// Always `None` for kinds at every rank (by microbatch).
    pub streams: Vec<Option<Vec<(Chunk, Microbatch)>>>,
    /// The pattern that takes from the streams.
    pub order: Pattern,
}

/// A pass pattern with known numbers, and the words that it came from.
#[derive(Clone, Debug)]
pub struct Pattern {
    /// What it is.
    pub kind: PatternKind,
    /// Where it was written.
    pub span: Span,
}

/// The forms of a pattern. `if` and `for` are already unfolded.
#[derive(Clone, Debug)]
pub enum PatternKind {
    /// The next pass of a kind: of any chunk as its stream has them, or of one chunk.
    Pass {
        /// Which kind.
        kind: KindId,
        /// Which chunk, where the pattern names one.
        chunk: Option<Chunk>,
    },
    /// One after the other; may be empty.
    Sequence(Vec<Pattern>),
    /// Again and again.
    Repeat {
        /// What is repeated.
        body: Box<Pattern>,
        /// How often.
        times: Repeat,
    },
}

/// How often a pattern is repeated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Repeat {
    /// `^n`.
    Times(u64),
    /// `^*`: as long as a whole turn finds its passes.
    UntilOut,
}

/// Passes and edges to add to a schedule. Ids continue those of the catalog (and of the transforms before this one).
#[derive(Clone, Debug)]
pub struct Transform {
    /// Its name.
    pub name: String,
    /// Where the name was declared.
    pub span: Span,
    /// The new kinds; the first has id `catalog.kinds.len()` at the time of application.
    pub kinds: Vec<Kind>,
    /// The new collectives; the first has id `catalog.collectives.len()` at the time of application.
    pub collectives: Vec<Collective>,
    /// Needs added to kinds that were there before.
    pub edges: Vec<(KindId, Need)>,
    /// What bounds the placement of its passes.
    pub limits: Vec<Limit>,
    /// Units (microbatches, or slices of them) by which the backward side moves back.
    pub deepen: u32,
}

/// A bound under which inserted passes are placed. Passes of the base schedule are never held back by one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// At most `most` buffers of a class live on any rank.
    Class {
        /// The class.
        class: ClassId,
        /// How many.
        most: u32,
        /// Where it was written.
        span: Span,
    },
    /// At most `most` more passes of one kind have started than of another. A new pass that would run further ahead is held back;
    /// a new pass that is run ahead of is pressed when the other is that far ahead.
    Ahead {
        /// The kind that runs ahead; for a kind at a stage, which stage counts.
        pass: (KindId, Where),
        /// The kind that it runs ahead of; for a kind at a stage, which stage counts.
        of: (KindId, Where),
        /// How many microbatches.
        most: u32,
        /// Where it was written.
        span: Span,
    },
}
