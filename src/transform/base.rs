//! The base schedule's passes on their way into the new order.
//!
//! An order that was written down is a law: each rank takes its passes one by one. Where ranks meet in lock step, its two sides are laws
//! of their own, so that a rank finds something to do between two meetings ([`super::ahead`]). An order that was placed by time is a
//! priority: the first pass that is ready runs, if the rank then holds no more than the order did, and what the transform deepens it by.

use std::collections::BTreeMap;

use super::ahead::Ahead;
use super::sides::Sides;
use crate::graph::{Graph, heads_of};
use crate::ir::{At, ClassId, Pass, Placed, Rank, Schedule, Site};
use crate::timing::{lifespans, peaks};

/// How far every rank is with its base order.
pub(super) struct Base<'a> {
    orders: &'a [Vec<Placed>],
    /// The first position of each rank that has not run.
    next: Vec<usize>,
    /// Ranks whose next pair could not start as one: it runs one after the other.
    split: Vec<bool>,
    rule: Rule,
}

/// Which of its passes a rank may take next.
enum Rule {
    /// The next one.
    Law,
    /// The next one of either side; by rank.
    Sides(Vec<Ahead>),
    /// The next one of any kind and site; by rank.
    Loose(Vec<Loose>),
}

/// How a base order is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reading {
    /// Pass by pass.
    Law,
    /// As priorities, under what the rank that held most did where the order was placed by time, else under what each rank did.
    Loose,
    /// Side by side, with a forward side that may run so many passes ahead of what the order has.
    Sides(usize),
}

/// One rank's passes out of order.
struct Loose {
    ran: Vec<bool>,
    streams: Vec<Stream>,
    held: Vec<Held>,
}

/// The passes of one kind and site.
#[derive(Default)]
struct Stream {
    positions: Vec<u32>,
    /// How many have run.
    ran: usize,
    /// Later stages of the same flow on the rank.
    later: u32,
}

impl Stream {
    fn head(&self) -> Option<usize> {
        self.positions.get(self.ran).map(|&at| at as usize)
    }
}

/// How much of a class that begins a lifespan the rank holds.
struct Held {
    class: ClassId,
    live: u32,
    most: u32,
    /// Buffers freed by the pass that runs now.
    ending: u32,
}

impl<'a> Base<'a> {
    /// Nothing has run. `deepen`: chunks' microbatches that each rank may hold more, where the order is a priority.
    pub(super) fn new(
        graph: &Graph<'_>,
        schedule: &'a Schedule,
        base: usize,
        (sides, deepen, reading): (&Sides, u32, Reading),
    ) -> Self {
        let orders = schedule.orders.as_slice();
        let rule = match reading {
            Reading::Loose => Rule::Loose(loose(graph, schedule, base, deepen)),
            Reading::Law => Rule::Law,
            Reading::Sides(by) => {
                Rule::Sides(orders.iter().map(|order| Ahead::new(order, sides, by)).collect())
            }
        };
        Self { orders, next: vec![0; orders.len()], split: vec![false; orders.len()], rule }
    }

    /// A rank's next pass that is `free` to run, or the two of a pair.
    pub(super) fn choose(
        &self,
        graph: &Graph<'_>,
        rank: Rank,
        free: impl Fn(&Pass) -> bool,
    ) -> Option<(Pass, Option<Pass>)> {
        let order = &self.orders[rank.index()];
        match &self.rule {
            Rule::Law => {
                let at = self.next[rank.index()];
                let head = order.get(at).filter(|head| free(&head.pass))?;
                if !head.overlaps || self.split[rank.index()] {
                    return Some((head.pass, None));
                }
                let second = order.get(at + 1).map(|placed| placed.pass).filter(free)?;
                Some((head.pass, Some(second)))
            }
            Rule::Sides(ahead) => ahead[rank.index()].choose(order, free).map(|at| (order[at].pass, None)),
            Rule::Loose(loose) => {
                let loose = &loose[rank.index()];
                let open = |stream: &Stream| {
                    let at = stream.head()?;
                    let pass = order[at].pass;
                    (free(&pass) && loose.fits(graph, pass, stream.later)).then_some(at)
                };
                loose.streams.iter().filter_map(open).min().map(|at| (order[at].pass, None))
            }
        }
    }

    /// Notes that a pass starts. Returns where it came from in the source.
    pub(super) fn start(&mut self, graph: &Graph<'_>, rank: Rank, pass: Pass) -> u32 {
        let (order, next) = (&self.orders[rank.index()], &mut self.next[rank.index()]);
        let position = match &mut self.rule {
            Rule::Law => *next,
            Rule::Sides(ahead) => ahead[rank.index()].start(order, pass),
            Rule::Loose(loose) => loose[rank.index()].start(graph, order, pass),
        };
        let ran = |at: usize| match &self.rule {
            Rule::Law => at == position,
            Rule::Sides(ahead) => ahead[rank.index()].has_run(at),
            Rule::Loose(loose) => loose[rank.index()].ran.get(at).is_some_and(|&ran| ran),
        };
        while ran(*next) {
            *next += 1;
        }
        self.split[rank.index()] = false;
        order[position].origin
    }

    /// Lets the first rank whose next passes are a pair run them one after the other. `None` where there is no such rank.
    pub(super) fn split_a_pair(&mut self) -> Option<Rank> {
        let paired = |rank: &usize| {
            let head = self.orders[*rank].get(self.next[*rank]);
            !self.split[*rank] && head.is_some_and(|head| head.overlaps)
        };
        let rank = (0..self.split.len()).find(paired)?;
        self.split[rank] = true;
        Some(Rank::new(rank))
    }

    /// What every rank would run next.
    pub(super) fn heads(&self) -> Vec<Vec<Placed>> {
        heads_of(self.orders, &self.next)
    }
}

/// Every rank's order as priorities.
fn loose(graph: &Graph<'_>, schedule: &Schedule, base: usize, deepen: u32) -> Vec<Loose> {
    let orders = schedule.orders.as_slice();
    let held = |class, more: u32| {
        let mut most = peaks(graph.catalog, orders, class);
        if schedule.by_time {
            let fullest = most.iter().copied().max().unwrap_or(0);
            most.fill(fullest);
        }
        (class, most.into_iter().map(|most| most.saturating_add(more)).collect::<Vec<u32>>())
    };
    let longer = lifespans(graph.catalog).into_iter().map(|class| held(class, deepen));
    // What earlier transforms placed.
    let kinds = schedule.catalog.kinds[..base].iter().filter(|kind| kind.at == At::EveryRank);
    let earlier = kinds.flat_map(|kind| kind.makes.iter().map(|&class| held(class, 0)));
    let held: Vec<_> = longer.chain(earlier).collect();
    let later = later(graph);
    let of = |(rank, order): (usize, &Vec<Placed>)| {
        Loose::new(order, held.iter().map(|(class, most)| (*class, most[rank])), &later)
    };
    orders.iter().enumerate().map(of).collect()
}

/// By stage: how many later stages of its flow lie on the same rank.
fn later(graph: &Graph<'_>) -> Vec<u32> {
    let shape = graph.shape;
    let mut later = vec![0; shape.stages.len()];
    for flow in graph.flows() {
        let mut seen = vec![0; shape.ranks as usize];
        for stage in (shape.first_of(flow).index()..=shape.last_of(flow).index()).rev() {
            let rank = shape.stages[stage].index();
            later[stage] = seen[rank];
            seen[rank] += 1;
        }
    }
    later
}

impl Loose {
    fn new(order: &[Placed], held: impl Iterator<Item = (ClassId, u32)>, later: &[u32]) -> Self {
        let mut known = BTreeMap::new();
        let mut streams: Vec<Stream> = Vec::new();
        for (position, placed) in order.iter().enumerate() {
            let pass = placed.pass;
            let stream = *known.entry((pass.kind, pass.site)).or_insert(streams.len());
            if stream == streams.len() {
                let later = if let Site::Stage(stage) = pass.site { later[stage.index()] } else { 0 };
                streams.push(Stream { later, ..Stream::default() });
            }
            streams[stream].positions.push(position as u32);
        }
        let held = held.map(|(class, most)| Held { class, live: 0, most, ending: 0 });
        Self { ran: vec![false; order.len()], streams, held: held.collect() }
    }

    /// Whether the rank has room for what a pass makes, and for one more at each later stage: so the oldest microbatch can go on.
    fn fits(&self, graph: &Graph<'_>, pass: Pass, later: u32) -> bool {
        let kind = graph.catalog.kind(pass.kind);
        self.held.iter().all(|held| {
            let live = held.live - held.ending;
            !kind.makes.contains(&held.class) || live + later < held.most
        })
    }

    /// The position of the pass that starts.
    fn start(&mut self, graph: &Graph<'_>, order: &[Placed], pass: Pass) -> usize {
        let kind = graph.catalog.kind(pass.kind);
        let is = |stream: &Stream| stream.head().filter(|&at| order[at].pass == pass);
        let found = self.streams.iter_mut().find_map(|stream| is(stream).map(|at| (stream, at)));
        let (stream, position) = found.expect("a pass that starts is the next of its stream");
        stream.ran += 1;
        self.ran[position] = true;
        for held in &mut self.held {
            held.live -= std::mem::take(&mut held.ending);
            held.live += u32::from(kind.makes.contains(&held.class));
            held.ending = u32::from(kind.frees.contains(&held.class));
        }
        position
    }
}
