//! The model: which parameters a rank holds, how they start, how the buffers of a pass are cut, how it is trained.
//!
//! A GPT: learned positions, pre-norm layers of causal attention and a GELU MLP (tanh form) of width `4 * hidden`, biases on
//! every linear layer, a final norm and a head without bias. Weights lie as `[outputs, inputs]`: y = x Wᵀ + b.

mod complete;
mod contract;
mod error;
mod held;
mod layout;
mod sizes;
mod spec;

pub use error::ModelError;
pub use held::{Held, HeldStage};
pub use layout::{LayerAct, LayerDelta, LogitsState, OutputAct};
pub use sizes::Sizes;
pub use spec::{Draw, Spec};

/// How the model starts and how it is trained: Adam (Kingma & Ba 2015, arXiv:1412.6980) with decoupled weight decay
/// (Loshchilov & Hutter 2019, arXiv:1711.05101).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Train {
    /// Seed of the initial weights.
    pub seed: u64,
    /// Learning rate.
    pub lr: f32,
    /// Decay of the first moment.
    pub beta1: f32,
    /// Decay of the second moment.
    pub beta2: f32,
    /// Added to the root of the second moment.
    pub eps: f32,
    /// Weight decay, applied to every parameter; 0 turns it off.
    pub weight_decay: f32,
}

impl Train {
    /// What step `t` of Adam, counted from 1, multiplies with: the learning rate over the first moment's bias, one over the root of the
    /// second's, and what weight decay leaves of a value.
    #[must_use]
    pub fn factors(&self, t: u64) -> [f32; 3] {
        let t = i32::try_from(t).unwrap_or(i32::MAX);
        let bias = |beta: f32| 1.0 - f64::from(beta).powi(t);
        let rate = (f64::from(self.lr) / bias(self.beta1)) as f32;
        [rate, (1.0 / bias(self.beta2).sqrt()) as f32, 1.0 - self.lr * self.weight_decay]
    }
}

impl Default for Train {
    fn default() -> Self {
        Self { seed: 0, lr: 1e-3, beta1: 0.9, beta2: 0.95, eps: 1e-8, weight_decay: 0.0 }
    }
}
