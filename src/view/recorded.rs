//! A trace file -> [`Chart`]: one step of a run that was recorded, or of a plan that was simulated.
//!
//! The file is untrusted: what is not a trace is refused, and nothing larger than the file is built from it.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::error::ViewError;
use super::palette::{self, COMMUNICATION, STEP};
use super::scene::{Act, Chart, Clock, Effect, Event, Modelled, Origin, Row, Share, Style, Track};
use crate::ir::{Compute, Dims};

/// More ranks than any trace has.
const MOST_RANKS: u32 = 1 << 16;

/// More names than any catalog has.
const MOST_NAMES: usize = 1 << 12;

/// The longest time that a trace may span, in microseconds: a year.
const LONGEST: f64 = 3.2e13;

#[derive(Deserialize)]
struct File<'a> {
    schedc: Option<Head>,
    #[serde(rename = "traceEvents", borrow)]
    events: Option<Vec<Raw<'a>>>,
}

#[derive(Deserialize)]
struct Head {
    plan: Option<String>,
    schedule: Option<String>,
    ranks: u32,
    microbatches: u32,
    #[serde(default = "one")]
    slices: u32,
    #[serde(default)]
    stages: Vec<u32>,
    #[serde(default)]
    measured: bool,
    unit: Option<String>,
    first: Option<u64>,
    #[serde(default)]
    device: bool,
    model: Option<Dims>,
    flows: Option<u32>,
    layers: Option<Vec<u32>>,
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
struct Raw<'a> {
    #[serde(borrow, default)]
    name: std::borrow::Cow<'a, str>,
    #[serde(borrow, default)]
    cat: std::borrow::Cow<'a, str>,
    #[serde(borrow, default)]
    ph: std::borrow::Cow<'a, str>,
    #[serde(default)]
    ts: f64,
    #[serde(default)]
    dur: f64,
    #[serde(default)]
    pid: u32,
    #[serde(default)]
    tid: u32,
    #[serde(default)]
    args: Args,
}

#[derive(Default, Deserialize)]
struct Args {
    site: Option<u32>,
    microbatch: Option<u32>,
    step: Option<u64>,
}

/// Whether a file that is no text of a plan is meant to be a trace.
#[must_use]
pub fn is_trace(bytes: &[u8]) -> bool {
    let has = |word: &[u8]| bytes.windows(word.len()).any(|window| window == word);
    bytes.trim_ascii_start().starts_with(b"{\"schedc\":") || has(b"\"traceEvents\"")
}

/// Reads one step of a trace, by its number; the last where none is named.
///
/// # Errors
/// The file is no trace of schedc, or has no such step, or no pass in it.
pub fn read(name: &str, bytes: &[u8], step: Option<u64>) -> Result<Chart, ViewError> {
    let malformed = |reason: String| ViewError::MalformedTrace { name: name.to_owned(), reason };
    let file: File<'_> = serde_json::from_slice(bytes).map_err(|error| malformed(error.to_string()))?;
    let head = file.schedc.ok_or_else(|| malformed("it has no member `schedc`".to_owned()))?;
    if head.ranks == 0 || head.ranks > MOST_RANKS || head.slices == 0 {
        return Err(malformed(format!("it claims {} ranks and {} slices", head.ranks, head.slices)));
    }
    let mut events = file.events.ok_or_else(|| malformed("it has no member `traceEvents`".to_owned()))?;
    events.retain(|event| event.ph == "X" && event.pid < head.ranks && act(&event.cat).is_some());
    let mut steps: Vec<u64> = events.iter().map(|event| event.args.step.unwrap_or(0)).collect();
    steps.sort_unstable();
    steps.dedup();
    let last = *steps.last().ok_or_else(|| ViewError::NothingToDraw { name: name.to_owned() })?;
    let wanted = step.unwrap_or(last);
    if !steps.contains(&wanted) {
        return Err(ViewError::NoSuchStep { name: name.to_owned(), step: wanted, has: steps });
    }
    events.retain(|event| event.args.step.unwrap_or(0) == wanted);
    if let Some(event) = events.iter().find(|event| !sane(event)) {
        return Err(malformed(format!("`{}` lasts {} µs from {} µs on", event.name, event.dur, event.ts)));
    }
    let passes = || events.iter().filter(|event| event.cat == "pass" && event.tid == 0);
    let Some(first) = passes().map(|event| event.ts).min_by(f64::total_cmp) else {
        return Err(ViewError::NothingToDraw { name: name.to_owned() });
    };
    let mut names: Vec<(Act, &str)> =
        events.iter().filter_map(|event| Some((act(&event.cat)?, &*event.name))).collect();
    names.sort_unstable();
    names.dedup();
    if names.len() + head.kinds.len() > MOST_NAMES {
        return Err(malformed(format!("it has more than {MOST_NAMES} names of events")));
    }
    let mut chart = empty(&head, name, wanted);
    let looks = Looks::new(&head, &mut chart, &names, &events);
    for event in &events {
        let drawn = looks.event(&chart, event, first);
        let row = &mut chart.rows[event.pid as usize];
        row.wait_ends.push(0);
        row.events.push(drawn);
    }
    chart.rows.iter_mut().for_each(|row| row.events.sort_by_key(|event| (event.start, event.end)));
    Ok(chart)
}

fn act(category: &str) -> Option<Act> {
    match category {
        "pass" => Some(Act::Pass),
        "send" => Some(Act::Send),
        "recv" => Some(Act::Recv),
        "collective" => Some(Act::Collective),
        "step" => Some(Act::Step),
        _ => None,
    }
}

fn sane(event: &Raw<'_>) -> bool {
    let fits = |value: f64| value.is_finite() && value.abs() <= LONGEST;
    fits(event.ts) && fits(event.dur) && event.dur >= 0.0
}

/// A chart without events.
fn empty(head: &Head, name: &str, step: u64) -> Chart {
    let chunks = |rank: u32| head.stages.iter().filter(|&&holder| holder == rank).count() as u32;
    let in_seconds = head.measured || head.unit.as_deref().is_some_and(|unit| unit != "cost");
    let model = match (head.model, &head.layers) {
        (Some(dims), Some(layers)) => {
            Some(Modelled { dims, flows: head.flows.unwrap_or(1), layers: layers.clone() })
        }
        _ => None,
    };
    let origin = if head.measured { Origin::Measured } else { Origin::Predicted };
    Chart {
        name: head.schedule.clone().unwrap_or_else(|| name.to_owned()),
        origin,
        step: head.measured.then_some(step),
        first: head.first == Some(step),
        device: head.device,
        model,
        plan: head.plan.clone(),
        microbatches: head.microbatches,
        slices: head.slices,
        chunks: chunks(0).max(1),
        stages: head.stages.clone(),
        // Nanoseconds; a unit of the costs was written as a millisecond.
        clock: Clock { zero: 0, scale: 1e-6, unit: if in_seconds { "ms" } else { "" }, fitted: false },
        styles: Vec::new(),
        classes: Vec::new(),
        effects: vec![Effect::default()],
        rows: vec![Row::default(); head.ranks as usize],
        critical: Vec::new(),
        peaks: Vec::new(),
        arena: None,
        held: None,
    }
}

/// What the events of a trace look like.
struct Looks {
    styles: BTreeMap<(Act, String), u32>,
    /// The chunk of each stage.
    chunks: Vec<u32>,
}

impl Looks {
    /// Gives every name its style: kinds in the order that the head has them, then what else there is, in alphabetical order.
    fn new(head: &Head, chart: &mut Chart, found: &[(Act, &str)], events: &[Raw<'_>]) -> Self {
        let listed =
            |name: &(Act, &str)| name.0 == Act::Pass && head.kinds.iter().any(|kind| kind.name == name.1);
        let kinds = head.kinds.iter().map(|kind| (Act::Pass, &*kind.name));
        let names = kinds.chain(found.iter().copied().filter(|name| !listed(name)));
        // A pass that runs beside the compute lane is a step of a barrier.
        let mut computes: Vec<&str> = events
            .iter()
            .filter(|event| event.cat == "pass" && event.tid == 0)
            .map(|event| &*event.name)
            .collect();
        computes.sort_unstable();
        computes.dedup();
        let colours = palette::colours(&computes);
        let mut styles = BTreeMap::new();
        for (act, name) in names {
            let listed = head.kinds.iter().find(|kind| kind.name == name);
            let colour = match (act, computes.binary_search(&name)) {
                (Act::Pass, Ok(at)) => colours[at],
                (Act::Step, _) => STEP,
                _ => COMMUNICATION,
            };
            let at_stage = listed.map_or(!["S", "T", "IF", "IB"].contains(&name), |kind| kind.at_stage);
            styles.insert((act, name.to_owned()), chart.styles.len() as u32);
            let computes = listed.filter(|_| act == Act::Pass).and_then(|kind| kind.computes);
            chart.styles.push(Style { name: name.to_owned(), act, colour, at_stage, computes });
        }
        Self { styles, chunks: chart.chunk_of() }
    }

    fn event(&self, chart: &Chart, raw: &Raw<'_>, first: f64) -> Event {
        let act = act(&raw.cat).unwrap_or(Act::Pass);
        let style = self.styles.get(&(act, raw.name.to_string())).copied().unwrap_or_default();
        let at_stage = chart.styles[style as usize].at_stage;
        let site = raw.args.site.unwrap_or(raw.pid);
        let chunk = if at_stage { self.chunks.get(site as usize).copied().unwrap_or(0) } else { 0 };
        let start = nanos(raw.ts - first);
        Event {
            style,
            site,
            chunk,
            unit: raw.args.microbatch,
            peer: None,
            posted: start,
            start,
            end: nanos(raw.ts - first + raw.dur).max(start),
            lane: raw.tid,
            track: match act {
                Act::Send | Act::Recv => Track::Link,
                _ if raw.tid == 0 => Track::Compute,
                _ => Track::Group,
            },
            share: Share::Whole,
            effect: 0,
        }
    }
}

/// Microseconds that are known to be few, as nanoseconds; what began before the first pass begins with it.
#[allow(clippy::cast_sign_loss, reason = "not negative any more")]
fn nanos(micros: f64) -> u64 {
    (micros.max(0.0) * 1e3).round() as u64
}
