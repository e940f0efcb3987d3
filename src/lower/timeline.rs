//! Every rank's order -> one line of passes and collectives, in the order in which they end.

use std::collections::BTreeMap;

use super::emit::Emitter;
use crate::cost::Costs;
use crate::graph::{Calendar, Deadlock, Event, Graph, Progress, find_deadlock, heads_of};
use crate::ir::{CollectiveId, Flow, Microbatch, Pass, Queue, Rank, Schedule, Source, Ticks, Where};

/// Runs all orders under a cost model and hands the emitter what ends, first to last.
///
/// # Errors
/// The orders deadlock.
pub(super) fn walk(
    graph: &Graph<'_>,
    schedule: &Schedule,
    costs: &Costs,
    emitter: &mut Emitter<'_>,
) -> Result<(), Deadlock> {
    let p = schedule.shape.ranks as usize;
    let mut clock = Clock {
        graph,
        schedule,
        costs,
        progress: Progress::new(graph),
        calendar: Calendar::default(),
        next: vec![0; p],
        busy: vec![false; p],
        lockstep: None,
        held: BTreeMap::new(),
    };
    for rank in Rank::all(p) {
        clock.dispatch(rank, Ticks(0));
    }
    let mut events = Vec::new();
    while let Some((now, moment)) = clock.calendar.take() {
        match moment {
            Moment::Ends(pass) => {
                clock.release(pass, emitter);
                emitter.pass(pass, now);
                clock.end(&[pass], now, emitter, &mut events);
            }
            Moment::PairEnds(first, second) => {
                clock.release(first, emitter);
                clock.release(second, emitter);
                emitter.pair(first, second, now);
                clock.end(&[first, second], now, emitter, &mut events);
            }
            Moment::Ready(pass) => clock.ready(pass, now),
        }
    }
    let heads = heads_of(&schedule.orders, &clock.next);
    if heads.iter().any(|heads| !heads.is_empty()) {
        return Err(find_deadlock(graph, &clock.progress, &heads, &schedule.origins));
    }
    Ok(())
}

/// Something that happens at a moment.
#[derive(Clone, Copy, Debug)]
enum Moment {
    /// A pass ends on its rank.
    Ends(Pass),
    /// Two passes that run overlapped end on their rank.
    PairEnds(Pass, Pass),
    /// A pass has all that it needs.
    Ready(Pass),
}

struct Clock<'a> {
    graph: &'a Graph<'a>,
    schedule: &'a Schedule,
    costs: &'a Costs,
    progress: Progress,
    calendar: Calendar<Moment>,
    next: Vec<usize>,
    busy: Vec<bool>,
    /// The current lock-step pass (of any site) and how many ranks have come to it.
    lockstep: Option<(Pass, usize)>,
    /// Collectives that run on the compute lanes, with their start and end, until the first of their readers has run: they wait there
    /// until all ranks have come, so that what a rank does in the meantime must stand before them.
    held: BTreeMap<(CollectiveId, Microbatch), (Ticks, Ticks)>,
}

impl Clock<'_> {
    /// Notes that a pass, or a pair, has ended.
    fn end(&mut self, passes: &[Pass], now: Ticks, emitter: &mut Emitter<'_>, events: &mut Vec<Event>) {
        for &pass in passes {
            self.progress.complete(self.graph, self.costs, pass, now, events);
        }
        for event in events.iter() {
            if let Event::Collected { collective, microbatch, at } = *event {
                let broadcast = self.graph.catalog.collective(collective);
                if broadcast.lockstep && broadcast.source != Where::All {
                    self.held.insert((collective, microbatch), (now, at));
                } else {
                    emitter.collective(collective, microbatch, now, at);
                }
            }
        }
        for event in events.drain(..) {
            if let Event::Ready { pass, at } = event {
                if at > now { self.calendar.enter(at, Moment::Ready(pass)) } else { self.ready(pass, now) }
            }
        }
        let pass = passes[0];
        if self.graph.catalog.kind(pass.kind).queue != Queue::Group {
            let rank = self.graph.rank_of(pass.site);
            self.busy[rank.index()] = false;
            self.dispatch(rank, now);
        }
    }

    /// Lists the held collectives that a pass reads.
    fn release(&mut self, pass: Pass, emitter: &mut Emitter<'_>) {
        if self.held.is_empty() {
            return;
        }
        for need in &self.graph.catalog.kind(pass.kind).needs {
            if let Source::Collective(id) = need.from
                && self.graph.matches(need.on, pass.site)
                && let Some((now, at)) = self.held.remove(&(id, pass.microbatch))
            {
                emitter.collective(id, pass.microbatch, now, at);
            }
        }
    }

    fn ready(&mut self, pass: Pass, now: Ticks) {
        if self.graph.catalog.kind(pass.kind).queue == Queue::Group {
            self.calendar.enter(now + self.costs.pass(pass), Moment::Ends(pass));
        } else {
            self.dispatch(self.graph.rank_of(pass.site), now);
        }
    }

    /// Starts the next pass of an idle rank if it may run now.
    fn dispatch(&mut self, rank: Rank, now: Ticks) {
        let at = rank.index();
        let order = &self.schedule.orders[at];
        let Some(&head) = order.get(self.next[at]).filter(|_| !self.busy[at]) else { return };
        let pass = head.pass;
        if !self.progress.is_ready(self.graph, pass, now) {
            return;
        }
        let second = order.get(self.next[at] + 1).filter(|_| head.overlaps).map(|placed| placed.pass);
        if let Some(second) = second {
            if self.progress.is_ready(self.graph, second, now) {
                self.busy[at] = true;
                self.next[at] += 2;
                let both = self.costs.pair(pass, second);
                self.calendar.enter(now + both, Moment::PairEnds(pass, second));
            }
            return;
        }
        self.busy[at] = true;
        self.next[at] += 1;
        if self.graph.catalog.kind(pass.kind).queue == Queue::Lockstep {
            self.arrive(pass, now);
        } else {
            self.start(pass, now);
        }
    }

    /// A lock-step pass starts on all ranks when the last of them has come to it. A rank that comes to another one is stuck.
    fn arrive(&mut self, pass: Pass, now: Ticks) {
        let rank = self.graph.rank_of(pass.site);
        let (current, arrived) = self.lockstep.unwrap_or((pass, 0));
        if (current.kind, current.microbatch) != (pass.kind, pass.microbatch) {
            self.next[rank.index()] -= 1;
            return;
        }
        self.lockstep = Some((current, arrived + 1));
        if arrived + 1 == self.schedule.orders.len() {
            self.lockstep = None;
            let sites = self.graph.sites_of(pass.kind, Flow(0));
            sites.for_each(|site| self.start(Pass { site, ..pass }, now));
        }
    }

    fn start(&mut self, pass: Pass, now: Ticks) {
        self.calendar.enter(now + self.costs.pass(pass), Moment::Ends(pass));
    }
}
