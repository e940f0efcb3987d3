//! What has run and what may run next, as passes end one by one.

use super::Graph;
use crate::cost::Costs;
use crate::ir::{CollectiveId, Microbatch, Pass, Ticks};

/// What the end of a pass sets off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// A pass has all that it needs, from `at` on.
    Ready {
        /// The pass.
        pass: Pass,
        /// The moment that its last need arrives.
        at: Ticks,
    },
    /// A collective has all its contributions; its result is there at `at`.
    Collected {
        /// The collective.
        collective: CollectiveId,
        /// Its microbatch.
        microbatch: Microbatch,
        /// The moment that its result is there.
        at: Ticks,
    },
}

/// Counts down what every pass still waits for.
#[derive(Debug)]
pub struct Progress {
    missing: Vec<u16>,
    ready: Vec<Ticks>,
    done: Vec<bool>,
    contributions: Vec<u32>,
    collected: Vec<Ticks>,
    microbatches: usize,
}

impl Progress {
    /// Nothing has run yet. Linear in the number of passes.
    #[must_use]
    pub fn new(graph: &Graph<'_>) -> Self {
        let m = graph.shape.microbatches as usize;
        let mut missing = Vec::with_capacity(graph.len());
        for kind in crate::ir::KindId::all(graph.catalog.kinds.len()) {
            for site in graph.sites_of(kind) {
                let needs = u16::try_from(graph.needs_at(kind, site)).expect("a kind has few needs");
                missing.resize(missing.len() + m, needs);
            }
        }
        let collectives = graph.catalog.collectives.len();
        let mut contributions = Vec::with_capacity(collectives * m);
        for collective in CollectiveId::all(collectives) {
            let expected = u32::try_from(graph.contributors(collective)).expect("ids are 32 bits wide");
            contributions.resize(contributions.len() + m, expected);
        }
        Self {
            ready: vec![Ticks(0); missing.len()],
            done: vec![false; missing.len()],
            missing,
            collected: vec![Ticks(0); contributions.len()],
            contributions,
            microbatches: m,
        }
    }

    /// Whether a pass has all that it needs at a moment.
    #[must_use]
    pub fn is_ready(&self, graph: &Graph<'_>, pass: Pass, now: Ticks) -> bool {
        let index = graph.index(pass);
        self.missing[index] == 0 && self.ready[index] <= now
    }

    /// Whether a pass has ended.
    #[must_use]
    pub fn is_done(&self, graph: &Graph<'_>, pass: Pass) -> bool {
        self.done[graph.index(pass)]
    }

    /// Whether a collective still misses a contribution.
    #[must_use]
    pub fn is_collected(&self, collective: CollectiveId, microbatch: Microbatch) -> bool {
        self.contributions[collective.index() * self.microbatches + microbatch.index()] == 0
    }

    /// Notes that a pass has ended at `at` and appends what that sets off, collectives before their readers.
    pub fn complete(
        &mut self,
        graph: &Graph<'_>,
        costs: &Costs,
        pass: Pass,
        at: Ticks,
        events: &mut Vec<Event>,
    ) {
        self.done[graph.index(pass)] = true;
        let rank = graph.rank_of(pass.site);
        graph.for_dependents(pass, |dependent| {
            let far = graph.rank_of(dependent.site) != rank;
            self.arrive(graph, dependent, if far { at + costs.message } else { at }, events);
        });
        for collective in graph.feeds(pass) {
            let index = collective.index() * self.microbatches + pass.microbatch.index();
            self.contributions[index] -= 1;
            self.collected[index] = self.collected[index].max(at);
            if self.contributions[index] == 0 {
                let at = self.collected[index] + costs.collective(collective);
                events.push(Event::Collected { collective, microbatch: pass.microbatch, at });
                graph.for_readers(collective, pass.microbatch, |reader| {
                    self.arrive(graph, reader, at, events)
                });
            }
        }
    }

    fn arrive(&mut self, graph: &Graph<'_>, pass: Pass, at: Ticks, events: &mut Vec<Event>) {
        let index = graph.index(pass);
        self.ready[index] = self.ready[index].max(at);
        self.missing[index] -= 1;
        if self.missing[index] == 0 {
            events.push(Event::Ready { pass, at: self.ready[index] });
        }
    }
}
