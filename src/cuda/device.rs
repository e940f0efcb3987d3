//! What executing a plan asks of a device: memory, queues, events, copies, kernels and matrix products.
//!
//! One owner for every call of a library: what runs a plan knows only this. A GPU stands behind it through `cudarc`; in the tests a host
//! that runs the same kernels through a shim and keeps what is queued until something waits for it, so that a missing wait shows.
//!
//! Everything after the preparation ([`Device::allocate`], [`Device::queue`], [`Device::event`], [`Device::prepare`]) allocates nothing and
//! waits for nothing on the host, but for [`Device::read`] and [`Device::finish`].

use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::time::Duration;

use super::CudaError;
use super::transfer::{Channel, Ender, Meeting, Transfer};
use crate::kernels::{Launch, Stored};

/// A place in a device's memory, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Address(pub u64);

impl Address {
    /// The place so many bytes further on.
    #[must_use]
    pub fn plus(self, bytes: u64) -> Self {
        Self(self.0 + bytes)
    }
}

/// A queue of a device (a stream): what is put on it runs in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Queue(pub u32);

/// What a queue is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Passes: kernels and products.
    Passes,
    /// What moves between ranks, and what is small: kernels, no products. Goes before passes where a device runs both.
    Moves,
}

/// A moment of a queue, for others to wait for. Waiting for one that was never recorded is a mistake of the caller: a device would not wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Event(pub u32);

/// A sequence of calls that was captured once and can be repeated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Graph(pub u32);

/// A kernel's argument, in the order of its definition.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Argument {
    /// A pointer; [`Argument::NOTHING`] where a kernel may be told of none.
    At(Address),
    /// `int`.
    Int(i32),
    /// `long long`.
    Long(i64),
    /// `float`.
    Float(f32),
}

impl Argument {
    /// The null pointer.
    pub const NOTHING: Self = Self::At(Address(0));
}

/// A matrix in a device's memory, rows one after the other, each `stride` elements after the one before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Matrix {
    /// Its first element.
    pub at: Address,
    /// How its elements are stored.
    pub stored: Stored,
    /// From one row to the next, in elements.
    pub stride: u32,
    /// Whether it is read with rows and columns exchanged.
    pub turned: bool,
}

/// What follows a product, in the same pass over its result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Epilogue {
    /// Nothing.
    Plain,
    /// A vector `[columns]`, stored as the result is, is added to every row.
    Bias(Address),
    /// The same vector is added; that sum goes to `before`, which lies as the result does, and its GELU (tanh form) is the result.
    Gelu {
        /// `[columns]`
        bias: Address,
        /// `[rows, columns]`
        before: Address,
    },
    /// The product is a gradient by a GELU's result: its slope at what lies in `before`, as the result does, is multiplied in.
    GeluGradient {
        /// `[rows, columns]`
        before: Address,
    },
}

impl Epilogue {
    /// The places that it reads or writes beside the result.
    pub fn places(&mut self) -> impl Iterator<Item = &mut Address> {
        let [one, two] = match self {
            Self::Plain => [None, None],
            Self::Bias(bias) => [Some(bias), None],
            Self::Gelu { bias, before } => [Some(bias), Some(before)],
            Self::GeluGradient { before } => [Some(before), None],
        };
        one.into_iter().chain(two)
    }
}

/// `result = left * right`, or added to it: `[rows, inner] * [inner, columns]`, accumulated in f32.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Product {
    /// Rows of the result.
    pub rows: u32,
    /// Columns of the result.
    pub columns: u32,
    /// What is summed over.
    pub inner: u32,
    /// `[rows, inner]`, after it was turned where it says so.
    pub left: Matrix,
    /// `[inner, columns]`, after it was turned where it says so.
    pub right: Matrix,
    /// `[rows, columns]`; never turned.
    pub result: Matrix,
    /// Whether it is added to what lies there.
    pub adds: bool,
    /// What follows.
    pub epilogue: Epilogue,
}

/// A device. Calls that queue something return at once; what goes wrong on the device later is the error of a later call.
pub trait Device {
    /// Its memory: so many bytes, zeroed, aligned to 256. Given back with the device.
    ///
    /// # Errors
    /// There is not so much.
    fn allocate(&mut self, bytes: u64) -> Result<Address, CudaError>;

    /// A new queue.
    ///
    /// # Errors
    /// The device refuses.
    fn queue(&mut self, purpose: Purpose) -> Result<Queue, CudaError>;

    /// A new event; `timed` ones can be asked for the time between them.
    ///
    /// # Errors
    /// The device refuses.
    fn event(&mut self, timed: bool) -> Result<Event, CudaError>;

    /// Makes ready what a launch of this shape, or a product of this shape, needs the first time: code, shared memory, algorithms. Call it
    /// for everything that steps will use, before the first.
    ///
    /// # Errors
    /// A kernel does not compile or fit; no algorithm for the product.
    fn prepare(&mut self, launches: &[(Launch, Stored)], products: &[Product]) -> Result<(), CudaError>;

    /// Marks the moment at which all that was put on a queue so far has run.
    ///
    /// # Errors
    /// The device failed.
    fn record(&mut self, event: Event, queue: Queue) -> Result<(), CudaError>;

    /// Lets a queue wait for an event.
    ///
    /// # Errors
    /// The device failed.
    fn wait(&mut self, queue: Queue, event: Event) -> Result<(), CudaError>;

    /// Copies inside the device's memory; the two places do not overlap.
    ///
    /// # Errors
    /// The device failed.
    fn copy(&mut self, queue: Queue, to: Address, from: Address, bytes: u64) -> Result<(), CudaError>;

    /// Fills with zeroes.
    ///
    /// # Errors
    /// The device failed.
    fn zero(&mut self, queue: Queue, at: Address, bytes: u64) -> Result<(), CudaError>;

    /// Writes to the device. `from` may be used again as soon as the call returns.
    ///
    /// # Errors
    /// The device failed.
    fn write(&mut self, queue: Queue, to: Address, from: &[u8]) -> Result<(), CudaError>;

    /// Waits for a queue and reads from the device.
    ///
    /// # Errors
    /// The device failed.
    fn read(&mut self, queue: Queue, from: Address, into: &mut [u8]) -> Result<(), CudaError>;

    /// Runs a kernel.
    ///
    /// # Errors
    /// The device failed; the kernel was not prepared.
    fn launch(
        &mut self,
        queue: Queue,
        launch: Launch,
        stored: Stored,
        arguments: &[Argument],
    ) -> Result<(), CudaError>;

    /// Runs a matrix product.
    ///
    /// # Errors
    /// The device failed; a product of this shape was not prepared.
    fn product(&mut self, queue: Queue, product: &Product) -> Result<(), CudaError>;

    /// From here on calls on a queue, and on those that wait for its events, are kept and not run, until [`Device::captured`].
    ///
    /// # Errors
    /// The device failed.
    fn capture(&mut self, queue: Queue) -> Result<(), CudaError>;

    /// What was kept since [`Device::capture`], to be repeated by [`Device::repeat`]. All queues have come back to this one by then.
    ///
    /// # Errors
    /// The device failed.
    fn captured(&mut self, queue: Queue) -> Result<Graph, CudaError>;

    /// Runs what was captured.
    ///
    /// # Errors
    /// The device failed.
    fn repeat(&mut self, queue: Queue, graph: Graph) -> Result<(), CudaError>;

    /// Whether all that was put on a queue has run; never waits.
    ///
    /// # Errors
    /// The device failed.
    fn is_done(&mut self, queue: Queue) -> Result<bool, CudaError>;

    /// Waits for everything.
    ///
    /// # Errors
    /// The device failed.
    fn finish(&mut self) -> Result<(), CudaError>;

    /// Microseconds from one timed event to another, both recorded and over.
    ///
    /// # Errors
    /// One of them is not over.
    fn between(&mut self, from: Event, to: Event) -> Result<f64, CudaError>;

    /// Lets the device write numbers of the host. They are as many as [`Device::count`] will name.
    ///
    /// # Errors
    /// The device refuses.
    fn counters(&mut self, cells: Arc<[AtomicU32]>) -> Result<(), CudaError>;

    /// Writes one of these numbers once all that was put on a queue so far has run.
    ///
    /// # Errors
    /// The device failed.
    fn count(&mut self, queue: Queue, cell: u32, value: u32) -> Result<(), CudaError>;

    /// Bytes of its memory that it keeps for itself, beside what was allocated.
    fn own_bytes(&self) -> u64;

    /// What tells it from all other devices of all machines, where there is anything.
    fn identity(&self) -> Option<[u64; 2]>;

    /// Makes what the members of a new channel must know.
    ///
    /// # Errors
    /// There is no library that moves buffers between devices, or no network.
    fn meeting(&mut self) -> Result<Meeting, CudaError>;

    /// Joins a channel, and waits until all members have come; `place` is how many they are, and which of them this is. `patience` is how
    /// long this and every later call may take.
    ///
    /// # Errors
    /// Not all came in time, or the network failed.
    fn join(
        &mut self,
        channel: Channel,
        meeting: &Meeting,
        place: (u32, u32),
        patience: Duration,
    ) -> Result<(), CudaError>;

    /// Takes part in what the members of a channel move.
    ///
    /// # Errors
    /// The network failed; the channel was not joined, or was ended.
    fn transfer(&mut self, queue: Queue, transfer: &Transfer) -> Result<(), CudaError>;

    /// Whether all channels are well, as far as is known; never waits.
    ///
    /// # Errors
    /// One is not.
    fn check(&mut self) -> Result<(), CudaError>;

    /// Leaves all channels, when all members have come to the end of what they moved. What was captured can't be repeated any more.
    ///
    /// # Errors
    /// The network failed.
    fn leave(&mut self) -> Result<(), CudaError>;

    /// What ends all channels that were joined.
    fn ender(&self) -> Ender;
}
