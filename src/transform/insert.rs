//! Every rank's base order and a transform's passes -> one order: an event-driven list schedule.
//!
//! Time runs over all ranks at once. A rank that has nothing to do takes, in this order: a pass that all ranks do in lock step and
//! that is its turn; a new pass that gives room under a limit that is reached; a new pass that the base schedule waits for; the next
//! pass, or pair of passes, of the base order; any other new pass. So vocabulary passes that backward waits for go first, and the rest fills the bubbles.
//!
//! A rank that is about to be called to lock step may be told to start nothing that would keep the others waiting ([`Manner::polite`]).

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

use super::base::{Base, Reading};
use super::limits::Limits;
use super::sides::Sides;
use super::{TransformError, lockstep::Gang};
use crate::cost::Costs;
use crate::graph::{Calendar, Event, Graph, Progress, find_deadlock, site_index};
use crate::ir::{
    Flow, KindId, Microbatch, Pass, Placed, Queue, Rank, Schedule, Site, Source, Span, Stage, Ticks,
    Transform, Where,
};

/// How the ranks go about it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Manner {
    /// How the base order is read.
    pub(super) reading: Reading,
    /// Whether a rank starts nothing that would end after the moment at which it knows that all ranks will be called together.
    pub(super) polite: bool,
}

/// Orders with a transform's passes, and the end of the last pass.
pub(super) type Inserted = (Vec<Vec<Placed>>, Ticks);

/// Places the kinds from `base` on. The catalog already has them; `schedule.orders` has the base order. `origins` are the new kinds'.
pub(super) fn insert(
    schedule: &Schedule,
    transform: &Transform,
    (base, origins): (usize, &[u32]),
    (sides, manner): (&Sides, Manner),
    costs: &Costs,
) -> Result<Inserted, TransformError> {
    let graph = Graph::new(&schedule.shape, &schedule.catalog);
    let mut list = List::new(&graph, schedule, transform, (base, origins), (sides, manner), costs);
    let end = list.run();
    Ok((list.finish(&schedule.origins)?, end))
}

/// Gives each new kind an origin: its declaration.
pub(super) fn new_origins(schedule: &mut Schedule, transform: &Transform, base: usize) -> Vec<u32> {
    let spans: Vec<Span> =
        schedule.catalog.kinds[base..].iter().map(|kind| kind.span.unwrap_or(transform.span)).collect();
    let first = schedule.origins.len() as u32;
    schedule.origins.extend(&spans);
    (first..).take(spans.len()).collect()
}

/// Something that happens at a moment.
#[derive(Clone, Copy, Debug)]
enum Moment {
    /// A pass ends on its rank.
    Ends(Pass),
    /// A pass has all that it needs.
    Ready(Pass),
    /// What the ranks that have come to their call had to wait for is there.
    Begins,
    /// The collectives that followed a pass in lock step no longer take a rank's compute lane.
    Frees(Rank),
}

struct List<'a> {
    graph: &'a Graph<'a>,
    placed: Base<'a>,
    base_orders: &'a [Vec<Placed>],
    base: usize,
    sides: &'a Sides,
    costs: &'a Costs,
    origins: &'a [u32],
    progress: Progress,
    limits: Limits<'a>,
    gang: Gang,
    /// The stages whose passes call all ranks to lock step, by kind.
    callers: Vec<(KindId, Where)>,
    /// For each pass that calls all ranks and has started, the moment at which the ranks have been called, and before it the one at
    /// which they can come.
    calls: BinaryHeap<Reverse<[Ticks; 2]>>,
    manner: Manner,
    /// All ranks, those first whose passes call the others.
    ranks: Vec<Rank>,
    calendar: Calendar<Moment>,
    /// New passes that are ready, each with its number among them, by kind (from `base`), rank and flow.
    waiting: Vec<VecDeque<(u64, Pass)>>,
    /// How many have become ready so far.
    readied: u64,
    /// How many passes each rank runs: none, one or a pair.
    busy: Vec<u8>,
    /// Ranks to look at again at this moment.
    woken: Vec<bool>,
    orders: Vec<Vec<Placed>>,
    events: Vec<Event>,
}

impl<'a> List<'a> {
    fn new(
        graph: &'a Graph<'a>,
        schedule: &'a Schedule,
        transform: &'a Transform,
        (base, origins): (usize, &'a [u32]),
        (sides, manner): (&'a Sides, Manner),
        costs: &'a Costs,
    ) -> Self {
        let p = schedule.shape.ranks as usize;
        let inserted = graph.catalog.kinds.len() - base;
        let deepen = transform.deepen.saturating_mul(schedule.shape.visits());
        let gang = Gang::new(graph, base, sides);
        let callers: Vec<(KindId, Where)> = gang.callers(graph).collect();
        let mut list = Self {
            graph,
            placed: Base::new(graph, schedule, base, (sides, deepen, manner.reading)),
            base_orders: &schedule.orders,
            base,
            sides,
            costs,
            origins,
            progress: Progress::new(graph),
            limits: Limits::new(&transform.limits, p, schedule.shape.flows),
            gang,
            ranks: callers_first(graph, &callers),
            callers,
            calls: BinaryHeap::new(),
            manner,
            calendar: Calendar::default(),
            waiting: vec![VecDeque::new(); inserted * p * schedule.shape.flows as usize],
            readied: 0,
            busy: vec![0; p],
            woken: vec![true; p],
            orders: schedule.orders.iter().map(|order| Vec::with_capacity(order.len() * 2)).collect(),
            events: Vec::new(),
        };
        list.release_what_needs_nothing();
        list
    }

    /// New passes without needs are ready from the start, in the order in which the base schedule asks for them.
    fn release_what_needs_nothing(&mut self) {
        for kind in KindId::all(self.graph.catalog.kinds.len()).skip(self.base) {
            let microbatches = self.demand(kind);
            for site in self.graph.sites_of(kind, Flow(0)) {
                let shape = self.graph.shape;
                let place = |unit| match site {
                    Site::Stage(stage) => Site::Stage(Stage(shape.first_of(shape.flow_of(unit)).0 + stage.0)),
                    Site::Rank(_) => site,
                };
                let free = |unit: &&_| self.graph.needs_at(kind, place(**unit), **unit) == 0;
                for &microbatch in microbatches.iter().filter(free) {
                    let site = place(microbatch);
                    self.ready(Pass { kind, site, microbatch }, Ticks(0));
                }
            }
        }
    }

    /// The microbatches in the order in which the end stages take what a new kind gives, flow after flow; ascending where none does.
    fn demand(&self, kind: KindId) -> Vec<Microbatch> {
        let reads = |need: &crate::ir::Need| match need.from {
            Source::Collective(id) => self.graph.catalog.collective(id).kind == kind,
            Source::Pass { kind: needed, .. } => needed == kind,
        };
        let reader =
            self.graph.catalog.kinds[..self.base].iter().enumerate().find_map(|(reader, declared)| {
                let need = declared.needs.iter().find(|need| need.on != Where::All && reads(need))?;
                Some((KindId::new(reader), need.on))
            });
        let Some((reader, on)) = reader else {
            return Microbatch::all(self.graph.shape.units()).collect();
        };
        let takes = |pass: &Pass| pass.kind == reader && self.graph.matches(on, pass.site);
        let passes = self.base_orders.iter().flatten().map(|placed| placed.pass);
        passes.filter(takes).map(|pass| pass.microbatch).collect()
    }

    /// Until nothing happens any more. Returns the last moment.
    fn run(&mut self) -> Ticks {
        let mut now = Ticks(0);
        loop {
            while self.dispatch_woken(now) {}
            let Some(next) = self.calendar.next_moment() else {
                if self.gang.call_riders(self.graph, &mut self.limits) {
                    self.woken.fill(true);
                    continue;
                }
                if self.split_a_pair() {
                    continue;
                }
                return now;
            };
            now = next;
            // Who waited for a call that did not come goes on.
            while self.calls.peek().is_some_and(|&Reverse([called, _])| called <= now) {
                self.calls.pop();
                self.woken.fill(true);
            }
            while let Some(moment) = self.calendar.take_at(now) {
                match moment {
                    Moment::Ends(pass) => self.end(pass, now),
                    Moment::Ready(pass) => self.ready(pass, now),
                    Moment::Begins => self.begin_call(now),
                    Moment::Frees(rank) => self.free(rank),
                }
            }
        }
    }

    /// Where nothing runs any more, lets a rank run its next pair one after the other: moving the backward side back may have put
    /// two passes together of which one waits, over other ranks, for the other. Returns whether there was such a rank.
    fn split_a_pair(&mut self) -> bool {
        let Some(rank) = self.placed.split_a_pair() else { return false };
        self.woken[rank.index()] = true;
        true
    }

    /// Looks once at every rank that something changed for. Returns whether there was one: what it started may concern others.
    fn dispatch_woken(&mut self, now: Ticks) -> bool {
        if self.gang.admit(self.graph, &mut self.limits) {
            self.woken.fill(true);
        }
        let mut any = false;
        for at in 0..self.ranks.len() {
            let rank = self.ranks[at];
            if std::mem::take(&mut self.woken[rank.index()]) && self.busy[rank.index()] == 0 {
                self.dispatch(rank, now);
                any = true;
            }
        }
        any
    }

    fn end(&mut self, pass: Pass, now: Ticks) {
        let rank = self.graph.rank_of(pass.site);
        match self.graph.catalog.kind(pass.kind).queue {
            Queue::Group => {}
            Queue::Compute => self.free(rank),
            Queue::Lockstep => {
                let blocked = self.graph.feeds(pass).map(|id| self.costs.collective(id).0).sum();
                self.calendar.enter(now + Ticks(blocked), Moment::Frees(rank));
            }
        }
        let mut events = std::mem::take(&mut self.events);
        self.progress.complete(self.graph, self.costs, pass, now, &mut events);
        for event in events.drain(..) {
            if let Event::Ready { pass, at } = event {
                if at > now { self.calendar.enter(at, Moment::Ready(pass)) } else { self.ready(pass, now) }
            }
        }
        self.events = events;
    }

    fn free(&mut self, rank: Rank) {
        self.busy[rank.index()] -= 1;
        self.woken[rank.index()] = true;
    }

    fn ready(&mut self, pass: Pass, now: Ticks) {
        let rank = self.graph.rank_of(pass.site);
        self.woken[rank.index()] = true;
        match self.graph.catalog.kind(pass.kind).queue {
            Queue::Group => self.calendar.enter(now + self.costs.pass(pass), Moment::Ends(pass)),
            Queue::Lockstep if pass.kind.index() >= self.base => {
                let complete = self.gang.ready(self.graph, pass);
                if complete {
                    self.begin_call(now);
                }
            }
            _ if pass.kind.index() >= self.base => {
                let at = self.queue(pass.kind, rank, self.graph.shape.flow_of(pass.microbatch));
                self.waiting[at].push_back((self.readied, pass));
                self.readied += 1;
            }
            _ => {}
        }
    }

    fn queue(&self, kind: KindId, rank: Rank, flow: Flow) -> usize {
        let row = (kind.index() - self.base) * self.busy.len() + rank.index();
        row * self.graph.shape.flows as usize + flow.index()
    }

    /// Gives an idle rank its next pass, if any may run now.
    fn dispatch(&mut self, rank: Rank, now: Ticks) {
        if self.gang.is_called(rank) {
            self.busy[rank.index()] = 1;
            self.gang.arrive(rank, now);
            self.begin_call(now);
            return;
        }
        match self.choose(rank, now) {
            Some((pass, None)) => self.start(pass, now, false),
            Some((first, Some(second))) => self.start_pair(first, second, now),
            None if !self.gang.is_empty() => self.call_what_is_lacking(rank),
            None => {}
        }
    }

    /// Starts the passes that all ranks were called to, if all have come and have what they need.
    fn begin_call(&mut self, now: Ticks) {
        let Some(at) = self.gang.meets(self.graph, self.costs) else { return };
        if at > now {
            self.calendar.enter(at, Moment::Begins);
            return;
        }
        for pass in self.gang.begin(self.graph) {
            self.start(pass, now, true);
        }
    }

    /// Where an idle rank could go on but for a pass that waits to ride along with a call: calls it.
    fn call_what_is_lacking(&mut self, rank: Rank) {
        let lacking = |pass: &Pass| {
            self.progress.missing(self.graph, *pass) == 1
                && self.gang.is_lacking(self.graph, &self.limits, *pass)
        };
        if self.placed.choose(self.graph, rank, lacking).is_some()
            && self.gang.call_riders(self.graph, &mut self.limits)
        {
            self.woken.fill(true);
        }
    }

    /// The pass that a rank should start, or the two of a pair.
    fn choose(&mut self, rank: Rank, now: Ticks) -> Option<(Pass, Option<Pass>)> {
        let pressing = |list: &Self, kind, flow| list.limits.presses(list.graph, kind, rank, flow);
        let urgent = |list: &Self, kind, _| list.sides.is_urgent(kind);
        if let Some(pass) = self.take_new(rank, pressing).or_else(|| self.take_new(rank, urgent)) {
            return Some((pass, None));
        }
        let until = self.calls.peek().filter(|_| self.manner.polite).map(|&Reverse([_, from])| from);
        let in_time = |pass: &Pass| until.is_none_or(|until| now + self.costs.pass(*pass) <= until);
        let free = |pass: &Pass| in_time(pass) && self.progress.is_ready(self.graph, *pass, now);
        if let Some(found) = self.placed.choose(self.graph, rank, free) {
            return Some(found);
        }
        self.take_new(rank, |_, _, _| true).map(|pass| (pass, None))
    }

    /// The first new pass of a rank, by declaration, that a test and the limits let through.
    fn take_new(&mut self, rank: Rank, test: impl Fn(&Self, KindId, Flow) -> bool) -> Option<Pass> {
        for kind in KindId::all(self.graph.catalog.kinds.len()).skip(self.base) {
            // The flows' first ones, in the order in which they became ready: it is the same on every rank.
            let open = self.graph.flows().filter_map(|flow| {
                let at = self.queue(kind, rank, flow);
                let &(number, _) = self.waiting[at].front()?;
                let held = || self.limits.holding(self.graph, kind, rank, flow).is_some();
                (test(self, kind, flow) && !held()).then_some((number, at))
            });
            if let Some((_, at)) = open.min() {
                return self.waiting[at].pop_front().map(|(_, pass)| pass);
            }
        }
        None
    }

    fn start(&mut self, pass: Pass, now: Ticks, counted: bool) {
        let rank = self.graph.rank_of(pass.site).index();
        if !counted && self.limits.start(self.graph, pass) {
            self.woken.fill(true);
        }
        let origin = if let Some(new) = pass.kind.index().checked_sub(self.base) {
            self.origins[new]
        } else {
            self.placed.start(self.graph, Rank::new(rank), pass)
        };
        self.orders[rank].push(Placed { pass, origin, overlaps: false });
        self.busy[rank] = 1;
        let end = now + self.costs.pass(pass);
        if self.calls_all(pass) {
            let takes = self.graph.feeds(pass).map(|id| self.costs.collective(id)).max().unwrap_or_default();
            self.calls.push(Reverse([end + takes, end]));
        }
        self.calendar.enter(end, Moment::Ends(pass));
    }

    /// Whether all ranks are called to lock step when a pass has ended.
    fn calls_all(&self, pass: Pass) -> bool {
        self.callers.iter().any(|&(kind, at)| kind == pass.kind && self.graph.matches(at, pass.site))
    }

    /// Starts two passes of the base order together; they end together.
    fn start_pair(&mut self, first: Pass, second: Pass, now: Ticks) {
        let rank = self.graph.rank_of(first.site).index();
        for pass in [first, second] {
            if self.limits.start(self.graph, pass) {
                self.woken.fill(true);
            }
            let origin = self.placed.start(self.graph, Rank::new(rank), pass);
            self.orders[rank].push(Placed { pass, origin, overlaps: pass == first });
            self.calendar.enter(now + self.costs.pair(first, second), Moment::Ends(pass));
        }
        self.busy[rank] = 2;
    }

    /// All orders, or why they are not complete.
    fn finish(self, origins: &[Span]) -> Result<Vec<Vec<Placed>>, TransformError> {
        let placed: usize = self.orders.iter().map(Vec::len).sum();
        let group = |kind: KindId| self.graph.catalog.kind(kind).queue == Queue::Group;
        let kinds = KindId::all(self.graph.catalog.kinds.len()).filter(|&kind| !group(kind));
        let m = self.graph.shape.units();
        if placed == kinds.map(|kind| self.graph.sites(kind) * m).sum::<usize>() {
            return Ok(self.orders);
        }
        for (at, queue) in self.waiting.iter().enumerate() {
            let rank = Rank::new(at / self.graph.shape.flows as usize % self.busy.len());
            let Some(&(_, pass)) = queue.front() else { continue };
            let flow = self.graph.shape.flow_of(pass.microbatch);
            if let Some(at) = self.limits.holding(self.graph, pass.kind, rank, flow) {
                return Err(TransformError::LimitTooTight { pass: self.graph.name(pass), rank, at });
            }
        }
        if let Some((pass, at)) = self.gang.held(self.graph, &self.limits) {
            let rank = Rank::new(site_index(pass.site));
            return Err(TransformError::LimitTooTight { pass: self.graph.name(pass), rank, at });
        }
        Err(find_deadlock(self.graph, &self.progress, &self.placed.heads(), origins).into())
    }
}

/// All ranks, first those that hold a stage whose passes call the others to lock step: when they start one, the others know.
fn callers_first(graph: &Graph<'_>, callers: &[(KindId, Where)]) -> Vec<Rank> {
    let mut ranks: Vec<Rank> = Vec::new();
    for &(_, at) in callers {
        let stages = graph.flows().filter_map(|flow| graph.end(at, flow));
        ranks.extend(stages.map(|stage| graph.shape.rank_of(stage)));
    }
    ranks.extend(Rank::all(graph.shape.ranks as usize));
    let mut seen = vec![false; graph.shape.ranks as usize];
    ranks.retain(|rank| !std::mem::replace(&mut seen[rank.index()], true));
    ranks
}
