//! A simulated plan -> the figures that schedules are compared by.

use std::collections::BTreeMap;

use serde::Serialize;

use super::{activations, simulate};
use crate::cost::Costs;
use crate::ir::{At, ClassId, Kind};
use crate::verify::Verified;

/// What a schedule comes to at one size, under one cost model.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Figures {
    /// From the first pass of any rank to the last, in the unit of the costs.
    pub makespan: f64,
    /// 1 - busy / makespan, mean over the ranks.
    pub bubble: f64,
    /// The same from the first to the last pass of the rank for which that takes longest.
    pub span_bubble: f64,
    /// Activations that a rank holds at most, in microbatches of its share of the model; of the rank that holds most.
    pub peak_max: f64,
    /// Of the rank that holds fewest.
    pub peak_min: f64,
    /// Of each rank.
    pub peaks: Vec<f64>,
    /// The same of every other class of state, by name, of the rank that holds most: `logits`, `delta`.
    pub held: BTreeMap<String, f64>,
    /// The largest arena of a rank.
    pub peak_bytes: u64,
    /// Messages between ranks, collectives apart.
    pub messages: u64,
    /// Their bytes.
    pub message_bytes: u64,
}

impl Figures {
    /// Runs a plan under a cost model.
    ///
    /// Requires: `costs` are bound to the plan's catalog.
    #[must_use]
    pub fn of(plan: &Verified, costs: &Costs) -> Self {
        let timeline = simulate(plan, costs);
        let peaks = activations(plan);
        Self {
            makespan: costs.in_units(timeline.makespan()),
            bubble: timeline.bubble(),
            span_bubble: timeline.span_bubble(),
            peak_max: peaks.iter().copied().fold(0.0, f64::max),
            peak_min: peaks.iter().copied().fold(f64::INFINITY, f64::min),
            held: held(plan),
            peaks,
            peak_bytes: plan.ranks.iter().map(|rank| rank.peak.bytes.0).max().unwrap_or(0),
            messages: timeline.messages.count,
            message_bytes: timeline.messages.bytes.0,
        }
    }
}

/// State beside the activations: of passes at a stage in shares of a rank's chunks, of passes at every rank as it is.
fn held(plan: &Verified) -> BTreeMap<String, f64> {
    let catalog = &plan.header.catalog;
    let chunks = (plan.header.stages.len() / plan.ranks.len().max(1)).max(1);
    let made = |kind: &Kind| kind.makes.iter().map(|&class| (class, kind.at)).collect::<Vec<_>>();
    let first = catalog.kinds.iter().find(|kind| kind.at == At::Stage);
    let activation = first.and_then(|kind| kind.makes.first().copied());
    let most =
        |class: ClassId| plan.ranks.iter().map(|rank| rank.peak.live[class.index()]).max().unwrap_or(0);
    let share = |at: At| if at == At::Stage { chunks as u32 } else { 1 };
    catalog
        .kinds
        .iter()
        .flat_map(made)
        .filter(|(class, _)| Some(*class) != activation)
        .map(|(class, at)| (catalog.class(class).name.clone(), f64::from(most(class)) / f64::from(share(at))))
        .collect()
}
