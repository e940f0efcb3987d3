//! All ranks run to their end, under one of three kinds of channel; else the shortest circle of cells that wait for each other.
//!
//! Each rank goes through its row until it must wait; what it waits for wakes it. Every wait is for something that happens sooner or later
//! whatever else goes first, so one order of running them stands for all.

use miette::LabeledSpan;

use super::super::Channel;
use super::super::action::{Action, Form, Op};
use super::super::error::{Cell, Problem, Report};
use super::{Facts, NONE, Sort};

/// Cells of a circle that a report shows.
const SHOWN: usize = 12;

/// Runs all rows.
///
/// Requires: no other rule is broken.
pub(super) fn check(facts: &Facts<'_>, channel: Channel, report: &mut Report) {
    let mut run = Run::new(facts, channel);
    run.all();
    let stuck: Vec<usize> = (0..facts.rows.ranks()).filter(|&rank| run.is_stuck(rank)).collect();
    if !stuck.is_empty() {
        report.add(|| run.shortest_circle(&stuck));
    }
}

struct Run<'a> {
    facts: &'a Facts<'a>,
    channel: Channel,
    /// By rank: the next action.
    next: Vec<u32>,
    /// By action: the rank that waits until it has happened.
    waiter: Vec<u32>,
    /// By rank: its first message that is not through (NCCL).
    queue: Vec<u32>,
    /// Ranks that may go on.
    awake: Vec<usize>,
}

/// What an action waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wait {
    /// An action of another rank.
    Reached(u32),
    /// An end of a message of this rank, which both ends have posted or will.
    Through(u32),
}

impl<'a> Run<'a> {
    fn new(facts: &'a Facts<'a>, channel: Channel) -> Self {
        let rows = facts.rows;
        let ranks = rows.ranks();
        let next: Vec<u32> = (0..ranks).map(|rank| rows.positions(rank).start as u32).collect();
        let mut run = Self {
            facts,
            channel,
            queue: next.clone(),
            next,
            waiter: vec![NONE; rows.actions.len()],
            awake: (0..ranks).rev().collect(),
        };
        (0..ranks).for_each(|rank| run.skip(rank));
        run
    }

    fn all(&mut self) {
        while let Some(rank) = self.awake.pop() {
            self.go(rank);
        }
    }

    fn is_stuck(&self, rank: usize) -> bool {
        (self.next[rank] as usize) < self.facts.rows.positions(rank).end
    }

    fn action(&self, index: u32) -> Action {
        self.facts.rows.actions[index as usize]
    }

    fn rank_of(&self, index: u32) -> usize {
        self.facts.rank(self.action(index).stage as usize)
    }

    /// Whether an action has happened; of a message's end: whether it is posted.
    fn happened(&self, index: u32) -> bool {
        index < self.next[self.rank_of(index)]
    }

    /// Runs a rank until it must wait or has ended.
    fn go(&mut self, rank: usize) {
        while self.is_stuck(rank) {
            let at = self.next[rank];
            if self.channel == Channel::Rendezvous && self.action(at).op.is_message() {
                let mate = self.mate(at);
                let peer = self.rank_of(mate);
                if self.next[peer] != mate {
                    return;
                }
                self.step(peer);
                self.awake.push(peer);
            } else if let Some(wait) = self.waits(at) {
                if let Wait::Reached(other) = wait {
                    self.waiter[other as usize] = rank as u32;
                }
                return;
            }
            self.step(rank);
        }
    }

    /// A rank's next action happens.
    fn step(&mut self, rank: usize) {
        let at = self.next[rank];
        self.next[rank] += 1;
        let waiter = self.waiter[at as usize];
        if waiter != NONE {
            self.awake.push(waiter as usize);
        }
        if self.channel == Channel::Nccl && self.action(at).op.is_message() {
            self.transfer(rank);
        }
    }

    /// NCCL: lets messages through that are first in the queues of both their ranks.
    fn transfer(&mut self, rank: usize) {
        let mut ranks = vec![rank];
        while let Some(rank) = ranks.pop() {
            let first = self.queue[rank];
            if first as usize >= self.facts.rows.positions(rank).end || !self.happened(first) {
                continue;
            }
            let mate = self.mate(first);
            let peer = self.rank_of(mate);
            if self.queue[peer] != mate || !self.happened(mate) {
                continue;
            }
            for rank in [rank, peer] {
                self.queue[rank] += 1;
                self.skip(rank);
                ranks.push(rank);
                self.awake.push(rank);
            }
        }
    }

    /// Moves a rank's queue on to its next message.
    fn skip(&mut self, rank: usize) {
        let end = self.facts.rows.positions(rank).end as u32;
        let mut at = self.queue[rank];
        while at < end && !self.action(at).op.is_message() {
            at += 1;
        }
        self.queue[rank] = at;
    }

    /// The other end of a message.
    fn mate(&self, end: u32) -> u32 {
        let Action { op, stage, microbatch, .. } = self.action(end);
        let sort = Sort::of(op).expect("an end of a message has a sort");
        let ends = &self.facts.ends[sort as usize];
        let (peer, table) = if op == sort.send() {
            (self.facts.receiver(sort, stage as usize), &ends.recv)
        } else {
            (self.facts.sender(sort, stage as usize), &ends.send)
        };
        table[self.facts.slot(peer.expect("messages have peers"), microbatch as usize)]
    }

    /// What an action still waits for; the second of a pair makes the first wait, too.
    fn waits(&self, index: u32) -> Option<Wait> {
        let second = || self.action(index).overlaps.then(|| self.waits_alone(index + 1)).flatten();
        self.waits_alone(index).or_else(second)
    }

    fn waits_alone(&self, index: u32) -> Option<Wait> {
        let Action { op, stage, microbatch, .. } = self.action(index);
        let slot = self.facts.slot(stage as usize, microbatch as usize);
        let sort = match op {
            Op::F => Sort::Activation,
            Op::I | Op::B => Sort::Gradient,
            Op::WaitSendF | Op::WaitSendB => {
                let sort = Sort::of(op)?;
                return self.not_through(self.facts.ends[sort as usize].send[slot]);
            }
            _ => return None,
        };
        let from = self.facts.sender(sort, stage as usize)?;
        if self.facts.rank(from) == self.facts.rank(stage as usize) {
            return None;
        }
        if self.facts.rows.form == Form::Comms {
            return self.not_through(self.facts.ends[sort as usize].recv[slot]);
        }
        // The first of a pair: its rank goes on to the second before anyone else does.
        let source = self.facts.passes(sort)[self.facts.slot(from, microbatch as usize)];
        (!self.happened(source)).then_some(Wait::Reached(source))
    }

    /// What is missing until a message is through, of which this rank has posted its end.
    fn not_through(&self, end: u32) -> Option<Wait> {
        match self.channel {
            Channel::Rendezvous => None,
            Channel::Gloo => {
                let mate = self.mate(end);
                (!self.happened(mate)).then_some(Wait::Reached(mate))
            }
            Channel::Nccl => (end >= self.queue[self.rank_of(end)]).then_some(Wait::Through(end)),
        }
    }

    /// The next cell of a circle, and how this one depends on it. A cell is the one that a rank stands at, or the first of a queue.
    fn link(&self, at: u32) -> (u32, String) {
        let rank = self.rank_of(at);
        let reached = |other: u32| {
            let stands = self.next[self.rank_of(other)];
            let place = self.facts.rows.cell(other);
            let how = if stands == other {
                format!("waits for {place}")
            } else {
                format!("waits for {place}, behind `{}`", self.action(stands))
            };
            (stands, how)
        };
        let through = |end: u32| {
            let first = self.queue[rank];
            if first != end {
                return (first, format!("queued behind `{}`", self.action(first)));
            }
            let mate = self.mate(end);
            if !self.happened(mate) {
                return reached(mate);
            }
            let other = self.queue[self.rank_of(mate)];
            (other, format!("its peer has `{}` queued behind `{}`", self.action(mate), self.action(other)))
        };
        // Behind the place where its rank stands: a message in a queue.
        if at < self.next[rank] {
            return through(at);
        }
        match self.waits(at) {
            Some(Wait::Reached(other)) => reached(other),
            Some(Wait::Through(end)) => through(end),
            None => reached(self.mate(at)),
        }
    }

    /// The shortest circle that the links of the stuck ranks run into: each cell has one link, so each circle is found once.
    fn shortest_circle(&self, stuck: &[usize]) -> Problem {
        let mut seen = vec![NONE; self.facts.rows.actions.len()];
        let mut best: Option<Vec<u32>> = None;
        for &rank in stuck {
            let mut path = Vec::new();
            let mut at = self.next[rank];
            while seen[at as usize] == NONE {
                seen[at as usize] = rank as u32;
                path.push(at);
                at = self.link(at).0;
            }
            let Some(start) = path.iter().position(|&cell| cell == at) else { continue };
            if best.as_ref().is_none_or(|best| path.len() - start < best.len()) {
                best = Some(path.split_off(start));
            }
        }
        self.told(&best.unwrap_or_default())
    }

    fn told(&self, circle: &[u32]) -> Problem {
        let more = circle.len().saturating_sub(SHOWN);
        let circle = &circle[..circle.len() - more];
        let cells: Vec<Cell> = circle.iter().map(|&at| self.facts.rows.cell(at)).collect();
        let label = |(at, cell): (&u32, &Cell)| LabeledSpan::new_with_span(Some(self.link(*at).1), cell.span);
        let waits = circle.iter().zip(&cells).map(label).collect();
        let help = match (self.facts.rows.form, self.channel) {
            (Form::Compute, _) => {
                "move one of these passes so that no circle is left; no placement of messages breaks it"
            }
            (Form::Comms, Channel::Gloo) => {
                "put the receives before these waits on their rank, or the waits behind them"
            }
            (Form::Comms, Channel::Nccl) => {
                "put the receives before these waits and the messages of both ranks in one order: those of a rank run one after the other"
            }
            (Form::Comms, Channel::Rendezvous) => {
                "put the messages of both ranks in one order; where messages are posted in the background, `--channel gloo` may accept the file"
            }
        };
        Problem::Deadlock { cells, more, channel: self.channel, help, waits }
    }
}
