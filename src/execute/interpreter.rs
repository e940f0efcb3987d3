//! Verified plan -> trained steps: a thread for each rank, which lives as long as the [`Engine`].
//!
//! Between steps the engine holds every rank's state; for a step it hands each to its thread and waits for them to come back. While
//! it waits it watches: if no rank makes progress for a stated time, or one fails, all are told to end, and the error says what each
//! was doing. A thread that does not come back within a second after that is left behind, so that the caller never hangs.

use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded};

use super::arena::Arena;
use super::backend::Backend;
use super::data::Tokens;
use super::error::ExecuteError;
pub use super::machine::Finish;
use super::machine::{Machine, RankError, Shared, Work};
use super::prepare::{Action, Operand, Script, prepare};
use super::recording::{MOMENTS, MOST_BYTES, RecordedStep, Recorder, Recording};
use super::remote::{self, Fault, Remote};
use super::watchdog::{Drill, Limits, Report, Scene, Status};
use crate::ir::{Bytes, Header, Plan, Rank};
use crate::launch::{LaunchError, Mesh};
use crate::verify::Verified;

/// How long ranks may take to end after the run was given up.
const GRACE: Duration = Duration::from_millis(900);

/// How long processes may take to be ready for the first step, at least.
const START: Duration = Duration::from_mins(10);

/// What counts as life while processes wait for each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Patience {
    /// Instructions that end.
    Progress,
    /// Any sign of life.
    Life,
    /// Before the first step: the others may still draw their parameters, and are silent.
    Start,
}

/// The ranks of a process: neighbours, as many for each.
fn local_ranks(process: usize, processes: usize, ranks: usize) -> Result<Range<usize>, LaunchError> {
    if processes == 0 || !ranks.is_multiple_of(processes) {
        return Err(LaunchError::Uneven { ranks, processes });
    }
    let each = ranks / processes;
    Ok(process * each..(process + 1) * each)
}

/// A plan in execution.
#[derive(Debug)]
pub struct Engine<B> {
    plan: Arc<Plan>,
    scripts: Vec<Arc<Script>>,
    shared: Arc<Shared>,
    /// Of the ranks of this process, which are neighbours; the first of them is `first`.
    machines: Vec<Option<Box<Machine<B>>>>,
    first: usize,
    exchanges: u64,
    early: Vec<(usize, u64, Vec<u8>)>,
    /// Losses of microbatches that other processes had in the last step.
    others: Vec<Option<f64>>,
    orders: Vec<Sender<Order<B>>>,
    outcomes: Receiver<Outcome<B>>,
    threads: Vec<JoinHandle<()>>,
    stall: Duration,
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
        if let Some(Drill { rank, instr, .. }) = limits.drill
            && plan.ranks.get(rank.index()).is_none_or(|rank| instr.index() >= rank.instrs.len())
        {
            return Err(ExecuteError::Drill { rank, instr, ranks: plan.ranks.len() });
        }
        let (scripts, mut network) = prepare(&plan)?;
        let scripts: Vec<Arc<Script>> = scripts.into_iter().map(Arc::new).collect();
        let ranks = Rank::all(plan.ranks.len());
        let status = scripts.iter().map(|script| Status::new(script.lanes.len())).collect();
        let (capacity, largest) = network.extent();
        let (mut queues, mut local) = (Vec::new(), 0..plan.ranks.len());
        if let Some(mesh) = mesh {
            local = local_ranks(mesh.process, mesh.peers.len(), plan.ranks.len())?;
            let (remote, outgoing) = Remote::new(mesh, plan.ranks.len(), capacity);
            (network.remote, queues) = (Some(remote), outgoing);
        }
        let numbers: usize = scripts.iter().map(|script| 4 + script.lanes.len()).sum();
        let largest = largest.max(2 * numbers).max(1024);
        let shared = Arc::new(Shared { network, status, abort: AtomicBool::new(false), drill: limits.drill });
        let mut machines = Vec::new();
        let mut make = make;
        for rank in ranks.filter(|rank| local.contains(&rank.index())) {
            let arena = Arena::new(rank, plan.ranks[rank.index()].peak.bytes)?;
            let script = Arc::clone(&scripts[rank.index()]);
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
            let (shared, sender, ready) = (Arc::clone(&shared), sender.clone(), ready.clone());
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
        let beat = (limits.stall / 16).clamp(Duration::from_millis(5), Duration::from_millis(250));
        let connected = remote::start(&shared, queues, largest, beat);
        connected.map_err(|source| ExecuteError::Thread { rank: Rank::new(local.start), source })?;
        let stall = limits.stall;
        Ok(Self {
            plan,
            scripts,
            shared,
            machines,
            first: local.start,
            exchanges: 0,
            early: Vec::new(),
            others: Vec::new(),
            orders,
            outcomes,
            threads,
            stall,
            turn: 0,
            ended: false,
        })
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
        let Header { slices, model, mode, .. } = &self.plan.header;
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
        Ok(if self.plan.header.flows == 1 {
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
        let moments = self.scripts.iter().map(instrs).sum::<u64>().saturating_mul(u64::from(steps));
        let bytes = moments.saturating_mul(MOMENTS);
        if bytes > MOST_BYTES {
            return Err(ExecuteError::RecordingTooLarge { steps, bytes: Bytes(bytes) });
        }
        let clock = Instant::now();
        for (machine, script) in self.machines.iter_mut().flatten().zip(&self.scripts[self.first..]) {
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
        let microbatches = self.plan.header.microbatches;
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
        Bytes(backends + self.shared.network.bytes())
    }

    /// The plan.
    #[must_use]
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Waits for every rank to come back, and ends the run if one fails or none makes progress.
    fn watch(&mut self, step: u64) -> Result<(), ExecuteError> {
        let pause = (self.stall / 8).clamp(Duration::from_millis(1), Duration::from_millis(50));
        let (mut seen, mut since) = (self.progress(), Instant::now());
        while self.machines.iter().any(Option::is_none) {
            if let Ok(outcome) = self.outcomes.recv_timeout(pause) {
                if let Some((rank, reason)) = self.take_back(outcome) {
                    let fault = self.fault_here(format!("says that {rank} failed in step {step}: {reason}"));
                    let report = Box::new(self.end(&fault));
                    return Err(ExecuteError::RankFailed { rank, step, reason, report });
                }
                since = Instant::now();
                continue;
            }
            self.listen(step)?;
            let now = self.progress();
            if now != seen {
                (seen, since) = (now, Instant::now());
            } else if since.elapsed() >= self.stall {
                return Err(self.stalled());
            }
        }
        Ok(())
    }

    /// Puts a rank's state back; says which rank failed, if one did by itself.
    fn take_back(&mut self, outcome: Outcome<B>) -> Option<(Rank, String)> {
        self.machines[outcome.rank.index() - self.first] = Some(outcome.machine);
        match outcome.result {
            Err(RankError::Failed(reason)) => Some((outcome.rank, reason)),
            Err(RankError::Aborted) | Ok(()) => None,
        }
    }

    /// Notes what every rank is doing, tells all to end, and waits a moment for them.
    fn end(&mut self, fault: &Fault) -> Report {
        let (plan, scripts) = (&self.plan, &self.scripts);
        let scene = Scene { plan, scripts, network: &self.shared.network, status: &self.shared.status };
        let mut report = scene.report();
        self.shared.raise_abort();
        if let Some(remote) = &self.shared.network.remote {
            let silent = remote.silent(self.stall / 2);
            let speaks = |process: &usize| *process != fault.process && !silent.contains(process);
            if (0..remote.processes()).find(speaks) != Some(remote.process) {
                report.rows.clear();
            }
            remote.leave(Some(fault), Duration::from_millis(100));
        }
        let deadline = Instant::now() + GRACE;
        while self.machines.iter().any(Option::is_none) {
            let Ok(outcome) = self.outcomes.recv_deadline(deadline) else { break };
            self.take_back(outcome);
        }
        report
    }

    /// Ends the run if another process says that it is over, or is gone.
    fn listen(&mut self, step: u64) -> Result<(), ExecuteError> {
        let fault = self.shared.network.remote.as_ref().and_then(Remote::fault);
        fault.map_or(Ok(()), |fault| Err(self.lost(step, fault)))
    }

    fn lost(&mut self, step: u64, fault: Fault) -> ExecuteError {
        if let Some(remote) = &self.shared.network.remote {
            for rank in remote.ranks_of(fault.process.min(remote.processes() - 1)) {
                self.shared.status[rank.index()].silent.store(true, Ordering::Relaxed);
            }
        }
        let report = Box::new(self.end(&fault));
        let Fault { process, reason } = fault;
        ExecuteError::ProcessFailed { process, reason, step, report }
    }

    fn stalled(&mut self) -> ExecuteError {
        let mut fault = self.fault_here("saw no progress".to_owned());
        if let Some(remote) = &self.shared.network.remote {
            for process in remote.silent(self.stall / 2) {
                fault = Fault { process, reason: "gives no sign of life".to_owned() };
                for rank in remote.ranks_of(process) {
                    self.shared.status[rank.index()].silent.store(true, Ordering::Relaxed);
                }
            }
        }
        let report = Box::new(self.end(&fault));
        ExecuteError::Stalled { seconds: self.stall.as_secs_f64(), report }
    }

    fn fault_here(&self, reason: String) -> Fault {
        let process = self.shared.network.remote.as_ref().map_or(0, |remote| remote.process);
        Fault { process, reason }
    }

    /// Tells the other processes the losses that came up here, and takes theirs: a step is over when it is over everywhere.
    fn share_losses(&mut self, step: u64) -> Result<Option<f64>, ExecuteError> {
        if self.shared.network.remote.is_none() {
            return Ok(None);
        }
        let loss = self.machines.iter().flatten().find_map(|machine| machine.loss);
        let microbatches = self.plan.header.microbatches as usize;
        let of = |at: usize| self.machines.iter().flatten().find_map(|machine| *machine.losses.get(at)?);
        let losses: Vec<Option<f64>> =
            if self.plan.header.flows == 1 { Vec::new() } else { (0..microbatches).map(of).collect() };
        let number = |loss: Option<f64>| loss.map_or([u64::MAX, 0], |loss| [0, loss.to_bits()]);
        let own = std::iter::once(loss).chain(losses).flat_map(number).collect::<Vec<_>>();
        let taken = |pair: &[u64; 2]| (pair[0] == 0).then(|| f64::from_bits(pair[1]));
        let (mut away, mut others) = (None, vec![None; microbatches]);
        for numbers in self.exchange(step, &own, Patience::Progress)? {
            let (pairs, _) = numbers.as_chunks::<2>();
            let mut pairs = pairs.iter().map(taken);
            away = away.or(pairs.next().flatten());
            for (other, loss) in others.iter_mut().zip(pairs) {
                *other = other.or(loss);
            }
        }
        self.others = others;
        Ok(away)
    }

    /// Hands numbers to all other processes and takes theirs, by process; nothing where there is no other.
    ///
    /// # Errors
    /// One is gone, or gives none in time.
    pub(super) fn exchange(
        &mut self,
        step: u64,
        own: &[u64],
        patience: Patience,
    ) -> Result<Vec<Vec<u64>>, ExecuteError> {
        let Some(processes) = self.shared.network.remote.as_ref().map(Remote::processes) else {
            return Ok(Vec::new());
        };
        let turn = self.exchanges;
        self.exchanges += 1;
        let mut found: Vec<Option<Vec<u64>>> = vec![None; processes];
        if let Some(remote) = &self.shared.network.remote {
            remote.tell(turn, own.iter().flat_map(|number| number.to_le_bytes()).collect());
            found[remote.process] = Some(own.to_vec());
        }
        let (mut seen, mut since) = (self.progress(), Instant::now());
        let longest = if patience == Patience::Start { self.stall.max(START) } else { self.stall };
        loop {
            for at in (0..self.early.len()).rev() {
                if self.early[at].1 == turn {
                    let (process, _, bytes) = self.early.swap_remove(at);
                    let (numbers, _) = bytes.as_chunks::<8>();
                    found[process] = Some(numbers.iter().map(|&bytes| u64::from_le_bytes(bytes)).collect());
                }
            }
            if found.iter().all(Option::is_some) {
                return Ok(found.into_iter().flatten().collect());
            }
            let Some(remote) = &self.shared.network.remote else { return Ok(Vec::new()) };
            let note = remote.note(Duration::from_millis(20));
            let alive = patience != Patience::Progress && remote.silent(longest).is_empty();
            self.early.extend(note);
            // What a process said before it left still counts.
            if self.early.iter().all(|(_, other, _)| *other != turn) {
                self.listen(step)?;
            }
            let now = self.progress();
            if now != seen || alive {
                (seen, since) = (now, Instant::now());
            } else if since.elapsed() >= self.stall {
                return Err(self.stalled());
            }
        }
    }

    /// Ends a run of several processes well: waits until all have come to their end.
    pub fn finish(&mut self) {
        self.ended = true;
        if let Some(remote) = &self.shared.network.remote {
            remote.leave(None, self.stall);
        }
    }

    fn progress(&self) -> u64 {
        self.shared.status.iter().map(|status| status.progress.load(Ordering::Relaxed)).sum()
    }
}

impl<B> Drop for Engine<B> {
    /// Lets the threads end; one that is stuck in a pass is left behind.
    fn drop(&mut self) {
        if let (false, Some(remote)) = (self.ended, &self.shared.network.remote) {
            let reason = "ended with an error of its own".to_owned();
            remote.leave(Some(&Fault { process: remote.process, reason }), Duration::from_millis(100));
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
