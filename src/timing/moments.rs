//! What happens when. Few moments differ, so what shares one mostly lies in one list, and only the lists are sorted.
//!
//! In which order things of one moment come out is not said: nobody who reads them may care.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// Moments that are found again without a search.
const RECENT: usize = 32;
/// No moment.
const NEVER: u64 = u64::MAX;

/// Things by their moments.
#[derive(Debug)]
pub(super) struct Moments<T> {
    /// Moments with the list of what happens then; one moment may have several lists.
    lists: BinaryHeap<Reverse<(u64, u32)>>,
    things: Vec<Vec<T>>,
    /// Lists that are not in use.
    unused: Vec<u32>,
    /// The list that a moment was given last.
    recent: [(u64, u32); RECENT],
}

fn slot(at: u64) -> usize {
    // Multiples of a common duration would meet in one slot by their low bits alone.
    (at.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 59) as usize % RECENT
}

impl<T> Moments<T> {
    pub(super) fn new() -> Self {
        Self {
            lists: BinaryHeap::new(),
            things: Vec::new(),
            unused: Vec::new(),
            recent: [(NEVER, 0); RECENT],
        }
    }

    pub(super) fn enter(&mut self, at: u64, thing: T) {
        let (moment, known) = self.recent[slot(at)];
        if moment == at && at != NEVER {
            self.things[known as usize].push(thing);
            return;
        }
        let list = self.unused.pop().unwrap_or_else(|| {
            self.things.push(Vec::new());
            self.things.len() as u32 - 1
        });
        self.things[list as usize].push(thing);
        self.recent[slot(at)] = (at, list);
        self.lists.push(Reverse((at, list)));
    }

    pub(super) fn next(&self) -> Option<u64> {
        self.lists.peek().map(|&Reverse((at, _))| at)
    }

    /// Moves things of the next moment into an empty list. There may be more of the same moment.
    pub(super) fn take(&mut self, into: &mut Vec<T>) {
        if let Some(Reverse((at, list))) = self.lists.pop() {
            if self.recent[slot(at)] == (at, list) {
                self.recent[slot(at)] = (NEVER, 0);
            }
            into.append(&mut self.things[list as usize]);
            self.unused.push(list);
        }
    }
}
