//! What a backend is to the interpreter: it runs the passes of one rank on buffers that it is lent, and owns the rank's parameters.

use std::ops::Range;

use crate::ir::{Compute, Cut, Pass, Stage};

/// The buffers of one pass, by class and direction. Each has exactly the shape that the plan gives the buffer; f32.
#[derive(Debug, Default)]
pub struct Views<'a> {
    /// Activations between stages, `[tokens, hidden]`.
    pub x: InOut<'a>,
    /// Gradients between stages, `[tokens, hidden]`.
    pub dx: InOut<'a>,
    /// Statistics of the sharded softmax: written `[3, tokens]`, read gathered `[ranks, 3, tokens]`.
    pub stats: InOut<'a>,
    /// What backward needs of forward. Passes that read it may work in place.
    pub act: Option<&'a mut [f32]>,
    /// `act` of the earlier slices of the microbatch: keys and values are read, and their gradients added up in place.
    pub earlier: Earlier<'a>,
    /// What the weight gradient needs of the input gradient.
    pub delta: Option<&'a mut [f32]>,
    /// What the output layer's weight gradient needs of its forward. Passes that read it may work in place.
    pub logits: Option<&'a mut [f32]>,
}

/// State of the earlier slices of a microbatch, first to last; none where sequences are whole.
#[derive(Debug)]
pub struct Earlier<'a> {
    parts: [&'a mut [f32]; MOST_EARLIER],
    count: usize,
}

/// The most slices before one.
pub const MOST_EARLIER: usize = Cut::MOST_SLICES as usize - 1;

impl Default for Earlier<'_> {
    fn default() -> Self {
        Self::new(std::iter::empty())
    }
}

impl<'a> Earlier<'a> {
    /// Takes the slices that there are: [`MOST_EARLIER`] at most, what lies beyond is left out.
    pub fn new(slices: impl Iterator<Item = &'a mut [f32]>) -> Self {
        let mut earlier = Self { parts: std::array::from_fn(|_| Default::default()), count: 0 };
        for (part, slice) in earlier.parts.iter_mut().zip(slices) {
            *part = slice;
            earlier.count += 1;
        }
        earlier
    }

    /// The slices, first to last.
    pub fn slices(&mut self) -> &mut [&'a mut [f32]] {
        &mut self.parts[..self.count]
    }
}

/// The value that a pass reads and the one that it writes, of one class.
#[derive(Debug, Default)]
pub struct InOut<'a> {
    /// The value that it reads, if it needs one.
    pub read: Option<&'a [f32]>,
    /// The value that it gives, if anyone reads it.
    pub write: Option<&'a mut [f32]>,
}

/// The data of one microbatch, sequence after sequence; of one slice of it, where sequences are sliced.
#[derive(Clone, Copy, Debug)]
pub struct Batch<'a> {
    /// Token ids, `[tokens]`, each below the vocabulary's size.
    pub tokens: &'a [u32],
    /// The ids that should follow, `[tokens]`.
    pub targets: &'a [u32],
}

/// A parameter, or the rows of it that a rank owns, with its gradient and the optimizer's moments.
#[derive(Clone, Debug)]
pub struct Tensor<'a> {
    /// The name; the same on every rank that holds rows of it.
    pub name: &'a str,
    /// The shape of the whole parameter.
    pub shape: &'a [u64],
    /// The rows (along the first side of the shape) that lie here: all of them, or this rank's shard, which may be empty.
    pub rows: Range<u64>,
    /// Values.
    pub value: &'a [f32],
    /// The gradient of the mean loss of the step so far.
    pub gradient: &'a [f32],
    /// Adam's first moment.
    pub first: &'a [f32],
    /// Adam's second moment.
    pub second: &'a [f32],
}

/// What a checkpoint keeps of a [`Tensor`]: the same rows of values and moments.
#[derive(Clone, Copy, Debug)]
pub struct State<'a> {
    /// Values.
    pub value: &'a [f32],
    /// Adam's first moment.
    pub first: &'a [f32],
    /// Adam's second moment.
    pub second: &'a [f32],
}

/// Runs the passes of one rank. It owns the rank's parameters, their gradients and a workspace; it allocates in no pass.
pub trait Backend: Send {
    /// Runs one pass. `views` holds the buffers that the plan says it reads and writes.
    fn pass(&mut self, compute: Compute, pass: Pass, views: Views<'_>, batch: Batch<'_>);

    /// The gradient of this rank's copy of a tied embedding, `[vocab, hidden]`: what the plan's `TiedGradient` all-reduce sums
    /// in place. Empty where this rank holds no such copy.
    fn tied_gradient(&mut self) -> &mut [f32];

    /// Copies the gradients of this rank's copy of a stage of the model (its place in a flow) end to end: what the plan's
    /// `StageGradient` all-reduce takes. Empty where this rank holds no such stage.
    fn pack_gradient(&mut self, _stage: Stage) -> &mut [f32] {
        &mut []
    }

    /// The place of [`Backend::pack_gradient`] as it is: where the sum goes.
    fn packed_gradient(&mut self, _stage: Stage) -> &mut [f32] {
        &mut []
    }

    /// Makes the gradients of a stage those that lie in the place of [`Backend::packed_gradient`].
    fn unpack_gradient(&mut self, _stage: Stage) {}

    /// One step of the optimizer with the gradient of the mean loss; zeroes the gradients and forgets the losses.
    fn step(&mut self);

    /// The mean loss of the step's microbatches so far, in nats a token; `None` on ranks that do not hold the last stage.
    fn loss(&self) -> Option<f64>;

    /// The mean loss of each microbatch of the step so far, where this rank knows it; what a plan with two flows, whose losses come up
    /// on two ranks, puts together.
    fn losses(&self) -> &[Option<f64>] {
        &[]
    }

    /// Every parameter that lies here, in a fixed order, names ascending in pipeline order. A name occurs once on a rank; copies
    /// of a tied embedding on two ranks have the same name. Takes `&mut` because the two gradients of a tied embedding are
    /// summed first where both accumulate on this rank.
    fn tensors(&mut self) -> Vec<Tensor<'_>>;

    /// Restores the rows that lie here of a parameter and its moments. False, and nothing is changed, where there is no such
    /// parameter or a length differs.
    fn load(&mut self, name: &str, state: State<'_>) -> bool;

    /// Steps of the optimizer taken so far: the `t` of Adam, part of a checkpoint.
    fn steps(&self) -> u64;

    /// Sets the number of steps taken, after [`Backend::load`].
    fn set_steps(&mut self, steps: u64);

    /// Bytes of the workspace that was allocated beside the plan's buffers.
    fn workspace_bytes(&self) -> u64;

    /// Bytes of parameters, gradients and moments.
    fn parameter_bytes(&self) -> u64;
}

/// What checkpoints keep of a rank and give back: its parameters with the optimizer's moments.
pub trait Store {
    /// As [`Backend::tensors`].
    fn tensors(&mut self) -> Vec<Tensor<'_>>;

    /// As [`Backend::load`].
    fn load(&mut self, name: &str, state: State<'_>) -> bool;

    /// As [`Backend::set_steps`].
    fn set_steps(&mut self, steps: u64);
}

impl<B: Backend> Store for B {
    fn tensors(&mut self) -> Vec<Tensor<'_>> {
        Backend::tensors(self)
    }

    fn load(&mut self, name: &str, state: State<'_>) -> bool {
        Backend::load(self, name, state)
    }

    fn set_steps(&mut self, steps: u64) {
        Backend::set_steps(self, steps);
    }
}
