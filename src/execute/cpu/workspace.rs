//! What passes use beside the plan's buffers, allocated once.

use crate::execute::model::{Held, LayerDelta, Sizes};

use super::panels::{Panels, lines};
use super::product::TILES;

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
    /// Operands of products.
    pub(super) factors: Factors,
    /// What a softmax knows of each token, `[4, tokens]`.
    pub(super) each: Vec<f32>,
    /// One layer's `delta`, where both gradients are computed at once.
    pub(super) delta: Vec<f32>,
    /// The mean loss of each microbatch of the step, or slice of one, once it is known.
    pub(super) losses: Vec<Option<f64>>,
}

/// Operands of products in the forms that those need.
#[derive(Clone)]
pub(super) struct Factors {
    /// A block of a left factor that lies turned.
    pub(super) tiles: Vec<f32>,
    /// Right factors, packed: activations of `[tokens, 4 * hidden]`.
    pub(super) packed: Panels,
    /// Right factors of one head, packed: queries, keys, values and the gradient of its output.
    pub(super) strips: [Panels; 4],
}

impl Factors {
    /// Allocates what the largest products need.
    pub(super) fn new(sizes: &Sizes) -> Self {
        let Sizes { tokens, sequence, hidden, .. } = *sizes;
        let packed = lines(tokens, 4 * hidden).max(lines(hidden, tokens));
        let strip = lines(sequence, sizes.head()).max(lines(sizes.head(), sequence));
        Self {
            tiles: vec![0.0; TILES],
            packed: Panels::new(packed),
            strips: std::array::from_fn(|_| Panels::new(strip)),
        }
    }

    /// Its size.
    fn bytes(&self) -> u64 {
        let panels = self.strips.iter().chain([&self.packed]);
        size_of_val(&self.tiles[..]) as u64 + panels.map(Panels::bytes).sum::<u64>()
    }
}

impl Workspace {
    /// Allocates what the passes of a rank need.
    pub(super) fn new(held: &Held) -> Self {
        let sizes = &held.sizes;
        let wide = vec![0.0; sizes.tokens * sizes.hidden];
        let delta = if held.fused_backward { LayerDelta::elements(sizes) } else { 0 };
        Self {
            stream: wide.clone(),
            gradient: wide.clone(),
            branch: wide,
            scores: vec![0.0; sizes.sequence * sizes.keys],
            factors: Factors::new(sizes),
            each: vec![0.0; 4 * sizes.tokens],
            delta: vec![0.0; delta],
            losses: vec![None; held.cut.units() as usize],
        }
    }

    /// Its size.
    pub(super) fn bytes(&self) -> u64 {
        let floats = [&self.stream, &self.gradient, &self.branch, &self.scores, &self.each, &self.delta];
        let floats: usize = floats.iter().map(|part| size_of_val(&part[..])).sum();
        (floats + size_of_val(&self.losses[..])) as u64 + self.factors.bytes()
    }

    /// The mean of the losses that are known, summed in the order of microbatches whatever the order of passes was.
    pub(super) fn mean_loss(&self) -> Option<f64> {
        let known = self.losses.iter().flatten().count();
        let total: f64 = self.losses.iter().flatten().sum();
        (known > 0).then(|| total / known as f64)
    }
}
