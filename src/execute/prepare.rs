//! Plan -> what the interpreter walks: each rank's lanes with every operand resolved, and the channels between the ranks.
//!
//! After this nothing is looked up by name, and nothing is allocated inside a step. Everything that an instruction could do wrong at
//! run time (no computation, a foreign class, a range outside the arena) is refused here.

use std::collections::BTreeMap;
use std::ops::Range;

use super::error::ExecuteError;
use super::transport::Tag;
use super::views::Places;
use super::wiring::{Network, Wiring};
use crate::ir::{
    BufferId, CollectiveOp, Compute, GroupId, Instr, InstrId, Lane, Op, Pass, Place, Plan, Rank, RankPlan,
    Stage, Value,
};

/// One rank's instructions, ready to run.
#[derive(Debug)]
pub(crate) struct Script {
    /// By lane of the plan, in lane order.
    pub(crate) lanes: Vec<Vec<Entry>>,
    /// Lanes that communicate, which are served first.
    pub(crate) communication: Vec<usize>,
    /// How many instructions there are.
    pub(crate) total: usize,
}

/// One instruction.
#[derive(Debug)]
pub(crate) struct Entry {
    /// Its position in the rank's list.
    pub(crate) instr: InstrId,
    /// What it does.
    pub(crate) action: Action,
    /// What must have ended before.
    pub(crate) waits: Box<[Wait]>,
}

/// An instruction by its place on a lane.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wait {
    /// The lane.
    pub(crate) lane: u32,
    /// The position on the lane.
    pub(crate) position: u32,
}

/// What an instruction does, with its operands.
#[derive(Debug)]
pub(crate) enum Action {
    /// Runs a pass.
    Pass {
        /// What the backend runs.
        compute: Compute,
        /// For which site and microbatch.
        pass: Pass,
        /// Where its buffers lie.
        places: Places,
    },
    /// Sends a buffer.
    Send { mailbox: usize, value: Value, from: Range<usize> },
    /// Receives a buffer.
    Recv { mailbox: usize, value: Value, into: Range<usize> },
    /// Takes part in a collective.
    Collective(Part),
    /// The optimizer's step.
    Step,
}

/// A member's part in a collective.
#[derive(Debug)]
pub(crate) struct Part {
    /// Index into [`Network::boards`].
    pub(crate) board: usize,
    /// The position among the members.
    pub(crate) member: usize,
    /// The count of this rank's collectives on the board before it, in one step.
    pub(crate) ordinal: u64,
    /// What all members must agree on.
    pub(crate) tag: Tag,
    /// The contribution.
    pub(crate) gives: Option<Operand>,
    /// Where the result goes.
    pub(crate) gets: Option<Operand>,
}

/// Where an operand of a collective lies.
#[derive(Clone, Debug)]
pub(crate) enum Operand {
    /// In the arena.
    Arena(Range<usize>),
    /// Beside the parameters: the gradient of a tied embedding.
    TiedGradient,
    /// Beside the parameters: the gradients of a stage of the model, end to end.
    StageGradient(Stage),
}

impl Script {
    /// The instruction that a wait names.
    pub(crate) fn entry(&self, wait: Wait) -> &Entry {
        &self.lanes[wait.lane as usize][wait.position as usize]
    }
}

/// Resolves every rank's instructions and allocates the channels; `bare`: without storage, where buffers move on devices.
///
/// # Errors
/// The first instruction that cannot be run.
pub(super) fn prepare(plan: &Plan, bare: bool) -> Result<(Vec<Script>, Network), ExecuteError> {
    let wiring = Wiring::of(plan);
    let scripts = scripts(plan, &wiring)?;
    let network = wiring.build(plan, bare);
    Ok((scripts, network))
}

/// Resolves every rank's instructions, for an executor with channels of its own.
///
/// # Errors
/// The first instruction that cannot be run.
pub(crate) fn resolve(plan: &Plan) -> Result<Vec<Script>, ExecuteError> {
    scripts(plan, &Wiring::of(plan))
}

fn scripts(plan: &Plan, wiring: &Wiring) -> Result<Vec<Script>, ExecuteError> {
    Rank::all(plan.ranks.len()).map(|rank| Resolver { plan, wiring, rank }.script()).collect()
}

/// The pass that runs overlapped with the one at a position.
fn second_of(plan: &RankPlan, first: usize) -> Option<&Instr> {
    let lane = plan.instrs[first].lane;
    plan.instrs[first + 1..].iter().find(|instr| instr.lane == lane)
}

/// Resolves the instructions of one rank.
struct Resolver<'a> {
    plan: &'a Plan,
    wiring: &'a Wiring,
    rank: Rank,
}

impl Resolver<'_> {
    fn rank_plan(&self) -> &RankPlan {
        &self.plan.ranks[self.rank.index()]
    }

    fn script(&self) -> Result<Script, ExecuteError> {
        let plan = self.rank_plan();
        let mut lanes: Vec<Vec<Entry>> = plan.lanes.iter().map(|_| Vec::new()).collect();
        let mut placed: Vec<Wait> = Vec::with_capacity(plan.instrs.len());
        let mut ordinals: BTreeMap<usize, u64> = BTreeMap::new();
        for (index, instr) in plan.instrs.iter().enumerate() {
            let id = InstrId::new(index);
            let own = plan.operands(instr).waits();
            // The two passes of a pair start together: the first waits for what the second waits for, too.
            let second = if instr.overlaps { second_of(plan, index) } else { None };
            let others = second.map_or(&[][..], |second| plan.operands(second).waits);
            let all = own.chain(others.iter().copied().map(InstrId));
            let waits = all.map(|wait| placed.get(wait.index()).copied());
            let waits = waits.collect::<Option<Box<[Wait]>>>();
            let waits = waits.ok_or_else(|| self.malformed(id, "it waits for a later instruction"))?;
            let mut action = self.action(id, instr)?;
            if let Action::Collective(part) = &mut action {
                let ordinal = ordinals.entry(part.board).or_default();
                part.ordinal = *ordinal;
                *ordinal += 1;
            }
            let lane = lanes
                .get_mut(instr.lane.index())
                .ok_or_else(|| self.malformed(id, "its lane is not in the rank's table"))?;
            placed.push(Wait { lane: instr.lane.0, position: lane.len() as u32 });
            lane.push(Entry { instr: id, action, waits });
        }
        let communication = (0..lanes.len()).filter(|&lane| plan.lanes[lane] != Lane::Compute).collect();
        Ok(Script { lanes, communication, total: plan.instrs.len() })
    }

    fn action(&self, id: InstrId, instr: &Instr) -> Result<Action, ExecuteError> {
        let operands = self.rank_plan().operands(instr);
        match instr.op {
            Op::Pass(pass) => self.pass(id, instr, pass),
            Op::Send { to, value } => {
                let mailbox = self.wiring.mailbox(self.rank, to);
                let mailbox = mailbox.ok_or_else(|| self.malformed(id, "its channel is unknown"))?;
                let from = self.arena(id, self.only(id, operands.reads)?)?;
                Ok(Action::Send { mailbox, value, from })
            }
            Op::Recv { from, value } => {
                let mailbox = self.wiring.mailbox(from, self.rank);
                let mailbox = mailbox.ok_or_else(|| self.malformed(id, "its channel is unknown"))?;
                let into = self.arena(id, self.only(id, operands.writes)?)?;
                Ok(Action::Recv { mailbox, value, into })
            }
            Op::Collective { payload, op, group, root, elements } => {
                self.collective(id, instr, group, Tag { payload, op, root, elements })
            }
            Op::Step => Ok(Action::Step),
        }
    }

    fn pass(&self, id: InstrId, instr: &Instr, pass: Pass) -> Result<Action, ExecuteError> {
        let (header, plan) = (&self.plan.header, self.rank_plan());
        let operands = plan.operands(instr);
        let kind = header.catalog.kind(pass.kind);
        let compute = kind.computes.ok_or_else(|| ExecuteError::NoCompute { kind: kind.name.clone() })?;
        if pass.microbatch.0 >= header.cut().units() {
            return Err(self.malformed(id, "its microbatch does not exist"));
        }
        let reads = operands.reads().map(|buffer| (buffer, false));
        let writes = operands.writes().map(|buffer| (buffer, true));
        let buffers = reads.chain(writes).map(|(buffer, written)| {
            let range = self.arena(id, buffer)?;
            let class = plan.buffers[buffer.index()].class;
            Ok((header.catalog.class(class).name.as_str(), range, written))
        });
        let buffers = buffers.collect::<Result<Vec<_>, ExecuteError>>()?;
        let places = Places::new(kind, buffers.into_iter())?;
        // What a backend computes with must be there, whatever the plan's own declarations ask for.
        let earlier = match compute {
            Compute::StageForward | Compute::StageBackward | Compute::StageInputGrad => {
                header.cut().slice(pass.microbatch) as usize
            }
            _ => 0,
        };
        if places.earlier.len() > earlier {
            let (kind, class) = (kind.name.clone(), "act".to_owned());
            return Err(ExecuteError::AmbiguousBuffer { kind, class });
        }
        if places.earlier.len() < earlier {
            return Err(self.malformed(id, "it does not read what every earlier slice left"));
        }
        if places.overlap() {
            return Err(self.malformed(id, "two of its buffers overlap"));
        }
        Ok(Action::Pass { compute, pass, places })
    }

    fn collective(
        &self,
        id: InstrId,
        instr: &Instr,
        group: GroupId,
        tag: Tag,
    ) -> Result<Action, ExecuteError> {
        let plan = self.rank_plan();
        let operands = plan.operands(instr);
        let key = (group, plan.lane(instr) == Lane::Compute);
        let members = self.plan.header.groups.get(group.index()).map_or(&[][..], |group| &group.0);
        let member = members.iter().position(|&rank| rank == self.rank);
        let member = member.ok_or_else(|| self.malformed(id, "its rank is not in the group"))?;
        let board = self.wiring.board(key);
        let board = board.ok_or_else(|| self.malformed(id, "its group is unknown"))?;
        let rooted = matches!(tag.op, CollectiveOp::Broadcast | CollectiveOp::Reduce);
        if rooted && !tag.root.is_some_and(|root| members.contains(&root)) {
            return Err(self.malformed(id, "its root is not in the group"));
        }
        let must_give = tag.op != CollectiveOp::Broadcast || tag.root == Some(self.rank);
        if must_give == operands.reads.is_empty() || operands.reads.len() > 1 || operands.writes.len() > 1 {
            return Err(self.malformed(id, "it does not read one contribution and write one result at most"));
        }
        let count = members.len() as u64;
        let result = match tag.op {
            CollectiveOp::AllGather => tag.elements.saturating_mul(count),
            CollectiveOp::ReduceScatter => tag.elements / count,
            CollectiveOp::Broadcast | CollectiveOp::Reduce | CollectiveOp::AllReduce => tag.elements,
        };
        let operand = |list: &[u32], elements| {
            let buffer = list.first().copied().map(BufferId);
            buffer.map(|buffer| self.operand(id, buffer, elements)).transpose()
        };
        let gives = operand(operands.reads, tag.elements)?;
        let gets = operand(operands.writes, result)?;
        Ok(Action::Collective(Part { board, member, ordinal: 0, tag, gives, gets }))
    }

    fn operand(&self, id: InstrId, buffer: BufferId, elements: u64) -> Result<Operand, ExecuteError> {
        let described = self.rank_plan().buffers.get(buffer.index());
        let described = described.ok_or_else(|| self.malformed(id, "it names no buffer of its rank"))?;
        if described.elements() != elements {
            return Err(self.malformed(id, "its buffer is not of the size that the collective states"));
        }
        match described.place {
            Place::TiedGradient => Ok(Operand::TiedGradient),
            Place::StageGradient(stage) => Ok(Operand::StageGradient(stage)),
            Place::Arena(_) => Ok(Operand::Arena(self.arena(id, buffer)?)),
        }
    }

    /// The one buffer of a list.
    fn only(&self, id: InstrId, list: &[u32]) -> Result<BufferId, ExecuteError> {
        match list {
            [buffer] => Ok(BufferId(*buffer)),
            _ => Err(self.malformed(id, "it does not move exactly one buffer")),
        }
    }

    /// The range of a buffer in the arena, in elements; `0..0` where it has none.
    fn arena(&self, id: InstrId, buffer: BufferId) -> Result<Range<usize>, ExecuteError> {
        let plan = self.rank_plan();
        let described = plan.buffers.get(buffer.index());
        let described = described.ok_or_else(|| self.malformed(id, "it names no buffer of its rank"))?;
        let Place::Arena(offset) = described.place else {
            return Err(self.malformed(id, "it uses a summed gradient outside of its collective"));
        };
        let end = offset.0.checked_add(described.bytes().0).filter(|&end| end <= plan.peak.bytes.0);
        let end = end.ok_or_else(|| self.malformed(id, "its buffer lies outside the arena"))?;
        if !offset.0.is_multiple_of(4) {
            return Err(self.malformed(id, "its buffer is not aligned"));
        }
        Ok(if offset.0 == end { 0..0 } else { (offset.0 / 4) as usize..(end / 4) as usize })
    }

    fn malformed(&self, instr: InstrId, reason: &str) -> ExecuteError {
        ExecuteError::Malformed { rank: self.rank, instr, reason: reason.to_owned() }
    }
}
