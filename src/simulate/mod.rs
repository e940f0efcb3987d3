//! Plan -> [`Timeline`]: when every instruction starts and ends, if passes, messages and collectives take what [`Costs`] say.
//!
//! The plan is run as `ir/plan.rs` defines it: the lanes of a rank are queues side by side; an instruction starts when the one before it
//! on its lane and all that it waits for have ended. The k-th send on a channel meets the k-th receive. A message arrives so long
//! after its send has started as [`Costs::message`] says; the next one the same way follows when its link is free of it, which is sooner
//! ([`Costs::occupies`]). A collective starts when the instructions of all
//! members have started and ends on all of them one duration later. The optimizer's step takes what the costs know of it, the sum of a tied embedding's gradients
//! no time.
//!
//! Shares no code with the rooms that made the plan. Linear in the instructions: each is looked at when its lane comes to it, and once
//! more when what it waited for there has ended.

mod bounds;
mod causes;
mod error;
mod figures;
mod idle;
mod memory;
mod path;
mod queues;
mod report;
mod resident;
mod run;
mod threads;
mod timeline;

pub use bounds::{OwnerGroup, check, check_memory, groups};
pub use error::SimulateError;
pub use figures::Figures;
pub use idle::{Idle, idle};
pub use memory::{Owner, Peak, RankMemory, memory, memory_on, memory_peak, memory_peaks};
pub use path::{Link, critical_links, critical_path};
pub use report::{
    IdleReport, Known, MemoryReport, OnDevice, OwnerReport, PathPart, PathReport, REPORT_VERSION, RankReport,
    Rate, Report, Series, report_schema,
};
pub use resident::{Resident, resident};
pub use timeline::{Messages, RankTime, Timeline};

use crate::cost::Costs;
use crate::ir::{At, Rank};
use crate::verify::Verified;

/// Runs a plan under a cost model.
///
/// Requires: `costs` are bound to the plan's catalog.
/// Ensures: every instruction has ended; no moment is before what it depends on.
#[must_use]
pub fn simulate(plan: &Verified, costs: &Costs) -> Timeline {
    let queues = queues::Queues::of(plan.plan());
    let moments = match costs.threads() {
        Some(contention) => threads::run(plan.plan(), costs, &queues, contention),
        None => run::run(plan.plan(), costs, &queues),
    };
    timeline::measure(plan.plan(), queues.bases, moments)
}

/// The most activations that each rank holds, by [`Rank`], in microbatches of its whole share of the model: what the pass that begins a
/// microbatch makes, counted in chunks and slices, over the chunks of a rank in one flow and the slices of a microbatch. 0 where that pass
/// makes nothing.
#[must_use]
pub fn activations(plan: &Verified) -> Vec<f64> {
    let catalog = &plan.header.catalog;
    let first = catalog.kinds.iter().find(|kind| kind.at == At::Stage);
    let class = first.and_then(|kind| kind.makes.first()).copied();
    let flows = plan.header.flows.max(1) as usize;
    let held = |rank: Rank| plan.header.stages.iter().filter(|&&holder| holder == rank).count();
    let chunks = |rank: Rank| (held(rank) / flows).max(1);
    let peak = |rank: Rank| {
        let live = class.map_or(0, |class| plan.ranks[rank.index()].peak.live[class.index()]);
        // A rank holds fewer than 2^32 chunks.
        f64::from(live) / f64::from(chunks(rank) as u32 * plan.header.cut().slices)
    };
    Rank::all(plan.ranks.len()).map(peak).collect()
}
