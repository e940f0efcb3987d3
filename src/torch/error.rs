//! What can be wrong with a PyTorch schedule, and what one can't express.

use std::fmt;

use miette::{Diagnostic, LabeledSpan, SourceSpan};
use thiserror::Error;

use super::source::CsvSource;
use crate::diag::Located;
use crate::ir::FileId;

/// Problems that a report shows; of the rest only the number.
const MOST: usize = 20;

/// A cell of the file, or one of the two actions in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cell {
    pub(super) text: String,
    pub(super) row: usize,
    pub(super) column: usize,
    pub(super) span: SourceSpan,
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { text, row, column, .. } = self;
        write!(f, "`{text}` at row {}, cell {column} (rank {row})", row + 1)
    }
}

impl From<Cell> for SourceSpan {
    fn from(cell: Cell) -> Self {
        cell.span
    }
}

/// A file that no PyTorch runtime can run as it stands, and why.
#[derive(Debug, Error, Diagnostic)]
#[error("`{}` is not a sound PyTorch schedule{}", .source_code.name(), and_more(*.more))]
pub struct TorchError {
    #[source_code]
    source_code: CsvSource,
    /// What is wrong; at least one, the first few of many.
    #[related]
    pub problems: Vec<Problem>,
    /// How many more there are.
    pub more: usize,
}

fn and_more(more: usize) -> String {
    if more == 0 { String::new() } else { format!("; {more} more problems are not shown") }
}

/// Gathers problems up to a limit.
#[derive(Debug, Default)]
pub(super) struct Report {
    problems: Vec<Problem>,
    more: usize,
}

impl Report {
    /// Adds a problem; only the first few are worked out.
    pub(super) fn add(&mut self, problem: impl FnOnce() -> Problem) {
        if self.problems.len() < MOST { self.problems.push(problem()) } else { self.more += 1 }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.problems.is_empty()
    }

    /// How many were added.
    pub(super) fn count(&self) -> usize {
        self.problems.len() + self.more
    }

    /// The error, where anything was found.
    pub(super) fn finish(self, source_code: &CsvSource) -> Result<(), Box<TorchError>> {
        if self.is_empty() {
            return Ok(());
        }
        let Self { problems, more } = self;
        Err(Box::new(TorchError { source_code: source_code.clone(), problems, more }))
    }
}

/// One thing that is wrong with a file.
#[derive(Clone, Debug, PartialEq, Eq, Error, Diagnostic)]
pub enum Problem {
    /// The file is not text.
    #[error("the file is not UTF-8 text: byte {offset} does not belong to any character")]
    #[diagnostic(code(schedc::torch::not_text), help("give a CSV file as PyTorch's `_dump_csv` writes it"))]
    NotText {
        /// The first such byte.
        offset: usize,
    },
    /// A row without an action.
    #[error("row {} has no action, so that rank {row} would do nothing", .row + 1)]
    #[diagnostic(
        code(schedc::torch::empty_row),
        help("a row is a rank: remove blank lines, also at the end, or give the rank a stage")
    )]
    EmptyRow {
        /// The row, from 0.
        row: usize,
        /// Where.
        #[label("nothing here")]
        at: SourceSpan,
    },
    /// An empty cell among messages.
    #[error("cell {} of row {} (rank {}) is empty, in a file with messages", .cell.column, .cell.row + 1, .cell.row)]
    #[diagnostic(
        code(schedc::torch::empty_cell),
        help("an empty cell is a bubble of a `compute_only` file; take it out")
    )]
    EmptyCell {
        /// The cell.
        #[label("empty")]
        cell: Cell,
    },
    /// A cell that is no action.
    #[error("{cell} is no action: {why}")]
    #[diagnostic(
        code(schedc::torch::bad_cell),
        help("write stage, operation, microbatch: `0F1`, `3SEND_B0`, `2UNSHARD`, `(0F7;3B1)OVERLAP_F_B`")
    )]
    BadCell {
        /// The cell.
        #[label("{why}")]
        cell: Cell,
        /// What is wrong with it.
        why: &'static str,
    },
    /// Text behind an action.
    #[error("`{trailing}` stands behind {cell}")]
    #[diagnostic(
        code(schedc::torch::trailing_text),
        help("remove it; PyTorch reads the action and takes no notice of what follows")
    )]
    TrailingText {
        /// The action.
        #[label("the action ends before `{trailing}`")]
        cell: Cell,
        /// What follows.
        trailing: String,
    },
    /// An overlap of something else than a forward and a backward.
    #[error("{cell} can't be overlapped so: {why}")]
    #[diagnostic(
        code(schedc::torch::bad_pair),
        help("overlap one F with one B or I of another microbatch, as in `(0F7;3B1)OVERLAP_F_B`")
    )]
    BadPair {
        /// Its first action.
        #[label("{why}")]
        cell: Cell,
        /// What is wrong with it.
        why: &'static str,
    },
    /// A gap in the stages.
    #[error("no row has an action of stage {stage}, and {cell} is of a later stage")]
    #[diagnostic(
        code(schedc::torch::missing_stage),
        help("stages are numbered from 0 without a gap; add the row of stage {stage}, or number them anew")
    )]
    MissingStage {
        /// The stage that is not there.
        stage: usize,
        /// An action of a later one.
        #[label("a later stage")]
        cell: Cell,
    },
    /// A stage on two ranks.
    #[error("{second} is of a stage that rank {} holds", .first.row)]
    #[diagnostic(
        code(schedc::torch::stage_on_two_ranks),
        help("keep all actions of a stage in one row; also a message is named for the local stage")
    )]
    StageOnTwoRanks {
        /// The stage's first action.
        #[label("the stage is here")]
        first: Cell,
        /// Its action on another rank.
        #[label("and here")]
        second: Cell,
    },
    /// A stage elsewhere than the placement has it.
    #[error("{cell} is of a stage that a placement by `{placement}` puts on rank {expected}")]
    #[diagnostic(
        code(schedc::torch::misplaced),
        help(
            "move it to row {}, or name the placement of the schedule; without `--placement` the rows decide",
            .expected + 1
        )
    )]
    Misplaced {
        /// The stage's first action.
        #[label("on rank {} here", .cell.row)]
        cell: Cell,
        /// The placement that was asked for.
        placement: String,
        /// The rank that it means.
        expected: usize,
    },
    /// The same action twice.
    #[error("{second} repeats {first}")]
    #[diagnostic(
        code(schedc::torch::duplicate),
        help("each pass and each of its messages happens once (B is both I and W); remove one of the two")
    )]
    Duplicate {
        /// The first one.
        #[label("the first one")]
        first: Cell,
        /// The second one.
        #[label("the second one")]
        second: Cell,
    },
    /// A pass that is not there.
    #[error("`{pass}` is nowhere in row {} (rank {})", .near.row + 1, .near.row)]
    #[diagnostic(
        code(schedc::torch::missing_pass),
        help(
            "every stage runs F and B (or I and W) once for each microbatch, and microbatches count from 0"
        )
    )]
    MissingPass {
        /// The pass.
        pass: String,
        /// An action of its stage.
        #[label("of the same stage")]
        near: Cell,
    },
    /// Something before what it needs on the same rank.
    #[error("{early} stands before {late}, which it needs")]
    #[diagnostic(code(schedc::torch::too_early), help("move it behind `{}`", .late.text))]
    TooEarly {
        /// What comes too early.
        #[label("too early")]
        early: Cell,
        /// What it needs.
        #[label("needed before")]
        late: Cell,
    },
    /// The last stage's forwards out of order.
    #[error(
        "{later} comes after {earlier}, and the last stage's forwards must come in the order of their microbatches"
    )]
    #[diagnostic(
        code(schedc::torch::forward_order),
        help(
            "number the microbatches so, or order the last stage's forwards; losses are kept in that order"
        )
    )]
    ForwardOrder {
        /// The one that comes first.
        #[label("first")]
        earlier: Cell,
        /// The one that should have.
        #[label("then one of an earlier microbatch")]
        later: Cell,
    },
    /// A message that leaves the pipeline.
    #[error("{cell} has no peer: {why}")]
    #[diagnostic(code(schedc::torch::no_peer), help("remove it"))]
    NoPeer {
        /// The action.
        #[label("no peer")]
        cell: Cell,
        /// Why not.
        why: &'static str,
    },
    /// A message between stages of one rank.
    #[error("{cell} is a message to itself: rank {} holds stage {peer} as well", .cell.row)]
    #[diagnostic(
        code(schedc::torch::local_message),
        help("remove it; between stages of one rank (the turn of a V) the value stays where it is")
    )]
    LocalMessage {
        /// The action.
        #[label("stays on its rank")]
        cell: Cell,
        /// The stage at the other end.
        peer: u32,
    },
    /// A pass whose input has not been received.
    #[error("{pass} has not received its input: `{recv}` {}", when(.late.as_ref()))]
    #[diagnostic(code(schedc::torch::not_received), help("put `{recv}` before it in the same row"))]
    NotReceived {
        /// The pass.
        #[label("needs `{recv}` before")]
        pass: Cell,
        /// The receive that it needs.
        recv: String,
        /// Where that is, if too late.
        late: Option<Cell>,
        /// The same, labelled.
        #[label("too late")]
        late_at: Option<SourceSpan>,
    },
    /// A receive without its send.
    #[error("{recv} waits for a message that nobody sends: row {} (rank {rank}) has no `{send}`", .rank + 1)]
    #[diagnostic(code(schedc::torch::missing_send), help("add `{send}` to row {}, in the order of the receives", .rank + 1))]
    MissingSend {
        /// The receive.
        #[label("hangs")]
        recv: Cell,
        /// The send that it waits for.
        send: String,
        /// The rank that should send.
        rank: usize,
    },
    /// A send without its receive.
    #[error("{send} sends a message that nobody receives: row {} (rank {rank}) has no `{recv}`", .rank + 1)]
    #[diagnostic(code(schedc::torch::missing_receive), help("add `{recv}` to row {}, in the order of the sends", .rank + 1))]
    MissingReceive {
        /// The send.
        #[label("never received")]
        send: Cell,
        /// The receive that it lacks.
        recv: String,
        /// The rank that should receive.
        rank: usize,
    },
    /// Receives in another order than the sends.
    #[error("{} comes after {}, but their sends come the other way round, and messages have no tags", .recvs[0], .recvs[1])]
    #[diagnostic(
        code(schedc::torch::receive_order),
        help("put the receives in the order of the sends; else PyTorch swaps the two values without a word")
    )]
    ReceiveOrder {
        /// The receives of the two sends, in the order of the sends.
        recvs: Box<[Cell; 2]>,
        /// The four ends, labelled.
        #[label(collection)]
        ends: Vec<LabeledSpan>,
    },
    /// A send that nobody waits for.
    #[error("{send} is never waited for")]
    #[diagnostic(
        code(schedc::torch::unwaited_send),
        help(
            "add `{wait}` behind it, where the peer can already receive; files from before torch knew `WAIT_SEND` \
             have none and are to be exported again"
        )
    )]
    UnwaitedSend {
        /// The send.
        #[label("no wait behind it")]
        send: Cell,
        /// What is missing.
        wait: String,
    },
    /// A wait for nothing.
    #[error("{wait} waits for nothing: no `{started}` stands before it")]
    #[diagnostic(
        code(schedc::torch::wait_for_nothing),
        help("put `{started}` before it, or remove the wait")
    )]
    WaitForNothing {
        /// The wait.
        #[label("nothing to wait for")]
        wait: Cell,
        /// What it would wait for.
        started: String,
    },
    /// Gradients that are never reduced.
    #[error("the gradients of stage {stage} are never reduced: row {} (rank {}) has no `{stage}REDUCE_GRAD`", .last.row + 1, .last.row)]
    #[diagnostic(
        code(schedc::torch::unreduced),
        help(
            "add `{stage}REDUCE_GRAD` behind the stage's last pass; else its gradients are too large by the number of microbatches"
        )
    )]
    Unreduced {
        /// The stage.
        stage: usize,
        /// Its last pass.
        #[label("the stage's last pass")]
        last: Cell,
    },
    /// Gradients reduced before they are complete.
    #[error("{reduce} comes before {last}, which adds to the same gradients")]
    #[diagnostic(code(schedc::torch::reduced_early), help("move it behind `{}`; else the gradients are wrong without a word", .last.text))]
    ReducedEarly {
        /// The reduction.
        #[label("too early")]
        reduce: Cell,
        /// The stage's last pass.
        #[label("still adds to the gradients")]
        last: Cell,
    },
    /// A reduction that nobody waits for.
    #[error("{reduce} is never waited for")]
    #[diagnostic(code(schedc::torch::unwaited_reduction), help("add `{stage}WAIT_REDUCE_GRAD` behind it"))]
    UnwaitedReduction {
        /// The reduction.
        #[label("no wait behind it")]
        reduce: Cell,
        /// Its stage.
        stage: u32,
    },
    /// Two reductions at once.
    #[error("{second} starts while {first} is pending")]
    #[diagnostic(
        code(schedc::torch::two_reductions),
        help("wait for the first one before: a rank reduces the gradients of one stage at a time")
    )]
    TwoReductions {
        /// The one that is pending.
        #[label("pending")]
        first: Cell,
        /// The one that starts.
        #[label("starts too early")]
        second: Cell,
    },
    /// A stage without its parameters.
    #[error("{cell} comes while the parameters of its stage are {state}")]
    #[diagnostic(
        code(schedc::torch::sharded),
        help(
            "a stage with `UNSHARD` in its row is gathered once before its passes and sharded again behind them"
        )
    )]
    Sharded {
        /// The action.
        #[label("{state} here")]
        cell: Cell,
        /// What they are.
        state: &'static str,
    },
    /// Ranks that wait for each other.
    #[error("{}", circle(.cells, *.more, *.channel))]
    #[diagnostic(code(schedc::torch::deadlock), help("{help}"))]
    Deadlock {
        /// The cells of the shortest circle, the first few of many.
        cells: Vec<Cell>,
        /// How many more there are.
        more: usize,
        /// Under which channel.
        channel: super::Channel,
        /// What to do.
        help: &'static str,
        /// What each waits for.
        #[label(collection)]
        waits: Vec<LabeledSpan>,
    },
}

fn when(late: Option<&Cell>) -> String {
    match late {
        Some(cell) => format!("comes only at cell {}", cell.column),
        None => "is not there".to_owned(),
    }
}

fn circle(cells: &[Cell], more: usize, channel: super::Channel) -> String {
    let names: Vec<String> = cells.iter().map(ToString::to_string).collect();
    let rest = if more == 0 { String::new() } else { format!(", and {more} more") };
    format!(
        "deadlock on a {channel} channel: each waits for the next, in a circle: {}{rest}",
        names.join(", ")
    )
}

impl Problem {
    /// The code of the rule: `schedc::torch::missing_send`.
    #[must_use]
    pub fn name(&self) -> String {
        self.code().map(|code| code.to_string()).unwrap_or_default()
    }
}

/// A plan that no PyTorch schedule says, or a PyTorch schedule that no plan says.
#[derive(Clone, Debug, PartialEq, Eq, Error, Diagnostic)]
pub enum Unsupported {
    /// A pass that PyTorch does not have.
    #[error("torch 2.15 has no pass like {passes}")]
    #[diagnostic(
        code(schedc::torch::no_such_pass),
        help(
            "its stages have F, B, I and W and nothing else; leave out the transform or the pass, or train by the plan with `schedc run`"
        )
    )]
    NoSuchPass {
        /// The passes, with what brought them.
        passes: String,
    },
    /// Two copies of the model.
    #[error(
        "torch 2.15 holds one copy of each stage, and `{schedule}` runs two flows in opposite directions"
    )]
    #[diagnostic(
        code(schedc::torch::two_copies),
        help("choose a schedule with one flow: `dualpipe-v` is `dualpipe` folded, with one copy")
    )]
    TwoCopies {
        /// The schedule.
        schedule: String,
    },
    /// Sliced sequences.
    #[error(
        "torch 2.15 cuts a batch into microbatches only, and `{schedule}` cuts sequences into {slices} slices"
    )]
    #[diagnostic(
        code(schedc::torch::sliced),
        help("choose a schedule that keeps sequences whole, such as `1f1b`")
    )]
    Sliced {
        /// The schedule.
        schedule: String,
        /// How many.
        slices: u32,
    },
    /// A plan without a backward side.
    #[error("torch 2.15 writes no schedule of forwards only")]
    #[diagnostic(
        code(schedc::torch::forward_only),
        help("leave `--forward-only` out; its runtime evaluates by the schedule that it trains by")
    )]
    ForwardOnly,
    /// A collective that PyTorch does not have.
    #[error("torch 2.15 has no action for {collective}")]
    #[diagnostic(
        code(schedc::torch::no_collective),
        help("leave `--tied` out, or place the first and the last stage on one rank (`place wave`)")
    )]
    NoCollective {
        /// What it does.
        collective: &'static str,
    },
    /// A need that PyTorch can't meet.
    #[error(
        "torch 2.15 hands activations to the next stage and gradients to the one before, and `{pass}` needs {need}"
    )]
    #[diagnostic(
        code(schedc::torch::no_such_need),
        help("do without that need, or train by the plan with `schedc run`")
    )]
    NoSuchNeed {
        /// The pass.
        pass: String,
        /// What it needs.
        need: String,
    },
    /// Ranks with different numbers of stages.
    #[error("rank {rank} holds {found} stages and rank 0 holds {expected}; a plan has as many on each rank")]
    #[diagnostic(
        code(schedc::torch::uneven_stages),
        help(
            "the file can be verified but not made into a plan; split or join stages so that each row has as many"
        )
    )]
    UnevenStages {
        /// The rank.
        rank: usize,
        /// Its stages.
        found: u32,
        /// Those of rank 0.
        expected: u32,
    },
}

impl Located for Unsupported {
    fn file(&self) -> Option<FileId> {
        None
    }
}
