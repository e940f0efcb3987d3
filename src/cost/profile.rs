//! A table of times, or the trace of a run -> [`Profile`]: how long passes took.

use std::collections::BTreeMap;
use std::sync::Arc;

use miette::{NamedSource, SourceSpan};
use serde::Deserialize;

use super::Durations;
use super::error::CostError;
use super::pipeline::Pipeline;
use super::problem::{FileError, Problem};
use crate::ir::{At, Catalog, Compute, Kind, Queue, Rank, Stage};

/// Times of passes, in microseconds.
#[derive(Clone, Debug, PartialEq)]
pub struct Profile {
    rows: Rows,
    /// By name, then by row; `None` where nothing is said.
    times: BTreeMap<String, Vec<Option<f64>>>,
    text: Arc<NamedSource<Arc<str>>>,
    /// The line with the names.
    at: SourceSpan,
}

/// What a row of a profile stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rows {
    /// A rank; every stage on it takes the same.
    Ranks,
    /// The site of a pass: a stage, or the rank of one at every rank.
    Sites,
}

/// More ranks or stages than any pipeline has.
const MOST_ROWS: usize = 1 << 14;
/// The longest time, in microseconds: a month.
const LONGEST: f64 = 2.6e12;

/// The pass whose work a fused backward does as well.
const WEIGHT: &str = "W";

#[derive(Deserialize)]
struct Trace<'a> {
    #[serde(rename = "traceEvents", borrow)]
    events: Vec<Event<'a>>,
}

#[derive(Deserialize)]
struct Event<'a> {
    #[serde(borrow, default)]
    name: std::borrow::Cow<'a, str>,
    #[serde(borrow, default)]
    cat: std::borrow::Cow<'a, str>,
    #[serde(default)]
    dur: f64,
    #[serde(borrow, default)]
    args: Args<'a>,
}

#[derive(Default, Deserialize)]
struct Args<'a> {
    #[serde(borrow)]
    kind: Option<std::borrow::Cow<'a, str>>,
    site: Option<u32>,
}

impl Profile {
    /// Reads a profile; `name` is what diagnostics call it. A text that begins with a brace is a trace.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn parse(name: &str, text: &str) -> Result<Self, FileError> {
        let source = Arc::new(NamedSource::new(name, Arc::from(text)));
        let read = if text.trim_start().starts_with('{') { trace(text, source) } else { table(text, source) };
        read.map_err(|problem| FileError::new(problem, name, text))
    }

    /// How long everything takes: passes as they were measured, messages and collectives nothing.
    ///
    /// # Errors
    /// A pass that the profile does not have.
    pub(super) fn durations(
        &self,
        catalog: &Catalog,
        pipeline: &Pipeline<'_>,
        known: impl Fn(&str) -> bool,
    ) -> Result<Durations, CostError> {
        let passes = catalog.kinds.iter().map(|kind| {
            let free = kind.queue == Queue::Group
                || matches!(kind.computes, Some(Compute::Release | Compute::OutputRescale));
            if known(&kind.name) || free && !self.times.contains_key(&kind.name) {
                return Ok(vec![0.0]);
            }
            let sites = match kind.at {
                At::Stage => pipeline.stages.len(),
                At::EveryRank => pipeline.ranks as usize,
            };
            (0..sites).map(|site| self.pass(kind, site, pipeline)).collect()
        });
        let passes = passes.collect::<Result<Vec<_>, _>>()?;
        let ways = vec![0.0; (pipeline.ranks * pipeline.ranks) as usize];
        Ok(Durations {
            passes,
            collectives: vec![0.0; catalog.collectives.len()],
            messages: ways.clone(),
            transfers: ways,
            ranks: pipeline.ranks,
        })
    }

    /// How long a pass takes at a site; of a fused backward the two that it may have been measured as.
    fn pass(&self, kind: &Kind, site: usize, pipeline: &Pipeline<'_>) -> Result<f64, CostError> {
        let row = match (kind.at, self.rows) {
            (At::Stage, Rows::Ranks) => pipeline.stages[site].index(),
            _ => site,
        };
        let time = |name: &str| self.times.get(name).and_then(|times| times.get(row).copied().flatten());
        let Some(own) = time(&kind.name) else {
            let place = match (kind.at, self.rows) {
                (At::Stage, Rows::Sites) => Stage::new(site).to_string(),
                _ => Rank::new(row).to_string(),
            };
            let pass = kind.name.clone();
            return Err(CostError::MissingPass { pass, place, text: self.text.clone(), at: self.at });
        };
        let split = kind.computes == Some(Compute::StageBackward);
        Ok(own + if split { time(WEIGHT).unwrap_or(0.0) } else { 0.0 })
    }
}

/// A head, then a line for each rank or site.
fn table(text: &str, source: Arc<NamedSource<Arc<str>>>) -> Result<Profile, Problem> {
    let mut lines = lines(text);
    let Some((head, head_at)) = lines.next() else {
        return Err(Problem::BadHeading { at: (0, text.len().min(1)).into() });
    };
    let at: SourceSpan = (head_at, head.len()).into();
    let names: Vec<(&str, SourceSpan)> = cells(head, head_at).collect();
    let rows = match names.first().map(|(name, _)| *name) {
        Some("rank") => Rows::Ranks,
        Some("site") => Rows::Sites,
        _ => return Err(Problem::BadHeading { at }),
    };
    let mut columns: Vec<Vec<Option<f64>>> = vec![Vec::new(); names.len() - 1];
    for (index, (name, at)) in names.iter().enumerate() {
        if name.is_empty() {
            return Err(Problem::BadHeading { at: *at });
        }
        if names[..index].iter().any(|(other, _)| other == name) {
            return Err(Problem::ProfiledTwice { what: (*name).to_owned(), at: *at });
        }
    }
    let mut seen = vec![];
    for (line, line_at) in lines {
        let found: Vec<(&str, SourceSpan)> = cells(line, line_at).collect();
        if found.len() != names.len() {
            let at = (line_at, line.len()).into();
            return Err(Problem::UnevenLine { found: found.len(), expected: names.len(), at });
        }
        let (cell, cell_at) = found[0];
        let digits = cell.strip_prefix(['r', 's']).unwrap_or(cell);
        let row = digits.parse::<usize>().ok().filter(|&row| row < MOST_ROWS);
        let row = row.ok_or_else(|| bad_cell(cell, cell_at))?;
        if seen.contains(&row) {
            return Err(Problem::ProfiledTwice { what: cell.to_owned(), at: cell_at });
        }
        seen.push(row);
        for (column, (cell, at)) in columns.iter_mut().zip(&found[1..]) {
            if cell.is_empty() {
                continue;
            }
            let time: Option<f64> = cell.parse().ok();
            let time = time.filter(|time| (0.0..=LONGEST).contains(time));
            let time = time.ok_or_else(|| bad_cell(cell, *at))?;
            put(column, row, time);
        }
    }
    let times = names[1..].iter().map(|(name, _)| (*name).to_owned()).zip(columns).collect();
    Ok(Profile { rows, times, text: source, at })
}

fn put(column: &mut Vec<Option<f64>>, row: usize, time: f64) {
    if column.len() <= row {
        column.resize(row + 1, None);
    }
    column[row] = Some(time);
}

fn bad_cell(cell: &str, at: SourceSpan) -> Problem {
    Problem::BadCell { cell: cell.chars().take(40).collect(), at }
}

/// Lines that are neither empty nor a comment, with where they begin.
fn lines(text: &str) -> impl Iterator<Item = (&str, usize)> {
    let mut at = 0;
    let lines = text.split('\n').map(move |line| {
        let begin = at;
        at += line.len() + 1;
        (line.trim_end(), begin)
    });
    lines.filter(|(line, _)| !line.trim_start().is_empty() && !line.trim_start().starts_with('#'))
}

/// The cells of a line, with where they are.
fn cells(line: &str, mut at: usize) -> impl Iterator<Item = (&str, SourceSpan)> {
    line.split(',').map(move |cell| {
        let begin = at + cell.len() - cell.trim_start().len();
        at += cell.len() + 1;
        let cell = cell.trim();
        (cell, (begin, cell.len()).into())
    })
}

/// The median of each pass at each site, over all microbatches and steps that were recorded.
fn trace(text: &str, source: Arc<NamedSource<Arc<str>>>) -> Result<Profile, Problem> {
    let trace: Trace<'_> = serde_json::from_str(text).map_err(|error| {
        let line =
            text.split_inclusive('\n').take(error.line().saturating_sub(1)).map(str::len).sum::<usize>();
        let at = (line + error.column().saturating_sub(1)).min(text.len());
        Problem::NotATrace { reason: error.to_string(), at: (at, 0).into() }
    })?;
    let wrong = |reason: String| Problem::NotATrace { reason, at: (0, 1).into() };
    let mut samples: BTreeMap<(&str, usize), Vec<f64>> = BTreeMap::new();
    for event in trace.events.iter().filter(|event| event.cat == "pass") {
        let name = event.args.kind.as_ref().unwrap_or(&event.name);
        let Some(site) = event.args.site.map(|site| site as usize).filter(|&site| site < MOST_ROWS) else {
            return Err(wrong(format!("`{name}` has no site")));
        };
        if !(0.0..=LONGEST).contains(&event.dur) {
            return Err(wrong(format!("`{name}` takes {} µs", event.dur)));
        }
        samples.entry((name, site)).or_default().push(event.dur);
    }
    if samples.is_empty() {
        return Err(wrong("it has no pass".to_owned()));
    }
    let mut times: BTreeMap<String, Vec<Option<f64>>> = BTreeMap::new();
    for ((name, site), mut found) in samples {
        found.sort_unstable_by(f64::total_cmp);
        let median = f64::midpoint(found[(found.len() - 1) / 2], found[found.len() / 2]);
        put(times.entry(name.to_owned()).or_default(), site, median);
    }
    Ok(Profile { rows: Rows::Sites, times, text: source, at: (0, 1).into() })
}
