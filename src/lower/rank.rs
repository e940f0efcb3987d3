//! One rank's list while it is being written: lanes, waits, buffers.

use super::buffers::Buffers;
use super::forms::{FormId, Forms};
use crate::ir::{BufferId, InstrId, Lane, LaneId, Op, Operands, RankPlan};

/// One rank's list and what is known of its end.
#[derive(Debug)]
pub(super) struct RankList {
    plan: RankPlan,
    pub(super) buffers: Buffers,
    /// The last instruction of each lane.
    last: Vec<Option<InstrId>>,
    /// By lane, then by other lane: the last instruction there that this lane has waited for.
    waited: Vec<Vec<Option<InstrId>>>,
    /// Operands of the instruction in the making, kept to spare allocations.
    reads: Vec<u32>,
    writes: Vec<u32>,
    frees: Vec<u32>,
    waits: Vec<u32>,
}

impl RankList {
    pub(super) fn new(classes: usize, forms: &Forms, instrs: usize) -> Self {
        let mut plan = RankPlan { lanes: vec![Lane::Compute], ..RankPlan::default() };
        plan.instrs.reserve(instrs);
        plan.pool.reserve(instrs * 4);
        Self {
            plan,
            buffers: Buffers::new(classes, forms),
            last: vec![None],
            waited: vec![vec![None]],
            reads: Vec::new(),
            writes: Vec::new(),
            frees: Vec::new(),
            waits: Vec::new(),
        }
    }

    /// The id of a lane, new or known; a rank has few.
    pub(super) fn lane(&mut self, lane: Lane) -> LaneId {
        let found = self.plan.lanes.iter().position(|&known| known == lane);
        LaneId::new(found.unwrap_or_else(|| {
            self.plan.lanes.push(lane);
            self.last.push(None);
            self.waited.push(Vec::new());
            let lanes = self.plan.lanes.len();
            self.waited.iter_mut().for_each(|row| row.resize(lanes, None));
            lanes - 1
        }))
    }

    /// Reads a value; its last reader frees it.
    pub(super) fn read(&mut self, id: BufferId) {
        self.reads.push(id.0);
        if self.buffers.consume(id) {
            self.frees.push(id.0);
        }
    }

    /// Reads state.
    pub(super) fn read_state(&mut self, id: BufferId) {
        if !self.reads.contains(&id.0) {
            self.reads.push(id.0);
        }
    }

    /// Frees state.
    pub(super) fn free_state(&mut self, id: BufferId) {
        self.frees.push(id.0);
    }

    /// Writes a new buffer. One that nobody reads is freed at once.
    pub(super) fn write(&mut self, forms: &Forms, form: FormId, readers: u32) -> BufferId {
        let id = self.buffers.allocate(forms, form, readers);
        self.writes.push(id.0);
        id
    }

    /// Reads and writes a buffer where it lies.
    pub(super) fn update(&mut self, id: BufferId) {
        self.reads.push(id.0);
        self.writes.push(id.0);
    }

    /// Waits for an instruction, unless the lane's order already does.
    pub(super) fn wait(&mut self, lane: LaneId, other: LaneId, instr: InstrId) {
        let waited = &mut self.waited[lane.index()][other.index()];
        if other != lane && waited.is_none_or(|known| known < instr) {
            *waited = Some(instr);
            self.waits.retain(|&wait| self.plan.instrs[wait as usize].lane != other);
            self.waits.push(instr.0);
        }
    }

    /// Waits for an instruction of this rank, whichever its lane.
    pub(super) fn wait_instr(&mut self, lane: LaneId, instr: InstrId) {
        self.wait(lane, self.plan.instrs[instr.index()].lane, instr);
    }

    /// Waits for the last instruction of every other lane.
    pub(super) fn wait_for_all(&mut self, lane: LaneId) {
        for other in LaneId::all(self.last.len()) {
            if let Some(instr) = self.last[other.index()] {
                self.wait(lane, other, instr);
            }
        }
    }

    /// Closes the instruction in the making. `rest`: what it frees rests for one pass.
    pub(super) fn issue(&mut self, op: Op, lane: LaneId, rest: bool) -> InstrId {
        for at in 0..self.reads.len() {
            if let Some((other, instr)) = self.buffers.writer(BufferId(self.reads[at])) {
                self.wait(lane, other, instr);
            }
        }
        for at in 0..self.writes.len() {
            self.wait_for_accesses(lane, BufferId(self.writes[at]));
        }
        for at in 0..self.frees.len() {
            self.wait_for_accesses(lane, BufferId(self.frees[at]));
        }
        let (reads, writes, frees, waits) = (&self.reads, &self.writes, &self.frees, &self.waits);
        let instr = self.plan.push(op, lane, Operands { reads, writes, frees, waits });
        self.last[lane.index()] = Some(instr);
        self.reads.drain(..).for_each(|id| self.buffers.note_read(BufferId(id), lane, instr));
        self.writes.drain(..).for_each(|id| self.buffers.note_write(BufferId(id), lane, instr));
        self.frees.drain(..).for_each(|id| self.buffers.release(BufferId(id), rest));
        self.waits.clear();
        instr
    }

    /// Marks the instruction issued last as overlapped with the next of its lane.
    pub(super) fn overlap(&mut self) {
        if let Some(instr) = self.plan.instrs.last_mut() {
            instr.overlaps = true;
        }
    }

    /// Waits for everybody who has used a slot since it was last written.
    fn wait_for_accesses(&mut self, lane: LaneId, id: BufferId) {
        for access in 0..self.buffers.accesses(id).len() {
            let (other, instr) = self.buffers.accesses(id)[access];
            self.wait(lane, other, instr);
        }
    }

    /// The list.
    pub(super) fn finish(mut self) -> RankPlan {
        (self.plan.buffers, self.plan.peak) = self.buffers.finish();
        self.plan
    }
}
