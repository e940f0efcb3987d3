//! What the header promises, as index arithmetic: sites, owners, needs, shapes. Requires a sound structure.

use crate::ir::{
    At, Catalog, ClassId, Collective, CollectiveId, CollectiveOp, Header, KindId, Microbatch, Need, Pass,
    Plan, Port, Rank, Relation, Site, Source, Stage, Value, Where,
};

/// Derived tables of a header.
pub(super) struct Facts<'plan> {
    pub(super) plan: &'plan Plan,
    pub(super) header: &'plan Header,
    pub(super) catalog: &'plan Catalog,
    /// `p`.
    pub(super) ranks: u32,
    /// For each kind, the number of its first site among all sites.
    first_site: Vec<u32>,
    /// All kinds' sites.
    sites: u32,
    /// Microbatches, or slices of them: what each site's passes count.
    pub(super) units: usize,
    /// For each kind's site, the ports that anyone reads, as bits.
    read: Vec<u64>,
    /// For each class, the kind at a stage and the kind at every rank that free it.
    freed_by: Vec<[Option<KindId>; 2]>,
}

impl<'plan> Facts<'plan> {
    pub(super) fn of(plan: &'plan Plan) -> Self {
        let header = &plan.header;
        let catalog = &header.catalog;
        let mut facts = Self {
            plan,
            header,
            catalog,
            ranks: Rank::new(plan.ranks.len()).0,
            first_site: Vec::with_capacity(catalog.kinds.len()),
            sites: 0,
            units: header.microbatches as usize * header.slices as usize,
            read: Vec::new(),
            freed_by: vec![[None; 2]; catalog.classes.len()],
        };
        for (id, kind) in catalog.kinds.iter().enumerate() {
            facts.first_site.push(facts.sites);
            facts.sites += facts.sites_of(kind.at);
            for class in &kind.frees {
                facts.freed_by[class.index()][kind.at as usize] = Some(KindId::new(id));
            }
        }
        facts.read = facts.readers();
        facts
    }

    /// For each kind's site, the ports that a pass or a collective reads, as bits.
    fn readers(&self) -> Vec<u64> {
        let mut read = vec![0; self.sites as usize];
        let mut mark = |kind, site, port: Port| read[self.site_index(kind, site)] |= 1 << port.0;
        for id in KindId::all(self.catalog.kinds.len()) {
            for site in self.sites_of_kind(id) {
                for need in self.catalog.kind(id).needs.iter().filter(|need| self.applies(need, site)) {
                    match need.from {
                        Source::Pass { kind, at, port: Some(port) } => {
                            if let Some(from) = self.producer(site, kind, at) {
                                mark(kind, from, port);
                            }
                        }
                        Source::Collective(id) if self.ranks == 1 => {
                            let collective = self.catalog.collective(id);
                            mark(collective.kind, self.contributor(collective, Rank(0)), collective.port);
                        }
                        Source::Pass { .. } | Source::Collective(_) => {}
                    }
                }
            }
        }
        for collective in self.catalog.collectives.iter().filter(|_| self.ranks > 1) {
            for rank in Rank::all(self.ranks as usize) {
                mark(collective.kind, self.contributor(collective, rank), collective.port);
            }
        }
        read
    }

    /// Whether anyone reads a value of the passes of a site.
    pub(super) fn is_read(&self, kind: KindId, site: Site, port: Port) -> bool {
        self.read[self.site_index(kind, site)] >> port.0 & 1 == 1
    }

    /// The kind that frees a class at sites of one sort.
    pub(super) fn freed_by(&self, class: ClassId, at: At) -> Option<KindId> {
        self.freed_by[class.index()][at as usize]
    }

    fn sites_of(&self, at: At) -> u32 {
        match at {
            At::Stage => Stage::new(self.header.stages.len()).0,
            At::EveryRank => self.ranks,
        }
    }

    pub(super) fn sites_of_kind(&self, kind: KindId) -> impl Iterator<Item = Site> + use<> {
        let at = self.catalog.kind(kind).at;
        (0..self.sites_of(at)).map(move |site| match at {
            At::Stage => Site::Stage(Stage(site)),
            At::EveryRank => Site::Rank(Rank(site)),
        })
    }

    fn site_index(&self, kind: KindId, site: Site) -> usize {
        let (Site::Stage(Stage(site)) | Site::Rank(Rank(site))) = site;
        (self.first_site[kind.index()] + site) as usize
    }

    /// How many passes the plan must have.
    pub(super) fn passes(&self) -> usize {
        self.sites as usize * self.units
    }

    /// The number of a pass among all passes.
    pub(super) fn pass_index(&self, pass: Pass) -> usize {
        self.site_index(pass.kind, pass.site) * self.units + pass.microbatch.index()
    }

    /// The rank that owns a site.
    pub(super) fn rank_of(&self, site: Site) -> Rank {
        match site {
            Site::Stage(stage) => self.header.stages[stage.index()],
            Site::Rank(rank) => rank,
        }
    }

    pub(super) fn last(&self) -> Stage {
        Stage::new(self.header.stages.len() - 1)
    }

    pub(super) fn first_rank(&self) -> Rank {
        self.header.stages[0]
    }

    pub(super) fn last_rank(&self) -> Rank {
        self.header.stages[self.last().index()]
    }

    /// Whether a need holds at a site, for all that `on` says.
    pub(super) fn applies(&self, need: &Need, site: Site) -> bool {
        match need.on {
            Where::All => true,
            Where::First => site == Site::Stage(Stage(0)),
            Where::Last => site == Site::Stage(self.last()),
        }
    }

    /// The site of a needed pass of `kind`, seen from `site`; `None` off the pipeline's end.
    pub(super) fn producer(&self, site: Site, kind: KindId, relation: Relation) -> Option<Site> {
        let stage = match (relation, site) {
            (Relation::First, _) => Stage(0),
            (Relation::Last, _) => self.last(),
            (Relation::Here | Relation::Earlier | Relation::Later, Site::Rank(rank)) => {
                return Some(Site::Rank(rank));
            }
            (Relation::Here | Relation::Earlier | Relation::Later, Site::Stage(stage)) => stage,
            (Relation::Prev, Site::Stage(stage)) => Stage(stage.0.checked_sub(1)?),
            (Relation::Next, Site::Stage(stage)) if stage < self.last() => Stage(stage.0 + 1),
            (Relation::Prev | Relation::Next, _) => return None,
        };
        Some(match self.catalog.kind(kind).at {
            At::Stage => Site::Stage(stage),
            At::EveryRank => Site::Rank(self.rank_of(Site::Stage(stage))),
        })
    }

    /// The unit of a needed pass, seen from a pass of `unit`; `None` off the ends of its microbatch's slices.
    pub(super) fn unit(&self, unit: Microbatch, relation: Relation) -> Option<Microbatch> {
        let slice = unit.0 % self.header.slices;
        match relation {
            Relation::Earlier => (slice > 0).then(|| Microbatch(unit.0 - 1)),
            Relation::Later => (slice + 1 < self.header.slices).then(|| Microbatch(unit.0 + 1)),
            Relation::Here | Relation::Prev | Relation::Next | Relation::First | Relation::Last => Some(unit),
        }
    }

    /// The slices of a unit's microbatch before it, first to last.
    pub(super) fn slices_before(&self, unit: Microbatch) -> impl Iterator<Item = Microbatch> + use<> {
        let first = unit.0 - unit.0 % self.header.slices;
        (first..unit.0).map(Microbatch)
    }

    /// The site whose value a rank gives to a collective, or that of the one rank that gives.
    pub(super) fn contributor(&self, collective: &Collective, rank: Rank) -> Site {
        match collective.source {
            Where::All => Site::Rank(rank),
            Where::First => Site::Stage(Stage(0)),
            Where::Last => Site::Stage(self.last()),
        }
    }

    /// The root of a collective, where its op has one.
    pub(super) fn root(&self, collective: &Collective) -> Option<Rank> {
        let end = match collective.op {
            CollectiveOp::Broadcast => collective.source,
            CollectiveOp::Reduce => collective.reader,
            CollectiveOp::AllReduce | CollectiveOp::AllGather | CollectiveOp::ReduceScatter => return None,
        };
        match end {
            Where::All => None,
            Where::First => Some(self.first_rank()),
            Where::Last => Some(self.last_rank()),
        }
    }

    /// The contribution of a rank to a collective, for one microbatch; `None` where it gives nothing.
    pub(super) fn contribution(&self, id: CollectiveId, rank: Rank, microbatch: Microbatch) -> Option<Value> {
        let collective = self.catalog.collective(id);
        let site = self.contributor(collective, rank);
        let pass = Pass { kind: collective.kind, site, microbatch };
        (self.rank_of(site) == rank).then_some(Value { pass, port: collective.port })
    }

    /// Whether a rank has a result buffer of a collective.
    pub(super) fn has_result(&self, collective: &Collective, rank: Rank) -> bool {
        match collective.op {
            CollectiveOp::Broadcast => self.root(collective) != Some(rank),
            CollectiveOp::Reduce => self.root(collective) == Some(rank),
            CollectiveOp::AllReduce | CollectiveOp::AllGather | CollectiveOp::ReduceScatter => true,
        }
    }

    /// The class of a value.
    pub(super) fn class_of(&self, kind: KindId, port: Port) -> ClassId {
        self.catalog.kind(kind).gives[port.index()]
    }

    /// The shape of a class at a site.
    pub(super) fn shape(&self, class: ClassId, site: Site) -> &'plan [u64] {
        let class = self.catalog.class(class);
        match site {
            Site::Stage(stage) => &class.at_stage[stage.index()],
            Site::Rank(_) => &class.at_rank,
        }
    }

    /// Elements that each contributor gives to a collective.
    pub(super) fn elements(&self, collective: &Collective) -> u64 {
        let class = self.class_of(collective.kind, collective.port);
        self.shape(class, self.contributor(collective, Rank(0))).iter().product()
    }

    /// The ranks whose copies of a tied embedding must be summed, if there are two.
    pub(super) fn tied_ranks(&self) -> Option<[Rank; 2]> {
        let (first, last) = (self.first_rank(), self.last_rank());
        let sharded = self.catalog.shards_input() || self.catalog.shards_output();
        let trained = self.header.mode.is_training() && self.header.model.tied;
        (trained && !sharded && first != last).then(|| [first.min(last), first.max(last)])
    }
}
