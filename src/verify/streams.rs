//! Each rank's part is well formed: ids exist, lanes suit the instructions on them, buffers lie in the arena.

use super::catalog::bytes;
use super::error::Rule;
use super::names;
use super::report::{Place, Report};
use crate::ir::{
    At, Buffer, BufferId, CollectiveOp, GroupId, Instr, InstrId, Lane, Op, Pass, Payload, Place as Slot,
    Plan, Queue, Rank, RankPlan, Site, Value,
};

/// An offset in the arena is a multiple of this.
const ALIGNMENT: u64 = 64;

/// The most entries of a rank's clocks: instructions times lanes.
const MOST_CLOCKS: u64 = 1 << 28;

/// Reports every malformed part of every rank.
pub(super) fn check(plan: &Plan, report: &mut Report) {
    for rank in Rank::all(plan.ranks.len()) {
        let part = &plan.ranks[rank.index()];
        if part.peak.live.len() != plan.header.catalog.classes.len() {
            let problem = "its peak must have a number for each class".to_owned();
            report.add(Place::Rank(rank), || Rule::MalformedRank { problem });
        }
        let sizes = [part.instrs.len(), part.pool.len(), part.buffers.len().saturating_mul(2)];
        if sizes.into_iter().any(|size| u32::try_from(size).is_err()) {
            let problem = "it has 2^32 instructions or operands, or 2^31 buffers, or more".to_owned();
            return report.add(Place::Rank(rank), || Rule::MalformedRank { problem });
        }
        lanes(plan, rank, part, report);
        for (id, each) in part.buffers.iter().enumerate() {
            if let Err(problem) = buffer(plan, each) {
                report.add(Place::Buffer(rank, BufferId::new(id)), || Rule::MalformedBuffer {
                    problem: problem.to_owned(),
                });
            }
        }
        instrs(plan, rank, part, report);
    }
}

fn lanes(plan: &Plan, rank: Rank, part: &RankPlan, report: &mut Report) {
    let mut wrong = |problem: String| report.add(Place::Rank(rank), || Rule::MalformedLane { problem });
    if part.lanes.first() != Some(&Lane::Compute) {
        wrong("its first lane must be the compute lane".to_owned());
    }
    if (part.lanes.len() as u64).saturating_mul(part.instrs.len() as u64) > MOST_CLOCKS {
        wrong("it has more lanes than can be followed".to_owned());
    }
    for lane in &part.lanes {
        let exists = match *lane {
            Lane::Compute => true,
            Lane::Send(peer) | Lane::Recv(peer) => peer != rank && peer.index() < plan.ranks.len(),
            Lane::Group(group) => group.index() < plan.header.groups.len(),
        };
        if !exists {
            wrong(format!("lane {lane} leads to nobody"));
        }
    }
    let mut sorted = part.lanes.clone();
    sorted.sort_unstable();
    if let Some([lane, _]) = sorted.array_windows().find(|[one, other]| one == other) {
        wrong(format!("it has two lanes {lane}"));
    }
}

fn buffer(plan: &Plan, buffer: &Buffer) -> Result<(), &'static str> {
    if buffer.class.index() >= plan.header.catalog.classes.len() {
        return Err("it has a class that does not exist");
    }
    let Some(size) = bytes(&buffer.shape) else {
        return Err("it is larger than any memory");
    };
    let model = plan.header.model;
    match buffer.place {
        Slot::Arena(offset) if offset.0 % ALIGNMENT != 0 => Err("its offset is not a multiple of 64"),
        Slot::Arena(offset) if offset.0.checked_add(size).is_none_or(|end| end > u64::MAX / 2) => {
            Err("it ends beyond any memory")
        }
        Slot::Arena(_) => Ok(()),
        Slot::TiedGradient if buffer.shape == [u64::from(model.vocab), u64::from(model.hidden)] => Ok(()),
        Slot::TiedGradient => Err("the gradient of a tied embedding has the shape [vocab, hidden]"),
        Slot::StageGradient(stage) if stage.0 >= plan.header.depth() => {
            Err("it is the gradient of a stage that the model does not have")
        }
        Slot::StageGradient(stage) => {
            let catalog = &plan.header.catalog;
            let sharded = [catalog.shards_input(), catalog.shards_output()];
            let layers = plan.header.layers_of(stage).len();
            let elements = model.stage_parameters(layers, stage, plan.header.depth(), sharded);
            let known = buffer.shape == [elements];
            if known {
                Ok(())
            } else {
                Err("the gradient of a stage has an element for each of its parameters")
            }
        }
    }
}

fn instrs(plan: &Plan, rank: Rank, part: &RankPlan, report: &mut Report) {
    let mut start = 0;
    let mut open = None;
    for (id, instr) in part.instrs.iter().enumerate() {
        let place = Place::Instr(rank, InstrId::new(id));
        let operands: usize = instr.counts.iter().copied().map(usize::from).sum();
        let end = start + operands;
        if instr.start as usize != start || end > part.pool.len() {
            let problem = "the operands do not lie end to end in the pool".to_owned();
            return report.add(place, || Rule::MalformedOperand { problem });
        }
        start = end;
        let result = op(plan, rank, &instr.op)
            .and_then(|()| lane(plan, part, instr))
            .and_then(|()| touched(part, id, instr))
            .and_then(|()| pair(plan, part, InstrId::new(id), instr, &mut open));
        if let Err(rule) = result {
            report.add(place, || rule);
        }
    }
    if let Some(first) = open {
        let problem = "nothing follows it on its lane".to_owned();
        report.add(Place::Instr(rank, first), || Rule::MalformedPair { problem });
    }
    if start != part.pool.len() {
        let problem = "its pool holds operands of no instruction".to_owned();
        report.add(Place::Rank(rank), || Rule::MalformedRank { problem });
    }
}

fn malformed_pass(problem: &str) -> Rule {
    Rule::MalformedPass { problem: problem.to_owned() }
}

fn op(plan: &Plan, rank: Rank, op: &Op) -> Result<(), Rule> {
    match op {
        Op::Pass(id) => pass(plan, *id),
        Op::Send { to: peer, value } | Op::Recv { from: peer, value } => {
            if *peer == rank || peer.index() >= plan.ranks.len() {
                return Err(malformed_pass("its peer must be another rank"));
            }
            self::value(plan, *value)
        }
        Op::Collective { payload, group, root, .. } => {
            if group.index() >= plan.header.groups.len() {
                return Err(malformed_pass("its group does not exist"));
            }
            if root.is_some_and(|root| root.index() >= plan.ranks.len()) {
                return Err(malformed_pass("its root does not exist"));
            }
            match payload {
                Payload::Value { collective, microbatch } => {
                    let known = collective.index() < plan.header.catalog.collectives.len();
                    if known && microbatch.0 < plan.header.cut().units() {
                        Ok(())
                    } else {
                        Err(malformed_pass("its collective or its microbatch does not exist"))
                    }
                }
                Payload::TiedGradient => Ok(()),
                Payload::StageGradient(stage) if stage.0 < plan.header.depth() => Ok(()),
                Payload::StageGradient(_) => Err(malformed_pass("its stage does not exist")),
            }
        }
        Op::Step => Ok(()),
    }
}

fn pass(plan: &Plan, pass: Pass) -> Result<(), Rule> {
    let Some(kind) = plan.header.catalog.kinds.get(pass.kind.index()) else {
        return Err(malformed_pass("its kind does not exist"));
    };
    let exists = match (kind.at, pass.site) {
        (At::Stage, Site::Stage(stage)) => stage.index() < plan.header.stages.len(),
        (At::EveryRank, Site::Rank(rank)) => rank.index() < plan.ranks.len(),
        _ => return Err(malformed_pass("a pass at a stage names a stage, one at every rank a rank")),
    };
    if !exists || pass.microbatch.0 >= plan.header.cut().units() {
        return Err(malformed_pass("its stage, rank or microbatch does not exist"));
    }
    let flow = plan.header.flow_of(pass.microbatch);
    match pass.site {
        Site::Stage(stage) if stage.0 / plan.header.depth() != flow.0 => {
            Err(Rule::ForeignFlow { pass: names::pass(&plan.header, pass), flow })
        }
        _ => Ok(()),
    }
}

fn value(plan: &Plan, value: Value) -> Result<(), Rule> {
    pass(plan, value.pass)?;
    let gives = plan.header.catalog.kind(value.pass.kind).gives.len();
    if value.port.index() < gives { Ok(()) } else { Err(malformed_pass("its pass gives no such value")) }
}

fn lane(plan: &Plan, part: &RankPlan, instr: &Instr) -> Result<(), Rule> {
    let Some(&lane) = part.lanes.get(instr.lane.index()) else {
        return Err(Rule::MalformedLane { problem: "its lane does not exist".to_owned() });
    };
    let all_ranks = if plan.ranks.len() > 1 { Lane::Group(GroupId(0)) } else { Lane::Compute };
    let wanted = match instr.op {
        Op::Pass(pass) => match plan.header.catalog.kind(pass.kind).queue {
            Queue::Compute | Queue::Lockstep => Lane::Compute,
            Queue::Group => all_ranks,
        },
        Op::Step => Lane::Compute,
        Op::Send { to, .. } => Lane::Send(to),
        Op::Recv { from, .. } => Lane::Recv(from),
        Op::Collective { payload: Payload::Value { collective, .. }, .. }
            if plan.header.catalog.collective(collective).lockstep =>
        {
            Lane::Compute
        }
        Op::Collective { group, .. } => Lane::Group(group),
    };
    if lane == wanted {
        return Ok(());
    }
    Err(Rule::MalformedLane { problem: format!("it runs on lane {lane} and belongs on {wanted}") })
}

/// A pass that is marked as overlapped is followed on the compute lane by another, which waits for nothing later. `open`: a first
/// pass whose second has not come yet.
fn pair(
    plan: &Plan,
    part: &RankPlan,
    id: InstrId,
    instr: &Instr,
    open: &mut Option<InstrId>,
) -> Result<(), Rule> {
    let malformed = |problem: &str| Err(Rule::MalformedPair { problem: problem.to_owned() });
    let ordinary = match instr.op {
        Op::Pass(pass) => plan.header.catalog.kind(pass.kind).queue == Queue::Compute,
        _ => false,
    };
    if part.lanes.get(instr.lane.index()) == Some(&Lane::Compute)
        && let Some(first) = open.take()
    {
        if !ordinary || instr.overlaps {
            return malformed(
                "what follows the first of a pair on its lane is no pass, in lock step, or of another pair",
            );
        }
        return match part.operands(instr).waits().find(|&wait| wait >= first) {
            Some(wait) => Err(Rule::PairWaits { wait, first }),
            None => Ok(()),
        };
    }
    if instr.overlaps {
        if !ordinary {
            return malformed("it is no pass of the compute lane, or one in lock step");
        }
        *open = Some(id);
    }
    Ok(())
}

/// The operands exist, and only the sum of a tied gradient touches its buffer.
fn touched(part: &RankPlan, id: usize, instr: &Instr) -> Result<(), Rule> {
    let malformed = |problem: &str| Err(Rule::MalformedOperand { problem: problem.to_owned() });
    let operands = part.operands(instr);
    if let Some(&wait) = operands.waits.iter().find(|&&wait| wait as usize >= id) {
        return Err(Rule::MalformedWait { wait: InstrId(wait) });
    }
    let sum = match instr.op {
        Op::Collective { payload, op: CollectiveOp::AllReduce, .. } => match payload {
            Payload::TiedGradient => Some(Slot::TiedGradient),
            Payload::StageGradient(stage) => Some(Slot::StageGradient(stage)),
            Payload::Value { .. } => None,
        },
        _ => None,
    };
    for (list, touches) in [operands.reads, operands.writes, operands.frees].into_iter().zip([sum, sum, None])
    {
        for &buffer in list {
            match part.buffers.get(buffer as usize) {
                None => return malformed("it names a buffer that does not exist"),
                Some(buffer) if !matches!(buffer.place, Slot::Arena(_)) && touches != Some(buffer.place) => {
                    return malformed(
                        "only the sum of a gradient over ranks reads and writes it, and nothing frees it",
                    );
                }
                Some(_) => {}
            }
        }
    }
    if matches!(instr.op, Op::Step) && operands.reads.len() + operands.writes.len() + operands.frees.len() > 0
    {
        return malformed("the optimizer step touches no buffers");
    }
    Ok(())
}
