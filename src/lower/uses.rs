//! Who reads what, for any microbatch of a flow: worked out once from the kinds, not for every pass.

use super::emit::root_of;
use crate::graph::Graph;
use crate::ir::{CollectiveId, CollectiveOp, Flow, KindId, Microbatch, Port, Rank, Site, Source};

/// The readers of every value and of every collective's result.
#[derive(Debug)]
pub(super) struct Uses {
    flows: Vec<FlowUses>,
}

/// Those for the microbatches of one flow.
#[derive(Debug)]
pub(super) struct FlowUses {
    flow: Flow,
    starts: Vec<usize>,
    ports: Vec<usize>,
    values: Vec<ValueUse>,
    /// By collective and rank.
    collected: Vec<u32>,
    ranks: usize,
}

/// The readers of one port of one site.
#[derive(Clone, Debug, Default)]
pub(super) struct ValueUse {
    /// Instructions on the producer's rank that read it: passes, sends, collectives.
    pub(super) readers: u32,
    /// Other ranks that it is sent to, with the needs of passes there.
    pub(super) peers: Vec<(Rank, Vec<Reader>)>,
}

/// A need of a pass: its kind, its site, the position among its kind's needs.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reader {
    pub(super) kind: KindId,
    pub(super) site: Site,
    pub(super) need: usize,
}

impl Uses {
    /// Linear in kinds × sites.
    pub(super) fn new(graph: &Graph<'_>) -> Self {
        Self { flows: graph.flows().map(|flow| FlowUses::new(graph, flow)).collect() }
    }

    /// The readers for the microbatches of a flow.
    pub(super) fn in_flow(&self, flow: Flow) -> &FlowUses {
        &self.flows[flow.index()]
    }
}

impl FlowUses {
    fn new(graph: &Graph<'_>, flow: Flow) -> Self {
        let kinds = &graph.catalog.kinds;
        let (mut starts, mut ports) = (vec![0], Vec::with_capacity(kinds.len()));
        for (index, kind) in kinds.iter().enumerate() {
            ports.push(kind.gives.len());
            starts.push(starts[index] + graph.sites(KindId::new(index)) * kind.gives.len());
        }
        let ranks = graph.shape.ranks as usize;
        let mut uses = Self {
            flow,
            values: vec![ValueUse::default(); starts[kinds.len()]],
            starts,
            ports,
            collected: vec![0; graph.catalog.collectives.len() * ranks],
            ranks,
        };
        for kind in KindId::all(kinds.len()) {
            for site in graph.sites_of(kind, flow) {
                (0..kinds[kind.index()].needs.len())
                    .for_each(|need| uses.read(graph, Reader { kind, site, need }));
            }
        }
        if ranks > 1 {
            CollectiveId::all(graph.catalog.collectives.len()).for_each(|id| uses.contribute(graph, id));
        }
        uses
    }

    /// The readers of a value.
    pub(super) fn of(&self, graph: &Graph<'_>, kind: KindId, site: Site, port: Port) -> &ValueUse {
        &self.values[self.at(graph, kind, site, port)]
    }

    /// How many passes on a rank read the result of a collective.
    pub(super) fn collected(&self, collective: CollectiveId, rank: Rank) -> u32 {
        self.collected[collective.index() * self.ranks + rank.index()]
    }

    fn at(&self, graph: &Graph<'_>, kind: KindId, site: Site, port: Port) -> usize {
        // Of microbatch 0 a site's slot is its position among those of a flow.
        let position = graph.slot(site, Microbatch(0));
        self.starts[kind.index()] + position * self.ports[kind.index()] + port.index()
    }

    fn read(&mut self, graph: &Graph<'_>, reader: Reader) {
        let need = &graph.catalog.kind(reader.kind).needs[reader.need];
        let rank = graph.rank_of(reader.site);
        match need.from {
            Source::Pass { kind, port: Some(port), .. } => {
                let Some(site) = graph.needed_site(need, reader.site, self.flow) else { return };
                let at = self.at(graph, kind, site, port);
                let value = &mut self.values[at];
                if graph.rank_of(site) == rank {
                    value.readers += 1;
                } else if let Some((_, readers)) = value.peers.iter_mut().find(|(peer, _)| *peer == rank) {
                    readers.push(reader);
                } else {
                    value.readers += 1;
                    value.peers.push((rank, vec![reader]));
                }
            }
            Source::Collective(id) if graph.matches(need.on, reader.site) => {
                match direct(graph, id, rank, self.flow) {
                    Some(site) => {
                        let collective = graph.catalog.collective(id);
                        let at = self.at(graph, collective.kind, site, collective.port);
                        self.values[at].readers += 1;
                    }
                    None => self.collected[id.index() * self.ranks + rank.index()] += 1,
                }
            }
            Source::Pass { port: None, .. } | Source::Collective(_) => {}
        }
    }

    fn contribute(&mut self, graph: &Graph<'_>, id: CollectiveId) {
        let collective = graph.catalog.collective(id);
        let sites: Vec<Site> = match graph.end(collective.source, self.flow) {
            None => graph.sites_of(collective.kind, self.flow).collect(),
            Some(stage) => vec![Site::Stage(stage)],
        };
        for site in sites {
            let at = self.at(graph, collective.kind, site, collective.port);
            self.values[at].readers += 1;
        }
    }
}

/// The site whose own value a rank reads instead of a collective's result: on a single rank, and on the root of a broadcast.
pub(super) fn direct(graph: &Graph<'_>, id: CollectiveId, rank: Rank, flow: Flow) -> Option<Site> {
    let collective = graph.catalog.collective(id);
    let source = graph.end(collective.source, flow).map_or(Site::Rank(rank), Site::Stage);
    let at_root = collective.op == CollectiveOp::Broadcast && root_of(graph, id, flow) == Some(rank);
    (graph.shape.ranks == 1 || at_root).then_some(source)
}
