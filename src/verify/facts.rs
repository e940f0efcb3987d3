//! What the header promises, as index arithmetic: sites, owners, needs, shapes. Requires a sound structure.

use crate::ir::{
    At, Catalog, ClassId, Collective, CollectiveId, CollectiveOp, Flow, Header, KindId, Microbatch, Need,
    Pass, Payload, Plan, Port, Rank, Relation, Site, Source, Stage, Value, Where,
};

/// Derived tables of a header.
pub(super) struct Facts<'plan> {
    pub(super) plan: &'plan Plan,
    pub(super) header: &'plan Header,
    pub(super) catalog: &'plan Catalog,
    /// `p`.
    pub(super) ranks: u32,
    /// For each kind, the number of its first site among all sites of one flow.
    first_site: Vec<u32>,
    /// All kinds' sites in one flow.
    sites: u32,
    /// Microbatches, or slices of them: what each site's passes count.
    pub(super) units: usize,
    /// For each flow and kind's site, the ports that anyone reads, as bits.
    read: Vec<u64>,
    /// For each rank, the stages of the model of which it holds one of two copies with parameters.
    copies: Vec<Vec<Stage>>,
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
            copies: vec![Vec::new(); plan.ranks.len()],
            freed_by: vec![[None; 2]; catalog.classes.len()],
        };
        for (id, kind) in catalog.kinds.iter().enumerate() {
            facts.first_site.push(facts.sites);
            facts.sites += facts.sites_of(kind.at);
            for class in &kind.frees {
                facts.freed_by[class.index()][kind.at as usize] = Some(KindId::new(id));
            }
        }
        for flow in Flow::all(header.flows as usize) {
            let read = facts.readers(flow);
            facts.read.extend(read);
        }
        for stage in Stage::all(facts.depth() as usize) {
            let payload = Payload::StageGradient(stage);
            for rank in facts.sum_ranks(payload).unwrap_or_default() {
                facts.copies[rank.index()].push(stage);
            }
        }
        facts
    }

    /// For each kind's site, the ports that a pass or a collective of a flow's microbatches reads, as bits.
    fn readers(&self, flow: Flow) -> Vec<u64> {
        let mut read = vec![0; self.sites as usize];
        let mut mark = |kind, site, port: Port| read[self.site_index(kind, site)] |= 1 << port.0;
        for id in KindId::all(self.catalog.kinds.len()) {
            for site in self.sites_of_kind(id, flow) {
                for need in self.catalog.kind(id).needs.iter().filter(|need| self.applies(need, site)) {
                    match need.from {
                        Source::Pass { kind, at, port: Some(port) } => {
                            if let Some(from) = self.producer(site, kind, at, flow) {
                                mark(kind, from, port);
                            }
                        }
                        Source::Collective(id) if self.ranks == 1 => {
                            let collective = self.catalog.collective(id);
                            let from = self.contributor(collective, Rank(0), flow);
                            mark(collective.kind, from, collective.port);
                        }
                        Source::Pass { .. } | Source::Collective(_) => {}
                    }
                }
            }
        }
        for collective in self.catalog.collectives.iter().filter(|_| self.ranks > 1) {
            for rank in Rank::all(self.ranks as usize) {
                mark(collective.kind, self.contributor(collective, rank, flow), collective.port);
            }
        }
        read
    }

    /// The stages of one flow.
    pub(super) fn depth(&self) -> u32 {
        self.header.depth()
    }

    /// The position of a stage in its flow: the stage of the model that it is a copy of.
    pub(super) fn place_of(&self, stage: Stage) -> Stage {
        Stage(stage.0 % self.depth())
    }

    fn is_first(&self, stage: Stage) -> bool {
        self.place_of(stage).0 == 0
    }

    fn is_last(&self, stage: Stage) -> bool {
        self.place_of(stage).0 + 1 == self.depth()
    }

    /// Whether a stage is at an end of its flow.
    pub(super) fn is_end(&self, stage: Stage) -> bool {
        self.is_first(stage) || self.is_last(stage)
    }

    fn first(&self, flow: Flow) -> Stage {
        Stage(flow.0 * self.depth())
    }

    fn last(&self, flow: Flow) -> Stage {
        Stage((flow.0 + 1) * self.depth() - 1)
    }

    /// Whether anyone reads a value of a pass.
    pub(super) fn is_read(&self, pass: Pass, port: Port) -> bool {
        let flow = self.header.flow_of(pass.microbatch);
        let row = flow.index() * self.sites as usize;
        self.read[row + self.site_index(pass.kind, pass.site)] >> port.0 & 1 == 1
    }

    /// The kind that frees a class at sites of one sort.
    pub(super) fn freed_by(&self, class: ClassId, at: At) -> Option<KindId> {
        self.freed_by[class.index()][at as usize]
    }

    fn sites_of(&self, at: At) -> u32 {
        match at {
            At::Stage => self.depth(),
            At::EveryRank => self.ranks,
        }
    }

    /// The sites of a kind for the microbatches of a flow.
    pub(super) fn sites_of_kind(&self, kind: KindId, flow: Flow) -> impl Iterator<Item = Site> + use<> {
        let at = self.catalog.kind(kind).at;
        let first = self.first(flow).0;
        (0..self.sites_of(at)).map(move |site| match at {
            At::Stage => Site::Stage(Stage(first + site)),
            At::EveryRank => Site::Rank(Rank(site)),
        })
    }

    fn site_index(&self, kind: KindId, site: Site) -> usize {
        let site = match site {
            Site::Stage(stage) => self.place_of(stage).0,
            Site::Rank(rank) => rank.0,
        };
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

    /// Whether a need holds at a site, for all that `on` says.
    pub(super) fn applies(&self, need: &Need, site: Site) -> bool {
        match (need.on, site) {
            (Where::All, _) => true,
            (Where::First, Site::Stage(stage)) => self.is_first(stage),
            (Where::Last, Site::Stage(stage)) => self.is_last(stage),
            (Where::First | Where::Last, Site::Rank(_)) => false,
        }
    }

    /// The site of a needed pass of `kind`, seen from `site`, for the microbatches of a flow; `None` off the pipeline's end.
    pub(super) fn producer(&self, site: Site, kind: KindId, relation: Relation, flow: Flow) -> Option<Site> {
        let stage = match (relation, site) {
            (Relation::First, _) => self.first(flow),
            (Relation::Last, _) => self.last(flow),
            (Relation::Here | Relation::Earlier | Relation::Later, Site::Rank(rank)) => {
                return Some(Site::Rank(rank));
            }
            (Relation::Here | Relation::Earlier | Relation::Later, Site::Stage(stage)) => stage,
            (Relation::Prev, Site::Stage(stage)) if !self.is_first(stage) => Stage(stage.0 - 1),
            (Relation::Next, Site::Stage(stage)) if !self.is_last(stage) => Stage(stage.0 + 1),
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
    pub(super) fn contributor(&self, collective: &Collective, rank: Rank, flow: Flow) -> Site {
        match collective.source {
            Where::All => Site::Rank(rank),
            Where::First => Site::Stage(self.first(flow)),
            Where::Last => Site::Stage(self.last(flow)),
        }
    }

    /// The root of a collective for the microbatches of a flow, where its op has one.
    pub(super) fn root(&self, collective: &Collective, flow: Flow) -> Option<Rank> {
        let end = match collective.op {
            CollectiveOp::Broadcast => collective.source,
            CollectiveOp::Reduce => collective.reader,
            CollectiveOp::AllReduce | CollectiveOp::AllGather | CollectiveOp::ReduceScatter => return None,
        };
        match end {
            Where::All => None,
            Where::First => Some(self.rank_of(Site::Stage(self.first(flow)))),
            Where::Last => Some(self.rank_of(Site::Stage(self.last(flow)))),
        }
    }

    /// The contribution of a rank to a collective, for one microbatch; `None` where it gives nothing.
    pub(super) fn contribution(&self, id: CollectiveId, rank: Rank, microbatch: Microbatch) -> Option<Value> {
        let collective = self.catalog.collective(id);
        let site = self.contributor(collective, rank, self.header.flow_of(microbatch));
        let pass = Pass { kind: collective.kind, site, microbatch };
        (self.rank_of(site) == rank).then_some(Value { pass, port: collective.port })
    }

    /// Whether a rank has a result buffer of a collective for the microbatches of a flow.
    pub(super) fn has_result(&self, collective: &Collective, rank: Rank, flow: Flow) -> bool {
        match collective.op {
            CollectiveOp::Broadcast => self.root(collective, flow) != Some(rank),
            CollectiveOp::Reduce => self.root(collective, flow) == Some(rank),
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

    /// Elements that each contributor gives to a collective for the microbatches of a flow.
    pub(super) fn elements(&self, collective: &Collective, flow: Flow) -> u64 {
        let class = self.class_of(collective.kind, collective.port);
        self.shape(class, self.contributor(collective, Rank(0), flow)).iter().product()
    }

    /// The ranks, ascending, whose copies of a gradient must be summed; `None` where there are not several.
    pub(super) fn sum_ranks(&self, payload: Payload) -> Option<Vec<Rank>> {
        let sharded = self.catalog.shards_input() || self.catalog.shards_output();
        let trained = self.header.mode.is_training();
        let stages: Vec<Stage> = match payload {
            Payload::TiedGradient if self.header.model.tied && trained && !sharded => {
                let flows = Flow::all(self.header.flows as usize);
                flows.flat_map(|flow| [self.first(flow), self.last(flow)]).collect()
            }
            Payload::StageGradient(stage)
                if trained && self.header.flows == 2 && self.sum_elements(payload) > 0 =>
            {
                vec![stage, Stage(stage.0 + self.depth())]
            }
            _ => Vec::new(),
        };
        let mut ranks: Vec<Rank> = stages.iter().map(|&stage| self.header.stages[stage.index()]).collect();
        ranks.sort_unstable();
        ranks.dedup();
        (ranks.len() > 1).then_some(ranks)
    }

    /// The elements of a gradient that is summed.
    pub(super) fn sum_elements(&self, payload: Payload) -> u64 {
        let model = self.header.model;
        match payload {
            Payload::StageGradient(stage) => {
                let sharded = [self.catalog.shards_input(), self.catalog.shards_output()];
                let layers = self.header.layers_of(stage).len();
                model.stage_parameters(layers, stage, self.depth(), sharded)
            }
            _ => u64::from(model.vocab) * u64::from(model.hidden),
        }
    }

    /// The stages of the model of which a rank holds one of two copies that must be summed.
    pub(super) fn copies(&self, rank: Rank) -> &[Stage] {
        &self.copies[rank.index()]
    }

    /// Whether a rank takes part in the sum of a gradient.
    pub(super) fn needs_sum(&self, payload: Payload, rank: Rank) -> bool {
        match payload {
            Payload::StageGradient(stage) => self.copies(rank).binary_search(&stage).is_ok(),
            _ => self.sum_ranks(payload).is_some_and(|ranks| ranks.contains(&rank)),
        }
    }
}
