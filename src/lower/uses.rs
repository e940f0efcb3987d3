//! Who reads what, for any microbatch: worked out once from the kinds, not for every pass.

use super::emit::root_of;
use crate::graph::{Graph, site_index};
use crate::ir::{CollectiveId, CollectiveOp, KindId, Port, Rank, Site, Source, Stage, Where};

/// The readers of every value and of every collective's result.
#[derive(Debug)]
pub(super) struct Uses {
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
        let kinds = &graph.catalog.kinds;
        let (mut starts, mut ports) = (vec![0], Vec::with_capacity(kinds.len()));
        for (index, kind) in kinds.iter().enumerate() {
            ports.push(kind.gives.len());
            starts.push(starts[index] + graph.sites(KindId::new(index)) * kind.gives.len());
        }
        let ranks = graph.shape.ranks as usize;
        let mut uses = Self {
            values: vec![ValueUse::default(); starts[kinds.len()]],
            starts,
            ports,
            collected: vec![0; graph.catalog.collectives.len() * ranks],
            ranks,
        };
        for kind in KindId::all(kinds.len()) {
            for site in graph.sites_of(kind) {
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
    pub(super) fn of(&self, kind: KindId, site: Site, port: Port) -> &ValueUse {
        &self.values[self.at(kind, site, port)]
    }

    /// How many passes on a rank read the result of a collective.
    pub(super) fn collected(&self, collective: CollectiveId, rank: Rank) -> u32 {
        self.collected[collective.index() * self.ranks + rank.index()]
    }

    fn at(&self, kind: KindId, site: Site, port: Port) -> usize {
        self.starts[kind.index()] + site_index(site) * self.ports[kind.index()] + port.index()
    }

    fn read(&mut self, graph: &Graph<'_>, reader: Reader) {
        let need = &graph.catalog.kind(reader.kind).needs[reader.need];
        let rank = graph.rank_of(reader.site);
        match need.from {
            Source::Pass { kind, port: Some(port), .. } => {
                let Some(site) = graph.needed_site(need, reader.site) else { return };
                let at = self.at(kind, site, port);
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
            Source::Collective(id) if graph.matches(need.on, reader.site) => match direct(graph, id, rank) {
                Some(site) => {
                    let collective = graph.catalog.collective(id);
                    let at = self.at(collective.kind, site, collective.port);
                    self.values[at].readers += 1;
                }
                None => self.collected[id.index() * self.ranks + rank.index()] += 1,
            },
            Source::Pass { port: None, .. } | Source::Collective(_) => {}
        }
    }

    fn contribute(&mut self, graph: &Graph<'_>, id: CollectiveId) {
        let collective = graph.catalog.collective(id);
        let sites: Vec<Site> = match collective.source {
            Where::All => graph.sites_of(collective.kind).collect(),
            Where::First => vec![Site::Stage(Stage(0))],
            Where::Last => vec![Site::Stage(graph.shape.last())],
        };
        for site in sites {
            let at = self.at(collective.kind, site, collective.port);
            self.values[at].readers += 1;
        }
    }
}

/// The site whose own value a rank reads instead of a collective's result: on a single rank, and on the root of a broadcast.
pub(super) fn direct(graph: &Graph<'_>, id: CollectiveId, rank: Rank) -> Option<Site> {
    let collective = graph.catalog.collective(id);
    let source = match collective.source {
        Where::All => Site::Rank(rank),
        Where::First => Site::Stage(Stage(0)),
        Where::Last => Site::Stage(graph.shape.last()),
    };
    let at_root = collective.op == CollectiveOp::Broadcast && root_of(graph, id) == Some(rank);
    (graph.shape.ranks == 1 || at_root).then_some(source)
}
