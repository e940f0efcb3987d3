//! What passes use beside the plan's buffers, allocated once.

use crate::execute::model::{Held, LayerDelta};

/// Scratch of one pass, and the losses of a step.
#[derive(Clone)]
pub(super) struct Workspace {
    /// The residual stream, `[tokens, hidden]`.
    pub(super) stream: Vec<f32>,
    /// Its gradient, `[tokens, hidden]`.
    pub(super) gradient: Vec<f32>,
    /// The gradient of a branch that leaves it, `[tokens, hidden]`.
    pub(super) branch: Vec<f32>,
    /// Attention scores of one head, `[sequence, keys]`.
    pub(super) scores: Vec<f32>,
    /// Operands of products, turned: the columns of `[tokens, 4 * hidden]`, or one head's square of a slice and strip.
    pub(super) turned: Vec<f32>,
    /// What a softmax knows of each token, `[4, tokens]`.
    pub(super) each: Vec<f32>,
    /// One layer's `delta`, where both gradients are computed at once.
    pub(super) delta: Vec<f32>,
    /// The mean loss of each microbatch of the step, or slice of one, once it is known.
    pub(super) losses: Vec<Option<f64>>,
}

impl Workspace {
    /// Allocates what the passes of a rank need.
    pub(super) fn new(held: &Held) -> Self {
        let sizes = &held.sizes;
        let wide = vec![0.0; sizes.tokens * sizes.hidden];
        let delta = if held.fused_backward { LayerDelta::elements(sizes) } else { 0 };
        let square_and_strip = sizes.sequence * (sizes.sequence + sizes.head());
        let turned = square_and_strip.max(4 * sizes.tokens * sizes.hidden);
        Self {
            stream: wide.clone(),
            gradient: wide.clone(),
            branch: wide,
            scores: vec![0.0; sizes.sequence * sizes.keys],
            turned: vec![0.0; turned],
            each: vec![0.0; 4 * sizes.tokens],
            delta: vec![0.0; delta],
            losses: vec![None; held.cut.units() as usize],
        }
    }

    /// Its size.
    pub(super) fn bytes(&self) -> u64 {
        let floats =
            [&self.stream, &self.gradient, &self.branch, &self.scores, &self.turned, &self.each, &self.delta];
        let floats: usize = floats.iter().map(|part| size_of_val(&part[..])).sum();
        (floats + size_of_val(&self.losses[..])) as u64
    }

    /// The mean of the losses that are known, summed in the order of microbatches whatever the order of passes was.
    pub(super) fn mean_loss(&self) -> Option<f64> {
        let known = self.losses.iter().flatten().count();
        let total: f64 = self.losses.iter().flatten().sum();
        (known > 0).then(|| total / known as f64)
    }
}
