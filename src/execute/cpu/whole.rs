//! The whole model's layers one after the other, for the reference: no stages, no views, no classes.

use crate::execute::backend::{State, Tensor};
use crate::execute::model::{Held, LayerAct, LayerDelta, ModelError, OutputAct, Train};
use crate::ir::Dims;

use super::attention::Before;
use super::input;
use super::output;
use super::parameters::Parameters;
use super::stage::share;
use super::workspace::Workspace;

/// Every parameter, one microbatch's activations, and a workspace.
#[derive(Clone)]
pub(in crate::execute) struct Whole {
    held: Held,
    train: Train,
    parameters: Parameters,
    workspace: Workspace,
    act: Vec<f32>,
    kept: Vec<f32>,
}

impl Whole {
    /// Draws the model; a step's loss is the mean over `microbatches`.
    pub(in crate::execute) fn new(dims: &Dims, train: &Train, microbatches: u32) -> Result<Self, ModelError> {
        let held = Held::whole(dims, microbatches)?;
        let layers = dims.layers as usize * LayerAct::elements(&held.sizes);
        Ok(Self {
            parameters: Parameters::new(&held, train.seed),
            workspace: Workspace::new(&held),
            act: vec![0.0; layers],
            kept: vec![0.0; OutputAct::elements(&held.sizes, false)],
            train: *train,
            held,
        })
    }

    /// Forward and loss of one microbatch.
    pub(in crate::execute) fn forward(&mut self, tokens: &[u32], targets: &[u32]) -> f64 {
        let Self { held, parameters, workspace, act, kept, .. } = self;
        let (sizes, stream) = (&held.sizes, &mut workspace.stream);
        input::lookup(parameters.tables.input(), tokens, sizes.hidden, stream);
        if let Some(positions) = &parameters.positions {
            input::add_positions(positions, sizes.positions(0), stream);
        }
        for (layer, act) in parameters.stages[0].iter().zip(act.chunks_exact_mut(LayerAct::elements(sizes))) {
            layer.forward(sizes, &mut LayerAct::cut(sizes, act), &mut Before::none(), workspace);
        }
        let Workspace { stream, factors, each, .. } = workspace;
        let kept = OutputAct::cut(sizes, false, kept);
        kept.input.copy_from_slice(stream);
        let norm = parameters.norm.as_ref().expect("the whole model has its norm");
        norm.forward(kept.input, kept.normed, kept.stats);
        let table = parameters.tables.output();
        output::forward(&table, kept.normed, targets, share(held), kept.logits, each, factors)
    }

    /// Backward of the microbatch whose forward came last.
    pub(in crate::execute) fn backward(&mut self, tokens: &[u32]) {
        let Self { held, parameters, workspace, act, kept, .. } = self;
        let sizes = &held.sizes;
        let kept = OutputAct::cut(sizes, false, kept);
        let Workspace { gradient, branch, factors, .. } = workspace;
        let mut table = parameters.tables.output();
        output::weight_grad(&mut table, kept.normed, sizes.tokens, kept.logits, factors);
        output::input_grad(&table, kept.logits, sizes.tokens, branch, factors);
        gradient.fill(0.0);
        let norm = parameters.norm.as_mut().expect("the whole model has its norm");
        norm.backward(branch, kept.input, kept.stats, gradient);
        let mut own = std::mem::take(&mut workspace.delta);
        let acts = act.chunks_exact_mut(LayerAct::elements(sizes));
        for (layer, act) in parameters.stages[0].iter_mut().zip(acts).rev() {
            let (act, mut delta) = (LayerAct::cut(sizes, act), LayerDelta::cut(sizes, &mut own));
            layer.input_grad(sizes, &act, &mut Before::none(), &mut delta, workspace);
            layer.weight_grad(&act, &delta, &mut workspace.factors);
        }
        workspace.delta = own;
        if let Some(positions) = &mut parameters.positions {
            input::positions_grad(positions, sizes.positions(0), &workspace.gradient);
        }
        input::scatter(parameters.tables.input(), tokens, sizes.hidden, &workspace.gradient);
    }

    /// Step `t` of the optimizer, counted from 1.
    pub(in crate::execute) fn step(&mut self, t: u64) {
        self.parameters.step(&self.train, t);
    }

    /// Every parameter.
    pub(in crate::execute) fn tensors(&mut self) -> Vec<Tensor<'_>> {
        self.parameters.tensors()
    }

    /// Replaces a parameter; false where a name or a length differs.
    pub(in crate::execute) fn load(&mut self, name: &str, state: State<'_>) -> bool {
        self.parameters.load(name, state)
    }
}
