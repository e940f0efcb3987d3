//! What a step asks of a device, call by call, in the order in which the host issues it: made once, the same in every step.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread::sleep;
use std::time::Duration;

use crate::cuda::{Address, Argument, CudaError, Device, Event, Product, Queue, Transfer};
use crate::execute::watchdog::Failure;
use crate::kernels::{Launch, Stored};

/// The pause between two looks at whether a run was given up.
const NAP: Duration = Duration::from_millis(10);

/// What an executor shares with who watches over it.
#[derive(Clone, Debug)]
pub struct Signals {
    /// For each lane of each rank of the process, rank by rank: the instructions of this step that have ended.
    pub cells: Arc<[AtomicU32]>,
    /// Raised when the run is over.
    pub abort: Arc<AtomicBool>,
    /// Whether a drill holds the executor.
    pub held: Arc<AtomicBool>,
}

impl Signals {
    /// For so many lanes.
    #[must_use]
    pub fn new(lanes: usize) -> Self {
        let cells = (0..lanes).map(|_| AtomicU32::new(0)).collect();
        Self { cells, abort: Arc::default(), held: Arc::default() }
    }
}

/// One call.
#[derive(Clone, Copy, Debug)]
enum Call {
    Record(Event, Queue),
    Wait(Queue, Event),
    Copy { queue: Queue, to: Address, from: Address, bytes: u64 },
    Zero { queue: Queue, at: Address, bytes: u64 },
    Launch { queue: Queue, launch: Launch, stored: Stored, start: usize, count: usize },
    Product { queue: Queue, product: Product },
    Transfer { queue: Queue, transfer: Transfer },
    Count { queue: Queue, cell: u32, value: u32 },
    Drill { queue: Queue, failure: Failure },
}

/// Calls in order.
#[derive(Debug, Default)]
pub(super) struct Calls {
    list: Vec<Call>,
    /// Of all launches, end to end.
    arguments: Vec<Argument>,
}

impl Calls {
    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.list.len()
    }

    /// Marks a moment of a queue.
    pub(super) fn record(&mut self, event: Event, queue: Queue) {
        self.list.push(Call::Record(event, queue));
    }

    /// Lets a queue wait for an event that was recorded before.
    pub(super) fn wait(&mut self, queue: Queue, event: Event) {
        self.list.push(Call::Wait(queue, event));
    }

    /// Copies, where there is anything to copy, and the two places are not one.
    pub(super) fn copy(&mut self, queue: Queue, to: Address, from: Address, bytes: u64) {
        if bytes > 0 && to != from {
            self.list.push(Call::Copy { queue, to, from, bytes });
        }
    }

    /// Fills with zeroes.
    pub(super) fn zero(&mut self, queue: Queue, at: Address, bytes: u64) {
        if bytes > 0 {
            self.list.push(Call::Zero { queue, at, bytes });
        }
    }

    /// Runs a kernel.
    pub(super) fn launch(&mut self, queue: Queue, launch: Launch, stored: Stored, arguments: &[Argument]) {
        let start = self.arguments.len();
        self.arguments.extend_from_slice(arguments);
        self.list.push(Call::Launch { queue, launch, stored, start, count: arguments.len() });
    }

    /// Runs a matrix product; one that sums over nothing leaves zeroes, or what was there.
    pub(super) fn product(&mut self, queue: Queue, product: Product) {
        let Product { rows, columns, inner, result, adds, .. } = product;
        if rows == 0 || columns == 0 {
            return;
        }
        if inner > 0 {
            self.list.push(Call::Product { queue, product });
        } else if !adds {
            let each = u64::from(result.stored.bytes());
            self.zero(queue, result.at, u64::from(rows) * u64::from(result.stride) * each);
        }
    }

    /// Takes part in what is moved between devices.
    pub(super) fn transfer(&mut self, queue: Queue, transfer: Transfer) {
        if transfer.words > 0 {
            self.list.push(Call::Transfer { queue, transfer });
        }
    }

    /// Lets the host know how far a queue has come.
    pub(super) fn count(&mut self, queue: Queue, cell: usize, value: usize) {
        self.list.push(Call::Count { queue, cell: cell as u32, value: value as u32 });
    }

    /// Acts out a failure before what follows.
    pub(super) fn drill(&mut self, queue: Queue, failure: Failure) {
        self.list.push(Call::Drill { queue, failure });
    }

    /// The first transfers of each kind on each channel, for the connections that a library makes when it needs them: all members of a
    /// channel have the same.
    pub(super) fn connect(&self, device: &mut impl Device) -> Result<(), CudaError> {
        let mut known = Vec::new();
        for call in &self.list {
            if let Call::Transfer { queue, ref transfer } = *call
                && !known.contains(&(transfer.channel, transfer.what))
            {
                known.push((transfer.channel, transfer.what));
                device.transfer(queue, transfer)?;
            }
        }
        device.finish()
    }

    /// Makes ready what the calls will use.
    pub(super) fn prepare(&self, device: &mut impl Device) -> Result<(), CudaError> {
        let (mut launches, mut products, mut shapes) = (Vec::new(), Vec::new(), Vec::new());
        for call in &self.list {
            match *call {
                Call::Launch { launch, stored, .. } if !launches.contains(&(launch, stored)) => {
                    launches.push((launch, stored));
                }
                Call::Product { product, .. } if !shapes.contains(&shape(product)) => {
                    shapes.push(shape(product));
                    products.push(product);
                }
                _ => {}
            }
        }
        device.prepare(&launches, &products)
    }

    /// Asks them of the device; waits for none, but where a drill says so.
    pub(super) fn issue(&self, device: &mut impl Device, signals: &Signals) -> Result<(), CudaError> {
        for call in &self.list {
            match *call {
                Call::Record(event, queue) => device.record(event, queue)?,
                Call::Wait(queue, event) => device.wait(queue, event)?,
                Call::Copy { queue, to, from, bytes } => device.copy(queue, to, from, bytes)?,
                Call::Zero { queue, at, bytes } => device.zero(queue, at, bytes)?,
                Call::Launch { queue, launch, stored, start, count } => {
                    let arguments = &self.arguments[start..start + count];
                    device.launch(queue, launch, stored, arguments)?;
                }
                Call::Product { queue, ref product } => device.product(queue, product)?,
                Call::Transfer { queue, ref transfer } => device.transfer(queue, transfer)?,
                Call::Count { queue, cell, value } => device.count(queue, cell, value)?,
                Call::Drill { queue, failure } => act_out(failure, queue, device, signals)?,
            }
        }
        Ok(())
    }
}

/// Fails here: for good, or until the run is given up. What was asked for before goes on meanwhile.
fn act_out(
    failure: Failure,
    queue: Queue,
    device: &mut impl Device,
    signals: &Signals,
) -> Result<(), CudaError> {
    match failure {
        Failure::Panic => panic!("a drill asked for this panic"),
        Failure::Stall => {
            signals.held.store(true, Ordering::Relaxed);
            while !signals.abort.load(Ordering::SeqCst) {
                device.is_done(queue)?;
                sleep(NAP);
            }
            Err(CudaError::Ended)
        }
    }
}

/// A product without its places, but for how these are aligned.
fn shape(mut product: Product) -> Product {
    for matrix in [&mut product.left, &mut product.right, &mut product.result] {
        matrix.at = Address(matrix.at.0 % 256);
    }
    for at in product.epilogue.places() {
        *at = Address(at.0 % 256);
    }
    product
}
