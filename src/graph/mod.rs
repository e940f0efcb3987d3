//! The instance graph: every pass of every site and microbatch (or slice of one), and what waits for what.
//!
//! Nothing of it is stored per instance: the kinds' needs (a handful of edges) and index arithmetic give every edge. Passes have
//! dense positions, so that what a step knows of them lies in flat arrays.

mod calendar;
mod deadlock;
mod error;
mod progress;

pub use calendar::Calendar;
pub use deadlock::{find_deadlock, heads_of};
pub use error::{Deadlock, Waiting};
pub use progress::{Event, Progress};

use crate::ir::{
    At, Catalog, CollectiveId, Flow, KindId, Microbatch, Need, Pass, Rank, Relation, Shape, Site, Source,
    Stage, Where,
};

/// Index arithmetic over the passes of a catalog on a shape.
#[derive(Debug)]
pub struct Graph<'a> {
    /// The pipeline.
    pub shape: &'a Shape,
    /// What the passes are.
    pub catalog: &'a Catalog,
    starts: Vec<usize>,
    dependents: Vec<Vec<Dependent>>,
    feeds: Vec<Vec<CollectiveId>>,
    readers: Vec<Vec<(KindId, Where)>>,
}

/// A kind that needs another directly.
#[derive(Clone, Copy, Debug)]
struct Dependent {
    kind: KindId,
    on: Where,
    at: Relation,
}

impl<'a> Graph<'a> {
    /// Looks at the catalog once; linear in its size.
    #[must_use]
    pub fn new(shape: &'a Shape, catalog: &'a Catalog) -> Self {
        let mut graph = Self {
            shape,
            catalog,
            starts: vec![0],
            dependents: vec![Vec::new(); catalog.kinds.len()],
            feeds: vec![Vec::new(); catalog.kinds.len()],
            readers: vec![Vec::new(); catalog.collectives.len()],
        };
        for (index, kind) in catalog.kinds.iter().enumerate() {
            let id = KindId::new(index);
            graph.starts.push(graph.starts[index] + graph.sites(id) * shape.units());
            for need in &kind.needs {
                match need.from {
                    Source::Pass { kind: needed, at, .. } => {
                        graph.dependents[needed.index()].push(Dependent { kind: id, on: need.on, at });
                    }
                    Source::Collective(collective) => graph.readers[collective.index()].push((id, need.on)),
                }
            }
        }
        for (index, collective) in catalog.collectives.iter().enumerate() {
            graph.feeds[collective.kind.index()].push(CollectiveId::new(index));
        }
        graph
    }

    /// How many passes there are in all.
    #[must_use]
    pub fn len(&self) -> usize {
        self.starts[self.catalog.kinds.len()]
    }

    /// Whether there is no pass at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many sites a kind has for each microbatch: stages of a flow, or ranks.
    #[must_use]
    pub fn sites(&self, kind: KindId) -> usize {
        match self.catalog.kind(kind).at {
            At::Stage => self.shape.depth() as usize,
            At::EveryRank => self.shape.ranks as usize,
        }
    }

    /// The sites of a kind for the microbatches of a flow.
    pub fn sites_of(&self, kind: KindId, flow: Flow) -> impl Iterator<Item = Site> + use<> {
        let at = self.catalog.kind(kind).at;
        let first = self.shape.first_of(flow).index();
        (0..self.sites(kind)).map(move |index| match at {
            At::Stage => Site::Stage(Stage::new(first + index)),
            At::EveryRank => Site::Rank(Rank::new(index)),
        })
    }

    /// The flows.
    pub fn flows(&self) -> impl Iterator<Item = Flow> + use<> {
        Flow::all(self.shape.flows as usize)
    }

    /// Every pass of a kind, microbatch by microbatch.
    pub fn passes_of(&self, kind: KindId) -> impl Iterator<Item = Pass> + use<> {
        let sites: Vec<Vec<Site>> = self.flows().map(|flow| self.sites_of(kind, flow).collect()).collect();
        let cut = self.shape.cut();
        Microbatch::all(self.shape.units()).flat_map(move |microbatch| {
            let flow = cut.microbatch(microbatch).index() % sites.len();
            sites[flow].clone().into_iter().map(move |site| Pass { kind, site, microbatch })
        })
    }

    /// The dense position of a pass, `0..len()`.
    #[must_use]
    pub fn index(&self, pass: Pass) -> usize {
        self.starts[pass.kind.index()] + self.slot(pass.site, pass.microbatch)
    }

    /// The position of a site and microbatch among those of one kind.
    ///
    /// Microbatch by microbatch: what runs at one time lies together, and no power of two lies between the ranks.
    #[must_use]
    pub fn slot(&self, site: Site, microbatch: Microbatch) -> usize {
        let (sites, at) = match site {
            Site::Stage(stage) => (self.shape.depth(), self.shape.place_of(stage)),
            Site::Rank(rank) => (self.shape.ranks, rank.0),
        };
        microbatch.index() * sites as usize + at as usize
    }

    /// The rank that runs a pass.
    #[must_use]
    pub fn rank_of(&self, site: Site) -> Rank {
        match site {
            Site::Stage(stage) => self.shape.rank_of(stage),
            Site::Rank(rank) => rank,
        }
    }

    /// Whether a need written `on` some sites applies at this one.
    #[must_use]
    pub fn matches(&self, on: Where, site: Site) -> bool {
        match (on, site) {
            (Where::All, _) => true,
            (Where::First, Site::Stage(stage)) => self.is_first(stage),
            (Where::Last, Site::Stage(stage)) => self.is_last(stage),
            (Where::First | Where::Last, Site::Rank(_)) => false,
        }
    }

    fn is_first(&self, stage: Stage) -> bool {
        self.shape.place_of(stage) == 0
    }

    fn is_last(&self, stage: Stage) -> bool {
        self.shape.place_of(stage) + 1 == self.shape.depth()
    }

    /// The stage at an end of a flow; `None` for all sites.
    #[must_use]
    pub fn end(&self, at: Where, flow: Flow) -> Option<Stage> {
        match at {
            Where::All => None,
            Where::First => Some(self.shape.first_of(flow)),
            Where::Last => Some(self.shape.last_of(flow)),
        }
    }

    /// The site that a need of a pass at `site` points to, for the microbatches of a flow; `None` where it does not apply.
    #[must_use]
    pub fn needed_site(&self, need: &Need, site: Site, flow: Flow) -> Option<Site> {
        if !self.matches(need.on, site) {
            return None;
        }
        let Source::Pass { at, .. } = need.from else { return None };
        match (at, site) {
            (Relation::Here | Relation::Earlier | Relation::Later, _) => Some(site),
            (Relation::First, _) => Some(Site::Stage(self.shape.first_of(flow))),
            (Relation::Last, _) => Some(Site::Stage(self.shape.last_of(flow))),
            (Relation::Prev, Site::Stage(stage)) if !self.is_first(stage) => {
                Some(Site::Stage(Stage(stage.0 - 1)))
            }
            (Relation::Next, Site::Stage(stage)) if !self.is_last(stage) => {
                Some(Site::Stage(Stage(stage.0 + 1)))
            }
            _ => None,
        }
    }

    /// The unit that a need of a pass of some unit points to; `None` where it leads off the slices of the microbatch.
    #[must_use]
    pub fn needed_unit(&self, need: &Need, unit: Microbatch) -> Option<Microbatch> {
        match need.from {
            Source::Pass { at: Relation::Earlier, .. } => self.shape.cut().earlier(unit),
            Source::Pass { at: Relation::Later, .. } => self.shape.cut().later(unit),
            Source::Pass { .. } | Source::Collective(_) => Some(unit),
        }
    }

    /// The pass that a need of another points to; `None` where it does not apply, or is for a collective's result.
    #[must_use]
    pub fn needed_pass(&self, need: &Need, pass: Pass) -> Option<Pass> {
        let Source::Pass { kind, .. } = need.from else { return None };
        let site = self.needed_site(need, pass.site, self.shape.flow_of(pass.microbatch))?;
        Some(Pass { kind, site, microbatch: self.needed_unit(need, pass.microbatch)? })
    }

    /// How many needs of a kind apply at a site, for some unit.
    #[must_use]
    pub fn needs_at(&self, kind: KindId, site: Site, unit: Microbatch) -> usize {
        let needs = &self.catalog.kind(kind).needs;
        needs
            .iter()
            .filter(|need| match need.from {
                Source::Pass { .. } => {
                    self.needed_pass(need, Pass { kind, site, microbatch: unit }).is_some()
                }
                Source::Collective(_) => self.matches(need.on, site),
            })
            .count()
    }

    /// Calls `visit` for every pass that needs this one directly.
    pub fn for_dependents(&self, pass: Pass, mut visit: impl FnMut(Pass)) {
        let flow = self.shape.flow_of(pass.microbatch);
        for dependent in &self.dependents[pass.kind.index()] {
            let unit = match dependent.at {
                Relation::Earlier => self.shape.cut().later(pass.microbatch),
                Relation::Later => self.shape.cut().earlier(pass.microbatch),
                _ => Some(pass.microbatch),
            };
            let Some(microbatch) = unit else { continue };
            let mut at = |site: Site| {
                if self.matches(dependent.on, site) {
                    visit(Pass { kind: dependent.kind, site, microbatch });
                }
            };
            match (dependent.at, pass.site) {
                (Relation::Here | Relation::Earlier | Relation::Later, site) => at(site),
                (Relation::Prev, Site::Stage(stage)) if !self.is_last(stage) => {
                    at(Site::Stage(Stage(stage.0 + 1)));
                }
                (Relation::Next, Site::Stage(stage)) if !self.is_first(stage) => {
                    at(Site::Stage(Stage(stage.0 - 1)));
                }
                (Relation::First, Site::Stage(stage)) if self.is_first(stage) => {
                    self.sites_of(dependent.kind, flow).for_each(at);
                }
                (Relation::Last, Site::Stage(stage)) if self.is_last(stage) => {
                    self.sites_of(dependent.kind, flow).for_each(at);
                }
                _ => {}
            }
        }
    }

    /// Calls `visit` for every pass that reads the result of a collective.
    pub fn for_readers(&self, collective: CollectiveId, microbatch: Microbatch, mut visit: impl FnMut(Pass)) {
        let flow = self.shape.flow_of(microbatch);
        for &(kind, on) in &self.readers[collective.index()] {
            match self.end(on, flow) {
                None => self.sites_of(kind, flow).for_each(|site| visit(Pass { kind, site, microbatch })),
                Some(stage) => visit(Pass { kind, site: Site::Stage(stage), microbatch }),
            }
        }
    }

    /// The collectives that a pass contributes to.
    pub fn feeds(&self, pass: Pass) -> impl Iterator<Item = CollectiveId> + '_ {
        let all = self.feeds[pass.kind.index()].iter().copied();
        all.filter(move |&id| self.matches(self.catalog.collective(id).source, pass.site))
    }

    /// How many passes contribute to a collective.
    #[must_use]
    pub fn contributors(&self, collective: CollectiveId) -> usize {
        match self.catalog.collective(collective).source {
            Where::All => self.sites(self.catalog.collective(collective).kind),
            Where::First | Where::Last => 1,
        }
    }

    /// The pass as errors name it: `F s0 m3`, or `F s0 m3.1` where sequences are sliced.
    #[must_use]
    pub fn name(&self, pass: Pass) -> String {
        let unit = self.shape.cut().name(pass.microbatch);
        format!("{} {} {unit}", self.catalog.kind(pass.kind).name, pass.site)
    }
}

/// The position of a site among the stages, or among the ranks.
#[must_use]
pub fn site_index(site: Site) -> usize {
    match site {
        Site::Stage(stage) => stage.index(),
        Site::Rank(rank) => rank.index(),
    }
}
