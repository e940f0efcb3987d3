//! PyTorch's pipeline schedules: a CSV file -> rows of actions -> a sound one, and from there a [`crate::ir::Schedule`]; a verified
//! plan -> a CSV file.
//!
//! The verifier stands on the actions alone and shares no code with the rooms that compile. The rules, each with its own code:
//!
//! - a cell is an action and nothing more (`bad_cell`, `trailing_text`, `bad_pair`); rows and cells are not empty (`empty_row`,
//!   `empty_cell`, but for the bubbles of a `compute_only` file);
//! - stages count from 0 and each is on one rank (`missing_stage`, `stage_on_two_ranks`), where a placement was asked for on the one that
//!   it means (`misplaced`); each pass is there once (`missing_pass`, `duplicate`); on its rank F comes before I and B, I before W, and
//!   between neighbouring stages of one rank the producer before the consumer (`too_early`); the last stage's forwards come by microbatch
//!   (`forward_order`);
//! - with messages: none within a rank or off the pipeline (`local_message`, `no_peer`); each input is received before (`not_received`)
//!   from a send behind its pass (`missing_send`, `missing_receive`, `too_early`), receives in the order of the sends for each directed
//!   pair of ranks (`receive_order`), each send with one later wait (`unwaited_send`, `wait_for_nothing`);
//! - gradients are reduced once, after the stage's last pass, and waited for, one stage at a time (`unreduced`, `reduced_early`,
//!   `unwaited_reduction`, `two_reductions`); parameters are gathered where a stage computes, if they are at all (`sharded`);
//! - all ranks can run to their end under the chosen [`Channel`] (`deadlock`).
//!
//! Not checked: memory; what `OVERLAP_F_B` runs beside what; time.

mod action;
mod error;
mod placement;
mod read;
mod rules;
mod schedule;
mod source;
mod write;

use std::fmt;

pub use action::{Action, Form, Op, Rows};
pub use error::{Cell, Problem, TorchError, Unsupported};
pub use placement::Placement;
pub use read::read;
pub use rules::{Sound, check};
pub use schedule::{program_text, schedule};
pub use source::CsvSource;
pub use write::{Target, WriteError, write};

/// What carries the messages; a schedule that is safe on one may hang on another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Channel {
    /// Sends and receives are posted and go on in the background; a message is through once both ends are posted.
    Gloo,
    /// As before, and the messages of a rank, sent or received, run one after the other in the order in which they are posted:
    /// `batch_isend_irecv` puts them all on one NCCL communicator.
    #[default]
    Nccl,
    /// A send lasts until its receive, and a receive until its send: what is safe here is safe everywhere.
    Rendezvous,
}

impl fmt::Display for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Gloo => "gloo",
            Self::Nccl => "nccl",
            Self::Rendezvous => "rendezvous",
        })
    }
}
