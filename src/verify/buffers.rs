//! Rule 6: memory. A buffer is live from the instruction that writes it until the one that frees it has ended.
//!
//! The arena is cut at every end of a buffer into pieces, and each piece knows the buffer that was written there last. A
//! writer must come after the buffer that it replaces was freed, along waits that are in the plan; that buffer's free came
//! after all who used it. So whoever touched the piece before has ended.

use super::clocks::Clocks;
use super::error::Rule;
use super::facts::Facts;
use super::report::{Place, Report};
use crate::ir::{BufferId, InstrId, Place as Slot, Rank, RankPlan};

/// Pieces that a rank's writes may cover, for each instruction and buffer; plans of other minds may share less tidily.
const PIECES: usize = 256;

/// No buffer, and no entry in the list of readers. A table of these has an entry for each piece or buffer of a plan with
/// 10^7 instructions: 4 bytes each, where an `Option` takes 8. No id is as large: `streams` refuses ranks with 2^31 buffers
/// or 2^32 operands.
const NOBODY: u32 = u32::MAX;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Never,
    Live,
    FreedBy(InstrId),
}

#[derive(Clone, Copy, Debug)]
struct Held {
    state: State,
    writer: InstrId,
    /// The last entry in the list of those who read it since.
    reader: u32,
    /// The pieces that it covers.
    pieces: (u32, u32),
}

/// What each buffer and each piece of the arena is in; memory is kept from one rank to the next.
#[derive(Debug, Default)]
pub(super) struct Slots {
    buffers: Vec<Held>,
    cuts: Vec<u64>,
    /// The buffer written last in each piece.
    holders: Vec<u32>,
    /// Who read, and the reader before.
    readers: Vec<(InstrId, u32)>,
}

impl Slots {
    /// Reports every use of memory that is not safe.
    pub(super) fn check(&mut self, facts: &Facts<'_>, rank: Rank, clocks: &Clocks, report: &mut Report) {
        let plan = &facts.plan.ranks[rank.index()];
        self.cut(plan);
        let mut budget = (plan.instrs.len() + plan.buffers.len()).saturating_mul(PIECES) + (1 << 20);
        for (id, instr) in plan.instrs.iter().enumerate() {
            let id = InstrId::new(id);
            let operands = plan.operands(instr);
            for buffer in operands.reads() {
                self.read(rank, id, buffer, report);
            }
            for buffer in operands.writes() {
                if !matches!(plan.buffers[buffer.index()].place, Slot::Arena(_)) {
                    continue;
                }
                let (from, to) = self.buffers[buffer.index()].pieces;
                let Some(rest) = budget.checked_sub((to - from) as usize + 1) else {
                    let problem = "buffers overlap in more ways than can be followed".to_owned();
                    return report.add(Place::Buffer(rank, buffer), || Rule::MalformedBuffer { problem });
                };
                budget = rest;
                self.write(rank, id, buffer, clocks, report);
            }
            for buffer in operands.frees() {
                self.free(rank, id, buffer, clocks, report);
            }
        }
        for (id, buffer) in self.buffers.iter().enumerate().filter(|(_, buffer)| buffer.state == State::Live)
        {
            let buffer_id = BufferId::new(id);
            report.add(Place::Instr(rank, buffer.writer), || Rule::Leak { buffer: buffer_id });
        }
    }

    /// Cuts the arena of a rank into pieces.
    fn cut(&mut self, plan: &RankPlan) {
        let range = |buffer: &crate::ir::Buffer| match buffer.place {
            Slot::Arena(offset) => (offset.0, offset.0 + buffer.bytes().0),
            Slot::TiedGradient | Slot::StageGradient(_) => (0, 0),
        };
        self.cuts.clear();
        for (from, to) in plan.buffers.iter().map(range) {
            self.cuts.extend([from, to]);
        }
        self.cuts.sort_unstable();
        self.cuts.dedup();
        self.holders.clear();
        self.holders.resize(self.cuts.len(), NOBODY);
        self.readers.clear();
        self.buffers.clear();
        for buffer in &plan.buffers {
            let (from, to) = range(buffer);
            let piece = |end: u64| {
                let before = self.cuts.partition_point(|&cut| cut < end);
                u32::try_from(before).expect("fewer than 2^31 buffers have fewer than 2^32 ends")
            };
            let pieces = (piece(from), piece(to));
            self.buffers.push(Held { state: State::Never, writer: InstrId(0), reader: NOBODY, pieces });
        }
    }

    fn read(&mut self, rank: Rank, id: InstrId, buffer: BufferId, report: &mut Report) {
        let slot = &mut self.buffers[buffer.index()];
        match slot.state {
            State::Live => {
                let entry = u32::try_from(self.readers.len()).expect("a rank has fewer than 2^32 operands");
                self.readers.push((id, slot.reader));
                slot.reader = entry;
            }
            State::FreedBy(by) => report.add_with(
                Place::Instr(rank, id),
                || Rule::UseAfterFree { buffer, by },
                || vec![(Place::Instr(rank, by), "freed here".to_owned())],
            ),
            // Reading what was never written breaks rule 2, which reports it.
            State::Never => {}
        }
    }

    fn write(&mut self, rank: Rank, id: InstrId, buffer: BufferId, clocks: &Clocks, report: &mut Report) {
        let slot = self.buffers[buffer.index()];
        if slot.pieces.0 == slot.pieces.1 {
            self.replace(rank, id, buffer, buffer, clocks, report);
        }
        let mut last = NOBODY;
        for piece in slot.pieces.0..slot.pieces.1 {
            let holder = std::mem::replace(&mut self.holders[piece as usize], buffer.0);
            if holder != NOBODY && holder != last {
                self.replace(rank, id, buffer, BufferId(holder), clocks, report);
            }
            last = holder;
        }
        let slot = &mut self.buffers[buffer.index()];
        slot.state = State::Live;
        slot.writer = id;
        slot.reader = NOBODY;
    }

    /// Judges the writing of a buffer where `old` was.
    fn replace(
        &self,
        rank: Rank,
        id: InstrId,
        buffer: BufferId,
        old: BufferId,
        clocks: &Clocks,
        report: &mut Report,
    ) {
        let slot = &self.buffers[old.index()];
        match slot.state {
            State::Never => {}
            State::Live => report.add_with(
                Place::Instr(rank, id),
                || Rule::OverwriteLive { buffer, old, writer: slot.writer },
                || vec![(Place::Instr(rank, slot.writer), "written here".to_owned())],
            ),
            State::FreedBy(by) if by != id && clocks.ordered(by, id) => {}
            State::FreedBy(by) => report.add_with(
                Place::Instr(rank, id),
                || Rule::OverwriteInFlight { buffer, old, by },
                || vec![(Place::Instr(rank, by), "may still use it".to_owned())],
            ),
        }
    }

    fn free(&mut self, rank: Rank, id: InstrId, buffer: BufferId, clocks: &Clocks, report: &mut Report) {
        let slot = &mut self.buffers[buffer.index()];
        let place = Place::Instr(rank, id);
        match slot.state {
            State::Never => return report.add(place, || Rule::FreeUndefined { buffer }),
            State::FreedBy(by) => {
                return report.add_with(
                    place,
                    || Rule::DoubleFree { buffer, by },
                    || vec![(Place::Instr(rank, by), "freed here".to_owned())],
                );
            }
            State::Live => {}
        }
        slot.state = State::FreedBy(id);
        let mut in_use = (slot.writer != id && !clocks.ordered(slot.writer, id)).then_some(slot.writer);
        let mut next = slot.reader;
        while in_use.is_none() && next != NOBODY {
            let (reader, before) = self.readers[next as usize];
            in_use = (reader != id && !clocks.ordered(reader, id)).then_some(reader);
            next = before;
        }
        if let Some(user) = in_use {
            report.add_with(
                place,
                || Rule::UnorderedFree { buffer, user },
                || vec![(Place::Instr(rank, user), "may still use it".to_owned())],
            );
        }
    }
}
