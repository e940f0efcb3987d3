//! Schedule -> Schedule: a transform's passes and edges in every rank's order.
//!
//! The base order is kept; its backward side is moved back to make room for the transform's barriers ([`deepen`]); the new passes
//! are placed where an event-driven list schedule has them run ([`insert`]). Nothing here knows what a pass computes. An order that was
//! placed by time is a priority instead of a law, and `deepen` is room for so many microbatches more ([`base`]); one microbatch's passes,
//! the transform's among them, may then also repeat at a fixed interval ([`timing::blocks`]). Where ranks meet in lock step, or two flows
//! do on every rank, each side of the order is a law of its own ([`ahead`]).

mod ahead;
mod base;
mod deepen;
mod error;
mod insert;
mod limits;
mod lockstep;
mod sides;
mod stuck;

pub use error::TransformError;

use self::base::Reading;
use self::insert::Manner;
use self::sides::Sides;
use crate::cost::Costs;
use crate::graph::Graph;
use crate::ir::{Catalog, KindId, Limit, Pass, Placed, Queue, Schedule, Ticks, Transform};
use crate::timing::{self, Hops, Room, by_pass, lifespans, peaks};

/// Adds a transform's passes and edges to every rank's order.
///
/// Requires: every pass that the transform's edges name is placed; `costs` knows the kinds of `transform`.
/// Ensures: passes already placed keep their order, but for the backward side moved back by `deepen` microbatches, or slices where
/// sequences are sliced; in two flows by more, where the ranks would wait for each other.
///
/// # Errors
/// The order and the edges together deadlock, or a limit keeps a pass out for ever.
pub fn apply(
    mut schedule: Schedule,
    transform: &Transform,
    costs: &Costs,
) -> Result<Schedule, TransformError> {
    let base = schedule.catalog.kinds.len();
    let before = schedule.catalog.clone();
    extend(&mut schedule.catalog, transform);
    let sides = Sides::of(&schedule.catalog, base);
    if transform.deepen > 0 && !sides.moves_any() {
        return Err(TransformError::NothingToDeepen {
            transform: transform.name.clone(),
            at: transform.span,
        });
    }
    let origins = insert::new_origins(&mut schedule, transform, base);
    let inserting = Inserting { transform, base, origins: &origins, sides: &sides, costs };
    let placed = inserting.shortest(&mut schedule);
    // An order that deadlocks by itself also fills up every limit; the limit is not to blame then.
    schedule.orders = placed
        .map_err(|error| stuck::without_transform(&schedule, &before, costs).map_or(error, Into::into))?;
    limits::check(&schedule, &transform.limits)?;
    schedule.transforms.push(transform.name.clone());
    Ok(schedule)
}

/// For more passes than this no blocks are tried beside the order as it is: each has its idle time filled.
const MANY: usize = 1 << 18;

/// A written order is left for another one if that is shorter by more than one part in so many.
const GAIN: u64 = 20;

/// A transform on its way into a schedule.
struct Inserting<'a> {
    transform: &'a Transform,
    base: usize,
    origins: &'a [u32],
    sides: &'a Sides,
    costs: &'a Costs,
}

impl Inserting<'_> {
    /// The shortest of what the ways of reading the base order come to; of equals, the first.
    fn shortest(&self, schedule: &mut Schedule) -> Result<Vec<Vec<Placed>>, TransformError> {
        if self.meets(schedule) {
            let met =
                self.manners(schedule).into_iter().filter_map(|manner| self.insert(schedule, manner).ok());
            if let Some((orders, _)) = met.min_by_key(|&(_, end)| end) {
                return Ok(orders);
            }
        }
        let others = self.blocks(schedule);
        let sides =
            self.manners(schedule).into_iter().filter_map(|manner| self.insert(schedule, manner).ok());
        let sides: Vec<_> = sides.map(|(orders, _)| orders).collect();
        let (law, end) = match self.deepened(schedule) {
            Ok(deepened) => deepened,
            Err(error) if sides.is_empty() => return Err(error),
            Err(_) => (Vec::new(), Ticks(u64::MAX)),
        };
        if others.is_empty() && sides.is_empty() {
            return Ok(law);
        }
        // What was placed by time is filled when all transforms have been applied. A law stays as it is where little is gained.
        let fills = !schedule.by_time && schedule.transforms.is_empty();
        let laws = Some(law.clone()).filter(|law| !law.is_empty());
        let timed = laws.into_iter().chain(sides).chain(others).enumerate().map(|(index, orders)| {
            let mut filled = Schedule { orders: orders.clone(), ..schedule.clone() };
            let end = timing::retime(&mut filled, &self.transform.limits, self.costs, 0);
            (end.unwrap_or(Ticks(u64::MAX)), index, if fills { filled.orders } else { orders })
        });
        match timed.min_by_key(|&(end, index, _)| (end, index)) {
            Some((found, _, orders)) if schedule.by_time || found.0 < end.0 - end.0 / GAIN => Ok(orders),
            _ => Ok(law),
        }
    }

    /// Orders in which every microbatch does the same at a fixed interval, the transform's passes and all: for a base that was placed by
    /// time, where one microbatch's passes fit into the memory that it may have.
    fn blocks(&self, schedule: &Schedule) -> Vec<Vec<Vec<Placed>>> {
        if !schedule.by_time {
            return Vec::new();
        }
        let graph = Graph::new(&schedule.shape, &schedule.catalog);
        if graph.len() > MANY {
            return Vec::new();
        }
        let deepen = self.transform.deepen.saturating_mul(schedule.shape.visits());
        let held = |class| peaks(&schedule.catalog, &schedule.orders, class).into_iter().max().unwrap_or(0);
        let everywhere = |most| vec![most; schedule.orders.len()];
        let longer = lifespans(&schedule.catalog).into_iter();
        let mut room: Vec<Room> = longer
            .map(|class| Room { class, most: everywhere(held(class).saturating_add(deepen)) })
            .collect();
        for limit in &self.transform.limits {
            if let Limit::Class { class, most, .. } = *limit {
                room.push(Room { class, most: everywhere(most) });
            }
        }
        let placed = by_pass(&graph, &schedule.orders);
        let place = |pass: Pass| match pass.kind.index().checked_sub(self.base) {
            Some(new) => Some(Placed { pass, origin: self.origins[new], overlaps: false }),
            None => placed[graph.index(pass)],
        };
        let row = |passes: Vec<Pass>| passes.into_iter().filter_map(place).collect();
        let blocks = timing::blocks(&graph, self.costs, &room, Hops::Short).into_iter();
        blocks.map(|block| block.orders(&graph).into_iter().map(row).collect()).collect()
    }

    /// Ways to read the base order beside the one with a fixed depth: where ranks meet in lock step, and where microbatches come from
    /// both ends, so that one law for a whole rank may keep it waiting.
    fn manners(&self, schedule: &Schedule) -> Vec<Manner> {
        if schedule.orders.iter().flatten().any(|placed| placed.overlaps) {
            return Vec::new();
        }
        let sides = Reading::Sides(self.depth(schedule));
        let with = |reading, polite| Manner { reading, polite };
        if self.meets(schedule) {
            let reading = if schedule.by_time { Reading::Loose } else { sides };
            vec![with(reading, true), with(reading, false)]
        } else if !schedule.by_time && schedule.shape.flows > 1 {
            vec![with(sides, false)]
        } else {
            Vec::new()
        }
    }

    /// Whether all ranks meet for some pass.
    fn meets(&self, schedule: &Schedule) -> bool {
        schedule.catalog.kinds[self.base..].iter().any(|kind| kind.queue == Queue::Lockstep)
    }

    /// Passes of the forward side by which the backward side falls back.
    fn depth(&self, schedule: &Schedule) -> usize {
        self.transform.deepen as usize * schedule.shape.visits() as usize
    }

    /// The base order with its backward side moved back by a fixed depth.
    fn deepened(&self, schedule: &mut Schedule) -> Result<insert::Inserted, TransformError> {
        let given = std::mem::take(&mut schedule.orders);
        let longest = given.iter().map(Vec::len).max().unwrap_or(0);
        let mut by = if schedule.by_time { 0 } else { self.depth(schedule) };
        loop {
            schedule.orders = given.iter().map(|order| deepen::deepen(order, self.sides, by)).collect();
            let reading = if schedule.by_time { Reading::Loose } else { Reading::Law };
            match self.insert(schedule, Manner { reading, polite: false }) {
                // Two flows may come to the same pass at different depths; behind all forwards every backward side fits.
                Err(_) if schedule.shape.flows > 1 && by > 0 && by < longest => by *= 2,
                inserted => return inserted,
            }
        }
    }

    fn insert(&self, schedule: &Schedule, manner: Manner) -> Result<insert::Inserted, TransformError> {
        let from = (self.base, self.origins);
        insert::insert(schedule, self.transform, from, (self.sides, manner), self.costs)
    }
}

/// The catalog with a transform's kinds, collectives and edges.
pub fn extend(catalog: &mut Catalog, transform: &Transform) {
    catalog.kinds.extend(transform.kinds.iter().cloned());
    catalog.collectives.extend(transform.collectives.iter().cloned());
    for (kind, need) in &transform.edges {
        catalog.kinds[KindId::index(*kind)].needs.push(need.clone());
    }
}
