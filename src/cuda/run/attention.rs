//! Attention on a device: tile by tile, without the matrix of scores.

use super::layer::{Before, Emit, int};
use super::shape::{ActAt, Shape};
use crate::cuda::{Address, Argument};
use crate::kernels::launch;

impl Emit<'_> {
    /// What every head's scores are multiplied with.
    #[allow(clippy::cast_precision_loss, reason = "heads are narrow")]
    fn factor(&self) -> Argument {
        Argument::Float(1.0 / (self.shape.head as f32).sqrt())
    }

    /// `attended`, and the logarithms of the rows' sums.
    pub(super) fn attention_forward(&mut self, act: &ActAt, before: Before<'_>) {
        let Shape { heads, sequence, head, stored, .. } = self.shape;
        let [attended, logarithms, qkv] = [act.attended, act.logarithms, act.qkv].map(Argument::At);
        let slices = int(before.acts.len() as u32);
        let factor = self.factor();
        let arguments = [attended, logarithms, qkv, before.list, slices, int(heads), int(sequence), factor];
        self.launch(launch::attention_forward(stored, self.shape.all_heads(), sequence, head), &arguments);
    }

    /// The gradient by queries, keys and values of that of `attended`; earlier slices' keys and values are owed theirs.
    pub(super) fn attention_backward(
        &mut self,
        act: &ActAt,
        before: Before<'_>,
        gradient: Address,
        to: Address,
    ) {
        let Shape { heads, sequence, head, stored, .. } = self.shape;
        let all = self.shape.all_heads();
        let [d_qkv, qkv, gradient, attended, logarithms, products] =
            [to, act.qkv, gradient, act.attended, act.logarithms, self.scratch.products].map(Argument::At);
        let (lengths, factor) = ([int(heads), int(sequence)], self.factor());
        let count = int(all * sequence);
        let arguments = [products, attended, gradient, lengths[0], lengths[1], count];
        self.launch(launch::attention_products(all, sequence), &arguments);
        let slices = int(before.acts.len() as u32);
        let pointers = [d_qkv, qkv, before.list, gradient, logarithms, products];
        let arguments = [&pointers[..], &[slices], &lengths, &[factor]].concat();
        self.launch(launch::attention_queries(stored, all, sequence, head), &arguments);
        let owed = if self.shape.sliced() { Argument::At(act.owed) } else { Argument::NOTHING };
        let mut keys = |owed: Argument, of: Argument| {
            let pointers = [d_qkv, owed, qkv, of, gradient, logarithms, products];
            let arguments = [&pointers[..], &lengths, &[factor]].concat();
            self.launch(launch::attention_keys(stored, all, sequence, head), &arguments);
        };
        for earlier in before.acts {
            keys(Argument::At(earlier.owed), Argument::At(earlier.qkv));
        }
        keys(owed, Argument::NOTHING);
    }
}
