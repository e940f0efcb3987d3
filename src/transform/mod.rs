//! Schedule -> Schedule: a transform's passes and edges in every rank's order.
//!
//! The base order is kept; its backward side is moved back to make room for the transform's barriers ([`deepen`]); the new passes
//! are placed where an event-driven list schedule has them run ([`insert`]). Nothing here knows what a pass computes. An order that was
//! placed by time is a priority instead of a law, and `deepen` is room for so many microbatches more ([`base`]).

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
use crate::ir::{Catalog, KindId, Placed, Queue, Schedule, Transform};

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
    let placed = match inserting.meeting(&schedule) {
        Some(orders) => Ok(orders),
        None => inserting.deepened(&mut schedule),
    };
    // An order that deadlocks by itself also fills up every limit; the limit is not to blame then.
    schedule.orders = placed
        .map_err(|error| stuck::without_transform(&schedule, &before, costs).map_or(error, Into::into))?;
    limits::check(&schedule, &transform.limits)?;
    schedule.transforms.push(transform.name.clone());
    Ok(schedule)
}

/// A transform on its way into a schedule.
struct Inserting<'a> {
    transform: &'a Transform,
    base: usize,
    origins: &'a [u32],
    sides: &'a Sides,
    costs: &'a Costs,
}

impl Inserting<'_> {
    /// The base order with its backward side moved back by a fixed depth.
    fn deepened(&self, schedule: &mut Schedule) -> Result<Vec<Vec<Placed>>, TransformError> {
        let given = std::mem::take(&mut schedule.orders);
        let longest = given.iter().map(Vec::len).max().unwrap_or(0);
        let depth = self.transform.deepen as usize * schedule.shape.visits() as usize;
        let mut by = if schedule.by_time { 0 } else { depth };
        loop {
            schedule.orders = given.iter().map(|order| deepen::deepen(order, self.sides, by)).collect();
            match self.insert(schedule, Manner { reading: Reading::Law, polite: false }) {
                Ok((orders, _)) => return Ok(orders),
                // Two flows may come to the same pass at different depths; behind all forwards every backward side fits.
                Err(_) if schedule.shape.flows > 1 && by > 0 && by < longest => by *= 2,
                Err(error) => return Err(error),
            }
        }
    }

    /// Where ranks meet in lock step: the shortest of a few manners in which they may go about it. `None` where none works.
    fn meeting(&self, schedule: &Schedule) -> Option<Vec<Vec<Placed>>> {
        let meets = schedule.catalog.kinds[self.base..].iter().any(|kind| kind.queue == Queue::Lockstep);
        let paired = schedule.orders.iter().flatten().any(|placed| placed.overlaps);
        if !meets || paired {
            return None;
        }
        let depth = self.transform.deepen as usize * schedule.shape.visits() as usize;
        let reading = if schedule.by_time { Reading::Law } else { Reading::Sides(depth) };
        let manners = [true, false].map(|polite| Manner { reading, polite });
        let placed = manners.into_iter().filter_map(|manner| self.insert(schedule, manner).ok());
        placed.min_by_key(|&(_, end)| end).map(|(orders, _)| orders)
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
