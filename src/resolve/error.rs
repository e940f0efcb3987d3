//! What can be wrong with the names and numbers of a schedule.

use miette::{Diagnostic, LabeledSpan};
use thiserror::Error;

use crate::diag::Located;
use crate::ir::{FileId, Span};

/// A schedule that means nothing, or nothing for these numbers of ranks and microbatches.
#[derive(Clone, Debug, Error, Diagnostic)]
pub enum ResolveError {
    /// A variable that is not there.
    #[error("`{name}` has no value {place}")]
    #[diagnostic(code(schedc::resolve::unknown_name), help("{help}"))]
    UnknownName {
        /// As written.
        name: String,
        /// What the expression belongs to.
        place: &'static str,
        /// The nearest name, or all of them.
        help: String,
        /// Where.
        #[label("unknown here")]
        at: Span,
    },

    /// A pass that nobody declares.
    #[error("no pass is called `{pass}`")]
    #[diagnostic(code(schedc::resolve::unknown_pass), help("{help}"))]
    UnknownPass {
        /// As written.
        pass: String,
        /// The nearest name, or all of them.
        help: String,
        /// Where.
        #[label("not declared")]
        at: Span,
    },

    /// A pass that is declared but takes no part.
    #[error("the schedule has no pass `{pass}`")]
    #[diagnostic(
        code(schedc::resolve::missing_pass),
        help("add `{pass}` to the `passes` of the schedule, or do without what names it here")
    )]
    MissingPass {
        /// Its name.
        pass: String,
        /// Where.
        #[label("named here")]
        at: Span,
    },

    /// A class that nobody declares.
    #[error("no class is called `{class}`")]
    #[diagnostic(code(schedc::resolve::unknown_class), help("{help}"))]
    UnknownClass {
        /// As written.
        class: String,
        /// The nearest name, or all of them.
        help: String,
        /// Where.
        #[label("not declared")]
        at: Span,
    },

    /// A transform that nobody declares.
    #[error("no transform is called `{transform}`")]
    #[diagnostic(code(schedc::resolve::unknown_transform), help("{help}"))]
    UnknownTransform {
        /// As written.
        transform: String,
        /// The nearest name, or all of them.
        help: String,
        /// Where; `None` for one of the command line.
        #[label("not declared")]
        at: Option<Span>,
    },

    /// A schedule that is not there.
    #[error("no schedule is called `{schedule}`")]
    #[diagnostic(code(schedc::resolve::unknown_schedule), help("{help}"))]
    UnknownSchedule {
        /// As asked for.
        schedule: String,
        /// The nearest name, or all of them.
        help: String,
    },

    /// A file with no schedule, or with several.
    #[error("the file holds {}", if *.count == 0 { "no schedule".to_owned() } else { format!("{count} schedules, and one must be chosen") })]
    #[diagnostic(code(schedc::resolve::which_schedule), help("{help}"))]
    WhichSchedule {
        /// How many.
        count: usize,
        /// Their names.
        help: String,
    },

    /// A parameter that the schedule does not have.
    #[error("schedule `{schedule}` has no parameter `{parameter}`")]
    #[diagnostic(code(schedc::resolve::unknown_parameter), help("{help}"))]
    UnknownParameter {
        /// As set.
        parameter: String,
        /// The schedule.
        schedule: String,
        /// The nearest name, or all of them.
        help: String,
        /// The schedule's name.
        #[label("its parameters stand behind its name")]
        at: Span,
    },

    /// A computation that no interpreter knows.
    #[error("no computation is called `{word}`")]
    #[diagnostic(code(schedc::resolve::unknown_computation), help("{help}"))]
    UnknownComputation {
        /// As written.
        word: String,
        /// The nearest word, or all of them.
        help: String,
        /// Where.
        #[label("unknown")]
        at: Span,
    },

    /// Two things with one name.
    #[error("{what} `{name}` is there twice")]
    #[diagnostic(code(schedc::resolve::duplicate), help("{help}"))]
    Duplicate {
        /// What it is, without an article.
        what: &'static str,
        /// The name.
        name: String,
        /// What to do.
        help: String,
        /// The first one, where it stands in the same file.
        #[label("the first one")]
        first: Option<Span>,
        /// The second one.
        #[label("the second one")]
        at: Option<Span>,
    },

    /// Two transforms that cannot go together.
    #[error("transform `{second}` brings `{name}`, and so does `{first}`")]
    #[diagnostic(
        code(schedc::resolve::conflicting_transforms),
        help("apply one of the two, or give `{name}` another name in one of them")
    )]
    ConflictingTransforms {
        /// The one that is applied first.
        first: String,
        /// The one that is applied then.
        second: String,
        /// A pass or a barrier of both.
        name: String,
        /// The second one's.
        #[label("the second `{name}`")]
        at: Span,
    },

    /// No order.
    #[error("schedule `{schedule}` does not say the order of its passes")]
    #[diagnostic(
        code(schedc::resolve::missing_order),
        help("add an `order`, such as `order F^* B^*`, a `block` or a `greedy`")
    )]
    MissingOrder {
        /// The schedule.
        schedule: String,
        /// Its name.
        #[label("has no `order`")]
        at: Span,
    },

    /// A pass that a block or a priority list leaves out.
    #[error("{place} leaves out {missing}")]
    #[diagnostic(code(schedc::resolve::unlisted_pass), help("{help}"))]
    UnlistedPass {
        /// The passes.
        missing: String,
        /// What leaves them out.
        place: &'static str,
        /// What to add.
        help: String,
        /// Its beginning.
        #[label("every pass of the schedule stands here, once")]
        at: Span,
    },

    /// One slot for the passes of several chunks.
    #[error("`{pass}` has {chunks} chunks on each rank, and a slot is for one of them")]
    #[diagnostic(code(schedc::resolve::which_chunk), help("{help}"))]
    WhichChunk {
        /// The pass.
        pass: String,
        /// How many chunks it has.
        chunks: u32,
        /// What to write.
        help: String,
        /// Where.
        #[label("of which chunk?")]
        at: Span,
    },

    /// A stream beside a block.
    #[error("a block says itself when every `{pass}` runs, and a stream says so too")]
    #[diagnostic(
        code(schedc::resolve::stream_in_block),
        help("remove the stream; the microbatches of a block come one after the other")
    )]
    StreamInBlock {
        /// The pass.
        pass: String,
        /// The pass in the stream.
        #[label("has a slot in the block")]
        at: Span,
    },

    /// Blocks that come apart.
    #[error("the block repeats every {first} slots on rank 0 and every {other} on rank {rank}")]
    #[diagnostic(
        code(schedc::resolve::uneven_interval),
        help("give all ranks one interval: leave `rank` and what is made from it out of `every`")
    )]
    UnevenInterval {
        /// On rank 0.
        first: u32,
        /// On the other rank.
        other: u32,
        /// The first rank that differs.
        rank: usize,
        /// The interval.
        #[label("{other} on rank {rank}")]
        at: Span,
    },

    /// A limit on what does not stay.
    #[error("no pass of the schedule makes `{class}`")]
    #[diagnostic(code(schedc::resolve::unmade_class), help("{help}"))]
    UnmadeClass {
        /// The class.
        class: String,
        /// Classes that can be limited.
        help: String,
        /// Where.
        #[label("nothing to limit")]
        at: Span,
    },

    /// Several passes that would be fused into one.
    #[error("both `{first}` and `{second}` would be fused into `{into}`")]
    #[diagnostic(
        code(schedc::resolve::fused_twice),
        help("list one of the two in the `passes` of the schedule; one pass takes in one other")
    )]
    FusedTwice {
        /// A pass that the schedule does not list.
        first: String,
        /// Another one.
        second: String,
        /// The pass that would do their work.
        into: String,
        /// The second one's clause.
        #[label("a second pass for `{into}` to take in")]
        at: Span,
    },

    /// A value from a pass that gives none.
    #[error("`{pass}` gives no value{class}")]
    #[diagnostic(code(schedc::resolve::no_value), help("{help}"))]
    NoValue {
        /// The producer.
        pass: String,
        /// Empty, or ` of class …`.
        class: String,
        /// What it gives, or what to add.
        help: String,
        /// Where it is needed.
        #[label("needed here")]
        at: Span,
    },

    /// A relation between sites that do not correspond.
    #[error("{problem}")]
    #[diagnostic(code(schedc::resolve::wrong_site), help("{help}"))]
    WrongSite {
        /// A sentence.
        problem: String,
        /// What to write instead.
        help: String,
        /// Where.
        #[label("this site")]
        at: Span,
    },

    /// A collective that has no sensible reader.
    #[error("{problem}")]
    #[diagnostic(code(schedc::resolve::wrong_reader), help("{help}"))]
    WrongReader {
        /// A sentence.
        problem: String,
        /// What to write instead.
        help: String,
        /// Where.
        #[label("read here")]
        at: Span,
    },

    /// A collective for nothing.
    #[error("nobody reads `{collective}`")]
    #[diagnostic(
        code(schedc::resolve::unread_barrier),
        help("add `needs {collective}` to the pass that waits for it, or remove this part of the barrier")
    )]
    UnreadBarrier {
        /// `C1.stats`.
        collective: String,
        /// The part.
        #[label("collected for nobody")]
        at: Span,
    },

    /// Passes that wait for each other.
    #[error("these passes of one microbatch wait for each other: {cycle}")]
    #[diagnostic(
        code(schedc::resolve::cyclic_needs),
        help("remove one of these needs; no order of passes can meet them all")
    )]
    CyclicNeeds {
        /// `F → B → F`.
        cycle: String,
        /// The file of the labels.
        file: FileId,
        /// Every need of the cycle that is written in the file.
        #[label(collection, "a need of the cycle")]
        needs: Vec<LabeledSpan>,
    },

    /// State that stays.
    #[error("`{pass}` makes `{class}`, and no pass frees it")]
    #[diagnostic(
        code(schedc::resolve::leaked_class),
        help(
            "add `frees {class}` to the last pass that reads it, and that pass to the schedule; a buffer that nobody frees is held for the whole step"
        )
    )]
    LeakedClass {
        /// The maker.
        pass: String,
        /// The class.
        class: String,
        /// The maker's declaration, or the `passes` that miss the pass that frees it.
        #[label("`{class}` is never freed")]
        at: Span,
    },

    /// State from nowhere.
    #[error("`{pass}` frees `{class}`, and no pass at its sites makes it")]
    #[diagnostic(
        code(schedc::resolve::freed_unmade),
        help("add `makes {class}` to the pass that leaves it, or remove it from the `frees` of `{pass}`")
    )]
    FreedUnmade {
        /// The pass that frees it.
        pass: String,
        /// The class.
        class: String,
        /// Its declaration.
        #[label("frees `{class}`")]
        at: Span,
    },

    /// State with two makers or two ends.
    #[error("both `{first}` and `{second}` {verb} `{class}`")]
    #[diagnostic(
        code(schedc::resolve::ambiguous_class),
        help("a class has one pass that makes it and one that frees it; declare a second class")
    )]
    AmbiguousClass {
        /// A pass.
        first: String,
        /// Another one.
        second: String,
        /// `make` or `free`.
        verb: &'static str,
        /// The class.
        class: String,
        /// The second one's declaration.
        #[label("the second one")]
        at: Span,
    },

    /// A buffer without elements.
    #[error("class `{class}` has no elements wherever `{pass}` leaves it")]
    #[diagnostic(
        code(schedc::resolve::empty_class),
        help("give every side of `{class}` a size there; at every rank `layers`, `first` and `last` are 0")
    )]
    EmptyClass {
        /// The class.
        class: String,
        /// A pass that gives or makes it.
        pass: String,
        /// The class's declaration.
        #[label("0 elements")]
        at: Span,
    },

    /// A number where a condition must stand, or the other way round.
    #[error("{found} stands where {expected} must stand")]
    #[diagnostic(code(schedc::resolve::wrong_type), help("{help}"))]
    WrongType {
        /// What is there.
        found: &'static str,
        /// What should be.
        expected: &'static str,
        /// What to write instead.
        help: &'static str,
        /// Where.
        #[label("{found}")]
        at: Span,
    },

    /// Too few or too many arguments.
    #[error("`{function}` takes {expected}, and here are {count}")]
    #[diagnostic(code(schedc::resolve::wrong_arguments), help("write `{example}`"))]
    WrongArguments {
        /// Its name.
        function: &'static str,
        /// How many it takes.
        expected: &'static str,
        /// How many there are.
        count: usize,
        /// A right call.
        example: &'static str,
        /// The call.
        #[label("{count} arguments")]
        at: Span,
    },

    /// A division by zero.
    #[error("division by zero{place}")]
    #[diagnostic(
        code(schedc::resolve::division_by_zero),
        help("guard it: `x / max(y, 1)`, or `if y > 0 {{ … }}`")
    )]
    DivisionByZero {
        /// Empty, or on which rank or stage.
        place: String,
        /// The division.
        #[label("the divisor is 0")]
        at: Span,
    },

    /// A result beyond 64 bits.
    #[error("a number grows beyond 64 bits{place}")]
    #[diagnostic(
        code(schedc::resolve::overflow),
        help("choose smaller numbers; where a shape overflows, a smaller model")
    )]
    Overflow {
        /// Empty, or on which rank or stage.
        place: String,
        /// The operation.
        #[label("overflows")]
        at: Span,
    },

    /// A repetition less than no times.
    #[error("a pattern is repeated {times} times{place}")]
    #[diagnostic(code(schedc::resolve::negative_repeat), help("clamp it: `^(max(n, 0))`"))]
    NegativeRepeat {
        /// How often.
        times: i64,
        /// On which rank.
        place: String,
        /// The repetition.
        #[label("{times} times")]
        at: Span,
    },

    /// A number that counts or names something that is not there.
    #[error("{what} is {value}{place}, and must be {range}")]
    #[diagnostic(code(schedc::resolve::out_of_range), help("{help}"))]
    OutOfRange {
        /// What the number is.
        what: String,
        /// Its value.
        value: i64,
        /// Empty, or on which rank or stage.
        place: String,
        /// What it may be.
        range: String,
        /// What to do.
        help: &'static str,
        /// The number.
        #[label("{value}")]
        at: Span,
    },

    /// Stages that are not spread evenly.
    #[error("{rank} holds {found} stages, and every rank must hold {chunks}")]
    #[diagnostic(
        code(schedc::resolve::bad_placement),
        help(
            "place as many stages on every rank as the schedule has `chunks`; `place loop` and `place wave` do"
        )
    )]
    BadPlacement {
        /// The rank, with its sigil.
        rank: String,
        /// How many it has.
        found: u64,
        /// How many it must have.
        chunks: u32,
        /// The placement.
        #[label("{rank} gets {found} stages")]
        at: Span,
    },

    /// An order that unfolds without end.
    #[error("the order of rank {rank} unfolds to more than {limit} steps, and the rank has {passes} passes")]
    #[diagnostic(
        code(schedc::resolve::order_too_long),
        help("bound the `for` by what the rank has: `microbatches`, `chunks` or `ranks`")
    )]
    OrderTooLong {
        /// The rank's number.
        rank: u32,
        /// Where unfolding stopped.
        limit: u64,
        /// What the rank has to do.
        passes: u64,
        /// The pattern that was being unfolded.
        #[label("unfolded here")]
        at: Span,
    },

    /// Slices that would not be of one length.
    #[error("{slices} slices do not divide a sequence of {sequence} tokens")]
    #[diagnostic(
        code(schedc::resolve::uneven_slices),
        help("choose a number of slices that divides `--seq`, or another `--seq`")
    )]
    UnevenSlices {
        /// Tokens in a sequence.
        sequence: u32,
        /// How many slices it should have.
        slices: u32,
        /// The number of slices.
        #[label("as many slices as this")]
        at: Span,
    },

    /// Something that is said for one pipeline and its microbatches, in two flows.
    #[error("a bidirectional placement does not go with {what}")]
    #[diagnostic(code(schedc::resolve::not_in_two_flows), help("{help}"))]
    NotInTwoFlows {
        /// What it does not go with.
        what: &'static str,
        /// What to write instead.
        help: &'static str,
        /// The placement.
        #[label("two flows")]
        place: Span,
        /// The other.
        #[label("and {what}")]
        at: Span,
    },

    /// No ranks.
    #[error("a pipeline needs at least one rank")]
    #[diagnostic(code(schedc::resolve::no_ranks), help("give `--ranks` a number from 1 up"))]
    NoRanks,

    /// No microbatches.
    #[error("a step needs at least one microbatch")]
    #[diagnostic(code(schedc::resolve::no_microbatches), help("give `--microbatches` a number from 1 up"))]
    NoMicrobatches,

    /// More passes than can be compiled.
    #[error(
        "{ranks} ranks, {chunks} chunks and {microbatches} microbatches make {total} {what}, and at most {most} can be compiled"
    )]
    #[diagnostic(
        code(schedc::resolve::too_many_passes),
        help("lower `--ranks`, `--microbatches` or the number of chunks")
    )]
    TooManyPasses {
        /// `p`.
        ranks: u32,
        /// `v`.
        chunks: u32,
        /// `m`.
        microbatches: u32,
        /// Their product.
        total: u64,
        /// `passes` or `stages`.
        what: &'static str,
        /// The limit.
        most: u64,
    },

    /// A model without something.
    #[error("the model has no {dimension}")]
    #[diagnostic(code(schedc::resolve::empty_model), help("give `--{dimension}` a number from 1 up"))]
    EmptyModel {
        /// The dimension that is 0.
        dimension: &'static str,
    },

    /// Layers for more or fewer stages than there are.
    #[error("the partition has {stages} stages, and the pipeline has {needed}")]
    #[diagnostic(
        code(schedc::resolve::partition_stages),
        help("give a number of layers for each of the {needed} stages, or `uniform` or `balanced`")
    )]
    PartitionStages {
        /// Those of the partition.
        stages: usize,
        /// Those of one flow of the pipeline.
        needed: u32,
    },

    /// A partition of another model.
    #[error("the partition has {sum} layers in all, and the model has {layers}")]
    #[diagnostic(
        code(schedc::resolve::partition_layers),
        help("make the numbers add up to {layers}, or leave the number of layers out")
    )]
    PartitionLayers {
        /// Those of the partition.
        sum: u64,
        /// Those of the model.
        layers: u32,
    },

    /// Heads of unequal width.
    #[error("{heads} heads do not divide a hidden width of {hidden}")]
    #[diagnostic(code(schedc::resolve::uneven_heads), help("choose `--hidden` as a multiple of `--heads`"))]
    UnevenHeads {
        /// Attention heads.
        heads: u32,
        /// Width.
        hidden: u32,
    },
    /// A width that words of two activations do not fill.
    #[error("a hidden width of {hidden} is odd, and in bf16 two activations share a word of four bytes")]
    #[diagnostic(code(schedc::resolve::odd_width), help("choose an even `--hidden`, or `--precision f32`"))]
    OddWidth {
        /// Width of the residual stream.
        hidden: u32,
    },
}

impl Located for ResolveError {
    fn file(&self) -> Option<FileId> {
        match self {
            Self::UnknownName { at, .. }
            | Self::UnknownPass { at, .. }
            | Self::MissingPass { at, .. }
            | Self::UnknownClass { at, .. }
            | Self::UnknownParameter { at, .. }
            | Self::UnknownComputation { at, .. }
            | Self::ConflictingTransforms { at, .. }
            | Self::MissingOrder { at, .. }
            | Self::UnlistedPass { at, .. }
            | Self::WhichChunk { at, .. }
            | Self::StreamInBlock { at, .. }
            | Self::UnevenInterval { at, .. }
            | Self::UnmadeClass { at, .. }
            | Self::FusedTwice { at, .. }
            | Self::NoValue { at, .. }
            | Self::WrongSite { at, .. }
            | Self::WrongReader { at, .. }
            | Self::UnreadBarrier { at, .. }
            | Self::LeakedClass { at, .. }
            | Self::FreedUnmade { at, .. }
            | Self::AmbiguousClass { at, .. }
            | Self::EmptyClass { at, .. }
            | Self::WrongType { at, .. }
            | Self::WrongArguments { at, .. }
            | Self::DivisionByZero { at, .. }
            | Self::Overflow { at, .. }
            | Self::NegativeRepeat { at, .. }
            | Self::OutOfRange { at, .. }
            | Self::UnevenSlices { at, .. }
            | Self::NotInTwoFlows { at, .. }
            | Self::BadPlacement { at, .. }
            | Self::OrderTooLong { at, .. } => Some(at.file),
            Self::UnknownTransform { at, .. } | Self::Duplicate { at, .. } => at.map(|at| at.file),
            Self::CyclicNeeds { file, .. } => Some(*file),
            Self::UnknownSchedule { .. }
            | Self::WhichSchedule { .. }
            | Self::NoRanks
            | Self::NoMicrobatches
            | Self::TooManyPasses { .. }
            | Self::EmptyModel { .. }
            | Self::PartitionStages { .. }
            | Self::PartitionLayers { .. }
            | Self::UnevenHeads { .. }
            | Self::OddWidth { .. } => None,
        }
    }
}

impl ResolveError {
    /// The error for a schedule that is in none of the names.
    pub fn unknown_schedule<'a>(schedule: &str, names: impl IntoIterator<Item = &'a str> + Clone) -> Self {
        let known =
            schedule.split_once(':').filter(|(name, _)| names.clone().into_iter().any(|one| one == *name));
        let help = known.map_or_else(
            || suggest(schedule, names),
            |(name, parameters)| {
                format!("give its parameters as `{name} --set {}`", parameters.replace(',', " --set "))
            },
        );
        Self::UnknownSchedule { schedule: schedule.to_owned(), help }
    }
}

/// What to write instead of a word: the nearest of the names, or all of them.
pub(super) fn suggest<'a>(word: &str, names: impl IntoIterator<Item = &'a str> + Clone) -> String {
    if let Some(near) = crate::diag::nearest(word, names.clone()) {
        return format!("did you mean `{near}`?");
    }
    let all: Vec<String> = names.into_iter().map(|name| format!("`{name}`")).collect();
    match &all[..] {
        [] => "leave it out: there is none to choose from".to_owned(),
        [only] => format!("there is only {only}"),
        all => format!("choose from {}", all.join(", ")),
    }
}
