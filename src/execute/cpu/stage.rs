//! The passes of a stage: its layers, and on the end stages the vocabulary layers that no transform took away.

use crate::execute::backend::{Batch, Views};
use crate::execute::model::{Held, HeldStage, LayerAct, LayerDelta, OutputAct};

use super::attention::Before;
use super::input;
use super::output;
use super::parameters::Parameters;
use super::workspace::Workspace;

/// A stage of a rank, as its passes see it.
pub(super) struct StageRun<'a> {
    /// What the rank holds.
    pub(super) held: &'a Held,
    /// Which of the rank's stages.
    pub(super) local: usize,
    /// Which slice of its microbatch.
    pub(super) slice: usize,
    /// The rank's parameters.
    pub(super) parameters: &'a mut Parameters,
    /// Scratch.
    pub(super) workspace: &'a mut Workspace,
}

/// Whether a backward pass computes the weight gradient, too.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Backward {
    /// Both gradients at once.
    Fused,
    /// The input gradient; `delta` is kept for the other.
    InputOnly,
}

impl StageRun<'_> {
    /// The stage.
    fn stage(&self) -> &HeldStage {
        &self.held.stages[self.local]
    }

    /// What one token weighs in the mean loss of a step.
    fn share(&self) -> f32 {
        share(self.held)
    }

    /// The stage's layers forward. On the last stage with its own output layer, returns the microbatch's mean loss.
    pub(super) fn forward(&mut self, mut views: Views<'_>, batch: Batch<'_>) -> Option<f64> {
        let share = self.share();
        let stage = self.stage().clone();
        let Self { held, local, slice, parameters, workspace } = self;
        let (sizes, stream) = (&held.sizes, &mut workspace.stream);
        if let Some(x) = views.x.read {
            stream.copy_from_slice(x);
        } else {
            input::lookup(parameters.tables.input(), batch.tokens, sizes.hidden, stream);
        }
        if let Some(positions) = parameters.positions.as_ref().filter(|_| stage.first) {
            input::add_positions(positions, sizes.positions(*slice), stream);
        }
        let act = views.act.unwrap_or_default();
        let (layers, rest) = act.split_at_mut(
            parameters.stages[held.stages[*local].parameters].len() * LayerAct::elements(sizes),
        );
        let layers = layers.chunks_exact_mut(LayerAct::elements(sizes));
        let earlier = views.earlier.slices();
        let layers_of = &parameters.stages[held.stages[*local].parameters];
        for ((index, layer), act) in layers_of.iter().enumerate().zip(layers) {
            let before = &mut Before::new(earlier, index);
            layer.forward(sizes, &mut LayerAct::cut(sizes, act), before, workspace);
        }
        let Workspace { stream, factors, each, .. } = &mut **workspace;
        let mut loss = None;
        if let Some(norm) = parameters.norm.as_ref().filter(|_| stage.last) {
            let kept = OutputAct::cut(sizes, held.sharded_output, rest);
            kept.input.copy_from_slice(stream);
            if held.sharded_output {
                norm.forward(kept.input, stream, kept.stats);
            } else {
                norm.forward(kept.input, kept.normed, kept.stats);
                let table = parameters.tables.output();
                let loss_of = output::forward;
                loss = Some(loss_of(&table, kept.normed, batch.targets, share, kept.logits, each, factors));
            }
        }
        if let Some(x) = views.x.write {
            x.copy_from_slice(stream);
        }
        loss
    }

    /// The stage's layers backward.
    pub(super) fn backward(&mut self, which: Backward, mut views: Views<'_>, batch: Batch<'_>) {
        let stage = self.stage().clone();
        let Self { held, local, parameters, workspace, .. } = self;
        let sizes = &held.sizes;
        if let Some(dx) = views.dx.read {
            workspace.gradient.copy_from_slice(dx);
        }
        let layers = &mut parameters.stages[held.stages[*local].parameters];
        let act = views.act.unwrap_or_default();
        let (acts, rest) = act.split_at_mut(layers.len() * LayerAct::elements(sizes));
        if let Some(norm) = parameters.norm.as_mut().filter(|_| stage.last) {
            let kept = OutputAct::cut(sizes, held.sharded_output, rest);
            let Workspace { gradient, branch, factors, .. } = &mut **workspace;
            if held.sharded_output {
                branch.copy_from_slice(gradient);
            } else {
                output::input_grad(&parameters.tables.output(), kept.logits, sizes.tokens, branch, factors);
            }
            gradient.fill(0.0);
            norm.backward(branch, kept.input, kept.stats, gradient);
            if which == Backward::Fused && !held.sharded_output {
                let mut table = parameters.tables.output();
                output::weight_grad(&mut table, kept.normed, sizes.tokens, kept.logits, factors);
            }
        }
        let delta = views.delta.unwrap_or_default();
        let acts = acts.chunks_exact_mut(LayerAct::elements(sizes));
        let earlier = views.earlier.slices();
        for ((index, layer), act) in layers.iter_mut().enumerate().zip(acts).rev() {
            let act = LayerAct::cut(sizes, act);
            let before = &mut Before::new(earlier, index);
            if which == Backward::InputOnly {
                let length = LayerDelta::elements(sizes);
                let mut delta = LayerDelta::cut(sizes, &mut delta[index * length..(index + 1) * length]);
                layer.input_grad(sizes, &act, before, &mut delta, workspace);
            } else {
                let mut own = std::mem::take(&mut workspace.delta);
                let mut delta = LayerDelta::cut(sizes, &mut own);
                layer.input_grad(sizes, &act, before, &mut delta, workspace);
                layer.weight_grad(&act, &delta, &mut workspace.factors);
                workspace.delta = own;
            }
        }
        if stage.first {
            self.input_layer_grad(batch);
        }
        if let Some(dx) = views.dx.write {
            dx.copy_from_slice(&self.workspace.gradient);
        }
    }

    /// The gradients of positions and, where it is whole, of the input table.
    fn input_layer_grad(&mut self, batch: Batch<'_>) {
        let gradient = &self.workspace.gradient;
        if let Some(positions) = &mut self.parameters.positions {
            input::positions_grad(positions, self.held.sizes.positions(self.slice), gradient);
        }
        if !self.held.sharded_input {
            let width = self.held.sizes.hidden;
            input::scatter(self.parameters.tables.input(), batch.tokens, width, gradient);
        }
    }

    /// The weight gradients that [`Backward::InputOnly`] left.
    pub(super) fn weight_grad(&mut self, views: Views<'_>) {
        let last = self.stage().last;
        let Self { held, local, parameters, workspace, .. } = self;
        let sizes = &held.sizes;
        let layers = &mut parameters.stages[held.stages[*local].parameters];
        let act = views.act.unwrap_or_default();
        let (acts, rest) = act.split_at_mut(layers.len() * LayerAct::elements(sizes));
        if last && !held.sharded_output {
            let kept = OutputAct::cut(sizes, held.sharded_output, rest);
            let (mut table, factors) = (parameters.tables.output(), &mut workspace.factors);
            output::weight_grad(&mut table, kept.normed, sizes.tokens, kept.logits, factors);
        }
        let acts = acts.chunks_exact_mut(LayerAct::elements(sizes));
        let deltas = views.delta.unwrap_or_default().chunks_exact_mut(LayerDelta::elements(sizes));
        for (layer, (act, delta)) in layers.iter_mut().zip(acts.zip(deltas)).rev() {
            layer.weight_grad(
                &LayerAct::cut(sizes, act),
                &LayerDelta::cut(sizes, delta),
                &mut workspace.factors,
            );
        }
    }
}

/// What one token weighs in the mean loss of a step: gradients are those of the mean over all microbatches from the start.
pub(super) fn share(held: &Held) -> f32 {
    1.0 / (held.sizes.tokens as f32 * held.cut.units().max(1) as f32)
}
