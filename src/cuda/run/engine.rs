//! An executor on a thread of its own, watched from outside: a device that hangs, fails or waits for a process that is gone ends the run.
//!
//! Between jobs the engine holds the executor. While a job has it, the engine looks at the numbers that the device writes as lanes go on,
//! and at the other processes. When the run is over, what waits for other devices is ended; a thread that does not come back within a second
//! after that is left behind, with its device, so that the caller never hangs.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded};

use super::executor::mean_of;
use super::{Executor, RunError, Scope, Signals};
use crate::cuda::{CudaError, Device, Ender, Meeting};
use crate::execute::ExecuteError;
use crate::execute::control::{Control, GRACE, Patience, START};
use crate::execute::data::Tokens;
use crate::execute::interpreter::Finish;
use crate::execute::model::Train;
use crate::execute::watchdog::Limits;
use crate::ir::Rank;
use crate::launch::Mesh;
use crate::verify::Verified;

/// How long the end of another process may take to be heard of.
const RUMOUR: Duration = Duration::from_millis(300);

/// Words of a [`Meeting`].
const WORDS: usize = crate::cuda::UNIQUE_ID / 8;

/// What the thread does with the executor.
type Job<D> = Box<dyn FnOnce(&mut Executor<D>) + Send>;

/// The executor on its way to the thread.
struct Order<D> {
    executor: Box<Executor<D>>,
    job: Job<D>,
}

/// The executor on its way back, and what the thread said when it panicked.
struct Outcome<D> {
    executor: Box<Executor<D>>,
    panicked: Option<String>,
}

/// The ranks of a process on a device, watched.
pub struct Engine<D> {
    control: Control,
    executor: Option<Box<Executor<D>>>,
    orders: Sender<Order<D>>,
    outcomes: Receiver<Outcome<D>>,
    signals: Signals,
    ender: Ender,
    turn: u64,
    ended: bool,
    /// Whether the device may still be busy with what will never end.
    broken: bool,
}

impl<D: Device + Send + 'static> Engine<D> {
    /// Prepares a plan's ranks on a device that `make` opens; of several processes' ranks those of this one. It has met the others on
    /// `mesh`. `record`: in how many of the last steps it notes when each instruction began and ended.
    ///
    /// # Errors
    /// The plan cannot be run; the device refuses; the ranks cannot be dealt out; another process fails.
    pub fn new(
        plan: &Verified,
        train: &Train,
        make: impl FnOnce() -> Result<D, CudaError>,
        (limits, record): (&Limits, u32),
        mesh: Option<Mesh>,
    ) -> Result<Self, RunError> {
        let (ranks, processes) = (plan.ranks.len(), mesh.as_ref().map_or(1, |mesh| mesh.peers.len()));
        if processes > 1 && processes != ranks {
            return Err(CudaError::OneRankAProcess { ranks, processes }.into());
        }
        let mut control = Control::new(Arc::new((**plan).clone()), true, limits, mesh)?;
        control.connect()?;
        let scope = Scope { record, drill: limits.drill, ..Scope::of(plan, control.local.clone()) };
        let signals = scope.signals.clone();
        let device = make().map_err(RunError::from);
        let executor =
            device.and_then(|device| Executor::scoped(plan, &control.scripts, train, device, scope));
        let mut executor = executor.inspect_err(|_| control.leave(false))?;
        let ender = executor.device().ender();
        let (orders, inbox) = bounded(1);
        let (outbox, outcomes) = bounded(1);
        let thread = thread::Builder::new().name("device".to_owned());
        let spawned = thread.spawn(move || serve(&inbox, &outbox));
        let rank = Rank::new(control.local.start);
        spawned.map_err(|source| ExecuteError::Thread { rank, source })?;
        let executor = Some(Box::new(executor));
        let mut engine = Self {
            control,
            executor,
            orders,
            outcomes,
            signals,
            ender,
            turn: 0,
            ended: false,
            broken: false,
        };
        engine.join()?;
        Ok(engine)
    }

    /// Joins the channels to the devices of other processes.
    fn join(&mut self) -> Result<(), RunError> {
        let identity = self.executor()?.device().identity();
        let meetings = if self.control.local.len() < self.control.plan.ranks.len() {
            self.executor()?.meetings().inspect_err(|_| self.control.leave(false))?
        } else {
            Vec::new()
        };
        let mut own = vec![u64::from(identity.is_some())];
        own.extend(identity.unwrap_or_default());
        own.extend(meetings.iter().flat_map(words));
        let all = self.control.exchange(0, &own, Patience::Start)?;
        if all.is_empty() {
            return Ok(());
        }
        apart(&all)?;
        let each = self.control.local.len().max(1);
        let mut left: Vec<_> = all.into_iter().map(|numbers| numbers.into_iter().skip(3)).collect();
        let patience = self.control.stall().max(START);
        self.job(0, Patience::Start, move |executor| {
            let meeting = |rank: Rank| meeting(left.get_mut(rank.index() / each)?);
            executor.join(meeting, patience)
        })
    }

    /// The executor, between two jobs.
    ///
    /// # Errors
    /// It was left behind.
    pub fn executor(&mut self) -> Result<&mut Executor<D>, RunError> {
        Ok(self.executor.as_deref_mut().ok_or(ExecuteError::Ended)?)
    }

    /// What the other processes are told and asked, and the executor, between two jobs.
    pub(super) fn parts(&mut self) -> Result<(&mut Control, &mut Executor<D>), RunError> {
        let executor = self.executor.as_deref_mut().ok_or(ExecuteError::Ended)?;
        Ok((&mut self.control, executor))
    }

    /// Runs one step on all processes; `step` is the number that reports give it. Gives the mean loss in nats a token, where a pass
    /// computes it. The gradients stay, until [`Engine::update`].
    ///
    /// # Errors
    /// The device failed; no rank made progress for the time that the limits state; another process ended. No further step is taken then.
    pub fn step(&mut self, step: u64, batches: Vec<Tokens>) -> Result<Option<f64>, RunError> {
        self.signals.cells.iter().for_each(|cell| cell.store(0, Ordering::Relaxed));
        self.control.begin(step, self.turn);
        self.turn += 1;
        let losses = self.job(step, Patience::Progress, move |executor| {
            executor.step(&batches, Finish::Keep)?;
            executor.device().check()?;
            Ok(executor.losses())
        })?;
        // Of one flow they come up on one rank.
        let (mean, parts) = match self.control.plan.header.flows {
            1 => (mean_of(&losses), &[][..]),
            _ => (None, &losses[..]),
        };
        let shared = self.control.share_losses(step, mean, parts);
        let (away, others) = shared.inspect_err(|_| self.ended = true)?;
        let all: Vec<Option<f64>> =
            losses.iter().enumerate().map(|(at, own)| own.or_else(|| *others.get(at)?)).collect();
        Ok(mean_of(&all).or(away))
    }

    /// The optimizer's step with the gradients that there are.
    ///
    /// # Errors
    /// The device failed.
    pub fn update(&mut self) -> Result<(), RunError> {
        self.executor()?.update()
    }

    /// Lets the thread have the executor for a while, and watches over it: `patience` says what counts as life.
    ///
    /// # Errors
    /// Those of the job; or the run is over.
    pub(super) fn job<T: Send + 'static>(
        &mut self,
        step: u64,
        patience: Patience,
        job: impl FnOnce(&mut Executor<D>) -> Result<T, RunError> + Send + 'static,
    ) -> Result<T, RunError> {
        let executor = self.executor.take().filter(|_| !self.ended).ok_or(ExecuteError::Ended)?;
        let (answer, answers) = bounded(1);
        let job: Job<D> = Box::new(move |executor| drop(answer.send(job(executor))));
        let _ = self.orders.send(Order { executor, job });
        let result = self.watch(step, patience);
        (self.ended, self.broken) = (result.is_err(), result.is_err());
        result?;
        match answers.try_recv().unwrap_or_else(|_| Err(ExecuteError::Ended.into())) {
            Ok(answer) => Ok(answer),
            Err(error) => {
                (self.ended, self.broken) = (true, true);
                Err(self.cause(step, error))
            }
        }
    }

    /// Why a job failed: where another process is gone, the device may know of it before its connection does.
    fn cause(&self, step: u64, error: RunError) -> RunError {
        if self.control.local.len() < self.control.plan.ranks.len() {
            let (mut vigil, until) = (self.control.vigil(), Instant::now() + RUMOUR);
            while Instant::now() < until {
                if let Err(other) = self.control.look(step, &mut vigil) {
                    return other.into();
                }
                thread::sleep(self.control.pause().min(RUMOUR / 8));
            }
        }
        // The others are told why; here the error speaks for itself.
        let rank = Rank::new(self.control.local.start);
        drop(self.control.failed(rank, step, error.to_string()));
        error
    }

    /// Waits for the executor, and ends the run if it fails or makes no progress.
    fn watch(&mut self, step: u64, patience: Patience) -> Result<(), RunError> {
        let mut vigil = self.control.vigil();
        loop {
            let outcome = self.outcomes.recv_timeout(self.control.pause()).ok();
            self.note();
            if let Some(Outcome { executor, panicked }) = outcome {
                self.executor = Some(executor);
                let Some(reason) = panicked else { return Ok(()) };
                let rank = Rank::new(self.control.local.start);
                return Err(self.control.failed(rank, step, reason).into());
            }
            let looked = match patience {
                Patience::Progress => self.control.look(step, &mut vigil),
                Patience::Life | Patience::Start => self.control.glance(step, &mut vigil),
            };
            if let Err(error) = looked {
                self.signals.abort.store(true, Ordering::SeqCst);
                (self.ender)();
                if let Ok(outcome) = self.outcomes.recv_timeout(GRACE) {
                    self.executor = Some(outcome.executor);
                }
                return Err(error.into());
            }
        }
    }

    /// Notes how far the device has come.
    fn note(&self) {
        let heads = self.signals.cells.iter().map(|cell| cell.load(Ordering::Relaxed));
        self.control.note(heads, self.signals.held.load(Ordering::Relaxed));
    }

    /// Ends a run well: waits until all processes have come to its end, and leaves the channels.
    ///
    /// # Errors
    /// The network failed.
    pub fn finish(&mut self) -> Result<(), RunError> {
        let left = self.job(0, Patience::Progress, |executor| {
            executor.device().finish()?;
            Ok(executor.device().leave()?)
        });
        self.ended = true;
        left.inspect(|()| self.control.leave(true))
    }
}

impl<D> Drop for Engine<D> {
    fn drop(&mut self) {
        if !self.ended {
            self.control.leave(false);
        }
        if self.broken {
            // Giving back what the device uses would wait for it, and the table of what happened with that.
            std::mem::forget(self.executor.take());
        }
    }
}

/// The thread: takes the executor, does a job, gives it back.
fn serve<D: Device>(orders: &Receiver<Order<D>>, outcomes: &Sender<Outcome<D>>) {
    for Order { mut executor, job } in orders {
        let result = catch_unwind(AssertUnwindSafe(|| job(&mut executor)));
        let panicked = result.err().map(|payload| {
            let text = payload.downcast_ref::<String>().map(String::as_str);
            let text = text.or_else(|| payload.downcast_ref::<&str>().copied()).unwrap_or("no message");
            format!("its thread panicked: {text}")
        });
        if outcomes.send(Outcome { executor, panicked }).is_err() {
            return;
        }
    }
}

/// A meeting as numbers.
fn words(meeting: &Meeting) -> Vec<u64> {
    meeting.0.as_chunks().0.iter().map(|&bytes| u64::from_le_bytes(bytes)).collect()
}

/// The next meeting of a process.
fn meeting(numbers: &mut impl Iterator<Item = u64>) -> Option<Meeting> {
    let mut bytes = [0; crate::cuda::UNIQUE_ID];
    for at in 0..WORDS {
        bytes[8 * at..8 * at + 8].copy_from_slice(&numbers.next()?.to_le_bytes());
    }
    Some(crate::cuda::UniqueId(bytes))
}

/// Refuses two processes on one device.
fn apart(all: &[Vec<u64>]) -> Result<(), CudaError> {
    for (second, numbers) in all.iter().enumerate() {
        let same = |other: &Vec<u64>| numbers.first() == Some(&1) && other.get(..3) == numbers.get(..3);
        if let Some(first) = all[..second].iter().position(same) {
            return Err(CudaError::SharedDevice { first, second });
        }
    }
    Ok(())
}
