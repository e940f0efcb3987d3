//! A table of times -> [`Table`]: what was measured, by rank or by site. Nothing is known of what was computed, so that nothing but the passes
//! that it names follows from it.

use std::collections::BTreeMap;

use miette::SourceSpan;

use super::{LONGEST, MOST_ROWS, WEIGHT};
use crate::cost::pipeline::Pipeline;
use crate::cost::problem::Problem;
use crate::ir::{At, Compute, Kind, Queue, Rank, Stage};

/// Times of passes, in microseconds.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Table {
    rows: Rows,
    /// By name, then by row; `None` where nothing is said.
    times: BTreeMap<String, Vec<Option<f64>>>,
    /// The line with the names.
    at: SourceSpan,
}

/// What a row of a table stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rows {
    /// A rank; every stage on it takes the same.
    Ranks,
    /// The site of a pass: a stage, or the rank of one at every rank.
    Sites,
}

/// A pass that nothing is known of, and where.
pub(super) struct Missing {
    pub(super) pass: String,
    pub(super) place: String,
}

impl Table {
    /// The line with the names.
    pub(super) fn at(&self) -> SourceSpan {
        self.at
    }

    /// How long the passes of a kind take, at each of its sites.
    pub(super) fn sites(&self, kind: &Kind, pipeline: &Pipeline<'_>) -> Result<Vec<f64>, Missing> {
        let free = kind.queue == Queue::Group
            || matches!(kind.computes, Some(Compute::Release | Compute::OutputRescale));
        if free && !self.times.contains_key(&kind.name) {
            return Ok(vec![0.0]);
        }
        let sites = match kind.at {
            At::Stage => pipeline.stages.len(),
            At::EveryRank => pipeline.ranks as usize,
        };
        (0..sites).map(|site| self.pass(kind, site, pipeline)).collect()
    }

    /// How long a pass takes at a site; of a fused backward the two that it may have been measured as.
    fn pass(&self, kind: &Kind, site: usize, pipeline: &Pipeline<'_>) -> Result<f64, Missing> {
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
            return Err(Missing { pass: kind.name.clone(), place });
        };
        let split = kind.computes == Some(Compute::StageBackward);
        Ok(own + if split { time(WEIGHT).unwrap_or(0.0) } else { 0.0 })
    }
}

/// A head, then a line for each rank or site.
pub(super) fn read(text: &str) -> Result<Table, Problem> {
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
        let row =
            row.ok_or_else(|| Problem::BadRow { cell: cell.chars().take(40).collect(), at: cell_at })?;
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
    Ok(Table { rows, times, at })
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
