//! A plan and how it is trained -> the bytes that each rank would take on a device.
//!
//! Parameters, gradients and the optimizer's state stay; beside them lie what passes leave for later ones and the values between them,
//! followed through the rank's list as the plan has it. What a layer keeps for its backward is counted as in Korthikanti et al. 2022
//! (arXiv:2205.05198), equations 1 to 4, for activations of 2 bytes: `nh(34 + 5as/h)`, `34nh` where the inside of attention
//! is computed again, `2nh` where all of it is; with t devices on a rank `10 + 24/t` for 34.

use super::model::{Recompute, Training};
use super::pipeline::Pipeline;
use crate::ir::{
    Buffer, BufferId, ClassId, Compute, Instr, Op, Operands, Pass, Plan, Rank, RankPlan, Site, Stage,
};

/// What a rank takes, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Footprint {
    /// Parameters, as passes read them.
    pub parameters: u64,
    /// Their gradients.
    pub gradients: u64,
    /// The optimizer's state, with its copy of the parameters.
    pub optimizer: u64,
    /// Activations, logits, values on their way, and the workspace of the pass that runs, at their peak.
    pub live: u64,
}

/// Bytes of a logit while its pass runs: its product, and its gradient.
const WORKSPACE: u64 = 8;
/// Bytes of a logit that is kept from its forward to its backward.
const LOGIT: u64 = 4;
/// Gradients that a layer keeps from its input's gradient to its weights', in units of `nh`: of its output, of the MLP's width of 4, of the
/// residual stream, of queries, keys and values.
const DELTA: u64 = 9;

impl Footprint {
    /// All of it.
    #[must_use]
    pub fn total(&self) -> u64 {
        [self.gradients, self.optimizer, self.live]
            .iter()
            .fold(self.parameters, |sum, &part| sum.saturating_add(part))
    }

    /// What each rank of a plan takes, by [`Rank`].
    #[must_use]
    pub fn of(plan: &Plan, training: &Training) -> Vec<Self> {
        let sizes = Weights::of(plan, training);
        let ranks = Rank::all(plan.ranks.len()).zip(&plan.ranks);
        ranks.map(|(rank, plan)| sizes.rank(rank, plan)).collect()
    }
}

/// What the buffers of a plan would take on a device.
pub struct Weights<'a> {
    plan: &'a Plan,
    training: Training,
    pipeline: Pipeline<'a>,
    /// Tokens that a pass works on.
    tokens: u64,
    /// Bytes of an activation `[tokens, hidden]`.
    wide: u64,
}

impl<'a> Weights<'a> {
    /// What a plan's buffers take where it is trained so.
    #[must_use]
    pub fn of(plan: &'a Plan, training: &Training) -> Self {
        let pipeline = Pipeline::of_plan(&plan.header);
        let tokens = plan.header.model.tokens() / u64::from(pipeline.slices);
        let training = training.of(&plan.header.model);
        let wide = [u64::from(plan.header.model.hidden), training.precision.bytes()];
        let wide = wide.into_iter().fold(tokens, u64::saturating_mul);
        Self { plan, training, pipeline, tokens, wide }
    }

    /// What a buffer takes that an instruction writes.
    #[must_use]
    pub fn written(&self, instr: &Instr, buffer: &Buffer) -> u64 {
        match instr.op {
            Op::Pass(pass) => self.buffer(buffer.class, pass),
            _ => buffer.elements().saturating_mul(self.training.bytes_per_word(self.pipeline.model)),
        }
    }

    /// What an instruction takes beside its buffers while it runs.
    #[must_use]
    pub fn workspace(&self, instr: &Instr) -> u64 {
        match instr.op {
            Op::Pass(pass) => self.logits(self.rows(pass), WORKSPACE),
            _ => 0,
        }
    }

    fn shared(&self, bytes: u64) -> u64 {
        bytes / u64::from(self.training.tensor_parallel)
    }

    /// What a layer keeps for its backward.
    fn layer(&self) -> u64 {
        let model = self.pipeline.model;
        let b = self.training.precision.bytes();
        let unit = self.tokens.saturating_mul(model.hidden.into());
        let kept = unit.saturating_mul(4 * b + 2).saturating_add(self.shared(unit.saturating_mul(12 * b)));
        let scores = [u64::from(model.heads), u64::from(model.sequence), 2 * b + 1];
        let scores = scores.into_iter().fold(self.tokens, u64::saturating_mul);
        match self.training.recompute {
            Recompute::None => kept.saturating_add(self.shared(scores)),
            Recompute::Selective => kept,
            Recompute::Full => unit.saturating_mul(b),
        }
    }

    /// The logits of so many rows of the vocabulary.
    fn logits(&self, rows: u64, each: u64) -> u64 {
        self.shared([rows, each].into_iter().fold(self.tokens, u64::saturating_mul))
    }

    /// Rows of the vocabulary that a pass works on.
    fn rows(&self, pass: Pass) -> u64 {
        let catalog = &self.plan.header.catalog;
        let vocab = u64::from(self.pipeline.model.vocab);
        match (catalog.kind(pass.kind).computes, pass.site) {
            (
                Some(
                    Compute::OutputSoftmax
                    | Compute::OutputSoftmaxGrad
                    | Compute::OutputGrad
                    | Compute::OutputWeightGrad,
                ),
                _,
            ) => self.pipeline.model.shard(self.pipeline.ranks),
            (
                Some(Compute::StageForward | Compute::StageBackward | Compute::StageInputGrad),
                Site::Stage(stage),
            ) if self.pipeline.last(stage) && !catalog.shards_output() => vocab,
            _ => 0,
        }
    }

    /// A buffer of a class that a pass makes or gives.
    fn buffer(&self, class: ClassId, pass: Pass) -> u64 {
        let catalog = &self.plan.header.catalog;
        let kind = catalog.kind(pass.kind);
        if kind.makes.contains(&class) {
            let layers = match pass.site {
                Site::Stage(stage) => self.pipeline.layers(stage) as u64,
                Site::Rank(_) => 0,
            };
            let logits = self.logits(self.rows(pass), LOGIT);
            match kind.computes {
                Some(Compute::StageForward) => {
                    return self.layer().saturating_mul(layers).saturating_add(logits);
                }
                Some(Compute::StageInputGrad) => {
                    return self.shared(self.wide.saturating_mul(DELTA * layers));
                }
                Some(Compute::OutputSoftmax | Compute::OutputSoftmaxGrad) => {
                    return self.wide.saturating_add(logits);
                }
                _ => {}
            }
        }
        let class = catalog.class(class);
        let shape = match pass.site {
            Site::Stage(stage) => class.at_stage.get(stage.index()).unwrap_or(&class.at_rank),
            Site::Rank(_) => &class.at_rank,
        };
        shape.iter().fold(self.training.bytes_per_word(self.pipeline.model), |product, &side| {
            product.saturating_mul(side)
        })
    }

    fn rank(&self, rank: Rank, plan: &RankPlan) -> Footprint {
        let [own, gradient, optimizer] = self.training.bytes_per_parameter();
        let parameters = self.shared(self.parameters(rank));
        Footprint {
            parameters: parameters.saturating_mul(own),
            gradients: parameters.saturating_mul(gradient),
            optimizer: parameters.saturating_mul(optimizer),
            live: self.live(plan),
        }
    }

    /// The parameters on a rank: its layers, and its share of the vocabulary layers.
    fn parameters(&self, rank: Rank) -> u64 {
        let (header, model) = (&self.plan.header, self.pipeline.model);
        let catalog = &header.catalog;
        let sharded = [catalog.shards_input(), catalog.shards_output()];
        let mut places: Vec<Stage> = Stage::all(header.stages.len())
            .filter(|stage| header.stages[stage.index()] == rank)
            .map(|stage| self.pipeline.place(stage))
            .collect();
        places.sort_unstable();
        places.dedup();
        let of = |place: &Stage| {
            let layers = self.pipeline.layers(*place);
            model.stage_parameters(layers, *place, self.pipeline.depth(), sharded)
        };
        let stages = places.iter().map(of).fold(0_u64, u64::saturating_add);
        let row = u64::from(model.hidden);
        let shard = row.saturating_mul(model.shard(self.pipeline.ranks));
        let count = |there: bool| if there { shard } else { 0 };
        if !model.tied {
            return stages.saturating_add(count(sharded[0])).saturating_add(count(sharded[1]));
        }
        // One table, where it is not sharded a copy at either end.
        let ends = places.iter().any(|place| place.0 == 0 || place.0 + 1 == self.pipeline.depth());
        let table = if sharded[0] { shard } else { row.saturating_mul(u64::from(model.vocab)) };
        stages.saturating_add(if sharded[0] || ends { table } else { 0 })
    }

    /// What a backward lets go of the forward's state before its weight gradient runs: the logits, of which both gradients are computed in it.
    fn let_go(&self, op: Op, operands: Operands<'_>, plan: &RankPlan, held: &mut [u64]) -> u64 {
        let catalog = &self.plan.header.catalog;
        let Op::Pass(pass) = op else { return 0 };
        if catalog.kind(pass.kind).computes != Some(Compute::StageInputGrad) {
            return 0;
        }
        let forward = catalog.kinds.iter().find(|kind| kind.computes == Some(Compute::StageForward));
        let state =
            |id: &BufferId| forward.is_some_and(|kind| kind.makes.contains(&plan.buffers[id.index()].class));
        let Some(id) = operands.reads().find(state) else { return 0 };
        let gone = self.logits(self.rows(pass), LOGIT).min(held[id.index()]);
        held[id.index()] -= gone;
        gone
    }

    /// The most that lies in buffers at once, with the workspace of the pass that runs.
    fn live(&self, plan: &RankPlan) -> u64 {
        let mut held = vec![0_u64; plan.buffers.len()];
        let (mut live, mut most) = (0_u64, 0);
        for instr in &plan.instrs {
            let operands = plan.operands(instr);
            for id in operands.writes() {
                let buffer = &plan.buffers[id.index()];
                if !matches!(buffer.place, crate::ir::Place::Arena(_)) {
                    continue;
                }
                let bytes = self.written(instr, buffer);
                live = live.saturating_sub(std::mem::replace(&mut held[id.index()], bytes));
                live = live.saturating_add(bytes);
            }
            most = most.max(live.saturating_add(self.workspace(instr)));
            live -= self.let_go(instr.op, operands, plan, &mut held);
            for id in operands.frees() {
                live = live.saturating_sub(std::mem::take(&mut held[id.index()]));
            }
        }
        most
    }
}
