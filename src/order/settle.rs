//! Several orders for the same passes -> the shortest, once each has its idle time filled.

use crate::graph::Graph;
use crate::ir::{Placed, Ticks};
use crate::timing::{Room, Timing, lifespans, peaks};

/// Fills the idle time of every order and keeps the one that ends first; of equals, the first.
pub(super) fn shortest(
    timing: &Timing<'_>,
    orders: impl IntoIterator<Item = Vec<Vec<Placed>>>,
    room: &[Room],
) -> Option<Vec<Vec<Placed>>> {
    let bound = timing.bound();
    let mut best: Option<(Ticks, Vec<Vec<Placed>>)> = None;
    for mut orders in orders {
        let Some(makespan) = timing.improve(&mut orders, room) else { continue };
        if best.as_ref().is_none_or(|&(least, _)| makespan < least) {
            best = Some((makespan, orders));
        }
        // Those that come after it could be as short at best.
        if makespan <= bound {
            break;
        }
    }
    let (_, mut orders) = best?;
    if timing.is_large() {
        timing.improve(&mut orders, room);
    }
    Some(orders)
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
