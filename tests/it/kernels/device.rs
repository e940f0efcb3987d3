//! A device that is the host: kernels by the shim, products by loops. It keeps what is queued until something waits for it, and then runs
//! the queues in an order that a seed chooses, so that a missing wait shows.
#![allow(clippy::cast_ptr_alignment, reason = "matrices lie at multiples of four bytes, which is asserted")]

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use schedc::cuda::{
    Address, Argument, Channel, CudaError, Device, Ender, Epilogue, Event, Graph, Matrix, Meeting, Move,
    Product, Purpose, Queue, Transfer, UniqueId,
};
use schedc::execute::cpu::plain;
use schedc::kernels::{Launch, Stored};

use super::host::{Host, bf16_bits};
use super::hub::Hub;

/// What was queued.
#[derive(Clone, Debug)]
enum Pending {
    /// With the number of the record.
    Record(Event, u64),
    /// For that record.
    Wait(Event, u64),
    Copy(Address, Address, usize),
    Zero(Address, usize),
    Write(Address, Vec<u8>),
    Launch(Launch, Stored, Vec<u64>),
    Product(Product),
    /// With its number on its channel, and whether this member has given its part.
    Transfer(Transfer, u64, bool),
    Count(u32, u32),
}

/// A call of a captured sequence.
#[derive(Clone, Debug)]
enum Captured {
    Record(Event, Queue),
    Wait(Queue, Event),
    Other(Queue, Pending),
}

/// How long another device may take to come.
const PATIENCE: Duration = Duration::from_mins(1);

/// The host as a device.
pub(crate) struct HostDevice {
    host: &'static Host,
    memory: Vec<(*mut u8, Layout)>,
    queues: Vec<VecDeque<Pending>>,
    purposes: Vec<Purpose>,
    /// For each event, how often it was recorded, which of these records is over, and at which tick.
    events: Vec<(u64, u64, u64)>,
    /// Calls that have run.
    ticks: u64,
    launches: BTreeSet<String>,
    draws: ChaCha8Rng,
    /// Queues, those that run first before the others.
    preference: Vec<usize>,
    captured: Option<Vec<Captured>>,
    graphs: Vec<Vec<Captured>>,
    /// Whether it runs everything in the order in which it was asked for, as a device may that has one queue in truth.
    pub(crate) serial: bool,
    issued: VecDeque<usize>,
    /// What tells it from others.
    pub(crate) identity: Option<[u64; 2]>,
    /// Waits so far, and the one that is forgotten.
    waits: usize,
    pub(crate) forgotten: Option<usize>,
    /// Whether nothing may be allocated any more.
    pub(crate) ready: bool,
    hub: Option<Arc<Hub>>,
    /// For each channel that was joined its members, this one, and the transfers so far.
    channels: HashMap<Channel, (u32, u32, u64)>,
    cells: Arc<[AtomicU32]>,
}

// SAFETY: its memory is its own.
unsafe impl Send for HostDevice {}

impl std::fmt::Debug for HostDevice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HostDevice").field("queues", &self.queues.len()).finish_non_exhaustive()
    }
}

impl HostDevice {
    pub(crate) fn new(host: &'static Host, seed: u64) -> Self {
        Self {
            host,
            memory: Vec::new(),
            queues: Vec::new(),
            purposes: Vec::new(),
            events: Vec::new(),
            ticks: 0,
            launches: BTreeSet::new(),
            draws: ChaCha8Rng::seed_from_u64(seed),
            preference: Vec::new(),
            captured: None,
            graphs: Vec::new(),
            serial: false,
            issued: VecDeque::new(),
            identity: None,
            waits: 0,
            forgotten: None,
            ready: false,
            hub: None,
            channels: HashMap::new(),
            cells: Arc::new([]),
        }
    }

    /// One of several, with a network between them.
    pub(crate) fn on(hub: &Arc<Hub>, host: &'static Host, seed: u64) -> Self {
        let mut device = Self::new(host, seed);
        device.hub = Some(Arc::clone(hub));
        device
    }

    /// The kernels for a type; sums of gradients are f32 in either case.
    fn host_of(&self, stored: Stored) -> &'static Host {
        if stored == self.host.stored {
            return self.host;
        }
        let all = super::hosts().expect("there are kernels for the device itself");
        all.iter().find(|host| host.stored == stored).expect("there are kernels for both types")
    }

    /// How many waits there were.
    pub(crate) fn waits(&self) -> usize {
        self.waits
    }

    /// Bytes of each allocation.
    pub(crate) fn allocations(&self) -> Vec<u64> {
        self.memory.iter().map(|(_, layout)| layout.size() as u64 - 1).collect()
    }

    /// Fills an allocation with what reads as NaN.
    pub(crate) fn poison(&mut self, allocation: usize) {
        let (start, layout) = self.memory[allocation];
        // SAFETY: it was allocated so, and nothing is running.
        unsafe { start.write_bytes(u8::MAX, layout.size()) };
    }

    /// Fails unless a range lies within one allocation.
    #[track_caller]
    fn within(&self, at: Address, bytes: usize) -> *mut u8 {
        let inside = |&(start, layout): &(*mut u8, Layout)| {
            at.0 >= start as u64 && at.0 + (bytes as u64) < start as u64 + layout.size() as u64
        };
        assert!(bytes == 0 || self.memory.iter().any(inside), "{at:?} and {bytes} bytes are no memory");
        at.0 as *mut u8
    }

    fn put(&mut self, queue: Queue, pending: Pending) {
        if let Some(list) = &mut self.captured {
            list.push(Captured::Other(queue, pending));
            return;
        }
        self.queues[queue.0 as usize].push_back(pending);
        self.issued.push_back(queue.0 as usize);
    }

    /// Runs one call of a queue that may go on; false where none may.
    fn advance(&mut self) -> bool {
        if self.preference.len() != self.queues.len() || self.draws.random_range(0..24) == 0 {
            self.preference = (0..self.queues.len()).collect();
            for last in (1..self.preference.len()).rev() {
                let other = self.draws.random_range(0..=last);
                self.preference.swap(last, other);
            }
        }
        let may = |queue: &usize| match self.queues[*queue].front() {
            Some(Pending::Wait(event, record)) => self.events[event.0 as usize].1 >= *record,
            Some(_) => true,
            None => false,
        };
        let ready: Vec<usize> = match self.serial.then(|| self.issued.front()) {
            Some(oldest) => oldest.copied().into_iter().collect(),
            None => self.preference.iter().copied().filter(may).collect(),
        };
        let Some(queue) = ready.into_iter().find(|&queue| self.comes(queue)) else { return false };
        let Some(pending) = self.queues[queue].pop_front() else { return false };
        if self.serial {
            self.issued.pop_front();
        }
        self.ticks += 1;
        self.run(pending);
        true
    }

    fn run(&mut self, pending: Pending) {
        match pending {
            Pending::Record(event, record) => {
                let event = &mut self.events[event.0 as usize];
                (event.1, event.2) = (record, self.ticks);
            }
            // The result of a transfer was written when all members had come.
            Pending::Wait(..) | Pending::Transfer(..) => {}
            Pending::Copy(to, from, bytes) => {
                let (to, from) = (self.within(to, bytes), self.within(from, bytes));
                assert!(to.addr().abs_diff(from.addr()) >= bytes, "the two places of a copy overlap");
                // SAFETY: both lie within allocations and do not overlap.
                unsafe { from.copy_to_nonoverlapping(to, bytes) };
            }
            Pending::Zero(at, bytes) => {
                let at = self.within(at, bytes);
                // SAFETY: it lies within an allocation.
                unsafe { at.write_bytes(0, bytes) };
            }
            Pending::Write(to, from) => {
                let to = self.within(to, from.len());
                // SAFETY: it lies within an allocation, and not in `from`.
                unsafe { from.as_ptr().copy_to_nonoverlapping(to, from.len()) };
            }
            Pending::Launch(launch, stored, mut words) => {
                let name = launch.kernel.name();
                let descending = self.draws.random_range(0..2) == 0;
                self.host_of(stored)
                    .call(name, launch, &mut words, descending)
                    .unwrap_or_else(|error| panic!("{name}: {error}"));
            }
            Pending::Product(product) => self.multiply(&product),
            Pending::Count(cell, value) => self.cells[cell as usize].store(value, Ordering::Relaxed),
        }
    }

    /// Gives this member's part of a transfer at the head of a queue, and takes its result once all members have come; whether the queue
    /// goes on.
    fn comes(&mut self, queue: usize) -> bool {
        let Some(&Pending::Transfer(transfer, sequence, given)) = self.queues[queue].front() else {
            return true;
        };
        let hub = Arc::clone(self.hub.as_ref().expect("there is a network"));
        let (members, member, _) = self.channels[&transfer.channel];
        let bytes = 4 * transfer.words as usize;
        if !given {
            let has_data = match transfer.what {
                Move::Receive => false,
                Move::Broadcast { root } => root == member,
                _ => true,
            };
            let data = has_data.then(|| self.bytes(transfer.from.expect("it gives something"), bytes));
            hub.give(&transfer, sequence, (members, member), data);
            self.queues[queue][0] = Pending::Transfer(transfer, sequence, true);
        }
        let Some(result) = hub.take(&transfer, sequence, member) else { return false };
        if !result.is_empty() {
            let to = self.within(transfer.to.expect("it gets something"), result.len());
            // SAFETY: it lies within an allocation, and not in the result.
            unsafe { result.as_ptr().copy_to_nonoverlapping(to, result.len()) };
        }
        true
    }

    /// What lies in a place.
    fn bytes(&self, at: Address, count: usize) -> Vec<u8> {
        let at = self.within(at, count);
        // SAFETY: it lies within an allocation.
        unsafe { std::slice::from_raw_parts(at, count) }.to_vec()
    }

    /// Waits for other devices; fails where that was ended, or takes too long.
    fn wait_for_others(&self, until: Instant) -> Result<(), CudaError> {
        let hub = self.hub.as_ref().expect("queues wait for each other");
        assert!(Instant::now() < until, "no other device comes");
        if hub.has_ended() {
            return Err(CudaError::Failed { call: "read", reason: "the channels were ended".to_owned() });
        }
        hub.nap();
        Ok(())
    }

    /// A matrix of so many rows and columns, as they are read.
    fn numbers(&self, matrix: Matrix, rows: u32, columns: u32) -> Vec<f32> {
        let [rows, columns, stride] = [rows, columns, matrix.stride].map(|side| side as usize);
        let [lines, length] = if matrix.turned { [columns, rows] } else { [rows, columns] };
        assert!(stride >= length, "rows of {length} lie {stride} apart");
        let each = matrix.stored.bytes() as usize;
        assert!((matrix.at.0 as usize).is_multiple_of(each));
        let at = self.within(matrix.at, each * ((lines - 1) * stride + length));
        let of = |row: usize, column: usize| {
            let (line, place) = if matrix.turned { (column, row) } else { (row, column) };
            // SAFETY: it lies within an allocation, as was asked for above, and is aligned.
            unsafe { read(at, line * stride + place, matrix.stored) }
        };
        (0..rows * columns).map(|index| of(index / columns, index % columns)).collect()
    }

    fn multiply(&self, product: &Product) {
        let Product { rows, columns, inner, left, right, result, adds, epilogue } = *product;
        assert!(!result.turned && rows > 0 && columns > 0 && inner > 0);
        let (left, right) = (self.numbers(left, rows, inner), self.numbers(right, inner, columns));
        let mut sums =
            if adds { self.numbers(result, rows, columns) } else { vec![0.0; (rows * columns) as usize] };
        let width = columns as usize;
        for (row, sums) in sums.chunks_exact_mut(width).enumerate() {
            for at in 0..inner as usize {
                let factor = left[row * inner as usize + at];
                let other = &right[at * width..(at + 1) * width];
                sums.iter_mut().zip(other).for_each(|(sum, other)| *sum = factor.mul_add(*other, *sum));
            }
        }
        let lies = |at: Address| Matrix { at, turned: false, ..result };
        if let Epilogue::Bias(at) | Epilogue::Gelu { bias: at, .. } = epilogue {
            let bias = self.numbers(lies(at), 1, columns);
            sums.chunks_exact_mut(width)
                .for_each(|row| row.iter_mut().zip(&bias).for_each(|(sum, bias)| *sum += bias));
        }
        match epilogue {
            Epilogue::Plain | Epilogue::Bias(_) => {}
            Epilogue::Gelu { before, .. } => {
                let kept = std::mem::take(&mut sums);
                sums = plain::gelu(&kept);
                self.put_numbers(lies(before), [rows, columns], kept);
            }
            Epilogue::GeluGradient { before } => {
                let before = self.numbers(lies(before), rows, columns);
                sums = plain::gelu_gradient(&sums, &before);
            }
        }
        self.put_numbers(result, [rows, columns], sums);
    }

    /// Writes a matrix.
    fn put_numbers(&self, result: Matrix, [rows, columns]: [u32; 2], sums: Vec<f32>) {
        let width = columns as usize;
        let each = result.stored.bytes() as usize;
        assert!((result.at.0 as usize).is_multiple_of(each) && result.stride >= columns);
        let extent = (rows - 1) * result.stride + columns;
        let to = self.within(result.at, each * extent as usize);
        for (index, sum) in sums.into_iter().enumerate() {
            let place = index / width * result.stride as usize + index % width;
            // SAFETY: the extent lies within an allocation.
            unsafe { write(to, place, result.stored, sum) };
        }
    }

    /// Runs until a queue is empty.
    fn drain(&mut self, queue: Queue) -> Result<(), CudaError> {
        let mut until = Instant::now() + PATIENCE;
        while !self.queues[queue.0 as usize].is_empty() {
            if self.advance() {
                until = Instant::now() + PATIENCE;
            } else {
                self.wait_for_others(until)?;
            }
        }
        Ok(())
    }

    fn said(launch: Launch, stored: Stored) -> String {
        format!("{launch:?} {stored:?}")
    }
}

impl Drop for HostDevice {
    fn drop(&mut self) {
        for (start, layout) in self.memory.drain(..) {
            // SAFETY: it was allocated so.
            unsafe { dealloc(start, layout) };
        }
    }
}

impl Device for HostDevice {
    fn allocate(&mut self, bytes: u64) -> Result<Address, CudaError> {
        assert!(!self.ready, "memory is allocated before the first step");
        // One more byte, so that there is one.
        let layout = Layout::from_size_align(bytes as usize + 1, 256).unwrap();
        // SAFETY: the layout has a size.
        let start = unsafe { alloc_zeroed(layout) };
        self.memory.push((start, layout));
        Ok(Address(start as u64))
    }

    fn queue(&mut self, purpose: Purpose) -> Result<Queue, CudaError> {
        assert!(!self.ready, "queues are made before the first step");
        self.queues.push(VecDeque::new());
        self.purposes.push(purpose);
        Ok(Queue(self.queues.len() as u32 - 1))
    }

    fn event(&mut self, _: bool) -> Result<Event, CudaError> {
        assert!(!self.ready, "events are made before the first step");
        self.events.push((0, 0, 0));
        Ok(Event(self.events.len() as u32 - 1))
    }

    fn prepare(&mut self, launches: &[(Launch, Stored)], _: &[Product]) -> Result<(), CudaError> {
        assert!(!self.ready, "code is made ready before the first step");
        self.launches.extend(launches.iter().map(|&(launch, stored)| Self::said(launch, stored)));
        Ok(())
    }

    fn record(&mut self, event: Event, queue: Queue) -> Result<(), CudaError> {
        if let Some(list) = &mut self.captured {
            list.push(Captured::Record(event, queue));
            return Ok(());
        }
        let recorded = &mut self.events[event.0 as usize].0;
        *recorded += 1;
        let record = *recorded;
        self.put(queue, Pending::Record(event, record));
        Ok(())
    }

    fn wait(&mut self, queue: Queue, event: Event) -> Result<(), CudaError> {
        if let Some(list) = &mut self.captured {
            list.push(Captured::Wait(queue, event));
            return Ok(());
        }
        let record = self.events[event.0 as usize].0;
        assert!(record > 0, "{event:?} is waited for before it was ever recorded");
        if self.forgotten != Some(self.waits) {
            self.put(queue, Pending::Wait(event, record));
        }
        self.waits += 1;
        Ok(())
    }

    fn copy(&mut self, queue: Queue, to: Address, from: Address, bytes: u64) -> Result<(), CudaError> {
        self.put(queue, Pending::Copy(to, from, bytes as usize));
        Ok(())
    }

    fn zero(&mut self, queue: Queue, at: Address, bytes: u64) -> Result<(), CudaError> {
        self.put(queue, Pending::Zero(at, bytes as usize));
        Ok(())
    }

    fn write(&mut self, queue: Queue, to: Address, from: &[u8]) -> Result<(), CudaError> {
        self.put(queue, Pending::Write(to, from.to_vec()));
        Ok(())
    }

    fn read(&mut self, queue: Queue, from: Address, into: &mut [u8]) -> Result<(), CudaError> {
        self.drain(queue)?;
        let from = self.within(from, into.len());
        // SAFETY: it lies within an allocation, and not in `into`.
        unsafe { from.copy_to_nonoverlapping(into.as_mut_ptr(), into.len()) };
        Ok(())
    }

    fn launch(
        &mut self,
        queue: Queue,
        launch: Launch,
        stored: Stored,
        arguments: &[Argument],
    ) -> Result<(), CudaError> {
        let said = Self::said(launch, stored);
        assert!(self.launches.contains(&said), "{said} was not prepared");
        assert!(stored == self.host.stored || stored == Stored::F32);
        let words = arguments.iter().map(|argument| match *argument {
            Argument::At(at) => at.0,
            Argument::Int(value) => value.cast_unsigned().into(),
            Argument::Long(value) => value.cast_unsigned(),
            Argument::Float(value) => value.to_bits().into(),
        });
        self.put(queue, Pending::Launch(launch, stored, words.collect()));
        Ok(())
    }

    fn product(&mut self, queue: Queue, product: &Product) -> Result<(), CudaError> {
        assert_eq!(self.purposes[queue.0 as usize], Purpose::Passes, "a queue of moves has no products");
        self.put(queue, Pending::Product(*product));
        Ok(())
    }

    fn capture(&mut self, _: Queue) -> Result<(), CudaError> {
        self.captured = Some(Vec::new());
        Ok(())
    }

    fn captured(&mut self, _: Queue) -> Result<Graph, CudaError> {
        self.graphs.push(self.captured.take().unwrap());
        Ok(Graph(self.graphs.len() as u32 - 1))
    }

    fn repeat(&mut self, _: Queue, graph: Graph) -> Result<(), CudaError> {
        for call in self.graphs[graph.0 as usize].clone() {
            match call {
                Captured::Record(event, queue) => self.record(event, queue)?,
                Captured::Wait(queue, event) => self.wait(queue, event)?,
                Captured::Other(queue, Pending::Transfer(transfer, ..)) => self.transfer(queue, &transfer)?,
                Captured::Other(queue, pending) => self.put(queue, pending),
            }
        }
        Ok(())
    }

    /// Goes on with what it can meanwhile, as a device does by itself.
    fn is_done(&mut self, queue: Queue) -> Result<bool, CudaError> {
        while self.advance() {}
        Ok(self.queues[queue.0 as usize].is_empty())
    }

    fn finish(&mut self) -> Result<(), CudaError> {
        (0..self.queues.len()).try_for_each(|queue| self.drain(Queue(queue as u32)))
    }

    /// A microsecond for each call that has run.
    fn between(&mut self, from: Event, to: Event) -> Result<f64, CudaError> {
        let at = |event: Event| {
            let (recorded, over, tick) = self.events[event.0 as usize];
            assert!(recorded > 0 && over == recorded, "{event:?} is not over");
            tick as f64
        };
        Ok(at(to) - at(from))
    }

    fn counters(&mut self, cells: Arc<[AtomicU32]>) -> Result<(), CudaError> {
        self.cells = cells;
        Ok(())
    }

    fn count(&mut self, queue: Queue, cell: u32, value: u32) -> Result<(), CudaError> {
        assert!((cell as usize) < self.cells.len());
        self.put(queue, Pending::Count(cell, value));
        Ok(())
    }

    fn own_bytes(&self) -> u64 {
        0
    }

    fn identity(&self) -> Option<[u64; 2]> {
        self.identity
    }

    fn meeting(&mut self) -> Result<Meeting, CudaError> {
        assert!(self.hub.is_some(), "there is a network");
        Ok(UniqueId(std::array::from_fn(|byte| byte as u8)))
    }

    fn join(
        &mut self,
        channel: Channel,
        meeting: &Meeting,
        place: (u32, u32),
        patience: Duration,
    ) -> Result<(), CudaError> {
        assert_eq!(meeting.0[127], 127, "a meeting arrives whole");
        let hub = self.hub.clone().expect("there is a network");
        hub.join(channel);
        let until = Instant::now() + patience.min(PATIENCE);
        while !hub.all_joined(channel, place.0) {
            self.wait_for_others(until)?;
        }
        assert!(self.channels.insert(channel, (place.0, place.1, 0)).is_none(), "a channel is joined twice");
        Ok(())
    }

    fn transfer(&mut self, queue: Queue, transfer: &Transfer) -> Result<(), CudaError> {
        if self.captured.is_some() {
            self.put(queue, Pending::Transfer(*transfer, 0, false));
            return Ok(());
        }
        let (_, _, count) = self.channels.get_mut(&transfer.channel).expect("the channel was joined");
        let sequence = *count;
        *count += 1;
        self.put(queue, Pending::Transfer(*transfer, sequence, false));
        Ok(())
    }

    fn check(&mut self) -> Result<(), CudaError> {
        Ok(())
    }

    fn leave(&mut self) -> Result<(), CudaError> {
        self.channels.clear();
        Ok(())
    }

    fn ender(&self) -> Ender {
        let hub = self.hub.clone();
        Arc::new(move || {
            if let Some(hub) = &hub {
                hub.end();
            }
        })
    }
}

/// Reads an element.
///
/// # Safety
/// It lies within an allocation, aligned.
unsafe fn read(at: *const u8, index: usize, stored: Stored) -> f32 {
    // SAFETY: the caller's promise.
    unsafe {
        match stored {
            Stored::F32 => at.cast::<f32>().add(index).read(),
            Stored::Bf16 => f32::from_bits(u32::from(at.cast::<u16>().add(index).read()) << 16),
        }
    }
}

/// Writes an element.
///
/// # Safety
/// It lies within an allocation, aligned.
unsafe fn write(at: *mut u8, index: usize, stored: Stored, value: f32) {
    // SAFETY: the caller's promise.
    unsafe {
        match stored {
            Stored::F32 => at.cast::<f32>().add(index).write(value),
            Stored::Bf16 => at.cast::<u16>().add(index).write(bf16_bits(value)),
        }
    }
}
