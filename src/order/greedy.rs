//! A priority list and caps -> every rank's order: event-driven list scheduling.
//!
//! An idle rank takes the first pass of its list that is ready and that its caps let through. A pass of an earlier chunk leaves room
//! for one of each later chunk, so that the oldest microbatch in flight can always go on: a cap of as many buffers as there are
//! chunks is always enough.

use super::OrderError;
use crate::graph::Graph;
use crate::ir::{At, Cap, ClassId, Microbatch, Pass, Placed, Program, Rank, RankOrder, Site, Span};
use crate::timing::{Choose, Now, Room, Timing};

/// Every rank's order by its list.
///
/// # Errors
/// A cap that no order can meet.
pub(super) fn orders(
    program: &Program,
    graph: &Graph<'_>,
    timing: &Timing<'_>,
    origins: &mut Vec<Span>,
) -> Result<Vec<Vec<Placed>>, OrderError> {
    let (queues, placed) = queues(program, graph, timing, origins);
    let take = |extra: Extra| {
        let mut list = List { program, graph, queues: queues.clone(), placed: &placed, extra };
        let outcome = timing.play(&mut list);
        (outcome.complete, outcome.orders, list.queues)
    };
    let (complete, mut orders, _) = take(Extra::default());
    if !complete {
        let (complete, without_caps, rest) = take(Extra { others: u32::MAX, ..Extra::default() });
        if complete {
            return Err(too_tight(program, |extra| take(extra).0));
        }
        // Streams may list slices against their needs; whoever runs the order will show where.
        orders = without_caps;
        for (order, lane) in orders.iter_mut().zip(&rest) {
            order.extend(lane.queues.iter().flat_map(|queue| &queue.nodes[queue.next..]));
        }
    }
    let placed = |node: u32| placed[node as usize].expect("only passes of the lists are taken");
    Ok(orders.into_iter().map(|order| order.into_iter().map(placed).collect()).collect())
}

/// The room that the caps leave on each rank.
pub(super) fn room(program: &Program) -> Vec<Room> {
    let mut room: Vec<Room> = Vec::new();
    for (rank, declared) in program.ranks.iter().enumerate() {
        let RankOrder::Greedy(greedy) = &declared.order else { continue };
        for cap in &greedy.limits {
            let known = room.iter().position(|limit| limit.class == cap.class).unwrap_or_else(|| {
                room.push(Room { class: cap.class, most: vec![u32::MAX; program.ranks.len()] });
                room.len() - 1
            });
            room[known].most[rank] = room[known].most[rank].min(cap.most);
        }
    }
    room
}

/// The passes of one kind and chunk on a rank, in stream order.
#[derive(Clone, Debug)]
struct Queue {
    nodes: Vec<u32>,
    next: usize,
    /// Chunks after this one on the rank.
    later: u32,
}

/// One rank's list: its queues by priority, and what is live.
#[derive(Clone, Debug)]
struct Lane {
    queues: Vec<Queue>,
    /// By cap: buffers that are live.
    live: Vec<u32>,
    /// The pass that runs, whose buffers are freed when the next one is chosen.
    running: Option<u32>,
}

struct List<'a> {
    program: &'a Program,
    graph: &'a Graph<'a>,
    queues: Vec<Lane>,
    placed: &'a [Option<Placed>],
    extra: Extra,
}

/// What is added to the caps.
#[derive(Clone, Copy, Debug, Default)]
struct Extra {
    /// To those of one class.
    class: Option<(ClassId, u32)>,
    /// To all others.
    others: u32,
}

impl Extra {
    fn of(&self, class: ClassId) -> u32 {
        self.class.filter(|&(raised, _)| raised == class).map_or(self.others, |(_, by)| by)
    }
}

fn queues(
    program: &Program,
    graph: &Graph<'_>,
    timing: &Timing<'_>,
    origins: &mut Vec<Span>,
) -> (Vec<Lane>, Vec<Option<Placed>>) {
    let mut placed = vec![None; graph.len()];
    let held = program.shape.chunks_by_rank();
    let mut lanes = Vec::with_capacity(program.ranks.len());
    for (rank, declared) in Rank::all(program.ranks.len()).zip(&program.ranks) {
        let RankOrder::Greedy(greedy) = &declared.order else { continue };
        let mut queues = Vec::with_capacity(greedy.prefer.len());
        for member in &greedy.prefer {
            let at = graph.catalog.kind(member.kind).at;
            let chunks = if at == At::Stage { held[rank.index()].len() } else { 1 };
            let site = match at {
                At::Stage => Site::Stage(held[rank.index()][member.chunk.index()]),
                At::EveryRank => Site::Rank(rank),
            };
            let shape = &program.shape;
            let own = |&microbatch: &Microbatch| match site {
                Site::Stage(stage) => shape.flow_at(stage) == shape.flow_of(microbatch),
                Site::Rank(_) => true,
            };
            let all = || Microbatch::all(shape.units()).filter(own).collect();
            let of_chunk = |stream: &Vec<_>| {
                let own = stream.iter().filter(|(chunk, _)| *chunk == member.chunk);
                own.map(|&(_, microbatch)| microbatch).collect()
            };
            let stream = declared.streams[member.kind.index()].as_ref();
            let microbatches: Vec<Microbatch> = stream.map_or_else(all, of_chunk);
            let origin = super::origin(origins, member.span);
            let mut nodes = Vec::with_capacity(microbatches.len());
            for microbatch in microbatches {
                let pass = Pass { kind: member.kind, site, microbatch };
                placed[graph.index(pass)] = Some(Placed { pass, origin, overlaps: false });
                nodes.push(timing.node(pass));
            }
            // A microbatch goes on to the chunks of its own flow.
            let later = if shape.flows == 1 { chunks - 1 - member.chunk.index() } else { 0 };
            queues.push(Queue { nodes, next: 0, later: later as u32 });
        }
        lanes.push(Lane { queues, live: vec![0; greedy.limits.len()], running: None });
    }
    (lanes, placed)
}

impl List<'_> {
    fn caps(&self, rank: usize) -> &[Cap] {
        match &self.program.ranks[rank].order {
            RankOrder::Greedy(greedy) => &greedy.limits,
            RankOrder::Pattern(_) | RankOrder::Block(_) => &[],
        }
    }

    fn kind(&self, node: u32) -> &crate::ir::Kind {
        let placed = self.placed[node as usize].expect("only passes of the lists are taken");
        self.graph.catalog.kind(placed.pass.kind)
    }

    /// Whether the caps let a pass through that leaves room for `later` more.
    fn fits(&self, rank: usize, node: u32, later: u32) -> bool {
        let live = &self.queues[rank].live;
        self.caps(rank).iter().zip(live).all(|(cap, &live)| {
            !self.kind(node).makes.contains(&cap.class)
                || live.saturating_add(later) < cap.most.saturating_add(self.extra.of(cap.class))
        })
    }

    /// Counts what a pass makes when it starts, or frees when it has ended.
    fn count(&mut self, rank: usize, node: u32, started: bool) {
        for cap in 0..self.queues[rank].live.len() {
            let class = self.caps(rank)[cap].class;
            let kind = self.kind(node);
            if started && kind.makes.contains(&class) {
                self.queues[rank].live[cap] += 1;
            } else if !started && kind.frees.contains(&class) {
                self.queues[rank].live[cap] -= 1;
            }
        }
    }
}

impl Choose for List<'_> {
    fn choose(&mut self, rank: usize, now: &Now<'_>) -> Option<u32> {
        if let Some(ended) = self.queues[rank].running.take() {
            self.count(rank, ended, false);
        }
        let found = self.queues[rank].queues.iter().position(|queue| {
            let next = queue.nodes.get(queue.next);
            next.is_some_and(|&node| now.is_ready(node) && self.fits(rank, node, queue.later))
        })?;
        let lane = &mut self.queues[rank];
        let queue = &mut lane.queues[found];
        let node = queue.nodes[queue.next];
        queue.next += 1;
        lane.running = Some(node);
        self.count(rank, node, true);
        Some(node)
    }
}

/// The error for caps under which the ranks come to a halt: the class whose cap is to blame, with the smallest that works.
///
/// A class that is enough to raise alone, and of several the one that has to be raised least. Where none is, the one that has to be raised
/// least even if the others had no caps; at last all of them together.
fn too_tight<'a>(program: &'a Program, works: impl Fn(Extra) -> bool) -> OrderError {
    let of = |rank: usize| match &program.ranks[rank].order {
        RankOrder::Greedy(greedy) => greedy.limits.as_slice(),
        RankOrder::Pattern(_) | RankOrder::Block(_) => &[],
    };
    let mut caps: Vec<(usize, &'a Cap)> =
        (0..program.ranks.len()).flat_map(|rank| of(rank).iter().map(move |cap| (rank, cap))).collect();
    // The tightest of each class stands for it; the declared order decides between equals.
    caps.sort_by_key(|(_, cap)| cap.most);
    let mut tightest: Vec<(usize, &'a Cap)> = Vec::new();
    for (rank, cap) in caps {
        if !tightest.iter().any(|(_, known)| known.class == cap.class) {
            tightest.push((rank, cap));
        }
    }
    let alone = |others: u32| {
        let raise = |(rank, cap): (usize, &'a Cap)| {
            let by = least(|by| works(Extra { class: Some((cap.class, by)), others }))?;
            (by > 0).then_some((by, rank, cap))
        };
        let raised: Vec<_> = tightest.iter().copied().filter_map(raise).collect();
        raised.into_iter().min_by_key(|&(by, _, _)| by)
    };
    let together = || {
        let by = least(|others| works(Extra { others, ..Extra::default() }))?;
        tightest.first().map(|&(rank, cap)| (by, rank, cap))
    };
    let blamed = alone(0).or_else(|| alone(u32::MAX)).or_else(together);
    let (by, rank, cap) = blamed.expect("without caps every list comes to its end");
    OrderError::LimitTooTight {
        class: program.catalog.class(cap.class).name.clone(),
        most: cap.most,
        works: cap.most.saturating_add(by),
        rank: Rank::new(rank),
        at: cap.span,
    }
}

/// The least number that works, if larger ones do too.
fn least(works: impl Fn(u32) -> bool) -> Option<u32> {
    if works(0) {
        return Some(0);
    }
    let (mut fails, mut most) = (0_u32, 1);
    while !works(most) {
        if most > u32::MAX / 2 {
            return None;
        }
        (fails, most) = (most, 2 * most);
    }
    while most - fails > 1 {
        let middle = fails + (most - fails) / 2;
        if works(middle) { most = middle } else { fails = middle }
    }
    Some(most)
}
