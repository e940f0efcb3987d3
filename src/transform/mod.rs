//! Schedule -> Schedule: a transform's passes and edges in every rank's order.
//!
//! The base order is kept; its backward side is moved back to make room for the transform's barriers ([`deepen`]); the new passes
//! are placed where an event-driven list schedule has them run ([`insert`]). Nothing here knows what a pass computes. An order that was
//! placed by time is a priority instead of a law, and `deepen` is room for so many microbatches more ([`base`]).

mod base;
mod deepen;
mod error;
mod insert;
mod limits;
mod lockstep;
mod sides;
mod stuck;

pub use error::TransformError;

use crate::cost::Costs;
use crate::ir::{Catalog, KindId, Schedule, Transform};

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
    let sides = sides::Sides::of(&schedule.catalog, base);
    if transform.deepen > 0 && !sides.moves_any() {
        return Err(TransformError::NothingToDeepen {
            transform: transform.name.clone(),
            at: transform.span,
        });
    }
    let per_unit = schedule.shape.visits() as usize;
    let given = std::mem::take(&mut schedule.orders);
    let longest = given.iter().map(Vec::len).max().unwrap_or(0);
    let mut by = if schedule.by_time { 0 } else { transform.deepen as usize * per_unit };
    schedule.orders = loop {
        schedule.orders = given.iter().map(|order| deepen::deepen(order, &sides, by)).collect();
        match insert::insert(&mut schedule, transform, base, &sides, costs) {
            Ok(orders) => break orders,
            // Two flows may come to the same pass at different depths; behind all forwards every backward side fits.
            Err(_) if schedule.shape.flows > 1 && by > 0 && by < longest => by *= 2,
            // An order that deadlocks by itself also fills up every limit; the limit is not to blame then.
            Err(error) => {
                return Err(stuck::without_transform(&schedule, &before, costs).map_or(error, Into::into));
            }
        }
    };
    limits::check(&schedule, &transform.limits)?;
    schedule.transforms.push(transform.name.clone());
    Ok(schedule)
}

/// The catalog with a transform's kinds, collectives and edges.
pub fn extend(catalog: &mut Catalog, transform: &Transform) {
    catalog.kinds.extend(transform.kinds.iter().cloned());
    catalog.collectives.extend(transform.collectives.iter().cloned());
    for (kind, need) in &transform.edges {
        catalog.kinds[KindId::index(*kind)].needs.push(need.clone());
    }
}
