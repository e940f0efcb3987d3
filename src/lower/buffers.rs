//! Lifetimes -> slots of one rank's arena, as registers are assigned: the first slot of the right size that is free by then, else a new one.
//!
//! A list says what ends before what; on the clock a pass may start before something ends that stands before it in the list. A slot
//! that is given back later than that is not taken, so that no pass waits for memory. What a message has read rests for one pass more:
//! messages that cost nothing on the clock take their time in a run.

use std::collections::VecDeque;

use smallvec::SmallVec;

use super::forms::{FormId, Forms};
use crate::ir::{Buffer, BufferId, Bytes, ClassId, InstrId, LaneId, Peak, Place, Ticks};

/// Every slot starts at a multiple of this: a cache line, and what 16-byte accesses of a device want.
const ALIGNMENT: u64 = 64;

/// The buffers of one rank while its list is being written.
#[derive(Debug, Default)]
pub(super) struct Buffers {
    table: Vec<Buffer>,
    slot_of: Vec<usize>,
    slots: Vec<Slot>,
    /// Free slots by size.
    pools: Vec<VecDeque<usize>>,
    resting: Vec<usize>,
    /// When the instruction in the making starts and ends.
    span: (Ticks, Ticks),
    /// By class.
    live: Vec<u32>,
    peak: Vec<u32>,
    extent: u64,
}

#[derive(Debug)]
struct Slot {
    offset: u64,
    pool: usize,
    /// When it is given back.
    free: Ticks,
    /// The buffers that share it, one for each form.
    names: SmallVec<[(FormId, BufferId); 2]>,
    writer: Option<(LaneId, InstrId)>,
    /// The last access from each lane since the slot was last written, the write included.
    accesses: SmallVec<[(LaneId, InstrId); 4]>,
    readers: u32,
}

impl Slot {
    fn at(offset: u64, pool: usize) -> Self {
        let (names, accesses) = (SmallVec::new(), SmallVec::new());
        Self { offset, pool, free: Ticks(0), names, writer: None, accesses, readers: 0 }
    }
}

impl Buffers {
    pub(super) fn new(classes: usize, forms: &Forms) -> Self {
        let pools = vec![VecDeque::new(); forms.pools()];
        Self { pools, live: vec![0; classes], peak: vec![0; classes], ..Self::default() }
    }

    /// Says when the next instructions start and end.
    pub(super) fn at(&mut self, start: Ticks, end: Ticks) {
        self.span = (start, end);
    }

    /// A buffer that `readers` instructions will read.
    pub(super) fn allocate(&mut self, forms: &Forms, id: FormId, readers: u32) -> BufferId {
        let form = forms.get(id);
        let class = form.class.index();
        let slot = self.free_slot(form.pool).unwrap_or_else(|| self.new_slot(form.bytes, form.pool));
        self.slots[slot].readers = readers;
        self.live[class] += 1;
        self.peak[class] = self.peak[class].max(self.live[class]);
        if let Some(&(_, buffer)) = self.slots[slot].names.iter().find(|(named, _)| *named == id) {
            return buffer;
        }
        let place = Place::Arena(Bytes(self.slots[slot].offset));
        let buffer = self.push(Buffer { class: form.class, shape: form.shape.clone(), place }, slot);
        self.slots[slot].names.push((id, buffer));
        buffer
    }

    /// Counts a reader off. Returns whether it was the last.
    pub(super) fn consume(&mut self, id: BufferId) -> bool {
        let slot = &mut self.slots[self.slot_of[id.index()]];
        slot.readers -= 1;
        slot.readers == 0
    }

    /// Gives a slot back; `rest`: only after the next pass has taken its own.
    pub(super) fn release(&mut self, id: BufferId, rest: bool) {
        let slot = self.slot_of[id.index()];
        self.live[self.table[id.index()].class.index()] -= 1;
        self.slots[slot].free = self.span.1;
        if rest {
            self.resting.push(slot);
        } else {
            self.pools[self.slots[slot].pool].push_back(slot);
        }
    }

    /// Ends the rest of slots that messages have read.
    pub(super) fn wake(&mut self) {
        for slot in self.resting.drain(..) {
            self.pools[self.slots[slot].pool].push_back(slot);
        }
    }

    /// The instruction that a reader has to wait for.
    pub(super) fn writer(&self, id: BufferId) -> Option<(LaneId, InstrId)> {
        self.slots[self.slot_of[id.index()]].writer
    }

    /// The instructions that a writer has to wait for: who read and wrote what the slot held before.
    pub(super) fn accesses(&self, id: BufferId) -> &[(LaneId, InstrId)] {
        &self.slots[self.slot_of[id.index()]].accesses
    }

    /// Notes a write: it begins a new life of the slot.
    pub(super) fn note_write(&mut self, id: BufferId, lane: LaneId, instr: InstrId) {
        let slot = &mut self.slots[self.slot_of[id.index()]];
        slot.writer = Some((lane, instr));
        slot.accesses.clear();
        slot.accesses.push((lane, instr));
    }

    /// Notes a read.
    pub(super) fn note_read(&mut self, id: BufferId, lane: LaneId, instr: InstrId) {
        let accesses = &mut self.slots[self.slot_of[id.index()]].accesses;
        match accesses.iter_mut().find(|(other, _)| *other == lane) {
            Some(access) => access.1 = instr,
            None => accesses.push((lane, instr)),
        }
    }

    /// A gradient that is summed over ranks: beside the arena, never freed.
    pub(super) fn beside_parameters(&mut self, class: ClassId, shape: Vec<u64>, place: Place) -> BufferId {
        self.slots.push(Slot::at(0, 0));
        self.push(Buffer { class, shape, place }, self.slots.len() - 1)
    }

    /// The table and its peak.
    pub(super) fn finish(self) -> (Vec<Buffer>, Peak) {
        (self.table, Peak { bytes: Bytes(self.extent), live: self.peak })
    }

    fn push(&mut self, buffer: Buffer, slot: usize) -> BufferId {
        self.table.push(buffer);
        self.slot_of.push(slot);
        BufferId::new(self.table.len() - 1)
    }

    /// A slot that is free when the instruction in the making starts; what was given back first comes first.
    fn free_slot(&mut self, pool: usize) -> Option<usize> {
        let (start, _) = self.span;
        let at = self.pools[pool].iter().position(|&slot| self.slots[slot].free <= start)?;
        self.pools[pool].remove(at)
    }

    fn new_slot(&mut self, bytes: u64, pool: usize) -> usize {
        let offset = self.extent.next_multiple_of(ALIGNMENT);
        self.extent = offset + bytes;
        self.slots.push(Slot::at(offset, pool));
        self.slots.len() - 1
    }
}
