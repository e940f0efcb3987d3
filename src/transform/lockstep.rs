//! Passes that all ranks do at the same moment.

use std::collections::VecDeque;

use super::limits::Limits;
use crate::graph::Graph;
use crate::ir::{Flow, KindId, Microbatch, Pass, Queue, Rank, Site, Span};

/// The order in which all ranks do their lock-step passes: one for all, so that none waits for another in a circle.
#[derive(Debug)]
pub(super) struct Gang {
    /// By kind (from `base`) and microbatch: how many ranks' passes are not ready yet.
    unready: Vec<Vec<u32>>,
    base: usize,
    flows: usize,
    /// Ready on all ranks, not yet let in by the limits; by kind (from `base`) and flow.
    pending: Vec<VecDeque<Microbatch>>,
    called: Vec<(KindId, Microbatch)>,
    /// The next call of each rank.
    next: Vec<usize>,
    /// How many ranks have come to the current call.
    arrived: u32,
}

impl Gang {
    pub(super) fn new(graph: &Graph<'_>, base: usize) -> Self {
        let kinds = &graph.catalog.kinds[base..];
        let (p, m) = (graph.shape.ranks, graph.shape.units());
        let of = |kind: &crate::ir::Kind| if kind.queue == Queue::Lockstep { vec![p; m] } else { Vec::new() };
        Self {
            unready: kinds.iter().map(of).collect(),
            base,
            flows: graph.shape.flows as usize,
            pending: vec![VecDeque::new(); kinds.len() * graph.shape.flows as usize],
            called: Vec::new(),
            next: vec![0; p as usize],
            arrived: 0,
        }
    }

    /// Notes that a pass is ready on its rank.
    pub(super) fn ready(&mut self, graph: &Graph<'_>, pass: Pass) {
        let kind = pass.kind.index() - self.base;
        let unready = &mut self.unready[kind][pass.microbatch.index()];
        *unready -= 1;
        if *unready == 0 {
            let flow = graph.shape.flow_of(pass.microbatch);
            self.pending[kind * self.flows + flow.index()].push_back(pass.microbatch);
        }
    }

    /// Calls what is ready on all ranks and within the limits, and wakes all ranks for it.
    pub(super) fn admit(&mut self, graph: &Graph<'_>, limits: &mut Limits<'_>, woken: &mut [bool]) {
        for at in 0..self.pending.len() {
            let (id, flow) = self.row(at);
            while let Some(&microbatch) = self.pending[at].front()
                && limits.holding(graph, id, Rank(0), flow).is_none()
            {
                self.pending[at].pop_front();
                self.called.push((id, microbatch));
                for site in graph.sites_of(id, flow) {
                    limits.start(graph, Pass { kind: id, site, microbatch });
                }
                woken.fill(true);
            }
        }
    }

    /// The kind and the flow of a list of pending passes.
    fn row(&self, at: usize) -> (KindId, Flow) {
        (KindId::new(at / self.flows + self.base), Flow::new(at % self.flows))
    }

    /// Whether a rank has a call to follow.
    pub(super) fn is_called(&self, rank: Rank) -> bool {
        self.next[rank.index()] < self.called.len()
    }

    /// Notes that a rank has come to its call. The last one to come starts them all.
    pub(super) fn arrive(&mut self, graph: &Graph<'_>, rank: Rank) -> Option<Vec<Pass>> {
        let (kind, microbatch) = self.called[self.next[rank.index()]];
        self.next[rank.index()] += 1;
        self.arrived += 1;
        if self.arrived < graph.shape.ranks {
            return None;
        }
        self.arrived = 0;
        Some(graph.sites_of(kind, Flow(0)).map(|site| Pass { kind, site, microbatch }).collect())
    }

    /// A pass that a limit keeps out, and the limit.
    pub(super) fn held(&self, graph: &Graph<'_>, limits: &Limits<'_>) -> Option<(Pass, Span)> {
        self.pending.iter().enumerate().find_map(|(at, pending)| {
            let (id, flow) = self.row(at);
            let pass = Pass { kind: id, site: Site::Rank(Rank(0)), microbatch: *pending.front()? };
            limits.holding(graph, id, Rank(0), flow).map(|span| (pass, span))
        })
    }
}
