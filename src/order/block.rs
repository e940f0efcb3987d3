//! Blocks -> every rank's order, by slots.
//!
//! Microbatch i's passes lie `every * i` slots behind those of microbatch 0, on every rank. So what holds of one microbatch holds of
//! all of them: two passes of a rank meet in a slot if and only if their slots are equal modulo `every`, and a pass comes after what it
//! needs if and only if it does so for microbatch 0. Both are checked here, once, for any number of microbatches.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use super::OrderError;
use super::idle::Idle;
use super::squeeze::Slotted;
use super::timetable;
use crate::ir::{
    At, Block, Catalog, Compute, KindId, Member, Microbatch, Pass, Placed, Program, Rank, RankOrder, Site,
    Span, Stage,
};

/// Every rank's passes with their slots, in the order of their slots.
///
/// Requires: numbers as `resolve` bounds them, so that no slot of any microbatch leaves 64 bits.
///
/// # Errors
/// Passes that meet in a slot; where there are none, a pass that finds no idle slot; where there is none, passes that start before
/// what they need has ended.
pub(super) fn orders(
    program: &Program,
    origins: &mut Vec<Span>,
) -> Result<Vec<Vec<Slotted>>, Vec<OrderError>> {
    let rows: Vec<Row<'_>> = rows(program);
    let mut idle = Vec::with_capacity(rows.len());
    let mut errors = Vec::new();
    for row in &rows {
        idle.extend(row.idle(&mut errors));
    }
    if !errors.is_empty() {
        return Err(OrderError::distinct(errors));
    }
    let starts = timetable::fill(program, &rows, &mut idle)?;
    let mut origins = Origins { known: BTreeMap::new(), spans: origins };
    let m = program.shape.cut().units();
    Ok(rows.iter().zip(&starts).map(|(row, starts)| row.merged(starts, m, &mut origins)).collect())
}

/// The rows of all ranks; none is left out, because all ranks say their order in the same way.
fn rows(program: &Program) -> Vec<Row<'_>> {
    let ranks = program.ranks.iter().zip(program.shape.chunks_by_rank()).enumerate();
    ranks
        .filter_map(|(index, (rank, held))| match &rank.order {
            RankOrder::Block(block) => {
                Some(Row { rank: Rank::new(index), block, held, catalog: &program.catalog })
            }
            RankOrder::Pattern(_) | RankOrder::Greedy(_) => None,
        })
        .collect()
}

/// One rank's block.
#[derive(Debug)]
pub(super) struct Row<'a> {
    pub(super) rank: Rank,
    pub(super) block: &'a Block,
    held: Vec<Stage>,
    catalog: &'a Catalog,
}

impl Row<'_> {
    /// How many passes it has.
    pub(super) fn len(&self) -> usize {
        self.block.slots.len() + self.block.fills.len()
    }

    /// A pass of the row: those with slots of their own come first.
    pub(super) fn member(&self, position: usize) -> Member {
        let slots = &self.block.slots;
        slots.get(position).map_or_else(|| self.block.fills[position - slots.len()], |slot| slot.pass)
    }

    /// A pass of microbatch 0.
    pub(super) fn pass(&self, member: Member) -> Pass {
        let site = match self.catalog.kind(member.kind).at {
            At::Stage => Site::Stage(self.held[member.chunk.index()]),
            At::EveryRank => Site::Rank(self.rank),
        };
        Pass { kind: member.kind, site, microbatch: Microbatch(0) }
    }

    /// A pass as it is written.
    pub(super) fn name(&self, member: Member) -> String {
        let kind = self.catalog.kind(member.kind);
        let one = kind.at == At::EveryRank || self.held.len() == 1;
        if one { kind.name.clone() } else { format!("{}.{}", kind.name, member.chunk.0) }
    }

    /// The slots that one microbatch's passes take.
    pub(super) fn length(&self) -> i64 {
        (0..self.len()).map(|position| width(self.catalog, self.member(position).kind)).sum()
    }

    /// What the passes with slots of their own leave idle; passes that meet are added to the errors.
    fn idle(&self, errors: &mut Vec<OrderError>) -> Option<Idle> {
        let before = errors.len();
        let every = i64::from(self.block.every);
        let mut taken: BTreeMap<i64, Member> = BTreeMap::new();
        let mut meetings = Vec::new();
        for slot in &self.block.slots {
            for at in slot.at..slot.at + width(self.catalog, slot.pass.kind) {
                let at = at.rem_euclid(every);
                if let Some(first) = taken.insert(at, slot.pass) {
                    meetings.push((at, first, slot.pass));
                }
            }
        }
        let idle = Idle::new(every, taken.keys().copied());
        errors
            .extend(meetings.into_iter().map(|(at, first, second)| self.collision(at, first, second, &idle)));
        (errors.len() == before).then_some(idle)
    }

    fn collision(&self, slot: i64, first: Member, second: Member, idle: &Idle) -> OrderError {
        let (length, every) = (self.length(), i64::from(self.block.every));
        let free = idle.first(6);
        let help = if length > every || free.is_empty() {
            format!(
                "{} takes {length} slots for each microbatch; repeat the block every {length} or more",
                self.rank
            )
        } else {
            let free: Vec<String> = free.iter().map(i64::to_string).collect();
            format!(
                "move one of the two; of every {every} slots {} leaves idle: {}",
                self.rank,
                free.join(", ")
            )
        };
        let itself = (first.kind, first.chunk) == (second.kind, second.chunk);
        let behind = if itself { " of the microbatch before" } else { "" };
        OrderError::Collision {
            first: format!("`{}`{behind}", self.name(first)),
            second: self.name(second),
            rank: self.rank,
            slot,
            every: self.block.every,
            help,
            first_at: (!itself).then_some(first.span),
            at: second.span,
        }
    }

    /// The rank's order: its passes of all microbatches by slot. Every pass comes back each `every` slots, so they are merged.
    fn merged(&self, starts: &[i64], microbatches: u32, origins: &mut Origins<'_>) -> Vec<Slotted> {
        let place = |member: Member| Placed {
            pass: self.pass(member),
            origin: origins.of(member.span),
            overlaps: false,
        };
        let placed: Vec<Placed> = (0..self.len()).map(|position| self.member(position)).map(place).collect();
        let every = i64::from(self.block.every);
        let first = starts.iter().enumerate().map(|(index, &start)| Reverse((start, index, 0)));
        let mut next: BinaryHeap<Reverse<(i64, usize, u32)>> = first.collect();
        let mut order = Vec::with_capacity(placed.len() * microbatches as usize);
        while let Some(Reverse((slot, index, microbatch))) = next.pop() {
            let one = placed[index];
            let pass = Pass { microbatch: Microbatch(microbatch), ..one.pass };
            order.push((slot, Placed { pass, ..one }));
            if microbatch + 1 < microbatches {
                next.push(Reverse((slot + every, index, microbatch + 1)));
            }
        }
        order
    }
}

/// The slots that a pass takes: one, and one more for the pass whose work it does besides its own.
pub(super) fn width(catalog: &Catalog, kind: KindId) -> i64 {
    if catalog.kind(kind).computes == Some(Compute::StageBackward) { 2 } else { 1 }
}

/// The places that passes come from, each once.
struct Origins<'a> {
    known: BTreeMap<Span, u32>,
    spans: &'a mut Vec<Span>,
}

impl Origins<'_> {
    fn of(&mut self, span: Span) -> u32 {
        *self.known.entry(span).or_insert_with(|| {
            self.spans.push(span);
            (self.spans.len() - 1) as u32
        })
    }
}
