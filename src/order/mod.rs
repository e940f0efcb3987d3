//! Program -> Schedule: each rank's order of passes, base schedule only.
//!
//! In: streams and a pattern for each rank, or a block. Out: every pass of every stage and microbatch exactly once, on its rank, in the
//! order that the pattern or the slots say. A block's order runs, for any number of microbatches; whether the ranks' patterns fit together
//! is found out when they are timed.

mod block;
mod error;
mod idle;
mod pattern;
mod timetable;

pub use error::OrderError;

use crate::ir::{Placed, Program, Rank, RankOrder, Schedule, Span};

/// Puts every rank's passes in order.
///
/// # Errors
/// A pattern that takes passes that are not there, or leaves some over: the first of each rank. A block whose passes meet, start before
/// what they need has ended, or find no idle slot.
pub fn order(program: &Program) -> Result<Schedule, Vec<OrderError>> {
    let mut origins = Vec::new();
    let orders = match program.ranks.first().map(|rank| &rank.order) {
        Some(RankOrder::Block(_)) => block::orders(program, &mut origins)?,
        _ => patterns(program, &mut origins)?,
    };
    Ok(Schedule {
        name: program.name.clone(),
        transforms: Vec::new(),
        shape: program.shape.clone(),
        model: program.model,
        catalog: program.catalog.clone(),
        orders,
        origins,
    })
}

/// Takes every rank's passes from its streams as its pattern says.
fn patterns(program: &Program, origins: &mut Vec<Span>) -> Result<Vec<Vec<Placed>>, Vec<OrderError>> {
    let held = program.shape.chunks_by_rank();
    let mut orders = Vec::with_capacity(program.ranks.len());
    let mut errors = Vec::new();
    for (index, rank) in program.ranks.iter().enumerate() {
        let RankOrder::Pattern(pattern) = &rank.order else { continue };
        match pattern::expand(program, rank, pattern, Rank::new(index), &held[index], origins) {
            Ok(order) => orders.push(order),
            Err(error) => errors.push(error),
        }
    }
    if errors.is_empty() { Ok(orders) } else { Err(OrderError::distinct(errors)) }
}
