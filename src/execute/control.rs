//! What watches over ranks at work, whoever computes their passes: progress, the other processes, and the table when a run ends badly.
//!
//! One for each process. It prepares the plan, keeps every rank's counters, hands numbers to the other processes between the steps and takes
//! theirs, and says when a run is over: no progress for a stated time, a rank that failed, a process that is gone.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::Receiver;

use super::error::ExecuteError;
use super::machine::Shared;
use super::prepare::{Script, prepare};
use super::remote::{self, Fault, Outgoing, Remote};
use super::watchdog::{Drill, Limits, Report, Scene, Status};
use crate::ir::{Plan, Rank};
use crate::launch::{LaunchError, Mesh};

/// How long ranks may take to end after the run was given up.
pub(crate) const GRACE: Duration = Duration::from_millis(900);

/// How long processes may take to be ready for the first step, at least.
pub(crate) const START: Duration = Duration::from_mins(10);

/// What counts as life while processes wait for each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Patience {
    /// Instructions that end.
    Progress,
    /// Any sign of life.
    Life,
    /// Before the first step: the others may still draw their parameters, and are silent.
    Start,
}

/// The progress that was seen last, and when.
#[derive(Debug)]
pub(crate) struct Vigil {
    seen: u64,
    since: Instant,
    begun: Instant,
}

impl Vigil {
    /// Something came back that is no instruction.
    pub(crate) fn renew(&mut self) {
        self.since = Instant::now();
    }
}

/// Watches over the ranks of a process.
#[derive(Debug)]
pub(crate) struct Control {
    pub(crate) plan: Arc<Plan>,
    pub(crate) scripts: Vec<Arc<Script>>,
    pub(super) shared: Arc<Shared>,
    /// The ranks of this process.
    pub(crate) local: Range<usize>,
    exchanges: u64,
    early: Vec<(usize, u64, Vec<u8>)>,
    stall: Duration,
    /// What is to be sent to each process, until the threads that send it have started.
    queues: Vec<Receiver<Outgoing>>,
    largest: usize,
}

/// The ranks of a process: neighbours, as many for each.
fn local_ranks(process: usize, processes: usize, ranks: usize) -> Result<Range<usize>, LaunchError> {
    if processes == 0 || !ranks.is_multiple_of(processes) {
        return Err(LaunchError::Uneven { ranks, processes });
    }
    let each = ranks / processes;
    Ok(process * each..(process + 1) * each)
}

impl Control {
    /// Resolves a plan's instructions and gets ready to watch over them; `bare`: the ranks are on devices, which move buffers themselves.
    ///
    /// # Errors
    /// An instruction that cannot be run; the ranks cannot be dealt out; a drill's instruction does not exist.
    pub(crate) fn new(
        plan: Arc<Plan>,
        bare: bool,
        limits: &Limits,
        mesh: Option<Mesh>,
    ) -> Result<Self, ExecuteError> {
        let ranks = plan.ranks.len();
        if let Some(Drill { rank, instr, .. }) = limits.drill
            && plan.ranks.get(rank.index()).is_none_or(|rank| instr.index() >= rank.instrs.len())
        {
            return Err(ExecuteError::Drill { rank, instr, ranks });
        }
        let (scripts, mut network) = prepare(&plan, bare)?;
        let scripts: Vec<Arc<Script>> = scripts.into_iter().map(Arc::new).collect();
        let status = scripts.iter().map(|script| Status::new(script.lanes.len())).collect();
        let (capacity, largest) = network.extent();
        let (mut queues, mut local) = (Vec::new(), 0..ranks);
        if let Some(mesh) = mesh {
            local = local_ranks(mesh.process, mesh.peers.len(), ranks)?;
            let (remote, outgoing) = Remote::new(mesh, ranks, capacity);
            (network.remote, queues) = (Some(remote), outgoing);
        }
        let numbers: usize = scripts.iter().map(|script| 4 + script.lanes.len()).sum();
        let largest = largest.max(2 * numbers).max(1024);
        let shared = Arc::new(Shared { network, status, abort: AtomicBool::new(false), drill: limits.drill });
        let (exchanges, early, stall) = (0, Vec::new(), limits.stall);
        Ok(Self { plan, scripts, shared, local, exchanges, early, stall, queues, largest })
    }

    /// Starts the threads that talk to the other processes.
    ///
    /// # Errors
    /// The system refuses a thread.
    pub(crate) fn connect(&mut self) -> Result<(), ExecuteError> {
        let beat = (self.stall / 16).clamp(Duration::from_millis(5), Duration::from_millis(250));
        let queues = std::mem::take(&mut self.queues);
        let rank = Rank::new(self.local.start);
        remote::start(&self.shared, queues, self.largest, beat)
            .map_err(|source| ExecuteError::Thread { rank, source })
    }

    /// Begins a step of this process's ranks.
    pub(crate) fn begin(&self, step: u64, turn: u64) {
        for rank in self.local.clone() {
            self.shared.status[rank].begin(step, turn);
        }
    }

    /// Notes how far the lanes of this process's ranks have come, rank by rank, and whether a drill holds one of them.
    pub(crate) fn note(&self, mut heads: impl Iterator<Item = u32>, held: bool) {
        for rank in self.local.clone() {
            let status = &self.shared.status[rank];
            for lane in 0..self.scripts[rank].lanes.len() {
                status.reached(lane, heads.next().unwrap_or(0));
            }
            let drilled = self.shared.drill.is_some_and(|drill| drill.rank.index() == rank);
            status.held.store(held && drilled, Ordering::Relaxed);
        }
    }

    /// Whether all processes but this one have shown signs of life lately.
    fn lives(&self, longest: Duration) -> bool {
        self.remote().is_none_or(|remote| remote.silent(longest).is_empty())
    }

    /// As [`Control::look`], while nothing is expected to end, but others to live; for as long as processes may take to be ready.
    ///
    /// # Errors
    /// As [`Control::look`].
    pub(crate) fn glance(&self, step: u64, vigil: &mut Vigil) -> Result<(), ExecuteError> {
        let longest = self.stall.max(START);
        if self.lives(longest) && vigil.begun.elapsed() < longest {
            vigil.renew();
        }
        self.look(step, vigil)
    }

    /// How long no rank may make progress.
    pub(crate) fn stall(&self) -> Duration {
        self.stall
    }

    /// The pause between two looks.
    pub(crate) fn pause(&self) -> Duration {
        (self.stall / 8).clamp(Duration::from_millis(1), Duration::from_millis(50))
    }

    fn remote(&self) -> Option<&Remote> {
        self.shared.network.remote.as_ref()
    }

    fn progress(&self) -> u64 {
        self.shared.status.iter().map(|status| status.progress.load(Ordering::Relaxed)).sum()
    }

    /// Begins to watch.
    pub(crate) fn vigil(&self) -> Vigil {
        Vigil { seen: self.progress(), since: Instant::now(), begun: Instant::now() }
    }

    /// Looks at the ranks while they work. A run that is over is told to all.
    ///
    /// # Errors
    /// Another process says that it is over, or is gone; or no rank made progress for too long.
    pub(crate) fn look(&self, step: u64, vigil: &mut Vigil) -> Result<(), ExecuteError> {
        self.listen(step)?;
        let now = self.progress();
        if now != vigil.seen {
            (vigil.seen, vigil.since) = (now, Instant::now());
        } else if vigil.since.elapsed() >= self.stall {
            return Err(self.stalled());
        }
        Ok(())
    }

    /// Ends the run for a rank of this process that failed.
    pub(crate) fn failed(&self, rank: Rank, step: u64, reason: String) -> ExecuteError {
        let fault = self.fault_here(format!("says that {rank} failed in step {step}: {reason}"));
        let report = Box::new(self.end(&fault));
        ExecuteError::RankFailed { rank, step, reason, report }
    }

    /// Notes what every rank is doing, and tells all to end.
    fn end(&self, fault: &Fault) -> Report {
        let (plan, scripts) = (&self.plan, &self.scripts);
        let scene = Scene { plan, scripts, network: &self.shared.network, status: &self.shared.status };
        let mut report = scene.report();
        self.shared.raise_abort();
        if let Some(remote) = self.remote() {
            let silent = remote.silent(self.stall / 2);
            let speaks = |process: &usize| *process != fault.process && !silent.contains(process);
            if (0..remote.processes()).find(speaks) != Some(remote.process) {
                report.rows.clear();
            }
            remote.leave(Some(fault), Duration::from_millis(100));
        }
        report
    }

    /// Ends the run if another process says that it is over, or is gone.
    fn listen(&self, step: u64) -> Result<(), ExecuteError> {
        let fault = self.remote().and_then(Remote::fault);
        fault.map_or(Ok(()), |fault| Err(self.lost(step, fault)))
    }

    fn lost(&self, step: u64, fault: Fault) -> ExecuteError {
        if let Some(remote) = self.remote() {
            self.silence(remote, fault.process.min(remote.processes() - 1));
        }
        let report = Box::new(self.end(&fault));
        let Fault { process, reason } = fault;
        ExecuteError::ProcessFailed { process, reason, step, report }
    }

    fn stalled(&self) -> ExecuteError {
        let mut fault = self.fault_here("saw no progress".to_owned());
        if let Some(remote) = self.remote() {
            for process in remote.silent(self.stall / 2) {
                fault = Fault { process, reason: "gives no sign of life".to_owned() };
                self.silence(remote, process);
            }
        }
        let report = Box::new(self.end(&fault));
        ExecuteError::Stalled { seconds: self.stall.as_secs_f64(), report }
    }

    /// Notes that nothing is heard of a process.
    fn silence(&self, remote: &Remote, process: usize) {
        for rank in remote.ranks_of(process) {
            self.shared.status[rank.index()].silent.store(true, Ordering::Relaxed);
        }
    }

    fn fault_here(&self, reason: String) -> Fault {
        Fault { process: self.remote().map_or(0, |remote| remote.process), reason }
    }

    /// Tells the other processes the losses that came up here: of the step, and of each of its units where they come up on several ranks.
    /// What the others have of both.
    ///
    /// # Errors
    /// As [`Control::exchange`].
    pub(crate) fn share_losses(
        &mut self,
        step: u64,
        loss: Option<f64>,
        losses: &[Option<f64>],
    ) -> Result<(Option<f64>, Vec<Option<f64>>), ExecuteError> {
        let number = |loss: Option<f64>| loss.map_or([u64::MAX, 0], |loss| [0, loss.to_bits()]);
        let own: Vec<u64> = std::iter::once(loss).chain(losses.iter().copied()).flat_map(number).collect();
        let taken = |pair: &[u64; 2]| (pair[0] == 0).then(|| f64::from_bits(pair[1]));
        let (mut away, mut others) = (None, vec![None; losses.len()]);
        for numbers in self.exchange(step, &own, Patience::Progress)? {
            let (pairs, _) = numbers.as_chunks::<2>();
            let mut pairs = pairs.iter().map(taken);
            away = away.or(pairs.next().flatten());
            for (other, loss) in others.iter_mut().zip(pairs) {
                *other = other.or(loss);
            }
        }
        Ok((away, others))
    }

    /// Hands numbers to all other processes and takes theirs, by process; nothing where there is no other.
    ///
    /// # Errors
    /// One is gone, or gives none in time.
    pub(crate) fn exchange(
        &mut self,
        step: u64,
        own: &[u64],
        patience: Patience,
    ) -> Result<Vec<Vec<u64>>, ExecuteError> {
        let Some(processes) = self.remote().map(Remote::processes) else { return Ok(Vec::new()) };
        let turn = self.exchanges;
        self.exchanges += 1;
        let mut found: Vec<Option<Vec<u64>>> = vec![None; processes];
        if let Some(remote) = self.remote() {
            remote.tell(turn, own.iter().flat_map(|number| number.to_le_bytes()).collect());
            found[remote.process] = Some(own.to_vec());
        }
        let mut vigil = self.vigil();
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
            let Some(remote) = self.remote() else { return Ok(Vec::new()) };
            let note = remote.note(Duration::from_millis(20));
            if patience != Patience::Progress && self.lives(longest) {
                vigil.renew();
            }
            self.early.extend(note);
            // What a process said before it left still counts.
            if self.early.iter().all(|(_, other, _)| *other != turn) {
                self.look(step, &mut vigil)?;
            }
        }
    }

    /// Ends a run of several processes: well, after all have come to their end, or else with an error of this one.
    pub(crate) fn leave(&self, well: bool) {
        let Some(remote) = self.remote() else { return };
        if well {
            remote.leave(None, self.stall);
        } else {
            let reason = "ended with an error of its own".to_owned();
            remote.leave(Some(&Fault { process: remote.process, reason }), Duration::from_millis(100));
        }
    }
}
