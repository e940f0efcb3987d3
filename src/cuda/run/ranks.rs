//! What lies on a device for one rank: its arena, its parameters, scratch, a queue for each lane.

use super::parameters::Parameters;
use super::shape::{Rest, Shape};
use crate::cuda::{Address, CudaError, Device, Event, Purpose, Queue};
use crate::execute::model::{Held, LayerDelta};
use crate::ir::{Bytes, Lane, RankPlan};
use crate::kernels::launch::CHUNK;

/// What passes use beside the plan's buffers. Only passes of the compute lane use it, one after the other, but for `rescaled`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Scratch {
    /// The residual stream where no pass reads it, `[tokens, hidden]`.
    pub(super) stream: Address,
    /// Its gradient, `[tokens, hidden]`.
    pub(super) gradient: Address,
    /// The gradient of a branch that leaves it, `[tokens, hidden]`.
    pub(super) branch: Address,
    /// One layer's `delta`, where both gradients are computed at once.
    pub(super) delta: Address,
    /// Rows of attention's output times rows of its gradient, `[batch * heads, sequence]`.
    pub(super) products: Address,
    /// Shares of chunks of rows in the gradients of biases: `[2, chunks, hidden]` and `[chunks, 4 * hidden]`.
    pub(super) partial: Address,
    /// Statistics of a whole output layer, `[3, tokens]`.
    pub(super) stats: Address,
    /// The statistics of all ranks combined, `[2, tokens]`.
    pub(super) combined: Address,
    /// The same for passes that run beside the compute lane: those between the parts of a barrier.
    pub(super) rescaled: Address,
    /// All of it.
    pub(super) bytes: u64,
}

impl Scratch {
    /// Cuts what begins at an address.
    fn cut(held: &Held, shape: &Shape, start: Address) -> Self {
        let (n, wide) = (u64::from(shape.tokens), shape.wide_bytes().div_ceil(4));
        let chunks = u64::from(shape.tokens.div_ceil(CHUNK));
        let delta = if held.fused_backward { LayerDelta::elements(&held.sizes) as u64 } else { 0 };
        let mut rest = Rest(start);
        // Each begins where the kernels can take 16 bytes at once.
        let mut take = |words: u64| rest.take(words.next_multiple_of(64));
        let mut scratch = Self {
            stream: take(wide),
            gradient: take(wide),
            branch: take(wide),
            delta: take(delta),
            products: take(n * u64::from(shape.heads)),
            partial: take(chunks * 4 * u64::from(shape.hidden)),
            stats: take(3 * n),
            combined: take(2 * n),
            rescaled: take(2 * n),
            bytes: 0,
        };
        scratch.bytes = rest.0.0 - start.0;
        scratch
    }
}

/// An in-order queue, and the two events that its exchanges with other ranks take turns in.
#[derive(Clone, Copy, Debug)]
pub(super) struct LaneQueue {
    pub(super) queue: Queue,
    /// What this side gives is there, and what it gets may be overwritten.
    pub(super) ready: Event,
    /// What this side takes has been taken.
    pub(super) done: Event,
}

impl LaneQueue {
    fn new(lane: Lane, device: &mut impl Device) -> Result<Self, CudaError> {
        let purpose = if lane == Lane::Compute { Purpose::Passes } else { Purpose::Moves };
        Ok(Self { queue: device.queue(purpose)?, ready: device.event(false)?, done: device.event(false)? })
    }
}

/// One rank on a device.
#[derive(Debug)]
pub(super) struct RankState {
    pub(super) held: Held,
    pub(super) shape: Shape,
    pub(super) parameters: Parameters,
    pub(super) arena: Address,
    /// Bytes of the arena.
    pub(super) allocated: Bytes,
    pub(super) scratch: Scratch,
    /// By lane of the plan.
    pub(super) lanes: Vec<LaneQueue>,
    /// The mean loss of each unit of the batch, f32.
    pub(super) losses: Address,
}

impl RankState {
    /// Allocates what a rank needs: an arena of exactly the plan's peak, and what lies beside it, but for the losses.
    pub(super) fn new(held: Held, plan: &RankPlan, device: &mut impl Device) -> Result<Self, CudaError> {
        let shape = Shape::of(&held.sizes)?;
        let allocated = plan.peak.bytes;
        let arena = device.allocate(allocated.0)?;
        let parameters = Parameters::new(&held, device)?;
        let bytes = Scratch::cut(&held, &shape, Address::default()).bytes;
        let scratch = Scratch::cut(&held, &shape, device.allocate(bytes)?);
        let lanes = plan.lanes.iter().map(|&lane| LaneQueue::new(lane, device)).collect::<Result<_, _>>()?;
        let losses = Address::default();
        Ok(Self { held, shape, parameters, arena, allocated, scratch, lanes, losses })
    }
}
