//! What the passes of a schedule are: their sites, what they need, make, free, give and compute; the collectives between them.
//!
//! This is the meaning that a [`crate::ir::Schedule`] is ordered under and that a [`crate::ir::Plan`] carries along, so that it can be
//! checked by someone who has never seen the `.sched` source.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{ClassId, CollectiveId, KindId, Port, Span};

/// All declarations in force: the base schedule's, then each transform's, in the order of application.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Catalog {
    /// Buffer classes, by [`ClassId`].
    pub classes: Vec<Class>,
    /// Kinds of pass, by [`KindId`].
    pub kinds: Vec<Kind>,
    /// Collectives, by [`CollectiveId`].
    pub collectives: Vec<Collective>,
}

/// A class of buffer and the shape that it has for each site; in words of four bytes, each an f32 or two bf16 (see [`super::Precision`]).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Class {
    /// As declared: `act`, `logits`, `x`.
    pub name: String,
    /// Shape at each stage, by `Stage`: used by passes at a stage.
    pub at_stage: Vec<Vec<u64>>,
    /// Shape at every rank: used by passes at every rank.
    pub at_rank: Vec<u64>,
    /// The declaration; `None` in a plan that came from a file.
    #[serde(skip)]
    pub span: Option<Span>,
}

/// Where a kind of pass runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum At {
    /// Once for each stage and microbatch, on the rank that holds the stage.
    Stage,
    /// Once for each rank and microbatch.
    EveryRank,
}

/// Which queue of its rank a pass runs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Queue {
    /// The compute lane, in the rank's order.
    Compute,
    /// The compute lane, at the same moment on all ranks: its collectives block that lane too.
    Lockstep,
    /// The lane of the group of all ranks, as soon as its needs are met: a step of a barrier, never in a rank's order.
    Group,
}

/// One kind of pass.
///
/// A pass reads the value of every need that carries one, and every buffer of the classes that it frees or that a pass
/// it needs `Here` without a value made and that is still live; after them, need by need and slice by slice, those that a pass it needs
/// `Earlier` made for each earlier slice of its microbatch and that are still live. Then it writes one buffer for each port of `gives` that anyone reads,
/// and one for each class of `makes`. A class that is made at a site is freed at the same site and microbatch (and slice). A class that
/// a pass both makes and frees is its scratch: it reads none and leaves none.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Kind {
    /// As declared: `F`, `B`, `S`.
    pub name: String,
    /// Where it runs.
    pub at: At,
    /// Which queue it runs on.
    pub queue: Queue,
    /// What an interpreter runs; without it a plan can be checked and drawn but not run.
    pub computes: Option<Compute>,
    /// What must have happened before, in declaration order.
    pub needs: Vec<Need>,
    /// The values that it gives to passes elsewhere, by [`Port`].
    pub gives: Vec<ClassId>,
    /// State that it leaves for later passes of its site.
    pub makes: Vec<ClassId>,
    /// State that it is the last to read.
    pub frees: Vec<ClassId>,
    /// The declaration; `None` in a plan that came from a file.
    #[serde(skip)]
    pub span: Option<Span>,
}

/// At which sites of a kind a need applies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Where {
    /// At every site.
    All,
    /// At the first stage only.
    First,
    /// At the last stage only.
    Last,
}

/// One thing that a pass waits for, of the same microbatch (and slice, but for `Earlier` and `Later`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Need {
    /// At which sites of the needing kind.
    pub on: Where,
    /// What it waits for.
    pub from: Source,
    /// The words in the source; `None` in a plan that came from a file.
    #[serde(skip)]
    pub span: Option<Span>,
}

/// What a need waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// Another pass. Where the relation leads off the pipeline's end the need does not apply.
    Pass {
        /// Its kind.
        kind: KindId,
        /// Its site, seen from the needing pass.
        at: Relation,
        /// The value that is read; `None`: only the order matters (state travels in classes).
        port: Option<Port>,
    },
    /// The result of a collective.
    Collective(CollectiveId),
}

/// The site of a needed pass, seen from the pass that needs it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Relation {
    /// The same stage, or the same rank.
    Here,
    /// The stage before, in pipeline order.
    Prev,
    /// The stage after, in pipeline order.
    Next,
    /// The first stage.
    First,
    /// The last stage.
    Last,
    /// The same stage, the slice before; what all earlier slices left there is read. Does not apply to a first slice.
    Earlier,
    /// The same stage, the slice after: only the order matters. Does not apply to a last slice.
    Later,
}

/// A collective over all ranks, once for each microbatch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Collective {
    /// As errors and dumps name it: `C1.stats`, `broadcast F(last)`.
    pub name: String,
    /// What is done with the contributions. `Reduce` where one site reads the sum, `AllReduce` where every rank does.
    pub op: CollectiveOp,
    /// The kind whose value is collected.
    pub kind: KindId,
    /// The value of that kind.
    pub port: Port,
    /// Who contributes: `All` the ranks, or the one that holds the `First` or `Last` stage (a broadcast).
    pub source: Where,
    /// Who reads the result: `All` the ranks, or the one that holds the `First` or `Last` stage.
    pub reader: Where,
    /// The part of the same barrier that comes before this one.
    pub after: Option<CollectiveId>,
    /// Whether it blocks the compute lane.
    pub lockstep: bool,
    /// The declaration; `None` in a plan that came from a file.
    #[serde(skip)]
    pub span: Option<Span>,
}

/// What a collective does. Sums are taken in rank order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum CollectiveOp {
    /// The root's value, on every rank. The root reads its own copy where it lies.
    Broadcast,
    /// The sum, on the root.
    Reduce,
    /// The sum, on every rank.
    AllReduce,
    /// The values of all ranks side by side in rank order, on every rank.
    AllGather,
    /// The sum, a slice of it on each rank.
    ReduceScatter,
}

impl CollectiveOp {
    /// Every operation with the word for it.
    pub const WORDS: [(Self, &'static str); 5] = [
        (Self::Broadcast, "broadcast"),
        (Self::Reduce, "reduce"),
        (Self::AllReduce, "all_reduce"),
        (Self::AllGather, "all_gather"),
        (Self::ReduceScatter, "reduce_scatter"),
    ];

    /// The word for this operation.
    #[must_use]
    pub fn word(self) -> &'static str {
        Self::WORDS[self as usize].1
    }
}

impl fmt::Display for CollectiveOp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// What the interpreter runs for a pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Compute {
    /// The stage's layers forward; on the end stages also the vocabulary layers that no transform took away.
    StageForward,
    /// The stage's layers backward: input and weight gradients at once.
    StageBackward,
    /// The input gradient only; what the weight gradient needs is kept in `delta`.
    StageInputGrad,
    /// The weight gradient only.
    StageWeightGrad,
    /// Vocabulary layers, algorithm 1, pass S: local softmax of the shard's logits.
    OutputSoftmax,
    /// Algorithm 2, pass S: as above, and the shard's unscaled input gradient.
    OutputSoftmaxGrad,
    /// Algorithm 2, between the gather and the reduce: the shard's input gradient under the global statistics.
    OutputRescale,
    /// Algorithm 1, pass T: weight gradient and the shard's input gradient.
    OutputGrad,
    /// Algorithm 2, pass T: weight gradient.
    OutputWeightGrad,
    /// The loss by the gathered statistics, and nothing else: what is left of T where no gradient is wanted.
    OutputLoss,
    /// Rows of the input shard for the tokens that it owns, 0 elsewhere.
    InputLookup,
    /// Scatter-add of the first stage's input gradient into the shard.
    InputScatter,
    /// Nothing: the pass is there for the state that it frees.
    Release,
}

impl Compute {
    /// Every computation with the word that declares it.
    pub const WORDS: [(Self, &'static str); 13] = [
        (Self::StageForward, "stage_forward"),
        (Self::StageBackward, "stage_backward"),
        (Self::StageInputGrad, "stage_input_grad"),
        (Self::StageWeightGrad, "stage_weight_grad"),
        (Self::OutputSoftmax, "output_softmax"),
        (Self::OutputSoftmaxGrad, "output_softmax_grad"),
        (Self::OutputRescale, "output_rescale"),
        (Self::OutputGrad, "output_grad"),
        (Self::OutputWeightGrad, "output_weight_grad"),
        (Self::OutputLoss, "output_loss"),
        (Self::InputLookup, "input_lookup"),
        (Self::InputScatter, "input_scatter"),
        (Self::Release, "release"),
    ];

    /// The word that declares it.
    #[must_use]
    pub fn word(self) -> &'static str {
        Self::WORDS[self as usize].1
    }

    /// Whether it computes nothing but what the loss needs; no gradient.
    #[must_use]
    pub fn is_forward(self) -> bool {
        matches!(
            self,
            Self::StageForward
                | Self::OutputSoftmax
                | Self::OutputSoftmaxGrad
                | Self::OutputLoss
                | Self::InputLookup
                | Self::Release
        )
    }

    /// Whether it means that the output layer is sharded over all ranks.
    #[must_use]
    pub fn shards_output(self) -> bool {
        matches!(self, Self::OutputSoftmax | Self::OutputSoftmaxGrad)
    }

    /// Whether it means that the input layer is sharded over all ranks.
    #[must_use]
    pub fn shards_input(self) -> bool {
        matches!(self, Self::InputLookup)
    }
}

impl fmt::Display for Compute {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

impl Catalog {
    /// The kind of an id.
    #[must_use]
    pub fn kind(&self, id: KindId) -> &Kind {
        &self.kinds[id.index()]
    }

    /// The class of an id.
    #[must_use]
    pub fn class(&self, id: ClassId) -> &Class {
        &self.classes[id.index()]
    }

    /// The collective of an id.
    #[must_use]
    pub fn collective(&self, id: CollectiveId) -> &Collective {
        &self.collectives[id.index()]
    }

    /// The kind with a name.
    #[must_use]
    pub fn kind_named(&self, name: &str) -> Option<KindId> {
        self.kinds.iter().position(|kind| kind.name == name).map(KindId::new)
    }

    /// Whether the output layer is sharded over all ranks.
    #[must_use]
    pub fn shards_output(&self) -> bool {
        self.kinds.iter().any(|kind| kind.computes.is_some_and(Compute::shards_output))
    }

    /// Whether the input layer is sharded over all ranks.
    #[must_use]
    pub fn shards_input(&self) -> bool {
        self.kinds.iter().any(|kind| kind.computes.is_some_and(Compute::shards_input))
    }
}
