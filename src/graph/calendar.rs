//! What happens when: an event queue in which equal moments keep the order in which they were entered.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;

use crate::ir::Ticks;

/// Events by their moments.
#[derive(Debug)]
pub struct Calendar<T> {
    entries: BinaryHeap<Reverse<Entry<T>>>,
    entered: u64,
}

/// Ordered by moment, then by entry: no two are equal, and the event itself is never compared.
#[derive(Debug)]
struct Entry<T> {
    at: Ticks,
    number: u64,
    event: T,
}

impl<T> Default for Calendar<T> {
    fn default() -> Self {
        Self { entries: BinaryHeap::new(), entered: 0 }
    }
}

impl<T> Calendar<T> {
    /// Enters an event.
    pub fn enter(&mut self, at: Ticks, event: T) {
        self.entries.push(Reverse(Entry { at, number: self.entered, event }));
        self.entered += 1;
    }

    /// The moment of the next event.
    #[must_use]
    pub fn next_moment(&self) -> Option<Ticks> {
        self.entries.peek().map(|Reverse(entry)| entry.at)
    }

    /// Takes the next event.
    pub fn take(&mut self) -> Option<(Ticks, T)> {
        self.entries.pop().map(|Reverse(entry)| (entry.at, entry.event))
    }

    /// Takes the next event if it happens at a moment.
    pub fn take_at(&mut self, at: Ticks) -> Option<T> {
        if self.next_moment() == Some(at) { self.take().map(|(_, event)| event) } else { None }
    }
}

impl<T> Ord for Entry<T> {
    fn cmp(&self, other: &Self) -> Ordering {
        (self.at, self.number).cmp(&(other.at, other.number))
    }
}

impl<T> PartialOrd for Entry<T> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<T> PartialEq for Entry<T> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl<T> Eq for Entry<T> {}
