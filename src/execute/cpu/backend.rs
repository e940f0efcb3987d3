//! The passes of one rank on the CPU.

use std::fmt;

use crate::execute::backend::{Backend, Batch, State, Tensor, Views};
use crate::execute::model::{Held, LogitsState, ModelError, Train};
use crate::ir::{Compute, Header, Pass, Rank, Site, Stage};

use super::input;
use super::output;
use super::parameters::Parameters;
use super::shard;
use super::stage::{Backward, StageRun, share};
use super::workspace::Workspace;

/// One rank's parameters and workspace.
#[derive(Clone)]
pub struct CpuBackend {
    held: Held,
    train: Train,
    parameters: Parameters,
    workspace: Workspace,
    steps: u64,
}

impl fmt::Debug for CpuBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CpuBackend")
            .field("held", &self.held)
            .field("steps", &self.steps)
            .finish_non_exhaustive()
    }
}

impl CpuBackend {
    /// Draws the parameters of a rank and allocates its workspace.
    ///
    /// # Errors
    /// The plan's model cannot be run: see [`ModelError`].
    pub fn new(header: &Header, rank: Rank, train: &Train) -> Result<Self, ModelError> {
        let held = Held::of(header, rank)?;
        let mut parameters = Parameters::new(&held, train.seed);
        if header.flows > 1 {
            parameters = parameters.with_packed(&held);
        }
        let workspace = Workspace::new(&held);
        Ok(Self { held, train: *train, parameters, workspace, steps: 0 })
    }

    /// A pass at a stage.
    fn stage_pass(&mut self, compute: Compute, pass: Pass, views: Views<'_>, batch: Batch<'_>) {
        let at = |site: Site| matches!(site, Site::Stage(stage) if self.held.stages.iter().any(|held| held.stage == stage));
        debug_assert!(at(pass.site), "a stage's passes run on the rank that holds it");
        let here = self.held.stages.iter().position(|held| Site::Stage(held.stage) == pass.site);
        let Some(local) = here else { return };
        let Self { held, parameters, workspace, .. } = self;
        let slice = held.cut.slice(pass.microbatch) as usize;
        let mut run = StageRun { held, local, slice, parameters, workspace };
        match compute {
            Compute::StageForward => {
                if let Some(loss) = run.forward(views, batch) {
                    self.workspace.losses[pass.microbatch.index()] = Some(loss);
                }
            }
            Compute::StageBackward => run.backward(Backward::Fused, views, batch),
            Compute::StageInputGrad => run.backward(Backward::InputOnly, views, batch),
            _ => run.weight_grad(views),
        }
    }

    /// Pass S of either algorithm.
    fn output_softmax(&mut self, compute: Compute, views: Views<'_>, batch: Batch<'_>) {
        let sizes = &self.held.sizes;
        let table = self.parameters.tables.output();
        let x = views.x.read.expect("the contract: S reads x");
        let logits = views.logits.expect("the contract: S makes logits");
        let mut kept = LogitsState::cut(sizes, table.rows.len(), logits);
        let Some(stats) = views.stats.write else { return };
        let Workspace { factors, each, .. } = &mut self.workspace;
        shard::softmax(&table, x, batch.targets, &mut kept, stats, each, factors);
        if let Some(dx) = views.dx.write.filter(|_| compute == Compute::OutputSoftmaxGrad) {
            let sums = &stats[sizes.tokens..2 * sizes.tokens];
            shard::unscaled_grad(sizes, &table, kept.exponentials, sums, dx, factors);
        }
    }

    /// Pass T of either algorithm.
    fn output_grad(&mut self, compute: Compute, pass: Pass, views: Views<'_>, batch: Batch<'_>) {
        let (sizes, rank, share) = (&self.held.sizes, self.held.rank.index(), share(&self.held));
        let mut table = self.parameters.tables.output();
        let stats = views.stats.read.expect("the contract: T reads stats");
        let logits = views.logits.expect("the contract: T reads logits");
        let kept = LogitsState::cut(sizes, table.rows.len(), logits);
        let Workspace { factors, each, losses, .. } = &mut self.workspace;
        let loss = shard::logits_grad(&table, rank, stats, batch.targets, share, kept.exponentials, each);
        if let Some(dx) = views.dx.write.filter(|_| compute == Compute::OutputGrad) {
            output::input_grad(&table, kept.exponentials, sizes.tokens, dx, factors);
        }
        output::weight_grad(&mut table, kept.input, sizes.tokens, kept.exponentials, factors);
        losses[pass.microbatch.index()] = Some(loss);
    }

    /// Algorithm 2's step between the gather and the sum.
    fn output_rescale(&mut self, views: Views<'_>, batch: Batch<'_>) {
        let (rank, share) = (self.held.rank.index(), share(&self.held));
        let stats = views.stats.read.expect("the contract: the rescale step reads stats");
        let unscaled = views.dx.read.expect("the contract: the rescale step reads dx");
        if let Some(dx) = views.dx.write {
            let table = self.parameters.tables.output();
            shard::rescale(&table, rank, stats, batch.targets, share, unscaled, dx);
        }
    }
}

impl Backend for CpuBackend {
    fn pass(&mut self, compute: Compute, pass: Pass, views: Views<'_>, batch: Batch<'_>) {
        let width = self.held.sizes.hidden;
        match compute {
            Compute::StageForward
            | Compute::StageBackward
            | Compute::StageInputGrad
            | Compute::StageWeightGrad => self.stage_pass(compute, pass, views, batch),
            Compute::OutputSoftmax | Compute::OutputSoftmaxGrad => self.output_softmax(compute, views, batch),
            Compute::OutputRescale => self.output_rescale(views, batch),
            Compute::OutputGrad | Compute::OutputWeightGrad => self.output_grad(compute, pass, views, batch),
            Compute::OutputLoss => {
                let stats = views.stats.read.expect("the contract: the loss reads stats");
                let loss = shard::loss(stats, batch.targets.len());
                self.workspace.losses[pass.microbatch.index()] = Some(loss);
            }
            Compute::Release => {}
            Compute::InputLookup => {
                if let Some(x) = views.x.write {
                    input::lookup(self.parameters.tables.input(), batch.tokens, width, x);
                }
            }
            Compute::InputScatter => {
                let dx = views.dx.read.expect("the contract: the scatter pass reads dx");
                input::scatter(self.parameters.tables.input(), batch.tokens, width, dx);
            }
        }
    }

    fn tied_gradient(&mut self) -> &mut [f32] {
        self.parameters.tables.tied_gradient()
    }

    fn pack_gradient(&mut self, stage: Stage) -> &mut [f32] {
        self.parameters.pack(&self.held, stage)
    }

    fn packed_gradient(&mut self, stage: Stage) -> &mut [f32] {
        self.parameters.packed(&self.held, stage)
    }

    fn unpack_gradient(&mut self, stage: Stage) {
        self.parameters.unpack(&self.held, stage);
    }

    fn step(&mut self) {
        self.steps += 1;
        self.parameters.step(&self.train, self.steps);
        self.workspace.losses.fill(None);
    }

    fn loss(&self) -> Option<f64> {
        if self.held.last() { self.workspace.mean_loss() } else { None }
    }

    fn losses(&self) -> &[Option<f64>] {
        &self.workspace.losses
    }

    fn tensors(&mut self) -> Vec<Tensor<'_>> {
        self.parameters.tensors()
    }

    fn load(&mut self, name: &str, state: State<'_>) -> bool {
        self.parameters.load(name, state)
    }

    fn steps(&self) -> u64 {
        self.steps
    }

    fn set_steps(&mut self, steps: u64) {
        self.steps = steps;
    }

    fn workspace_bytes(&self) -> u64 {
        self.workspace.bytes() + self.parameters.copied_bytes()
    }

    fn parameter_bytes(&self) -> u64 {
        self.parameters.bytes()
    }
}
