//! Rows -> sound: every rule of the room's header, on the actions alone.
//!
//! One walk fills dense tables by stage and microbatch; every rule is linear in the actions.

mod deadlock;
mod gradients;
mod messages;
mod passes;

use super::action::{Form, Op, Rows};
use super::error::{Problem, Report, TorchError};
use super::{Channel, Placement};

/// No action.
const NONE: u32 = u32::MAX;

/// A schedule that broke no rule. Only [`check`] makes one.
#[derive(Clone, Debug)]
pub struct Sound {
    rows: Rows,
    stages: Vec<u32>,
    microbatches: u32,
}

impl Sound {
    /// The actions.
    #[must_use]
    pub fn rows(&self) -> &Rows {
        &self.rows
    }

    /// The rank of each stage.
    #[must_use]
    pub fn stages(&self) -> &[u32] {
        &self.stages
    }

    /// `m`.
    #[must_use]
    pub fn microbatches(&self) -> u32 {
        self.microbatches
    }

    /// The name of where the stages lie; `None` where it has none.
    #[must_use]
    pub fn placement(&self) -> Option<Placement> {
        Placement::of(&self.stages, self.rows.ranks())
    }
}

/// Checks a file against every rule.
///
/// # Errors
/// Every rule that is broken, the first few of many. Deadlock is looked for where nothing else is wrong.
pub fn check(rows: Rows, channel: Channel, placement: Option<Placement>) -> Result<Sound, Box<TorchError>> {
    let mut report = Report::default();
    if let Some(facts) = Facts::of(&rows, &mut report) {
        passes::check(&facts, placement, &mut report);
        if rows.form == Form::Comms && report.is_empty() {
            messages::check(&facts, &mut report);
            gradients::check(&facts, &mut report);
        }
        if report.is_empty() {
            deadlock::check(&facts, channel, &mut report);
        }
        if report.is_empty() {
            let (stages, microbatches) = (facts.rank_of, facts.microbatches as u32);
            return Ok(Sound { rows, stages, microbatches });
        }
    }
    Err(report.finish(&rows.source).expect_err("a file without stages, too, has a problem"))
}

/// Where everything stands. Tables go by stage, then microbatch ([`Facts::slot`]); [`NONE`] where it is nowhere.
struct Facts<'rows> {
    rows: &'rows Rows,
    stages: usize,
    microbatches: usize,
    /// The rank of each stage.
    rank_of: Vec<u32>,
    /// F.
    forward: Vec<u32>,
    /// I or B.
    backward: Vec<u32>,
    /// W or B.
    weight: Vec<u32>,
    /// Activations that leave a stage, activations that come to it, and the same for gradients.
    ends: [Ends; 2],
}

/// The ends of one sort of message; empty in a `compute_only` file.
#[derive(Default)]
struct Ends {
    send: Vec<u32>,
    recv: Vec<u32>,
    wait: Vec<u32>,
}

/// What a message carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sort {
    /// To the stage after.
    Activation,
    /// To the stage before.
    Gradient,
}

impl Sort {
    const ALL: [Self; 2] = [Self::Activation, Self::Gradient];

    /// The sort of an end of a message, or of a wait for one.
    fn of(op: Op) -> Option<Self> {
        match op {
            Op::SendF | Op::RecvF | Op::WaitSendF => Some(Self::Activation),
            Op::SendB | Op::RecvB | Op::WaitSendB => Some(Self::Gradient),
            _ => None,
        }
    }

    fn send(self) -> Op {
        if self == Self::Activation { Op::SendF } else { Op::SendB }
    }

    fn recv(self) -> Op {
        if self == Self::Activation { Op::RecvF } else { Op::RecvB }
    }

    fn wait(self) -> Op {
        if self == Self::Activation { Op::WaitSendF } else { Op::WaitSendB }
    }
}

impl<'rows> Facts<'rows> {
    /// Fills the tables. `None` where they would be larger than the file, or where a stage is on two ranks.
    fn of(rows: &'rows Rows, report: &mut Report) -> Option<Self> {
        let (stages, microbatches) = passes::extent(rows, report)?;
        let rank_of = passes::ranks(rows, stages, report)?;
        let slots = stages * microbatches;
        let table = || vec![NONE; slots];
        let ends = || match rows.form {
            Form::Compute => Ends::default(),
            Form::Comms => Ends { send: table(), recv: table(), wait: table() },
        };
        let ends = [ends(), ends()];
        let mut facts = Self {
            rows,
            stages,
            microbatches,
            rank_of,
            forward: table(),
            backward: table(),
            weight: table(),
            ends,
        };
        facts.fill(report);
        Some(facts)
    }

    fn fill(&mut self, report: &mut Report) {
        for (index, action) in self.rows.actions.iter().enumerate() {
            let index = index as u32;
            if !action.op.of_microbatch() {
                continue;
            }
            let slot = self.slot(action.stage as usize, action.microbatch as usize);
            let ends = Sort::of(action.op).map(|sort| &mut self.ends[sort as usize]);
            let places: [Option<&mut u32>; 2] = match (action.op, ends) {
                (Op::F, _) => [Some(&mut self.forward[slot]), None],
                (Op::I, _) => [Some(&mut self.backward[slot]), None],
                (Op::W, _) => [Some(&mut self.weight[slot]), None],
                (Op::B, _) => [Some(&mut self.backward[slot]), Some(&mut self.weight[slot])],
                (Op::SendF | Op::SendB, Some(ends)) => [Some(&mut ends.send[slot]), None],
                (Op::RecvF | Op::RecvB, Some(ends)) => [Some(&mut ends.recv[slot]), None],
                (_, Some(ends)) => [Some(&mut ends.wait[slot]), None],
                (_, None) => [None, None],
            };
            let mut taken = NONE;
            for place in places.into_iter().flatten() {
                if *place == NONE { *place = index } else { taken = *place }
            }
            if taken != NONE {
                let rows = self.rows;
                report.add(|| Problem::Duplicate { first: rows.cell(taken), second: rows.cell(index) });
            }
        }
    }

    /// The place of a stage and microbatch in the tables.
    fn slot(&self, stage: usize, microbatch: usize) -> usize {
        stage * self.microbatches + microbatch
    }

    fn rank(&self, stage: usize) -> usize {
        self.rank_of[stage] as usize
    }

    /// The stage at the other end of a message from a stage; `None` off the pipeline.
    fn receiver(&self, sort: Sort, stage: usize) -> Option<usize> {
        match sort {
            Sort::Activation => (stage + 1 < self.stages).then_some(stage + 1),
            Sort::Gradient => stage.checked_sub(1),
        }
    }

    /// The stage that a message to a stage comes from; `None` off the pipeline.
    fn sender(&self, sort: Sort, stage: usize) -> Option<usize> {
        let other = if sort == Sort::Activation { Sort::Gradient } else { Sort::Activation };
        self.receiver(other, stage)
    }

    /// The passes that give what messages of a sort carry, and that read it at the other end.
    fn passes(&self, sort: Sort) -> &[u32] {
        if sort == Sort::Activation { &self.forward } else { &self.backward }
    }

    /// The position behind which what a pass gives is there: that of the second where it is the first of a pair.
    fn done(&self, pass: u32) -> u32 {
        pass + u32::from(self.rows.actions[pass as usize].overlaps)
    }
}
