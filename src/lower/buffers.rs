//! Lifetimes -> slots of one rank's arena, as registers are assigned: the first free slot of the right size, else a new one.
//!
//! Lifetimes are intervals of the rank's list and slots of one size are alike, so that there are never more of them than are live at
//! once (but for those whose last reader is a message: they rest for one pass, so that no pass has to wait for a message to leave).

use std::collections::VecDeque;

use crate::ir::{Buffer, BufferId, Bytes, ClassId, InstrId, LaneId, Peak, Place};

/// Every slot starts at a multiple of this: a cache line, and what 16-byte accesses of a device want.
const ALIGNMENT: u64 = 64;

/// The buffers of one rank while its list is being written.
#[derive(Debug, Default)]
pub(super) struct Buffers {
    buffers: Vec<Buffer>,
    slot_of: Vec<usize>,
    slots: Vec<Slot>,
    /// Free slots by size; there are few sizes.
    pools: Vec<(u64, VecDeque<usize>)>,
    resting: Vec<usize>,
    /// By class.
    live: Vec<u32>,
    peak: Vec<u32>,
    extent: u64,
}

#[derive(Debug)]
struct Slot {
    offset: u64,
    pool: usize,
    /// The buffers that share it, one for each class and shape.
    names: Vec<BufferId>,
    writer: Option<(LaneId, InstrId)>,
    /// The last access from each lane since the slot was last written, the write included.
    accesses: Vec<(LaneId, InstrId)>,
    readers: u32,
}

impl Buffers {
    pub(super) fn new(classes: usize) -> Self {
        Self { live: vec![0; classes], peak: vec![0; classes], ..Self::default() }
    }

    /// A buffer that `readers` instructions will read.
    pub(super) fn allocate(&mut self, class: ClassId, shape: &[u64], readers: u32) -> BufferId {
        let bytes = Buffer { class, shape: shape.to_vec(), place: Place::TiedGradient }.bytes().0;
        let pool = self.pool(bytes);
        let slot = self.pools[pool].1.pop_front().unwrap_or_else(|| self.new_slot(bytes, pool));
        self.slots[slot].readers = readers;
        self.live[class.index()] += 1;
        self.peak[class.index()] = self.peak[class.index()].max(self.live[class.index()]);
        let alike = |id: &&BufferId| {
            self.buffers[id.index()].class == class && self.buffers[id.index()].shape == shape
        };
        if let Some(&id) = self.slots[slot].names.iter().find(alike) {
            return id;
        }
        let place = Place::Arena(Bytes(self.slots[slot].offset));
        let id = self.push(Buffer { class, shape: shape.to_vec(), place }, slot);
        self.slots[slot].names.push(id);
        id
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
        self.live[self.buffers[id.index()].class.index()] -= 1;
        if rest {
            self.resting.push(slot);
        } else {
            self.pools[self.slots[slot].pool].1.push_back(slot);
        }
    }

    /// Ends the rest of slots that messages have read.
    pub(super) fn wake(&mut self) {
        for slot in self.resting.drain(..) {
            self.pools[self.slots[slot].pool].1.push_back(slot);
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

    /// The gradient of a tied embedding: beside the arena, never freed.
    pub(super) fn tied_gradient(&mut self, class: ClassId, shape: Vec<u64>) -> BufferId {
        let slot =
            Slot { offset: 0, pool: 0, names: Vec::new(), writer: None, accesses: Vec::new(), readers: 0 };
        self.slots.push(slot);
        self.push(Buffer { class, shape, place: Place::TiedGradient }, self.slots.len() - 1)
    }

    /// The table and its peak.
    pub(super) fn finish(self) -> (Vec<Buffer>, Peak) {
        (self.buffers, Peak { bytes: Bytes(self.extent), live: self.peak })
    }

    fn push(&mut self, buffer: Buffer, slot: usize) -> BufferId {
        self.buffers.push(buffer);
        self.slot_of.push(slot);
        BufferId::new(self.buffers.len() - 1)
    }

    fn pool(&mut self, bytes: u64) -> usize {
        self.pools.iter().position(|(size, _)| *size == bytes).unwrap_or_else(|| {
            self.pools.push((bytes, VecDeque::new()));
            self.pools.len() - 1
        })
    }

    fn new_slot(&mut self, bytes: u64, pool: usize) -> usize {
        let offset = self.extent.next_multiple_of(ALIGNMENT);
        self.extent = offset + bytes;
        let (names, accesses) = (Vec::new(), Vec::new());
        self.slots.push(Slot { offset, pool, names, writer: None, accesses, readers: 0 });
        self.slots.len() - 1
    }
}
