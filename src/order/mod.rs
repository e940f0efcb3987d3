//! Program -> Schedule: each rank's order of passes, base schedule only.
//!
//! In: streams, and a pattern, a block or a priority list for each rank. Out: every pass of every stage and microbatch exactly once,
//! on its rank. A pattern's order is what it says; whether the ranks' orders fit together is found out when they are timed. Blocks
//! and lists say less: they are placed by time, with the idle time filled that the memory allows to fill.

mod block;
mod error;
mod greedy;
mod idle;
mod pattern;
mod settle;
mod squeeze;
mod timetable;

pub use error::OrderError;

use std::sync::OnceLock;
use std::thread;

use crate::cost::Costs;
use crate::graph::Graph;
use crate::ir::{Mode, Pass, Placed, Program, Rank, RankOrder, Schedule, Span};
use crate::timing::{self, Block, Hops, Nodes, Room, Timing};

/// Puts every rank's passes in order.
///
/// # Errors
/// A pattern that takes passes that are not there or leaves some over (the first of each rank). A block whose passes meet, start before
/// what they need has ended, or find no idle slot. A limit that no order can meet.
pub fn order(program: &Program, costs: &Costs) -> Result<Schedule, Vec<OrderError>> {
    let mut origins = Vec::new();
    let form = program.ranks.first().map(|rank| &rank.order);
    let orders = match form {
        Some(RankOrder::Greedy(_)) => greedy(program, costs, &mut origins)?,
        Some(RankOrder::Block(_)) => block(program, costs, &mut origins)?,
        Some(RankOrder::Pattern(_)) | None => patterns(program, &mut origins)?,
    };
    let mut schedule = Schedule {
        name: program.name.clone(),
        transforms: Vec::new(),
        mode: Mode::default(),
        shape: program.shape.clone(),
        model: program.model,
        catalog: program.catalog.clone(),
        by_time: !matches!(form, Some(RankOrder::Pattern(_)) | None),
        orders,
        origins,
    };
    if program.retime {
        timing::retime(&mut schedule, &[], costs, 0);
    }
    Ok(schedule)
}

/// Takes every rank's passes from its streams as its pattern says.
fn patterns(program: &Program, origins: &mut Vec<Span>) -> Result<Vec<Vec<Placed>>, Vec<OrderError>> {
    let held = program.shape.chunks_by_rank();
    let graph = Graph::new(&program.shape, &program.catalog);
    let mut orders = Vec::with_capacity(program.ranks.len());
    let mut errors = Vec::new();
    for (index, rank) in program.ranks.iter().enumerate() {
        let RankOrder::Pattern(pattern) = &rank.order else { continue };
        match pattern::expand(program, &graph, rank, pattern, Rank::new(index), &held[index], origins) {
            Ok(order) => orders.push(order),
            Err(error) => errors.push(error),
        }
    }
    if errors.is_empty() { Ok(orders) } else { Err(OrderError::distinct(errors)) }
}

/// The list's own order and the blocks that fit under its caps, whichever is shortest once idle time is filled.
fn greedy(
    program: &Program,
    costs: &Costs,
    origins: &mut Vec<Span>,
) -> Result<Vec<Vec<Placed>>, Vec<OrderError>> {
    let graph = Graph::new(&program.shape, &program.catalog);
    let timing = Timing::new(&graph, costs);
    let room = greedy::room(program);
    let repeated = Repeated::new(&graph, costs, &room);
    let listed = thread::scope(|scope| {
        // Both take their time, and neither needs the other.
        if timing.is_large() {
            scope.spawn(|| repeated.blocks());
        }
        greedy::orders(program, &graph, &timing, origins)
    });
    let listed = listed.map_err(|error| vec![error])?;
    Ok(settled(&timing, listed, || None, &repeated, &room))
}

/// A block's order by its slots, or a shorter one in which no rank holds more than the fullest one does by the slots.
fn block(
    program: &Program,
    costs: &Costs,
    origins: &mut Vec<Span>,
) -> Result<Vec<Vec<Placed>>, Vec<OrderError>> {
    let graph = Graph::new(&program.shape, &program.catalog);
    let timing = Timing::new(&graph, costs);
    let slotted = block::orders(program, origins)?;
    let plain: Vec<Vec<Placed>> =
        slotted.iter().map(|passes| passes.iter().map(|&(_, placed)| placed).collect()).collect();
    let room = settle::as_held(&graph, &plain);
    let squeezed = || squeeze::squeeze(&graph, &slotted, &room);
    Ok(settled(&timing, plain, squeezed, &Repeated::new(&graph, costs, &room), &room))
}

/// One microbatch's passes, repeated as often as there are microbatches; looked for once, by whoever asks first.
struct Repeated<'a> {
    graph: &'a Graph<'a>,
    costs: &'a Costs,
    room: &'a [Room],
    found: OnceLock<Vec<Block>>,
}

impl<'a> Repeated<'a> {
    fn new(graph: &'a Graph<'a>, costs: &'a Costs, room: &'a [Room]) -> Self {
        Self { graph, costs, room, found: OnceLock::new() }
    }

    fn blocks(&self) -> &[Block] {
        self.found.get_or_init(|| timing::blocks(self.graph, self.costs, self.room, Hops::Short))
    }

    /// Every rank's order by one of the blocks.
    fn orders(&self, at: usize, timing: &Timing<'_>) -> Option<Nodes> {
        let row = |passes: Vec<Pass>| passes.into_iter().map(|pass| timing.node(pass)).collect();
        self.blocks().get(at).map(|block| block.orders(self.graph).into_iter().map(row).collect())
    }
}

/// An order with its idle time filled, or a shorter one in as much memory.
fn settled(
    timing: &Timing<'_>,
    given: Vec<Vec<Placed>>,
    other: impl Fn() -> Option<Vec<Vec<Placed>>> + Sync,
    repeated: &Repeated<'_>,
    room: &[Room],
) -> Vec<Vec<Placed>> {
    let first = || Some(timing.nodes(&given));
    let second = || other().map(|orders| timing.nodes(&orders));
    let [third, fourth] = [0, 1].map(|at| move || repeated.orders(at, timing));
    match settle::shortest(timing, &[&first, &second, &third, &fourth], room) {
        Some(orders) => timing.placed(&orders, &given),
        None => given,
    }
}

/// The position of a span among the origins. Few spans are in use at a time, so the last ones suffice to find it again.
fn origin(origins: &mut Vec<Span>, at: Span) -> u32 {
    let recent = origins.len().saturating_sub(16);
    let found = origins[recent..].iter().position(|&origin| origin == at).map(|found| recent + found);
    let index = found.unwrap_or_else(|| {
        origins.push(at);
        origins.len() - 1
    });
    index as u32
}
