//! Passes and collectives as nodes, with what waits for what, both ways.

use crate::cost::Costs;
use crate::graph::Graph;
use crate::ir::{CollectiveId, KindId, Microbatch, Pass, Queue, Rank, Site};

/// The rank of what takes no compute lane: collectives, and the steps between the parts of a barrier.
pub(super) const NOWHERE: u32 = u32::MAX;

/// Every pass (at its [`Graph::index`]), then every collective of every microbatch.
#[derive(Debug)]
pub(super) struct Dag {
    nodes: Vec<Node>,
    kinds: usize,
    /// By [`Edge::hop`]: how long the message takes.
    hops: Vec<u64>,
    after: Links,
    before: Links,
}

#[derive(Clone, Copy, Debug)]
struct Node {
    duration: u64,
    rank: u32,
    kind: u16,
    /// The position of a pass's site among those of its kind on its rank.
    chunk: u16,
}

/// The hop of what no message lies between.
const NO_HOP: u32 = 0;

/// Which way time runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    /// From the first pass on.
    Forward,
    /// From the last pass back.
    Backward,
}

/// The edges out of every node.
#[derive(Debug)]
struct Links {
    starts: Vec<u32>,
    edges: Vec<Edge>,
}

/// What waits, and what message lies between.
#[derive(Clone, Copy, Debug)]
pub(super) struct Edge {
    pub(super) to: u32,
    /// The message's ranks, `from * p + to`; from a rank to itself where there is none.
    hop: u32,
}

impl Dag {
    /// Linear in passes and needs.
    pub(super) fn new(graph: &Graph<'_>, costs: &Costs) -> Self {
        let m = graph.shape.units();
        let count = graph.len() + graph.catalog.collectives.len() * m;
        let mut dag = Self {
            nodes: vec![Node { duration: 0, rank: NOWHERE, kind: 0, chunk: 0 }; count],
            kinds: graph.catalog.kinds.len(),
            hops: hops(graph, costs),
            after: Links::empty(count),
            before: Links::empty(count),
        };
        dag.describe(graph, costs);
        let mut edges = Vec::with_capacity(3 * count);
        Self::for_edges(graph, |from, edge| edges.push((from, edge)));
        dag.link(&edges);
        dag
    }

    fn link(&mut self, edges: &[(u32, Edge)]) {
        self.after = Links::new(self.len(), edges.iter().copied());
        let back = edges.iter().map(|&(from, edge)| (edge.to, Edge { to: from, hop: edge.hop }));
        self.before = Links::new(self.len(), back);
    }

    /// Edges beside those of the needs, without a message.
    pub(super) fn add_edges(&mut self, pairs: &[(u32, u32)]) {
        let nodes = 0..self.len() as u32;
        let mut edges: Vec<(u32, Edge)> =
            nodes.flat_map(|node| self.after.of(node).iter().map(move |&edge| (node, edge))).collect();
        edges.extend(pairs.iter().map(|&(from, to)| (from, Edge { to, hop: NO_HOP })));
        self.link(&edges);
    }

    fn describe(&mut self, graph: &Graph<'_>, costs: &Costs) {
        let chunks = chunks(graph);
        for kind in KindId::all(graph.catalog.kinds.len()) {
            let queue = graph.catalog.kind(kind).queue;
            for pass in graph.passes_of(kind) {
                let node = &mut self.nodes[graph.index(pass)];
                node.duration = costs.pass(pass).0;
                node.kind = kind.0 as u16;
                if queue != Queue::Group {
                    node.rank = graph.rank_of(pass.site).0;
                }
                if let Site::Stage(stage) = pass.site {
                    node.chunk = chunks[stage.index()];
                }
            }
        }
        let m = graph.shape.units();
        for collective in CollectiveId::all(graph.catalog.collectives.len()) {
            let first = graph.len() + collective.index() * m;
            let duration = costs.collective(collective).0;
            self.nodes[first..first + m].iter_mut().for_each(|node| node.duration = duration);
        }
    }

    fn for_edges(graph: &Graph<'_>, mut visit: impl FnMut(u32, Edge)) {
        let m = graph.shape.units();
        let collected = |id: CollectiveId, microbatch: Microbatch| {
            (graph.len() + id.index() * m + microbatch.index()) as u32
        };
        for kind in KindId::all(graph.catalog.kinds.len()) {
            for pass in graph.passes_of(kind) {
                let from = graph.index(pass) as u32;
                let rank = graph.rank_of(pass.site);
                graph.for_dependents(pass, |dependent: Pass| {
                    let hop = rank.0 * graph.shape.ranks + graph.rank_of(dependent.site).0;
                    visit(from, Edge { to: graph.index(dependent) as u32, hop });
                });
                for id in graph.feeds(pass) {
                    visit(from, Edge { to: collected(id, pass.microbatch), hop: NO_HOP });
                }
            }
        }
        for id in CollectiveId::all(graph.catalog.collectives.len()) {
            for microbatch in Microbatch::all(m) {
                graph.for_readers(id, microbatch, |reader| {
                    let to = graph.index(reader) as u32;
                    visit(collected(id, microbatch), Edge { to, hop: NO_HOP });
                });
            }
        }
    }

    pub(super) fn len(&self) -> usize {
        self.nodes.len()
    }

    /// The rank whose compute lane a node takes, or [`NOWHERE`].
    pub(super) fn rank(&self, node: u32) -> u32 {
        self.nodes[node as usize].rank
    }

    pub(super) fn duration(&self, node: u32) -> u64 {
        self.nodes[node as usize].duration
    }

    pub(super) fn kind(&self, node: u32) -> usize {
        usize::from(self.nodes[node as usize].kind)
    }

    /// A dense number for a pass's kind and chunk.
    pub(super) fn stream(&self, node: u32) -> usize {
        usize::from(self.nodes[node as usize].chunk) * self.kinds + self.kind(node)
    }

    /// What waits for a node.
    pub(super) fn out(&self, side: Side, node: u32) -> &[Edge] {
        match side {
            Side::Forward => self.after.of(node),
            Side::Backward => self.before.of(node),
        }
    }

    /// How many nodes every node waits for.
    pub(super) fn waits(&self, side: Side) -> impl Iterator<Item = u32> + '_ {
        let links = if side == Side::Forward { &self.before } else { &self.after };
        links.starts.windows(2).map(|pair| pair[1] - pair[0])
    }

    /// When what an edge leads to has what came at `end`.
    pub(super) fn arrives(&self, edge: Edge, end: u64) -> u64 {
        end + self.hops[edge.hop as usize]
    }
}

/// How long a message from each rank to each other takes.
fn hops(graph: &Graph<'_>, costs: &Costs) -> Vec<u64> {
    let ranks = || Rank::all(graph.shape.ranks as usize);
    ranks().flat_map(|from| ranks().map(move |to| costs.message(from, to).0)).collect()
}

/// By stage: its position among the stages of its rank.
fn chunks(graph: &Graph<'_>) -> Vec<u16> {
    let mut chunks = vec![0; graph.shape.stages.len()];
    for held in graph.shape.chunks_by_rank() {
        for (chunk, stage) in held.into_iter().enumerate() {
            chunks[stage.index()] = chunk as u16;
        }
    }
    chunks
}

impl Links {
    fn empty(count: usize) -> Self {
        Self { starts: vec![0; count + 1], edges: Vec::new() }
    }

    /// Sorts edges by where they start.
    fn new(count: usize, edges: impl Iterator<Item = (u32, Edge)> + Clone) -> Self {
        let mut starts = vec![0_u32; count + 2];
        for (from, _) in edges.clone() {
            starts[from as usize + 2] += 1;
        }
        for at in 2..starts.len() {
            starts[at] += starts[at - 1];
        }
        let mut sorted = vec![Edge { to: 0, hop: NO_HOP }; starts[count + 1] as usize];
        for (from, edge) in edges {
            let at = &mut starts[from as usize + 1];
            sorted[*at as usize] = edge;
            *at += 1;
        }
        starts.truncate(count + 1);
        Self { starts, edges: sorted }
    }

    fn of(&self, node: u32) -> &[Edge] {
        let node = node as usize;
        &self.edges[self.starts[node] as usize..self.starts[node + 1] as usize]
    }
}
