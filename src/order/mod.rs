//! Program -> Schedule: each rank's order of passes, base schedule only.
//!
//! In: streams and a pattern for each rank. Out: every pass of every stage and microbatch exactly once, on its rank, in the
//! order that the pattern says. Whether the ranks' orders fit together is found out when they are timed.

mod error;
mod pattern;

pub use error::OrderError;

use crate::ir::{Program, Rank, RankOrder, Schedule};

/// Takes every rank's passes from its streams as its pattern says.
///
/// # Errors
/// A pattern that takes passes that are not there, or leaves some over: the first of each rank.
pub fn order(program: &Program) -> Result<Schedule, Vec<OrderError>> {
    let held = program.shape.chunks_by_rank();
    let mut origins = Vec::new();
    let mut orders = Vec::with_capacity(program.ranks.len());
    let mut errors = Vec::new();
    for (index, rank) in program.ranks.iter().enumerate() {
        let RankOrder::Pattern(pattern) = &rank.order else { continue };
        match pattern::expand(program, rank, pattern, Rank::new(index), &held[index], &mut origins) {
            Ok(order) => orders.push(order),
            Err(error) => errors.push(error),
        }
    }
    if !errors.is_empty() {
        return Err(OrderError::distinct(errors));
    }
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
