//! Passes into gaps: forward in time, then backward, as long as the makespan shrinks.
//!
//! Orders are run in order. Where a rank waits for its next pass, the first later one of its order that is ready runs instead, if it
//! ends before the next one could have started in the order as it was, and if the rank then never holds more than it may. So nothing
//! ever starts later than before. Backward in time the same moves passes as late as they can be, which opens gaps at the start.

use std::num::NonZeroU32;

use smallvec::SmallVec;

use super::Room;
use super::dag::{Dag, Side};
use super::pace::{Paced, pace};
use super::play::{Choose, Now, play};
use crate::graph::Graph;
use crate::ir::KindId;

/// How far ahead a pass that makes a buffer may be taken from, in passes of its rank: what is looked through to see whether it fits.
const FAR: usize = 256;

/// What each kind of pass does to the classes that are limited.
#[derive(Debug)]
pub(super) struct Limits {
    classes: usize,
    /// By kind and limited class: buffers made (1) or freed (-1).
    effects: Vec<i8>,
    /// By limited class and rank.
    most: Vec<Vec<u32>>,
}

impl Limits {
    pub(super) fn new(graph: &Graph<'_>, room: &[Room]) -> Self {
        let mut effects = Vec::new();
        for kind in KindId::all(graph.catalog.kinds.len()).map(|kind| graph.catalog.kind(kind)) {
            for limit in room {
                let (makes, frees) = (kind.makes.contains(&limit.class), kind.frees.contains(&limit.class));
                effects.push(i8::from(makes) - i8::from(frees));
            }
        }
        Self { classes: room.len(), effects, most: room.iter().map(|limit| limit.most.clone()).collect() }
    }

    fn effects(&self, kind: usize) -> &[i8] {
        &self.effects[kind * self.classes..][..self.classes]
    }
}

/// Improves orders until a round gains nothing; `None` where they deadlock.
pub(super) fn improve(
    dag: &Dag,
    limits: &Limits,
    mut orders: Vec<Vec<u32>>,
    rounds: NonZeroU32,
) -> Option<(Vec<Vec<u32>>, u64)> {
    let mut paced = pace(dag, Side::Forward, &orders)?;
    for _ in 0..rounds.get() {
        let before = paced.makespan;
        orders = fill(dag, Side::Forward, limits, &orders, &paced);
        reverse(&mut orders);
        let back = pace(dag, Side::Backward, &orders)?;
        orders = fill(dag, Side::Backward, limits, &orders, &back);
        reverse(&mut orders);
        paced = pace(dag, Side::Forward, &orders)?;
        if paced.makespan >= before {
            break;
        }
    }
    let orders = fill(dag, Side::Forward, limits, &orders, &paced);
    let makespan = pace(dag, Side::Forward, &orders)?.makespan;
    Some((orders, makespan))
}

fn reverse(orders: &mut [Vec<u32>]) {
    for order in orders {
        order.reverse();
    }
}

fn fill(dag: &Dag, side: Side, limits: &Limits, orders: &[Vec<u32>], paced: &Paced) -> Vec<Vec<u32>> {
    let mut filler = Filler { dag, side, limits, paced, ranks: Vec::new() };
    filler.ranks = orders.iter().enumerate().map(|(rank, order)| Lane::new(&filler, rank, order)).collect();
    let played = play(dag, side, orders.len(), &mut filler);
    debug_assert!(played.complete, "an order that runs still runs with its gaps filled");
    played.orders
}

struct Filler<'a> {
    dag: &'a Dag,
    side: Side,
    limits: &'a Limits,
    paced: &'a Paced,
    ranks: Vec<Lane<'a>>,
}

/// One rank on its way through its order.
struct Lane<'a> {
    order: &'a [u32],
    /// The first position that has not run.
    head: usize,
    /// Positions of the passes of one kind and chunk, and how many of them have run.
    streams: Vec<(Vec<u32>, usize)>,
    /// By position and limited class: buffers live while it runs, if nothing more is moved.
    live: Vec<i64>,
    /// Limited classes: what the rank may hold.
    most: Vec<u32>,
}

impl<'a> Lane<'a> {
    fn new(filler: &Filler<'_>, rank: usize, order: &'a [u32]) -> Self {
        let classes = filler.limits.classes;
        let mut streams: Vec<(Vec<u32>, usize)> = Vec::new();
        let mut live = Vec::with_capacity(order.len() * classes);
        let mut now = vec![0_i64; classes];
        let mut most: Vec<u32> = filler.limits.most.iter().map(|most| most[rank]).collect();
        for (position, &node) in order.iter().enumerate() {
            let stream = filler.dag.stream(node);
            streams.resize(streams.len().max(stream + 1), (Vec::new(), 0));
            streams[stream].0.push(position as u32);
            for (class, effect) in filler.effects(node).enumerate() {
                now[class] += effect.max(0);
                live.push(now[class]);
                most[class] = most[class].max(u32::try_from(now[class]).unwrap_or(0));
                now[class] += effect.min(0);
            }
        }
        Self { order, head: 0, streams, live, most }
    }
}

impl Filler<'_> {
    /// What a node does to the limited classes, the way time runs.
    fn effects(&self, node: u32) -> impl Iterator<Item = i64> + '_ {
        let sign = if self.side == Side::Forward { 1 } else { -1 };
        self.limits.effects(self.dag.kind(node)).iter().map(move |&effect| i64::from(effect) * sign)
    }

    /// Whether the pass at a position may run now: from the head to its place the rank never holds more than it may.
    fn fits(&self, lane: &Lane<'_>, position: usize) -> bool {
        let classes = self.limits.classes;
        self.effects(lane.order[position]).enumerate().all(|(class, effect)| {
            let most = i64::from(lane.most[class]) - effect;
            let held = lane.live[lane.head * classes..position * classes].iter().skip(class).step_by(classes);
            effect <= 0 || position - lane.head <= FAR && held.into_iter().all(|&held| held <= most)
        })
    }
}

impl Lane<'_> {
    /// Counts what a pass does from the head to its place, which it leaves.
    fn move_ahead(&mut self, position: usize, classes: usize, effects: impl Iterator<Item = i64>) {
        for (class, effect) in effects.enumerate().filter(|&(_, effect)| effect != 0) {
            for at in self.head..position {
                self.live[at * classes + class] += effect;
            }
        }
    }
}

impl Choose for Filler<'_> {
    fn choose(&mut self, rank: usize, now: &Now<'_>) -> Option<u32> {
        let lane = &mut self.ranks[rank];
        while lane.order.get(lane.head).is_some_and(|&node| now.has_started(node)) {
            lane.head += 1;
        }
        let head = *lane.order.get(lane.head)?;
        if now.is_ready(head) {
            lane.head += 1;
            return Some(head);
        }
        for (positions, ran) in &mut lane.streams {
            while positions.get(*ran).is_some_and(|&at| now.has_started(lane.order[at as usize])) {
                *ran += 1;
            }
        }
        let until = self.paced.start[head as usize];
        let lane = &self.ranks[rank];
        let free = |&position: &u32| {
            let node = lane.order[position as usize];
            now.is_ready(node) && now.time + now.duration(node) <= until && self.fits(lane, position as usize)
        };
        let heads = lane.streams.iter().filter_map(|(positions, ran)| positions.get(*ran).copied());
        let position = heads.filter(free).min()?;
        let node = lane.order[position as usize];
        let effects: SmallVec<[i64; 4]> = self.effects(node).collect();
        self.ranks[rank].move_ahead(position as usize, self.limits.classes, effects.into_iter());
        Some(node)
    }
}
