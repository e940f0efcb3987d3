//! Each way to break a plan is refused, with the code that it must cause, wherever in the plan it is done.

use std::collections::BTreeSet;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use schedc::ir::{
    Bytes, CollectiveOp, Instr, Kind, Lane, LaneId, Microbatch, Mode, Op, Operands, Payload, Place, Plan,
    Rank, RankPlan, Relation, Site, Source, Stage,
};
use schedc::verify::{Options, Violation, verify};

use crate::plans::{compiled, forward_only_twins, plans};

const SEEDS: u64 = 6;

/// A way to break a plan: `apply` does it somewhere, or says that this plan has no place for it.
struct Operator {
    name: &'static str,
    codes: &'static [&'static str],
    apply: fn(&mut Draft, &mut ChaCha8Rng) -> Option<()>,
}

const OPERATORS: &[Operator] = &[
    Operator { name: "drop a pass", codes: &["missing_pass"], apply: drop_pass },
    Operator { name: "drop a send", codes: &["unmatched_recv"], apply: drop_send },
    Operator { name: "drop a receive", codes: &["unmatched_send"], apply: drop_receive },
    Operator {
        name: "drop a collective",
        codes: &["missing_collective", "missing_sum", "missing_copy_sum"],
        apply: drop_collective,
    },
    Operator { name: "drop the step", codes: &["missing_step"], apply: drop_step },
    Operator { name: "duplicate a pass", codes: &["duplicate_pass"], apply: duplicate_pass },
    Operator { name: "swap two sends", codes: &["tag_mismatch"], apply: swap_sends },
    Operator { name: "retarget a send", codes: &["unmatched_recv"], apply: retarget_send },
    Operator { name: "expect another value", codes: &["tag_mismatch"], apply: expect_another },
    Operator {
        name: "reorder dependent passes",
        codes: &["undefined_read", "unordered_need", "wrong_value"],
        apply: reorder_dependent,
    },
    Operator {
        name: "remove a wait",
        codes: &["unordered_read", "overwrite_in_flight", "unordered_free", "early_step", "early_sum"],
        apply: remove_wait,
    },
    Operator { name: "free early", codes: &["use_after_free"], apply: free_early },
    Operator { name: "free twice", codes: &["double_free"], apply: free_twice },
    Operator { name: "drop a free", codes: &["leak", "overwrite_live"], apply: drop_free },
    Operator { name: "clash two slots", codes: &["overwrite_live"], apply: clash_slots },
    Operator { name: "misalign a buffer", codes: &["malformed_buffer"], apply: misalign },
    Operator {
        name: "reorder the collectives of a rank",
        codes: &["group_order"],
        apply: reorder_collectives,
    },
    Operator { name: "name a wrong root", codes: &["group_root"], apply: wrong_root },
    Operator { name: "collect a wrong count", codes: &["group_count"], apply: wrong_count },
    Operator { name: "do another operation", codes: &["group_op"], apply: wrong_op },
    Operator { name: "run a foreign stage", codes: &["foreign_pass"], apply: foreign_stage },
    Operator { name: "swap two operands", codes: &["wrong_value", "undefined_read"], apply: swap_operands },
    Operator { name: "read one earlier slice less", codes: &["missing_operand"], apply: read_a_slice_less },
    Operator { name: "exchange two earlier slices", codes: &["wrong_value"], apply: exchange_slices },
    Operator {
        name: "run a slice before the one it needs",
        codes: &["undefined_read", "unordered_need", "wrong_value"],
        apply: reorder_slices,
    },
    Operator { name: "state a wrong peak", codes: &["wrong_peak"], apply: wrong_peak },
    Operator { name: "sum the wrong stage", codes: &["missing_copy_sum"], apply: wrong_stage_sum },
    Operator { name: "sum in another group", codes: &["wrong_group"], apply: wrong_group },
    Operator { name: "sum before the last pass", codes: &["early_sum"], apply: sum_early },
    Operator { name: "run in the other flow", codes: &["foreign_flow"], apply: foreign_flow },
    Operator { name: "wait within a pair", codes: &["pair_waits"], apply: wait_within },
    Operator { name: "overlap three", codes: &["malformed_pair"], apply: overlap_three },
    Operator {
        name: "overlap dependent passes",
        codes: &["unordered_read", "unordered_need"],
        apply: overlap_dependent,
    },
    Operator { name: "call training evaluation", codes: &["malformed_catalog"], apply: call_forward_only },
    Operator { name: "send after the answer", codes: &["deadlock"], apply: send_late },
];

#[test]
fn every_mutation_is_refused_with_the_code_that_it_must_cause() {
    let mut idle: BTreeSet<_> = OPERATORS.iter().map(|operator| operator.name).collect();
    for (name, plan) in plans().into_iter().chain(compiled()).chain(forward_only_twins()) {
        for operator in OPERATORS {
            for seed in 0..SEEDS {
                let mut draft = Draft::of(&plan);
                let mut rng = ChaCha8Rng::seed_from_u64(seed);
                if (operator.apply)(&mut draft, &mut rng).is_none() {
                    continue;
                }
                idle.remove(operator.name);
                let context = format!("{name}, {}, seed {seed}", operator.name);
                let Err(refused) = verify(draft.plan(), &Options::default()) else {
                    panic!("{context}: not refused");
                };
                let codes: BTreeSet<_> = refused.violations.iter().map(Violation::name).collect();
                let caused = |code: &&str| codes.contains(&format!("schedc::verify::{code}"));
                assert!(operator.codes.iter().any(caused), "{context}: {codes:?}");
            }
        }
    }
    assert!(idle.is_empty(), "no plan has a place for {idle:?}");
}

/// A plan that can be changed: each instruction with lists of its own.
struct Draft {
    plan: Plan,
    nodes: Vec<Vec<Node>>,
}

#[derive(Clone)]
struct Node {
    op: Op,
    lane: LaneId,
    overlaps: bool,
    reads: Vec<u32>,
    writes: Vec<u32>,
    frees: Vec<u32>,
    waits: Vec<u32>,
}

impl Draft {
    fn of(plan: &Plan) -> Self {
        let node = |part: &RankPlan, instr: &Instr| {
            let operands = part.operands(instr);
            Node {
                op: instr.op,
                lane: instr.lane,
                overlaps: instr.overlaps,
                reads: operands.reads.to_vec(),
                writes: operands.writes.to_vec(),
                frees: operands.frees.to_vec(),
                waits: operands.waits.to_vec(),
            }
        };
        let nodes = plan.ranks.iter().map(|part| part.instrs.iter().map(|instr| node(part, instr)).collect());
        Self { plan: plan.clone(), nodes: nodes.collect() }
    }

    fn plan(mut self) -> Plan {
        for (part, nodes) in self.plan.ranks.iter_mut().zip(&self.nodes) {
            part.instrs.clear();
            part.pool.clear();
            for node in nodes {
                let Node { op, lane, overlaps, reads, writes, frees, waits } = node;
                part.push(*op, *lane, Operands { reads, writes, frees, waits });
                part.instrs.last_mut().unwrap().overlaps = *overlaps;
            }
        }
        self.plan
    }

    fn ranks(&self) -> u32 {
        u32::try_from(self.nodes.len()).unwrap()
    }

    /// Some instruction, of any rank, that satisfies a test.
    fn pick(
        &self,
        rng: &mut ChaCha8Rng,
        test: impl Fn(&Self, usize, usize) -> bool,
    ) -> Option<(usize, usize)> {
        let all =
            (0..self.nodes.len()).flat_map(|rank| (0..self.nodes[rank].len()).map(move |at| (rank, at)));
        let fitting: Vec<_> = all.filter(|&(rank, at)| test(self, rank, at)).collect();
        (!fitting.is_empty()).then(|| fitting[rng.random_range(0..fitting.len())])
    }

    fn pick_op(&self, rng: &mut ChaCha8Rng, test: impl Fn(&Op) -> bool) -> Option<(usize, usize)> {
        self.pick(rng, |draft, rank, at| test(&draft.nodes[rank][at].op))
    }

    /// Removes an instruction; those that waited for it wait for what it waited for.
    fn remove(&mut self, rank: usize, at: usize) {
        let lane = self.nodes[rank][at].lane;
        if let Some(before) = self.nodes[rank][..at].iter_mut().rfind(|node| node.lane == lane) {
            before.overlaps = false;
        }
        let removed = self.nodes[rank].remove(at);
        for node in &mut self.nodes[rank][at..] {
            if node.waits.contains(&id(at)) {
                node.waits.extend(&removed.waits);
            }
            node.waits.retain(|&wait| wait != id(at));
            node.waits.iter_mut().for_each(|wait| *wait -= u32::from(*wait > id(at)));
            node.waits.sort_unstable();
            node.waits.dedup();
        }
    }

    fn insert(&mut self, rank: usize, at: usize, node: Node) {
        for later in &mut self.nodes[rank][at..] {
            later.waits.iter_mut().for_each(|wait| *wait += u32::from(*wait >= id(at)));
        }
        self.nodes[rank].insert(at, node);
    }

    fn lane(&self, rank: usize, at: usize) -> Lane {
        self.plan.ranks[rank].lanes[self.nodes[rank][at].lane.index()]
    }

    /// The next instruction on the same lane.
    fn next_on_lane(&self, rank: usize, at: usize) -> Option<usize> {
        let lane = self.nodes[rank][at].lane;
        (at + 1..self.nodes[rank].len()).find(|&next| self.nodes[rank][next].lane == lane)
    }

    /// The arena range of a buffer.
    fn range(&self, rank: usize, buffer: u32) -> std::ops::Range<u64> {
        let buffer = &self.plan.ranks[rank].buffers[buffer as usize];
        match buffer.place {
            Place::Arena(offset) => offset.0..offset.0 + buffer.bytes().0,
            Place::TiedGradient | Place::StageGradient(_) => 0..0,
        }
    }

    fn overlap(&self, rank: usize, one: u32, other: u32) -> bool {
        let (one, other) = (self.range(rank, one), self.range(rank, other));
        !one.is_empty() && !other.is_empty() && one.start < other.end && other.start < one.end
    }

    /// For each instruction of a rank, those that end before it starts: by search, not by clocks.
    fn before(&self, rank: usize) -> Vec<BTreeSet<usize>> {
        let mut before: Vec<BTreeSet<usize>> = Vec::new();
        for (at, node) in self.nodes[rank].iter().enumerate() {
            let lane = (0..at).rfind(|&earlier| self.nodes[rank][earlier].lane == node.lane);
            let direct = lane.into_iter().chain(node.waits.iter().map(|&wait| wait as usize));
            before.push(direct.flat_map(|from| before[from].iter().copied().chain([from])).collect());
        }
        before
    }

    /// Whether two instructions of a rank touch the same memory and one of them writes or frees it.
    fn conflict(&self, rank: usize, one: usize, other: usize) -> bool {
        let changes = |node: &Node| [&node.writes[..], &node.frees[..]].concat();
        let touches = |node: &Node| [&node.reads[..], &node.writes[..], &node.frees[..]].concat();
        let meet = |some: Vec<u32>, others: Vec<u32>| {
            some.iter().any(|&one| others.iter().any(|&other| self.overlap(rank, one, other)))
        };
        let (one, other) = (&self.nodes[rank][one], &self.nodes[rank][other]);
        meet(changes(one), touches(other)) || meet(touches(one), changes(other)) || other.op == Op::Step
    }
}

fn id(at: usize) -> u32 {
    u32::try_from(at).unwrap()
}

fn drop_where(draft: &mut Draft, rng: &mut ChaCha8Rng, test: fn(&Op) -> bool) -> Option<()> {
    let (rank, at) = draft.pick_op(rng, test)?;
    draft.remove(rank, at);
    Some(())
}

fn call_forward_only(draft: &mut Draft, _: &mut ChaCha8Rng) -> Option<()> {
    let trains = draft.plan.header.mode.is_training();
    let gradients = |kind: &Kind| kind.computes.is_some_and(|computes| !computes.is_forward());
    let gradients = draft.plan.header.catalog.kinds.iter().any(gradients);
    draft.plan.header.mode = Mode::ForwardOnly;
    (trains && gradients).then_some(())
}

fn drop_pass(draft: &mut Draft, rng: &mut ChaCha8Rng) -> Option<()> {
    drop_where(draft, rng, |op| matches!(op, Op::Pass(_)))
}

fn drop_send(draft: &mut Draft, rng: &mut ChaCha8Rng) -> Option<()> {
    drop_where(draft, rng, |op| matches!(op, Op::Send { .. }))
}

fn drop_receive(draft: &mut Draft, rng: &mut ChaCha8Rng) -> Option<()> {
    drop_where(draft, rng, |op| matches!(op, Op::Recv { .. }))
}

fn drop_collective(draft: &mut Draft, rng: &mut ChaCha8Rng) -> Option<()> {
    drop_where(draft, rng, |op| matches!(op, Op::Collective { .. }))
}

fn drop_step(draft: &mut Draft, rng: &mut ChaCha8Rng) -> Option<()> {
    drop_where(draft, rng, |op| matches!(op, Op::Step))
}

fn duplicate_pass(draft: &mut Draft, rng: &mut ChaCha8Rng) -> Option<()> {
    let (rank, at) = draft.pick_op(rng, |op| matches!(op, Op::Pass(_)))?;
    draft.nodes[rank][at].overlaps = false;
    let node = draft.nodes[rank][at].clone();
    draft.insert(rank, at + 1, node);
    if let Some(before) = draft.nodes[rank][..at].iter_mut().rfind(|before| before.overlaps) {
        before.overlaps = false;
    }
    Some(())
}

fn swap_sends(draft: &mut Draft, rng: &mut ChaCha8Rng) -> Option<()> {
    let (rank, at) = draft.pick(rng, |draft, rank, at| {
        matches!(draft.nodes[rank][at].op, Op::Send { .. }) && draft.next_on_lane(rank, at).is_some()
    })?;
    let next = draft.next_on_lane(rank, at)?;
    let (one, other) = (draft.nodes[rank][at].op, draft.nodes[rank][next].op);
    draft.nodes[rank][at].op = other;
    draft.nodes[rank][next].op = one;
    Some(())
}

fn retarget_send(draft: &mut Draft, rng: &mut ChaCha8Rng) -> Option<()> {
    if draft.ranks() < 3 {
        return None;
    }
    let (rank, at) = draft.pick_op(rng, |op| matches!(op, Op::Send { .. }))?;
    let Op::Send { to, value } = draft.nodes[rank][at].op else { return None };
    let to = Rank::all(draft.nodes.len()).find(|&other| other != to && other.index() != rank)?;
    let lanes = &mut draft.plan.ranks[rank].lanes;
    let lane = lanes.iter().position(|&lane| lane == Lane::Send(to)).unwrap_or_else(|| {
        lanes.push(Lane::Send(to));
        lanes.len() - 1
    });
    draft.nodes[rank][at].op = Op::Send { to, value };
    draft.nodes[rank][at].lane = LaneId::new(lane);
    Some(())
}

fn expect_another(draft: &mut Draft, rng: &mut ChaCha8Rng) -> Option<()> {
    let (units, flows) = (draft.plan.header.cut().units(), draft.plan.header.flows);
    let (rank, at) = draft.pick_op(rng, |op| matches!(op, Op::Recv { .. }))?;
    let Op::Recv { value, .. } = &mut draft.nodes[rank][at].op else { return None };
    let next = value.pass.microbatch.0 + flows;
    // The next one of the same flow.
    let other = Microbatch(if next < units { next } else { next % flows });
    (other != value.pass.microbatch).then(|| value.pass.microbatch = other)
}

/// Exchanges a pass with an earlier one on its lane that it needs; lanes and waits stay.
fn reorder_dependent(draft: &mut Draft, rng: &mut ChaCha8Rng) -> Option<()> {
    let needed = |draft: &Draft, rank: usize, at: usize| {
        let Op::Pass(pass) = draft.nodes[rank][at].op else { return None };
        let needs = &draft.plan.header.catalog.kind(pass.kind).needs;
        let cut = draft.plan.header.cut();
        let mut here = needs.iter().filter_map(|need| match need.from {
            Source::Pass { kind, at: Relation::Here, .. } => Some((kind, pass.microbatch)),
            Source::Pass { kind, at: Relation::Earlier, .. } => Some((kind, cut.earlier(pass.microbatch)?)),
            Source::Pass { kind, at: Relation::Later, .. } => Some((kind, cut.later(pass.microbatch)?)),
            _ => None,
        });
        here.find_map(|(kind, microbatch)| {
            let wanted = Op::Pass(schedc::ir::Pass { kind, site: pass.site, microbatch });
            (0..at).find(|&earlier| {
                draft.nodes[rank][earlier].op == wanted
                    && draft.nodes[rank][earlier].lane == draft.nodes[rank][at].lane
            })
        })
    };
    let (rank, at) = draft.pick(rng, |draft, rank, at| needed(draft, rank, at).is_some())?;
    let earlier = needed(draft, rank, at)?;
    let (mut one, mut other) = (draft.nodes[rank][earlier].clone(), draft.nodes[rank][at].clone());
    std::mem::swap(&mut one.waits, &mut other.waits);
    std::mem::swap(&mut one.overlaps, &mut other.overlaps);
    draft.nodes[rank][at] = one;
    draft.nodes[rank][earlier] = other;
    Some(())
}

/// Removes a wait without which two instructions that touch the same memory are no longer ordered.
fn remove_wait(draft: &mut Draft, rng: &mut ChaCha8Rng) -> Option<()> {
    for _ in 0..20 {
        let (rank, at) = draft.pick(rng, |draft, rank, at| !draft.nodes[rank][at].waits.is_empty())?;
        let position = rng.random_range(0..draft.nodes[rank][at].waits.len());
        let wait = draft.nodes[rank][at].waits.remove(position);
        let before = draft.before(rank);
        let count = draft.nodes[rank].len();
        let breaks = (0..count).any(|later| {
            (0..later)
                .any(|earlier| !before[later].contains(&earlier) && draft.conflict(rank, earlier, later))
        });
        if breaks {
            return Some(());
        }
        draft.nodes[rank][at].waits.insert(position, wait);
    }
    None
}

/// The writer of a buffer that `at` frees.
fn writer(draft: &Draft, rank: usize, at: usize) -> Option<(usize, u32)> {
    draft.nodes[rank][at].frees.iter().find_map(|&buffer| {
        let writer = (0..at).rfind(|&earlier| draft.nodes[rank][earlier].writes.contains(&buffer))?;
        draft.nodes[rank][at].reads.contains(&buffer).then_some((writer, buffer))
    })
}

fn free_early(draft: &mut Draft, rng: &mut ChaCha8Rng) -> Option<()> {
    let (rank, at) = draft.pick(rng, |draft, rank, at| writer(draft, rank, at).is_some())?;
    let (writer, buffer) = writer(draft, rank, at)?;
    draft.nodes[rank][at].frees.retain(|&freed| freed != buffer);
    draft.nodes[rank][writer].frees.push(buffer);
    Some(())
}

fn free_twice(draft: &mut Draft, rng: &mut ChaCha8Rng) -> Option<()> {
    let (rank, at) = draft.pick(rng, |draft, rank, at| {
        let nodes = &draft.nodes[rank];
        let next = nodes.get(at + 1);
        next.is_some_and(|next| {
            next.op != Op::Step && !next.writes.contains(nodes[at].frees.first().unwrap_or(&0))
        }) && !nodes[at].frees.is_empty()
    })?;
    let buffer = draft.nodes[rank][at].frees[0];
    draft.nodes[rank][at + 1].frees.push(buffer);
    Some(())
}

fn drop_free(draft: &mut Draft, rng: &mut ChaCha8Rng) -> Option<()> {
    let (rank, at) = draft.pick(rng, |draft, rank, at| !draft.nodes[rank][at].frees.is_empty())?;
    let position = rng.random_range(0..draft.nodes[rank][at].frees.len());
    draft.nodes[rank][at].frees.remove(position);
    Some(())
}

/// Moves a buffer over another that is live when it is written.
fn clash_slots(draft: &mut Draft, rng: &mut ChaCha8Rng) -> Option<()> {
    let live = |draft: &Draft, rank: usize, at: usize| {
        let mut live = BTreeSet::new();
        for node in &draft.nodes[rank][..at] {
            live.extend(&node.writes);
            live.retain(|buffer| !node.frees.contains(buffer));
        }
        live.retain(|&buffer| !draft.range(rank, buffer).is_empty());
        live
    };
    let written = |draft: &Draft, rank: usize, at: usize| {
        let mut writes = draft.nodes[rank][at].writes.iter().copied();
        writes.find(|&buffer| !draft.range(rank, buffer).is_empty())
    };
    let (rank, at) = draft.pick(rng, |draft, rank, at| {
        written(draft, rank, at).is_some() && !live(draft, rank, at).is_empty()
    })?;
    let (buffer, under) = (written(draft, rank, at)?, *live(draft, rank, at).first()?);
    let place = draft.plan.ranks[rank].buffers[under as usize].place;
    draft.plan.ranks[rank].buffers[buffer as usize].place = place;
    Some(())
}

fn misalign(draft: &mut Draft, rng: &mut ChaCha8Rng) -> Option<()> {
    let rank = rng.random_range(0..draft.nodes.len());
    let buffers = &mut draft.plan.ranks[rank].buffers;
    let at = rng.random_range(0..buffers.len());
    let Place::Arena(offset) = &mut buffers[at].place else { return None };
    *offset = Bytes(offset.0 + 4);
    Some(())
}

fn reorder_collectives(draft: &mut Draft, rng: &mut ChaCha8Rng) -> Option<()> {
    let next = |draft: &Draft, rank: usize, at: usize| {
        let is_collective = |at: usize| matches!(draft.nodes[rank][at].op, Op::Collective { .. });
        let lane = draft.lane(rank, at);
        let mut later = at + 1..draft.nodes[rank].len();
        later.find(|&next| is_collective(at) && is_collective(next) && draft.lane(rank, next) == lane)
    };
    let (rank, at) = draft.pick(rng, |draft, rank, at| next(draft, rank, at).is_some())?;
    let next = next(draft, rank, at)?;
    let (one, other) = (draft.nodes[rank][at].op, draft.nodes[rank][next].op);
    draft.nodes[rank][at].op = other;
    draft.nodes[rank][next].op = one;
    // A sum of gradients touches their buffer only.
    if !matches!(one, Op::Collective { payload: Payload::Value { .. }, .. }) {
        let (before, after) = draft.nodes[rank].split_at_mut(next);
        std::mem::swap(&mut before[at].reads, &mut after[0].reads);
        std::mem::swap(&mut before[at].writes, &mut after[0].writes);
    }
    Some(())
}

fn wrong_root(draft: &mut Draft, rng: &mut ChaCha8Rng) -> Option<()> {
    let ranks = draft.ranks();
    let (rank, at) = draft.pick_op(rng, |op| matches!(op, Op::Collective { root: Some(_), .. }))?;
    let Op::Collective { root: Some(root), .. } = &mut draft.nodes[rank][at].op else { return None };
    root.0 = (root.0 + 1) % ranks;
    Some(())
}

fn wrong_count(draft: &mut Draft, rng: &mut ChaCha8Rng) -> Option<()> {
    let (rank, at) = draft.pick_op(rng, |op| matches!(op, Op::Collective { .. }))?;
    let Op::Collective { elements, .. } = &mut draft.nodes[rank][at].op else { return None };
    *elements += 1;
    Some(())
}

fn wrong_op(draft: &mut Draft, rng: &mut ChaCha8Rng) -> Option<()> {
    let (rank, at) =
        draft.pick_op(rng, |op| matches!(op, Op::Collective { payload: Payload::Value { .. }, .. }))?;
    let Op::Collective { op, .. } = &mut draft.nodes[rank][at].op else { return None };
    *op = if *op == CollectiveOp::AllReduce { CollectiveOp::AllGather } else { CollectiveOp::AllReduce };
    Some(())
}

fn foreign_stage(draft: &mut Draft, rng: &mut ChaCha8Rng) -> Option<()> {
    let (rank, at) = draft.pick_op(rng, |op| matches!(op, Op::Pass(_)))?;
    let stages = draft.plan.header.stages.clone();
    let (ranks, depth) = (draft.ranks(), draft.plan.header.depth() as usize);
    let Op::Pass(pass) = &mut draft.nodes[rank][at].op else { return None };
    match &mut pass.site {
        Site::Stage(stage) => {
            let flow = stage.index() / depth * depth;
            let own = &stages[flow..flow + depth];
            *stage = Stage::new(flow + own.iter().position(|owner| owner.index() != rank)?);
        }
        Site::Rank(owner) if ranks > 1 => owner.0 = (owner.0 + 1) % ranks,
        Site::Rank(_) => return None,
    }
    Some(())
}

fn swap_operands(draft: &mut Draft, rng: &mut ChaCha8Rng) -> Option<()> {
    let (rank, at) = draft.pick(rng, |draft, rank, at| {
        let reads = &draft.nodes[rank][at].reads;
        reads.len() > 1 && reads[0] != reads[1]
    })?;
    draft.nodes[rank][at].reads.swap(0, 1);
    Some(())
}

/// Whether the last two that an instruction reads are what two earlier slices left, or the last one and its own.
fn reads_slices(draft: &Draft, rank: usize, at: usize) -> bool {
    let Node { op: Op::Pass(pass), reads, .. } = &draft.nodes[rank][at] else { return false };
    let class = |buffer: u32| draft.plan.ranks[rank].buffers[buffer as usize].class;
    let earlier = draft.plan.header.cut().slice(pass.microbatch) as usize;
    let states = reads.iter().rev().take_while(|&&read| class(read) == class(reads[reads.len() - 1])).count();
    earlier > 0 && states >= earlier
}

fn read_a_slice_less(draft: &mut Draft, rng: &mut ChaCha8Rng) -> Option<()> {
    let reads = |draft: &Draft, rank: usize, at: usize| {
        let Op::Pass(pass) = draft.nodes[rank][at].op else { return false };
        let needs = &draft.plan.header.catalog.kind(pass.kind).needs;
        needs.iter().any(|need| matches!(need.from, Source::Pass { at: Relation::Earlier, .. }))
            && reads_slices(draft, rank, at)
    };
    let (rank, at) = draft.pick(rng, reads)?;
    draft.nodes[rank][at].reads.pop();
    Some(())
}

fn exchange_slices(draft: &mut Draft, rng: &mut ChaCha8Rng) -> Option<()> {
    let (rank, at) = draft.pick(rng, |draft, rank, at| {
        let Op::Pass(pass) = draft.nodes[rank][at].op else { return false };
        draft.plan.header.cut().slice(pass.microbatch) > 1 && reads_slices(draft, rank, at)
    })?;
    let reads = &mut draft.nodes[rank][at].reads;
    let last = reads.len() - 1;
    reads.swap(last - 1, last);
    Some(())
}

/// Exchanges two passes of one kind and site that a need orders slice by slice.
fn reorder_slices(draft: &mut Draft, rng: &mut ChaCha8Rng) -> Option<()> {
    let before = |draft: &Draft, rank: usize, at: usize| {
        let Op::Pass(pass) = draft.nodes[rank][at].op else { return None };
        let cut = draft.plan.header.cut();
        let needs = &draft.plan.header.catalog.kind(pass.kind).needs;
        let mut slices = needs.iter().filter_map(|need| match need.from {
            Source::Pass { kind, at: Relation::Earlier, .. } if kind == pass.kind => {
                cut.earlier(pass.microbatch)
            }
            Source::Pass { kind, at: Relation::Later, .. } if kind == pass.kind => cut.later(pass.microbatch),
            _ => None,
        });
        let wanted = Op::Pass(schedc::ir::Pass { microbatch: slices.next()?, ..pass });
        (0..at).find(|&earlier| draft.nodes[rank][earlier].op == wanted)
    };
    let (rank, at) = draft.pick(rng, |draft, rank, at| before(draft, rank, at).is_some())?;
    let earlier = before(draft, rank, at)?;
    let (one, other) = (draft.nodes[rank][at].op, draft.nodes[rank][earlier].op);
    draft.nodes[rank][at].op = other;
    draft.nodes[rank][earlier].op = one;
    Some(())
}

#[expect(clippy::unnecessary_wraps, reason = "every operator has this type")]
fn wrong_peak(draft: &mut Draft, rng: &mut ChaCha8Rng) -> Option<()> {
    let rank = rng.random_range(0..draft.nodes.len());
    let peak = &mut draft.plan.ranks[rank].peak;
    if rng.random_range(0..2) == 0 {
        peak.bytes.0 += 64;
    } else {
        let class = rng.random_range(0..peak.live.len());
        peak.live[class] += 1;
    }
    Some(())
}

/// Sends a value only after the answer to it has come: the last send to a peer after the last receive from there.
fn send_late(draft: &mut Draft, rng: &mut ChaCha8Rng) -> Option<()> {
    let answer = |draft: &Draft, rank: usize, at: usize| {
        let Op::Send { to, value } = draft.nodes[rank][at].op else { return None };
        let answers = at + 1..draft.nodes[rank].len();
        let mut answers = answers.filter(|&later| {
            matches!(draft.nodes[rank][later].op,
            Op::Recv { from, value: answer } if from == to && answer.pass.microbatch == value.pass.microbatch)
        });
        answers.next_back().filter(|_| draft.next_on_lane(rank, at).is_none())
    };
    let (rank, at) = draft.pick(rng, |draft, rank, at| answer(draft, rank, at).is_some())?;
    let answer = answer(draft, rank, at)?;
    let node = draft.nodes[rank][at].clone();
    draft.remove(rank, at);
    draft.insert(rank, answer, node);
    Some(())
}

fn is_copy_sum(op: &Op) -> bool {
    matches!(op, Op::Collective { payload: Payload::StageGradient(_), .. })
}

fn wrong_stage_sum(draft: &mut Draft, rng: &mut ChaCha8Rng) -> Option<()> {
    let (rank, at) = draft.pick_op(rng, is_copy_sum)?;
    let other = (0..draft.nodes[rank].len())
        .find(|&other| other != at && is_copy_sum(&draft.nodes[rank][other].op))?;
    draft.nodes[rank][at] = draft.nodes[rank][other].clone();
    Some(())
}

fn wrong_group(draft: &mut Draft, rng: &mut ChaCha8Rng) -> Option<()> {
    let (rank, at) = draft.pick_op(rng, is_copy_sum)?;
    let groups = draft.plan.header.groups.clone();
    let Op::Collective { group, .. } = &mut draft.nodes[rank][at].op else { return None };
    let own = &groups[group.index()];
    let other = (0..groups.len()).find(|&other| groups[other] != *own)?;
    *group = schedc::ir::GroupId::new(other);
    let lanes = &mut draft.plan.ranks[rank].lanes;
    let lane = lanes.iter().position(|&lane| lane == Lane::Group(*group)).unwrap_or_else(|| {
        lanes.push(Lane::Group(*group));
        lanes.len() - 1
    });
    draft.nodes[rank][at].lane = LaneId::new(lane);
    Some(())
}

fn sum_early(draft: &mut Draft, rng: &mut ChaCha8Rng) -> Option<()> {
    let (rank, at) = draft.pick_op(rng, is_copy_sum)?;
    // One behind another sum on its lane comes after all that that one waits for.
    let lane = draft.nodes[rank][at].lane;
    if draft.nodes[rank][..at].iter().any(|node| node.lane == lane) {
        return None;
    }
    draft.nodes[rank][at].waits.clear();
    Some(())
}

fn foreign_flow(draft: &mut Draft, rng: &mut ChaCha8Rng) -> Option<()> {
    let (flows, depth) = (draft.plan.header.flows, draft.plan.header.depth());
    let at_stage = |op: &Op| matches!(op, Op::Pass(pass) if matches!(pass.site, Site::Stage(_)));
    let (rank, at) = draft.pick_op(rng, |op| flows == 2 && at_stage(op))?;
    let Op::Pass(pass) = &mut draft.nodes[rank][at].op else { return None };
    let Site::Stage(stage) = &mut pass.site else { return None };
    stage.0 = (stage.0 + depth) % (2 * depth);
    Some(())
}

fn second_of(draft: &mut Draft, rng: &mut ChaCha8Rng) -> Option<(usize, usize, usize)> {
    let (rank, first) = draft.pick(rng, |draft, rank, at| draft.nodes[rank][at].overlaps)?;
    Some((rank, first, draft.next_on_lane(rank, first)?))
}

fn wait_within(draft: &mut Draft, rng: &mut ChaCha8Rng) -> Option<()> {
    let (rank, first, second) = second_of(draft, rng)?;
    draft.nodes[rank][second].waits.push(id(first));
    Some(())
}

fn overlap_three(draft: &mut Draft, rng: &mut ChaCha8Rng) -> Option<()> {
    let (rank, _, second) = second_of(draft, rng)?;
    draft.nodes[rank][second].overlaps = true;
    Some(())
}

/// Marks a pass that the next one of the lane needs.
fn overlap_dependent(draft: &mut Draft, rng: &mut ChaCha8Rng) -> Option<()> {
    let dependent = |draft: &Draft, rank: usize, at: usize| {
        let (Op::Pass(pass), Some(next)) = (draft.nodes[rank][at].op, draft.next_on_lane(rank, at)) else {
            return false;
        };
        let Op::Pass(by) = draft.nodes[rank][next].op else { return false };
        let catalog = &draft.plan.header.catalog;
        let plain = |pass: schedc::ir::Pass| catalog.kind(pass.kind).queue == schedc::ir::Queue::Compute;
        let needs = &catalog.kind(by.kind).needs;
        let here = |need: &schedc::ir::Need| matches!(need.from, Source::Pass { kind, at: Relation::Here, .. } if kind == pass.kind);
        let free = !draft.nodes[rank][..at].iter().any(|node| node.overlaps)
            && !draft.nodes[rank][next].overlaps
            && draft.nodes[rank][next].waits.iter().all(|&wait| wait < id(at));
        let same = by.site == pass.site && by.microbatch == pass.microbatch;
        free && same && plain(pass) && plain(by) && needs.iter().any(here)
    };
    let (rank, at) = draft.pick(rng, dependent)?;
    draft.nodes[rank][at].overlaps = true;
    Some(())
}
