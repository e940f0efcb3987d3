//! The clock: ranks that are idle choose a pass among those that are ready, until nothing more happens.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::dag::{Dag, NOWHERE, Side};

/// Who chooses the next pass of an idle rank.
pub(crate) trait Choose {
    /// A pass that has not started and is ready, or `None` to wait for something to happen.
    fn choose(&mut self, rank: usize, now: &Now<'_>) -> Option<u32>;
}

/// What a chooser may look at.
#[derive(Debug)]
pub(crate) struct Now<'a> {
    /// The moment.
    pub(crate) time: u64,
    dag: &'a Dag,
    waits: &'a [u32],
    arrived: &'a [u64],
    start: &'a [u64],
}

impl Now<'_> {
    /// Whether a pass has all that it needs.
    pub(crate) fn is_ready(&self, node: u32) -> bool {
        self.waits[node as usize] == 0 && self.arrived[node as usize] <= self.time
    }

    /// Whether a pass has started.
    pub(crate) fn has_started(&self, node: u32) -> bool {
        self.start[node as usize] != NEVER
    }

    /// How long a pass takes.
    pub(crate) fn duration(&self, node: u32) -> u64 {
        self.dag.duration(node)
    }
}

const NEVER: u64 = u64::MAX;

/// What was chosen.
#[derive(Debug)]
pub(crate) struct Played {
    /// The nodes of each rank, in the order in which they ran.
    pub(crate) orders: Vec<Vec<u32>>,
    /// Whether everything ran.
    pub(crate) complete: bool,
}

/// Something that happens: a node ends, or something has arrived at a rank.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Happens {
    Ends(u32),
    Arrives(u32),
}

struct Play<'a> {
    dag: &'a Dag,
    side: Side,
    waits: Vec<u32>,
    arrived: Vec<u64>,
    start: Vec<u64>,
    busy: Vec<bool>,
    woken: Vec<bool>,
    /// The ranks that are woken.
    called: Vec<u32>,
    calendar: BinaryHeap<Reverse<(u64, Happens)>>,
    left: usize,
}

/// Runs until nothing happens any more.
pub(super) fn play(dag: &Dag, side: Side, ranks: usize, chooser: &mut impl Choose) -> Played {
    let mut play = Play {
        dag,
        side,
        waits: dag.waits(side),
        arrived: vec![0; dag.len()],
        start: vec![NEVER; dag.len()],
        busy: vec![false; ranks],
        woken: vec![true; ranks],
        called: (0..ranks as u32).collect(),
        calendar: BinaryHeap::with_capacity(4 * ranks),
        left: dag.len(),
    };
    let mut orders: Vec<Vec<u32>> = vec![Vec::with_capacity(dag.len() / ranks); ranks];
    for node in 0..dag.len() as u32 {
        if play.waits[node as usize] == 0 && dag.rank(node) == NOWHERE {
            play.begin(node, 0);
        }
    }
    let mut time = 0;
    loop {
        play.dispatch(time, chooser, &mut orders);
        let Some(&Reverse((next, _))) = play.calendar.peek() else { break };
        time = next;
        while let Some(&Reverse((at, what))) = play.calendar.peek() {
            if at > time {
                break;
            }
            play.calendar.pop();
            match what {
                Happens::Ends(node) => play.end(node, time),
                Happens::Arrives(rank) => play.wake(rank),
            }
        }
    }
    Played { orders, complete: play.left == 0 }
}

impl Play<'_> {
    fn dispatch(&mut self, time: u64, chooser: &mut impl Choose, orders: &mut [Vec<u32>]) {
        let mut called = std::mem::take(&mut self.called);
        called.sort_unstable();
        for &rank in &called {
            self.woken[rank as usize] = false;
            if self.busy[rank as usize] {
                continue;
            }
            let now =
                Now { time, dag: self.dag, waits: &self.waits, arrived: &self.arrived, start: &self.start };
            if let Some(node) = chooser.choose(rank as usize, &now) {
                debug_assert!(now.is_ready(node) && !now.has_started(node), "only what is ready runs");
                self.busy[rank as usize] = true;
                orders[rank as usize].push(node);
                self.begin(node, time);
            }
        }
        called.clear();
        called.append(&mut self.called);
        self.called = called;
    }

    fn begin(&mut self, node: u32, time: u64) {
        self.start[node as usize] = time;
        self.calendar.push(Reverse((time + self.dag.duration(node), Happens::Ends(node))));
    }

    fn end(&mut self, node: u32, time: u64) {
        self.left -= 1;
        let rank = self.dag.rank(node);
        if rank != NOWHERE {
            self.busy[rank as usize] = false;
            self.wake(rank);
        }
        for &edge in self.dag.out(self.side, node) {
            let to = edge.to as usize;
            self.arrived[to] = self.arrived[to].max(self.dag.arrives(edge, time));
            self.waits[to] -= 1;
            if self.waits[to] > 0 {
                continue;
            }
            let (at, waiting) = (self.arrived[to], self.dag.rank(edge.to));
            if waiting == NOWHERE {
                self.begin(edge.to, at);
            } else if at > time {
                self.calendar.push(Reverse((at, Happens::Arrives(waiting))));
            } else {
                self.wake(waiting);
            }
        }
    }

    fn wake(&mut self, rank: u32) {
        if !std::mem::replace(&mut self.woken[rank as usize], true) {
            self.called.push(rank);
        }
    }
}
