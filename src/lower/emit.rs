//! What ends, first to last -> each rank's instructions.

use super::error::LowerError;
use super::forms::Forms;
use super::rank::RankList;
use super::sums::Sums;
use super::uses::{Uses, direct};
use crate::cost::Costs;
use crate::graph::Graph;
use crate::ir::{
    BufferId, CollectiveId, CollectiveOp, Flow, GroupId, InstrId, KindId, Lane, LaneId, Microbatch, Op, Pass,
    Payload, Place, Port, Queue, Rank, RankPlan, Relation, Schedule, Site, Source, Ticks, Value,
};

const COMPUTE: LaneId = LaneId(0);

/// Writes every rank's list, event by event.
pub(super) struct Emitter<'a> {
    graph: &'a Graph<'a>,
    costs: &'a Costs,
    uses: Uses,
    forms: Forms,
    ranks: Vec<RankList>,
    /// Where each value lies on the rank that computed it; by kind, slot and port.
    produced: Table,
    /// Where each received value lies; by kind, slot and need of the reader.
    received: Table,
    /// Where each collective's result lies; by collective, rank and microbatch.
    collected: Vec<Option<BufferId>>,
    /// Where state lies; by class, slot (stages, then ranks).
    state: Table,
    /// The instruction of each pass, where an order-only need crosses lanes.
    issued: Option<Vec<Option<InstrId>>>,
}

/// Buffers by a row of some kind, a slot (site and microbatch) and a column.
struct Table {
    starts: Vec<usize>,
    widths: Vec<usize>,
    cells: Vec<Option<BufferId>>,
}

impl Table {
    /// `rows`: for each, its number of slots and of columns.
    fn new(rows: impl Iterator<Item = (usize, usize)>) -> Self {
        let (mut starts, mut widths, mut end) = (Vec::new(), Vec::new(), 0);
        for (slots, width) in rows {
            starts.push(end);
            widths.push(width);
            end += slots * width;
        }
        Self { starts, widths, cells: vec![None; end] }
    }

    fn cell(&mut self, row: usize, slot: usize, column: usize) -> &mut Option<BufferId> {
        &mut self.cells[self.starts[row] + slot * self.widths[row] + column]
    }
}

impl<'a> Emitter<'a> {
    /// Tables for every value, linear in the number of passes.
    ///
    /// # Errors
    /// The catalog can't be lowered.
    pub(super) fn new(
        graph: &'a Graph<'a>,
        schedule: &Schedule,
        costs: &'a Costs,
    ) -> Result<Self, LowerError> {
        check(schedule)?;
        let catalog = graph.catalog;
        let m = graph.shape.units();
        let kinds = || KindId::all(catalog.kinds.len()).map(|id| (graph.sites(id) * m, catalog.kind(id)));
        let p = graph.shape.ranks as usize;
        let sites = graph.shape.depth() as usize + p;
        let per_rank = schedule.orders.iter().map(|order| order.len() * 3).max().unwrap_or(0);
        let crosses = kinds().any(|(_, kind)| {
            kind.needs.iter().any(|need| match need.from {
                Source::Pass { kind: needed, port: None, .. } => {
                    (catalog.kind(needed).queue == Queue::Group) != (kind.queue == Queue::Group)
                }
                _ => false,
            })
        });
        let forms = Forms::new(graph);
        Ok(Self {
            graph,
            costs,
            uses: Uses::new(graph),
            ranks: (0..p).map(|_| RankList::new(catalog.classes.len(), &forms, per_rank)).collect(),
            forms,
            produced: Table::new(kinds().map(|(slots, kind)| (slots, kind.gives.len()))),
            received: Table::new(kinds().map(|(slots, kind)| (slots, kind.needs.len()))),
            collected: vec![None; catalog.collectives.len() * p * m],
            state: Table::new(catalog.classes.iter().map(|_| (sites * m, 1))),
            issued: crosses.then(|| vec![None; graph.len()]),
        })
    }

    /// Two passes that ran overlapped have ended at `now`. What the first frees rests until the second has taken what it needs: they run
    /// at the same time.
    pub(super) fn pair(&mut self, first: Pass, second: Pass, now: Ticks) {
        let rank = self.graph.rank_of(first.site).index();
        let took = self.costs.pair(first, second);
        let span = (Ticks(now.0.saturating_sub(took.0)), now);
        self.write_pass(first, span, true);
        self.ranks[rank].overlap();
        self.messages(first, now);
        self.write_pass(second, span, false);
        self.messages(second, now);
    }

    /// A pass has ended at `now`: its instruction, and the messages that carry what it gives.
    pub(super) fn pass(&mut self, pass: Pass, now: Ticks) {
        let start = Ticks(now.0.saturating_sub(self.costs.pass(pass).0));
        self.write_pass(pass, (start, now), false);
        self.messages(pass, now);
    }

    /// The instruction of a pass that ran for a span. `rest`: what it frees rests until the next pass has taken what it needs.
    fn write_pass(&mut self, pass: Pass, (start, end): (Ticks, Ticks), rest: bool) {
        let kind = self.graph.catalog.kind(pass.kind);
        let rank = self.graph.rank_of(pass.site);
        self.ranks[rank.index()].buffers.at(start, end);
        let lane = match kind.queue {
            Queue::Group if self.graph.shape.ranks > 1 => {
                self.ranks[rank.index()].lane(Lane::Group(GroupId(0)))
            }
            _ => COMPUTE,
        };
        for (position, need) in kind.needs.iter().enumerate() {
            self.need(pass, rank, position, need, lane);
        }
        self.state(pass, rank);
        let slot = self.graph.slot(pass.site, pass.microbatch);
        for (port, &class) in kind.gives.iter().enumerate() {
            let uses = self.uses.in_flow(self.graph.shape.flow_of(pass.microbatch));
            let readers = uses.of(self.graph, pass.kind, pass.site, Port::new(port)).readers;
            if readers > 0 {
                let form = self.forms.of_class(class, pass.site);
                let id = self.ranks[rank.index()].write(&self.forms, form, readers);
                *self.produced.cell(pass.kind.index(), slot, port) = Some(id);
            }
        }
        for &class in &kind.makes {
            let form = self.forms.of_class(class, pass.site);
            let id = self.ranks[rank.index()].write(&self.forms, form, 0);
            let at = self.state_slot(pass);
            if kind.frees.contains(&class) {
                self.ranks[rank.index()].free_state(id);
            } else {
                *self.state.cell(class.index(), at, 0) = Some(id);
            }
        }
        if lane == COMPUTE {
            self.ranks[rank.index()].buffers.wake();
        }
        let instr = self.ranks[rank.index()].issue(Op::Pass(pass), lane, rest);
        if let Some(issued) = &mut self.issued {
            issued[self.graph.index(pass)] = Some(instr);
        }
    }

    /// Reads what a need brings.
    fn need(&mut self, pass: Pass, rank: Rank, position: usize, need: &crate::ir::Need, lane: LaneId) {
        let microbatch = pass.microbatch;
        let id = match need.from {
            Source::Pass { kind, port, .. } => {
                let Some(needed) = self.graph.needed_pass(need, pass) else { return };
                let site = needed.site;
                let Some(port) = port else {
                    if let Some(instr) =
                        self.issued.as_ref().and_then(|issued| issued[self.graph.index(needed)])
                    {
                        let list = &mut self.ranks[rank.index()];
                        list.wait_instr(lane, instr);
                    }
                    return;
                };
                if self.graph.rank_of(site) == rank {
                    *self.produced.cell(kind.index(), self.graph.slot(site, microbatch), port.index())
                } else {
                    *self.received.cell(pass.kind.index(), self.graph.slot(pass.site, microbatch), position)
                }
            }
            Source::Collective(_) if !self.graph.matches(need.on, pass.site) => return,
            Source::Collective(id) => self.result(id, rank, microbatch),
        };
        self.ranks[rank.index()].read(id.expect("what a pass needs has ended before it"));
    }

    /// The result of a collective on a rank.
    fn result(&mut self, id: CollectiveId, rank: Rank, microbatch: Microbatch) -> Option<BufferId> {
        match direct(self.graph, id, rank, self.graph.shape.flow_of(microbatch)) {
            Some(site) => {
                let collective = self.graph.catalog.collective(id);
                let slot = self.graph.slot(site, microbatch);
                *self.produced.cell(collective.kind.index(), slot, collective.port.index())
            }
            None => self.collected[self.collected_at(id, rank, microbatch)],
        }
    }

    fn collected_at(&self, id: CollectiveId, rank: Rank, microbatch: Microbatch) -> usize {
        let shape = self.graph.shape;
        (id.index() * shape.units() + microbatch.index()) * shape.ranks as usize + rank.index()
    }

    /// The slot of a site's state: the stages of the microbatch's flow first, then ranks.
    fn state_slot(&self, pass: Pass) -> usize {
        let shape = self.graph.shape;
        let at = match pass.site {
            Site::Stage(stage) => shape.place_of(stage),
            Site::Rank(rank) => shape.depth() + rank.0,
        };
        pass.microbatch.index() * (shape.depth() + shape.ranks) as usize + at as usize
    }

    /// Reads and frees the state of a pass's site.
    fn state(&mut self, pass: Pass, rank: Rank) {
        let kind = self.graph.catalog.kind(pass.kind);
        let slot = self.state_slot(pass);
        for &class in &kind.frees {
            if let Some(id) = self.state.cell(class.index(), slot, 0).take() {
                self.ranks[rank.index()].read_state(id);
                self.ranks[rank.index()].free_state(id);
            }
        }
        let needed = |need: &crate::ir::Need, relation: Relation| match need.from {
            Source::Pass { kind, at, port: None } if at == relation => Some(kind),
            _ => None,
        };
        for made in kind.needs.iter().filter_map(|need| needed(need, Relation::Here)) {
            self.kept(made, pass, rank);
        }
        for made in kind.needs.iter().filter_map(|need| needed(need, Relation::Earlier)) {
            for microbatch in self.graph.shape.cut().all_earlier(pass.microbatch) {
                self.kept(made, Pass { microbatch, ..pass }, rank);
            }
        }
    }

    /// Reads the state that a kind left at the site and for the unit of `at`, where it is still live.
    fn kept(&mut self, made: KindId, at: Pass, rank: Rank) {
        let slot = self.state_slot(at);
        for &class in &self.graph.catalog.kind(made).makes {
            if let Some(id) = *self.state.cell(class.index(), slot, 0) {
                self.ranks[rank.index()].read_state(id);
            }
        }
    }

    /// Sends a value to every rank that reads it.
    fn messages(&mut self, pass: Pass, now: Ticks) {
        for port in 0..self.graph.catalog.kind(pass.kind).gives.len() {
            self.message(pass, Port::new(port), now);
        }
    }

    /// Sends one of a pass's values to every rank that reads it.
    fn message(&mut self, pass: Pass, port: Port, now: Ticks) {
        let rank = self.graph.rank_of(pass.site);
        let uses = self.uses.in_flow(self.graph.shape.flow_of(pass.microbatch));
        let peers = &uses.of(self.graph, pass.kind, pass.site, port).peers;
        let slot = self.graph.slot(pass.site, pass.microbatch);
        let form = self.forms.of_class(self.graph.catalog.kind(pass.kind).gives[port.index()], pass.site);
        let value = Value { pass, port };
        for (peer, readers) in peers {
            let arrives = now + self.costs.message(rank, *peer);
            let list = &mut self.ranks[rank.index()];
            list.buffers.at(now, arrives);
            list.read(
                self.produced
                    .cell(pass.kind.index(), slot, port.index())
                    .expect("a value with readers is written"),
            );
            let lane = list.lane(Lane::Send(*peer));
            list.issue(Op::Send { to: *peer, value }, lane, true);
            let list = &mut self.ranks[peer.index()];
            list.buffers.at(now, arrives);
            let id = list.write(&self.forms, form, readers.len() as u32);
            let lane = list.lane(Lane::Recv(rank));
            list.issue(Op::Recv { from: rank, value }, lane, false);
            for reader in readers {
                let slot = self.graph.slot(reader.site, pass.microbatch);
                *self.received.cell(reader.kind.index(), slot, reader.need) = Some(id);
            }
        }
    }

    /// A collective has all its contributions: an instruction on every rank, unless there is only one.
    ///
    /// It starts at `now` and its result is there at `end`.
    pub(super) fn collective(&mut self, id: CollectiveId, microbatch: Microbatch, now: Ticks, end: Ticks) {
        let p = self.graph.shape.ranks;
        if p == 1 {
            return;
        }
        let collective = self.graph.catalog.collective(id);
        let flow = self.graph.shape.flow_of(microbatch);
        let root = root_of(self.graph, id, flow);
        let source = self.graph.end(collective.source, flow).map(Site::Stage);
        let class = self.graph.catalog.kind(collective.kind).gives[collective.port.index()];
        let part = self.forms.get(self.forms.of_class(class, source.unwrap_or(Site::Rank(Rank(0)))));
        let elements = part.bytes / 4;
        let form = self.forms.of_collective(id);
        let payload = Payload::Value { collective: id, microbatch };
        let op = Op::Collective { payload, op: collective.op, group: GroupId(0), root, elements };
        for rank in Rank::all(p as usize) {
            self.ranks[rank.index()].buffers.at(now, end);
            if source.is_none() || root == Some(rank) && collective.op == CollectiveOp::Broadcast {
                let slot = self.graph.slot(source.unwrap_or(Site::Rank(rank)), microbatch);
                let id = *self.produced.cell(collective.kind.index(), slot, collective.port.index());
                self.ranks[rank.index()].read(id.expect("a contribution is written before it is collected"));
            }
            let writes = match collective.op {
                CollectiveOp::Broadcast => root != Some(rank),
                CollectiveOp::Reduce => root == Some(rank),
                CollectiveOp::AllReduce | CollectiveOp::AllGather | CollectiveOp::ReduceScatter => true,
            };
            if writes {
                let readers = self.uses.in_flow(flow).collected(id, rank);
                let written = self.ranks[rank.index()].write(&self.forms, form, readers);
                let at = self.collected_at(id, rank, microbatch);
                self.collected[at] = Some(written);
                if readers == 0 {
                    self.ranks[rank.index()].free_state(written);
                }
            }
            let list = &mut self.ranks[rank.index()];
            let lane = if collective.lockstep { COMPUTE } else { list.lane(Lane::Group(GroupId(0))) };
            list.issue(op, lane, true);
        }
    }

    /// Every rank's list, closed by the sums of gradients that lie on several ranks and the optimizer step.
    pub(super) fn finish(mut self, schedule: &Schedule) -> Vec<RankPlan> {
        let sums = Sums::of(schedule);
        for sum in &sums.all {
            let class = self.graph.catalog.kinds.iter().find_map(|kind| kind.gives.first().copied());
            let class = class.expect("a pipeline of several ranks gives values on");
            let elements = sum.shape.iter().product();
            for &rank in &sums.groups[sum.group.index()].0 {
                let list = &mut self.ranks[rank.index()];
                let place = match sum.payload {
                    Payload::StageGradient(stage) => Place::StageGradient(stage),
                    _ => Place::TiedGradient,
                };
                let id = list.buffers.beside_parameters(class, sum.shape.clone(), place);
                let lane = list.lane(Lane::Group(sum.group));
                list.wait_for_all(lane);
                list.update(id);
                let (payload, op) = (sum.payload, CollectiveOp::AllReduce);
                let op = Op::Collective { payload, op, group: sum.group, root: None, elements };
                list.issue(op, lane, false);
            }
        }
        for list in &mut self.ranks {
            list.wait_for_all(COMPUTE);
            list.issue(Op::Step, COMPUTE, false);
        }
        self.ranks.into_iter().map(RankList::finish).collect()
    }
}

fn check(schedule: &Schedule) -> Result<(), LowerError> {
    let catalog = &schedule.catalog;
    let (input, output) = (catalog.shards_input(), catalog.shards_output());
    if schedule.model.tied && input != output {
        let by = |kind: &&crate::ir::Kind| {
            kind.computes.is_some_and(|word| word.shards_input() || word.shards_output())
        };
        let at = catalog.kinds.iter().find(by).and_then(|kind| kind.span);
        return Err(LowerError::HalfSharded { sharded: if input { "input" } else { "output" }, at });
    }
    Ok(())
}

/// Who gives (broadcast) or gets (reduce), for the microbatches of a flow.
pub(super) fn root_of(graph: &Graph<'_>, id: CollectiveId, flow: Flow) -> Option<Rank> {
    let collective = graph.catalog.collective(id);
    let end = match collective.op {
        CollectiveOp::Broadcast => collective.source,
        CollectiveOp::Reduce => collective.reader,
        CollectiveOp::AllReduce | CollectiveOp::AllGather | CollectiveOp::ReduceScatter => return None,
    };
    graph.end(end, flow).map(|stage| graph.shape.rank_of(stage))
}
