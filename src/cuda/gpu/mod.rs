//! A GPU as a [`Device`]: what a plan's execution asks for -> calls of the driver, of cuBLASLt and of kernels that NVRTC compiled.
//!
//! All calls go through the context that a process's libraries share on a device. Memory, events and graphs are owned here; nothing of
//! `cudarc`'s safe layer is used, so no events are made behind anyone's back. What a step uses is made before the first one.
//!
//! Events that were recorded during a capture belong to the graph: outside of it they count as never recorded. A capture keeps no
//! [`Device::write`] (the graph would read a piece of staging memory that others fill later) and no call that waits on the host.

mod arguments;
mod descriptors;
mod driver;
mod graphs;
mod kernels;
mod layout;
mod network;
mod owned;
mod products;
mod staging;

use std::ffi::c_void;
use std::mem::ManuallyDrop;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::thread::sleep;
use std::time::{Duration, Instant};

use cudarc::driver::result;

use super::{
    Address, Argument, Channel, CudaError, Device, Ender, Epilogue, Event, Graph, Meeting, Product, Purpose,
    Queue, Transfer,
};
use crate::ir::Bytes;
use crate::kernels::{Launch, Stored};
use driver::{Context, Named as _};
use graphs::Executable;
use kernels::Kernels;
use network::Network;
use owned::{Cells, Memory, OwnedEvent, OwnedStream};
use products::{After, Products, Workspace};
use staging::Staging;

pub use arguments::{Packed, Pointers};
pub use layout::{ALIGNED, Layout, Operation, Side};
pub use products::describe;

/// How long a drop waits for what is queued. What hangs (a collective whose peer died) is left to the end of the process.
const PATIENCE: Duration = Duration::from_secs(5);

/// A queue's stream, for libraries that put work of their own on it. Valid while the device lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stream(pub(super) *mut c_void);

impl Stream {
    /// The default stream.
    pub const DEFAULT: Self = Self(std::ptr::null_mut());
}

// SAFETY: it is a name; whoever puts work on a stream has the device or its library check it.
unsafe impl Send for Stream {}

/// When an event was recorded last.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Recorded {
    Never,
    /// As a part of what is being captured.
    Kept,
    Live,
}

struct Moment {
    event: OwnedEvent,
    recorded: Recorded,
}

struct Lane {
    stream: OwnedStream,
    /// For products, where the lane has any.
    workspace: Option<Workspace>,
}

/// All that is on the device. Dropped from the first to the last: users before what they use, the context at the end.
struct Parts {
    network: Network,
    graphs: Vec<Executable>,
    cells: Option<Cells>,
    lanes: Vec<Lane>,
    events: Vec<Moment>,
    staging: Staging,
    /// Of what needs a stream before any lane is there.
    own: OwnedStream,
    products: Products,
    kernels: Kernels,
    memory: Vec<Memory>,
    context: Context,
}

/// A GPU.
pub struct Gpu {
    parts: ManuallyDrop<Parts>,
    capturing: bool,
    name: String,
}

// SAFETY: every call makes the context current on its thread first, and `&mut self` lets one thread call at a time. Drop does the same.
unsafe impl Send for Gpu {}

impl Gpu {
    /// A device by its number among those that the driver shows. `head` is the width of a head of attention, for which kernels are
    /// compiled; `path` is where libraries may be, as in [`super::probe`](fn@super::probe).
    ///
    /// # Errors
    /// Something of CUDA is missing, by name; or the driver refuses.
    pub fn open(ordinal: u32, head: u32, path: Option<&Path>) -> Result<Self, CudaError> {
        let context = Context::open(ordinal)?;
        let name = context.name()?;
        let parts = Parts {
            kernels: Kernels::new(&context, head, path.map(Path::to_path_buf))?,
            products: Products::new(path)?,
            own: OwnedStream::new()?,
            staging: Staging::new()?,
            network: Network::new(path.map(Path::to_path_buf)),
            graphs: Vec::new(),
            cells: None,
            lanes: Vec::new(),
            events: Vec::new(),
            memory: Vec::new(),
            context,
        };
        Ok(Self { parts: ManuallyDrop::new(parts), capturing: false, name })
    }

    /// The device of a process that is one of several on its machine, by its number among them: the device of that number, or the only one
    /// that the process is shown.
    ///
    /// # Errors
    /// As [`Gpu::open`].
    pub fn nth(process: u32, head: u32, path: Option<&Path>) -> Result<Self, CudaError> {
        let only = process > 0 && driver::devices()? == 1;
        Self::open(if only { 0 } else { process }, head, path)
    }

    /// What the driver calls it.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Makes it the device that libraries mean when this thread calls them.
    ///
    /// # Errors
    /// The driver refuses.
    pub fn bind(&self) -> Result<(), CudaError> {
        self.parts.context.bind()
    }

    /// A queue's stream.
    ///
    /// # Errors
    /// There is no such queue.
    pub fn stream(&self, queue: Queue) -> Result<Stream, CudaError> {
        Ok(Stream(self.lane(queue)?.stream.0.cast()))
    }

    /// Its memory that is free, and all of it.
    ///
    /// # Errors
    /// The device failed.
    pub fn memory(&self) -> Result<(Bytes, Bytes), CudaError> {
        self.bind()?;
        Ok(owned::free())
    }

    fn lane(&self, queue: Queue) -> Result<&Lane, CudaError> {
        let lane = self.parts.lanes.get(queue.0 as usize);
        lane.ok_or_else(|| CudaError::NotPrepared { what: format!("queue {}", queue.0) })
    }

    /// Binds, and finds a queue.
    fn on(&self, queue: Queue) -> Result<&Lane, CudaError> {
        self.bind()?;
        self.lane(queue)
    }

    /// Refuses what would break a capture.
    fn outside(&self, call: &'static str) -> Result<(), CudaError> {
        if !self.capturing {
            return Ok(());
        }
        let reason = "a capture keeps nothing that the host waits for or writes".to_owned();
        Err(CudaError::Failed { call, reason })
    }
}

/// The place of a new element.
fn next<T>(all: &[T]) -> u32 {
    all.len() as u32
}

impl Device for Gpu {
    fn allocate(&mut self, bytes: u64) -> Result<Address, CudaError> {
        self.outside("allocate")?;
        self.bind()?;
        let memory = Memory::new(bytes, "memory")?;
        let at = Address(memory.at());
        self.parts.memory.push(memory);
        Ok(at)
    }

    fn queue(&mut self, purpose: Purpose) -> Result<Queue, CudaError> {
        self.outside("queue")?;
        self.bind()?;
        let workspace = match purpose {
            Purpose::Passes => Some(Workspace::new(self.parts.products.workspace())?),
            Purpose::Moves => None,
        };
        let queue = Queue(next(&self.parts.lanes));
        let stream = if workspace.is_some() { OwnedStream::new()? } else { OwnedStream::urgent()? };
        self.parts.lanes.push(Lane { stream, workspace });
        Ok(queue)
    }

    fn event(&mut self, timed: bool) -> Result<Event, CudaError> {
        self.bind()?;
        let event = Event(next(&self.parts.events));
        self.parts.events.push(Moment { event: OwnedEvent::new(timed)?, recorded: Recorded::Never });
        Ok(event)
    }

    fn prepare(&mut self, launches: &[(Launch, Stored)], products: &[Product]) -> Result<(), CudaError> {
        self.outside("prepare")?;
        self.bind()?;
        let parts = &mut *self.parts;
        let biases = parts.products.prepare(products, &parts.own)?;
        parts.kernels.prepare(launches)?;
        parts.kernels.prepare(&biases)?;
        let bytes = parts.products.workspace();
        for lane in &mut parts.lanes {
            if lane.workspace.as_ref().is_some_and(|workspace| workspace.bytes() < bytes) {
                lane.stream.finish()?;
                lane.workspace = Some(Workspace::new(bytes)?);
            }
        }
        Ok(())
    }

    fn record(&mut self, event: Event, queue: Queue) -> Result<(), CudaError> {
        self.bind()?;
        let capturing = self.capturing;
        let parts = &mut *self.parts;
        let (lane, moment) = (parts.lanes.get(queue.0 as usize), parts.events.get_mut(event.0 as usize));
        let (Some(lane), Some(moment)) = (lane, moment) else {
            let what = format!("queue {} or event {}", queue.0, event.0);
            return Err(CudaError::NotPrepared { what });
        };
        moment.event.record(&lane.stream)?;
        moment.recorded = if capturing { Recorded::Kept } else { Recorded::Live };
        Ok(())
    }

    fn wait(&mut self, queue: Queue, event: Event) -> Result<(), CudaError> {
        let lane = self.on(queue)?;
        let moment = self.parts.events.get(event.0 as usize);
        let Some(moment) = moment.filter(|moment| moment.recorded != Recorded::Never) else {
            // The driver would not wait for it, and say nothing.
            return Err(CudaError::NotPrepared { what: format!("event {}, which is waited for,", event.0) });
        };
        moment.event.hold(&lane.stream)
    }

    fn copy(&mut self, queue: Queue, to: Address, from: Address, bytes: u64) -> Result<(), CudaError> {
        let lane = self.on(queue)?;
        if bytes == 0 {
            return Ok(());
        }
        // SAFETY: the stream lives; that both places are memory of this device, large enough, is the caller's promise.
        unsafe { result::memcpy_dtod_async(to.0, from.0, bytes as usize, lane.stream.0) }
            .named("cuMemcpyDtoDAsync")
    }

    fn zero(&mut self, queue: Queue, at: Address, bytes: u64) -> Result<(), CudaError> {
        let lane = self.on(queue)?;
        if bytes == 0 {
            return Ok(());
        }
        // SAFETY: the stream lives; that the place is memory of this device, large enough, is the caller's promise.
        unsafe { result::memset_d8_async(at.0, 0, bytes as usize, lane.stream.0) }.named("cuMemsetD8Async")
    }

    fn write(&mut self, queue: Queue, to: Address, from: &[u8]) -> Result<(), CudaError> {
        self.outside("write")?;
        self.on(queue)?;
        let parts = &mut *self.parts;
        parts.staging.write(&parts.lanes[queue.0 as usize].stream, to.0, from)
    }

    fn read(&mut self, queue: Queue, from: Address, into: &mut [u8]) -> Result<(), CudaError> {
        self.outside("read")?;
        let lane = self.on(queue)?;
        self.parts.staging.read(&lane.stream, from.0, into)
    }

    fn launch(
        &mut self,
        queue: Queue,
        launch: Launch,
        stored: Stored,
        arguments: &[Argument],
    ) -> Result<(), CudaError> {
        let lane = self.on(queue)?;
        self.parts.kernels.launch(&lane.stream, &launch, stored, arguments)
    }

    fn product(&mut self, queue: Queue, product: &Product) -> Result<(), CudaError> {
        let lane = self.on(queue)?;
        let Some(workspace) = &lane.workspace else {
            return Err(CudaError::NotPrepared { what: format!("a product on queue {}", queue.0) });
        };
        let (product, after) = self.parts.products.parts(product)?;
        let follows = self.parts.products.launch(&product, &lane.stream, workspace)?;
        if let (Some((launch, stored)), Epilogue::Bias(bias)) = (follows, product.epilogue) {
            let width = Argument::Int(product.columns.cast_signed());
            let arguments = [Argument::At(product.result.at), Argument::At(bias), width];
            self.parts.kernels.launch(&lane.stream, &launch, stored, &arguments)?;
        }
        let Some(After { launch, stored, arguments }) = after else { return Ok(()) };
        self.parts.kernels.launch(&lane.stream, &launch, stored, &arguments)
    }

    fn capture(&mut self, queue: Queue) -> Result<(), CudaError> {
        self.outside("capture")?;
        let lane = self.on(queue)?;
        graphs::begin(&lane.stream)?;
        self.capturing = true;
        Ok(())
    }

    fn captured(&mut self, queue: Queue) -> Result<Graph, CudaError> {
        let ended = self.on(queue).and_then(|lane| graphs::end(&lane.stream));
        self.capturing = false;
        let kept = |moment: &&mut Moment| moment.recorded == Recorded::Kept;
        self.parts.events.iter_mut().filter(kept).for_each(|moment| moment.recorded = Recorded::Never);
        let graph = Graph(next(&self.parts.graphs));
        self.parts.graphs.push(ended?);
        Ok(graph)
    }

    fn repeat(&mut self, queue: Queue, graph: Graph) -> Result<(), CudaError> {
        self.outside("repeat")?;
        let lane = self.on(queue)?;
        let Some(graph) = self.parts.graphs.get(graph.0 as usize) else {
            return Err(CudaError::NotPrepared { what: format!("graph {}", graph.0) });
        };
        graph.launch(&lane.stream)
    }

    fn is_done(&mut self, queue: Queue) -> Result<bool, CudaError> {
        self.outside("is_done")?;
        self.on(queue)?.stream.is_done()
    }

    fn finish(&mut self) -> Result<(), CudaError> {
        self.outside("finish")?;
        self.bind()?;
        result::ctx::synchronize().named("cuCtxSynchronize")
    }

    fn between(&mut self, from: Event, to: Event) -> Result<f64, CudaError> {
        self.bind()?;
        let find = |event: Event| {
            let moment = self.parts.events.get(event.0 as usize);
            let moment = moment.filter(|moment| moment.recorded == Recorded::Live);
            moment
                .ok_or_else(|| CudaError::NotPrepared { what: format!("event {}, which is timed,", event.0) })
        };
        find(from)?.event.until(&find(to)?.event)
    }

    fn counters(&mut self, cells: Arc<[AtomicU32]>) -> Result<(), CudaError> {
        self.outside("counters")?;
        self.bind()?;
        self.parts.cells = Some(Cells::new(cells)?);
        Ok(())
    }

    fn count(&mut self, queue: Queue, cell: u32, value: u32) -> Result<(), CudaError> {
        let lane = self.on(queue)?;
        let Some(at) = self.parts.cells.as_ref().and_then(|cells| cells.at(cell)) else {
            return Err(CudaError::NotPrepared { what: format!("counter {cell}") });
        };
        lane.stream.write(at, value)
    }

    fn own_bytes(&self) -> u64 {
        self.parts.lanes.iter().filter_map(|lane| lane.workspace.as_ref()).map(Workspace::bytes).sum()
    }

    fn identity(&self) -> Option<[u64; 2]> {
        self.parts.context.identity().ok()
    }

    fn meeting(&mut self) -> Result<Meeting, CudaError> {
        self.bind()?;
        self.parts.network.meeting()
    }

    fn join(
        &mut self,
        channel: Channel,
        meeting: &Meeting,
        place: (u32, u32),
        patience: Duration,
    ) -> Result<(), CudaError> {
        self.outside("join")?;
        self.bind()?;
        self.parts.network.join(channel, meeting, place, patience)
    }

    fn transfer(&mut self, queue: Queue, transfer: &Transfer) -> Result<(), CudaError> {
        self.bind()?;
        let stream = self.stream(queue)?;
        self.parts.network.transfer(stream, transfer)
    }

    fn check(&mut self) -> Result<(), CudaError> {
        self.bind()?;
        self.parts.network.check()
    }

    fn leave(&mut self) -> Result<(), CudaError> {
        self.outside("leave")?;
        self.bind()?;
        // A communicator does not end before the graphs that its work is in.
        self.parts.graphs.clear();
        self.parts.network.leave()
    }

    fn ender(&self) -> Ender {
        self.parts.network.ender()
    }
}

impl Drop for Gpu {
    fn drop(&mut self) {
        if self.bind().is_err() {
            return;
        }
        // A communicator does not end before the graphs that its work is in.
        self.parts.graphs.clear();
        if !self.parts.network.end(PATIENCE) {
            return;
        }
        // A stream that failed is done.
        let runs = |lane: &Lane| matches!(lane.stream.is_done(), Ok(false));
        let until = Instant::now() + PATIENCE;
        while self.parts.lanes.iter().any(runs) {
            if Instant::now() > until {
                return;
            }
            sleep(Duration::from_millis(1));
        }
        // SAFETY: it is dropped here alone, and not used afterwards.
        unsafe { ManuallyDrop::drop(&mut self.parts) };
    }
}
