//! The shortest cycle among events that wait for each other, for people to read.

use std::fmt::Write;

use super::deadlock::{Events, Followers, NONE, Why};
use super::names;
use super::report::Place;
use crate::ir::{InstrId, Rank};

/// Steps of the search; in a large deadlock the shortest cycle found by then is shown.
const STEPS: usize = 20_000_000;

/// Edges of a cycle that are shown.
const SHOWN: usize = 24;

/// One edge of a cycle: `from` happens together with `via`, which waits for `on`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Edge {
    pub(super) from: u32,
    via: u32,
    on: u32,
    why: Why,
}

/// Finds a shortest cycle among the blocked events; empty only if there is none.
pub(super) fn shortest(events: &Events<'_, '_>, followers: &Followers, blocked: &[u32]) -> Vec<Edge> {
    let mut search = Search {
        events,
        core: core(events, followers, blocked),
        seen: vec![NONE; blocked.len()],
        reached: Vec::new(),
        steps: 0,
    };
    let mut best = Vec::new();
    for start in (0..).take(blocked.len()) {
        if search.core[start as usize]
            && let Some(cycle) = search.from(start, best.len())
        {
            best = cycle;
        }
        if search.steps > STEPS || best.len() == 1 {
            break;
        }
    }
    best
}

/// The blocked events that lie on cycles or between them: all but those for which no blocked event waits, again and again.
fn core(events: &Events<'_, '_>, followers: &Followers, blocked: &[u32]) -> Vec<bool> {
    let mut core: Vec<bool> = blocked.iter().map(|&count| count > 0).collect();
    let mut waiting = vec![0_u32; blocked.len()];
    let mut idle = Vec::new();
    for event in (0..).take(blocked.len()).filter(|&event: &u32| blocked[event as usize] > 0) {
        for member in events.members(event) {
            let waits = followers.of_instr(member).iter();
            let waits = waits.filter(|&&by| core[events.event[by as usize] as usize]).count();
            waiting[event as usize] +=
                u32::try_from(waits).expect("the followers of all instructions are counted in 32 bits");
        }
        if waiting[event as usize] == 0 {
            idle.push(event);
        }
    }
    while let Some(event) = idle.pop() {
        core[event as usize] = false;
        for member in events.members(event) {
            let (rank, _) = events.meetings.place(member);
            events.waits_of(rank, member, |before, _| {
                let before = events.event[before as usize];
                if core[before as usize] {
                    waiting[before as usize] -= 1;
                    if waiting[before as usize] == 0 {
                        idle.push(before);
                    }
                }
            });
        }
    }
    core
}

struct Search<'a, 'plan> {
    events: &'a Events<'a, 'plan>,
    core: Vec<bool>,
    /// The start from which an event was reached last.
    seen: Vec<u32>,
    /// Events in the order that they are reached, each with the one before it and the edge from there.
    reached: Vec<(u32, usize, Option<Edge>)>,
    steps: usize,
}

impl Search<'_, '_> {
    /// The shortest cycle through an event, if it is shorter than `limit` edges (0: any).
    fn from(&mut self, start: u32, limit: usize) -> Option<Vec<Edge>> {
        self.reached.clear();
        self.reached.push((start, 0, None));
        self.seen[start as usize] = start;
        let (mut at, mut level_end, mut depth) = (0, 1, 1);
        while at < self.reached.len() {
            if at == level_end {
                depth += 1;
                level_end = self.reached.len();
            }
            if limit > 0 && depth >= limit || self.steps > STEPS {
                return None;
            }
            if let Some(edge) = self.expand(start, at) {
                return Some(self.path(at, edge));
            }
            at += 1;
        }
        None
    }

    /// Reaches all that an event waits for. Returns the edge that leads back to the start.
    fn expand(&mut self, start: u32, at: usize) -> Option<Edge> {
        let events = self.events;
        let (event, _, edge) = self.reached[at];
        let mut closing = None;
        for via in events.members(event) {
            let (rank, _) = events.meetings.place(via);
            events.waits_of(rank, via, |on, why| {
                self.steps += 1;
                let next = events.event[on as usize];
                let edge = Edge { from: edge.map_or(via, |edge| edge.on), via, on, why };
                if next == start {
                    closing = closing.or(Some(edge));
                } else if self.core[next as usize] && self.seen[next as usize] != start {
                    self.seen[next as usize] = start;
                    self.reached.push((next, at, Some(edge)));
                }
            });
        }
        closing
    }

    fn path(&self, mut at: usize, closing: Edge) -> Vec<Edge> {
        let mut path = vec![closing];
        while let (_, before, Some(edge)) = self.reached[at] {
            path.push(edge);
            at = before;
        }
        path.reverse();
        // The first event was entered from nowhere: it is entered where the last edge leads.
        path[0].from = closing.on;
        path
    }
}

fn op(events: &Events<'_, '_>, number: u32) -> (Rank, InstrId, String) {
    let (rank, instr) = events.meetings.place(number);
    let name =
        names::op(events.facts.header, &events.facts.plan.ranks[rank.index()].instrs[instr.index()].op);
    (rank, instr, name)
}

/// A cycle, edge by edge.
pub(super) fn describe(events: &Events<'_, '_>, cycle: &[Edge]) -> String {
    let mut lines: Vec<_> = cycle.iter().take(SHOWN).map(|edge| sentence(events, edge)).collect();
    if cycle.len() > SHOWN {
        lines.push(format!("… and {} more", cycle.len() - SHOWN));
    }
    lines.join("\n")
}

fn sentence(events: &Events<'_, '_>, edge: &Edge) -> String {
    let (rank, instr, name) = op(events, edge.from);
    let mut text = format!("{rank} {instr} `{name}`");
    if edge.via != edge.from {
        let (rank, instr, name) = op(events, edge.via);
        let _ = write!(text, " meets {rank} {instr} `{name}`, which");
    }
    let (rank, instr, name) = op(events, edge.on);
    let _ = write!(text, " waits for {rank} {instr} `{name}`, {}", edge.why.words());
    text
}

/// The instructions of a cycle after the first.
pub(super) fn places(events: &Events<'_, '_>, cycle: &[Edge]) -> Vec<(Place, String)> {
    let mut places = Vec::new();
    for edge in cycle.iter().take(SHOWN) {
        for (number, part) in [(edge.via, "has to wait"), (edge.on, "waited for")] {
            let (rank, instr) = events.meetings.place(number);
            let place = Place::Instr(rank, instr);
            if number != cycle[0].from && places.iter().all(|(other, _)| *other != place) {
                places.push((place, part.to_owned()));
            }
        }
    }
    places
}
