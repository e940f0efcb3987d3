//! The steps of the ranks that one device has: the same calls in each, and what is read from it between them.

use std::ops::Range;
use std::time::{Duration, Instant};

use super::channels::Channels;
use super::layer::long;
use super::parameters::Kept;
use super::passes::Feed;
use super::ranks::RankState;
use super::recorder::Recorder;
use super::script::Steps;
use super::{RunError, Signals};
use crate::cuda::{Address, Argument, Device, Graph, Queue};
use crate::execute::ExecuteError;
use crate::execute::backend::State;
use crate::execute::data::Tokens;
use crate::execute::interpreter::Finish;
use crate::execute::model::Train;
use crate::execute::recording::Recording;
use crate::ir::{Bytes, InstrId, Microbatch, Op, Plan, Rank, Stage};
use crate::kernels::launch;

/// The ranks of a process on a device.
#[derive(Debug)]
pub struct Executor<D> {
    pub(super) plan: Plan,
    pub(super) local: Range<usize>,
    pub(super) channels: Channels,
    pub(super) signals: Signals,
    pub(super) train: Train,
    pub(super) device: D,
    pub(super) ranks: Vec<RankState>,
    pub(super) steps: Steps,
    /// Where a step begins, and where it ends.
    pub(super) origin: Queue,
    pub(super) feed: Feed,
    /// The ids of a step on their way to the device.
    pub(super) ids: Vec<u8>,
    /// The losses of a step on their way from it, all ranks', by unit.
    pub(super) losses: Vec<u8>,
    pub(super) graph: Option<Graph>,
    pub(super) recorder: Option<Recorder>,
    /// How long the host took to issue steps.
    pub(super) issuing: Duration,
    pub(super) taken: u64,
}

/// The mean of all units' losses, taken in their order, where all are known.
pub(super) fn mean_of(losses: &[Option<f64>]) -> Option<f64> {
    let total = losses.iter().try_fold(0.0, |total, loss| Some(total + (*loss)?))?;
    Some(total / f64::from(losses.len().max(1) as u32))
}

/// Elements that one rank's losses are apart, so that each rank's begin at a multiple of 256 bytes.
pub(super) fn apart(units: u32) -> u64 {
    u64::from(units).next_multiple_of(64)
}

impl<D: Device> Executor<D> {
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

    /// What was allocated beside the arenas and the parameters, over all ranks, with what the device keeps for itself.
    #[must_use]
    pub fn workspace_bytes(&self) -> Bytes {
        let scratch: u64 = self.ranks.iter().map(|rank| rank.scratch.bytes).sum();
        let lengths = self.ids.capacity() as u64 + self.losses.len() as u64;
        Bytes(scratch + lengths + self.device.own_bytes())
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

/// The optimizer's step of a rank.
fn step_of(plan: &Plan, rank: usize) -> Option<InstrId> {
    let instrs = &plan.ranks[rank].instrs;
    instrs.iter().rposition(|instr| instr.op == Op::Step).map(InstrId::new)
}
