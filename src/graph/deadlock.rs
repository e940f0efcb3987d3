//! Stuck orders -> the shortest circle of ranks that wait for each other.

use std::collections::VecDeque;

use super::{Deadlock, Graph, Progress, Waiting};
use crate::ir::{Microbatch, Pass, Placed, Rank, Site, Source, Span, Where};

/// Finds the shortest circle among ranks whose next pass can't start.
///
/// `heads` has, for each rank, what it would run next: see [`heads_of`].
#[must_use]
pub fn find_deadlock(
    graph: &Graph<'_>,
    progress: &Progress,
    heads: &[Vec<Placed>],
    origins: &[Span],
) -> Deadlock {
    let waits: Vec<Vec<Wait>> = heads.iter().map(|head| missing(graph, progress, head)).collect();
    let cycle = (0..heads.len())
        .filter_map(|rank| circle_from(rank, &waits))
        .min_by_key(Vec::len)
        .unwrap_or_default();
    let describe = |&(rank, wait): &(usize, Wait)| {
        let head = heads[rank].iter().find(|head| head.pass == wait.by)?;
        let other = heads[rank].iter().find(|other| other.pass != wait.by);
        let pair =
            other.map_or_else(String::new, |other| format!(" (overlapped with {})", graph.name(other.pass)));
        let next = heads[wait.on.index()].first();
        let behind = next.map_or_else(|| graph.name(wait.needed), |head| graph.name(head.pass));
        Some(Waiting {
            rank: Rank::new(rank),
            pass: graph.name(head.pass) + &pair,
            needs: graph.name(wait.needed),
            span: origins.get(head.origin as usize).copied(),
            behind,
            on: wait.on,
        })
    };
    Deadlock { cycle: cycle.iter().filter_map(describe).collect() }
}

/// What the next passes of every rank are, from how far each has come: one, two where they are a pair, none at the end.
#[must_use]
pub fn heads_of(orders: &[Vec<Placed>], next: &[usize]) -> Vec<Vec<Placed>> {
    let heads = |(order, &next): (&Vec<Placed>, &usize)| {
        let paired = order.get(next).is_some_and(|head| head.overlaps);
        order.iter().skip(next).take(1 + usize::from(paired)).copied().collect()
    };
    orders.iter().zip(next).map(heads).collect()
}

/// A pass that waits for one that has not ended.
#[derive(Clone, Copy, Debug)]
struct Wait {
    by: Pass,
    needed: Pass,
    /// The rank that should run it.
    on: Rank,
}

/// What the next passes of a rank need and has not ended.
fn missing(graph: &Graph<'_>, progress: &Progress, heads: &[Placed]) -> Vec<Wait> {
    let mut found = Vec::new();
    for head in heads {
        let mut open = vec![head.pass];
        while let Some(pass) = open.pop() {
            let needed = needed_passes(graph, pass);
            for needed in needed.into_iter().filter(|&needed| !progress.is_done(graph, needed)) {
                // A step of a barrier is in nobody's order: what holds it up is what it needs itself.
                if graph.catalog.kind(needed.kind).queue == crate::ir::Queue::Group {
                    open.push(needed);
                } else {
                    found.push(Wait { by: head.pass, needed, on: graph.rank_of(needed.site) });
                }
            }
        }
    }
    found
}

fn needed_passes(graph: &Graph<'_>, pass: Pass) -> Vec<Pass> {
    let mut passes = Vec::new();
    for need in &graph.catalog.kind(pass.kind).needs {
        match need.from {
            Source::Pass { .. } => passes.extend(graph.needed_pass(need, pass)),
            Source::Collective(id) if graph.matches(need.on, pass.site) => {
                let collective = graph.catalog.collective(id);
                passes.extend(contributors(graph, collective.kind, collective.source, pass.microbatch));
            }
            Source::Collective(_) => {}
        }
    }
    passes
}

fn contributors(
    graph: &Graph<'_>,
    kind: crate::ir::KindId,
    source: Where,
    microbatch: Microbatch,
) -> Vec<Pass> {
    let flow = graph.shape.flow_of(microbatch);
    let sites: Vec<Site> = match graph.end(source, flow) {
        None => graph.sites_of(kind, flow).collect(),
        Some(stage) => vec![Site::Stage(stage)],
    };
    sites.into_iter().map(|site| Pass { kind, site, microbatch }).collect()
}

/// The shortest way from a rank back to itself, as (rank, what it waits for).
fn circle_from(start: usize, waits: &[Vec<Wait>]) -> Option<Vec<(usize, Wait)>> {
    let mut from: Vec<Option<(usize, Wait)>> = vec![None; waits.len()];
    let mut open = VecDeque::from([start]);
    while let Some(rank) = open.pop_front() {
        for &wait in &waits[rank] {
            let next = wait.on.index();
            if next == start {
                let mut cycle = vec![(rank, wait)];
                while let Some(&(at, _)) = cycle.last()
                    && at != start
                {
                    cycle.push(from[at]?);
                }
                cycle.reverse();
                return Some(cycle);
            }
            if from[next].is_none() {
                from[next] = Some((rank, wait));
                open.push_back(next);
            }
        }
    }
    None
}
