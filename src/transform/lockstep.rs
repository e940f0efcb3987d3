//! Passes that all ranks do at the same moment.
//!
//! A meeting of all ranks costs each of them what it still had to do, so that there should be few: what the schedule waits for calls
//! the ranks together, what needs nothing but that follows at once, and what can wait rides along.

use std::collections::VecDeque;

use super::limits::Limits;
use super::sides::Sides;
use crate::cost::Costs;
use crate::graph::Graph;
use crate::ir::{
    Flow, KindId, Microbatch, Need, Pass, Queue, Rank, Relation, Site, Source, Span, Ticks, Where,
};

/// When the ranks are called to passes of a kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    /// As soon as it is ready on all ranks.
    Leads,
    /// With what it needs, which is in lock step itself: it is ready before anything else could be.
    Follows,
    /// With the next call, unless somebody waits for nothing else.
    Rides,
}

/// The order in which all ranks do their lock-step passes: one for all, so that none waits for another in a circle.
#[derive(Debug)]
pub(super) struct Gang {
    /// By kind (from `base`) and microbatch: how many ranks' passes are not ready yet. Empty where a kind is not in lock step.
    unready: Vec<Vec<u32>>,
    /// By kind (from `base`) and microbatch: whether the ranks have been called to it.
    is_called: Vec<Vec<bool>>,
    roles: Vec<Role>,
    base: usize,
    flows: usize,
    /// Ready on all ranks and not called; by kind (from `base`) and flow.
    pending: Vec<VecDeque<Microbatch>>,
    called: Vec<(KindId, Microbatch)>,
    /// How many calls have been followed.
    begun: usize,
    /// The next call of each rank.
    next: Vec<usize>,
    /// How many ranks have come to the current call.
    arrived: u32,
    /// When the last rank so far has come to its call.
    met: Ticks,
}

impl Gang {
    pub(super) fn new(graph: &Graph<'_>, base: usize, sides: &Sides) -> Self {
        let kinds = &graph.catalog.kinds[base..];
        let (p, m) = (graph.shape.ranks, graph.shape.units());
        let units: Vec<usize> =
            kinds.iter().map(|kind| if kind.queue == Queue::Lockstep { m } else { 0 }).collect();
        Self {
            unready: units.iter().map(|&units| vec![p; units]).collect(),
            is_called: units.iter().map(|&units| vec![false; units]).collect(),
            roles: roles(graph, base, sides),
            base,
            flows: graph.shape.flows as usize,
            pending: vec![VecDeque::new(); kinds.len() * graph.shape.flows as usize],
            called: Vec::new(),
            begun: 0,
            next: vec![0; p as usize],
            arrived: 0,
            met: Ticks(0),
        }
    }

    /// Whether any pass is in lock step.
    pub(super) fn is_empty(&self) -> bool {
        self.unready.iter().all(Vec::is_empty)
    }

    /// Notes that a pass is ready on its rank. Returns whether it now is on all of them.
    pub(super) fn ready(&mut self, graph: &Graph<'_>, pass: Pass) -> bool {
        let kind = pass.kind.index() - self.base;
        let unready = &mut self.unready[kind][pass.microbatch.index()];
        *unready -= 1;
        if *unready > 0 {
            return false;
        }
        if !self.is_called[kind][pass.microbatch.index()] {
            let flow = graph.shape.flow_of(pass.microbatch);
            self.pending[kind * self.flows + flow.index()].push_back(pass.microbatch);
        }
        true
    }

    /// Calls all ranks to what is ready and within the limits, and to what rides along. Returns whether there was anything.
    pub(super) fn admit(&mut self, graph: &Graph<'_>, limits: &mut Limits<'_>) -> bool {
        self.call_all(graph, limits, |role| role != Role::Rides) && {
            self.call_riders(graph, limits);
            true
        }
    }

    /// Calls all ranks to what rides along with other calls. Returns whether there was anything.
    pub(super) fn call_riders(&mut self, graph: &Graph<'_>, limits: &mut Limits<'_>) -> bool {
        self.call_all(graph, limits, |role| role == Role::Rides)
    }

    fn call_all(&mut self, graph: &Graph<'_>, limits: &mut Limits<'_>, test: impl Fn(Role) -> bool) -> bool {
        let before = self.called.len();
        for at in 0..self.pending.len() {
            let (id, flow) = self.row(at);
            while let Some(&microbatch) = self.pending[at].front()
                && test(self.roles[id.index() - self.base])
                && limits.holding(graph, id, Rank(0), flow).is_none()
            {
                self.pending[at].pop_front();
                self.call(graph, limits, (id, microbatch));
            }
        }
        self.called.len() > before
    }

    /// Calls all ranks to a pass, and to what follows it.
    fn call(&mut self, graph: &Graph<'_>, limits: &mut Limits<'_>, (id, microbatch): (KindId, Microbatch)) {
        let flow = graph.shape.flow_of(microbatch);
        self.called.push((id, microbatch));
        self.is_called[id.index() - self.base][microbatch.index()] = true;
        for site in graph.sites_of(id, flow) {
            limits.start(graph, Pass { kind: id, site, microbatch });
        }
        for kind in KindId::all(graph.catalog.kinds.len()).skip(self.base) {
            let at = kind.index() - self.base;
            let open = self.roles[at] == Role::Follows && !self.is_called[at][microbatch.index()];
            if open
                && self.has_been_called(graph, kind, microbatch)
                && limits.holding(graph, kind, Rank(0), flow).is_none()
            {
                self.call(graph, limits, (kind, microbatch));
            }
        }
    }

    /// Whether the ranks have been called to everything in lock step that a kind needs.
    fn has_been_called(&self, graph: &Graph<'_>, kind: KindId, microbatch: Microbatch) -> bool {
        let needed = graph.catalog.kind(kind).needs.iter().map(|need| needed(graph, need));
        needed.into_iter().all(|needed| match graph.catalog.kind(needed).queue {
            Queue::Lockstep => self.is_called[needed.index() - self.base][microbatch.index()],
            _ => self.has_been_called(graph, needed, microbatch),
        })
    }

    /// The kind and the flow of a list of pending passes.
    fn row(&self, at: usize) -> (KindId, Flow) {
        (KindId::new(at / self.flows + self.base), Flow::new(at % self.flows))
    }

    /// Whether a rank has a call to follow.
    pub(super) fn is_called(&self, rank: Rank) -> bool {
        self.next[rank.index()] < self.called.len()
    }

    /// Notes that a rank has come to its call.
    pub(super) fn arrive(&mut self, rank: Rank, now: Ticks) {
        self.next[rank.index()] += 1;
        self.arrived += 1;
        self.met = now;
    }

    /// If all ranks have come to the current call and have all that it needs: the moment from which it can begin. What is broadcast to
    /// its passes comes over the compute lanes, and so when all ranks have come.
    pub(super) fn meets(&self, graph: &Graph<'_>, costs: &Costs) -> Option<Ticks> {
        let &(kind, microbatch) = self.called.get(self.begun)?;
        let unready = self.unready[kind.index() - self.base][microbatch.index()];
        let broadcast = |need: &Need| match need.from {
            Source::Collective(id) if graph.catalog.collective(id).source != Where::All => {
                costs.collective(id).0
            }
            _ => 0,
        };
        let waits = graph.catalog.kind(kind).needs.iter().map(broadcast).sum();
        (self.arrived == graph.shape.ranks && unready == 0).then(|| self.met + Ticks(waits))
    }

    /// The passes of the current call, which start.
    pub(super) fn begin(&mut self, graph: &Graph<'_>) -> Vec<Pass> {
        let (kind, microbatch) = self.called[self.begun];
        self.arrived = 0;
        self.begun += 1;
        let flow = graph.shape.flow_of(microbatch);
        graph.sites_of(kind, flow).map(|site| Pass { kind, site, microbatch }).collect()
    }

    /// Whether a pass lacks nothing but what rides along and could be called now.
    pub(super) fn is_lacking(&self, graph: &Graph<'_>, limits: &Limits<'_>, pass: Pass) -> bool {
        let flow = graph.shape.flow_of(pass.microbatch);
        graph.catalog.kind(pass.kind).needs.iter().any(|need| {
            let kind = needed(graph, need);
            let Some(at) = kind.index().checked_sub(self.base) else { return false };
            let rides = self.roles[at] == Role::Rides && graph.matches(need.on, pass.site);
            rides
                && self.pending[at * self.flows + flow.index()].contains(&pass.microbatch)
                && limits.holding(graph, kind, Rank(0), flow).is_none()
        })
    }

    /// The stages whose passes call all ranks together, by kind.
    pub(super) fn callers<'a>(&'a self, graph: &'a Graph<'_>) -> impl Iterator<Item = (KindId, Where)> + 'a {
        let leads = |kind: &usize| self.roles[*kind] == Role::Leads && !self.unready[*kind].is_empty();
        let leaders = (0..self.roles.len()).filter(leads);
        let needs = leaders.flat_map(|kind| &graph.catalog.kind(KindId::new(self.base + kind)).needs);
        needs.map(|need| match need.from {
            Source::Pass { kind, at: Relation::First, .. } => (kind, Where::First),
            Source::Pass { kind, at: Relation::Last, .. } => (kind, Where::Last),
            Source::Pass { kind, .. } => (kind, Where::All),
            Source::Collective(id) => {
                let collective = graph.catalog.collective(id);
                (collective.kind, collective.source)
            }
        })
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

/// The kind that a need waits for.
fn needed(graph: &Graph<'_>, need: &Need) -> KindId {
    match need.from {
        Source::Pass { kind, .. } => kind,
        Source::Collective(id) => graph.catalog.collective(id).kind,
    }
}

/// By kind (from `base`): when the ranks are called to it. Where nothing would lead, everything does.
fn roles(graph: &Graph<'_>, base: usize, sides: &Sides) -> Vec<Role> {
    let of = |kind: KindId| {
        let needs = &graph.catalog.kind(kind).needs;
        if is_inside(graph, base, kind, graph.catalog.kinds.len()) && !needs.is_empty() {
            Role::Follows
        } else if needs.is_empty() || !sides.is_urgent(kind) {
            Role::Rides
        } else {
            Role::Leads
        }
    };
    let kinds = || KindId::all(graph.catalog.kinds.len()).skip(base);
    let in_lockstep = |kind: &KindId| graph.catalog.kind(*kind).queue == Queue::Lockstep;
    if kinds().filter(in_lockstep).any(|kind| of(kind) == Role::Leads) {
        kinds().map(of).collect()
    } else {
        kinds().map(|_| Role::Leads).collect()
    }
}

/// Whether a kind waits for nothing but passes in lock step and the steps between them, looked through to some depth.
fn is_inside(graph: &Graph<'_>, base: usize, kind: KindId, depth: usize) -> bool {
    depth > 0
        && graph.catalog.kind(kind).needs.iter().all(|need| {
            let needed = needed(graph, need);
            needed.index() >= base
                && match graph.catalog.kind(needed).queue {
                    Queue::Lockstep => true,
                    Queue::Group => is_inside(graph, base, needed, depth - 1),
                    Queue::Compute => false,
                }
        })
}
