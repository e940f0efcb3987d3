//! Messages and collectives between ranks of one device: copies and sums inside its memory, with events in place of a network.
//!
//! All members of an exchange are issued together, as with rendezvous: first each marks that what it gives is there, then who takes it
//! waits for that and marks when it has, then who gave waits for that before its lane goes on. Sums are taken in rank order, by one
//! member, so that bits repeat and are the same on all.

use super::calls::Calls;
use super::layer::int;
use super::ranks::LaneQueue;
use crate::cuda::{Address, Argument};
use crate::ir::CollectiveOp;
use crate::kernels::{Stored, launch};

/// One rank's part in a collective.
#[derive(Clone, Copy, Debug)]
pub(super) struct Member {
    pub(super) lane: LaneQueue,
    pub(super) gives: Option<Address>,
    pub(super) gets: Option<Address>,
}

/// Moves a buffer from one rank to another.
pub(super) fn message(
    calls: &mut Calls,
    (from, gives): (LaneQueue, Address),
    (to, gets): (LaneQueue, Address),
    bytes: u64,
) {
    calls.record(from.ready, from.queue);
    calls.wait(to.queue, from.ready);
    calls.copy(to.queue, gets, gives, bytes);
    calls.record(to.done, to.queue);
    calls.wait(from.queue, to.done);
}

/// A collective of members in rank order.
pub(super) struct Exchange<'a> {
    pub(super) calls: &'a mut Calls,
    pub(super) members: &'a [Member],
    pub(super) op: CollectiveOp,
    /// The position of who gives or gets, where that is one.
    pub(super) root: usize,
    /// Words of a contribution.
    pub(super) elements: u64,
    /// What a sum takes them for.
    pub(super) stored: Stored,
    /// A width that most contributions are rows of.
    pub(super) hidden: u32,
}

impl Exchange<'_> {
    /// The calls of all members.
    pub(super) fn run(&mut self) {
        for member in self.members {
            self.calls.record(member.lane.ready, member.lane.queue);
        }
        match self.op {
            CollectiveOp::Broadcast => self.broadcast(),
            CollectiveOp::Reduce => {
                self.wait_for_all(self.root);
                if let Some(to) = self.members[self.root].gets {
                    self.sum(self.root, to, 0, self.elements);
                }
                self.done(self.root);
                self.all_wait_for(self.root);
            }
            CollectiveOp::AllReduce => self.all_reduce(),
            CollectiveOp::AllGather | CollectiveOp::ReduceScatter => self.each_takes(),
        }
    }

    /// One member waits until all contributions are there.
    fn wait_for_all(&mut self, member: usize) {
        for (index, other) in self.members.iter().enumerate() {
            if index != member {
                self.calls.wait(self.members[member].lane.queue, other.lane.ready);
            }
        }
    }

    fn done(&mut self, member: usize) {
        let lane = self.members[member].lane;
        self.calls.record(lane.done, lane.queue);
    }

    /// All others go on once one member is done.
    fn all_wait_for(&mut self, member: usize) {
        let done = self.members[member].lane.done;
        for (index, other) in self.members.iter().enumerate() {
            if index != member {
                self.calls.wait(other.lane.queue, done);
            }
        }
    }

    fn broadcast(&mut self) {
        let root = self.members[self.root];
        for (index, member) in self.members.iter().enumerate() {
            if index == self.root {
                continue;
            }
            self.calls.wait(member.lane.queue, root.lane.ready);
            if let (Some(to), Some(from)) = (member.gets, root.gives) {
                self.calls.copy(member.lane.queue, to, from, 4 * self.elements);
            }
            self.calls.record(member.lane.done, member.lane.queue);
            self.calls.wait(root.lane.queue, member.lane.done);
        }
    }

    /// The first member sums, maybe in place; the others copy.
    fn all_reduce(&mut self) {
        let Some(first) = self.members.iter().position(|member| member.gets.is_some()) else { return };
        let Some(sum) = self.members[first].gets else { return };
        self.wait_for_all(first);
        self.sum(first, sum, 0, self.elements);
        self.done(first);
        self.all_wait_for(first);
        for (index, member) in self.members.iter().enumerate().filter(|(index, _)| *index != first) {
            if let Some(to) = member.gets {
                self.calls.copy(member.lane.queue, to, sum, 4 * self.elements);
            }
            self.done(index);
            self.calls.wait(self.members[first].lane.queue, member.lane.done);
        }
    }

    /// Every member takes its own share of all contributions.
    fn each_takes(&mut self) {
        let count = self.members.len();
        for index in 0..count {
            self.wait_for_all(index);
            if let Some(to) = self.members[index].gets {
                if self.op == CollectiveOp::AllGather {
                    self.gather(index, to);
                } else {
                    let elements = self.elements / count as u64;
                    self.sum(index, to, index as u64 * elements, elements);
                }
            }
            self.done(index);
        }
        for index in 0..count {
            self.all_wait_for(index);
        }
    }

    fn gather(&mut self, member: usize, to: Address) {
        let queue = self.members[member].lane.queue;
        for (index, other) in self.members.iter().enumerate() {
            if let Some(from) = other.gives {
                let to = to.plus(4 * self.elements * index as u64);
                self.calls.copy(queue, to, from, 4 * self.elements);
            }
        }
    }

    /// The sum of all contributions, from a word on, in rank order.
    fn sum(&mut self, member: usize, to: Address, start: u64, words: u64) {
        let queue = self.members[member].lane.queue;
        let (hidden, elements) = (u64::from(self.hidden), words * 4 / u64::from(self.stored.bytes()));
        // Rows, so that there is more than one block.
        let width = if elements.is_multiple_of(hidden) { hidden } else { elements } as u32;
        let rows = elements.checked_div(width.into()).unwrap_or(0) as u32;
        if rows == 0 {
            return;
        }
        let all = || self.members.iter().filter_map(|member| member.gives);
        let parts: Vec<Address> = all().map(|at| at.plus(4 * start)).collect();
        let Some((&first, others)) = parts.split_first() else { return };
        self.calls.copy(queue, to, first, 4 * words);
        for &part in others {
            // What adds the rows of a table to those of as many tokens adds any two matrices.
            let arguments = [Argument::At(to), Argument::At(part), int(rows), int(width)];
            let launch = launch::positions_add(self.stored, rows, width);
            self.calls.launch(queue, launch, self.stored, &arguments);
        }
    }
}
