//! A schedule with every name bound and every number known: what `resolve` hands to `order` and `transform`.

use super::{
    ByteUnit, Catalog, Chunk, ClassId, Collective, Dims, Kind, KindId, Microbatch, Need, Shape, Span, Where,
};

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
    /// Whether idle time of a written order may be filled, in as much memory as it takes.
    pub retime: bool,
    /// What each rank does, by `Rank`.
    pub ranks: Vec<RankProgram>,
    /// The `order` construct; errors about the whole order point here.
    pub order: Span,
    /// Transforms in the order of application.
    pub transforms: Vec<Transform>,
    /// What the plan must keep, under the costs that it is compiled for.
    pub requirements: Vec<Requirement>,
}

/// A bound on what a plan comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Requirement {
    /// What is bounded.
    pub measure: Measure,
    /// The bound, in the measure's unit.
    pub most: u64,
    /// Where it was written.
    pub span: Span,
}

/// What a requirement bounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Measure {
    /// `peak`, in microbatches of a rank's share of the model: the activations that any rank holds at most.
    Activations,
    /// `peak` in a unit of memory: what any rank's buffers take.
    Bytes(ByteUnit),
    /// `bubble`, in percent: idle time in the makespan, mean over the ranks.
    Bubble,
}

/// One rank's streams and its order.
#[derive(Clone, Debug)]
pub struct RankProgram {
    /// For each kind at a stage, by [`KindId`]: the order in which its passes come. `None`: by microbatch, slice, then chunk.
    /// Always `None` for kinds at every rank (by microbatch).
    pub streams: Vec<Option<Vec<(Chunk, Microbatch)>>>,
    /// How its order is said; all ranks of a program say it in the same way.
    pub order: RankOrder,
}

/// The three ways to say a rank's order.
#[derive(Clone, Debug)]
pub enum RankOrder {
    /// `order`: a pattern that takes from the streams.
    Pattern(Pattern),
    /// `block`: one microbatch's passes with their slots, repeated.
    Block(Block),
    /// `greedy`: the first ready pass of a list, within limits.
    Greedy(Greedy),
}

/// One microbatch's passes on a rank; microbatch i's lie `every * i` slots later. A pass takes one slot, and one more for each pass
/// whose work it does besides its own.
#[derive(Clone, Debug)]
pub struct Block {
    /// Slots from one microbatch to the next; at least 1.
    pub every: u32,
    /// Where that was written.
    pub every_span: Span,
    /// The passes with a slot of their own.
    pub slots: Vec<Slot>,
    /// The passes that take idle slots, in the order in which they were written.
    pub fills: Vec<Member>,
}

/// A pass with a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot {
    /// Which pass.
    pub pass: Member,
    /// The slot in which it starts for microbatch 0; may be negative.
    pub at: i64,
}

/// A kind of pass at one chunk of a rank.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member {
    /// The kind.
    pub kind: KindId,
    /// The chunk; 0 for a kind at every rank.
    pub chunk: Chunk,
    /// Where it was written.
    pub span: Span,
}

/// A priority list and what bounds it.
#[derive(Clone, Debug)]
pub struct Greedy {
    /// The first ready one runs. Every kind of the schedule at every chunk, once.
    pub prefer: Vec<Member>,
    /// Caps on the buffers that are live on this rank.
    pub limits: Vec<Cap>,
}

/// At most so many buffers of a class live on a rank.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cap {
    /// The class.
    pub class: ClassId,
    /// How many.
    pub most: u32,
    /// Where it was written.
    pub span: Span,
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
    /// `F & B`: two passes that run overlapped; each is a [`PatternKind::Pass`].
    Pair(Box<[Pattern; 2]>),
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
