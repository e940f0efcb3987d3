//! One microbatch's passes on a circle: modulo scheduling.
//!
//! A block repeated every T leaves on each rank a circle of circumference T on which the passes of one microbatch must not overlap
//! (Rau 1994, "Iterative modulo scheduling"). Passes are placed one by one along the microbatch's way through the stages, each as
//! early as it can be while the rank's other passes still find room; the best few ways are kept. T grows from a rank's work until
//! the lifespans fit into the memory. The order that comes out has no bubble in its steady state if T is a rank's work.

#![allow(
    clippy::cast_possible_wrap,
    clippy::cast_sign_loss,
    reason = "no pass is placed before 0, and costs bound times far below 2^63"
)]

mod circle;

use std::rc::Rc;

use self::circle::Circle;
use super::Room;
use crate::cost::Costs;
use crate::graph::Graph;
use crate::ir::{Flow, KindId, Microbatch, Pass, Queue, Rank, Site};

/// Ways that are kept.
const WAYS: usize = 8;
/// Places that are tried for a pass.
const PLACES: usize = 3;
/// Steps of T, as a part of a rank's work.
const STEPS: i64 = 60;

/// A block: the start of each of microbatch 0's passes, and the time from one microbatch to the next.
#[derive(Debug)]
pub struct Block {
    /// T.
    every: u64,
    /// Each pass of microbatch 0 with its start.
    starts: Vec<(Pass, u64)>,
}

impl Block {
    /// The passes of every rank by time; steps of barriers are in no rank's order.
    #[must_use]
    pub fn orders(&self, graph: &Graph<'_>) -> Vec<Vec<Pass>> {
        let mut ranks = vec![Vec::new(); graph.shape.ranks as usize];
        for microbatch in Microbatch::all(graph.shape.units()) {
            let later = u64::from(microbatch.0) * self.every;
            for &(pass, start) in &self.starts {
                if graph.catalog.kind(pass.kind).queue == Queue::Group {
                    continue;
                }
                ranks[graph.rank_of(pass.site).index()].push((start + later, Pass { microbatch, ..pass }));
            }
        }
        let sorted = |mut rank: Vec<(u64, Pass)>| {
            rank.sort_unstable_by_key(|&(start, pass)| (start, pass.kind, pass.site, pass.microbatch));
            rank.into_iter().map(|(_, pass)| pass).collect()
        };
        ranks.into_iter().map(sorted).collect()
    }
}

/// Pipelines of more stages are not searched for blocks: the search is quadratic in stages.
const MANY_STAGES: usize = 256;

/// How soon a pass may follow one of another rank.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hops {
    /// As soon as its message is there.
    Short,
    /// A pass and a message later, so that between two passes of a microbatch its neighbours run one of another: in the memory for it, orders
    /// of short hops cannot always hide what messages take (V-Half's stages follow each other like that, V-Min's do not).
    Long,
}

/// The shortest intervals under which one microbatch's passes fit into the room, and one step longer. Empty where none does, or
/// where a microbatch's passes wait for those of another.
#[must_use]
pub fn blocks(graph: &Graph<'_>, costs: &Costs, room: &[Room], hops: Hops) -> Vec<Block> {
    if graph.shape.stages.len() > MANY_STAGES {
        return Vec::new();
    }
    let Some(way) = Way::new(graph, costs, hops) else { return Vec::new() };
    let work = way.work();
    if work == 0 {
        return Vec::new();
    }
    let step = (work / STEPS).max(1);
    let fits = |steps: i64| way.place(work + steps * step, graph, room);
    let (mut fails, mut steps) = (-1, 0);
    let mut found = loop {
        if let Some(block) = fits(steps) {
            break block;
        }
        if steps > STEPS {
            return Vec::new();
        }
        (fails, steps) = (steps, (2 * steps).max(1));
    };
    while steps - fails > 1 {
        let middle = fails + (steps - fails) / 2;
        match fits(middle) {
            Some(block) => (found, steps) = (block, middle),
            None => fails = middle,
        }
    }
    std::iter::once(found).chain(fits(steps + 1)).collect()
}

/// One microbatch's passes in the order in which they are placed.
struct Way {
    passes: Vec<Pass>,
    /// The rank whose compute lane each pass takes, if it takes one.
    rank: Vec<Option<usize>>,
    duration: Vec<i64>,
    /// For each pass: those it needs, and the latency of the message between.
    needs: Vec<Vec<(u32, i64)>>,
    ranks: usize,
}

/// A partial placement.
#[derive(Clone)]
struct Placement {
    /// By position in [`Way::passes`].
    starts: Vec<i64>,
    circles: Vec<Rc<Circle>>,
}

impl Way {
    /// By the moment that each pass could start if ranks were free; what nothing waits for comes last.
    fn new(graph: &Graph<'_>, costs: &Costs, hops: Hops) -> Option<Self> {
        // One microbatch stands for all only where all take the same way.
        if graph.shape.flows > 1 {
            return None;
        }
        // Slices of one microbatch wait for each other, and passes in lock step for all ranks.
        let waits = |kind: &KindId| graph.catalog.kind(*kind).queue == Queue::Lockstep;
        let kinds = KindId::all(graph.catalog.kinds.len());
        if graph.shape.slices > 1 || kinds.clone().any(|kind| waits(&kind)) {
            return None;
        }
        let microbatch = Microbatch(0);
        let of_kind = |kind| graph.sites_of(kind, Flow(0)).map(move |site| Pass { kind, site, microbatch });
        let passes: Vec<Pass> = kinds.flat_map(of_kind).collect();
        let mut first = vec![0; graph.catalog.kinds.len()];
        for (at, pass) in passes.iter().enumerate().rev() {
            first[pass.kind.index()] = at;
        }
        let at = |pass: Pass| first[pass.kind.index()] + crate::graph::site_index(pass.site);
        let duration: Vec<i64> = passes.iter().map(|pass| costs.pass(*pass).0 as i64).collect();
        let of_stages = passes.iter().zip(&duration).filter(|(pass, _)| matches!(pass.site, Site::Stage(_)));
        let shortest =
            of_stages.map(|(_, &duration)| duration).filter(|&duration| duration > 0).min().unwrap_or(0);
        let mut needs = vec![Vec::new(); passes.len()];
        let mut needed = vec![false; passes.len()];
        for (from, &pass) in passes.iter().enumerate() {
            graph.for_dependents(pass, |dependent| {
                let [here, there] = [pass, dependent].map(|pass| graph.rank_of(pass.site));
                let delay = costs.message(here, there).0 as i64;
                let more = if here == there || hops == Hops::Short { 0 } else { delay + shortest };
                needs[at(dependent)].push((from as u32, delay + more));
                needed[from] = true;
            });
            for id in graph.feeds(pass) {
                let delay = costs.collective(id).0 as i64;
                needed[from] = true;
                graph.for_readers(id, microbatch, |reader| needs[at(reader)].push((from as u32, delay)));
            }
        }
        let (soonest, mut order) = soonest(&needs, &duration)?;
        // Stable, so that passes that take no time still come after what they need.
        order.sort_by_key(|&at| (!needed[at as usize], soonest[at as usize]));
        let mut position = vec![0_u32; passes.len()];
        for (place, &at) in order.iter().enumerate() {
            position[at as usize] = place as u32;
        }
        let pick = |at: &u32| *at as usize;
        let moved = |at: usize| {
            needs[at].iter().map(|&(from, delay)| (position[from as usize], delay)).collect::<Vec<_>>()
        };
        let lane = |at: usize| {
            let computes = graph.catalog.kind(passes[at].kind).queue == Queue::Compute;
            computes.then(|| graph.rank_of(passes[at].site).index())
        };
        Some(Self {
            rank: order.iter().map(pick).map(lane).collect(),
            duration: order.iter().map(pick).map(|at| duration[at]).collect(),
            needs: order.iter().map(pick).map(moved).collect(),
            passes: order.iter().map(pick).map(|at| passes[at]).collect(),
            ranks: graph.shape.ranks as usize,
        })
    }

    /// The longest time that one microbatch keeps a rank busy.
    fn work(&self) -> i64 {
        let mut work = vec![0; self.ranks];
        for (rank, duration) in self.rank.iter().zip(&self.duration) {
            if let Some(rank) = *rank {
                work[rank] += duration;
            }
        }
        work.into_iter().max().unwrap_or(0)
    }

    /// The best placement for a T whose lifespans fit.
    fn place(&self, every: i64, graph: &Graph<'_>, room: &[Room]) -> Option<Block> {
        let mut left = vec![Vec::new(); self.ranks];
        for (rank, &duration) in self.rank.iter().zip(&self.duration) {
            if let Some(rank) = *rank {
                left[rank].push(duration);
            }
        }
        let circles = left.into_iter().map(|left| Rc::new(Circle::new(every, left))).collect();
        let mut ways = vec![Placement { starts: Vec::with_capacity(self.passes.len()), circles }];
        for at in 0..self.passes.len() {
            ways = self.extend(&ways, at);
        }
        let starts = |way: Placement| {
            let starts = way.starts.into_iter().map(|start| start as u64);
            Block { every: every as u64, starts: self.passes.iter().copied().zip(starts).collect() }
        };
        ways.into_iter().map(starts).find(|block| self.fits(block, graph, room))
    }

    /// Every way one pass further; the earliest few.
    fn extend(&self, ways: &[Placement], at: usize) -> Vec<Placement> {
        let (rank, duration) = (self.rank[at], self.duration[at]);
        let mut next: Vec<(i64, usize, Option<Circle>)> = Vec::new();
        for (index, way) in ways.iter().enumerate() {
            let ends = |&(from, delay): &(u32, i64)| {
                way.starts[from as usize] + self.duration[from as usize] + delay
            };
            let ready = self.needs[at].iter().map(ends).max().unwrap_or(0);
            let Some(rank) = rank else {
                next.push((ready, index, None));
                continue;
            };
            let places = way.circles[rank].places(ready, duration, PLACES);
            next.extend(places.into_iter().map(|(start, circle)| (start, index, Some(circle))));
        }
        next.sort_by_key(|&(start, index, _)| (start, index));
        next.truncate(WAYS);
        let grown = |(start, index, circle): (i64, usize, Option<Circle>)| {
            let mut way = ways[index].clone();
            way.starts.push(start);
            if let (Some(rank), Some(circle)) = (rank, circle) {
                way.circles[rank] = Rc::new(circle);
            }
            way
        };
        next.into_iter().map(grown).collect()
    }

    /// Whether what is live in the steady state fits.
    fn fits(&self, block: &Block, graph: &Graph<'_>, room: &[Room]) -> bool {
        let every = block.every as i64;
        room.iter().all(|limit| {
            let mut made: Vec<Vec<(usize, i64)>> = vec![Vec::new(); self.ranks];
            let mut freed: Vec<Vec<(usize, i64)>> = made.clone();
            for (at, &(pass, start)) in block.starts.iter().enumerate() {
                let kind = graph.catalog.kind(pass.kind);
                let site = crate::graph::site_index(pass.site);
                let Some(rank) = self.rank[at] else { continue };
                if kind.makes.contains(&limit.class) {
                    made[rank].push((site, start as i64));
                }
                if kind.frees.contains(&limit.class) {
                    freed[rank].push((site, start as i64 + self.duration[at]));
                }
            }
            Rank::all(self.ranks).all(|rank| {
                let (made, freed) = (&made[rank.index()], &freed[rank.index()]);
                let live = |now: i64| -> i64 {
                    let begun: i64 = made.iter().map(|&(_, start)| (now - start).div_euclid(every)).sum();
                    let ended: i64 = freed.iter().map(|&(_, end)| (now - end).div_euclid(every)).sum();
                    begun - ended
                };
                made.iter().all(|&(_, start)| live(start) <= i64::from(limit.most[rank.index()]))
            })
        })
    }
}

/// When each pass could start if ranks were free, and the passes in an order in which each comes after what it needs; `None` where they
/// wait for each other in a circle.
fn soonest(needs: &[Vec<(u32, i64)>], duration: &[i64]) -> Option<(Vec<i64>, Vec<u32>)> {
    let mut after = vec![Vec::new(); needs.len()];
    let mut waits: Vec<usize> = needs.iter().map(Vec::len).collect();
    for (at, needs) in needs.iter().enumerate() {
        for &(from, delay) in needs {
            after[from as usize].push((at, delay));
        }
    }
    let mut ready: Vec<usize> = (0..needs.len()).filter(|&at| waits[at] == 0).collect();
    let mut start = vec![0; needs.len()];
    let mut order = Vec::with_capacity(needs.len());
    while let Some(at) = ready.pop() {
        order.push(at as u32);
        for &(to, delay) in &after[at] {
            start[to] = start[to].max(start[at] + duration[at] + delay);
            waits[to] -= 1;
            if waits[to] == 0 {
                ready.push(to);
            }
        }
    }
    (order.len() == needs.len()).then_some((start, order))
}
