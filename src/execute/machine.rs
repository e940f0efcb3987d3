//! One rank at work: it walks its lanes, runs passes on its backend, and moves buffers when the other side is ready.
//!
//! A lane is an in-order queue. Communication never blocks: an instruction that cannot go on is looked at again when the rank's
//! doorbell rings. Communication is served before each pass; a pass runs to its end. Nothing is allocated here.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::arena::Arena;
use super::backend::{Backend, Earlier, InOut, MOST_EARLIER, Views};
use super::data::Tokens;
use super::prepare::{Action, Entry, Operand, Part, Script};
use super::recording::Recorder;
use super::transport::{Mismatch, Seat};
use super::views::{PLACES, Place, Places};
use super::watchdog::{Drill, Failure, Status};
use super::wiring::Network;
use crate::ir::{InstrId, Rank};

/// How long a rank sleeps at most before it looks at the abort flag.
const NAP: Duration = Duration::from_millis(50);

/// What all ranks of a run share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) network: Network,
    pub(super) status: Vec<Status>,
    /// Raised when the run is over; every rank looks at it at least once a [`NAP`] or once a pass.
    pub(super) abort: AtomicBool,
    pub(super) drill: Option<Drill>,
}

impl Shared {
    /// Ends the run on all ranks.
    pub(super) fn raise_abort(&self) {
        self.abort.store(true, Ordering::SeqCst);
        self.network.bells.ring_all();
    }
}

/// What happens at a rank's `Step` instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finish {
    /// The optimizer takes a step.
    Update,
    /// Nothing: gradients stay, to be looked at.
    Keep,
}

/// One step's work.
#[derive(Debug)]
pub(super) struct Work {
    /// The step's number, for reports.
    pub(super) step: u64,
    /// The count of steps before it in this process.
    pub(super) turn: u64,
    /// Tokens, by microbatch, or by slice of one.
    pub(super) batches: Vec<Tokens>,
    pub(super) finish: Finish,
}

/// Why a rank ended its step early.
#[derive(Debug)]
pub(super) enum RankError {
    /// Another rank failed first.
    Aborted,
    /// This rank failed.
    Failed(String),
}

/// A rank's state.
#[derive(Debug)]
pub(super) struct Machine<B> {
    rank: Rank,
    /// Its parameters and what runs on them.
    pub(super) backend: B,
    arena: Arena,
    script: Arc<Script>,
    heads: Vec<usize>,
    /// For each lane, whether the collective at its head has been given its contribution.
    deposited: Vec<bool>,
    /// The loss of the last step, where this rank has it.
    pub(super) loss: Option<f64>,
    /// The losses of its microbatches, as far as this rank has them.
    pub(super) losses: Vec<Option<f64>>,
    /// Where it notes what it does, if it should.
    pub(super) recorder: Option<Recorder>,
}

impl<B: Backend> Machine<B> {
    pub(super) fn new(rank: Rank, backend: B, arena: Arena, script: Arc<Script>, microbatches: u32) -> Self {
        let lanes = script.lanes.len();
        Self {
            rank,
            backend,
            arena,
            script,
            heads: vec![0; lanes],
            deposited: vec![false; lanes],
            loss: None,
            losses: Vec::with_capacity(microbatches as usize),
            recorder: None,
        }
    }

    /// The arena's size.
    pub(super) fn arena(&self) -> &Arena {
        &self.arena
    }

    /// Runs one step of the plan.
    ///
    /// # Errors
    /// The run was ended, or a message was not the one expected.
    pub(super) fn step(&mut self, work: &Work, shared: &Shared) -> Result<(), RankError> {
        let script = Arc::clone(&self.script);
        let status = &shared.status[self.rank.index()];
        self.heads.fill(0);
        self.deposited.fill(false);
        status.begin(work.step, work.turn);
        if let Some(recorder) = &mut self.recorder {
            recorder.begin();
        }
        let mut left = script.total;
        while left > 0 {
            if shared.abort.load(Ordering::SeqCst) {
                return Err(RankError::Aborted);
            }
            let before = left;
            for &lane in &script.communication {
                while self.advance(&script, lane, work, shared)? {
                    left -= 1;
                }
            }
            for lane in 0..script.lanes.len() {
                let communicates = script.communication.contains(&lane);
                if !communicates && self.advance(&script, lane, work, shared)? {
                    left -= 1;
                }
            }
            if left == before {
                shared.network.bells.wait(self.rank, NAP);
            }
        }
        if let Some(recorder) = &mut self.recorder {
            recorder.done(work.step);
        }
        Ok(())
    }

    /// Ends the instruction at a lane's head, if it may start and can end now.
    fn advance(
        &mut self,
        script: &Script,
        lane: usize,
        work: &Work,
        shared: &Shared,
    ) -> Result<bool, RankError> {
        let Some(entry) = script.lanes[lane].get(self.heads[lane]) else {
            return Ok(false);
        };
        let heads = &self.heads;
        if entry.waits.iter().any(|wait| heads[wait.lane as usize] <= wait.position as usize) {
            return Ok(false);
        }
        self.act_out(entry.instr, shared)?;
        if let Some(recorder) = &mut self.recorder {
            recorder.reached(entry.instr);
        }
        if !self.execute(entry, lane, work, shared)? {
            return Ok(false);
        }
        if let Some(recorder) = &mut self.recorder {
            recorder.ended(entry.instr);
        }
        self.heads[lane] += 1;
        shared.status[self.rank.index()].ended(lane);
        Ok(true)
    }

    fn execute(
        &mut self,
        entry: &Entry,
        lane: usize,
        work: &Work,
        shared: &Shared,
    ) -> Result<bool, RankError> {
        let network = &shared.network;
        match &entry.action {
            Action::Pass { compute, pass, places } => {
                let batch = work.batches[pass.microbatch.index()].view();
                let views = lend(&mut self.arena, places);
                self.backend.pass(*compute, *pass, views, batch);
                Ok(true)
            }
            Action::Send { mailbox, value, from } => {
                Ok(network.send(*mailbox, *value, self.arena.view(from)))
            }
            Action::Recv { mailbox, value, into } => network
                .receive(*mailbox, *value, self.arena.view_mut(into))
                .map_err(|mismatch| unexpected(entry.instr, &mismatch)),
            Action::Collective(part) => self.collective(entry.instr, part, lane, work.turn, shared),
            Action::Step => {
                self.loss = self.backend.loss();
                self.losses.clear();
                self.losses.extend_from_slice(self.backend.losses());
                if work.finish == Finish::Update {
                    self.backend.step();
                }
                Ok(true)
            }
        }
    }

    fn collective(
        &mut self,
        instr: InstrId,
        part: &Part,
        lane: usize,
        turn: u64,
        shared: &Shared,
    ) -> Result<bool, RankError> {
        let network = &shared.network;
        let seat = Seat { member: part.member, sequence: network.sequence(part, turn) };
        if !self.deposited[lane] {
            let contribution = match &part.gives {
                Some(Operand::Arena(range)) => Some(self.arena.view(range)),
                Some(Operand::TiedGradient) => Some(&*self.backend.tied_gradient()),
                Some(Operand::StageGradient(stage)) => Some(&*self.backend.pack_gradient(*stage)),
                None => None,
            };
            let deposited = network.deposit(part, seat, contribution);
            if !deposited.map_err(|mismatch| unexpected(instr, &mismatch))? {
                return Ok(false);
            }
            self.deposited[lane] = true;
        }
        let into = match &part.gets {
            Some(Operand::Arena(range)) => Some(self.arena.view_mut(range)),
            Some(Operand::TiedGradient) => Some(self.backend.tied_gradient()),
            Some(Operand::StageGradient(stage)) => Some(self.backend.packed_gradient(*stage)),
            None => None,
        };
        let collected = network.collect(part, seat, into);
        let collected = collected.map_err(|mismatch| unexpected(instr, &mismatch))?;
        if let (true, Some(Operand::StageGradient(stage))) = (collected, &part.gets) {
            self.backend.unpack_gradient(*stage);
        }
        self.deposited[lane] = !collected;
        Ok(collected)
    }

    /// Fails here, if a drill says so.
    fn act_out(&self, instr: InstrId, shared: &Shared) -> Result<(), RankError> {
        let Some(drill) = shared.drill.filter(|drill| drill.rank == self.rank && drill.instr == instr) else {
            return Ok(());
        };
        match drill.failure {
            Failure::Panic => panic!("a drill asked for this panic"),
            Failure::Stall => {
                shared.status[self.rank.index()].held.store(true, Ordering::Relaxed);
                while !shared.abort.load(Ordering::SeqCst) {
                    shared.network.bells.wait(self.rank, NAP);
                }
                Err(RankError::Aborted)
            }
        }
    }
}

fn unexpected(instr: InstrId, mismatch: &Mismatch) -> RankError {
    RankError::Failed(format!("`{instr}` expected {} and found {}", mismatch.expected, mismatch.found))
}

/// The views of a pass.
fn lend<'a>(arena: &'a mut Arena, places: &Places) -> Views<'a> {
    let (views, earlier) = if places.earlier.is_empty() {
        (arena.views(places.ranges.clone()), Earlier::default())
    } else {
        with_earlier(arena, places)
    };
    let [x_read, x_write, dx_read, dx_write, stats_read, stats_write, act, delta, logits] = views;
    let write = |place, view| places.has(place).then_some(view);
    let read = |place, view: &'a mut [f32]| places.has(place).then_some(&*view);
    Views {
        x: InOut { read: read(Place::XRead, x_read), write: write(Place::XWrite, x_write) },
        dx: InOut { read: read(Place::DxRead, dx_read), write: write(Place::DxWrite, dx_write) },
        stats: InOut {
            read: read(Place::StatsRead, stats_read),
            write: write(Place::StatsWrite, stats_write),
        },
        act: write(Place::Act, act),
        earlier,
        delta: write(Place::Delta, delta),
        logits: write(Place::Logits, logits),
    }
}

/// The views of a pass that also reads what earlier slices left.
fn with_earlier<'a>(arena: &'a mut Arena, places: &Places) -> ([&'a mut [f32]; PLACES], Earlier<'a>) {
    let all = places.ranges.iter().chain(&places.earlier);
    let mut all = all.cloned();
    let ranges: [Range<usize>; PLACES + MOST_EARLIER] = std::array::from_fn(|_| all.next().unwrap_or(0..0));
    let mut views = arena.views(ranges).into_iter();
    let own = std::array::from_fn(|_| views.next().unwrap_or_default());
    (own, Earlier::new(views.take(places.earlier.len())))
}
