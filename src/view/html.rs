//! Scene -> one self-contained page: the data packed as columns of integers, a script that draws them, no network.
//!
//! A row's columns, by event in the order of the rank's list: `k` style * 3 + share, `s` site, `u` unit + 1 or 0, `t` start since the one before, `d`
//! duration, `q` for what waits for others how far it is from the one before that does, and how long before its start its rank has come to it; `l` lane * 3 + track, `f` effect; `w` for each event how many it waits for and how far back each is; `p` for each message the other
//! rank and the position there. Times are in the chart's own unit, `scale` makes them the axis's.

use std::io::{self, Write};

use serde::Serialize;

use super::Range;
use super::scene::{Act, Chart, Effect, Event, Row, Scene};

const PAGE: &str = include_str!("page/page.html");
const STYLE: &str = include_str!("page/page.css");
const SCRIPT: &str =
    concat!(include_str!("page/data.js"), include_str!("page/draw.js"), include_str!("page/hands.js"));

#[derive(Serialize)]
struct Data<'a> {
    unit: &'a str,
    range: [f64; 2],
    legend: Vec<(String, String)>,
    charts: Vec<ChartData<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ChartData<'a> {
    name: &'a str,
    shape: String,
    caption: String,
    slices: u32,
    chunks: u32,
    chunk_of: Vec<u32>,
    scale: f64,
    styles: Vec<(&'a str, u8, String, bool)>,
    classes: Vec<(&'a str, String)>,
    effects: Vec<[Vec<u64>; 2]>,
    rows: Vec<RowData>,
    critical: Vec<u32>,
    peaks: Vec<(f64, u64)>,
}

#[derive(Default, Serialize)]
struct RowData {
    k: Vec<u32>,
    s: Vec<u32>,
    u: Vec<u64>,
    t: Vec<i64>,
    d: Vec<u64>,
    q: Vec<u64>,
    l: Vec<u32>,
    f: Vec<u32>,
    w: Vec<u32>,
    p: Vec<i64>,
}

/// Writes the page; it opens with a part of the axis in view.
///
/// # Errors
/// What the writer has to say.
pub fn write(out: &mut dyn Write, scene: &Scene, range: Range) -> io::Result<()> {
    let data = Data {
        unit: scene.unit(),
        range: [range.from, range.to],
        legend: scene.legend().into_iter().map(|(name, colour)| (name, colour.to_string())).collect(),
        charts: scene.charts.iter().map(charted).collect(),
    };
    // Nothing in the data may end its element.
    let data = serde_json::to_string(&data)?.replace('<', "\\u003c");
    let names: Vec<&str> = scene.charts.iter().map(|chart| chart.name.as_str()).collect();
    let title = super::svg::escape(&names.join(", "));
    let mut rest = PAGE;
    while let Some((before, after)) = rest.split_once("{{") {
        let (name, after) = after.split_once("}}").unwrap_or((after, ""));
        out.write_all(before.as_bytes())?;
        out.write_all(match name {
            "title" => title.as_bytes(),
            "style" => STYLE.as_bytes(),
            "script" => SCRIPT.as_bytes(),
            _ => data.as_bytes(),
        })?;
        rest = after;
    }
    out.write_all(rest.as_bytes())
}

fn charted(chart: &Chart) -> ChartData<'_> {
    let chunks = if chart.chunks > 1 { chart.chunk_of() } else { Vec::new() };
    let effect = |effect: &Effect| {
        [&effect.makes, &effect.frees]
            .map(|list| list.iter().flat_map(|&(class, bytes)| [u64::from(class), bytes]).collect())
    };
    ChartData {
        name: &chart.name,
        shape: chart.shape(),
        caption: chart.caption(),
        slices: chart.slices,
        chunks: chart.chunks,
        chunk_of: chunks,
        scale: chart.clock.scale,
        styles: chart
            .styles
            .iter()
            .map(|style| (&*style.name, style.act as u8, style.colour.to_string(), style.at_stage))
            .collect(),
        classes: chart.classes.iter().map(|(name, colour)| (&**name, colour.to_string())).collect(),
        effects: chart.effects.iter().map(effect).collect(),
        rows: chart.rows.iter().map(|row| packed(chart, row)).collect(),
        critical: chart.critical.iter().flat_map(|&(rank, at)| [rank, at]).collect(),
        peaks: chart.peaks.iter().map(|&(at, bytes)| (chart.time(at), bytes)).collect(),
    }
}

fn packed(chart: &Chart, row: &Row) -> RowData {
    let mut data = RowData::default();
    let mut before = chart.clock.zero;
    let (mut waits, mut waited) = (0, 0);
    for (at, event) in row.events.iter().enumerate() {
        let Event { style, site, unit, peer, posted, start, end, lane, track, share, effect, .. } = *event;
        data.k.push(style * 3 + share as u32);
        data.s.push(site);
        data.u.push(unit.map_or(0, |unit| u64::from(unit) + 1));
        // Moments stay far below 2^63: they are sums of durations, or nanoseconds of a run.
        data.t.push(start.cast_signed().wrapping_sub(before.cast_signed()));
        before = start;
        data.d.push(end - start);
        if posted < start {
            data.q.extend([(at - waited) as u64, start - posted]);
            waited = at;
        }
        data.l.push(lane.saturating_mul(3).saturating_add(track as u32));
        data.f.push(effect);
        let ends = row.wait_ends[at] as usize;
        data.w.push((ends - waits) as u32);
        data.w.extend(row.waits[waits..ends].iter().map(|&wait| at as u32 - wait));
        waits = ends;
        if matches!(chart.styles[style as usize].act, Act::Send | Act::Recv) {
            data.p.extend(peer.map_or([-1, 0], |(rank, at)| [i64::from(rank), i64::from(at)]));
        }
    }
    data
}
