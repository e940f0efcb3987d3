//! Ranks that are threads of one machine, as `execute/` runs them: a thread walks all lanes of its rank, and looks at messages and
//! collectives between two passes only. What comes while it is in a pass is taken when the pass has ended.
//!
//! So what a rank has to give may lie there for as long as a pass takes, which matters where one collective is needed for the next. A channel
//! holds one message, and a group has two collectives open at a time, as there. Threads that work at a time slow each other down
//! ([`crate::cost::Load`]).

#![allow(
    clippy::cast_precision_loss,
    clippy::cast_sign_loss,
    reason = "a duration needs no more than 52 bits, and is not negative"
)]

use std::cmp::Ordering;
use std::collections::BinaryHeap;

use super::queues::Queues;
use super::timeline::Moments;
use crate::cost::Costs;
use crate::ir::{CollectiveOp, GroupId, Instr, Lane, Op, Payload, Plan, Rank, Ticks};

/// A moment that is not known yet; a sum of durations stays far below.
const UNKNOWN: Ticks = Ticks(u64::MAX);

/// Collectives of a group that are open at a time.
const OPEN: usize = 2;

/// When every instruction starts and ends. Looks at every lane of a rank whenever the rank has done something.
pub(super) fn run(plan: &Plan, costs: &Costs, queues: &Queues, contention: f64) -> Moments {
    let instrs = queues.bases[plan.ranks.len()];
    let mut readers = vec![None; queues.peers.len()];
    for (lane, peer) in queues.peers.iter().enumerate() {
        if let Some(peer) = *peer {
            readers[peer] = Some(lane);
        }
    }
    let mut threads = Threads {
        plan,
        costs,
        queues,
        contention,
        meetings: Meetings::of(plan, queues),
        readers,
        starts: vec![UNKNOWN; instrs],
        ends: vec![UNKNOWN; instrs],
        heads: queues.starts[..queues.ranks.len()].to_vec(),
        given: vec![false; instrs],
        work: BinaryHeap::new(),
        busy: vec![None; plan.ranks.len()],
        called: (0..plan.ranks.len()).rev().collect(),
        now: 0.0,
        done: 0.0,
    };
    loop {
        while let Some(rank) = threads.called.pop() {
            threads.serve(rank);
        }
        if !threads.go_on() {
            break;
        }
    }
    debug_assert!(threads.ends.iter().all(|&end| end != UNKNOWN), "a verified plan runs to its end");
    Moments { starts: threads.starts, ends: threads.ends, threads: true }
}

struct Threads<'a> {
    plan: &'a Plan,
    costs: &'a Costs,
    queues: &'a Queues,
    contention: f64,
    meetings: Meetings,
    /// For a lane of sends, the peer's lane of receives.
    readers: Vec<Option<usize>>,
    /// By instruction of all ranks.
    starts: Vec<Ticks>,
    ends: Vec<Ticks>,
    /// The next instruction of each lane, as a position in [`Queues::instrs`].
    heads: Vec<usize>,
    /// By instruction of all ranks: whether a collective has its contribution.
    given: Vec<bool>,
    /// What threads are at, the first to end on top.
    work: BinaryHeap<Work>,
    /// The lane that each rank is busy with.
    busy: Vec<Option<usize>>,
    /// Ranks that have to look at their lanes.
    called: Vec<usize>,
    /// Ticks from the beginning.
    now: f64,
    /// What a thread that was never idle has done: all that work at a time go on at one rate.
    done: f64,
}

/// What a thread is at.
#[derive(Clone, Copy, Debug)]
struct Work {
    /// [`Threads::done`] at its end.
    until: f64,
    rank: usize,
}

impl Ord for Work {
    fn cmp(&self, other: &Self) -> Ordering {
        other.until.total_cmp(&self.until).then(other.rank.cmp(&self.rank))
    }
}

impl PartialOrd for Work {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Work {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Work {}

/// What an instruction at the head of a lane can do.
enum Turn {
    /// It cannot go on.
    Waits,
    /// It keeps the thread busy.
    Works(Ticks),
    /// It is over.
    Ends,
}

impl Threads<'_> {
    /// Lets time pass until a thread has done what it is at. False: none is at anything.
    fn go_on(&mut self) -> bool {
        let Some(work) = self.work.peek().copied() else { return false };
        let others = (self.work.len() - 1) as f64;
        self.work.pop();
        self.now += (work.until - self.done) * (1.0 + self.contention * others);
        self.done = work.until;
        if let Some(lane) = self.busy[work.rank].take() {
            self.end(work.rank, lane);
            self.called.push(work.rank);
        }
        true
    }

    fn moment(&self) -> Ticks {
        Ticks(self.now.round() as u64)
    }

    /// Does what a rank can, messages and collectives first, until it is busy or has to wait.
    fn serve(&mut self, rank: usize) {
        let lanes = self.queues.lane_bases[rank]..self.queues.lane_bases[rank + 1];
        let computes = |lane: usize| self.plan.ranks[rank].lanes[lane - lanes.start] == Lane::Compute;
        let mut moved = self.busy[rank].is_none();
        while moved {
            moved = false;
            for lane in lanes.clone().filter(|&lane| !computes(lane)) {
                while self.advance(rank, lane) {
                    moved = true;
                }
                if self.busy[rank].is_some() {
                    return;
                }
            }
            for lane in lanes.clone().filter(|&lane| computes(lane)) {
                moved |= self.advance(rank, lane);
                if self.busy[rank].is_some() {
                    return;
                }
            }
        }
    }

    /// Ends the instruction at a lane's head, if that can be. False: it cannot, or the rank is busy with it.
    fn advance(&mut self, rank: usize, lane: usize) -> bool {
        if self.heads[lane] == self.queues.starts[lane + 1] {
            return false;
        }
        match self.turn(rank, lane) {
            Turn::Waits => false,
            Turn::Works(Ticks(0)) | Turn::Ends => {
                self.end(rank, lane);
                true
            }
            Turn::Works(duration) => {
                self.busy[rank] = Some(lane);
                self.work.push(Work { until: self.done + duration.0 as f64, rank });
                false
            }
        }
    }

    fn turn(&mut self, rank: usize, lane: usize) -> Turn {
        let base = self.queues.bases[rank];
        let number = |position: usize| self.queues.instrs[position] as usize;
        let at = base + number(self.heads[lane]);
        let instr = &self.plan.ranks[rank].instrs[at - base];
        let waits = |instr: &Instr| {
            let mut waits = self.plan.ranks[rank].operands(instr).waits();
            waits.any(|wait| self.ends[base + wait.index()] == UNKNOWN)
        };
        // A pair is one: it starts when both may.
        let second = instr.overlaps.then(|| number(self.heads[lane] + 1));
        let second = second.map(|second| &self.plan.ranks[rank].instrs[second]);
        if waits(instr) || second.is_some_and(waits) {
            return Turn::Waits;
        }
        // A collective starts when its member gives, which it may have to wait for.
        let gives = matches!(instr.op, Op::Collective { .. });
        if self.starts[at] == UNKNOWN && !gives {
            self.starts[at] = self.moment();
        }
        match instr.op {
            Op::Pass(pass) => Turn::Works(match second.map(|second| second.op) {
                Some(Op::Pass(second)) => self.costs.pair(pass, second),
                _ => self.costs.pass(pass),
            }),
            Op::Step if self.plan.header.mode.is_training() => Turn::Works(self.costs.step(Rank::new(rank))),
            Op::Step => Turn::Ends,
            Op::Send { to, .. } if self.is_read_before(lane, to) => {
                Turn::Works(self.costs.message(Rank::new(rank), to))
            }
            Op::Recv { .. } if self.ends[self.queues.send_of(lane, self.heads[lane])] != UNKNOWN => {
                Turn::Ends
            }
            Op::Send { .. } | Op::Recv { .. } => Turn::Waits,
            Op::Collective { op, payload, .. } => self.meet(at, rank, op, payload),
        }
    }

    /// Whether the message before one at the head of a lane of sends has been read: its channel holds one.
    fn is_read_before(&self, lane: usize, to: Rank) -> bool {
        let turn = self.heads[lane] - self.queues.starts[lane];
        let Some(before) = turn.checked_sub(1) else { return true };
        let Some(reads) = self.readers[lane] else { return true };
        let number = self.queues.instrs[self.queues.starts[reads] + before] as usize;
        self.ends[self.queues.bases[to.index()] + number] != UNKNOWN
    }

    /// A member's turn in a collective: it gives, and reads once all that it reads has been given.
    fn meet(&mut self, at: usize, rank: usize, op: CollectiveOp, payload: Payload) -> Turn {
        let meeting = self.queues.meetings[at] as usize;
        let base = self.queues.bases[rank];
        let instr = &self.plan.ranks[rank].instrs[at - base];
        let operands = self.plan.ranks[rank].operands(instr);
        let (gives, reads) = (!operands.reads.is_empty(), !operands.writes.is_empty());
        if !self.given[at] {
            if self.meetings.before(meeting).is_some_and(|before| self.meetings.left[before] > 0) {
                return Turn::Waits;
            }
            self.given[at] = true;
            self.starts[at] = self.moment();
            self.meetings.missing[meeting] -= 1;
            self.meetings.root_gave[meeting] |= op == CollectiveOp::Broadcast && gives;
            self.call_members(meeting);
        }
        let complete = self.meetings.missing[meeting] == 0 || self.meetings.root_gave[meeting];
        if reads && !complete {
            return Turn::Waits;
        }
        match payload {
            Payload::Value { collective, .. } if reads => Turn::Works(self.costs.collective(collective)),
            Payload::Value { .. } | Payload::TiedGradient | Payload::StageGradient(_) => Turn::Ends,
        }
    }

    /// The instruction at a lane's head is over; whoever may wait for it looks again.
    fn end(&mut self, rank: usize, lane: usize) {
        let base = self.queues.bases[rank];
        let at = base + self.queues.instrs[self.heads[lane]] as usize;
        let instr = &self.plan.ranks[rank].instrs[at - base];
        self.ends[at] = self.moment();
        self.heads[lane] += 1;
        if instr.overlaps {
            let second = base + self.queues.instrs[self.heads[lane]] as usize;
            (self.starts[second], self.ends[second]) = (self.starts[at], self.ends[at]);
            self.heads[lane] += 1;
        }
        match instr.op {
            Op::Send { to: other, .. } | Op::Recv { from: other, .. } => self.call(other),
            Op::Collective { .. } => {
                let meeting = self.queues.meetings[at] as usize;
                self.meetings.left[meeting] -= 1;
                if self.meetings.left[meeting] == 0 {
                    self.call_members(meeting);
                }
            }
            Op::Pass(_) | Op::Step => {}
        }
    }

    fn call(&mut self, rank: Rank) {
        if self.busy[rank.index()].is_none() {
            self.called.push(rank.index());
        }
    }

    fn call_members(&mut self, meeting: usize) {
        let plan = self.plan;
        let group = self.meetings.groups[meeting];
        plan.header.groups[group.index()].0.iter().for_each(|&rank| self.call(rank));
    }
}

/// The collectives of all groups.
struct Meetings {
    /// By meeting: its group.
    groups: Vec<GroupId>,
    /// Members that have not given.
    missing: Vec<u32>,
    /// Members whose part is not over.
    left: Vec<u32>,
    /// Whether a broadcast has what it sends.
    root_gave: Vec<bool>,
    /// Its position among those of its group on the same kind of lane.
    turns: Vec<u32>,
}

impl Meetings {
    fn of(plan: &Plan, queues: &Queues) -> Self {
        let count = queues.members.len();
        let mut meetings = Self {
            groups: vec![GroupId(0); count],
            missing: queues.members.clone(),
            left: queues.members.clone(),
            root_gave: vec![false; count],
            turns: vec![0; count],
        };
        // Those of one sequence follow each other.
        let mut sequence = None;
        let mut of = vec![(0, false); count];
        for (rank, &base) in plan.ranks.iter().zip(&queues.bases) {
            for (instr, at) in rank.instrs.iter().zip(base..) {
                if let Op::Collective { group, .. } = instr.op {
                    let meeting = queues.meetings[at] as usize;
                    meetings.groups[meeting] = group;
                    of[meeting] = (group.index(), rank.lane(instr) == Lane::Compute);
                }
            }
        }
        let mut turn = 0;
        for (meeting, &key) in of.iter().enumerate() {
            turn = if sequence == Some(key) { turn + 1 } else { 0 };
            sequence = Some(key);
            meetings.turns[meeting] = turn;
        }
        meetings
    }

    /// The meeting that must be over before one may open.
    fn before(&self, meeting: usize) -> Option<usize> {
        (self.turns[meeting] as usize >= OPEN).then(|| meeting - OPEN)
    }
}
