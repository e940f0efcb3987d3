//! Where the passes of one microbatch lie: those with slots of their own as written, the others as idle slots allow.

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap};

use super::OrderError;
use super::block::{Row, width};
use super::idle::Idle;
use crate::cost::Costs;
use crate::graph::{Event, Graph, Progress};
use crate::ir::{Member, Pass, Program, Shape, Source, Ticks};

/// Places the passes that take idle slots: each in the earliest ones after what it needs has ended, in the order in which they become
/// ready. One that needs nothing is ready in slot 0.
///
/// The first slot of every pass of microbatch 0, by row and then by [`Row::member`].
///
/// # Errors
/// The first pass that finds no idle slot; where all do, those that start before what they need has ended.
pub(super) fn fill(
    program: &Program,
    rows: &[Row<'_>],
    idle: &mut [Idle],
) -> Result<Vec<Vec<i64>>, Vec<OrderError>> {
    let shape = Shape { microbatches: 1, slices: 1, ..program.shape.clone() };
    let mut table = Timetable::new(program, rows, &shape);
    for (row, of) in rows.iter().enumerate() {
        for (position, slot) in of.block.slots.iter().enumerate() {
            table.place(row, position, slot.at);
        }
    }
    while let Some(Reverse((ready, row, position))) = table.waiting.pop() {
        let member = rows[row].member(position);
        let count = width(&program.catalog, member.kind);
        let start = idle[row].take(ready, count).ok_or_else(|| vec![no_slot(&rows[row], member, count)])?;
        table.place(row, position, start);
    }
    table.refuse_early()?;
    Ok(table.starts)
}

/// The passes of microbatch 0, as far as they are placed.
struct Timetable<'a> {
    rows: &'a [Row<'a>],
    graph: Graph<'a>,
    costs: Costs,
    progress: Progress,
    events: Vec<Event>,
    /// The slot that is tick 0.
    zero: i64,
    /// The row and the position in it of every pass, by its index in the graph.
    places: Vec<(usize, usize)>,
    /// The first slot of every pass, by row and position.
    starts: Vec<Vec<i64>>,
    /// Passes that look for a slot, by the one from which on they are ready, then by row and position.
    waiting: BinaryHeap<Reverse<(i64, usize, usize)>>,
    /// Passes with a slot of their own that lies before the one from which on they are ready.
    early: Vec<(Pass, i64)>,
}

impl<'a> Timetable<'a> {
    /// Nothing is placed yet.
    fn new(program: &'a Program, rows: &'a [Row<'a>], shape: &'a Shape) -> Self {
        let graph = Graph::new(shape, &program.catalog);
        let mut places = vec![(0, 0); graph.len()];
        let mut waiting = BinaryHeap::new();
        for (row, of) in rows.iter().enumerate() {
            for position in 0..of.len() {
                let pass = of.pass(of.member(position));
                places[graph.index(pass)] = (row, position);
                if position >= of.block.slots.len()
                    && graph.needs_at(pass.kind, pass.site, pass.microbatch) == 0
                {
                    waiting.push(Reverse((0, row, position)));
                }
            }
        }
        let slots = rows.iter().flat_map(|row| row.block.slots.iter().map(|slot| slot.at));
        Self {
            costs: Costs::free(&program.catalog),
            progress: Progress::new(&graph),
            events: Vec::new(),
            zero: slots.min().unwrap_or(0).min(0),
            starts: rows.iter().map(|row| vec![0; row.len()]).collect(),
            early: Vec::new(),
            rows,
            graph,
            places,
            waiting,
        }
    }

    /// Gives a pass its slot and looks at what is ready when it has ended.
    fn place(&mut self, row: usize, position: usize, start: i64) {
        let pass = self.rows[row].pass(self.rows[row].member(position));
        let end = start + width(self.graph.catalog, pass.kind);
        self.starts[row][position] = start;
        let at = Ticks(end.abs_diff(self.zero));
        self.progress.complete(&self.graph, &self.costs, pass, at, &mut self.events);
        for event in self.events.drain(..) {
            let Event::Ready { pass, at } = event else { continue };
            let ready = self.zero.saturating_add_unsigned(at.0);
            let (row, position) = self.places[self.graph.index(pass)];
            match self.rows[row].block.slots.get(position) {
                None => self.waiting.push(Reverse((ready, row, position))),
                Some(slot) if slot.at < ready => self.early.push((pass, ready)),
                Some(_) => {}
            }
        }
    }

    fn end(&self, pass: Pass) -> i64 {
        let (row, position) = self.places[self.graph.index(pass)];
        self.starts[row][position] + width(self.graph.catalog, pass.kind)
    }

    /// Refuses passes that start too early: the first rank of each line.
    fn refuse_early(&self) -> Result<(), Vec<OrderError>> {
        let mut lines = BTreeSet::new();
        let mut errors = Vec::new();
        for &(pass, ready) in &self.early {
            let (row, position) = self.places[self.graph.index(pass)];
            let (of, member) = (&self.rows[row], self.rows[row].member(position));
            if lines.insert(member.span) {
                let needed = self.last_needed(pass);
                let (on, behind) = self.places[self.graph.index(needed)];
                let other = self.rows[on].member(behind);
                errors.push(OrderError::TooEarly {
                    pass: of.name(member),
                    rank: of.rank,
                    starts: self.starts[row][position],
                    needed: self.rows[on].name(other),
                    on: self.rows[on].rank,
                    ready,
                    needed_at: (other.span != member.span).then_some(other.span),
                    at: member.span,
                });
            }
        }
        if errors.is_empty() { Ok(()) } else { Err(errors) }
    }

    /// What a pass needs that ends last.
    fn last_needed(&self, pass: Pass) -> Pass {
        let mut needed = Vec::new();
        for need in &self.graph.catalog.kind(pass.kind).needs {
            match need.from {
                Source::Pass { .. } => needed.extend(self.graph.needed_pass(need, pass)),
                Source::Collective(collective) if self.graph.matches(need.on, pass.site) => {
                    let collective = self.graph.catalog.collective(collective);
                    let sites =
                        self.graph.sites_of(collective.kind, self.graph.shape.flow_of(pass.microbatch));
                    let sites = sites.filter(|&site| self.graph.matches(collective.source, site));
                    needed.extend(sites.map(|site| Pass { kind: collective.kind, site, ..pass }));
                }
                Source::Collective(_) => {}
            }
        }
        needed.into_iter().max_by_key(|&pass| self.end(pass)).unwrap_or(pass)
    }
}

fn no_slot(row: &Row<'_>, member: Member, count: i64) -> OrderError {
    let (rank, length, every) = (row.rank, row.length(), i64::from(row.block.every));
    let help = if length > every {
        format!("{rank} takes {length} slots for each microbatch; repeat the block every {length} or more")
    } else {
        "move the passes with slots of their own closer together, or repeat the block less often".to_owned()
    };
    OrderError::NoSlot { pass: row.name(member), count, every: row.block.every, rank, help, at: member.span }
}
