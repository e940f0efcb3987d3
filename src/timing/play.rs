//! The clock: ranks that are idle choose a pass among those that are ready, until nothing more happens.

use super::dag::{Dag, NOWHERE, Side};
use super::moments::Moments;

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
    states: &'a [State],
}

/// What is known of a node.
#[derive(Clone, Copy, Debug)]
struct State {
    /// When the last of what has arrived did.
    arrived: u64,
    /// What has not arrived.
    waits: u32,
    started: bool,
}

impl Now<'_> {
    /// Whether a pass has all that it needs.
    pub(crate) fn is_ready(&self, node: u32) -> bool {
        let state = &self.states[node as usize];
        state.waits == 0 && state.arrived <= self.time
    }

    /// How long a pass takes.
    pub(crate) fn duration(&self, node: u32) -> u64 {
        self.dag.duration(node)
    }
}

/// What was chosen.
#[derive(Debug)]
pub(crate) struct Played {
    /// The nodes of each rank, in the order in which they ran.
    pub(crate) orders: Vec<Vec<u32>>,
    /// Whether everything ran.
    pub(crate) complete: bool,
    /// The end of the last pass.
    pub(super) makespan: u64,
}

/// Something that happens: a node ends, or something has arrived at a rank.
#[derive(Clone, Copy, Debug)]
enum Happens {
    Ends(u32),
    Arrives(u32),
}

struct Play<'a> {
    dag: &'a Dag,
    side: Side,
    states: Vec<State>,
    busy: Vec<bool>,
    woken: Vec<bool>,
    /// The ranks that are woken.
    called: Vec<u32>,
    calendar: Moments<Happens>,
    left: usize,
    makespan: u64,
}

/// Runs until nothing happens any more.
pub(super) fn play(dag: &Dag, side: Side, ranks: usize, chooser: &mut impl Choose) -> Played {
    let mut play = Play {
        dag,
        side,
        states: dag.waits(side).map(|waits| State { arrived: 0, waits, started: false }).collect(),
        busy: vec![false; ranks],
        woken: vec![true; ranks],
        called: (0..ranks as u32).collect(),
        calendar: Moments::new(),
        left: dag.len(),
        makespan: 0,
    };
    let mut orders: Vec<Vec<u32>> = vec![Vec::with_capacity(dag.len() / ranks); ranks];
    for node in 0..dag.len() as u32 {
        if play.states[node as usize].waits == 0 && dag.rank(node) == NOWHERE {
            play.begin(node, 0);
        }
    }
    let mut time = 0;
    let mut happens = Vec::new();
    loop {
        play.dispatch(time, chooser, &mut orders);
        let Some(next) = play.calendar.next() else { break };
        time = next;
        while play.calendar.next() == Some(time) {
            play.calendar.take(&mut happens);
            for what in happens.drain(..) {
                match what {
                    Happens::Ends(node) => play.end(node, time),
                    Happens::Arrives(rank) => play.wake(rank),
                }
            }
        }
    }
    Played { orders, complete: play.left == 0, makespan: play.makespan }
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
            let now = Now { time, dag: self.dag, states: &self.states };
            if let Some(node) = chooser.choose(rank as usize, &now) {
                debug_assert!(
                    now.is_ready(node) && !self.states[node as usize].started,
                    "only what is ready runs"
                );
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
        self.states[node as usize].started = true;
        self.calendar.enter(time + self.dag.duration(node), Happens::Ends(node));
    }

    fn end(&mut self, node: u32, time: u64) {
        self.left -= 1;
        let rank = self.dag.rank(node);
        if rank != NOWHERE {
            self.busy[rank as usize] = false;
            self.makespan = time;
            self.wake(rank);
        }
        for &edge in self.dag.out(self.side, node) {
            let state = &mut self.states[edge.to as usize];
            state.arrived = state.arrived.max(self.dag.arrives(edge, time));
            state.waits -= 1;
            if state.waits > 0 {
                continue;
            }
            let (at, waiting) = (state.arrived, self.dag.rank(edge.to));
            if waiting == NOWHERE {
                self.begin(edge.to, at);
            } else if at > time {
                self.calendar.enter(at, Happens::Arrives(waiting));
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
