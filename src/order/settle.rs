//! Several orders for the same passes -> the shortest, once each has its idle time filled.

use crate::graph::Graph;
use crate::ir::Placed;
use crate::timing::{Room, Timing, lifespans, peaks};

/// Fills the idle time of every order and keeps the one that ends first; of equals, the first.
pub(super) fn shortest(
    timing: &Timing<'_>,
    orders: impl IntoIterator<Item = Vec<Vec<Placed>>>,
    room: &[Room],
) -> Option<Vec<Vec<Placed>>> {
    let improved = orders.into_iter().enumerate().filter_map(|(index, mut orders)| {
        let makespan = timing.improve(&mut orders, room)?;
        Some((makespan, index, orders))
    });
    let (_, _, mut orders) = improved.min_by_key(|&(makespan, index, _)| (makespan, index))?;
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
