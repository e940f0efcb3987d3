//! The lanes run side by side: each goes on until it comes to something that has not happened, and is woken when it has.

use super::queues::Queues;
use super::timeline::Moments;
use crate::cost::Costs;
use crate::ir::{Op, Pass, Payload, Plan, Ticks};

/// A moment that is not known yet; a sum of durations stays far below.
const UNKNOWN: Ticks = Ticks(u64::MAX);

/// No lane.
const NONE: u32 = u32::MAX;

/// When every instruction starts and ends.
pub(super) fn run(plan: &Plan, costs: &Costs, queues: &Queues) -> Moments {
    let instrs = queues.bases[plan.ranks.len()];
    let lanes = queues.ranks.len();
    let mut machine = Machine {
        plan,
        costs,
        queues,
        starts: vec![UNKNOWN; instrs],
        ends: vec![UNKNOWN; instrs],
        heads: queues.starts[..lanes].to_vec(),
        free: vec![Ticks(0); lanes],
        waiting: vec![NONE; instrs + queues.members.len()],
        next_waiting: vec![NONE; lanes],
        missing: queues.members.clone(),
        met: vec![Ticks(0); queues.members.len()],
        running: (0..lanes as u32).rev().collect(),
    };
    while let Some(lane) = machine.running.pop() {
        machine.advance(lane as usize);
    }
    debug_assert!(machine.ends.iter().all(|&end| end != UNKNOWN), "a verified plan runs to its end");
    Moments { starts: machine.starts, ends: machine.ends, threads: false }
}

struct Machine<'a> {
    plan: &'a Plan,
    costs: &'a Costs,
    queues: &'a Queues,
    /// By instruction of all ranks.
    starts: Vec<Ticks>,
    ends: Vec<Ticks>,
    /// The next instruction of each lane, as a position in [`Queues::instrs`].
    heads: Vec<usize>,
    /// The moment from which each lane is free.
    free: Vec<Ticks>,
    /// The first lane that waits for an instruction (of all ranks) or, after those, for a meeting.
    waiting: Vec<u32>,
    /// The lane that waits for the same as this one.
    next_waiting: Vec<u32>,
    /// Members that have not come to a meeting.
    missing: Vec<u32>,
    /// The moment that the last member so far came.
    met: Vec<Ticks>,
    /// Lanes that may go on.
    running: Vec<u32>,
}

/// What a lane has to wait for: a position in [`Machine::waiting`].
struct Blocked(usize);

impl Machine<'_> {
    /// Runs a lane until its end or until it has to wait.
    fn advance(&mut self, lane: usize) {
        while self.heads[lane] < self.queues.starts[lane + 1] {
            if let Err(Blocked(on)) = self.step(lane) {
                self.next_waiting[lane] = std::mem::replace(&mut self.waiting[on], lane as u32);
                return;
            }
            self.heads[lane] += 1;
        }
    }

    /// Runs the next instruction of a lane.
    fn step(&mut self, lane: usize) -> Result<(), Blocked> {
        let rank = self.queues.ranks[lane].index();
        let base = self.queues.bases[rank];
        let at = base + self.queues.instrs[self.heads[lane]] as usize;
        let instr = &self.plan.ranks[rank].instrs[at - base];
        // A collective that has come to its meeting is looked at again when all have.
        let arrived = self.starts[at] != UNKNOWN;
        if !arrived {
            let mut start = self.free[lane];
            for wait in self.plan.ranks[rank].operands(instr).waits() {
                start = start.max(self.ended(base + wait.index())?);
            }
            if let Some(second) = self.second_of(lane) {
                for wait in self.plan.ranks[rank].operands(second).waits() {
                    start = start.max(self.ended(base + wait.index())?);
                }
            }
            if let Op::Recv { .. } = instr.op {
                self.ended(self.queues.send_of(lane, self.heads[lane]))?;
            }
            self.starts[at] = start;
        }
        if let Some(first) = self.first_of(lane) {
            // The two passes of a pair start and end together.
            (self.starts[at], self.ends[at]) = (self.starts[first], self.ends[first]);
            self.wake(at);
            return Ok(());
        }
        let start = self.starts[at];
        let end = match instr.op {
            Op::Pass(pass) => start + self.duration(lane, pass),
            Op::Send { to, .. } => start + self.costs.message(self.queues.ranks[lane], to),
            Op::Recv { .. } => start.max(self.ends[self.queues.send_of(lane, self.heads[lane])]),
            Op::Collective { payload, .. } => {
                let duration = match payload {
                    Payload::Value { collective, .. } => self.costs.collective(collective),
                    Payload::TiedGradient | Payload::StageGradient(_) => Ticks(0),
                };
                self.meet(self.queues.meetings[at] as usize, start, arrived)? + duration
            }
            Op::Step if self.plan.header.mode.is_training() => {
                start + self.costs.step(self.queues.ranks[lane])
            }
            Op::Step => start,
        };
        self.ends[at] = end;
        self.free[lane] = match instr.op {
            Op::Send { to, .. } => start + self.costs.occupies(self.queues.ranks[lane], to),
            Op::Pass(_) | Op::Recv { .. } | Op::Collective { .. } | Op::Step => end,
        };
        self.wake(at);
        Ok(())
    }

    /// How long a pass at the head of a lane takes, with the one that it overlaps with.
    fn duration(&self, lane: usize, pass: Pass) -> Ticks {
        let second = self.second_of(lane);
        match second.map(|second| second.op) {
            Some(Op::Pass(second)) => self.costs.pair(pass, second),
            _ => self.costs.pass(pass),
        }
    }

    /// The instruction of its rank that follows on a lane after the one at its head.
    fn after(&self, lane: usize) -> usize {
        self.queues.instrs[self.heads[lane] + 1] as usize
    }

    /// The pass that runs overlapped with the one at the head of a lane, as its second.
    fn second_of(&self, lane: usize) -> Option<&crate::ir::Instr> {
        let plan = &self.plan.ranks[self.queues.ranks[lane].index()];
        let at = |position: usize| self.queues.instrs[position] as usize;
        plan.instrs[at(self.heads[lane])].overlaps.then(|| &plan.instrs[self.after(lane)])
    }

    /// The pass that the one at the head of a lane runs overlapped with, as its second; among the instructions of all ranks.
    fn first_of(&self, lane: usize) -> Option<usize> {
        let rank = self.queues.ranks[lane].index();
        let before = self.heads[lane].checked_sub(1).filter(|&before| before >= self.queues.starts[lane])?;
        let first = self.queues.instrs[before] as usize;
        self.plan.ranks[rank].instrs[first].overlaps.then(|| self.queues.bases[rank] + first)
    }

    /// The end of an instruction of all ranks.
    fn ended(&self, at: usize) -> Result<Ticks, Blocked> {
        if self.ends[at] == UNKNOWN { Err(Blocked(at)) } else { Ok(self.ends[at]) }
    }

    /// Comes to a meeting. The moment that the last member has come.
    fn meet(&mut self, meeting: usize, now: Ticks, arrived: bool) -> Result<Ticks, Blocked> {
        let place = self.ends.len() + meeting;
        if !arrived {
            self.met[meeting] = self.met[meeting].max(now);
            self.missing[meeting] -= 1;
            if self.missing[meeting] == 0 {
                self.wake(place);
            }
        }
        if self.missing[meeting] == 0 { Ok(self.met[meeting]) } else { Err(Blocked(place)) }
    }

    /// Lets the lanes go on that wait for an instruction or a meeting.
    fn wake(&mut self, on: usize) {
        let mut lane = std::mem::replace(&mut self.waiting[on], NONE);
        while lane != NONE {
            self.running.push(lane);
            lane = std::mem::replace(&mut self.next_waiting[lane as usize], NONE);
        }
    }
}
