//! Schedule -> Plan: messages, collectives, lanes, waits, buffers.
//!
//! In: every rank's order of passes. The orders are timed together ([`timeline`]); the moments at which passes end give one line in
//! which every pass, message and collective has its place. Out: each rank's list is that rank's share of the line. So the lists can't
//! deadlock, even if every message had to be handed over in person: the first event of the line that has not happened is the next
//! one for everybody who takes part in it.

mod buffers;
mod emit;
mod error;
mod forms;
mod rank;
mod sums;
mod timeline;
mod uses;

pub use error::LowerError;

use crate::cost::Costs;
use crate::graph::Graph;
use crate::ir::{Catalog, Header, Plan, Schedule};

/// Adds everything that the ranks need to run their orders together.
///
/// Requires: every pass of the catalog is in its rank's order exactly once, but for the steps of barriers, which are in none.
/// Ensures: the plan breaks no rule of the verifier under any channel semantics.
///
/// # Errors
/// The orders deadlock, or a plan would be too large for its ids.
pub fn lower(schedule: &Schedule, costs: &Costs) -> Result<Plan, LowerError> {
    let graph = Graph::new(&schedule.shape, &schedule.catalog);
    let mut emitter = emit::Emitter::new(&graph, schedule, costs)?;
    timeline::walk(&graph, schedule, costs, &mut emitter)?;
    let ranks = emitter.finish(schedule);
    Ok(Plan { header: header(schedule), ranks })
}

fn header(schedule: &Schedule) -> Header {
    Header {
        name: schedule.name.clone(),
        transforms: schedule.transforms.clone(),
        mode: schedule.mode,
        microbatches: schedule.shape.microbatches,
        slices: schedule.shape.slices,
        stages: schedule.shape.stages.clone(),
        model: schedule.model,
        partition: schedule.shape.partition.clone(),
        catalog: without_spans(&schedule.catalog),
        flows: schedule.shape.flows,
        groups: sums::Sums::of(schedule).groups,
    }
}

/// A plan outlives its source, so that what is read back from a file equals what was written.
fn without_spans(catalog: &Catalog) -> Catalog {
    let mut catalog = catalog.clone();
    catalog.classes.iter_mut().for_each(|class| class.span = None);
    catalog.collectives.iter_mut().for_each(|collective| collective.span = None);
    for kind in &mut catalog.kinds {
        kind.span = None;
        kind.needs.iter_mut().for_each(|need| need.span = None);
    }
    catalog
}
