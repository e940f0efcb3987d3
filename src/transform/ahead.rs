//! One rank's order with its backward side free to fall behind: the forward side may run ahead, but no further than a transform deepens.

use super::sides::Sides;
use crate::ir::{Pass, Placed};

/// One rank's passes, side by side.
#[derive(Debug)]
pub(super) struct Ahead {
    forward: Side,
    backward: Side,
    /// By pass of the backward side: how many of the forward side come before it in the order.
    before: Vec<usize>,
    /// By how many passes the forward side may run further ahead than in the order.
    by: usize,
    /// Passes of the forward side since the last one of the backward side.
    since: usize,
}

/// The positions of one side's passes, and how many of them have run.
#[derive(Debug, Default)]
struct Side {
    positions: Vec<usize>,
    ran: usize,
}

impl Side {
    fn head(&self) -> Option<usize> {
        self.positions.get(self.ran).copied()
    }
}

impl Ahead {
    pub(super) fn new(order: &[Placed], sides: &Sides, by: usize) -> Self {
        let (mut forward, mut backward) = (Side::default(), Side::default());
        let mut before = Vec::new();
        for (position, placed) in order.iter().enumerate() {
            if sides.is_backward(placed.pass.kind) {
                before.push(forward.positions.len());
                backward.positions.push(position);
            } else {
                forward.positions.push(position);
            }
        }
        Self { forward, backward, before, by, since: 0 }
    }

    /// The position of the pass to run: of the sides' next ones that are `free` the one that is due as the order has them alternate.
    pub(super) fn choose(&self, order: &[Placed], free: impl Fn(&Pass) -> bool) -> Option<usize> {
        let due = self.before.get(self.backward.ran);
        let open = |&position: &usize| free(&order[position].pass);
        let may_lead = due.is_none_or(|&due| self.forward.ran < due + self.by);
        let forward = || self.forward.head().filter(|_| may_lead).filter(open);
        let may_follow = due.is_some_and(|&due| self.forward.ran >= due);
        let backward = || self.backward.head().filter(|_| may_follow).filter(open);
        let last = self.backward.ran.checked_sub(1).map_or(0, |last| self.before[last]);
        let turn = due.map_or(usize::MAX, |&due| due - last);
        if self.since < turn { forward().or_else(backward) } else { backward().or_else(forward) }
    }

    /// The position of a pass that starts: it is the next of its side.
    pub(super) fn start(&mut self, order: &[Placed], pass: Pass) -> usize {
        let leads = self.forward.head().filter(|&at| order[at].pass == pass);
        if let Some(position) = leads {
            self.forward.ran += 1;
            self.since += 1;
            return position;
        }
        let position = self.backward.positions[self.backward.ran];
        self.backward.ran += 1;
        self.since = 0;
        position
    }

    /// Whether the pass at a position has run.
    pub(super) fn has_run(&self, position: usize) -> bool {
        let ran = |side: &Side| side.positions[..side.ran].binary_search(&position).is_ok();
        ran(&self.forward) || ran(&self.backward)
    }
}
