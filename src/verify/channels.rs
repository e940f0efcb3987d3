//! Rule 3: the k-th send from one rank to another meets the k-th receive there, with the same value and size.

use super::error::Rule;
use super::facts::Facts;
use super::names;
use super::report::{Place, Report};
use crate::ir::{InstrId, Lane, LaneId, Op, Plan, Rank, Value};

/// Which instructions of several ranks happen together. Instructions are numbered through all ranks.
pub(super) struct Meetings {
    /// The number of each rank's first instruction, and of one past the last.
    pub(super) first: Vec<u32>,
    /// Each send with its receive, channel by channel, in order.
    pub(super) pairs: Vec<(u32, u32)>,
    /// Where each channel's pairs end.
    pub(super) channel_ends: Vec<usize>,
    /// Each instruction of a collective with that of the group's first member.
    pub(super) joint: Vec<(u32, u32)>,
}

impl Meetings {
    pub(super) fn new(plan: &Plan) -> Self {
        let mut first = vec![0];
        let mut count = 0;
        for rank in &plan.ranks {
            count +=
                u32::try_from(rank.instrs.len()).expect("`structure` refuses plans with 2^32 instructions");
            first.push(count);
        }
        Self { first, pairs: Vec::new(), channel_ends: Vec::new(), joint: Vec::new() }
    }

    /// The number of an instruction.
    pub(super) fn number(&self, rank: Rank, instr: InstrId) -> u32 {
        self.first[rank.index()] + instr.0
    }

    /// The instruction of a number.
    pub(super) fn place(&self, number: u32) -> (Rank, InstrId) {
        let rank = self.first.partition_point(|&first| first <= number) - 1;
        (Rank::new(rank), InstrId(number - self.first[rank]))
    }
}

/// The sends and receives of each lane of one rank, in order.
struct Queues {
    instrs: Vec<u32>,
    ends: Vec<usize>,
    /// Lanes with their ids, sorted.
    lanes: Vec<(Lane, LaneId)>,
}

impl Queues {
    fn of(plan: &Plan, rank: Rank) -> Self {
        let part = &plan.ranks[rank.index()];
        let transfers = || {
            let all = part.instrs.iter().enumerate();
            all.filter(|(_, instr)| matches!(instr.op, Op::Send { .. } | Op::Recv { .. }))
        };
        let mut ends = vec![0; part.lanes.len() + 1];
        for (_, instr) in transfers() {
            ends[instr.lane.index() + 1] += 1;
        }
        for lane in 1..ends.len() {
            ends[lane] += ends[lane - 1];
        }
        let mut instrs = vec![0; ends[part.lanes.len()]];
        for (id, instr) in transfers() {
            let at = &mut ends[instr.lane.index()];
            instrs[*at] = InstrId::new(id).0;
            *at += 1;
        }
        let mut lanes: Vec<_> =
            part.lanes.iter().enumerate().map(|(id, &lane)| (lane, LaneId::new(id))).collect();
        lanes.sort_unstable();
        Self { instrs, ends, lanes }
    }

    fn has(&self, lane: Lane) -> bool {
        self.lanes.binary_search_by_key(&lane, |&(lane, _)| lane).is_ok()
    }

    /// The instructions of a lane; none where the rank has no such lane.
    fn on(&self, lane: Lane) -> &[u32] {
        let Ok(found) = self.lanes.binary_search_by_key(&lane, |&(lane, _)| lane) else { return &[] };
        let id = self.lanes[found].1.index();
        let start = if id == 0 { 0 } else { self.ends[id - 1] };
        &self.instrs[start..self.ends[id]]
    }
}

/// Reports sends and receives that do not meet. Returns whether all do.
pub(super) fn check(facts: &Facts<'_>, meetings: &mut Meetings, report: &mut Report) -> bool {
    let queues: Vec<_> = Rank::all(facts.plan.ranks.len()).map(|rank| Queues::of(facts.plan, rank)).collect();
    let mut sound = true;
    for from in Rank::all(facts.plan.ranks.len()) {
        for &(lane, _) in &queues[from.index()].lanes {
            match lane {
                Lane::Send(to) => {
                    let sends = queues[from.index()].on(lane);
                    let receives = queues[to.index()].on(Lane::Recv(from));
                    let channel = Channel { facts, from, to, outgoing: sends, incoming: receives };
                    sound &= channel.check(meetings, report);
                }
                Lane::Recv(peer) if !queues[peer.index()].has(Lane::Send(from)) => {
                    let receives = queues[from.index()].on(lane);
                    let channel = Channel { facts, from: peer, to: from, outgoing: &[], incoming: receives };
                    sound &= channel.check(meetings, report);
                }
                Lane::Recv(_) | Lane::Compute | Lane::Group(_) => {}
            }
        }
    }
    sound
}

/// All that goes from one rank to another.
struct Channel<'a, 'plan> {
    facts: &'a Facts<'plan>,
    from: Rank,
    to: Rank,
    outgoing: &'a [u32],
    incoming: &'a [u32],
}

impl Channel<'_, '_> {
    fn check(&self, meetings: &mut Meetings, report: &mut Report) -> bool {
        let mut sound = self.outgoing.len() == self.incoming.len();
        for (position, (&send, &receive)) in self.outgoing.iter().zip(self.incoming).enumerate() {
            let (send, receive) = (InstrId(send), InstrId(receive));
            meetings.pairs.push((meetings.number(self.from, send), meetings.number(self.to, receive)));
            let (given, expected) = (self.value(self.from, send), self.value(self.to, receive));
            if given != expected {
                // From the first on, everything is displaced: one report says it.
                self.mismatch(position, send, receive, report);
                return false;
            }
            sound &= self.sizes(send, receive, report);
        }
        meetings.channel_ends.push(meetings.pairs.len());
        for &send in self.outgoing.iter().skip(self.incoming.len()) {
            let op = &self.facts.plan.ranks[self.from.index()].instrs[send as usize].op;
            report.add(Place::Instr(self.from, InstrId(send)), || Rule::UnmatchedSend {
                what: names::op(self.facts.header, op),
            });
        }
        for &receive in self.incoming.iter().skip(self.outgoing.len()) {
            let op = &self.facts.plan.ranks[self.to.index()].instrs[receive as usize].op;
            report.add(Place::Instr(self.to, InstrId(receive)), || Rule::UnmatchedRecv {
                what: names::op(self.facts.header, op),
            });
        }
        sound
    }

    fn value(&self, rank: Rank, instr: InstrId) -> Option<Value> {
        match self.facts.plan.ranks[rank.index()].instrs[instr.index()].op {
            Op::Send { value, .. } | Op::Recv { value, .. } => Some(value),
            _ => None,
        }
    }

    fn mismatch(&self, position: usize, send: InstrId, receive: InstrId, report: &mut Report) {
        let name = |rank: Rank, instr: InstrId| {
            names::op(self.facts.header, &self.facts.plan.ranks[rank.index()].instrs[instr.index()].op)
        };
        report.add_with(
            Place::Instr(self.to, receive),
            || Rule::TagMismatch {
                position,
                receive: name(self.to, receive),
                send: name(self.from, send),
                from: self.from,
                sends: self.outgoing.len(),
                receives: self.incoming.len(),
            },
            || vec![(Place::Instr(self.from, send), "meets this".to_owned())],
        );
        let (surplus, rank, rest) = if self.outgoing.len() > self.incoming.len() {
            (true, self.from, self.outgoing)
        } else {
            (false, self.to, self.incoming)
        };
        let shorter = self.outgoing.len().min(self.incoming.len());
        if let Some(&instr) = rest.get(shorter) {
            let what = name(rank, InstrId(instr));
            report.add(Place::Instr(rank, InstrId(instr)), || {
                if surplus { Rule::UnmatchedSend { what } } else { Rule::UnmatchedRecv { what } }
            });
        }
    }

    fn sizes(&self, send: InstrId, receive: InstrId, report: &mut Report) -> bool {
        let (from, to) = (&self.facts.plan.ranks[self.from.index()], &self.facts.plan.ranks[self.to.index()]);
        let given = from.operands(&from.instrs[send.index()]).reads().next();
        let got = to.operands(&to.instrs[receive.index()]).writes().next();
        // Sends and receives without a buffer break rule 2, which reports them.
        let (Some(given), Some(got)) = (given, got) else { return true };
        let (given, got) = (&from.buffers[given.index()], &to.buffers[got.index()]);
        if given.shape == got.shape {
            return true;
        }
        report.add_with(
            Place::Instr(self.to, receive),
            || Rule::SizeMismatch { receive: format!("{:?}", got.shape), send: format!("{:?}", given.shape) },
            || vec![(Place::Instr(self.from, send), "meets this".to_owned())],
        );
        false
    }
}
