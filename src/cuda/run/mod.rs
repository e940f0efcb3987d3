//! Verified plan + [`Device`] -> trained steps: the ranks of a process on one device.
//!
//! A rank has an arena of exactly the plan's bytes, its parameters and a queue for each lane. Everything that a step asks of the device is
//! resolved once (`script` walks the lanes, `passes` and what it calls put each pass's kernels and products in a list, `exchange` the
//! messages), so that a step is that list again, or one graph: its calls depend on nothing but the plan. What changes from step to step
//! lies in the device's memory (the ids) or comes after the list: Adam's factors depend on the step's number, so the optimizer's launches, one
//! a rank, are no part of a graph.
//!
//! A plan in f32 is the mode that is held against the CPU. In bf16, activations and their gradients are; what passes read of parameters are
//! rounded copies; products accumulate in f32; statistics, parameters, their gradients and moments are f32.

mod attention;
mod calls;
mod channels;
mod engine;
mod exchange;
mod layer;
mod parameters;
mod passes;
mod ranks;
mod recorder;
mod script;
mod shape;
mod train;
mod vocabulary;

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use miette::Diagnostic;
use thiserror::Error;

use self::channels::Channels;
use self::layer::long;
use self::passes::Feed;
use self::ranks::RankState;
use self::recorder::Recorder;
use self::script::{Steps, Walk, listed, spilled};
use super::{Address, Argument, CudaError, Device, Graph, Meeting, Queue};
use crate::execute::ExecuteError;
use crate::execute::backend::State;
use crate::execute::check::{CheckReport, Outcome, compare};
use crate::execute::data::Tokens;
use crate::execute::interpreter::Finish;
use crate::execute::model::{Held, Train};
use crate::execute::prepare::{Script, resolve};
use crate::execute::recording::{MOMENTS, MOST_BYTES, Recording};
use crate::execute::stored::{copies_of, gather_of};
use crate::execute::watchdog::Drill;
use crate::ir::{Bytes, InstrId, Microbatch, Op, Plan, Precision, Rank, Stage};
use crate::kernels::launch;
use crate::verify::Verified;

pub use calls::Signals;
pub use engine::Engine;
pub use parameters::Kept;
pub use train::{Ended, Way, train_on};

/// The largest relative difference from the CPU's reference that passes.
#[must_use]
pub fn tolerance(precision: Precision) -> f64 {
    match precision {
        Precision::F32 => 1e-4,
        Precision::Bf16 => 2e-2,
    }
}

/// Why a plan does not run on a device.
#[derive(Debug, Error, Diagnostic)]
#[non_exhaustive]
pub enum RunError {
    /// The device.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Device(#[from] CudaError),
    /// The plan.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Plan(#[from] ExecuteError),
}

/// What an executor does beside its steps.
#[derive(Clone, Debug)]
pub struct Scope {
    /// The ranks of this process: neighbours.
    pub local: Range<usize>,
    /// In how many of the last steps it notes when each instruction began and ended.
    pub record: u32,
    /// A failure that it acts out.
    pub drill: Option<Drill>,
    /// What it shares with who watches over it.
    pub signals: Signals,
}

impl Scope {
    /// So many of a plan's ranks, and nothing else.
    #[must_use]
    pub fn of(plan: &Plan, local: Range<usize>) -> Self {
        let lanes = plan.ranks.get(local.clone()).unwrap_or_default().iter().map(|rank| rank.lanes.len());
        Self { signals: Signals::new(lanes.sum()), local, record: 0, drill: None }
    }
}

/// The ranks of a process on a device.
#[derive(Debug)]
pub struct Executor<D> {
    plan: Plan,
    local: Range<usize>,
    channels: Channels,
    signals: Signals,
    train: Train,
    device: D,
    ranks: Vec<RankState>,
    steps: Steps,
    /// Where a step begins, and where it ends.
    origin: Queue,
    feed: Feed,
    /// The ids of a step on their way to the device.
    ids: Vec<u8>,
    /// The losses of a step on their way from it, all ranks', by unit.
    losses: Vec<u8>,
    graph: Option<Graph>,
    recorder: Option<Recorder>,
    /// How long the host took to issue steps.
    issuing: Duration,
    taken: u64,
}

/// The optimizer's step of a rank.
fn step_of(plan: &Plan, rank: usize) -> Option<InstrId> {
    let instrs = &plan.ranks[rank].instrs;
    instrs.iter().rposition(|instr| instr.op == Op::Step).map(InstrId::new)
}

/// Refuses a recording that takes more than is allowed.
fn recordable(plan: &Plan, steps: u32) -> Result<(), ExecuteError> {
    let instrs: u64 = plan.ranks.iter().map(|rank| rank.instrs.len() as u64).sum();
    let bytes = instrs.saturating_mul(u64::from(steps)).saturating_mul(MOMENTS);
    if bytes > MOST_BYTES {
        return Err(ExecuteError::RecordingTooLarge { steps, bytes: Bytes(bytes) });
    }
    Ok(())
}

/// The mean of all units' losses, taken in their order, where all are known.
fn mean_of(losses: &[Option<f64>]) -> Option<f64> {
    let total = losses.iter().try_fold(0.0, |total, loss| Some(total + (*loss)?))?;
    Some(total / f64::from(losses.len().max(1) as u32))
}

/// Elements that one rank's losses are apart, so that each rank's begin at a multiple of 256 bytes.
fn apart(units: u32) -> u64 {
    u64::from(units).next_multiple_of(64)
}

impl<D: Device> Executor<D> {
    /// Allocates everything, draws the parameters, and resolves what a step asks of the device, for all ranks.
    ///
    /// # Errors
    /// The plan has a pass or a buffer that the model cannot run, or lengths that the kernels do not take; the device refuses memory or code.
    pub fn new(plan: &Verified, train: &Train, device: D) -> Result<Self, RunError> {
        let scripts: Vec<Arc<Script>> = resolve(plan)?.into_iter().map(Arc::new).collect();
        Self::scoped(plan, &scripts, train, device, Scope::of(plan, 0..plan.ranks.len()))
    }

    /// The same for some of the ranks. Call [`Executor::join`] then, before the first step, where other processes have the rest.
    ///
    /// # Errors
    /// As [`Executor::new`]; or a recording takes too much memory.
    pub fn part(plan: &Verified, train: &Train, device: D, scope: Scope) -> Result<Self, RunError> {
        let scripts: Vec<Arc<Script>> = resolve(plan)?.into_iter().map(Arc::new).collect();
        Self::scoped(plan, &scripts, train, device, scope)
    }

    fn scoped(
        plan: &Verified,
        scripts: &[Arc<Script>],
        train: &Train,
        mut device: D,
        scope: Scope,
    ) -> Result<Self, RunError> {
        let Scope { local, record, drill, signals } = scope;
        let recorder = match record {
            0 => None,
            steps => {
                recordable(plan, steps)?;
                Some(Recorder::new(plan, steps as usize, &mut device)?)
            }
        };
        let header = &plan.header;
        let own = &scripts[local.clone()];
        let held = local.clone().map(|rank| Held::of(header, Rank::new(rank)));
        let held = held.collect::<Result<Vec<_>, _>>().map_err(ExecuteError::from)?;
        let shapes = held.iter().map(|held| shape::Shape::of(&held.sizes));
        let shape = shapes.collect::<Result<Vec<_>, _>>()?.first().copied();
        let Some(shape) = shape else { return Err(ExecuteError::NoLoss.into()) };
        let units = header.cut().units();
        let mut ranks = Vec::new();
        for ((rank, script), held) in plan.ranks[local.clone()].iter().zip(own).zip(held) {
            ranks.push(RankState::new(held, rank.peak.bytes, script.lanes.len(), &mut device)?);
        }
        let each = 8 * u64::from(units) * u64::from(shape.tokens);
        let feed = Feed { start: device.allocate(each)?, tokens: shape.tokens };
        let all = 4 * apart(units) * ranks.len() as u64;
        let losses = device.allocate(all)?;
        for (index, rank) in ranks.iter_mut().enumerate() {
            rank.losses = losses.plus(4 * apart(units) * index as u64);
        }
        let places = listed(own, &ranks);
        let lists = if places > 0 { device.allocate(8 * places)? } else { Address::default() };
        let channels = Channels::of(scripts);
        let spill = if channels.across(local.len()).next().is_some() { spilled(scripts) } else { 0 };
        let spill = if spill > 0 { device.allocate(spill)? } else { Address::default() };
        device.counters(Arc::clone(&signals.cells))?;
        let origin = device.queue()?;
        let walk = Walk::new(header, scripts, (&ranks, local.clone()), &channels, feed, lists, &mut device)?;
        let marks = recorder.as_ref().map(|recorder| &recorder.marks);
        let steps = walk.marked(marks).drilled(drill).spilling(spill).run(origin, &mut device)?;
        let mut executor = Self {
            plan: (**plan).clone(),
            local,
            channels,
            signals,
            train: *train,
            device,
            ranks,
            steps,
            origin,
            feed,
            ids: Vec::with_capacity(each as usize),
            losses: vec![0; all as usize],
            graph: None,
            recorder,
            issuing: Duration::ZERO,
            taken: 0,
        };
        executor.load_up()?;
        Ok(executor)
    }

    /// What the other processes must know of the channels that a rank of this one comes first on, channel by channel.
    ///
    /// # Errors
    /// Nothing is there that moves buffers between devices.
    pub fn meetings(&mut self) -> Result<Vec<Meeting>, RunError> {
        let Self { device, channels, local, .. } = self;
        let first = channels.across(local.len()).filter(|(_, members)| local.contains(&members[0]));
        let made: Result<_, CudaError> = first.map(|_| device.meeting()).collect();
        Ok(made?)
    }

    /// Joins the channels to ranks of other processes. `meeting` gives, one after the other, what [`Executor::meetings`] of the process
    /// that has a rank gave; `patience` is how long each may take.
    ///
    /// # Errors
    /// Not all came in time; the network failed.
    pub fn join(
        &mut self,
        mut meeting: impl FnMut(Rank) -> Option<Meeting>,
        patience: Duration,
    ) -> Result<(), RunError> {
        let Self { device, channels, local, .. } = self;
        for (channel, members) in channels.across(local.len()) {
            let Some(found) = meeting(Rank::new(members[0])) else {
                return Err(CudaError::NotPrepared { what: format!("channel {}", channel.0) }.into());
            };
            if let Some(own) = members.iter().position(|member| local.contains(member)) {
                device.join(channel, &found, (members.len() as u32, own as u32), patience)?;
            }
        }
        Ok(self.steps.calls.connect(&mut self.device)?)
    }

    /// Writes parameters and lists, and lets the device get ready for all calls of a step.
    fn load_up(&mut self) -> Result<(), RunError> {
        let Self { device, ranks, steps, origin, train, .. } = self;
        for rank in &*ranks {
            rank.parameters.draw(train.seed, *origin, device)?;
        }
        let pointers: Vec<u8> = steps.lists.pointers.iter().flat_map(|at| at.to_le_bytes()).collect();
        if !pointers.is_empty() {
            device.write(*origin, steps.lists.start, &pointers)?;
        }
        steps.calls.prepare(device)?;
        let launches = ranks
            .iter()
            .map(|rank| (launch::adam(rank.shape.stored, rank.parameters.elements), rank.shape.stored));
        let optimizer: BTreeMap<u32, _> = launches.map(|launch| (launch.0.grid[0], launch)).collect();
        device.prepare(&optimizer.into_values().collect::<Vec<_>>(), &[])?;
        Ok(device.finish()?)
    }

    /// Captures the calls of a step, so that every further step is one launch and the optimizer's.
    ///
    /// # Errors
    /// The device refuses.
    pub fn capture(&mut self) -> Result<(), RunError> {
        self.device.capture(self.origin)?;
        self.steps.calls.issue(&mut self.device, &self.signals)?;
        self.graph = Some(self.device.captured(self.origin)?);
        Ok(())
    }

    /// Runs one step; `batches` by microbatch (they are sliced here, where the plan says so). Gives the mean loss in nats a token, where a
    /// pass computes it. A forward-only plan updates nothing.
    ///
    /// # Errors
    /// The device failed.
    pub fn step(&mut self, batches: &[Tokens], finish: Finish) -> Result<Option<f64>, RunError> {
        let header = &self.plan.header;
        self.ids.clear();
        for batch in
            batches.iter().cloned().flat_map(|batch| batch.sliced(header.model.sequence, header.slices))
        {
            let both = batch.inputs.iter().chain(&batch.targets);
            self.ids.extend(both.flat_map(|id| id.to_le_bytes()));
        }
        if self.ids.len() != 8 * header.cut().units() as usize * self.feed.tokens as usize {
            let reason = "the batches are not of the plan's number and size".to_owned();
            let (rank, instr) = (Rank::default(), InstrId::default());
            return Err(ExecuteError::Malformed { rank, instr, reason }.into());
        }
        self.device.write(self.origin, self.feed.start, &self.ids)?;
        if let Some(recorder) = &mut self.recorder {
            recorder.begin(self.origin, &mut self.device)?;
        }
        let started = Instant::now();
        match self.graph {
            Some(graph) => self.device.repeat(self.origin, graph)?,
            None => self.steps.calls.issue(&mut self.device, &self.signals)?,
        }
        self.issuing += started.elapsed();
        let start = self.ranks.first().map_or(Address::default(), |rank| rank.losses);
        self.device.read(self.origin, start, &mut self.losses)?;
        let loss = mean_of(&self.losses());
        if finish == Finish::Update {
            self.update()?;
        }
        Ok(loss)
    }

    /// The optimizer's step with the gradients that there are; zeroes them. Nothing of a forward-only plan.
    ///
    /// # Errors
    /// The device failed.
    pub fn update(&mut self) -> Result<(), RunError> {
        if !self.plan.header.mode.is_training() {
            return Ok(());
        }
        self.taken += 1;
        let Train { beta1, beta2, eps, .. } = self.train;
        let [rate, root, keep] = self.train.factors(self.taken);
        for (rank, index) in self.ranks.iter().zip(self.local.clone()) {
            let marks = self.recorder.as_ref().zip(step_of(&self.plan, index));
            let marks = marks.map(|(recorder, instr)| recorder.marks.of(index, instr));
            if let Some([begin, _]) = marks {
                self.device.record(begin, self.origin)?;
            }
            let elements = rank.parameters.elements;
            if elements == 0 {
                if let Some([_, end]) = marks {
                    self.device.record(end, self.origin)?;
                }
                continue;
            }
            let pointers = rank.parameters.areas.map(Argument::At);
            let numbers = [beta1, beta2, rate, root, eps, keep].map(Argument::Float);
            let [value, gradient, first, second] = pointers;
            let [beta1, beta2, rate, root, eps, keep] = numbers;
            let arguments = [
                value,
                gradient,
                first,
                second,
                rank.parameters.copies.map_or(Argument::NOTHING, Argument::At),
                beta1,
                beta2,
                rate,
                root,
                eps,
                keep,
                long(elements),
            ];
            let stored = rank.shape.stored;
            self.device.launch(self.origin, launch::adam(stored, elements), stored, &arguments)?;
            if let Some([_, end]) = marks {
                self.device.record(end, self.origin)?;
            }
        }
        Ok(())
    }

    /// Reads when everything happened in the step that was taken, where the executor records; `updated`: with the optimizer's part.
    ///
    /// # Errors
    /// The device failed.
    pub fn note(&mut self, step: u64, updated: bool) -> Result<(), RunError> {
        let Some(recorder) = &mut self.recorder else { return Ok(()) };
        Ok(recorder.end(step, &self.plan, updated, &mut self.device)?)
    }

    /// The last steps that were noted.
    #[must_use]
    pub fn recording(&self) -> Recording {
        self.recorder.as_ref().map(Recorder::recording).unwrap_or_default()
    }

    /// How long the host took to put all steps so far on the device, without ids and losses.
    #[must_use]
    pub fn issuing(&self) -> Duration {
        self.issuing
    }

    /// The loss of every unit in the last step that came up here, where the last stage of its flow is on a rank of this process.
    #[must_use]
    pub fn losses(&self) -> Vec<Option<f64>> {
        let header = &self.plan.header;
        let of = |unit: usize| {
            let flow = header.flow_of(Microbatch::new(unit));
            let last = Stage((flow.0 + 1) * header.depth() - 1);
            let rank = header.stages.get(last.index())?.index().checked_sub(self.local.start)?;
            if !self.steps.losses.get(rank)?[unit] {
                return None;
            }
            let at = 4 * (apart(header.cut().units()) as usize * rank + unit);
            let bytes = self.losses.get(at..at + 4)?.try_into().ok()?;
            Some(f64::from(f32::from_le_bytes(bytes)))
        };
        (0..header.cut().units() as usize).map(of).collect()
    }

    /// Reads parameters, gradients and moments, by rank.
    ///
    /// # Errors
    /// The device failed.
    pub fn kept(&mut self) -> Result<Vec<Kept>, RunError> {
        let Self { device, ranks, origin, .. } = self;
        let kept = ranks.iter().map(|rank| rank.parameters.read(*origin, device));
        Ok(kept.collect::<Result<_, _>>()?)
    }

    /// Makes parameters and moments of all ranks those of a checkpoint, after so many steps; `kept` by rank.
    ///
    /// # Errors
    /// The device failed.
    pub fn restore(&mut self, kept: &[Kept], taken: u64) -> Result<(), RunError> {
        for (rank, kept) in self.ranks.iter().zip(kept) {
            rank.parameters.write_back(kept, self.origin, &mut self.device)?;
        }
        self.taken = taken;
        Ok(())
    }

    /// Replaces the rows that lie on a rank of a parameter and its moments. False, and nothing is changed, where there is no such
    /// parameter or a length differs.
    ///
    /// # Errors
    /// The device failed.
    pub fn load(&mut self, rank: Rank, name: &str, state: State<'_>) -> Result<bool, RunError> {
        let Self { device, ranks, origin, .. } = self;
        let rank = rank.index().checked_sub(self.local.start).and_then(|rank| ranks.get(rank));
        let Some(rank) = rank else { return Ok(false) };
        Ok(rank.parameters.load(name, state, *origin, device)?)
    }

    /// Steps of the optimizer taken so far.
    #[must_use]
    pub fn taken(&self) -> u64 {
        self.taken
    }

    /// Sets the number of steps taken, after [`Executor::load`].
    pub fn set_taken(&mut self, taken: u64) {
        self.taken = taken;
    }

    /// What was allocated for the plan's buffers, by rank: the plan's peak, to the byte.
    #[must_use]
    pub fn arena_bytes(&self) -> Vec<Bytes> {
        self.ranks.iter().map(|rank| rank.allocated).collect()
    }

    /// What was allocated for parameters, their copies, gradients and moments, over all ranks.
    #[must_use]
    pub fn parameter_bytes(&self) -> Bytes {
        Bytes(self.ranks.iter().map(|rank| rank.parameters.bytes()).sum())
    }

    /// What was allocated beside the arenas and the parameters, over all ranks.
    #[must_use]
    pub fn workspace_bytes(&self) -> Bytes {
        let scratch: u64 = self.ranks.iter().map(|rank| rank.scratch.bytes).sum();
        Bytes(scratch + self.ids.capacity() as u64 + self.losses.len() as u64)
    }

    /// The bytes of arenas, of parameters, and of what lies beside them.
    pub(super) fn held_bytes(&self) -> [Bytes; 3] {
        let arenas = self.arena_bytes().iter().map(|bytes| bytes.0).sum();
        [Bytes(arenas), self.parameter_bytes(), self.workspace_bytes()]
    }

    /// How many calls a step makes.
    #[must_use]
    pub fn calls(&self) -> usize {
        self.steps.calls.len()
    }

    /// The device.
    pub fn device(&mut self) -> &mut D {
        &mut self.device
    }
}

/// Runs one step of a plan on a device and of the reference on the CPU, with the same weights and tokens.
///
/// # Errors
/// The plan cannot be run, or the device fails. A difference is no error here: see [`CheckReport::verdict`].
pub fn check<D: Device>(
    plan: &Verified,
    train: &Train,
    batches: &[Tokens],
    device: D,
) -> Result<CheckReport, RunError> {
    let mut executor = Executor::new(plan, train, device)?;
    let loss = executor.step(batches, Finish::Keep)?.ok_or(ExecuteError::NoLoss)?;
    let kept = executor.kept()?;
    let found = gather_of(kept.iter().map(Kept::tensors));
    let copies = copies_of(kept.iter().map(Kept::tensors));
    let outcome = Outcome { loss, found, copies, arenas: executor.arena_bytes() };
    Ok(compare(plan, train, batches, &outcome, Some(tolerance(plan.header.model.precision)))?)
}
