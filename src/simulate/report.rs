//! A simulated plan -> the report that `schedc simulate` gives: one form for programs, from which the table for people is made.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Serialize;

use super::causes::Causes;
use super::memory::{Peak, RankMemory, class_names, memory_on, memory_peak};
use super::path::{Link, walk};
use super::resident::{Resident, resident};
use super::{Idle, Timeline, idle, simulate};
use crate::cost::{Costs, Footprint, Training, Weights};
use crate::ir::{Bytes, Microbatch, Op, Rank, Ticks};
use crate::verify::Verified;

/// The version of the form.
pub const REPORT_VERSION: u32 = 1;

/// What the one who asks knows beside plan and costs.
#[derive(Clone, Debug, Default)]
pub struct Known {
    /// The unit of the costs, such as `µs`; `None` where only their ratio is known.
    pub unit: Option<String>,
    /// How much model there is to compute, and how fast a device could.
    pub rate: Option<Rate>,
    /// How the model is trained and on what; `None`: by `schedc run`.
    pub device: Option<OnDevice>,
    /// Whether memory over time is asked for.
    pub over_time: bool,
}

/// What a device holds.
#[derive(Clone, Copy, Debug)]
pub struct OnDevice {
    /// What is kept of parameters, gradients and activations.
    pub training: Training,
    /// What the device's own software takes.
    pub reserved: Bytes,
    /// What the device has.
    pub memory: Bytes,
}

/// What model FLOPs utilization is made of.
#[derive(Clone, Copy, Debug)]
pub struct Rate {
    /// Floating-point operations that the model takes in a step, on all ranks; recomputation not counted.
    pub step_flops: f64,
    /// Floating-point operations a second that one device has at its peak.
    pub device_flops: f64,
    /// How many seconds the unit of the costs is: 1e-6 where it is the microsecond.
    pub seconds: f64,
}

/// What a plan takes, and why.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
#[schemars(title = "schedc simulation, version 1")]
pub struct Report {
    /// The version of this form.
    #[schemars(extend("const" = 1))]
    pub schedc_simulation: u32,
    /// The schedule's name.
    pub schedule: String,
    /// The transforms that were applied, in order.
    pub transforms: Vec<String>,
    /// Stages, by stage the rank that holds it.
    pub stages: Vec<u32>,
    /// `m`.
    pub microbatches: u32,
    /// Slices of each microbatch.
    pub slices: u32,
    /// Instructions of all ranks.
    pub instructions: u64,
    /// The unit of all times, where it is known.
    pub unit: Option<String>,
    /// From the start of the first pass to the end of the last.
    pub makespan: f64,
    /// From the start of the first pass to the end of the step on all ranks: with the optimizer, where the costs know what it takes.
    pub step: f64,
    /// `1 - busy / makespan`, mean over the ranks.
    pub bubble: f64,
    /// The same of the rank with the longest time from its first pass to its last, in that time.
    pub span_bubble: f64,
    /// Model FLOPs utilization of the step; where model and device are known.
    pub mfu: Option<f64>,
    /// Messages from rank to rank, collectives apart.
    pub messages: u64,
    /// Their bytes.
    pub message_bytes: u64,
    /// Each rank, in order.
    pub ranks: Vec<RankReport>,
    /// What the makespan follows from.
    pub critical_path: PathReport,
}

/// What a rank does and holds.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct RankReport {
    /// Time in passes on the compute lane.
    pub busy: f64,
    /// The rest of the makespan.
    pub idle: f64,
    /// What that is made of; the parts add up to it.
    pub idle_parts: IdleReport,
    /// `idle / makespan`.
    pub bubble: f64,
    /// What it holds.
    pub memory: MemoryReport,
}

/// The parts of idle time.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct IdleReport {
    /// Before the rank's first pass at a stage.
    pub warm_up: f64,
    /// Passes of other ranks ran, on which the next one depended.
    pub dependency: f64,
    /// A message was under way, or queued for its link.
    pub message: f64,
    /// A collective was under way, or a step between two of them.
    pub collective: f64,
    /// The busiest rank's work beyond this rank's.
    pub imbalance: f64,
    /// After the rank's last pass at a stage.
    pub cool_down: f64,
}

/// What a rank holds, in bytes.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct MemoryReport {
    /// What `schedc run` allocates for the plan's buffers, in f32.
    pub arena: u64,
    /// The most bytes of buffers that are live at one moment: at most the arena; on a device, what they take there with the workspace
    /// of the pass that runs.
    pub peak: u64,
    /// That moment; the first of several.
    pub at: f64,
    /// What is live then, by class.
    pub by_class: BTreeMap<String, u64>,
    /// The buffers that are live then, in the order in which they were written.
    pub owners: Vec<OwnerReport>,
    /// What is held all the time, beside the buffers.
    pub resident: Resident,
    /// What the software of the device takes; 0 where no device is known.
    pub reserved: u64,
    /// All of it: what is resident and reserved, and the arena; on a device the peak.
    pub total: u64,
    /// Memory over time; where it is asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub over_time: Option<Series>,
}

/// A buffer that is live at the peak.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct OwnerReport {
    /// The pass, here or on the rank that sent it, or the collective that made it.
    pub kind: String,
    /// The stage or the rank of the pass, such as `s0` or `r1`; none for a collective.
    pub site: Option<String>,
    /// The microbatch, such as `m3`, or the slice of one, `m3.1`; none for a sum of gradients.
    pub microbatch: Option<String>,
    /// The class of the buffer.
    pub class: String,
    /// Its size.
    pub bytes: u64,
    /// The instruction that wrote it: its position in the rank's list.
    pub instruction: u32,
}

/// Memory over time.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct Series {
    /// The classes of buffer.
    pub classes: Vec<String>,
    /// When what is held changes.
    pub moments: Vec<f64>,
    /// The bytes from each moment to the next, by moment, then by class.
    pub bytes: Vec<Vec<u64>>,
}

/// The critical path.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct PathReport {
    /// Its length: the makespan.
    pub length: f64,
    /// Instructions on it.
    pub instructions: u64,
    /// The time on it by kind of pass, and in messages and collectives; the most first.
    pub parts: Vec<PathPart>,
    /// The instructions themselves, first to last, as rank and position in its list; where memory over time is asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub links: Option<Vec<(u32, u32)>>,
}

/// What one kind of instruction adds to the critical path.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct PathPart {
    /// The kind of pass, `messages` or `collectives`.
    pub what: String,
    /// How many.
    pub count: u64,
    /// How long, together.
    pub time: f64,
    /// The part of the path.
    pub part: f64,
}

impl Report {
    /// Runs a plan under a cost model.
    ///
    /// Requires: `costs` are bound to the plan's catalog.
    #[must_use]
    pub fn of(plan: &Verified, costs: &Costs, known: &Known) -> Self {
        Self::of_timeline(plan, costs, known, &simulate(plan, costs))
    }

    /// The report of a plan that has been run under these costs.
    ///
    /// Requires: as [`Report::of`].
    #[must_use]
    pub fn of_timeline(plan: &Verified, costs: &Costs, known: &Known, timeline: &Timeline) -> Self {
        let causes = Causes::of(plan.plan(), timeline);
        let path = walk(plan.plan(), timeline, &causes);
        let parts = idle::parts(plan.plan(), timeline, &causes);
        let time = |ticks: Ticks| costs.in_units(ticks);
        let begin = timeline.ranks.iter().map(|rank| rank.first).min().unwrap_or_default();
        let end = timeline.ends.iter().max().copied().unwrap_or_default();
        let step = time(Ticks(end.0 - begin.0));
        let header = &plan.header;
        let rate = |rate: Rate| {
            let seconds = step * rate.seconds;
            rate.step_flops / (seconds * rate.device_flops * f64::from(header.ranks()))
        };
        Self {
            schedc_simulation: REPORT_VERSION,
            schedule: header.name.clone(),
            transforms: header.transforms.clone(),
            stages: header.stages.iter().map(|rank| rank.0).collect(),
            microbatches: header.microbatches,
            slices: header.cut().slices,
            instructions: plan.ranks.iter().map(|rank| rank.instrs.len() as u64).sum(),
            unit: known.unit.clone(),
            makespan: time(timeline.makespan()),
            step,
            bubble: timeline.bubble(),
            span_bubble: timeline.span_bubble(),
            mfu: known.rate.map(rate).filter(|mfu| mfu.is_finite()),
            messages: timeline.messages.count,
            message_bytes: timeline.messages.bytes.0,
            ranks: ranks(plan, timeline, costs, known, &parts),
            critical_path: path_report(plan, costs, &path, known.over_time),
        }
    }
}

fn ranks(
    plan: &Verified,
    timeline: &Timeline,
    costs: &Costs,
    known: &Known,
    parts: &[Idle],
) -> Vec<RankReport> {
    let memories = memories(plan, timeline, costs, known);
    let makespan = timeline.makespan();
    let of_rank = |(index, memory): (usize, MemoryReport)| {
        let idle = Ticks(makespan.0 - timeline.ranks[index].busy.0);
        RankReport {
            busy: costs.in_units(timeline.ranks[index].busy),
            idle: costs.in_units(idle),
            idle_parts: idle_report(costs, &parts[index]),
            bubble: ratio(idle, makespan),
            memory,
        }
    };
    memories.into_iter().enumerate().map(of_rank).collect()
}

/// What each rank holds, here or on a device.
fn memories(plan: &Verified, timeline: &Timeline, costs: &Costs, known: &Known) -> Vec<MemoryReport> {
    let weights = known.device.as_ref().map(|device| Weights::of(plan, &device.training));
    let residents = residents(plan, known);
    let reserved = known.device.map_or(0, |device| device.reserved.0);
    let over_time = known.over_time.then(|| memory_on(plan, timeline, weights.as_ref()));
    let of_rank = |(rank, resident): (Rank, Resident)| {
        let over_time = over_time.as_ref().map(|all| &all[rank.index()]);
        let peak = match over_time {
            Some(memory) => memory.peak.clone(),
            None => memory_peak(plan, timeline, rank, weights.as_ref()),
        };
        let arena = plan.ranks[rank.index()].peak.bytes.0;
        let buffers = if weights.is_some() { peak.bytes.0 } else { arena };
        MemoryReport {
            arena,
            peak: peak.bytes.0,
            at: costs.in_units(peak.at),
            by_class: by_class(plan, &peak, weights.is_some()),
            owners: peak.owners.iter().map(|owner| owner_report(plan, owner)).collect(),
            resident,
            reserved,
            total: resident.total().saturating_add(reserved).saturating_add(buffers),
            over_time: over_time.map(|memory| series(costs, memory)),
        }
    };
    Rank::all(plan.ranks.len()).zip(residents).map(of_rank).collect()
}

/// What each rank holds beside its buffers: as `schedc run` does, or as it is trained on a device.
pub(super) fn residents(plan: &Verified, known: &Known) -> Vec<Resident> {
    let Some(device) = &known.device else { return resident(&plan.header) };
    let of_rank = |rank: &Footprint| Resident {
        parameters: rank.parameters,
        gradients: rank.gradients,
        optimizer: rank.optimizer,
    };
    Footprint::of(plan, &device.training).iter().map(of_rank).collect()
}

fn idle_report(costs: &Costs, idle: &Idle) -> IdleReport {
    let time = |ticks| costs.in_units(ticks);
    IdleReport {
        warm_up: time(idle.warm_up),
        dependency: time(idle.dependency),
        message: time(idle.message),
        collective: time(idle.collective),
        imbalance: time(idle.imbalance),
        cool_down: time(idle.cool_down),
    }
}

/// The classes that are live at a peak.
fn by_class(plan: &Verified, peak: &Peak, on_device: bool) -> BTreeMap<String, u64> {
    let names = class_names(&plan.header, on_device).into_iter();
    names.zip(peak.by_class.iter().copied()).filter(|&(_, bytes)| bytes > 0).collect()
}

fn owner_report(plan: &Verified, owner: &super::Owner) -> OwnerReport {
    let unit = |unit: Microbatch| plan.header.cut().name(unit).to_string();
    OwnerReport {
        kind: owner.kind.clone(),
        site: owner.site.map(|site| site.to_string()),
        microbatch: owner.microbatch.map(unit),
        class: owner.class.clone(),
        bytes: owner.bytes.0,
        instruction: owner.instr.0,
    }
}

fn series(costs: &Costs, memory: &RankMemory) -> Series {
    Series {
        classes: memory.classes.clone(),
        moments: memory.moments.iter().map(|&moment| costs.in_units(moment)).collect(),
        bytes: memory.bytes.clone(),
    }
}

fn path_report(plan: &Verified, costs: &Costs, path: &[Link], with_links: bool) -> PathReport {
    let length: u64 = path.iter().map(|link| link.to.0 - link.from.0).sum();
    let mut parts: BTreeMap<&str, (u64, u64)> = BTreeMap::new();
    for link in path {
        let what = match &plan.ranks[link.rank.index()].instrs[link.instr.index()].op {
            Op::Pass(pass) => plan.header.catalog.kind(pass.kind).name.as_str(),
            Op::Send { .. } | Op::Recv { .. } => "messages",
            Op::Collective { .. } => "collectives",
            Op::Step => "step",
        };
        // A message is counted where it is sent, a collective where its last member is.
        let met = matches!(plan.ranks[link.rank.index()].instrs[link.instr.index()].op, Op::Recv { .. });
        let part = parts.entry(what).or_default();
        part.0 += u64::from(!met);
        part.1 += link.to.0 - link.from.0;
    }
    let part = |(what, (count, time)): (&str, (u64, u64))| PathPart {
        what: what.to_owned(),
        count,
        time: costs.in_units(Ticks(time)),
        part: ratio(Ticks(time), Ticks(length)),
    };
    let mut parts: Vec<PathPart> = parts.into_iter().map(part).collect();
    parts.sort_by(|left, right| right.time.total_cmp(&left.time));
    PathReport {
        length: costs.in_units(Ticks(length)),
        instructions: path.len() as u64,
        parts,
        links: with_links.then(|| path.iter().map(|link| (link.rank.0, link.instr.0)).collect()),
    }
}

/// The part of a time; 0 of none.
#[allow(clippy::cast_precision_loss, reason = "a ratio is shown with a few digits")]
fn ratio(part: Ticks, whole: Ticks) -> f64 {
    if whole.0 == 0 { 0.0 } else { part.0 as f64 / whole.0 as f64 }
}

/// The JSON schema of the report, as `docs/simulation.schema.json` holds it.
///
/// # Panics
/// Never: a schema is JSON.
#[must_use]
pub fn report_schema() -> String {
    let schema = schemars::schema_for!(Report);
    let mut text = serde_json::to_string_pretty(&schema).expect("a schema is JSON");
    text.push('\n');
    text
}
