//! Passes into gaps: forward in time, then backward, as long as the makespan shrinks.
//!
//! Orders are run in order. Where a rank waits for its next pass, the first later one of its order that is ready runs instead, if it
//! ends before the next one could have started in the order as it was, and if the rank then never holds more than it may. So nothing
//! ever starts later than before. Backward in time the same moves passes as late as they can be, which opens gaps at the start.

use super::dag::{Dag, Side};
use super::pace::Paced;
use super::play::{Choose, Now, play};
use super::{Filled, Nodes, Room};
use crate::graph::Graph;
use crate::ir::{KindId, Ticks};

/// How far ahead a pass that makes a buffer may be taken from, in passes of its rank: what is looked through to see whether it fits.
const FAR: usize = 256;

/// No stream; there are at most [`super::MANY_STREAMS`].
const NO_STREAM: u16 = u16::MAX;

/// What each kind of pass does to the classes that are limited.
#[derive(Debug)]
pub(super) struct Limits {
    classes: usize,
    /// By kind and limited class: buffers made (1) or freed (-1).
    effects: Vec<i32>,
    /// By limited class and rank.
    most: Vec<Vec<i32>>,
}

impl Limits {
    pub(super) fn new(graph: &Graph<'_>, room: &[Room]) -> Self {
        let mut effects = Vec::new();
        for kind in KindId::all(graph.catalog.kinds.len()).map(|kind| graph.catalog.kind(kind)) {
            for limit in room {
                let (makes, frees) = (kind.makes.contains(&limit.class), kind.frees.contains(&limit.class));
                effects.push(i32::from(makes) - i32::from(frees));
            }
        }
        let most = |&most: &u32| i32::try_from(most).unwrap_or(i32::MAX);
        let most = room.iter().map(|limit| limit.most.iter().map(most).collect()).collect();
        Self { classes: room.len(), effects, most }
    }
}

/// Runs orders once, with gaps filled.
pub(super) fn fill(dag: &Dag, side: Side, limits: &Limits, orders: &Nodes, paced: &Paced) -> Filled {
    let sign = if side == Side::Forward { 1 } else { -1 };
    let effects: Vec<i32> = limits.effects.iter().map(|&effect| effect * sign).collect();
    let mut filler = Filler { dag, classes: limits.classes, effects, paced, ranks: Vec::new() };
    let lanes = orders.iter().enumerate().map(|(rank, order)| {
        let most = limits.most.iter().map(|most| most[rank]).collect();
        Lane::new(&filler, order, most)
    });
    filler.ranks = lanes.collect();
    let played = play(dag, side, orders.len(), &mut filler);
    debug_assert!(played.complete, "an order that runs still runs with its gaps filled");
    Filled { orders: played.orders, before: Ticks(paced.makespan), makespan: Ticks(played.makespan) }
}

struct Filler<'a> {
    dag: &'a Dag,
    classes: usize,
    /// By kind and limited class: what a pass does to it, the way time runs.
    effects: Vec<i32>,
    paced: &'a Paced,
    ranks: Vec<Lane<'a>>,
}

/// One rank on its way through its order.
struct Lane<'a> {
    order: &'a [u32],
    /// By position: whether it has run.
    ran: Vec<bool>,
    /// The first position that has not run.
    head: usize,
    /// The passes of each kind and chunk.
    streams: Vec<Stream>,
    /// By position: the stream that it belongs to.
    members: Vec<u16>,
    /// By limited class and position: buffers live while it runs, if nothing more is moved.
    live: Vec<Vec<i32>>,
    /// Limited classes: what the rank may hold.
    most: Vec<i32>,
    /// How long the shortest pass takes.
    shortest: u64,
}

/// The passes of one kind and chunk, which keep their order.
#[derive(Clone, Default)]
struct Stream {
    positions: Vec<u32>,
    /// How many of them have run.
    next: usize,
}

impl<'a> Lane<'a> {
    fn new(filler: &Filler<'_>, order: &'a [u32], mut most: Vec<i32>) -> Self {
        let dag = filler.dag;
        let mut known: Vec<u16> = Vec::new();
        let mut streams: Vec<Stream> = Vec::new();
        let mut members = Vec::with_capacity(order.len());
        let mut shortest = u64::MAX;
        for (position, &node) in order.iter().enumerate() {
            let stream = dag.stream(node);
            if stream >= known.len() {
                known.resize(stream + 1, NO_STREAM);
            }
            if known[stream] == NO_STREAM {
                known[stream] = streams.len() as u16;
                streams.push(Stream::default());
            }
            members.push(known[stream]);
            streams[usize::from(known[stream])].positions.push(position as u32);
            shortest = shortest.min(dag.duration(node));
        }
        let mut live = Vec::with_capacity(most.len());
        for (class, most) in most.iter_mut().enumerate() {
            let mut now = 0;
            let lives = order.iter().map(|&node| {
                let effect = filler.effects(node)[class];
                let held = now + effect.max(0);
                *most = held.max(*most);
                now += effect;
                held
            });
            live.push(lives.collect());
        }
        Self { order, ran: vec![false; order.len()], head: 0, streams, members, live, most, shortest }
    }

    /// The first position that has not run.
    fn advance(&mut self) -> Option<usize> {
        while *self.ran.get(self.head)? {
            self.head += 1;
        }
        Some(self.head)
    }

    /// The pass at a position has run, the next of its stream.
    fn done(&mut self, position: usize) {
        self.ran[position] = true;
        self.streams[usize::from(self.members[position])].next += 1;
    }

    /// Runs the pass at a position, and counts what it does from the head to its place, which it leaves.
    fn run(&mut self, position: usize, effects: &[i32]) -> u32 {
        self.done(position);
        for (live, &effect) in self.live.iter_mut().zip(effects) {
            if effect != 0 {
                live[self.head..position].iter_mut().for_each(|held| *held += effect);
            }
        }
        self.order[position]
    }

    /// Whether the pass at a position may run now: from the head to its place the rank never holds more than it may.
    fn fits(&self, position: usize, effects: &[i32]) -> bool {
        effects.iter().zip(&self.live).zip(&self.most).all(|((&effect, live), &most)| {
            effect <= 0
                || position - self.head <= FAR
                    && live[self.head..position].iter().all(|&held| held <= most - effect)
        })
    }
}

impl Filler<'_> {
    /// What a node does to the limited classes, the way time runs.
    fn effects(&self, node: u32) -> &[i32] {
        &self.effects[self.dag.kind(node) * self.classes..][..self.classes]
    }

    /// The first position of a rank whose pass is ready, ends before `until`, and fits.
    fn first_free(&self, rank: usize, until: u64, now: &Now<'_>) -> Option<usize> {
        let lane = &self.ranks[rank];
        let mut first = None;
        for stream in &lane.streams {
            let Some(&position) = stream.positions.get(stream.next) else { continue };
            let position = position as usize;
            let node = lane.order[position];
            if first.is_none_or(|first| position < first)
                && now.is_ready(node)
                && now.time + now.duration(node) <= until
                && lane.fits(position, self.effects(node))
            {
                first = Some(position);
            }
        }
        first
    }
}

impl Choose for Filler<'_> {
    fn choose(&mut self, rank: usize, now: &Now<'_>) -> Option<u32> {
        let lane = &mut self.ranks[rank];
        let at = lane.advance()?;
        let head = lane.order[at];
        if now.is_ready(head) {
            lane.done(at);
            lane.head += 1;
            return Some(head);
        }
        let until = self.paced.start(head);
        if now.time + lane.shortest > until {
            return None;
        }
        let position = self.first_free(rank, until, now)?;
        let kind = self.dag.kind(self.ranks[rank].order[position]);
        let effects = &self.effects[kind * self.classes..][..self.classes];
        Some(self.ranks[rank].run(position, effects))
    }
}
