//! Schedule -> Schedule: idle time filled, transforms and all.

use super::{Hops, Room, Timing, blocks, by_pass, peaks};
use crate::cost::Costs;
use crate::graph::Graph;
use crate::ir::{
    At, Catalog, ClassId, Flow, KindId, Limit, Pass, Placed, Queue, Relation, Schedule, Source, Ticks, Where,
};

/// Moves passes into idle time where that makes the schedule shorter; leaves it as it is where it does not.
///
/// A rank never holds more buffers of a class than before, but for those that begin a lifespan at a stage, as activations do: of these it
/// may hold `extra` whole microbatches more. With more room an order in which every microbatch does the same at a fixed interval is tried,
/// too. A limit of one pass ahead of another holds as in `limits`. Schedules with passes in lock step are left alone: one order for all
/// ranks is what keeps them from waiting for each other; and those with overlapped pairs, which say themselves what should meet.
/// Returns the makespan, where it looked at all.
pub fn retime(schedule: &mut Schedule, limits: &[Limit], costs: &Costs, extra: u32) -> Option<Ticks> {
    let paired = schedule.orders.iter().flatten().any(|placed| placed.overlaps);
    if paired || schedule.catalog.kinds.iter().any(|kind| kind.queue == Queue::Lockstep) {
        return None;
    }
    let graph = Graph::new(&schedule.shape, &schedule.catalog);
    let mut timing = Timing::new(&graph, costs);
    let mut edges = Vec::new();
    for limit in limits {
        if let Limit::Ahead { pass, of, most, .. } = *limit {
            for flow in graph.flows() {
                keep_apart(&graph, &schedule.orders, [pass, of], most as usize, flow, &mut edges);
            }
        }
    }
    timing.add_edges(&edges);
    let room = as_held(&graph, &schedule.orders, extra);
    let before = timing.makespan(&schedule.orders)?;
    let mut tried = vec![schedule.orders.clone()];
    if extra > 0 && edges.is_empty() {
        tried.extend(repeated(&graph, &schedule.orders, &room, costs));
    }
    let improved =
        tried.into_iter().filter_map(|mut orders| Some((timing.improve(&mut orders, &room)?, orders)));
    match improved.min_by_key(|&(after, _)| after) {
        Some((after, orders)) if after < before => {
            schedule.orders = orders;
            Some(after)
        }
        _ => Some(before),
    }
}

/// The passes of `orders` in orders that repeat one microbatch's passes, where those fit into the room.
fn repeated(
    graph: &Graph<'_>,
    orders: &[Vec<Placed>],
    room: &[Room],
    costs: &Costs,
) -> Vec<Vec<Vec<Placed>>> {
    let placed = by_pass(graph, orders);
    let order = |passes: Vec<Pass>| passes.into_iter().filter_map(|pass| placed[graph.index(pass)]).collect();
    let blocks = [Hops::Short, Hops::Long].into_iter().flat_map(|hops| blocks(graph, costs, room, hops));
    blocks.map(|block| block.orders(graph).into_iter().map(order).collect()).collect()
}

/// The classes that passes at a stage make without state that was there before.
///
/// What lives inside such a lifespan (`delta`, from B to W) comes and goes with it.
#[must_use]
pub fn lifespans(catalog: &Catalog) -> Vec<ClassId> {
    let begins = |kind: &&crate::ir::Kind| {
        let here = |source| matches!(source, Source::Pass { at: Relation::Here, .. });
        kind.at == At::Stage && !kind.needs.iter().any(|need| here(need.from))
    };
    let makers = catalog.kinds.iter().filter(begins);
    makers.flat_map(|kind| kind.makes.iter().copied()).collect()
}

/// Room for what each rank holds, and for `extra` microbatches more of what begins a lifespan.
fn as_held(graph: &Graph<'_>, orders: &[Vec<Placed>], extra: u32) -> Vec<Room> {
    let more = extra.saturating_mul(graph.shape.visits()).saturating_mul(graph.shape.slices);
    let longer = lifespans(graph.catalog);
    let everywhere = graph.catalog.kinds.iter().filter(|kind| kind.at == At::EveryRank);
    let classes = longer.iter().map(|&class| (class, more));
    let classes = classes.chain(everywhere.flat_map(|kind| kind.makes.iter().map(|&class| (class, 0))));
    let room = |(class, more): (ClassId, u32)| {
        let held = peaks(graph.catalog, orders, class).into_iter();
        Room { class, most: held.map(|held| held.saturating_add(more)).collect() }
    };
    classes.map(room).collect()
}

/// The n-th pass of a kind waits for the one `most` before the n-th of another, on every rank that runs either, in each flow.
fn keep_apart(
    graph: &Graph<'_>,
    orders: &[Vec<Placed>],
    [pass, of]: [(KindId, Where); 2],
    most: usize,
    flow: Flow,
    edges: &mut Vec<(Pass, Pass)>,
) {
    let of_kind = |order: &Vec<Placed>, (kind, on): (KindId, Where)| -> Vec<Pass> {
        let passes = order.iter().map(|placed| placed.pass);
        let own = |pass: &Pass| graph.shape.flow_of(pass.microbatch) == flow;
        passes.filter(|pass| pass.kind == kind && own(pass) && graph.matches(on, pass.site)).collect()
    };
    // A pass at a stage counts on all ranks, one at every rank on its own.
    let all = |counted: (KindId, Where)| -> Vec<Vec<Pass>> {
        let by_rank: Vec<Vec<Pass>> = orders.iter().map(|order| of_kind(order, counted)).collect();
        match graph.catalog.kind(counted.0).at {
            At::EveryRank => by_rank,
            At::Stage => {
                let last = counted.1 == Where::Last;
                let stage = if last { graph.shape.last_of(flow) } else { graph.shape.first_of(flow) };
                let one = by_rank[graph.shape.rank_of(stage).index()].clone();
                vec![one; orders.len()]
            }
        }
    };
    for (ahead, behind) in all(pass).into_iter().zip(all(of)) {
        edges.extend(behind.into_iter().zip(ahead.into_iter().skip(most)));
    }
}
