//! Timeline -> why each instruction started when it did: the instruction that it came after without delay.

use super::Timeline;
use super::queues::Queues;
use crate::ir::{CollectiveOp, Instr, InstrId, Lane, Op, Plan, Rank, Ticks};

/// A plan that has been run, ready to be looked through backwards.
pub(super) struct Causes<'a> {
    plan: &'a Plan,
    timeline: &'a Timeline,
    queues: Queues,
    /// The position of each instruction of all ranks in [`Queues::instrs`].
    positions: Vec<u32>,
    /// The member of each meeting that came last, among the instructions of all ranks; the lowest rank of several.
    latest: Vec<u32>,
}

/// What an instruction came after.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cause {
    /// The one before it on its lane.
    Lane(usize),
    /// One that it waits for.
    Wait(usize),
    /// The send that a receive met.
    Message(usize),
    /// The member of its collective that came last.
    Meeting(usize),
    /// The message before it on its link.
    Link(usize),
    /// The pass that its thread was in when the rest had come.
    Busy(usize),
}

impl Cause {
    /// The instruction, among those of all ranks.
    pub(super) fn instr(self) -> usize {
        match self {
            Self::Lane(at)
            | Self::Wait(at)
            | Self::Message(at)
            | Self::Meeting(at)
            | Self::Link(at)
            | Self::Busy(at) => at,
        }
    }
}

impl<'a> Causes<'a> {
    pub(super) fn of(plan: &'a Plan, timeline: &'a Timeline) -> Self {
        let queues = Queues::of(plan);
        let mut positions = vec![0; queues.instrs.len()];
        for (lane, ends) in queues.starts.windows(2).enumerate() {
            let base = queues.bases[queues.ranks[lane].index()];
            for position in ends[0]..ends[1] {
                positions[base + queues.instrs[position] as usize] = position as u32;
            }
        }
        let mut latest = vec![u32::MAX; queues.members.len()];
        for (rank, &base) in plan.ranks.iter().zip(&queues.bases) {
            for (instr, at) in rank.instrs.iter().zip(base..) {
                if let Op::Collective { op, .. } = instr.op {
                    // Threads take what is sent to all when it is there, whoever else has not come.
                    let sends = !rank.operands(instr).reads.is_empty();
                    if timeline.threads && op == CollectiveOp::Broadcast && !sends {
                        continue;
                    }
                    let best = &mut latest[queues.meetings[at] as usize];
                    if *best == u32::MAX || timeline.starts[*best as usize] < timeline.starts[at] {
                        *best = at as u32;
                    }
                }
            }
        }
        Self { plan, timeline, queues, positions, latest }
    }

    /// The rank of an instruction of all ranks, and its number there.
    pub(super) fn place(&self, at: usize) -> (Rank, InstrId) {
        let rank = self.queues.bases.partition_point(|&base| base <= at) - 1;
        (Rank::new(rank), InstrId::new(at - self.queues.bases[rank]))
    }

    /// The last of what an instruction came after; `None` for what starts at the beginning.
    pub(super) fn of_instr(&self, at: usize) -> Option<Cause> {
        let (rank, id) = self.place(at);
        let instr = &self.plan.ranks[rank.index()].instrs[id.index()];
        let came = match instr.op {
            Op::Collective { .. } => self.met(at, rank, instr),
            Op::Recv { .. } => {
                self.send_of(at, rank, instr).map(|send| (Cause::Message(send), self.timeline.ends[send]))
            }
            Op::Pass(_) | Op::Send { .. } | Op::Step => None,
        };
        let end = self.timeline.ends[at];
        let (message, came) = came.unzip();
        if self.timeline.threads && !matches!(instr.op, Op::Pass(_) | Op::Step) {
            let late = came.unwrap_or(self.timeline.starts[at]).max(self.timeline.starts[at]) < end;
            if let Some(busy) = self.busy_until(rank, end).filter(|_| late) {
                return Some(busy);
            }
        }
        match message {
            Some(Cause::Message(_)) if came != Some(end) => {}
            Some(message) => return Some(message),
            None => {}
        }
        self.of_start(at, rank, instr)
    }

    /// The member of a collective that came last, where that is another, and when it did.
    fn met(&self, at: usize, rank: Rank, instr: &Instr) -> Option<(Cause, Ticks)> {
        let latest = self.latest[self.queues.meetings[at] as usize] as usize;
        // A thread that reads nothing goes on when it has given.
        let reads = !self.plan.ranks[rank.index()].operands(instr).writes.is_empty();
        let waits = latest != at && (reads || !self.timeline.threads);
        waits.then(|| (Cause::Meeting(latest), self.timeline.starts[latest]))
    }

    /// The pass of a rank that ended at a moment.
    fn busy_until(&self, rank: Rank, moment: Ticks) -> Option<Cause> {
        let lane = self.queues.lane_bases[rank.index()];
        let instrs = &self.queues.instrs[self.queues.starts[lane]..self.queues.starts[lane + 1]];
        let base = self.queues.bases[rank.index()];
        let at = |number: &u32| base + *number as usize;
        let until = instrs.partition_point(|number| self.timeline.ends[at(number)] <= moment);
        let ended = instrs[..until].iter().rev().map(at);
        let mut ended = ended.take_while(|&at| self.timeline.ends[at] == moment);
        ended.find(|&at| self.timeline.starts[at] < moment).map(Cause::Busy)
    }

    /// What an instruction came after, and from when on the time until `to` is its own.
    pub(super) fn share(&self, at: usize, to: Ticks) -> (Option<Cause>, Ticks) {
        let cause = self.of_instr(at);
        let from = match cause {
            None => Ticks(0),
            // A message that waits for its link may start before the one ahead of it has arrived.
            Some(Cause::Link(_)) => self.timeline.starts[at],
            Some(cause) => self.timeline.ends[cause.instr()].min(to),
        };
        (cause, from)
    }

    /// What an instruction's start came after, on its own rank. A pass of a pair starts when both may.
    fn of_start(&self, at: usize, rank: Rank, instr: &Instr) -> Option<Cause> {
        let start = self.timeline.starts[at];
        let before = self.before(at);
        let ours = |at: usize| &self.plan.ranks[rank.index()].instrs[at - self.queues.bases[rank.index()]];
        let paired = before.filter(|&before| ours(before).overlaps);
        let first = paired.unwrap_or(at);
        let before = if paired.is_some() { self.before(first) } else { before };
        let ended = |&other: &usize| self.timeline.ends[other] == start;
        let sends = matches!(self.plan.ranks[rank.index()].lane(instr), Lane::Send(_));
        if let Some(before) = before.filter(|before| !sends && ended(before)) {
            return Some(Cause::Lane(before));
        }
        let second = ours(first).overlaps.then(|| self.after(first));
        let base = self.queues.bases[rank.index()];
        let waits = |at: usize| self.plan.ranks[rank.index()].operands(ours(at)).waits.iter();
        let all = waits(first).chain(second.into_iter().flat_map(waits)).map(|&wait| base + wait as usize);
        // Of several that ended at once, the one that started last: the least of it is waiting of its own.
        let wait = all.filter(ended).max_by_key(|&wait| self.timeline.starts[wait]);
        if self.timeline.threads {
            return wait.map(Cause::Wait).or_else(|| self.busy_until(rank, start));
        }
        wait.map(Cause::Wait).or_else(|| before.filter(|_| sends && start > Ticks(0)).map(Cause::Link))
    }

    /// The instruction before one on its lane.
    fn before(&self, at: usize) -> Option<usize> {
        let (rank, id) = self.place(at);
        let base = self.queues.bases[rank.index()];
        let position = self.positions[at] as usize;
        let before = base + *self.queues.instrs.get(position.checked_sub(1)?)? as usize;
        let instrs = &self.plan.ranks[rank.index()].instrs;
        // The queue before may be another rank's or lane's: its instruction is then not one whose position is just before.
        let same = before < base + instrs.len() && self.positions[before] as usize + 1 == position;
        (same && instrs[before - base].lane == instrs[id.index()].lane).then_some(before)
    }

    /// The instruction after one on its lane, where there is one.
    fn after(&self, at: usize) -> usize {
        let (rank, _) = self.place(at);
        let position = self.positions[at] as usize + 1;
        self.queues.bases[rank.index()] + self.queues.instrs[position] as usize
    }

    /// The send that a receive met.
    fn send_of(&self, at: usize, rank: Rank, instr: &Instr) -> Option<usize> {
        let position = self.positions[at] as usize;
        let lane = self.queues.lane_of(rank, instr.lane);
        let peer = self.queues.peers[lane]?;
        let turn = position - self.queues.starts[lane];
        let number = self.queues.instrs[self.queues.starts[peer] + turn] as usize;
        Some(self.queues.bases[self.queues.ranks[peer].index()] + number)
    }
}
