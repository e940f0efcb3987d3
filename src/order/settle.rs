//! Several orders for the same passes -> the shortest, once each has its idle time filled.
//!
//! Long ones are filled side by side on the machine's cores, as far as it takes to see which of them can be the shortest. Which one it is
//! does not follow from how many cores there are.

use std::num::NonZeroUsize;
use std::panic::resume_unwind;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use crate::graph::Graph;
use crate::ir::Placed;
use crate::timing::{Filled, Nodes, Room, Timing, lifespans, peaks};

/// A way to make orders, if it leads to any.
pub(super) type Way<'a> = &'a (dyn Fn() -> Option<Nodes> + Sync);

/// Of long orders only those are filled backward, too, that are at most so many percent longer than the shortest once they were filled
/// forward. It seldom makes up for more.
const CLOSE: u64 = 5;

/// Fills the idle time of every order and keeps the one that ends first; of equals, the first.
pub(super) fn shortest(timing: &Timing<'_>, ways: &[Way<'_>], room: &[Room]) -> Option<Nodes> {
    let bound = timing.bound();
    let ends = |filled: &Filled| filled.makespan;
    // Those that come after one that is as short as any can be could be as short at best.
    let enough = |filled: &Filled| filled.makespan <= bound;
    if !timing.is_large() {
        let mut all = Vec::new();
        for filled in ways.iter().filter_map(|way| timing.improved(way()?, room)) {
            all.push(filled);
            if all.last().is_some_and(enough) {
                break;
            }
        }
        return all.into_iter().min_by_key(ends).map(|best| best.orders);
    }
    let forward = side_by_side(ways, |way| timing.filled(way()?, room), enough);
    let least = forward.iter().map(ends).min()?;
    let most = least.0.saturating_add(least.0 / 100 * CLOSE);
    let close: Vec<Filled> = forward.into_iter().filter(|filled| filled.makespan.0 <= most).collect();
    if least <= bound {
        return close.into_iter().min_by_key(ends).map(|best| best.orders);
    }
    let both = side_by_side(&close, |filled| timing.filled_back(filled, room), enough);
    let best = both.into_iter().min_by_key(ends)?;
    if enough(&best) {
        return Some(best.orders);
    }
    timing.filled_back(&best, room).map(|best| best.orders)
}

/// What comes of each item, in their order, worked out on as many cores as there are; nothing that comes after an item that is enough
/// has to be waited for.
fn side_by_side<T: Sync>(
    items: &[T],
    work: impl Fn(&T) -> Option<Filled> + Sync,
    enough: impl Fn(&Filled) -> bool + Sync,
) -> Vec<Filled> {
    let next = AtomicUsize::new(0);
    // The first item that is enough.
    let last = AtomicUsize::new(usize::MAX);
    let run = || {
        let mut found = Vec::new();
        loop {
            let at = next.fetch_add(1, Ordering::Relaxed);
            let Some(item) = items.get(at).filter(|_| at < last.load(Ordering::Relaxed)) else { break };
            if let Some(filled) = work(item) {
                if enough(&filled) {
                    last.fetch_min(at, Ordering::Relaxed);
                }
                found.push((at, filled));
            }
        }
        found
    };
    let cores = thread::available_parallelism().map_or(1, NonZeroUsize::get).min(items.len());
    let mut all = thread::scope(|scope| {
        let others: Vec<_> = (1..cores).map(|_| scope.spawn(run)).collect();
        let mut all = run();
        all.extend(
            others.into_iter().flat_map(|other| other.join().unwrap_or_else(|panic| resume_unwind(panic))),
        );
        all
    });
    all.sort_unstable_by_key(|&(at, _)| at);
    all.into_iter().map(|(_, filled)| filled).collect()
}

/// Room for what orders hold: on every rank as much as on the fullest one.
///
/// Of the classes that begin a lifespan, as activations do. What lives inside such a lifespan (`delta`, from B to W) may vary.
pub(super) fn as_held(graph: &Graph<'_>, orders: &[Vec<Placed>]) -> Vec<Room> {
    let room = |class| {
        let most = peaks(graph.catalog, orders, class).into_iter().max().unwrap_or(0);
        Room { class, most: vec![most; orders.len()] }
    };
    lifespans(graph.catalog).into_iter().map(room).collect()
}
