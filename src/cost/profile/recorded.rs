//! The trace of a run -> [`Recorded`]: what each pass took, what it computed, and with that how long passes of other contents take.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::Deserialize;

use super::fit::{Fit, Mean};
use super::parts::{LARGE, Parts, of_sites, sites};
use super::sharing::{Sample, alone};
use super::table::Missing;
use super::{LONGEST, MOST_ROWS};
use crate::cost::contention::Load;
use crate::cost::pipeline::Pipeline;
use crate::cost::problem::Problem;
use crate::ir::{At, Catalog, Compute, Dims, Kind, Partition, Rank, Stage};

/// What was measured in a run.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Recorded {
    model: Dims,
    passes: Vec<Measured>,
    fit: Fit,
    /// The optimizer's step of each rank that takes one: elements of its parameters, microseconds.
    steps: Vec<(Rank, u64, f64)>,
    /// How much ranks that are threads slow each other down; `None` of queues of a device.
    contention: Option<f64>,
}

/// A kind of pass at a site.
#[derive(Clone, Debug, PartialEq)]
struct Measured {
    computes: Compute,
    rank: Rank,
    parts: Parts,
    time: f64,
}

#[derive(Deserialize)]
struct Trace<'a> {
    schedc: Option<Head>,
    #[serde(rename = "traceEvents", borrow)]
    events: Vec<Event<'a>>,
}

#[derive(Deserialize)]
struct Head {
    ranks: u32,
    #[serde(default = "one")]
    slices: u32,
    #[serde(default = "one")]
    flows: u32,
    #[serde(default)]
    stages: Vec<u32>,
    #[serde(default)]
    measured: bool,
    /// Whether ranks were queues of a device.
    #[serde(default)]
    device: bool,
    /// The first step of the run, where it was recorded.
    first: Option<u64>,
    model: Option<Dims>,
    #[serde(default)]
    layers: Vec<u32>,
    #[serde(default)]
    kinds: Vec<KindHead>,
}

fn one() -> u32 {
    1
}

#[derive(Deserialize)]
struct KindHead {
    name: String,
    at_stage: bool,
    computes: Option<Compute>,
}

#[derive(Deserialize)]
struct Event<'a> {
    #[serde(borrow, default)]
    name: Cow<'a, str>,
    #[serde(borrow, default)]
    cat: Cow<'a, str>,
    #[serde(default)]
    ts: f64,
    #[serde(default)]
    dur: f64,
    #[serde(default)]
    pid: u32,
    #[serde(borrow, default)]
    args: Args<'a>,
}

#[derive(Default, Deserialize)]
struct Args<'a> {
    #[serde(borrow)]
    kind: Option<Cow<'a, str>>,
    site: Option<u32>,
    step: Option<u64>,
}

fn wrong(reason: impl Into<String>) -> Problem {
    Problem::NotATrace { reason: reason.into(), at: (0, 1).into() }
}

/// Reads a trace.
pub(super) fn read(text: &str) -> Result<Recorded, Problem> {
    let trace: Trace<'_> = serde_json::from_str(text).map_err(|error| {
        let line =
            text.split_inclusive('\n').take(error.line().saturating_sub(1)).map(str::len).sum::<usize>();
        let at = (line + error.column().saturating_sub(1)).min(text.len());
        Problem::NotATrace { reason: error.to_string(), at: (at, 0).into() }
    })?;
    let head = trace.schedc.ok_or_else(|| wrong("it does not say what was computed"))?;
    let (model, stages, partition) = shape(&head)?;
    let pipeline = Pipeline {
        ranks: head.ranks,
        stages: &stages,
        flows: head.flows,
        units: 1,
        slices: head.slices,
        model: &model,
        partition: &partition,
    };
    let found = samples(&head, &trace.events)?;
    let sharded = [Compute::shards_input, Compute::shards_output]
        .map(|shards| head.kinds.iter().any(|kind| kind.computes.is_some_and(shards)));
    let mut measured = Vec::new();
    let mut means = Vec::new();
    let load = Load::of(found.busy.iter().copied(), head.ranks);
    let (contention, groups) = alone(&found.passes, &load);
    let contents: Vec<_> = head
        .kinds
        .iter()
        .map(|kind| {
            let at = if kind.at_stage { At::Stage } else { At::EveryRank };
            Some((kind.computes?, of_sites(kind.computes?, at, sharded, &pipeline)))
        })
        .collect();
    for ((kind, site), mut times) in groups {
        let Some((computes, contents)) = &contents[kind] else { continue };
        let Some(&(rank, parts)) = contents.get(site) else {
            return Err(wrong(format!("`{}` has no site {site}", head.kinds[kind].name)));
        };
        let mean = mean(&mut times);
        measured.push(Measured { computes: *computes, rank, parts, time: mean.time });
        means.push((parts, mean));
    }
    // The step of a forward-only run changes nothing.
    let trains = head.kinds.iter().any(|kind| kind.computes.is_some_and(|computes| !computes.is_forward()));
    let step = |(rank, mut found): (u32, Vec<f64>)| {
        let rank = Rank(rank);
        (rank, pipeline.held(rank, sharded).0, mean(&mut found).time)
    };
    let steps = if trains { found.steps.into_iter().map(step).collect() } else { Vec::new() };
    let contention = (!head.device).then_some(contention);
    Ok(Recorded { model, passes: measured, fit: Fit::of(&means), steps, contention })
}

/// What the head says of the model, if it can be.
fn shape(head: &Head) -> Result<(Dims, Vec<Rank>, Partition), Problem> {
    let Some(model) = head.model else {
        return Err(wrong("it does not say of which model it is"));
    };
    if !head.measured {
        return Err(wrong("it is a prediction"));
    }
    let stages: Vec<Rank> = head.stages.iter().copied().map(Rank).collect();
    let depth = head.layers.len();
    let flows = head.flows as usize;
    let sizes = [model.layers, model.hidden, model.heads, model.sequence, model.batch, model.vocab];
    let fits = (1..=MOST_ROWS).contains(&stages.len())
        && (1..=MOST_ROWS).contains(&(head.ranks as usize))
        && depth.checked_mul(flows) == Some(stages.len())
        && stages.iter().all(|rank| rank.0 < head.ranks)
        && head.slices > 0
        && head.layers.iter().map(|&layers| u64::from(layers)).sum::<u64>() == u64::from(model.layers)
        && !sizes.contains(&0);
    if !fits {
        return Err(wrong("what it says of its model and stages cannot be"));
    }
    Ok((model, stages, Partition::of(head.layers.clone())))
}

/// What ranks did in the steps that count.
#[derive(Default)]
struct Found {
    passes: Vec<Sample>,
    /// The optimizer's steps of each rank.
    steps: BTreeMap<u32, Vec<f64>>,
    /// When a rank was at work: from, to.
    busy: Vec<(f64, f64)>,
}

/// Every pass and every step of the optimizer. Those of the run's first step do not count: it touches memory for the first time.
fn samples(head: &Head, events: &[Event<'_>]) -> Result<Found, Problem> {
    let mut found = Found::default();
    let position = |name: &str| head.kinds.iter().position(|kind| kind.name == name);
    let mut cold = false;
    for event in events.iter().filter(|event| event.pid < head.ranks) {
        let name = event.args.kind.as_ref().unwrap_or(&event.name);
        let pass = event.cat == "pass";
        if !pass && event.cat != "step" {
            continue;
        }
        if !(0.0..=LONGEST).contains(&event.dur) || !(-LONGEST..=LONGEST).contains(&event.ts) {
            return Err(wrong(format!("`{name}` takes {} µs from {} µs on", event.dur, event.ts)));
        }
        if head.first.is_some() && event.args.step == head.first {
            cold = true;
            continue;
        }
        found.busy.push((event.ts, event.ts + event.dur));
        if pass {
            let kind = position(name).ok_or_else(|| wrong(format!("it does not say what `{name}` is")))?;
            let site = event.args.site.ok_or_else(|| wrong(format!("`{name}` has no site")))? as usize;
            found.passes.push(Sample { kind, site, start: event.ts, duration: event.dur });
        } else {
            found.steps.entry(event.pid).or_default().push(event.dur);
        }
    }
    if found.passes.is_empty() {
        return Err(wrong(if cold {
            "it has only the first step of a run, which is slower than those after it"
        } else {
            "it has no pass"
        }));
    }
    Ok(found)
}

/// What takes longer than so many medians is no pass, but a machine that was doing something else.
const ABSURD: f64 = 5.0;
/// The standard error of what was measured once, as a part of it.
const ONCE: f64 = 0.1;

/// The mean: a step takes the sum of its passes, so that its expected duration is the sum of theirs, which the median of a skewed
/// distribution is not. Only what is absurd is left out: it would not come again in a step that takes as long as most.
#[allow(clippy::cast_precision_loss, reason = "samples are few")]
fn mean(found: &mut Vec<f64>) -> Mean {
    found.sort_unstable_by(f64::total_cmp);
    let median = f64::midpoint(found[(found.len() - 1) / 2], found[found.len() / 2]);
    if median > 0.0 {
        found.retain(|&time| time <= ABSURD * median);
    }
    let count = found.len() as f64;
    let time = found.iter().sum::<f64>() / count;
    if found.len() == 1 {
        return Mean { time, error: ONCE * time };
    }
    let squares: f64 = found.iter().map(|sample| (sample - time).powi(2)).sum();
    Mean { time, error: (squares / (count - 1.0) / count).sqrt() }
}

impl Recorded {
    /// The model that was run.
    pub(super) fn model(&self) -> &Dims {
        &self.model
    }

    /// How much the ranks slowed each other down.
    pub(super) fn contention(&self) -> Option<f64> {
        self.contention
    }

    /// How long the passes of a kind take, at each of its sites.
    pub(super) fn sites(
        &self,
        kind: &Kind,
        catalog: &Catalog,
        pipeline: &Pipeline<'_>,
    ) -> Result<Vec<f64>, Missing> {
        let missing = |site: usize| {
            let place = match kind.at {
                At::Stage => Stage::new(site).to_string(),
                At::EveryRank => Rank::new(site).to_string(),
            };
            Missing { pass: kind.name.clone(), place }
        };
        let (computes, contents) = sites(kind, catalog, pipeline).ok_or_else(|| missing(0))?;
        let pass = |(site, (rank, parts)): (usize, &(Rank, Parts))| {
            self.pass(computes, *rank, parts).ok_or_else(|| missing(site))
        };
        contents.iter().enumerate().map(pass).collect()
    }

    /// How long a pass takes: what one of the same contents took, on the same rank if there was one; else what its parts do.
    #[allow(clippy::float_cmp, reason = "what is the same is counted in the same way")]
    fn pass(&self, computes: Compute, rank: Rank, parts: &Parts) -> Option<f64> {
        let same = |pass: &&Measured| pass.computes == computes && pass.parts == *parts;
        let here = mean_of(self.passes.iter().filter(same).filter(|pass| pass.rank == rank));
        if let Some(time) = here.or_else(|| mean_of(self.passes.iter().filter(same))) {
            return Some(time);
        }
        let unseen = LARGE.iter().any(|&part| parts[part as usize] > 0.0 && !self.fit.seen[part as usize]);
        (!unseen).then(|| self.fit.time(parts))
    }

    /// How long the optimizer's step takes on a rank with so many elements of parameters; `None` where none was measured.
    #[allow(clippy::cast_precision_loss, reason = "a duration needs no more than 52 bits")]
    pub(super) fn step(&self, elements: u64, rank: Rank) -> Option<f64> {
        let here = |step: &&(Rank, u64, f64)| step.0 == rank && step.1 == elements;
        if let Some(step) = self.steps.iter().find(here) {
            return Some(step.2);
        }
        let sum = |of: fn(&(Rank, u64, f64)) -> f64| self.steps.iter().map(of).sum::<f64>();
        let (all, time) = (sum(|step| step.1 as f64), sum(|step| step.2));
        (all > 0.0).then(|| time / all * elements as f64)
    }
}

#[allow(clippy::cast_precision_loss, reason = "sites are few")]
fn mean_of<'a>(passes: impl Iterator<Item = &'a Measured>) -> Option<f64> {
    let times: Vec<f64> = passes.map(|pass| pass.time).collect();
    (!times.is_empty()).then(|| times.iter().sum::<f64>() / times.len() as f64)
}
