//! Charts -> a trace as Chrome (`chrome://tracing`) and Perfetto (<https://ui.perfetto.dev>) read it.
//!
//! A process for each rank, a thread for each of its lanes, an event for each instruction, and a flow from each send to its receive. The first
//! member, `schedc`, says what the trace is of; [`super::recorded`] reads it back. Times are in microseconds; a unit of the costs
//! is written as one millisecond. A message or a collective lasts from the moment that all who take part have come to it.

use std::io::{self, Write};

use serde::Serialize;

use super::scene::{Act, Chart, Event, Origin, Row};
use crate::ir::{Compute, Dims};

/// What a trace is of.
#[derive(Serialize)]
struct Head<'a> {
    version: &'a str,
    plan: Option<&'a str>,
    schedule: &'a str,
    ranks: usize,
    microbatches: u32,
    slices: u32,
    stages: &'a [u32],
    measured: bool,
    unit: &'a str,
    /// Whether a device computed.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    device: bool,
    /// The number of the run's first step, where it is in the trace.
    first: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    model: Option<&'a Dims>,
    #[serde(skip_serializing_if = "Option::is_none")]
    flows: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    layers: Option<&'a [u32]>,
    kinds: Vec<KindHead<'a>>,
}

/// A kind of pass: which sites it has and what it looks like.
#[derive(Serialize)]
struct KindHead<'a> {
    name: &'a str,
    at_stage: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    computes: Option<Compute>,
    colour: String,
}

/// Writes plans or runs one below the other; of each, its steps one after the other.
///
/// # Errors
/// What the writer has to say.
pub fn write(out: &mut dyn Write, runs: &[&[Chart]]) -> io::Result<()> {
    let head = runs.iter().find(|steps| !steps.is_empty()).map(|steps| head(steps));
    out.write_all(b"{\"schedc\":")?;
    serde_json::to_writer(&mut *out, &head)?;
    out.write_all(b",\n\"displayTimeUnit\":\"ms\",\n\"traceEvents\":[")?;
    let mut writer = Writer { out, empty: true, base: 0, flows: 0 };
    for steps in runs {
        for (number, chart) in steps.iter().enumerate() {
            if number == 0 {
                writer.names(chart, runs.len() > 1)?;
            }
            for (rank, row) in chart.rows.iter().enumerate() {
                writer.row(chart, rank, row)?;
            }
        }
        writer.base += steps.iter().map(|chart| chart.rows.len()).max().unwrap_or(0);
    }
    out.write_all(b"\n]}\n")
}

fn head(steps: &[Chart]) -> Head<'_> {
    let chart = &steps[0];
    let model = chart.model.as_ref();
    let kinds = chart.styles.iter().filter(|style| style.act == Act::Pass);
    Head {
        version: env!("CARGO_PKG_VERSION"),
        plan: chart.plan.as_deref(),
        schedule: &chart.name,
        ranks: chart.rows.len(),
        microbatches: chart.microbatches,
        slices: chart.slices,
        stages: &chart.stages,
        measured: chart.origin == Origin::Measured,
        unit: if chart.clock.unit.is_empty() { "cost" } else { chart.clock.unit },
        device: chart.device,
        first: steps.iter().find(|chart| chart.first).and_then(|chart| chart.step),
        model: model.map(|model| &model.dims),
        flows: model.map(|model| model.flows),
        layers: model.map(|model| &model.layers[..]),
        kinds: kinds
            .map(|style| KindHead {
                name: &style.name,
                at_stage: style.at_stage,
                computes: style.computes,
                colour: style.colour.to_string(),
            })
            .collect(),
    }
}

struct Writer<'a> {
    out: &'a mut dyn Write,
    empty: bool,
    /// Processes of the plans before this one.
    base: usize,
    /// Messages of the charts before this one.
    flows: u64,
}

#[derive(Serialize)]
struct Meta<'a> {
    name: &'a str,
    ph: &'a str,
    pid: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    tid: Option<usize>,
    args: MetaArgs<'a>,
}

#[derive(Serialize)]
struct MetaArgs<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sort_index: Option<usize>,
}

#[derive(Serialize)]
struct Slice<'a> {
    name: &'a str,
    cat: &'a str,
    ph: &'a str,
    ts: f64,
    dur: f64,
    pid: usize,
    tid: u32,
    cname: &'a str,
    args: Args<'a>,
}

#[derive(Serialize)]
struct Args<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    kind: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    site: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    microbatch: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    peer: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    bytes: Option<u64>,
    step: u64,
}

#[derive(Serialize)]
struct Flow<'a> {
    name: &'a str,
    cat: &'a str,
    ph: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    bp: Option<&'a str>,
    id: u64,
    ts: f64,
    pid: usize,
    tid: u32,
}

impl Writer<'_> {
    fn put(&mut self, event: &impl Serialize) -> io::Result<()> {
        self.out.write_all(if std::mem::take(&mut self.empty) { b"\n" } else { b",\n" })?;
        Ok(serde_json::to_writer(&mut *self.out, event)?)
    }

    /// Names the processes and threads of a plan.
    fn names(&mut self, chart: &Chart, several: bool) -> io::Result<()> {
        for (rank, row) in chart.rows.iter().enumerate() {
            let pid = self.base + rank;
            let name = if several { format!("r{rank} {}", chart.name) } else { format!("r{rank}") };
            let meta = |what, tid, name, sort_index| {
                let args = MetaArgs { name, sort_index };
                Meta { name: what, ph: "M", pid, tid, args }
            };
            self.put(&meta("process_name", None, Some(&name), None))?;
            self.put(&meta("process_sort_index", None, None, Some(pid)))?;
            for (tid, lane) in row.lanes.iter().enumerate() {
                self.put(&meta("thread_name", Some(tid), Some(lane), None))?;
                self.put(&meta("thread_sort_index", Some(tid), None, Some(tid)))?;
            }
        }
        Ok(())
    }

    fn row(&mut self, chart: &Chart, rank: usize, row: &Row) -> io::Result<()> {
        let pid = self.base + rank;
        for (at, event) in row.events.iter().enumerate() {
            let style = &chart.styles[event.style as usize];
            let begin = micros(chart, event.start);
            let cat = match style.act {
                Act::Pass => "pass",
                Act::Send => "send",
                Act::Recv => "recv",
                Act::Collective => "collective",
                Act::Step => "step",
            };
            // Of a message: what it carries is `x of F`.
            let kind = match style.act {
                Act::Pass => Some(style.name.as_str()),
                Act::Send | Act::Recv => style.name.rsplit(' ').next(),
                Act::Collective | Act::Step => None,
            };
            let sent = || chart.effects[event.effect as usize].makes.iter().map(|&(_, bytes)| bytes).sum();
            let args = Args {
                kind,
                site: kind.map(|_| event.site),
                microbatch: event.unit,
                peer: event.peer.map(|(peer, _)| peer),
                bytes: (style.act == Act::Send).then(sent),
                step: chart.step.unwrap_or(0),
            };
            let (dur, tid) = (micros(chart, event.end) - begin, event.lane);
            let cname = chart.colour(event).chrome();
            self.put(&Slice { name: &style.name, cat, ph: "X", ts: begin, dur, pid, tid, cname, args })?;
            if style.act == Act::Send && event.peer.is_some() {
                self.flow(chart, rank, at, event)?;
            }
        }
        Ok(())
    }

    /// The arrow of a message, from its send to its receive.
    fn flow(&mut self, chart: &Chart, rank: usize, at: usize, event: &Event) -> io::Result<()> {
        let Some((peer, other)) = event.peer else { return Ok(()) };
        debug_assert_eq!(chart.rows[rank].events[at], *event, "an event knows its place");
        let received = chart.rows[peer as usize].events[other as usize];
        self.flows += 1;
        let name = &chart.styles[event.style as usize].name;
        let end = |ph, bp, rank: usize, event: &Event| Flow {
            name,
            cat: "message",
            ph,
            bp,
            id: self.flows,
            ts: micros(chart, if ph == "s" { event.start } else { event.end }),
            pid: self.base + rank,
            tid: event.lane,
        };
        let ends = [end("s", None, rank, event), end("f", Some("e"), peer as usize, &received)];
        ends.iter().try_for_each(|end| self.put(end))
    }
}

/// A moment in microseconds: what is shown in milliseconds, or in the unit of costs, times a thousand.
fn micros(chart: &Chart, moment: u64) -> f64 {
    let shown = chart.time(moment) * 1e3;
    // No more digits than a nanosecond has.
    (shown * 1e3).round() / 1e3
}
