//! What a PyTorch schedule consists of: actions, a row of them for each rank.

use std::fmt;

use crate::ir::Rank;

use super::error::Cell;
use super::source::CsvSource;

/// What an action does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Op {
    /// Forward.
    F,
    /// Input gradient.
    I,
    /// Weight gradient.
    W,
    /// Both gradients.
    B,
    /// Starts sending an activation to the stage after.
    SendF,
    /// Starts receiving one from the stage before.
    RecvF,
    /// Starts sending a gradient to the stage before.
    SendB,
    /// Starts receiving one from the stage after.
    RecvB,
    /// Waits until an activation has been sent.
    WaitSendF,
    /// Waits until a gradient has been sent.
    WaitSendB,
    /// Gathers the parameters of a stage (FSDP).
    Unshard,
    /// Drops them again (FSDP).
    Reshard,
    /// Starts reducing the gradients of a stage.
    ReduceGrad,
    /// Waits for that.
    WaitReduceGrad,
}

impl Op {
    /// Every operation with its word.
    pub const WORDS: [(Self, &'static str); 14] = [
        (Self::F, "F"),
        (Self::I, "I"),
        (Self::W, "W"),
        (Self::B, "B"),
        (Self::SendF, "SEND_F"),
        (Self::RecvF, "RECV_F"),
        (Self::SendB, "SEND_B"),
        (Self::RecvB, "RECV_B"),
        (Self::WaitSendF, "WAIT_SEND_F"),
        (Self::WaitSendB, "WAIT_SEND_B"),
        (Self::Unshard, "UNSHARD"),
        (Self::Reshard, "RESHARD"),
        (Self::ReduceGrad, "REDUCE_GRAD"),
        (Self::WaitReduceGrad, "WAIT_REDUCE_GRAD"),
    ];

    /// Its word in a cell.
    #[must_use]
    pub fn word(self) -> &'static str {
        Self::WORDS[self as usize].1
    }

    /// Whether it is a pass.
    #[must_use]
    pub fn computes(self) -> bool {
        matches!(self, Self::F | Self::I | Self::W | Self::B)
    }

    /// Whether a microbatch follows its word.
    #[must_use]
    pub fn of_microbatch(self) -> bool {
        !matches!(self, Self::Unshard | Self::Reshard | Self::ReduceGrad | Self::WaitReduceGrad)
    }

    /// Whether it is an end of a message.
    #[must_use]
    pub fn is_message(self) -> bool {
        matches!(self, Self::SendF | Self::RecvF | Self::SendB | Self::RecvB)
    }
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// One action of one rank.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Action {
    /// What it does.
    pub op: Op,
    /// Whether it is the first of `(a;b)OVERLAP_F_B`; the next action of the row is the second.
    pub overlaps: bool,
    /// The local stage; also of a message.
    pub stage: u32,
    /// The microbatch; 0 where the operation has none.
    pub microbatch: u32,
    /// Where it begins in the text.
    pub at: u64,
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.stage, self.op)?;
        if self.op.of_microbatch() { write!(f, "{}", self.microbatch) } else { Ok(()) }
    }
}

/// The two forms of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// Passes only; an empty cell is a bubble. The runtime adds the rest.
    Compute,
    /// Everything that the runtime does.
    Comms,
}

impl fmt::Display for Form {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Compute => "compute_only",
            Self::Comms => "compute_comms",
        })
    }
}

/// The actions of all ranks, as read; nothing is said yet about whether they fit together.
#[derive(Clone, Debug)]
pub struct Rows {
    /// Which form the file has.
    pub form: Form,
    /// All actions, row after row.
    pub actions: Vec<Action>,
    /// Where each row's actions begin, and where the last row's end.
    pub(super) starts: Vec<u32>,
    pub(super) source: CsvSource,
}

impl Rows {
    /// `p`: a row for each.
    #[must_use]
    pub fn ranks(&self) -> usize {
        self.starts.len() - 1
    }

    /// The positions of a rank's actions.
    #[must_use]
    pub fn positions(&self, rank: usize) -> std::ops::Range<usize> {
        self.starts[rank] as usize..self.starts[rank + 1] as usize
    }

    /// The actions of a rank.
    #[must_use]
    pub fn of(&self, rank: Rank) -> &[Action] {
        &self.actions[self.positions(rank.index())]
    }

    /// The rank that an action belongs to.
    #[must_use]
    pub fn rank_of(&self, action: u32) -> usize {
        self.starts.partition_point(|&start| start <= action) - 1
    }

    /// An action with its place, for a diagnostic.
    #[must_use]
    pub fn cell(&self, action: u32) -> Cell {
        let Action { at, .. } = self.actions[action as usize];
        self.source.cell(at as usize, self.actions[action as usize].to_string(), self.rank_of(action))
    }

    /// The file's text.
    #[must_use]
    pub fn text(&self) -> &str {
        self.source.text()
    }

    /// What diagnostics call the file.
    #[must_use]
    pub fn name(&self) -> &str {
        self.source.name()
    }
}
