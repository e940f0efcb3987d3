//! The slots of a rank that no pass takes, modulo the interval of its block.

use std::collections::{BTreeMap, BTreeSet};

/// Idle slots in runs. Taking some is logarithmic in the number of runs.
#[derive(Clone, Debug)]
pub(super) struct Idle {
    every: i64,
    /// A slot that is taken, so that no run goes over it; positions are counted from it. `None`: all slots are idle.
    origin: Option<i64>,
    /// The first position of each run, and the one past its last.
    runs: BTreeMap<i64, i64>,
    /// The runs of two slots and more.
    wide: BTreeSet<i64>,
}

impl Idle {
    /// What slots in ascending order, `0..every`, leave over.
    pub(super) fn new(every: i64, taken: impl Iterator<Item = i64> + Clone) -> Self {
        let origin = taken.clone().next();
        let mut idle = Self { every, origin, runs: BTreeMap::new(), wide: BTreeSet::new() };
        let mut start = 0;
        for slot in taken {
            let position = slot - origin.unwrap_or(slot);
            idle.add(start, position);
            start = position + 1;
        }
        idle.add(start, every);
        idle
    }

    fn add(&mut self, start: i64, end: i64) {
        if start < end {
            self.runs.insert(start, end);
        }
        if start + 1 < end {
            self.wide.insert(start);
        }
    }

    /// The first idle slots, modulo the interval; at most so many.
    pub(super) fn first(&self, most: usize) -> Vec<i64> {
        let origin = self.origin.unwrap_or(0);
        let runs = self.runs.iter().flat_map(|(&start, &end)| start..end);
        let mut slots: Vec<i64> = runs.take(most).map(|position| (position + origin) % self.every).collect();
        slots.sort_unstable();
        slots
    }

    /// Takes one or two idle slots in a row, the earliest from a slot on; `None` where there are none.
    pub(super) fn take(&mut self, from: i64, count: i64) -> Option<i64> {
        // Where everything is idle, what is taken now begins at position 0.
        let origin = *self.origin.get_or_insert(from);
        let position = (from - origin).rem_euclid(self.every);
        let found = self.earliest(position, count).or_else(|| self.earliest(0, count))?;
        let start = self.runs.range(..=found).next_back().map(|(&start, _)| start)?;
        let end = self.runs.remove(&start)?;
        self.wide.remove(&start);
        self.add(start, found);
        self.add(found + count, end);
        Some(from + (found - position).rem_euclid(self.every))
    }

    /// The first position from one on where so many slots in a row are idle.
    fn earliest(&self, position: i64, count: i64) -> Option<i64> {
        let around = self.runs.range(..=position).next_back();
        if around.is_some_and(|(_, &end)| end - position >= count) {
            return Some(position);
        }
        if count == 1 {
            self.runs.range(position + 1..).next().map(|(&start, _)| start)
        } else {
            self.wide.range(position + 1..).next().copied()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Idle;

    #[test]
    fn slots_are_taken_from_the_earliest_on_and_around_the_end() {
        let mut idle = Idle::new(6, [1, 3].into_iter());
        assert_eq!(idle.first(9), [0, 2, 4, 5]);
        assert_eq!(idle.take(14, 2), Some(16));
        assert_eq!(idle.take(15, 2), None);
        assert_eq!(idle.take(-3, 1), Some(0));
        assert_eq!(idle.take(6, 1), Some(8));
        assert_eq!(idle.take(6, 1), None);
    }

    #[test]
    fn two_slots_in_a_row_may_lie_across_the_end_of_the_interval() {
        let mut idle = Idle::new(4, [1, 2].into_iter());
        assert_eq!(idle.take(1, 2), Some(3));
        assert_eq!(idle.take(0, 1), None);
        let mut all = Idle::new(3, std::iter::empty());
        assert_eq!((all.take(5, 2), all.take(5, 1), all.take(0, 1)), (Some(5), Some(7), None));
        assert_eq!(Idle::new(1, std::iter::empty()).take(0, 2), None);
    }
}
