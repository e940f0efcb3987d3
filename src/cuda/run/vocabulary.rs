//! The vocabulary layers on a device: whole, or this rank's shard of them.

use super::layer::{Emit, int, sums};
use super::parameters::{Param, Table};
use super::shape::{OutputAt, Shape};
use crate::cuda::{Address, Argument};
use crate::kernels::{Stored, launch};

/// The ids of a unit of the batch on the device, `[tokens]` each.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ids {
    pub(super) tokens: Address,
    pub(super) targets: Address,
}

/// The gathered statistics as one rank reads them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Gathered {
    /// `[ranks, 3, tokens]`
    pub(super) stats: Address,
    pub(super) rank: u32,
    pub(super) ranks: u32,
}

impl Emit<'_> {
    /// The statistics of the rank itself.
    fn own(&self, gathered: Gathered) -> Address {
        gathered.stats.plus(12 * u64::from(gathered.rank) * u64::from(self.shape.tokens))
    }

    /// Where the tokens' losses lie among the combined statistics.
    fn each_loss(&self, combined: Address) -> Address {
        combined.plus(4 * u64::from(self.shape.tokens))
    }

    /// What one token weighs in the mean loss of a step of so many units.
    #[allow(clippy::cast_precision_loss, reason = "as on the CPU")]
    fn share(&self, units: u32) -> Argument {
        Argument::Float(1.0 / (self.shape.tokens as f32 * units.max(1) as f32))
    }

    /// `logits = x Wᵀ`, `[tokens, rows]`.
    fn logits(&mut self, table: &Table, x: Address, logits: Address) {
        let (h, [_, owned]) = (self.shape.hidden, table.sides());
        let shape = self.shape;
        let (x, weight) = (shape.rows(x, h), shape.turned(table.param.copy, h));
        self.product([shape.tokens, owned, h], x, weight, shape.rows(logits, owned), false);
    }

    /// The statistics `[3, tokens]` of logits.
    fn statistics(&mut self, table: &Table, stats: Address, logits: Address, ids: Ids) {
        let (tokens, [first, owned]) = (self.shape.tokens, table.sides());
        let [to, from, targets] = [stats, logits, ids.targets].map(Argument::At);
        let arguments = [to, from, targets, int(first), int(owned), int(tokens)];
        self.launch(launch::vocab_statistics(self.shape.stored, tokens, owned), &arguments);
    }

    /// Combines the statistics of all ranks.
    fn combine(&mut self, combined: Address, gathered: Gathered) {
        let (tokens, Gathered { stats, rank, ranks }) = (self.shape.tokens, gathered);
        let [to, from] = [combined, stats].map(Argument::At);
        let arguments = [to, from, int(rank), int(ranks), int(tokens)];
        self.launch(launch::vocab_combine(tokens), &arguments);
    }

    /// `(softmax - target) * share` in place of logits, or of exponentials.
    fn logits_gradient(
        &mut self,
        table: &Table,
        held: Address,
        own: Address,
        ids: Ids,
        [units, exponentials]: [u32; 2],
    ) {
        let (tokens, [first, owned]) = (self.shape.tokens, table.sides());
        let share = self.share(units);
        let [held, combined, own, targets] =
            [held, self.scratch.combined, own, ids.targets].map(Argument::At);
        let arguments = [held, combined, own, targets, share, int(first), int(owned), int(exponentials)];
        self.launch(launch::vocab_gradient(self.shape.stored, tokens, owned), &arguments);
    }

    /// The mean of the losses in the combined statistics.
    fn loss(&mut self, to: Address) {
        let losses = self.each_loss(self.scratch.combined);
        let [to, losses] = [to, losses].map(Argument::At);
        self.launch(launch::vocab_loss(), &[to, losses, int(self.shape.tokens)]);
    }

    /// The gradient by the layer's input, `[tokens, hidden]`, of that by the logits.
    pub(super) fn output_input(&mut self, table: &Table, dx: Address, d_logits: Address) {
        let (h, [_, owned]) = (self.shape.hidden, table.sides());
        let shape = self.shape;
        let (d_logits, weight) = (shape.rows(d_logits, owned), shape.rows(table.param.copy, h));
        self.product([shape.tokens, h, owned], d_logits, weight, shape.rows(dx, h), false);
    }

    /// Adds to the table's gradient.
    pub(super) fn output_weight(&mut self, table: &Table, x: Address, d_logits: Address) {
        let (h, [_, owned]) = (self.shape.hidden, table.sides());
        let sides = [owned, h, self.shape.tokens];
        let gradient = sums(table.param.gradient, h);
        self.product(sides, self.shape.turned(d_logits, owned), self.shape.rows(x, h), gradient, true);
    }

    /// The whole output layer: the loss, and the gradient by the logits in their place.
    pub(super) fn output_forward(
        &mut self,
        table: &Table,
        at: &OutputAt,
        ids: Ids,
        units: u32,
        loss: Address,
    ) {
        let (stats, combined) = (self.scratch.stats, self.scratch.combined);
        self.logits(table, at.normed, at.logits);
        self.statistics(table, stats, at.logits, ids);
        self.combine(combined, Gathered { stats, rank: 0, ranks: 1 });
        self.loss(loss);
        self.logits_gradient(table, at.logits, stats, ids, [units, 0]);
    }

    /// Where the logits lie in their class: behind the layer's input.
    pub(super) fn kept_logits(&self, kept: Address) -> Address {
        kept.plus(self.shape.wide_bytes())
    }

    /// Pass S: logits and their statistics.
    pub(super) fn softmax(&mut self, table: &Table, x: Address, kept: Address, stats: Address, ids: Ids) {
        let logits = self.kept_logits(kept);
        self.copy(kept, x);
        self.logits(table, x, logits);
        self.statistics(table, stats, logits, ids);
    }

    /// What algorithm 2 adds to S: exponentials in place of logits, and the shard's unscaled input gradient.
    pub(super) fn exponentials(&mut self, table: &Table, kept: Address, stats: Address, dx: Option<Address>) {
        let Shape { tokens, hidden, .. } = self.shape;
        let (logits, [_, owned]) = (self.kept_logits(kept), table.sides());
        let [held, of] = [logits, stats].map(Argument::At);
        self.launch(launch::vocab_exponentials(self.shape.stored, tokens, owned), &[held, of, int(owned)]);
        if let Some(dx) = dx {
            self.output_input(table, dx, logits);
            let arguments = [Argument::At(dx), of, int(tokens), int(hidden)];
            self.launch(launch::vocab_normalise(self.shape.stored, tokens, hidden), &arguments);
        }
    }

    /// Pass T: the table's gradient, the loss, and with `dx` the shard's input gradient.
    pub(super) fn output_gradient(
        &mut self,
        table: &Table,
        kept: Address,
        gathered: Gathered,
        ids: Ids,
        [units, exponentials]: [u32; 2],
        dx: Option<Address>,
    ) {
        let (logits, own) = (self.kept_logits(kept), self.own(gathered));
        self.combine(self.scratch.combined, gathered);
        self.logits_gradient(table, logits, own, ids, [units, exponentials]);
        if let Some(dx) = dx {
            self.output_input(table, dx, logits);
        }
        self.output_weight(table, kept, logits);
    }

    /// The loss by what [`Emit::output_gradient`] combined.
    pub(super) fn combined_loss(&mut self, loss: Address) {
        self.loss(loss);
    }

    /// The loss by gathered statistics, and nothing else.
    pub(super) fn output_loss(&mut self, gathered: Gathered, loss: Address) {
        self.combine(self.scratch.combined, gathered);
        self.loss(loss);
    }

    /// Algorithm 2, between the gather and the sum.
    pub(super) fn rescale(
        &mut self,
        table: &Table,
        dx: Address,
        unscaled: Address,
        gathered: Gathered,
        ids: Ids,
        units: u32,
    ) {
        let Shape { tokens, hidden, .. } = self.shape;
        let (combined, [first, owned]) = (self.scratch.combined, table.sides());
        self.combine(combined, gathered);
        let own = self.own(gathered);
        let pointers = [dx, unscaled, combined, own, table.param.copy, ids.targets].map(Argument::At);
        let sides = [first, owned, tokens, hidden].map(int);
        let share = self.share(units);
        let arguments = [&pointers[..], &[share], &sides].concat();
        self.launch(launch::vocab_rescale(self.shape.stored, tokens, hidden), &arguments);
    }

    /// The rows of tokens in a table, with or without positions.
    pub(super) fn lookup(&mut self, table: &Table, x: Address, ids: Ids, positions: Argument) {
        let Shape { tokens, hidden, sequence, .. } = self.shape;
        let [first, owned] = table.sides();
        let [x, rows, tokens_at] = [x, table.param.copy, ids.tokens].map(Argument::At);
        let sides = [first, owned, sequence, hidden].map(int);
        let arguments = [&[x, rows, positions, tokens_at][..], &sides].concat();
        self.launch(launch::embedding_forward(self.shape.stored, tokens, hidden), &arguments);
    }

    /// Where the positions of a slice begin.
    fn positions_of(&self, slice: u32, at: Address, stored: Stored) -> Address {
        let each = u64::from(stored.bytes());
        at.plus(each * u64::from(slice) * u64::from(self.shape.sequence) * u64::from(self.shape.hidden))
    }

    /// The positions of a slice, for [`Emit::lookup`].
    pub(super) fn positions(&self, slice: u32, positions: &Param) -> Argument {
        Argument::At(self.positions_of(slice, positions.copy, self.shape.stored))
    }

    /// Adds the positions of a slice.
    pub(super) fn add_positions(&mut self, slice: u32, positions: &Param, x: Address) {
        let Shape { tokens, hidden, sequence, .. } = self.shape;
        let arguments = [Argument::At(x), self.positions(slice, positions), int(sequence), int(hidden)];
        self.launch(launch::positions_add(self.shape.stored, tokens, hidden), &arguments);
    }

    /// Adds to the positions' gradient.
    pub(super) fn positions_gradient(&mut self, slice: u32, positions: &Param, dx: Address) {
        let Shape { batch, hidden, sequence, .. } = self.shape;
        let gradient = Argument::At(self.positions_of(slice, positions.gradient, Stored::F32));
        let arguments = [gradient, Argument::At(dx), int(batch), int(sequence), int(hidden)];
        self.launch(launch::positions_backward(self.shape.stored, sequence, hidden), &arguments);
    }

    /// Adds the gradients of the tokens to their rows of a table.
    pub(super) fn scatter(&mut self, table: &Table, dx: Address, ids: Ids) {
        let Shape { tokens, hidden, .. } = self.shape;
        let pointers = [table.param.gradient, dx, ids.tokens].map(Argument::At);
        let [first, owned] = table.sides();
        let arguments = [&pointers[..], &[first, owned, tokens, hidden].map(int)].concat();
        self.launch(launch::embedding_backward(self.shape.stored, tokens, hidden), &arguments);
    }
}
