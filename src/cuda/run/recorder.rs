//! What really happened on a device: timed events around every instruction, read after each step.
//!
//! A step that is recorded costs two events an instruction and a wait for the device at its end; others cost nothing. A pass begins when its
//! queue has come to it and what it waits for is over, a message or a collective likewise.

use std::collections::VecDeque;
use std::time::Instant;

use crate::cuda::{CudaError, Device, Event, Queue};
use crate::execute::recording::{RecordedStep, Recording};
use crate::ir::{InstrId, Op, Plan};

/// The events before and after every instruction, by rank and [`InstrId`].
#[derive(Debug)]
pub(super) struct Marks(Vec<Vec<[Event; 2]>>);

impl Marks {
    fn new(plan: &Plan, device: &mut impl Device) -> Result<Self, CudaError> {
        let mut pair = || Ok([device.event(true)?, device.event(true)?]);
        let ranks = plan.ranks.iter().map(|rank| rank.instrs.iter().map(|_| pair()).collect());
        Ok(Self(ranks.collect::<Result<_, CudaError>>()?))
    }

    /// The events of an instruction.
    pub(super) fn of(&self, rank: usize, instr: InstrId) -> [Event; 2] {
        self.0[rank][instr.index()]
    }
}

/// The last steps of a run.
#[derive(Debug)]
pub(super) struct Recorder {
    pub(super) marks: Marks,
    /// Where a step begins on the device, and when that was.
    origin: Event,
    begun: u64,
    clock: Instant,
    steps: VecDeque<RecordedStep>,
    most: usize,
    /// Whether a step was taken.
    warm: bool,
}

impl Recorder {
    /// Makes the events, and keeps the last `most` steps.
    pub(super) fn new(plan: &Plan, most: usize, device: &mut impl Device) -> Result<Self, CudaError> {
        Ok(Self {
            marks: Marks::new(plan, device)?,
            origin: device.event(true)?,
            begun: 0,
            clock: Instant::now(),
            steps: VecDeque::with_capacity(most),
            most: most.max(1),
            warm: false,
        })
    }

    /// Marks where a step begins.
    pub(super) fn begin(&mut self, queue: Queue, device: &mut impl Device) -> Result<(), CudaError> {
        self.begun = self.clock.elapsed().as_nanos() as u64;
        device.record(self.origin, queue)
    }

    /// Reads the moments of a step that was put on the device; `updates`: with the optimizer's part.
    pub(super) fn end(
        &mut self,
        step: u64,
        plan: &Plan,
        updates: bool,
        device: &mut impl Device,
    ) -> Result<(), CudaError> {
        device.finish()?;
        let mut ranks = Vec::with_capacity(plan.ranks.len());
        for (rank, of) in plan.ranks.iter().enumerate() {
            let mut moments = Vec::with_capacity(of.instrs.len());
            let mut last = self.begun;
            for (instr, marks) in of.instrs.iter().zip(&self.marks.0[rank]) {
                let moment = if instr.op == Op::Step && !updates {
                    [last; 2]
                } else {
                    [self.moment(marks[0], device)?, self.moment(marks[1], device)?]
                };
                last = last.max(moment[1]);
                moments.push(moment);
            }
            ranks.push(moments);
        }
        if self.steps.len() == self.most {
            self.steps.pop_front();
        }
        self.steps.push_back(RecordedStep { step, first: !self.warm, ranks });
        self.warm = true;
        Ok(())
    }

    /// Nanoseconds since the recorder was made.
    #[allow(clippy::cast_sign_loss, reason = "an event of a step is not before its begin")]
    fn moment(&self, event: Event, device: &mut impl Device) -> Result<u64, CudaError> {
        let microseconds = device.between(self.origin, event)?.max(0.0);
        Ok(self.begun + (microseconds * 1e3) as u64)
    }

    /// The last steps.
    pub(super) fn recording(&self) -> Recording {
        Recording { steps: self.steps.iter().cloned().collect(), device: true }
    }
}
