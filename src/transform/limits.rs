//! A transform's limits while its passes are being placed.

use super::TransformError;
use crate::graph::Graph;
use crate::ir::{Flow, KindId, Limit, Pass, Rank, Schedule, Site, Span, Where};
use crate::timing::peaks;

/// How far each rank is with everything that a limit counts.
#[derive(Debug)]
pub(super) struct Limits<'a> {
    all: &'a [Limit],
    ranks: usize,
    flows: usize,
    /// By limit, flow and rank: passes started that make the class, or that run ahead. The flows share a class: flow 0 has all.
    ahead: Vec<u32>,
    /// By limit, flow and rank: passes started that free the class, or that are run ahead of.
    behind: Vec<u32>,
}

impl<'a> Limits<'a> {
    pub(super) fn new(limits: &'a [Limit], ranks: usize, flows: u32) -> Self {
        let flows = flows as usize;
        let none = vec![0; limits.len() * flows * ranks];
        Self { all: limits, ranks, flows, ahead: none.clone(), behind: none }
    }

    /// The limit that holds a new pass of this kind back on a rank.
    pub(super) fn holding(&self, graph: &Graph<'_>, kind: KindId, rank: Rank, flow: Flow) -> Option<Span> {
        self.all.iter().enumerate().find_map(|(index, limit)| match *limit {
            Limit::Class { class, most, span } => (graph.catalog.kind(kind).makes.contains(&class)
                && self.is_full(index, Flow(0), rank, most))
            .then_some(span),
            Limit::Ahead { pass, most, span, .. } => {
                (pass.0 == kind && self.is_full(index, flow, rank, most)).then_some(span)
            }
        })
    }

    /// Whether a pass of this kind on a rank would give room under a limit that is reached there.
    pub(super) fn presses(&self, graph: &Graph<'_>, kind: KindId, rank: Rank, flow: Flow) -> bool {
        self.all.iter().enumerate().any(|(index, limit)| match *limit {
            Limit::Class { class, most, .. } => {
                graph.catalog.kind(kind).frees.contains(&class) && self.is_full(index, Flow(0), rank, most)
            }
            Limit::Ahead { of, most, .. } => of.0 == kind && self.is_full(index, flow, rank, most),
        })
    }

    /// Notes that a pass has started. Returns whether that may let other ranks than its own go on.
    pub(super) fn start(&mut self, graph: &Graph<'_>, pass: Pass) -> bool {
        let kind = graph.catalog.kind(pass.kind);
        let here = graph.rank_of(pass.site).index();
        let mut elsewhere = false;
        for (index, limit) in self.all.iter().enumerate() {
            let flow = match limit {
                Limit::Class { .. } => Flow(0),
                Limit::Ahead { .. } => graph.shape.flow_of(pass.microbatch),
            };
            let start = self.row(index, flow);
            let row = start..start + self.ranks;
            match *limit {
                Limit::Class { class, .. } => {
                    self.ahead[row.start + here] += u32::from(kind.makes.contains(&class));
                    self.behind[row.start + here] += u32::from(kind.frees.contains(&class));
                }
                Limit::Ahead { pass: first, of, .. } => {
                    elsewhere |= count(&mut self.ahead[row.clone()], graph, pass, first);
                    elsewhere |= count(&mut self.behind[row], graph, pass, of);
                }
            }
        }
        elsewhere
    }

    fn row(&self, index: usize, flow: Flow) -> usize {
        (index * self.flows + flow.index()) * self.ranks
    }

    fn is_full(&self, index: usize, flow: Flow, rank: Rank, most: u32) -> bool {
        let at = self.row(index, flow) + rank.index();
        self.ahead[at] >= most.saturating_add(self.behind[at])
    }
}

/// A pass at every rank counts on its rank, one at the named stage on all ranks, which follow that stage together; each in its flow.
fn count(row: &mut [u32], graph: &Graph<'_>, pass: Pass, counted: (KindId, Where)) -> bool {
    match pass.site {
        _ if pass.kind != counted.0 => false,
        Site::Rank(rank) => {
            row[rank.index()] += 1;
            false
        }
        site if graph.matches(counted.1, site) => {
            for count in row.iter_mut() {
                *count += 1;
            }
            true
        }
        Site::Stage(_) => false,
    }
}

/// Holds complete orders against the limits of classes: what the base schedule makes was not held back.
pub(super) fn check(schedule: &Schedule, limits: &[Limit]) -> Result<(), TransformError> {
    for limit in limits {
        let Limit::Class { class, most, span } = *limit else { continue };
        for (index, held) in peaks(&schedule.catalog, &schedule.orders, class).into_iter().enumerate() {
            if held > most {
                let name = schedule.catalog.class(class).name.clone();
                let rank = Rank::new(index);
                return Err(TransformError::LimitNotMet { class: name, held, most, rank, at: span });
            }
        }
    }
    Ok(())
}
