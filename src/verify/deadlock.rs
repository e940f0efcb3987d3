//! Rule 5: every rank runs to its end, under the chosen semantics of channels.
//!
//! Instructions that happen together (a send and its receive, the members of a collective) are one event. An event waits
//! for what comes before each of its instructions: on the lane, by waits, and in the FIFO of the channel semantics. What is
//! left when all events that can happen have happened is deadlocked.
//!
//! Most plans list each rank's instructions in an order in which they could also run one by one, with rendezvous. That is
//! stricter than any semantics here, and cheap to see, so it is tried first.

use super::channels::Meetings;
use super::cycle;
use super::error::Rule;
use super::facts::Facts;
use super::report::{Place, Report};
use super::{Channel, Fifo, Sends};
use crate::ir::{Lane, Rank, RankPlan};

/// No instruction. The tables of events have several entries for each instruction of a plan, of which there may be 10^7:
/// 4 bytes each, where an `Option` takes 8. No instruction has this number: `structure` refuses plans with 2^32 of them.
pub(super) const NONE: u32 = u32::MAX;

/// Why an instruction waits for another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Why {
    Lane,
    Wait,
    Fifo,
    Buffer,
    Pair,
}

impl Why {
    pub(super) fn words(self) -> &'static str {
        match self {
            Self::Lane => "before it on its lane",
            Self::Wait => "which it waits for",
            Self::Fifo => "before it in the channel's queue",
            Self::Pair => "which the pass that it runs overlapped with waits for",
            Self::Buffer => "which empties or fills the channel's buffer",
        }
    }
}

/// The events of all ranks and what they wait for.
pub(super) struct Events<'a, 'plan> {
    pub(super) facts: &'a Facts<'plan>,
    pub(super) meetings: &'a Meetings,
    /// The event of each instruction, named by one of its instructions.
    pub(super) event: Vec<u32>,
    /// The next instruction of the same event, in a ring.
    ring: Vec<u32>,
    /// The instruction before on the lane.
    lane: Vec<u32>,
    /// The instruction before in the channel's FIFO.
    fifo: Vec<u32>,
    /// The partner that a buffered transfer waits for.
    partner: Vec<u32>,
}

/// Reports the shortest cycle of waiting that is found, if the ranks cannot all run to their end.
pub(super) fn check(facts: &Facts<'_>, meetings: &Meetings, channel: Channel, report: &mut Report) {
    if in_list_order(facts, meetings) {
        return;
    }
    let events = Events::of(facts, meetings, channel);
    let followers = Followers::of(&events);
    let blocked = events.run(&followers);
    let stuck = blocked.iter().filter(|&&count| count > 0).count();
    if stuck == 0 {
        return;
    }
    let cycle = cycle::shortest(&events, &followers, &blocked);
    let Some(head) = cycle.first() else { return };
    let (rank, instr) = meetings.place(head.from);
    report.add_with(
        Place::Instr(rank, instr),
        || Rule::Deadlock { edges: cycle.len(), stuck, cycle: cycle::describe(&events, &cycle) },
        || cycle::places(&events, &cycle),
    );
}

/// Whether every rank can run its whole list as one queue. All that an instruction waits for on its rank is listed before
/// it, so then it runs under any channel semantics.
fn in_list_order(facts: &Facts<'_>, meetings: &Meetings) -> bool {
    let ranks = facts.plan.ranks.len();
    let count = meetings.first[ranks];
    let mut event: Vec<u32> = (0..count).collect();
    let mut ring = event.clone();
    let mut absent = vec![1_u32; count as usize];
    for &(first, other) in meetings.joint.iter().chain(&meetings.pairs) {
        event[other as usize] = first;
        ring.swap(first as usize, other as usize);
        absent[first as usize] += 1;
    }
    let mut next = meetings.first[..ranks].to_vec();
    let mut ready: Vec<usize> = (0..ranks).collect();
    let mut happened = 0;
    while let Some(rank) = ready.pop() {
        while next[rank] < meetings.first[rank + 1] {
            let here = next[rank];
            let absent = &mut absent[event[here as usize] as usize];
            *absent -= 1;
            if *absent > 0 {
                break;
            }
            next[rank] += 1;
            happened += 1;
            let mut member = ring[here as usize];
            while member != here {
                let (other, _) = meetings.place(member);
                next[other.index()] += 1;
                happened += 1;
                ready.push(other.index());
                member = ring[member as usize];
            }
        }
    }
    happened == count
}

impl<'a, 'plan> Events<'a, 'plan> {
    fn of(facts: &'a Facts<'plan>, meetings: &'a Meetings, channel: Channel) -> Self {
        let count = meetings.first[facts.plan.ranks.len()];
        let none = || vec![NONE; count as usize];
        let mut events = Self {
            facts,
            meetings,
            event: (0..count).collect(),
            ring: (0..count).collect(),
            lane: none(),
            fifo: none(),
            partner: none(),
        };
        for &(first, other) in &meetings.joint {
            events.join(first, other);
        }
        match channel.sends {
            Sends::Rendezvous | Sends::Buffered(0) => {
                for &(send, receive) in &meetings.pairs {
                    events.join(send, receive);
                }
            }
            Sends::Buffered(depth) => events.buffer(depth as usize),
        }
        for rank in Rank::all(facts.plan.ranks.len()) {
            events.queue(&facts.plan.ranks[rank.index()], meetings.first[rank.index()], channel.queue);
        }
        events
    }

    fn join(&mut self, first: u32, other: u32) {
        self.event[other as usize] = first;
        self.ring.swap(first as usize, other as usize);
    }

    /// A receive waits for its send, a send for the receive that makes room for it.
    fn buffer(&mut self, depth: usize) {
        let mut start = 0;
        for &end in &self.meetings.channel_ends {
            let pairs = &self.meetings.pairs[start..end];
            for (position, &(send, receive)) in pairs.iter().enumerate() {
                self.partner[receive as usize] = send;
                if let Some(room) = position.checked_sub(depth) {
                    self.partner[send as usize] = pairs[room].1;
                }
            }
            start = end;
        }
    }

    /// Finds the instruction before each on its lane and in its FIFO.
    fn queue(&mut self, plan: &RankPlan, first: u32, queue: Fifo) {
        let mut last = vec![NONE; plan.lanes.len()];
        let shared = fifos(plan, queue);
        let mut last_shared = vec![NONE; plan.lanes.len()];
        for (number, instr) in (first..).zip(&plan.instrs) {
            let lane = instr.lane.index();
            self.lane[number as usize] = std::mem::replace(&mut last[lane], number);
            if let Some(fifo) = shared[lane] {
                self.fifo[number as usize] = std::mem::replace(&mut last_shared[fifo], number);
            }
        }
    }

    /// The instructions that happen together with one, itself first.
    pub(super) fn members(&self, event: u32) -> impl Iterator<Item = u32> + '_ {
        let mut next = Some(event);
        std::iter::from_fn(move || {
            let now = next?;
            let after = self.ring[now as usize];
            next = (after != event).then_some(after);
            Some(now)
        })
    }

    /// Calls `each` with all that an instruction waits for.
    pub(super) fn waits_of(&self, rank: Rank, number: u32, mut each: impl FnMut(u32, Why)) {
        let first = self.meetings.first[rank.index()];
        let plan = &self.facts.plan.ranks[rank.index()];
        for (before, why) in [
            (self.lane[number as usize], Why::Lane),
            (self.fifo[number as usize], Why::Fifo),
            (self.partner[number as usize], Why::Buffer),
        ] {
            if before != NONE {
                each(before, why);
            }
        }
        let at = (number - first) as usize;
        for &wait in plan.operands(&plan.instrs[at]).waits {
            each(first + wait, Why::Wait);
        }
        if plan.instrs[at].overlaps {
            let lane = plan.instrs[at].lane;
            let second = plan.instrs[at + 1..].iter().find(|instr| instr.lane == lane);
            for &wait in second.map_or(&[][..], |second| plan.operands(second).waits) {
                each(first + wait, Why::Pair);
            }
        }
    }

    /// Lets every event happen that can. Returns how much each event still waits for.
    fn run(&self, followers: &Followers) -> Vec<u32> {
        let mut blocked = vec![0; self.event.len()];
        self.each_wait(|number, _| blocked[self.event[number as usize] as usize] += 1);
        let mut ready: Vec<u32> = (0..)
            .zip(&self.event)
            .filter(|&(number, &event)| number == event && blocked[event as usize] == 0)
            .map(|(number, _)| number)
            .collect();
        while let Some(event) = ready.pop() {
            for member in self.members(event) {
                for &follower in followers.of_instr(member) {
                    let follower = self.event[follower as usize];
                    blocked[follower as usize] -= 1;
                    if blocked[follower as usize] == 0 {
                        ready.push(follower);
                    }
                }
            }
        }
        blocked
    }

    fn each_wait(&self, mut each: impl FnMut(u32, u32)) {
        for rank in Rank::all(self.facts.plan.ranks.len()) {
            for number in self.meetings.first[rank.index()]..self.meetings.first[rank.index() + 1] {
                self.waits_of(rank, number, |before, _| each(number, before));
            }
        }
    }
}

/// For each lane, which FIFO its transfers share with those of other lanes, if they do.
fn fifos(plan: &RankPlan, queue: Fifo) -> Vec<Option<usize>> {
    let mut peers: Vec<Rank> = Vec::new();
    if queue == Fifo::PerPair {
        peers = plan.lanes.iter().filter_map(|&lane| peer(lane)).collect();
        peers.sort_unstable();
        peers.dedup();
    }
    let fifo = |lane: &Lane| match queue {
        Fifo::PerDirection => None,
        Fifo::PerPair => peer(*lane).and_then(|peer| peers.binary_search(&peer).ok()),
        Fifo::PerRank => peer(*lane).map(|_| 0),
    };
    plan.lanes.iter().map(fifo).collect()
}

fn peer(lane: Lane) -> Option<Rank> {
    match lane {
        Lane::Send(peer) | Lane::Recv(peer) => Some(peer),
        Lane::Compute | Lane::Group(_) => None,
    }
}

/// For each instruction, those that wait for it: [`Events::waits_of`] the other way round, end to end.
pub(super) struct Followers {
    ends: Vec<u32>,
    numbers: Vec<u32>,
}

impl Followers {
    fn of(events: &Events<'_, '_>) -> Self {
        let mut ends = vec![0_u32; events.event.len() + 1];
        events.each_wait(|_, before| ends[before as usize + 1] += 1);
        for at in 1..ends.len() {
            ends[at] += ends[at - 1];
        }
        let mut numbers = vec![0; ends[events.event.len()] as usize];
        events.each_wait(|number, before| {
            let at = &mut ends[before as usize];
            numbers[*at as usize] = number;
            *at += 1;
        });
        Self { ends, numbers }
    }

    pub(super) fn of_instr(&self, number: u32) -> &[u32] {
        let number = number as usize;
        let start = if number == 0 { 0 } else { self.ends[number - 1] };
        &self.numbers[start as usize..self.ends[number] as usize]
    }
}
