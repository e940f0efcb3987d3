//! Orders against the clock: when every pass of an order runs, and which passes may take idle time.
//!
//! Ranks run their orders in order; messages and collectives take their time beside them. [`Timing::improve`] makes an order
//! shorter without letting a rank hold more: passes fill gaps that they fit in, forward in time and then backward, as the
//! forward-backward improvement of project scheduling does (Li & Willis 1992; Valls et al. 2005, "justification").

mod dag;
mod fill;
mod modulo;
mod moments;
mod pace;
mod play;
mod retime;

use self::dag::{Dag, Side};
use self::fill::Limits;
pub use self::modulo::{Block, Hops, blocks};
pub(crate) use self::play::{Choose, Now, Played};
pub use self::retime::{lifespans, retime};
use crate::cost::Costs;
use crate::graph::Graph;
use crate::ir::{Catalog, ClassId, Pass, Placed, Ticks};

/// How many buffers of a class may live on each rank.
#[derive(Clone, Debug)]
pub struct Room {
    /// The class.
    pub class: ClassId,
    /// How many, by [`crate::ir::Rank`].
    pub most: Vec<u32>,
}

/// The passes of every rank, each by its [`Graph::index`].
pub(crate) type Nodes = Vec<Vec<u32>>;

/// Orders with passes moved into idle time.
#[derive(Clone, Debug)]
pub(crate) struct Filled {
    /// The orders.
    pub(crate) orders: Nodes,
    /// The end of the last pass before passes were moved forward.
    before: Ticks,
    /// The end of the last pass.
    pub(crate) makespan: Ticks,
}

/// The passes of a schedule with what they wait for and how long they take.
#[derive(Debug)]
pub struct Timing<'a> {
    graph: &'a Graph<'a>,
    dag: Dag,
}

/// Ranks with more streams of passes than this keep their orders: each is looked at whenever a rank is idle.
const MANY_STREAMS: usize = 128;
/// Orders of more passes than this are improved once.
const MANY: usize = 1 << 15;
/// How often smaller ones are, as long as it helps.
const ROUNDS: u32 = 4;

impl<'a> Timing<'a> {
    /// Looks at every pass of `orders` once. Linear in passes.
    #[must_use]
    pub fn new(graph: &'a Graph<'a>, costs: &Costs) -> Self {
        Self { graph, dag: Dag::new(graph, costs) }
    }

    /// Lets second passes of pairs wait for the first, without a message.
    pub(crate) fn add_edges(&mut self, pairs: &[(Pass, Pass)]) {
        let pairs = pairs.iter().map(|&(first, second)| (self.node(first), self.node(second)));
        self.dag.add_edges(&pairs.collect::<Vec<_>>());
    }

    /// The end of the last pass; `None` where the orders deadlock.
    #[must_use]
    pub fn makespan(&self, orders: &[Vec<Placed>]) -> Option<Ticks> {
        let orders = self.nodes(orders);
        pace::pace(&self.dag, Side::Forward, &orders).map(|paced| Ticks(paced.makespan))
    }

    /// No order is shorter: a rank works on its passes at best from when the first of them can start, and from the last of them on
    /// the others need their time too.
    #[must_use]
    pub fn bound(&self) -> Ticks {
        // What a rank has to do, before which others have worked for it, and after which others work.
        let mut ranks = vec![(0, u64::MAX, u64::MAX); self.graph.shape.ranks as usize];
        // What ends beside the ranks is in no makespan, and so would be too much.
        let beside = |&node: &u32| self.dag.rank(node) == dag::NOWHERE;
        if (0..self.dag.len() as u32).filter(beside).any(|node| self.dag.out(Side::Forward, node).is_empty())
        {
            return Ticks(0);
        }
        let early = pace::pace(&self.dag, Side::Forward, &[]);
        let late = pace::pace(&self.dag, Side::Backward, &[]);
        let (Some(early), Some(late)) = (early, late) else { return Ticks(0) };
        for node in 0..self.dag.len() as u32 {
            if let Some((work, head, tail)) = ranks.get_mut(self.dag.rank(node) as usize) {
                *work += self.dag.duration(node);
                *head = early.start(node).min(*head);
                *tail = late.start(node).min(*tail);
            }
        }
        let busy = ranks.into_iter().filter(|&(_, head, _)| head != u64::MAX);
        let longest = busy.map(|(work, head, tail)| work + head + tail).max();
        Ticks(longest.unwrap_or(0).max(early.makespan))
    }

    /// Moves passes into idle time as long as the makespan shrinks. No rank holds more buffers of a class than `room` says, or
    /// than it held before. Passes of one kind and chunk keep their order.
    ///
    /// Returns the makespan; `None`, and nothing moved, where the orders deadlock.
    pub fn improve(&self, orders: &mut [Vec<Placed>], room: &[Room]) -> Option<Ticks> {
        let filled = self.improved(self.nodes(orders), room)?;
        let placed = self.placed(&filled.orders, orders);
        orders.iter_mut().zip(placed).for_each(|(order, placed)| *order = placed);
        Some(filled.makespan)
    }

    /// [`Timing::improve`] for orders of nodes.
    pub(crate) fn improved(&self, orders: Nodes, room: &[Room]) -> Option<Filled> {
        let mut best = self.filled(orders, room)?;
        let rounds = if self.is_large() { 1 } else { ROUNDS };
        for _ in 0..rounds {
            let next = self.filled_back(&best, room)?;
            let gains = next.before < best.before;
            best = next;
            if !gains {
                break;
            }
        }
        Some(best)
    }

    /// Moves passes into idle time once, forward in time; `None` where the orders deadlock.
    pub(crate) fn filled(&self, orders: Nodes, room: &[Room]) -> Option<Filled> {
        let paced = pace::pace(&self.dag, Side::Forward, &orders)?;
        if self.has_many_streams() {
            let makespan = Ticks(paced.makespan);
            return Some(Filled { orders, before: makespan, makespan });
        }
        Some(fill::fill(&self.dag, Side::Forward, &Limits::new(self.graph, room), &orders, &paced))
    }

    /// Moves passes into idle time once backward and once forward.
    pub(crate) fn filled_back(&self, filled: &Filled, room: &[Room]) -> Option<Filled> {
        if self.has_many_streams() {
            return Some(filled.clone());
        }
        let limits = Limits::new(self.graph, room);
        let mut orders = filled.orders.clone();
        reverse(&mut orders);
        let paced = pace::pace(&self.dag, Side::Backward, &orders)?;
        orders = fill::fill(&self.dag, Side::Backward, &limits, &orders, &paced).orders;
        reverse(&mut orders);
        let paced = pace::pace(&self.dag, Side::Forward, &orders)?;
        Some(fill::fill(&self.dag, Side::Forward, &limits, &orders, &paced))
    }

    fn has_many_streams(&self) -> bool {
        self.graph.shape.chunks as usize * self.graph.catalog.kinds.len() > MANY_STREAMS
    }

    /// The passes of some orders in the order of nodes.
    pub(crate) fn placed(&self, nodes: &Nodes, orders: &[Vec<Placed>]) -> Vec<Vec<Placed>> {
        let placed = by_pass(self.graph, orders);
        let row = |row: &Vec<u32>| row.iter().filter_map(|&node| placed[node as usize]).collect();
        nodes.iter().map(row).collect()
    }

    /// Lets ranks that are idle choose their next pass, until nothing more happens.
    pub(crate) fn play(&self, chooser: &mut impl Choose) -> Played {
        play::play(&self.dag, Side::Forward, self.graph.shape.ranks as usize, chooser)
    }

    /// Whether there are so many passes that every look at them counts.
    #[must_use]
    pub fn is_large(&self) -> bool {
        self.dag.len() > MANY
    }

    /// The node of a pass.
    pub(crate) fn node(&self, pass: Pass) -> u32 {
        self.graph.index(pass) as u32
    }

    /// The nodes of orders.
    pub(crate) fn nodes(&self, orders: &[Vec<Placed>]) -> Nodes {
        orders.iter().map(|order| order.iter().map(|placed| self.node(placed.pass)).collect()).collect()
    }
}

fn reverse(orders: &mut Nodes) {
    for order in orders {
        order.reverse();
    }
}

/// By [`Graph::index`]: every pass of some orders.
pub(crate) fn by_pass(graph: &Graph<'_>, orders: &[Vec<Placed>]) -> Vec<Option<Placed>> {
    let mut placed = vec![None; graph.len()];
    for &one in orders.iter().flatten() {
        placed[graph.index(one.pass)] = Some(one);
    }
    placed
}

/// The most buffers of a class that are live at once on each rank.
#[must_use]
pub fn peaks(catalog: &Catalog, orders: &[Vec<Placed>], class: ClassId) -> Vec<u32> {
    let of = |order: &Vec<Placed>| {
        let (mut live, mut most) = (0_u32, 0);
        for kind in order.iter().map(|placed| catalog.kind(placed.pass.kind)) {
            live += u32::from(kind.makes.contains(&class));
            most = most.max(live);
            live -= u32::from(kind.frees.contains(&class));
        }
        most
    };
    orders.iter().map(of).collect()
}
