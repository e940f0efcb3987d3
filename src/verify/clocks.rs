//! What has ended before what, on one rank: a vector clock for each instruction, over the rank's lanes.
//!
//! Row i says, for each lane, how many of its instructions have ended when instruction i has. An instruction ends after
//! the one before it on its lane and after all that it waits for; nothing else orders two instructions of a rank. The two passes of
//! a pair start together: neither has ended when the other starts, but the second only counts as ended when both have.

use crate::ir::{InstrId, RankPlan};

/// The clocks of one rank; memory is kept from one rank to the next.
#[derive(Debug, Default)]
pub(super) struct Clocks {
    lanes: usize,
    rows: Vec<u32>,
    /// The lane of each instruction and its position there, from 1.
    places: Vec<(u32, u32)>,
    /// The last instruction so far of each lane.
    last: Vec<Option<u32>>,
    /// The second of each pair with the first, ascending.
    pairs: Vec<(u32, u32)>,
}

impl Clocks {
    /// Computes the clocks of a rank whose structure is sound.
    pub(super) fn fill(&mut self, plan: &RankPlan) {
        let lanes = plan.lanes.len();
        self.lanes = lanes;
        self.rows.clear();
        self.rows.resize(plan.instrs.len() * lanes, 0);
        self.places.clear();
        self.pairs.clear();
        self.last.clear();
        self.last.resize(lanes, None);
        for (position, instr) in plan.instrs.iter().enumerate() {
            let lane = instr.lane.index();
            let (done, rest) = self.rows.split_at_mut(position * lanes);
            let row = &mut rest[..lanes];
            if let Some(before) = self.last[lane] {
                if plan.instrs[before as usize].overlaps {
                    self.pairs.push((InstrId::new(position).0, before));
                }
                row.copy_from_slice(&done[before as usize * lanes..][..lanes]);
            }
            for &wait in plan.operands(instr).waits {
                let other = &done[wait as usize * lanes..][..lanes];
                for (count, &theirs) in row.iter_mut().zip(other) {
                    *count = (*count).max(theirs);
                }
            }
            // Of its own lane exactly those before it have ended, and now it has: a wait cannot know of more.
            row[lane] = self.last[lane].map_or(0, |before| self.places[before as usize].1) + 1;
            self.places.push((instr.lane.0, row[lane]));
            self.last[lane] = Some(InstrId::new(position).0);
        }
    }

    /// Whether `before` has ended when `after` starts; they are two instructions.
    pub(super) fn ordered(&self, before: InstrId, after: InstrId) -> bool {
        let (lane, position) = self.places[before.index()];
        let overlapped = || {
            let pair = self.pairs.binary_search_by_key(&after.0, |&(second, _)| second);
            pair.is_ok_and(|pair| self.pairs[pair].1 == before.0)
        };
        if !self.pairs.is_empty() && overlapped() {
            return false;
        }
        before < after && self.rows[after.index() * self.lanes + lane as usize] >= position
    }

    /// The last instruction of each lane that has any.
    pub(super) fn ends(&self) -> impl Iterator<Item = InstrId> + '_ {
        self.last.iter().flatten().copied().map(InstrId)
    }
}
