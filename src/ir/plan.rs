//! The plan: everything that an executor needs and nothing more.
//!
//! Meaning of a rank's list: each instruction runs on its lane; a lane runs its instructions one after the other in list order;
//! an instruction starts when the one before it on its lane and all that it waits for have ended. Lanes run side by side.
//! A buffer is defined by the instruction that writes it, until the instruction that frees it has ended.

use std::fmt;
use std::ops::Range;

use serde::{Deserialize, Serialize};

use super::{
    BufferId, Bytes, Catalog, ClassId, CollectiveId, CollectiveOp, Cut, Dims, Flow, GroupId, InstrId, KindId,
    LaneId, Microbatch, Partition, Port, Rank, Stage,
};

/// A compiled schedule: one instruction stream for each rank.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// What holds for all ranks.
    pub header: Header,
    /// Each rank's buffers and instructions, by [`Rank`].
    pub ranks: Vec<RankPlan>,
}

/// What holds for all ranks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Header {
    /// The schedule's name.
    pub name: String,
    /// The transforms that were applied, in order.
    pub transforms: Vec<String>,
    /// What a step is for.
    #[serde(default, skip_serializing_if = "Mode::is_training")]
    pub mode: Mode,
    /// `m`.
    pub microbatches: u32,
    /// Slices that each microbatch's sequences are cut into; 1 where it is left out. A pass's `microbatch` is then
    /// `microbatch * slices + slice`.
    #[serde(default = "whole", skip_serializing_if = "is_whole")]
    pub slices: u32,
    /// The rank of each stage, by [`Stage`], flow after flow.
    pub stages: Vec<Rank>,
    /// Copies of the model, 1 or 2, each with as many of the stages. Microbatch i belongs to flow `i % flows`: its passes at stages
    /// are those of that flow, and the first and the last stage are that flow's.
    #[serde(default = "one_flow", skip_serializing_if = "is_one_flow")]
    pub flows: u32,
    /// The model that buffers are sized for.
    pub model: Dims,
    /// How its layers are spread over the stages of a flow.
    #[serde(default, skip_serializing_if = "Partition::is_uniform")]
    pub partition: Partition,
    /// What the passes are.
    pub catalog: Catalog,
    /// The groups that collectives run on, by [`GroupId`]. Where there are several ranks, `g0` is all of them.
    pub groups: Vec<Group>,
}

fn one_flow() -> u32 {
    1
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "what serde calls it with")]
fn is_one_flow(flows: &u32) -> bool {
    *flows == 1
}

/// What a step of a plan is for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// Losses, gradients and an update of the parameters.
    #[default]
    Training,
    /// Losses only, for evaluation: no pass computes a gradient, and the step updates nothing.
    ForwardOnly,
}

impl Mode {
    /// Whether it is the mode of a plan that says nothing of it.
    #[must_use]
    pub fn is_training(&self) -> bool {
        *self == Self::Training
    }
}

/// Sequences that are not sliced.
fn whole() -> u32 {
    1
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde hands a reference")]
fn is_whole(slices: &u32) -> bool {
    *slices == whole()
}

/// The ranks of a group, ascending.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(transparent)]
pub struct Group(pub Vec<Rank>);

/// One rank's share of the plan.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RankPlan {
    /// The memory that its buffers take, and how many of each class are live at once.
    pub peak: Peak,
    /// Its buffers, by [`BufferId`].
    pub buffers: Vec<Buffer>,
    /// Its lanes, by [`LaneId`]; lane 0 is [`Lane::Compute`].
    pub lanes: Vec<Lane>,
    /// Its instructions, by [`InstrId`].
    pub instrs: Vec<Instr>,
    /// Buffers read, written and freed, and waits, of all instructions, end to end. [`RankPlan::operands`] cuts it.
    pub pool: Vec<u32>,
}

/// What a rank's buffers take at most.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Peak {
    /// The size of the arena that holds every buffer: what an executor allocates.
    pub bytes: Bytes,
    /// For each class, by [`ClassId`]: the most buffers that are live at one position of the list. A buffer that an
    /// instruction writes and one that it frees are both live at that instruction.
    pub live: Vec<u32>,
}

/// A range of a rank's arena under the name of a class. Buffers may share a slot; then at most one of them is live.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Buffer {
    /// Its class.
    pub class: ClassId,
    /// Its shape, in words of four bytes.
    pub shape: Vec<u64>,
    /// Where it lies.
    pub place: Place,
}

/// Where a buffer lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Place {
    /// At this offset of the arena, a multiple of 64.
    Arena(Bytes),
    /// The gradients of one stage of the model, by its place in a flow, where the flows' copies of it lie on two ranks: end to end,
    /// [`Dims::stage_parameters`] elements. Beside the parameters as the next one.
    StageGradient(Stage),
    /// The gradient of the tied embedding, which lives beside the parameters: defined from the start, never freed, no arena bytes.
    TiedGradient,
}

impl Buffer {
    /// Words of four bytes.
    #[must_use]
    pub fn elements(&self) -> u64 {
        self.shape.iter().fold(1, |product, &side| product.saturating_mul(side))
    }

    /// Size; 4 bytes a word.
    #[must_use]
    pub fn bytes(&self) -> Bytes {
        Bytes(self.elements().saturating_mul(4))
    }
}

/// An in-order queue of one rank.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Lane {
    /// Passes and the optimizer step.
    Compute,
    /// Sends to one peer.
    Send(Rank),
    /// Receives from one peer.
    Recv(Rank),
    /// Collectives of one group, and the passes between the parts of a barrier.
    Group(GroupId),
}

/// One instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Instr {
    /// What it does.
    pub op: Op,
    /// The lane that it runs on.
    pub lane: LaneId,
    /// Where its operands start in [`RankPlan::pool`].
    pub start: u32,
    /// How many buffers it reads, writes and frees, and how many instructions it waits for, in pool order.
    pub counts: [u16; 4],
    /// Whether it is a pass that runs overlapped with the next instruction of its lane, a pass too: both start when both may, and
    /// neither may count on the other having ended.
    pub overlaps: bool,
}

/// What an instruction does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Op {
    /// A pass of the catalog.
    Pass(Pass),
    /// Reads one buffer; the k-th send to a peer meets the peer's k-th receive from this rank.
    Send {
        /// The receiver.
        to: Rank,
        /// What is sent.
        value: Value,
    },
    /// Writes one buffer.
    Recv {
        /// The sender.
        from: Rank,
        /// What is expected.
        value: Value,
    },
    /// Reads the contribution, writes the result, where this rank has either.
    Collective {
        /// What is collected.
        payload: Payload,
        /// What is done with the contributions.
        op: CollectiveOp,
        /// Who takes part.
        group: GroupId,
        /// Who gives (broadcast) or gets (reduce); `None` where all do.
        root: Option<Rank>,
        /// Elements that each contributor gives.
        elements: u64,
    },
    /// The end of the step, once, after everything: the optimizer's update, which a forward-only plan leaves out.
    Step,
}

/// What a collective instruction collects.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Payload {
    /// A collective of the catalog, for one microbatch.
    Value {
        /// Which one.
        collective: CollectiveId,
        /// For which microbatch, or slice of one.
        microbatch: Microbatch,
    },
    /// The gradients of the copies of a tied embedding, once a step; the buffer is read and written in place.
    TiedGradient,
    /// The gradients of the two flows' copies of one stage of the model, by its place in a flow; once a step, in place.
    StageGradient(Stage),
}

/// A pass: a kind, a site, a microbatch.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, schemars::JsonSchema,
)]
pub struct Pass {
    /// The kind.
    pub kind: KindId,
    /// The stage or the rank.
    pub site: Site,
    /// The microbatch, or the slice of one.
    pub microbatch: Microbatch,
}

/// Where a pass runs.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Site {
    /// On the rank that holds a stage.
    Stage(Stage),
    /// On a rank.
    Rank(Rank),
}

/// A value that a pass gives.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, schemars::JsonSchema,
)]
pub struct Value {
    /// The pass.
    pub pass: Pass,
    /// Which of its values.
    pub port: Port,
}

/// What an instruction touches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Operands<'plan> {
    /// Buffers read: first the values of the needs that carry one, in catalog order, then state classes.
    pub reads: &'plan [u32],
    /// Buffers written: first ports, in order, then the classes made.
    pub writes: &'plan [u32],
    /// Buffers freed when it has ended.
    pub frees: &'plan [u32],
    /// Earlier instructions, on other lanes, that must have ended before it starts.
    pub waits: &'plan [u32],
}

impl<'plan> Operands<'plan> {
    /// Buffers read.
    pub fn reads(&self) -> impl Iterator<Item = BufferId> + 'plan {
        self.reads.iter().copied().map(BufferId)
    }

    /// Buffers written.
    pub fn writes(&self) -> impl Iterator<Item = BufferId> + 'plan {
        self.writes.iter().copied().map(BufferId)
    }

    /// Buffers freed.
    pub fn frees(&self) -> impl Iterator<Item = BufferId> + 'plan {
        self.frees.iter().copied().map(BufferId)
    }

    /// Instructions waited for.
    pub fn waits(&self) -> impl Iterator<Item = InstrId> + 'plan {
        self.waits.iter().copied().map(InstrId)
    }
}

impl Header {
    /// `p`.
    #[must_use]
    pub fn ranks(&self) -> u32 {
        self.stages.iter().map(|rank| rank.0 + 1).max().unwrap_or(0)
    }

    /// How the batch is cut.
    #[must_use]
    pub fn cut(&self) -> Cut {
        // A header that was never verified may claim anything.
        Cut { microbatches: self.microbatches, slices: self.slices.max(1) }
    }

    /// The stages of one flow; every plan has at least one flow once its structure is verified.
    #[must_use]
    pub fn depth(&self) -> u32 {
        self.stages.len() as u32 / self.flows.max(1)
    }

    /// The layers of a stage of the model, by its place in a flow.
    #[must_use]
    pub fn layers_of(&self, place: Stage) -> Range<u32> {
        self.partition.layers_of(place, self.depth(), &self.model)
    }

    /// The flow that a unit belongs to: that of its microbatch.
    #[must_use]
    pub fn flow_of(&self, unit: Microbatch) -> Flow {
        Flow(self.cut().microbatch(unit).0 % self.flows.max(1))
    }

    /// The rank that a pass belongs to.
    #[must_use]
    pub fn rank_of(&self, pass: Pass) -> Rank {
        match pass.site {
            Site::Stage(stage) => self.stages[stage.index()],
            Site::Rank(rank) => rank,
        }
    }
}

impl RankPlan {
    /// The operands of an instruction.
    #[must_use]
    pub fn operands(&self, instr: &Instr) -> Operands<'_> {
        let mut at = instr.start as usize;
        let mut cut = |count: u16| -> Range<usize> {
            let from = at;
            at += usize::from(count);
            from..at
        };
        let [reads, writes, frees, waits] = instr.counts.map(&mut cut);
        Operands {
            reads: &self.pool[reads],
            writes: &self.pool[writes],
            frees: &self.pool[frees],
            waits: &self.pool[waits],
        }
    }

    /// Appends an instruction.
    ///
    /// # Panics
    /// When a list has 2^16 operands or more, or the rank's pool would pass 2^32.
    pub fn push(&mut self, op: Op, lane: LaneId, operands: Operands<'_>) -> InstrId {
        let id = InstrId::new(self.instrs.len());
        let lists = [operands.reads, operands.writes, operands.frees, operands.waits];
        let start = u32::try_from(self.pool.len()).expect("operand pools are limited to 2^32");
        for list in lists {
            self.pool.extend_from_slice(list);
        }
        let counts =
            lists.map(|list| u16::try_from(list.len()).expect("an instruction has less than 2^16 operands"));
        self.instrs.push(Instr { op, lane, start, counts, overlaps: false });
        id
    }

    /// The lane that an instruction runs on.
    #[must_use]
    pub fn lane(&self, instr: &Instr) -> Lane {
        self.lanes[instr.lane.index()]
    }
}

impl fmt::Display for Site {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stage(stage) => stage.fmt(f),
            Self::Rank(rank) => rank.fmt(f),
        }
    }
}

impl fmt::Display for Lane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Compute => f.write_str("compute"),
            Self::Send(peer) => write!(f, "send-{peer}"),
            Self::Recv(peer) => write!(f, "recv-{peer}"),
            Self::Group(group) => group.fmt(f),
        }
    }
}
