//! Rule 2: every instruction reads and writes what the catalog says, and everything is ordered after what it needs.
//!
//! A rank's list is walked in order, with what each buffer holds: a value, the result of a collective, or a state. That
//! list order is a fair order of events follows from the clocks: whatever touches one buffer is ordered by lanes and waits.

use super::clocks::Clocks;
use super::coverage::Placed;
use super::error::Rule;
use super::facts::Facts;
use super::names;
use super::report::{Place, Report};
use crate::ir::{
    BufferId, ClassId, CollectiveId, CollectiveOp, Compute, InstrId, Microbatch, Op, Operands, Pass, Payload,
    Place as Slot, Port, Rank, Relation, Site, Source, Value,
};

/// What a buffer holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Content {
    /// A value that a pass gives, made here or received.
    Value(Value),
    /// The result of a collective.
    Result(CollectiveId, Microbatch),
    /// What a pass of a site left for later passes of that site.
    State(ClassId, Site, Microbatch),
    /// A gradient that is summed over ranks: never a [`Payload::Value`].
    Gradient(Payload),
}

/// The gradient that lies in a place beside the arena.
fn gradient(place: Slot) -> Option<Payload> {
    match place {
        Slot::Arena(_) => None,
        Slot::TiedGradient => Some(Payload::TiedGradient),
        Slot::StageGradient(stage) => Some(Payload::StageGradient(stage)),
    }
}

/// What an instruction must write: the content, its class, its shape (after a first side for a gather).
#[derive(Clone, Copy, Debug)]
struct Made<'plan> {
    content: Content,
    class: ClassId,
    shape: &'plan [u64],
    form: Form,
}

/// How the shape of a result follows from the shape of a contribution.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Same,
    /// As many of them as there are ranks.
    Gathered,
    /// One of as many slices as there are ranks.
    Sliced,
}

/// The walk over the ranks; memory is kept from one rank to the next.
pub(super) struct Values<'facts, 'plan> {
    facts: &'facts Facts<'plan>,
    placed: &'facts Placed,
    /// What each buffer holds, and who wrote it.
    held: Vec<Option<(Content, Option<InstrId>)>>,
    wanted: Vec<Content>,
    made: Vec<Made<'plan>>,
    /// Where each collective ran on this rank.
    collected: Vec<Option<InstrId>>,
    /// The last pass that adds to each gradient that is summed; all such passes run one after the other.
    adders: Vec<(Payload, InstrId)>,
    sums: Vec<(Payload, InstrId)>,
}

impl<'facts, 'plan> Values<'facts, 'plan> {
    pub(super) fn new(facts: &'facts Facts<'plan>, placed: &'facts Placed) -> Self {
        Self {
            facts,
            placed,
            held: Vec::new(),
            wanted: Vec::new(),
            made: Vec::new(),
            collected: Vec::new(),
            adders: Vec::new(),
            sums: Vec::new(),
        }
    }

    /// Reports everything that a rank reads, writes or orders otherwise than the catalog says.
    pub(super) fn check(&mut self, rank: Rank, clocks: &Clocks, report: &mut Report) {
        let plan = &self.facts.plan.ranks[rank.index()];
        self.start(rank);
        for (id, instr) in plan.instrs.iter().enumerate() {
            let id = InstrId::new(id);
            self.wanted.clear();
            self.made.clear();
            match instr.op {
                Op::Pass(pass) => self.pass(pass, rank, id, clocks, report),
                Op::Send { value, .. } => self.wanted.push(Content::Value(value)),
                Op::Recv { value, .. } => self.made.push(self.value(value)),
                Op::Collective { payload, op, .. } => self.collective(payload, op, rank, id, clocks, report),
                Op::Step => {}
            }
            let operands = plan.operands(instr);
            self.reads(rank, id, operands, clocks, report);
            self.writes(rank, id, operands, report);
        }
        self.early_sums(rank, clocks, report);
    }

    fn start(&mut self, rank: Rank) {
        self.held.clear();
        let beside = |place| gradient(place).map(|payload| (Content::Gradient(payload), None));
        let buffers = &self.facts.plan.ranks[rank.index()].buffers;
        self.held.extend(buffers.iter().map(|buffer| beside(buffer.place)));
        self.collected.clear();
        let results = self.facts.catalog.collectives.len() * self.facts.units;
        self.collected.resize(if self.facts.ranks > 1 { results } else { 0 }, None);
        self.adders.clear();
        self.sums.clear();
    }

    fn value(&self, value: Value) -> Made<'plan> {
        let class = self.facts.class_of(value.pass.kind, value.port);
        let shape = self.facts.shape(class, value.pass.site);
        Made { content: Content::Value(value), class, shape, form: Form::Same }
    }

    /// What a pass on `rank` reads for a need of a collective's result.
    fn result(&self, id: CollectiveId, rank: Rank, microbatch: Microbatch) -> Content {
        let collective = self.facts.catalog.collective(id);
        let root = self.facts.root(collective, self.facts.header.flow_of(microbatch));
        let at_source = collective.op == CollectiveOp::Broadcast && root == Some(rank);
        match self.facts.contribution(id, rank, microbatch) {
            Some(value) if self.facts.ranks == 1 || at_source => Content::Value(value),
            _ => Content::Result(id, microbatch),
        }
    }

    fn pass(&mut self, pass: Pass, rank: Rank, id: InstrId, clocks: &Clocks, report: &mut Report) {
        let facts = self.facts;
        let kind = facts.catalog.kind(pass.kind);
        let Pass { site, microbatch, .. } = pass;
        for need in kind.needs.iter().filter(|need| facts.applies(need, site)) {
            match need.from {
                Source::Collective(id) => self.wanted.push(self.result(id, rank, microbatch)),
                Source::Pass { kind, at, port } => {
                    let flow = facts.header.flow_of(microbatch);
                    let Some(site) = facts.producer(site, kind, at, flow) else { continue };
                    let Some(microbatch) = facts.unit(microbatch, at) else { continue };
                    let needed = Pass { kind, site, microbatch };
                    match port {
                        Some(port) => self.wanted.push(Content::Value(Value { pass: needed, port })),
                        None => self.follows(needed, rank, id, clocks, report),
                    }
                }
            }
        }
        let kept = kind.frees.iter().filter(|class| !kind.makes.contains(class));
        self.wanted.extend(kept.map(|&class| Content::State(class, site, microbatch)));
        for need in kind.needs.iter().filter(|need| facts.applies(need, site)) {
            if let Source::Pass { kind: maker, at: Relation::Here, port: None } = need.from
                && facts.catalog.kind(maker).at == kind.at
            {
                self.kept(Pass { kind: maker, ..pass }, id);
            }
        }
        for need in kind.needs.iter().filter(|need| facts.applies(need, site)) {
            if let Source::Pass { kind: maker, at: Relation::Earlier, port: None } = need.from {
                for microbatch in facts.slices_before(microbatch) {
                    self.kept(Pass { kind: maker, site, microbatch }, id);
                }
            }
        }
        for (port, &class) in kind.gives.iter().enumerate() {
            let port = Port::new(port);
            if facts.is_read(pass, port) {
                let content = Content::Value(Value { pass, port });
                self.made.push(Made { content, class, shape: facts.shape(class, site), form: Form::Same });
            }
        }
        for &class in &kind.makes {
            let content = Content::State(class, site, microbatch);
            self.made.push(Made { content, class, shape: facts.shape(class, site), form: Form::Same });
        }
        let adds = matches!(kind.computes, None | Some(Compute::StageBackward | Compute::StageWeightGrad));
        if let Site::Stage(stage) = site
            && adds
        {
            self.adder(Payload::StageGradient(facts.place_of(stage)), rank, id);
            if facts.is_end(stage) {
                self.adder(Payload::TiedGradient, rank, id);
            }
        }
    }

    /// Notes a pass that adds to a gradient, if that is summed on this rank.
    fn adder(&mut self, payload: Payload, rank: Rank, id: InstrId) {
        match self.adders.iter_mut().find(|(other, _)| *other == payload) {
            Some((_, last)) => *last = id,
            None if self.facts.needs_sum(payload, rank) => self.adders.push((payload, id)),
            None => {}
        }
    }

    /// Adds the states that `maker` left and that are still live at `id`, each once.
    fn kept(&mut self, maker: Pass, id: InstrId) {
        let facts = self.facts;
        let kind = facts.catalog.kind(maker.kind);
        if kind.makes.is_empty() || self.placed.find(facts, maker).is_none_or(|made| made >= id) {
            return;
        }
        for &class in &kind.makes {
            let content = Content::State(class, maker.site, maker.microbatch);
            let freed = facts
                .freed_by(class, kind.at)
                .and_then(|kind| self.placed.find(facts, Pass { kind, ..maker }));
            if freed.is_none_or(|freed| freed > id) && !self.wanted.contains(&content) {
                self.wanted.push(content);
            }
        }
    }

    /// A need without a value: only the order of two passes of this rank.
    fn follows(&self, needed: Pass, rank: Rank, id: InstrId, clocks: &Clocks, report: &mut Report) {
        let facts = self.facts;
        // A pass that does not run at all breaks rule 1, which reports it.
        let Some(before) = self.placed.find(facts, needed) else { return };
        let owner = facts.rank_of(needed.site);
        if owner != rank || !clocks.ordered(before, id) {
            let place = Place::Instr(owner, before);
            report.add_with(
                Place::Instr(rank, id),
                || Rule::UnorderedNeed { needed: names::pass(facts.header, needed), before: place },
                || vec![(place, "needed before".to_owned())],
            );
        }
    }

    fn collective(
        &mut self,
        payload: Payload,
        op: CollectiveOp,
        rank: Rank,
        id: InstrId,
        clocks: &Clocks,
        report: &mut Report,
    ) {
        let facts = self.facts;
        let Payload::Value { collective, microbatch } = payload else {
            let content = Content::Gradient(payload);
            self.wanted.push(content);
            let buffers = &facts.plan.ranks[rank.index()].buffers;
            let beside = buffers.iter().find(|buffer| gradient(buffer.place) == Some(payload));
            let (class, shape) =
                beside.map_or((ClassId(0), &[][..]), |buffer| (buffer.class, &buffer.shape[..]));
            self.made.push(Made { content, class, shape, form: Form::Same });
            self.sums.push((payload, id));
            return;
        };
        let declared = facts.catalog.collective(collective);
        if facts.ranks == 1 || declared.op != op {
            // Reported by rule 1 or rule 4; what it would read and write then is anyone's guess.
            return;
        }
        if let Some(value) = facts.contribution(collective, rank, microbatch) {
            self.wanted.push(Content::Value(value));
        }
        let flow = facts.header.flow_of(microbatch);
        if facts.has_result(declared, rank, flow) {
            let class = facts.class_of(declared.kind, declared.port);
            let form = match op {
                CollectiveOp::AllGather => Form::Gathered,
                CollectiveOp::ReduceScatter => Form::Sliced,
                CollectiveOp::Broadcast | CollectiveOp::Reduce | CollectiveOp::AllReduce => Form::Same,
            };
            let shape = facts.shape(class, facts.contributor(declared, rank, flow));
            self.made.push(Made { content: Content::Result(collective, microbatch), class, shape, form });
        }
        let slot = |id: CollectiveId| id.index() * facts.units + microbatch.index();
        self.collected[slot(collective)] = Some(id);
        let Some(after) = declared.after else { return };
        if !self.collected[slot(after)].is_some_and(|before| clocks.ordered(before, id)) {
            report.add(Place::Instr(rank, id), || Rule::UnorderedNeed {
                needed: names::collective(facts.header, after).to_owned(),
                before: Place::Rank(rank),
            });
        }
    }

    fn reads(&self, rank: Rank, id: InstrId, operands: Operands<'_>, clocks: &Clocks, report: &mut Report) {
        let place = Place::Instr(rank, id);
        for (position, &wanted) in self.wanted.iter().enumerate() {
            let Some(&buffer) = operands.reads.get(position) else {
                report.add(place, || Rule::MissingOperand { what: self.name(wanted), verb: "read" });
                continue;
            };
            let buffer = BufferId(buffer);
            match self.held[buffer.index()] {
                None => report.add(place, || Rule::UndefinedRead { buffer, wanted: self.name(wanted) }),
                Some((content, _)) if content != wanted => report.add(place, || Rule::WrongValue {
                    buffer,
                    wanted: self.name(wanted),
                    found: self.name(content),
                }),
                Some((_, Some(writer))) if !clocks.ordered(writer, id) => {
                    let others = || vec![(Place::Instr(rank, writer), "written here".to_owned())];
                    report.add_with(
                        place,
                        || Rule::UnorderedRead { buffer, wanted: self.name(wanted), writer },
                        others,
                    );
                }
                Some(_) => {}
            }
        }
        for &buffer in operands.reads.iter().skip(self.wanted.len()) {
            report.add(place, || Rule::UnexpectedOperand { buffer: BufferId(buffer), verb: "reads" });
        }
    }

    fn writes(&mut self, rank: Rank, id: InstrId, operands: Operands<'_>, report: &mut Report) {
        let place = Place::Instr(rank, id);
        let buffers = &self.facts.plan.ranks[rank.index()].buffers;
        for (position, made) in self.made.iter().enumerate() {
            let Some(&buffer) = operands.writes.get(position) else {
                report.add(place, || Rule::MissingOperand { what: self.name(made.content), verb: "write" });
                continue;
            };
            let found = &buffers[buffer as usize];
            let suits = match made.content {
                Content::Gradient(payload) => gradient(found.place) == Some(payload),
                _ => found.class == made.class && self.has_shape(&found.shape, made),
            };
            if !suits {
                report.add(place, || Rule::WrongBuffer {
                    buffer: BufferId(buffer),
                    what: self.name(made.content),
                    class: self.facts.catalog.class(made.class).name.clone(),
                    shape: self.shape_of(made),
                });
            }
            self.held[buffer as usize] = Some((made.content, Some(id)));
        }
        for &buffer in operands.writes.iter().skip(self.made.len()) {
            report.add(place, || Rule::UnexpectedOperand { buffer: BufferId(buffer), verb: "writes" });
        }
    }

    fn has_shape(&self, shape: &[u64], made: &Made<'_>) -> bool {
        match (made.form, made.shape.split_first()) {
            (Form::Same, _) => shape == made.shape,
            (Form::Gathered, _) => shape
                .split_first()
                .is_some_and(|(&side, rest)| side == u64::from(self.facts.ranks) && rest == made.shape),
            (Form::Sliced, Some((&whole, inner))) => shape
                .split_first()
                .is_some_and(|(&side, rest)| side == whole / u64::from(self.facts.ranks) && rest == inner),
            (Form::Sliced, None) => false,
        }
    }

    fn shape_of(&self, made: &Made<'_>) -> String {
        let ranks = u64::from(self.facts.ranks);
        let mut shape = made.shape.to_vec();
        match made.form {
            Form::Same => {}
            Form::Gathered => shape.insert(0, ranks),
            Form::Sliced => shape.iter_mut().take(1).for_each(|side| *side /= ranks),
        }
        format!("{shape:?}")
    }

    /// The sum of a gradient takes all that the rank's passes add to it.
    fn early_sums(&self, rank: Rank, clocks: &Clocks, report: &mut Report) {
        for &(payload, sum) in &self.sums {
            let last = self.adders.iter().find(|(other, _)| *other == payload);
            let Some(&(_, pass)) = last.filter(|(_, pass)| !clocks.ordered(*pass, sum)) else { continue };
            report.add_with(
                Place::Instr(rank, sum),
                || Rule::EarlySum { gradient: self.name(Content::Gradient(payload)), pass },
                || vec![(Place::Instr(rank, pass), "still adds to it".to_owned())],
            );
        }
    }

    fn name(&self, content: Content) -> String {
        let header = self.facts.header;
        match content {
            Content::Value(value) => names::value(header, value),
            Content::Result(id, microbatch) => {
                let unit = header.cut().name(microbatch);
                format!("the result of {} {unit}", names::collective(header, id))
            }
            Content::State(class, site, microbatch) => {
                let unit = header.cut().name(microbatch);
                format!("{} of {site}.{unit}", self.facts.catalog.class(class).name)
            }
            Content::Gradient(Payload::StageGradient(stage)) => format!("the gradient of {stage}"),
            Content::Gradient(_) => "the gradient of the tied embedding".to_owned(),
        }
    }
}
