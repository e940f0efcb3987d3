//! One transformer layer on a device: forward, input gradient, weight gradient.

use super::calls::Calls;
use super::parameters::{Layer, Pair};
use super::ranks::Scratch;
use super::shape::{ActAt, DeltaAt, Shape};
use crate::cuda::{Address, Argument, Epilogue, Matrix, Product, Queue};
use crate::kernels::{Launch, Stored, launch};

/// A length as kernels take it; [`Shape`] has made sure that it fits.
pub(super) fn int(length: u32) -> Argument {
    Argument::Int(length.cast_signed())
}

/// A dense matrix of gradients of parameters, whose rows have so many elements.
pub(super) fn sums(at: Address, columns: u32) -> Matrix {
    Matrix { at, stored: Stored::F32, stride: columns, turned: false }
}

/// The slices before one of a microbatch, as one layer's attention reads them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Before<'a> {
    /// The layer's share of each one's state.
    pub(super) acts: &'a [ActAt],
    /// A list of their queries, keys and values on the device.
    pub(super) list: Argument,
}

/// Puts the calls of passes on a queue.
pub(super) struct Emit<'a> {
    pub(super) calls: &'a mut Calls,
    pub(super) queue: Queue,
    pub(super) shape: Shape,
    pub(super) scratch: Scratch,
}

impl Emit<'_> {
    /// Copies `[tokens, hidden]`.
    pub(super) fn copy(&mut self, to: Address, from: Address) {
        self.calls.copy(self.queue, to, from, self.shape.wide_bytes());
    }

    pub(super) fn launch(&mut self, launch: Launch, arguments: &[Argument]) {
        self.calls.launch(self.queue, launch, self.shape.stored, arguments);
    }

    /// `result = left * right`, or added to it.
    pub(super) fn product(
        &mut self,
        [rows, columns, inner]: [u32; 3],
        left: Matrix,
        right: Matrix,
        result: Matrix,
        adds: bool,
    ) {
        let epilogue = Epilogue::Plain;
        let product = Product { rows, columns, inner, left, right, result, adds, epilogue };
        self.calls.product(self.queue, product);
    }

    /// `result = left * right`, and what follows.
    fn ending(
        &mut self,
        [rows, columns, inner]: [u32; 3],
        left: Matrix,
        right: Matrix,
        result: Matrix,
        epilogue: Epilogue,
    ) {
        let product = Product { rows, columns, inner, left, right, result, adds: false, epilogue };
        self.calls.product(self.queue, product);
    }

    /// `y = norm(x)` with its statistics.
    pub(super) fn norm(&mut self, y: Address, stats: Address, x: Address, norm: &Pair) {
        let Shape { tokens, hidden, .. } = self.shape;
        let [y, stats, x, weight, bias] = [y, stats, x, norm.weight.value, norm.bias.value].map(Argument::At);
        let arguments = [y, stats, x, weight, bias, int(tokens), int(hidden)];
        self.launch(launch::layer_norm_forward(self.shape.stored, tokens, hidden), &arguments);
    }

    /// Adds a norm's gradients: to `dx`, and to those of its weight and bias.
    pub(super) fn norm_gradients(
        &mut self,
        dx: Address,
        dy: Address,
        x: Address,
        stats: Address,
        norm: &Pair,
    ) {
        let Shape { tokens, hidden, .. } = self.shape;
        let partial = self.scratch.partial;
        let [to_dx, of_y, of_x, of_stats, weight, to_partial] =
            [dx, dy, x, stats, norm.weight.value, partial].map(Argument::At);
        let sides = [int(tokens), int(hidden)];
        let arguments = [to_dx, of_y, of_x, of_stats, weight, sides[0], sides[1]];
        self.launch(launch::layer_norm_backward(self.shape.stored, tokens, hidden), &arguments);
        let shares = launch::layer_norm_partial(self.shape.stored, tokens, hidden);
        let chunk = int(launch::CHUNK);
        self.launch(shares, &[to_partial, of_y, of_x, of_stats, sides[0], sides[1], chunk]);
        let chunks = shares.grid[1];
        self.collect(norm.weight.gradient, partial, chunks, hidden);
        let bias = partial.plus(4 * u64::from(chunks) * u64::from(hidden));
        self.collect(norm.bias.gradient, bias, chunks, hidden);
    }

    /// Adds the chunks' shares to a gradient.
    fn collect(&mut self, gradient: Address, partial: Address, chunks: u32, width: u32) {
        let [gradient, partial] = [gradient, partial].map(Argument::At);
        self.launch(launch::column_collect(width), &[gradient, partial, int(chunks), int(width)]);
    }

    /// `y = x Wᵀ + b`, or added to it: `[inputs, outputs]`.
    fn linear(&mut self, y: Address, x: Address, of: &Pair, [inputs, outputs]: [u32; 2], adds: bool) {
        let product = Product {
            rows: self.shape.tokens,
            columns: outputs,
            inner: inputs,
            left: self.shape.rows(x, inputs),
            right: self.shape.turned(of.weight.copy, inputs),
            result: self.shape.rows(y, outputs),
            adds,
            epilogue: Epilogue::Bias(of.bias.copy),
        };
        self.calls.product(self.queue, product);
    }

    /// `dx = dy W`.
    fn linear_input(&mut self, dx: Address, dy: Address, of: &Pair, [inputs, outputs]: [u32; 2]) {
        let sides = [self.shape.tokens, inputs, outputs];
        let weight = self.shape.rows(of.weight.copy, inputs);
        self.product(sides, self.shape.rows(dy, outputs), weight, self.shape.rows(dx, inputs), false);
    }

    /// `dW += dyᵀ x`, `db += Σ dy`.
    fn linear_weight(&mut self, of: &Pair, x: Address, dy: Address, [inputs, outputs]: [u32; 2]) {
        let tokens = self.shape.tokens;
        let gradient = sums(of.weight.gradient, inputs);
        let (left, right) = (self.shape.turned(dy, outputs), self.shape.rows(x, inputs));
        self.product([outputs, inputs, tokens], left, right, gradient, true);
        let (shares, partial) =
            (launch::bias_partial(self.shape.stored, tokens, outputs), self.scratch.partial);
        let [to, from] = [partial, dy].map(Argument::At);
        self.launch(shares, &[to, from, int(tokens), int(outputs), int(launch::CHUNK)]);
        self.collect(of.bias.gradient, partial, shares.grid[1], outputs);
    }

    /// Takes the residual stream, at `act.input`, through a layer to `out`.
    pub(super) fn layer_forward(&mut self, layer: &Layer, act: &ActAt, before: Before<'_>, out: Address) {
        let h = self.shape.hidden;
        self.norm(act.norm1, act.stats1, act.input, &layer.norm1);
        self.linear(act.qkv, act.norm1, &layer.qkv, [h, 3 * h], false);
        self.attention_forward(act, before);
        if self.shape.sliced() {
            self.calls.zero(self.queue, act.owed, 8 * self.shape.wide());
        }
        self.copy(act.middle, act.input);
        self.linear(act.middle, act.attended, &layer.out, [h, h], true);
        self.norm(act.norm2, act.stats2, act.middle, &layer.norm2);
        let Pair { weight, bias } = layer.up;
        let epilogue = Epilogue::Gelu { bias: bias.copy, before: act.up };
        let shape = self.shape;
        let (left, right) = (shape.rows(act.norm2, h), shape.turned(weight.copy, h));
        self.ending([shape.tokens, 4 * h, h], left, right, shape.rows(act.gelu, 4 * h), epilogue);
        self.copy(out, act.middle);
        self.linear(out, act.gelu, &layer.down, [4 * h, h], true);
    }

    /// Takes the residual stream's gradient back through a layer, in place, keeps what the weight gradients need in `delta`, adds to what
    /// earlier slices are owed, and to the norms' own gradients.
    pub(super) fn layer_input_gradient(
        &mut self,
        layer: &Layer,
        act: &ActAt,
        before: Before<'_>,
        delta: &DeltaAt,
        gradient: Address,
    ) {
        let (h, branch) = (self.shape.hidden, self.scratch.branch);
        self.copy(delta.output, gradient);
        let shape = self.shape;
        let (left, right) = (shape.rows(delta.output, h), shape.rows(layer.down.weight.copy, 4 * h));
        let epilogue = Epilogue::GeluGradient { before: act.up };
        self.ending([shape.tokens, 4 * h, h], left, right, shape.rows(delta.up, 4 * h), epilogue);
        self.linear_input(branch, delta.up, &layer.up, [h, 4 * h]);
        self.norm_gradients(gradient, branch, act.middle, act.stats2, &layer.norm2);
        self.copy(delta.middle, gradient);
        self.linear_input(branch, delta.middle, &layer.out, [h, h]);
        self.attention_backward(act, before, branch, delta.qkv);
        self.linear_input(branch, delta.qkv, &layer.qkv, [h, 3 * h]);
        self.norm_gradients(gradient, branch, act.input, act.stats1, &layer.norm1);
    }

    /// Adds to the gradients of the four linear layers.
    pub(super) fn layer_weight_gradient(&mut self, layer: &Layer, act: &ActAt, delta: &DeltaAt) {
        let h = self.shape.hidden;
        self.linear_weight(&layer.down, act.gelu, delta.output, [4 * h, h]);
        self.linear_weight(&layer.up, act.norm2, delta.up, [h, 4 * h]);
        self.linear_weight(&layer.out, act.attended, delta.middle, [h, h]);
        self.linear_weight(&layer.qkv, act.norm1, delta.qkv, [h, 3 * h]);
    }
}

/// A count of elements.
pub(super) fn long(count: u64) -> Argument {
    Argument::Long(count.cast_signed())
}
