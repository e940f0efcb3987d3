//! What really happened: each rank notes when every instruction began and ended, in storage that it has from the start.
//!
//! A rank keeps its last steps in a ring, so that a run of any length can be recorded and nothing is allocated inside a step. A pass begins when
//! the backend is called; a send, a receive or a collective when its rank has come to it, and ends when it is done, whatever the rank did meanwhile.

use std::time::Instant;

use crate::ir::InstrId;

/// The most bytes that the recordings of all ranks may take.
pub const MOST_BYTES: u64 = 4 << 30;

/// Bytes of one moment pair.
pub(crate) const MOMENTS: u64 = size_of::<[u64; 2]>() as u64;

/// Not begun, or not ended.
const NEVER: u64 = u64::MAX;

/// The steps that were recorded, first to last.
#[derive(Clone, Debug, Default)]
pub struct Recording {
    /// Each step.
    pub steps: Vec<RecordedStep>,
    /// Whether ranks were queues of a device, and not threads that look at messages between two passes.
    pub device: bool,
}

/// When everything happened in one step.
#[derive(Clone, Debug)]
pub struct RecordedStep {
    /// Its number, from 1.
    pub step: u64,
    /// Whether no step was taken before it: caches are cold, and memory is touched for the first time.
    pub first: bool,
    /// By rank and [`InstrId`]: begin and end in nanoseconds since the ranks were started.
    pub ranks: Vec<Vec<[u64; 2]>>,
}

/// One rank's last steps.
#[derive(Debug)]
pub(super) struct Recorder {
    clock: Instant,
    /// The numbers of the steps in the ring; `None` where no step was taken or it did not come to its end.
    steps: Vec<Option<u64>>,
    /// By place in the ring, then by [`InstrId`].
    moments: Vec<[u64; 2]>,
    instrs: usize,
    /// The place in the ring of the step that is being taken.
    at: usize,
    /// The step that was taken first.
    first: Option<u64>,
}

impl Recorder {
    /// Storage for so many steps of so many instructions.
    pub(super) fn new(clock: Instant, instrs: usize, steps: usize) -> Self {
        let steps = steps.max(1);
        Self {
            clock,
            steps: vec![None; steps],
            moments: vec![[NEVER; 2]; steps * instrs],
            instrs,
            at: steps - 1,
            first: None,
        }
    }

    /// Begins a step, in the place of the oldest.
    pub(super) fn begin(&mut self) {
        self.at = (self.at + 1) % self.steps.len();
        self.steps[self.at] = None;
        let instrs = self.instrs;
        self.moments[self.at * instrs..][..instrs].fill([NEVER; 2]);
    }

    /// Notes that the rank has come to an instruction, the first time.
    pub(super) fn reached(&mut self, instr: InstrId) {
        let now = self.clock;
        let [begin, _] = &mut self.moments[self.at * self.instrs + instr.index()];
        if *begin == NEVER {
            *begin = nanos(now);
        }
    }

    /// Notes that an instruction has ended.
    pub(super) fn ended(&mut self, instr: InstrId) {
        let now = nanos(self.clock);
        self.moments[self.at * self.instrs + instr.index()][1] = now;
    }

    /// Ends a step.
    pub(super) fn done(&mut self, step: u64) {
        self.steps[self.at] = Some(step);
        self.first.get_or_insert(step);
    }

    /// The moments of a step that came to its end.
    pub(super) fn step(&self, step: u64) -> Option<&[[u64; 2]]> {
        let at = self.steps.iter().position(|&taken| taken == Some(step))?;
        Some(&self.moments[at * self.instrs..][..self.instrs])
    }

    /// Whether a step was the first that was taken.
    pub(super) fn is_first(&self, step: u64) -> bool {
        self.first == Some(step)
    }

    /// The steps that it has.
    pub(super) fn steps(&self) -> impl Iterator<Item = u64> {
        self.steps.iter().copied().flatten()
    }
}

/// Nanoseconds since a moment; a run lasts less than the 584 years that fit.
fn nanos(since: Instant) -> u64 {
    since.elapsed().as_nanos() as u64
}
