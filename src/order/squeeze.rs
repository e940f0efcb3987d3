//! Passes with slots -> the same passes, each as early as it can be: what a block leaves idle at both ends is squeezed out.
//!
//! Slot by slot every pass goes into the first idle slots of its rank after what it needs, and delays none of those before it (serial
//! schedule generation, Kolisch 1996). One that makes a buffer comes no earlier than the rank has room for it from then on.

#![allow(
    clippy::cast_possible_wrap,
    clippy::cast_sign_loss,
    reason = "no pass is squeezed before slot 0, and blocks bound slots far below 2^63"
)]

use std::collections::BTreeMap;

use super::block::width;
use crate::cost::Costs;
use crate::graph::{Event, Graph, Progress};
use crate::ir::{ClassId, Pass, Placed, Ticks};
use crate::timing::Room;

/// A pass and its slot.
pub(super) type Slotted = (i64, Placed);

/// Every rank's order after squeezing; `None` where a pass comes before what it needs.
pub(super) fn squeeze(graph: &Graph<'_>, ranks: &[Vec<Slotted>], room: &[Room]) -> Option<Vec<Vec<Placed>>> {
    let all = ranks.iter().enumerate().flat_map(|(rank, passes)| passes.iter().map(move |&one| (rank, one)));
    let mut all: Vec<(usize, Slotted)> = all.collect();
    all.sort_by_key(|&(rank, (slot, _))| (slot, rank));
    let costs = Costs::free(graph.catalog);
    let mut progress = Progress::new(graph);
    let mut ready = vec![None; graph.len()];
    for &(_, (_, placed)) in &all {
        if graph.needs_at(placed.pass.kind, placed.pass.site, placed.pass.microbatch) == 0 {
            ready[graph.index(placed.pass)] = Some(0);
        }
    }
    let mut lanes: Vec<Lane> = (0..ranks.len()).map(|rank| Lane::new(rank, room)).collect();
    let mut squeezed: Vec<Vec<Slotted>> =
        ranks.iter().map(|passes| Vec::with_capacity(passes.len())).collect();
    let mut events = Vec::new();
    for (rank, (_, placed)) in all {
        let from = ready[graph.index(placed.pass)]?;
        let start = lanes[rank].take(graph, placed.pass, from);
        squeezed[rank].push((start, placed));
        let end = start + width(graph.catalog, placed.pass.kind);
        progress.complete(graph, &costs, placed.pass, Ticks(end as u64), &mut events);
        for event in events.drain(..) {
            if let Event::Ready { pass, at } = event {
                ready[graph.index(pass)] = Some(at.0 as i64);
            }
        }
    }
    let order = |mut passes: Vec<Slotted>| {
        passes.sort_by_key(|&(slot, _)| slot);
        passes.into_iter().map(|(_, placed)| placed).collect()
    };
    Some(squeezed.into_iter().map(order).collect())
}

/// One rank's slots.
struct Lane {
    /// Where nothing is placed: first slot, and the slot after the last. What comes after all passes is the last gap.
    gaps: BTreeMap<i64, i64>,
    held: Vec<Held>,
}

/// How much of a class the rank holds.
struct Held {
    class: ClassId,
    most: i64,
    /// By slot: buffers made, less those freed.
    changes: BTreeMap<i64, i64>,
    live: i64,
}

impl Lane {
    fn new(rank: usize, room: &[Room]) -> Self {
        let held = |limit: &Room| {
            let most = i64::from(limit.most[rank]);
            Held { class: limit.class, most, changes: BTreeMap::new(), live: 0 }
        };
        Self { gaps: BTreeMap::from([(0, i64::MAX)]), held: room.iter().map(held).collect() }
    }

    /// Puts a pass into the first gap that it fits in.
    fn take(&mut self, graph: &Graph<'_>, pass: Pass, ready: i64) -> i64 {
        let kind = graph.catalog.kind(pass.kind);
        let length = width(graph.catalog, pass.kind);
        let makers = self.held.iter().filter(|held| kind.makes.contains(&held.class));
        let from = makers.map(Held::room_from).max().unwrap_or(0).max(ready);
        let before = self.gaps.range(..=from).next_back();
        let later = self.gaps.range(from + 1..);
        let found = before.into_iter().chain(later).find(|&(&first, &end)| first.max(from) + length <= end);
        let (first, end) = found.map(|(&first, &end)| (first, end)).expect("the last gap never ends");
        let start = first.max(from);
        self.gaps.remove(&first);
        if first < start {
            self.gaps.insert(first, start);
        }
        if start + length < end {
            self.gaps.insert(start + length, end);
        }
        for held in &mut self.held {
            if kind.makes.contains(&held.class) {
                held.change(start, 1);
            }
            if kind.frees.contains(&held.class) {
                held.change(start + length, -1);
            }
        }
        start
    }
}

impl Held {
    fn change(&mut self, slot: i64, by: i64) {
        *self.changes.entry(slot).or_insert(0) += by;
        self.live += by;
    }

    /// The first slot from which on there is always room for one more.
    fn room_from(&self) -> i64 {
        let mut live = self.live;
        for (&slot, &change) in self.changes.iter().rev() {
            if live >= self.most {
                // Full from here on: room comes with the change after, which was looked at before.
                return self.changes.range(slot + 1..).next().map_or(slot, |(&next, _)| next);
            }
            live -= change;
        }
        0
    }
}
