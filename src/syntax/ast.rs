//! The tree of a `.sched` file, as it was written. Nothing is looked up and nothing is computed here.

mod expr;
mod order;

pub use self::expr::{Expr, ExprForm, Function, Operator};
pub use self::order::{Block, BlockEntry, Greedy, GreedyForm, GreedyItem, Member};
use crate::ir::{FileId, Measure, Span};

/// A file: its items, and the comments and blank lines between them.
#[derive(Clone, Debug)]
pub struct File {
    /// Which file.
    pub id: FileId,
    /// The declarations, as they come.
    pub items: Vec<Item>,
    /// What the printer keeps besides the items.
    pub trivia: Trivia,
}

/// Text without meaning to the compiler.
#[derive(Clone, Debug, Default)]
pub struct Trivia {
    /// Every comment, in order.
    pub comments: Vec<Comment>,
    /// The first byte of each line that holds nothing, in order.
    pub blanks: Vec<u32>,
}

/// A comment up to the end of its line.
#[derive(Clone, Debug)]
pub struct Comment {
    /// With its slashes: `// …` or `//! …`.
    pub text: String,
    /// Whether nothing stands before it on its line.
    pub own_line: bool,
    /// Where.
    pub span: Span,
}

/// A name, a word or a quoted name, without the quotes.
#[derive(Clone, Debug)]
pub struct Word {
    /// Its letters.
    pub text: String,
    /// Where.
    pub span: Span,
}

/// A declaration.
#[derive(Clone, Debug)]
pub enum Item {
    /// `class x [tokens, hidden]`.
    Class(ClassDecl),
    /// `pass F at stage …`.
    Pass(PassDecl),
    /// `transform "vocab-2" { … }`.
    Transform(Transform),
    /// `schedule "1f1b" { … }`.
    Schedule(Schedule),
}

/// A class of buffer.
#[derive(Clone, Debug)]
pub struct ClassDecl {
    /// Its name.
    pub name: Word,
    /// Its sides.
    pub shape: Vec<Expr>,
    /// The whole declaration.
    pub span: Span,
}

/// A kind of pass.
#[derive(Clone, Debug)]
pub struct PassDecl {
    /// Its name.
    pub name: Word,
    /// Where it runs.
    pub site: DeclaredSite,
    /// The rest, as written; each form at most once.
    pub clauses: Vec<Clause>,
    /// The whole declaration.
    pub span: Span,
}

/// Where a kind of pass runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeclaredSite {
    /// `at stage`.
    Stage,
    /// `at every rank`.
    EveryRank {
        /// `in lockstep`.
        lockstep: bool,
    },
}

/// A clause of a pass declaration.
#[derive(Clone, Debug)]
pub struct Clause {
    /// What it says.
    pub form: ClauseForm,
    /// Where.
    pub span: Span,
}

/// What a clause says.
#[derive(Clone, Debug)]
pub enum ClauseForm {
    /// `computes stage_forward`.
    Computes(Word),
    /// `needs F, B(next)`.
    Needs(Vec<Need>),
    /// `gives dx`.
    Gives(Vec<Word>),
    /// `makes act`.
    Makes(Vec<Word>),
    /// `frees act`.
    Frees(Vec<Word>),
    /// `or fused into B computes stage_backward`.
    Fused {
        /// The pass that does this one's work where the schedule does not list it.
        into: Word,
        /// What that pass then computes.
        computes: Word,
    },
}

/// One thing that is needed.
#[derive(Clone, Debug)]
pub struct Need {
    /// How it gets here.
    pub form: NeedForm,
    /// The pass or the barrier.
    pub name: Word,
    /// At which site.
    pub at: Option<At>,
    /// Which value, by its class.
    pub port: Option<Word>,
    /// The whole need.
    pub span: Span,
}

/// How a needed thing gets to the pass that needs it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NeedForm {
    /// `F`, `F(prev)`, `C1.stats`.
    Direct,
    /// `broadcast F(last)`.
    Broadcast,
    /// `reduce IF`.
    Reduce,
}

/// A site in brackets, with its place.
#[derive(Clone, Copy, Debug)]
pub struct At {
    /// Which.
    pub site: AtSite,
    /// The word in the brackets.
    pub span: Span,
}

/// The words that may stand in brackets after a pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AtSite {
    /// The stage before.
    Prev,
    /// The stage after.
    Next,
    /// The first stage.
    First,
    /// The last stage.
    Last,
    /// The same stage, the slice before.
    Earlier,
    /// The same stage, the slice after.
    Later,
}

impl AtSite {
    /// Every site with its word.
    pub const WORDS: [(Self, &'static str); 6] = [
        (Self::Prev, "prev"),
        (Self::Next, "next"),
        (Self::First, "first"),
        (Self::Last, "last"),
        (Self::Earlier, "earlier"),
        (Self::Later, "later"),
    ];

    /// Its word.
    #[must_use]
    pub fn word(self) -> &'static str {
        Self::WORDS[self as usize].1
    }
}

/// Passes and edges to add to a schedule.
#[derive(Clone, Debug)]
pub struct Transform {
    /// Its name.
    pub name: Word,
    /// What it adds.
    pub items: Vec<TransformItem>,
    /// The whole declaration.
    pub span: Span,
}

/// An item of a transform.
#[derive(Clone, Debug)]
pub struct TransformItem {
    /// What it adds.
    pub form: TransformForm,
    /// Where.
    pub span: Span,
}

/// What an item of a transform adds.
#[derive(Clone, Debug)]
pub enum TransformForm {
    /// `pass S at every rank …`.
    Pass(PassDecl),
    /// `barrier C1 = …`.
    Barrier(Barrier),
    /// `B(last) needs C1.dx`.
    Edge(Edge),
    /// `limit logits <= 2`.
    Limit(Limit),
    /// `deepen 1`.
    Deepen(Expr),
}

/// Collectives that are taken one after the other under one name.
#[derive(Clone, Debug)]
pub struct Barrier {
    /// Its name.
    pub name: Word,
    /// Its collectives.
    pub parts: Vec<BarrierPart>,
}

/// One collective of a barrier.
#[derive(Clone, Debug)]
pub struct BarrierPart {
    /// What is done with the contributions.
    pub op: BarrierOp,
    /// The pass whose value is collected.
    pub pass: Word,
    /// Which value, by its class.
    pub port: Word,
    /// The step that prepares each rank's contribution from the parts before.
    pub by: Option<Word>,
    /// The whole part.
    pub span: Span,
}

/// The operations of a barrier.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BarrierOp {
    /// The sum, wherever it is read.
    AllReduce,
    /// The values side by side, on every rank.
    AllGather,
}

impl BarrierOp {
    /// Every operation with its word.
    pub const WORDS: [(Self, &'static str); 2] =
        [(Self::AllReduce, "all_reduce"), (Self::AllGather, "all_gather")];

    /// Its word.
    #[must_use]
    pub fn word(self) -> &'static str {
        Self::WORDS[self as usize].1
    }
}

/// Needs that a transform adds to a pass.
#[derive(Clone, Debug)]
pub struct Edge {
    /// The pass that needs more.
    pub to: Site,
    /// What.
    pub needs: Vec<Need>,
}

/// A pass, at one end of the pipeline or wherever it runs.
#[derive(Clone, Debug)]
pub struct Site {
    /// The pass (in a limit also a class).
    pub name: Word,
    /// `First`, `Last` or everywhere.
    pub at: Option<At>,
    /// Both.
    pub span: Span,
}

/// A bound under which passes are inserted.
#[derive(Clone, Debug)]
pub struct Limit {
    /// A class, or the pass that runs ahead.
    pub what: Site,
    /// How many buffers, or how many microbatches.
    pub most: Expr,
    /// The pass that it runs ahead of.
    pub ahead: Option<Site>,
}

/// A schedule.
#[derive(Clone, Debug)]
pub struct Schedule {
    /// Its name.
    pub name: Word,
    /// Numbers that the user may set, with their defaults.
    pub params: Vec<Param>,
    /// What it says.
    pub items: Vec<ScheduleItem>,
    /// The whole declaration.
    pub span: Span,
}

/// A parameter of a schedule.
#[derive(Clone, Debug)]
pub struct Param {
    /// Its name.
    pub name: Word,
    /// Its default.
    pub value: Expr,
}

/// An item of a schedule.
#[derive(Clone, Debug)]
pub struct ScheduleItem {
    /// What it says.
    pub form: ScheduleForm,
    /// Where.
    pub span: Span,
}

/// What an item of a schedule says.
#[derive(Clone, Debug)]
pub enum ScheduleForm {
    /// `passes F, B, W`.
    Passes(Vec<Word>),
    /// `chunks 2`.
    Chunks(Expr),
    /// `slices 2`.
    Slices(Expr),
    /// `retime`.
    Retime,
    /// `require peak <= 4`, `require peak <= 80 GB`, `require bubble <= 10 percent`.
    Require {
        /// What is bounded.
        measure: Measure,
        /// The bound.
        most: Expr,
    },
    /// `place loop`.
    Place(Placement),
    /// `apply "vocab-2"`.
    Apply(Word),
    /// `let w = ranks - rank`.
    Let {
        /// The name.
        name: Word,
        /// Its value.
        value: Expr,
    },
    /// `stream F by microbatch, chunk`.
    Stream {
        /// The pass.
        pass: Word,
        /// Sort keys, the first one first.
        keys: Vec<Expr>,
    },
    /// `order F^* B^*`, `block every 6 { … }` or `greedy { … }`.
    Order(OrderForm),
}

/// The ways to say an order.
#[derive(Clone, Debug)]
pub enum OrderForm {
    /// `order F^* B^*`: a pattern of passes.
    Pattern(Pattern),
    /// `block every 6 { … }`: one microbatch's passes with their slots.
    Block(Block),
    /// `greedy { … }`: a priority list and what bounds it.
    Greedy(Greedy),
}

/// Which rank holds which stage.
#[derive(Clone, Debug)]
pub enum Placement {
    /// `loop`: stage s on rank s % ranks.
    Loop,
    /// `wave`: there and back again.
    Wave,
    /// `bidirectional`: two copies of the model, in opposite directions.
    Bidirectional,
    /// `s -> expr`.
    Of {
        /// The name of the stage's number.
        stage: Word,
        /// Its rank.
        rank: Expr,
    },
}

/// A pattern of passes.
#[derive(Clone, Debug)]
pub struct Pattern {
    /// What it is.
    pub form: PatternForm,
    /// Where.
    pub span: Span,
}

/// The forms of a pattern.
#[derive(Clone, Debug)]
pub enum PatternForm {
    /// `F` or `F.1`.
    Pass {
        /// The pass.
        pass: Word,
        /// Of this chunk only.
        chunk: Option<Expr>,
    },
    /// `F & B`: two passes that run overlapped.
    Pair(Box<[Pattern; 2]>),
    /// One after the other.
    Sequence(Vec<Pattern>),
    /// `body^times`; the body is no repetition itself.
    Repeat {
        /// What is repeated.
        body: Box<Pattern>,
        /// How often.
        times: Times,
    },
    /// `if condition { then } else { otherwise }`.
    If {
        /// Known when the rank is.
        condition: Expr,
        /// A sequence.
        then: Box<Pattern>,
        /// A sequence; nothing where it is left out.
        otherwise: Option<Box<Pattern>>,
    },
    /// `for i in from..to { body }`.
    For {
        /// The name of the running number.
        variable: Word,
        /// Its first value.
        from: Expr,
        /// One past its last value.
        to: Expr,
        /// A sequence.
        body: Box<Pattern>,
    },
}

/// How often a pattern is repeated.
#[derive(Clone, Debug)]
pub enum Times {
    /// `^n`.
    Count(Expr),
    /// `^*`.
    UntilOut,
}

impl Item {
    /// The whole declaration.
    #[must_use]
    pub fn span(&self) -> Span {
        match self {
            Self::Class(class) => class.span,
            Self::Pass(pass) => pass.span,
            Self::Transform(transform) => transform.span,
            Self::Schedule(schedule) => schedule.span,
        }
    }
}

impl File {
    /// The classes that it declares.
    pub fn classes(&self) -> impl Iterator<Item = &ClassDecl> {
        self.items.iter().filter_map(|item| if let Item::Class(class) = item { Some(class) } else { None })
    }

    /// The passes that it declares outside transforms.
    pub fn passes(&self) -> impl Iterator<Item = &PassDecl> {
        self.items.iter().filter_map(|item| if let Item::Pass(pass) = item { Some(pass) } else { None })
    }

    /// The transforms that it declares.
    pub fn transforms(&self) -> impl Iterator<Item = &Transform> {
        self.items
            .iter()
            .filter_map(|item| if let Item::Transform(transform) = item { Some(transform) } else { None })
    }

    /// The schedules that it declares.
    pub fn schedules(&self) -> impl Iterator<Item = &Schedule> {
        self.items.iter().filter_map(
            |item| {
                if let Item::Schedule(schedule) = item { Some(schedule) } else { None }
            },
        )
    }

    /// The `//!` lines right above an item, without their slashes.
    #[must_use]
    pub fn docs(&self, item: Span) -> Vec<&str> {
        let above = self.trivia.comments.partition_point(|comment| comment.span.start < item.start);
        let mut lines = Vec::new();
        let mut below = item.start;
        for comment in self.trivia.comments[..above].iter().rev() {
            let doc = comment.text.strip_prefix("//!").filter(|_| comment.own_line);
            let Some(line) = doc.filter(|_| !self.trivia.blank_within(comment.span.end, below)) else {
                break;
            };
            lines.push(line.strip_prefix(' ').unwrap_or(line));
            below = comment.span.start;
        }
        lines.reverse();
        lines
    }
}

impl Trivia {
    /// Whether a line between two places holds nothing.
    #[must_use]
    pub fn blank_within(&self, start: u32, end: u32) -> bool {
        let next = self.blanks.partition_point(|&blank| blank <= start);
        self.blanks.get(next).is_some_and(|&blank| blank < end)
    }
}
