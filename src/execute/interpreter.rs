//! Verified plan -> trained steps: a thread for each rank, which lives as long as the [`Engine`].
//!
//! Between steps the engine holds every rank's state; for a step it hands each to its thread and waits for them to come back. While
//! it waits it watches: if no rank makes progress for a stated time, or one fails, all are told to end, and the error says what each
//! was doing. A thread that does not come back within a second after that is left behind, so that the caller never hangs.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded};

use super::arena::Arena;
use super::backend::Backend;
use super::control::{Control, GRACE};
use super::data::Tokens;
use super::error::ExecuteError;
pub use super::machine::Finish;
use super::machine::{Machine, RankError, Shared, Work};
use super::prepare::{Action, Operand, Script};
use super::recording::{MOMENTS, MOST_BYTES, RecordedStep, Recorder, Recording};
use super::watchdog::Limits;
use crate::ir::{Bytes, Header, Plan, Rank};
use crate::launch::Mesh;
use crate::verify::Verified;

/// A plan in execution.
#[derive(Debug)]
pub struct Engine<B> {
    control: Control,
    /// Of the ranks of this process, which are neighbours.
    machines: Vec<Option<Box<Machine<B>>>>,
    /// Losses of microbatches that other processes had in the last step.
    others: Vec<Option<f64>>,
    orders: Vec<Sender<Order<B>>>,
    outcomes: Receiver<Outcome<B>>,
    threads: Vec<JoinHandle<()>>,
    turn: u64,
    ended: bool,
}

/// A rank's state on the way to its thread.
struct Order<B> {
    machine: Box<Machine<B>>,
    work: Arc<Work>,
}

/// A rank's state on the way back.
struct Outcome<B> {
    rank: Rank,
    machine: Box<Machine<B>>,
    result: Result<(), RankError>,
}

impl<B: Backend + 'static> Engine<B> {
    /// Prepares a plan, allocates each rank's arena and starts its thread. `make` gives each rank its backend.
    ///
    /// # Errors
    /// The plan has a pass or a buffer that the model cannot run, or memory or a thread is refused.
    pub fn new(
        plan: &Verified,
        make: impl FnMut(Rank) -> Result<B, ExecuteError>,
        limits: &Limits,
    ) -> Result<Self, ExecuteError> {
        Self::across(plan, make, limits, None)
    }

    /// The same for the ranks of this process, where others have the rest.
    ///
    /// # Errors
    /// As [`Engine::new`]; or the ranks cannot be dealt out.
    pub fn across(
        plan: &Verified,
        make: impl FnMut(Rank) -> Result<B, ExecuteError>,
        limits: &Limits,
        mesh: Option<Mesh>,
    ) -> Result<Self, ExecuteError> {
        if !plan.header.model.precision.is_single() {
            return Err(ExecuteError::Bf16OnCpu);
        }
        let plan = Arc::new((**plan).clone());
        let mut control = Control::new(Arc::clone(&plan), false, limits, mesh)?;
        let local = control.local.clone();
        let mut machines = Vec::new();
        let mut make = make;
        for rank in local.clone().map(Rank::new) {
            let arena = Arena::new(rank, plan.ranks[rank.index()].peak.bytes)?;
            let script = Arc::clone(&control.scripts[rank.index()]);
            let mut backend = make(rank)?;
            check_sums(rank, &script, &mut backend)?;
            let microbatches = plan.header.microbatches;
            machines.push(Some(Box::new(Machine::new(rank, backend, arena, script, microbatches))));
        }
        let (sender, outcomes) = bounded(machines.len());
        let (ready, readiness) = bounded::<()>(0);
        let (mut orders, mut threads) = (Vec::new(), Vec::new());
        for rank in local.clone().map(Rank::new) {
            let (order, inbox) = bounded(1);
            let (shared, sender, ready) = (Arc::clone(&control.shared), sender.clone(), ready.clone());
            let thread = thread::Builder::new().name(rank.to_string());
            let thread = thread.spawn(move || {
                // The first wait on a channel allocates; it belongs before the first step, when no bell rings yet.
                shared.network.bells.wait(rank, Duration::from_millis(1));
                drop(ready);
                serve(rank, &inbox, &sender, &shared);
            });
            threads.push(thread.map_err(|source| ExecuteError::Thread { rank, source })?);
            orders.push(order);
        }
        drop(ready);
        // Ends when every thread has dropped its end.
        let _ = readiness.recv();
        control.connect()?;
        let others = Vec::new();
        Ok(Self { control, machines, others, orders, outcomes, threads, turn: 0, ended: false })
    }

    /// Runs one step; `batches` by microbatch (they are sliced here, where the plan says so), `step` is the number that reports give it. Gives the mean loss in nats a token, where a rank has it.
    /// A forward-only plan updates nothing.
    ///
    /// # Errors
    /// A rank failed, or none made progress for the time that the limits state. The engine takes no further step then.
    pub fn step(
        &mut self,
        step: u64,
        batches: Vec<Tokens>,
        finish: Finish,
    ) -> Result<Option<f64>, ExecuteError> {
        if self.ended {
            return Err(ExecuteError::Ended);
        }
        let Header { slices, model, mode, .. } = &self.control.plan.header;
        let batches = batches.into_iter().flat_map(|batch| batch.sliced(model.sequence, *slices)).collect();
        let finish = if mode.is_training() { finish } else { Finish::Keep };
        let work = Arc::new(Work { step, turn: self.turn, batches, finish });
        self.turn += 1;
        for (slot, order) in self.machines.iter_mut().zip(&self.orders) {
            let Some(machine) = slot.take() else { continue };
            let _ = order.send(Order { machine, work: Arc::clone(&work) });
        }
        let result = self.watch(step).and_then(|()| self.share_losses(step));
        self.ended = result.is_err();
        let away = result?;
        Ok(if self.control.plan.header.flows == 1 {
            self.machines.iter().flatten().find_map(|machine| machine.loss).or(away)
        } else {
            self.mean_loss()
        })
    }

    /// Lets every rank note when each instruction begins and ends, and keep that of the last `steps` steps. Call it before the first.
    ///
    /// # Errors
    /// That takes more than [`MOST_BYTES`].
    pub fn record(&mut self, steps: u32) -> Result<(), ExecuteError> {
        let instrs = |script: &Arc<Script>| script.total as u64;
        let moments = self.control.scripts.iter().map(instrs).sum::<u64>().saturating_mul(u64::from(steps));
        let bytes = moments.saturating_mul(MOMENTS);
        if bytes > MOST_BYTES {
            return Err(ExecuteError::RecordingTooLarge { steps, bytes: Bytes(bytes) });
        }
        let clock = Instant::now();
        for (machine, script) in
            self.machines.iter_mut().flatten().zip(&self.control.scripts[self.control.local.start..])
        {
            machine.recorder = Some(Recorder::new(clock, script.total, steps as usize));
        }
        Ok(())
    }

    /// The last steps that all ranks have come to the end of, as far as they were recorded.
    #[must_use]
    pub fn recording(&self) -> Recording {
        let recorders = || self.machines.iter().flatten().filter_map(|machine| machine.recorder.as_ref());
        let mut steps: Vec<u64> = recorders().next().into_iter().flat_map(Recorder::steps).collect();
        steps.sort_unstable();
        let taken = |step: u64| {
            let ranks = recorders().map(|recorder| recorder.step(step).map(<[_]>::to_vec));
            let first = recorders().any(|recorder| recorder.is_first(step));
            Some(RecordedStep { step, first, ranks: ranks.collect::<Option<Vec<_>>>()? })
        };
        Recording { steps: steps.into_iter().filter_map(taken).collect(), device: false }
    }

    /// The mean over all microbatches of losses that come up on several ranks; summed in the order of microbatches.
    fn mean_loss(&self) -> Option<f64> {
        let of = |microbatch: usize| {
            let own = self.machines.iter().flatten().find_map(|machine| *machine.losses.get(microbatch)?);
            own.or_else(|| *self.others.get(microbatch)?)
        };
        let microbatches = self.control.plan.header.microbatches;
        let total = (0..microbatches as usize).map(of).try_fold(0.0, |total, loss| Some(total + loss?));
        total.map(|total| total / f64::from(microbatches))
    }

    /// The backends, by rank.
    pub fn backends(&mut self) -> impl Iterator<Item = &mut B> {
        self.machines.iter_mut().flatten().map(|machine| &mut machine.backend)
    }

    /// What was allocated for the plan's buffers, by rank: the plan's peak, to the byte.
    #[must_use]
    pub fn arena_bytes(&self) -> Vec<Bytes> {
        self.machines.iter().flatten().map(|machine| machine.arena().bytes()).collect()
    }

    /// What was allocated for parameters, gradients and moments, over all ranks.
    #[must_use]
    pub fn parameter_bytes(&self) -> Bytes {
        Bytes(self.machines.iter().flatten().map(|machine| machine.backend.parameter_bytes()).sum())
    }

    /// What was allocated beside the arenas and the parameters: the backends' workspaces and the channels, over all ranks.
    #[must_use]
    pub fn workspace_bytes(&self) -> Bytes {
        let backends: u64 =
            self.machines.iter().flatten().map(|machine| machine.backend.workspace_bytes()).sum();
        Bytes(backends + self.control.shared.network.bytes())
    }

    /// The plan.
    #[must_use]
    pub fn plan(&self) -> &Plan {
        &self.control.plan
    }

    /// Waits for every rank to come back, and ends the run if one fails or none makes progress.
    fn watch(&mut self, step: u64) -> Result<(), ExecuteError> {
        let result = self.wait(step);
        if result.is_err() {
            let deadline = Instant::now() + GRACE;
            while self.machines.iter().any(Option::is_none) {
                let Ok(outcome) = self.outcomes.recv_deadline(deadline) else { break };
                self.take_back(outcome);
            }
        }
        result
    }

    fn wait(&mut self, step: u64) -> Result<(), ExecuteError> {
        let mut vigil = self.control.vigil();
        while self.machines.iter().any(Option::is_none) {
            if let Ok(outcome) = self.outcomes.recv_timeout(self.control.pause()) {
                if let Some((rank, reason)) = self.take_back(outcome) {
                    return Err(self.control.failed(rank, step, reason));
                }
                vigil.renew();
                continue;
            }
            self.control.look(step, &mut vigil)?;
        }
        Ok(())
    }

    /// Puts a rank's state back; says which rank failed, if one did by itself.
    fn take_back(&mut self, outcome: Outcome<B>) -> Option<(Rank, String)> {
        self.machines[outcome.rank.index() - self.control.local.start] = Some(outcome.machine);
        match outcome.result {
            Err(RankError::Failed(reason)) => Some((outcome.rank, reason)),
            Err(RankError::Aborted) | Ok(()) => None,
        }
    }

    /// Tells the other processes the losses that came up here, and takes theirs: a step is over when it is over everywhere.
    fn share_losses(&mut self, step: u64) -> Result<Option<f64>, ExecuteError> {
        let loss = self.machines.iter().flatten().find_map(|machine| machine.loss);
        let header = &self.control.plan.header;
        let microbatches = if header.flows == 1 { 0 } else { header.microbatches as usize };
        let of = |at: usize| self.machines.iter().flatten().find_map(|machine| *machine.losses.get(at)?);
        let losses: Vec<Option<f64>> = (0..microbatches).map(of).collect();
        let (away, others) = self.control.share_losses(step, loss, &losses)?;
        self.others = others;
        Ok(away)
    }

    /// What the other processes are told and asked, and the backends, by rank.
    pub(super) fn parts(&mut self) -> (&mut Control, Vec<&mut B>) {
        let backends = self.machines.iter_mut().flatten().map(|machine| &mut machine.backend);
        (&mut self.control, backends.collect())
    }

    /// Ends a run of several processes well: waits until all have come to their end.
    pub fn finish(&mut self) {
        self.ended = true;
        self.control.leave(true);
    }
}

impl<B> Drop for Engine<B> {
    /// Lets the threads end; one that is stuck in a pass is left behind.
    fn drop(&mut self) {
        if !self.ended {
            self.control.leave(false);
        }
        self.orders.clear();
        for (thread, machine) in self.threads.drain(..).zip(&self.machines) {
            if machine.is_some() {
                let _ = thread.join();
            }
        }
    }
}

/// A rank's thread: takes its state, runs a step, gives it back.
fn serve<B: Backend>(
    rank: Rank,
    orders: &Receiver<Order<B>>,
    outcomes: &Sender<Outcome<B>>,
    shared: &Shared,
) {
    for Order { mut machine, work } in orders {
        let result = catch_unwind(AssertUnwindSafe(|| machine.step(&work, shared)));
        let result = result.unwrap_or_else(|payload| {
            let text = payload.downcast_ref::<String>().map(String::as_str);
            let text = text.or_else(|| payload.downcast_ref::<&str>().copied()).unwrap_or("no message");
            Err(RankError::Failed(format!("its thread panicked: {text}")))
        });
        drop(work);
        if outcomes.send(Outcome { rank, machine, result }).is_err() {
            return;
        }
    }
}

/// The gradients that the plan sums must be as large as the backend's.
fn check_sums<B: Backend>(rank: Rank, script: &Script, backend: &mut B) -> Result<(), ExecuteError> {
    for entry in script.lanes.iter().flatten() {
        let Action::Collective(part) = &entry.action else { continue };
        for operand in [&part.gives, &part.gets].into_iter().flatten() {
            let held = match operand {
                Operand::Arena(_) => continue,
                Operand::TiedGradient => backend.tied_gradient().len(),
                Operand::StageGradient(stage) => backend.packed_gradient(*stage).len(),
            };
            if part.tag.elements != held as u64 {
                let of = part.tag.elements;
                let reason = format!("it sums {of} elements of a gradient of which this rank holds {held}");
                return Err(ExecuteError::Malformed { rank, instr: entry.instr, reason });
            }
        }
    }
    Ok(())
}
