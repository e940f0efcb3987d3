//! Stuck orders -> the shortest circle of ranks that wait for each other.

use std::collections::VecDeque;

use super::{Deadlock, Graph, Progress, Waiting};
use crate::ir::{Microbatch, Pass, Placed, Rank, Site, Source, Span, Stage, Where};

/// Finds the shortest circle among ranks whose next pass can't start.
///
/// `heads` has, for each rank, the pass that it would run next (`None`: it has ended).
#[must_use]
pub fn find_deadlock(
    graph: &Graph<'_>,
    progress: &Progress,
    heads: &[Option<Placed>],
    origins: &[Span],
) -> Deadlock {
    let waits: Vec<Vec<(Rank, Pass)>> =
        heads.iter().map(|head| missing(graph, progress, head.as_ref())).collect();
    let cycle = (0..heads.len())
        .filter_map(|rank| circle_from(rank, &waits))
        .min_by_key(Vec::len)
        .unwrap_or_default();
    let describe = |&(rank, needed): &(usize, Pass)| {
        let head = heads[rank]?;
        let on = graph.rank_of(needed.site);
        let behind = heads[on.index()].map_or_else(|| graph.name(needed), |head| graph.name(head.pass));
        Some(Waiting {
            rank: Rank::new(rank),
            pass: graph.name(head.pass),
            needs: graph.name(needed),
            span: origins.get(head.origin as usize).copied(),
            behind,
            on,
        })
    };
    Deadlock { cycle: cycle.iter().filter_map(describe).collect() }
}

/// The passes that a head needs and that have not ended, with the rank that should run each.
fn missing(graph: &Graph<'_>, progress: &Progress, head: Option<&Placed>) -> Vec<(Rank, Pass)> {
    let mut found = Vec::new();
    let mut open: Vec<Pass> = head.iter().map(|placed| placed.pass).collect();
    while let Some(pass) = open.pop() {
        for needed in
            needed_passes(graph, pass).into_iter().filter(|&needed| !progress.is_done(graph, needed))
        {
            // A step of a barrier is in nobody's order: what holds it up is what it needs itself.
            if graph.catalog.kind(needed.kind).queue == crate::ir::Queue::Group {
                open.push(needed);
            } else {
                found.push((graph.rank_of(needed.site), needed));
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
    let sites: Vec<Site> = match source {
        Where::All => graph.sites_of(kind).collect(),
        Where::First => vec![Site::Stage(Stage(0))],
        Where::Last => vec![Site::Stage(graph.shape.last())],
    };
    sites.into_iter().map(|site| Pass { kind, site, microbatch }).collect()
}

/// The shortest way from a rank back to itself, as (rank, what it needs of the next).
fn circle_from(start: usize, waits: &[Vec<(Rank, Pass)>]) -> Option<Vec<(usize, Pass)>> {
    let mut from: Vec<Option<(usize, Pass)>> = vec![None; waits.len()];
    let mut open = VecDeque::from([start]);
    while let Some(rank) = open.pop_front() {
        for &(next, needed) in &waits[rank] {
            if next.index() == start {
                let mut cycle = vec![(rank, needed)];
                while let Some(&(at, _)) = cycle.last()
                    && at != start
                {
                    cycle.push(from[at]?);
                }
                cycle.reverse();
                return Some(cycle);
            }
            if from[next.index()].is_none() {
                from[next.index()] = Some((rank, needed));
                open.push_back(next.index());
            }
        }
    }
    None
}
