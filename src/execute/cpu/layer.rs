//! One transformer layer: forward, input gradient, weight gradient.

use crate::execute::model::{LayerAct, LayerDelta, Sizes, Spec};
use crate::ir::Dims;

use super::attention::{self, Before};
use super::gelu;
use super::linear::Linear;
use super::norm::Norm;
use super::param::Param;
use super::workspace::{Factors, Workspace};

/// A pre-norm layer: x += attention(norm1 x); x += mlp(norm2 x).
#[derive(Clone)]
pub(super) struct Layer {
    norm1: Norm,
    qkv: Linear,
    out: Linear,
    norm2: Norm,
    up: Linear,
    down: Linear,
}

impl Layer {
    /// Draws layer `index` of the model.
    pub(super) fn new(dims: &Dims, index: u32, seed: u64) -> Self {
        let [norm1, qkv, out, norm2, up, down] = Spec::layer(dims, index);
        Self {
            norm1: Norm::new(norm1, seed),
            qkv: Linear::new(qkv, seed),
            out: Linear::new(out, seed),
            norm2: Norm::new(norm2, seed),
            up: Linear::new(up, seed),
            down: Linear::new(down, seed),
        }
    }

    /// Its parameters, in the order of the forward pass.
    pub(super) fn params(&self) -> [&Param; 12] {
        let Self { norm1, qkv, out, norm2, up, down } = self;
        [
            &norm1.weight,
            &norm1.bias,
            &qkv.weight,
            &qkv.bias,
            &out.weight,
            &out.bias,
            &norm2.weight,
            &norm2.bias,
            &up.weight,
            &up.bias,
            &down.weight,
            &down.bias,
        ]
    }

    /// Its parameters, in the order of the forward pass.
    pub(super) fn params_mut(&mut self) -> [&mut Param; 12] {
        let Self { norm1, qkv, out, norm2, up, down } = self;
        [
            &mut norm1.weight,
            &mut norm1.bias,
            &mut qkv.weight,
            &mut qkv.bias,
            &mut out.weight,
            &mut out.bias,
            &mut norm2.weight,
            &mut norm2.bias,
            &mut up.weight,
            &mut up.bias,
            &mut down.weight,
            &mut down.bias,
        ]
    }

    /// Takes the residual stream, `workspace.stream`, through the layer.
    pub(super) fn forward(
        &self,
        sizes: &Sizes,
        act: &mut LayerAct<'_>,
        before: &mut Before<'_, '_>,
        workspace: &mut Workspace,
    ) {
        let Workspace { stream, factors, .. } = workspace;
        act.input.copy_from_slice(stream);
        self.norm1.forward(act.input, act.norm1, act.stats1);
        self.qkv.forward(act.norm1, act.qkv);
        attention::forward(sizes, act.qkv, before, act.probabilities, act.attended, factors);
        act.owed.fill(0.0);
        self.out.forward_onto(act.attended, stream);
        act.middle.copy_from_slice(stream);
        self.norm2.forward(act.middle, act.norm2, act.stats2);
        self.up.forward(act.norm2, act.up);
        gelu::forward(act.up, act.gelu);
        self.down.forward_onto(act.gelu, stream);
    }

    /// Takes the residual stream's gradient, `workspace.gradient`, back through the layer, keeps what the weight gradients need in
    /// `delta`, adds to what earlier slices are owed, and accumulates the norms' own gradients.
    pub(super) fn input_grad(
        &mut self,
        sizes: &Sizes,
        act: &LayerAct<'_>,
        before: &mut Before<'_, '_>,
        delta: &mut LayerDelta<'_>,
        workspace: &mut Workspace,
    ) {
        let Workspace { gradient, branch, scores, factors, .. } = workspace;
        delta.output.copy_from_slice(gradient);
        self.down.input_grad(delta.output, delta.up);
        gelu::backward(delta.up, act.up);
        self.up.input_grad(delta.up, branch);
        self.norm2.backward(branch, act.middle, act.stats2, gradient);
        delta.middle.copy_from_slice(gradient);
        self.out.input_grad(delta.middle, branch);
        attention::backward(sizes, act, before, branch, delta.qkv, scores, factors);
        self.qkv.input_grad(delta.qkv, branch);
        self.norm1.backward(branch, act.input, act.stats1, gradient);
    }

    /// Accumulates the gradients of the four linear layers.
    pub(super) fn weight_grad(&mut self, act: &LayerAct<'_>, delta: &LayerDelta<'_>, factors: &mut Factors) {
        self.down.weight_grad(act.gelu, delta.output, factors);
        self.up.weight_grad(act.norm2, delta.up, factors);
        self.out.weight_grad(act.attended, delta.middle, factors);
        self.qkv.weight_grad(act.norm1, delta.qkv, factors);
    }
}
