//! The base schedule's passes on their way into the new order.
//!
//! An order that was written down is a law: each rank takes its passes one by one. An order that was placed by time is a priority: the
//! first pass that is ready runs, if the rank then holds no more than the order did, and what the transform deepens it by.

use std::collections::BTreeMap;

use crate::graph::{Graph, Progress, heads_of};
use crate::ir::{At, ClassId, Pass, Placed, Rank, Schedule, Site, Ticks};
use crate::timing::{lifespans, peaks};

/// How far every rank is with its base order.
pub(super) struct Base<'a> {
    orders: &'a [Vec<Placed>],
    /// The first position of each rank that has not run.
    next: Vec<usize>,
    /// Ranks whose next pair could not start as one: it runs one after the other.
    split: Vec<bool>,
    /// By rank, where the order is a priority.
    loose: Option<Vec<Loose>>,
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
    pub(super) fn new(graph: &Graph<'_>, schedule: &'a Schedule, base: usize, deepen: u32) -> Self {
        let orders = schedule.orders.as_slice();
        let loose = schedule.by_time.then(|| {
            let most = |class| peaks(graph.catalog, orders, class).into_iter().max().unwrap_or(0);
            let longer = lifespans(graph.catalog).into_iter().map(|class| (class, most(class) + deepen));
            // What earlier transforms placed.
            let kinds = schedule.catalog.kinds[..base].iter().filter(|kind| kind.at == At::EveryRank);
            let earlier = kinds.flat_map(|kind| kind.makes.iter().map(|&class| (class, most(class))));
            let held: Vec<_> = longer.chain(earlier).collect();
            let later = later(graph);
            orders.iter().map(|order| Loose::new(order, &held, &later)).collect()
        });
        Self { orders, next: vec![0; orders.len()], split: vec![false; orders.len()], loose }
    }

    /// A rank's next pass that may run now, or the two of a pair.
    pub(super) fn choose(
        &self,
        graph: &Graph<'_>,
        progress: &Progress,
        rank: Rank,
        now: Ticks,
    ) -> Option<(Pass, Option<Pass>)> {
        let order = &self.orders[rank.index()];
        let ready = |pass: &Pass| progress.is_ready(graph, *pass, now);
        let Some(loose) = &self.loose else {
            let at = self.next[rank.index()];
            let head = order.get(at).filter(|head| ready(&head.pass))?;
            if !head.overlaps || self.split[rank.index()] {
                return Some((head.pass, None));
            }
            let second = order.get(at + 1).map(|placed| placed.pass).filter(ready)?;
            return Some((head.pass, Some(second)));
        };
        let loose = &loose[rank.index()];
        let free = |stream: &Stream| {
            let at = stream.head()?;
            let pass = order[at].pass;
            (ready(&pass) && loose.fits(graph, pass, stream.later)).then_some(at)
        };
        loose.streams.iter().filter_map(free).min().map(|at| (order[at].pass, None))
    }

    /// Notes that a pass starts. Returns where it came from in the source.
    pub(super) fn start(&mut self, graph: &Graph<'_>, rank: Rank, pass: Pass) -> u32 {
        let (order, next) = (&self.orders[rank.index()], &mut self.next[rank.index()]);
        let position = match &mut self.loose {
            None => *next,
            Some(loose) => loose[rank.index()].start(graph, order, pass),
        };
        let ran = |at: usize| match &self.loose {
            None => at == position,
            Some(loose) => loose[rank.index()].ran.get(at).is_some_and(|&ran| ran),
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
    fn new(order: &[Placed], held: &[(ClassId, u32)], later: &[u32]) -> Self {
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
        let held = held.iter().map(|&(class, most)| Held { class, live: 0, most, ending: 0 });
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
