//! What has run and what may run next, as passes end one by one.

use super::Graph;
use crate::cost::Costs;
use crate::ir::{CollectiveId, Flow, Microbatch, Pass, Ticks};

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
    passes: Vec<State>,
    gathers: Vec<Gather>,
    units: usize,
}

/// One pass.
#[derive(Clone, Debug)]
struct State {
    /// The moment that the last need so far arrived.
    ready: Ticks,
    /// Needs that have not arrived.
    missing: u16,
    done: bool,
}

impl State {
    fn new(needs: usize) -> Self {
        let missing = u16::try_from(needs).expect("a kind has few needs");
        Self { ready: Ticks(0), missing, done: false }
    }
}

/// One collective of one microbatch.
#[derive(Clone, Debug)]
struct Gather {
    /// The moment of the last contribution so far.
    last: Ticks,
    /// Contributions that have not been made.
    missing: u32,
}

impl Progress {
    /// Nothing has run yet. Linear in the number of passes.
    ///
    /// # Panics
    /// When a kind has 2^16 needs or more; the language bounds its lists far below.
    #[must_use]
    pub fn new(graph: &Graph<'_>) -> Self {
        let m = graph.shape.units();
        let slices = Microbatch::all(graph.shape.slices as usize);
        let mut passes = Vec::with_capacity(graph.len());
        for kind in crate::ir::KindId::all(graph.catalog.kinds.len()) {
            // The slices of one microbatch differ in what they wait for; microbatches do not. The flows are copies of one pipeline:
            // what a pass waits for is the same in each.
            let sites =
                |unit| graph.sites_of(kind, Flow(0)).map(move |site| graph.needs_at(kind, site, unit));
            let rows: Vec<State> = slices.clone().flat_map(sites).map(State::new).collect();
            (0..graph.shape.microbatches).for_each(|_| passes.extend_from_slice(&rows));
        }
        let collectives = graph.catalog.collectives.len();
        let mut gathers = Vec::with_capacity(collectives * m);
        for collective in CollectiveId::all(collectives) {
            let expected = u32::try_from(graph.contributors(collective)).expect("ids are 32 bits wide");
            gathers.resize(gathers.len() + m, Gather { last: Ticks(0), missing: expected });
        }
        Self { passes, gathers, units: m }
    }

    /// Whether a pass has all that it needs at a moment.
    #[must_use]
    pub fn is_ready(&self, graph: &Graph<'_>, pass: Pass, now: Ticks) -> bool {
        let state = &self.passes[graph.index(pass)];
        state.missing == 0 && state.ready <= now
    }

    /// How many needs of a pass have not arrived.
    #[must_use]
    pub fn missing(&self, graph: &Graph<'_>, pass: Pass) -> usize {
        usize::from(self.passes[graph.index(pass)].missing)
    }

    /// Whether a pass has ended.
    #[must_use]
    pub fn is_done(&self, graph: &Graph<'_>, pass: Pass) -> bool {
        self.passes[graph.index(pass)].done
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
        self.passes[graph.index(pass)].done = true;
        let rank = graph.rank_of(pass.site);
        graph.for_dependents(pass, |dependent| {
            let arrives = at + costs.message(rank, graph.rank_of(dependent.site));
            self.arrive(graph, dependent, arrives, events);
        });
        for collective in graph.feeds(pass) {
            let index = collective.index() * self.units + pass.microbatch.index();
            let gather = &mut self.gathers[index];
            gather.missing -= 1;
            gather.last = gather.last.max(at);
            if gather.missing == 0 {
                let at = gather.last + costs.collective(collective);
                events.push(Event::Collected { collective, microbatch: pass.microbatch, at });
                graph.for_readers(collective, pass.microbatch, |reader| {
                    self.arrive(graph, reader, at, events);
                });
            }
        }
    }

    fn arrive(&mut self, graph: &Graph<'_>, pass: Pass, at: Ticks, events: &mut Vec<Event>) {
        let state = &mut self.passes[graph.index(pass)];
        state.ready = state.ready.max(at);
        state.missing -= 1;
        if state.missing == 0 {
            events.push(Event::Ready { pass, at: state.ready });
        }
    }
}
