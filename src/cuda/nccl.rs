//! A rank of a run with one process a device -> its place in an NCCL communicator, and what it sends, receives and reduces there.
//!
//! `cudarc` asks the loader for `libnccl.so`, and for some names behind it, but never for `libnccl.so.2`, the only name in NVIDIA's wheels
//! and the one that the library has for the loader. A library loaded by its path is not found again under another name, and the loader
//! reads its path of folders once, at the start of the process. So the functions are taken here from the library that [`load`] finds; of
//! `cudarc` only the types are used. Results are taken as numbers: a newer NCCL has more of them.
//!
//! Communicators do not block. A call that NCCL does not finish at once is polled until it is done, failed, or a deadline passed; then the
//! communicator is aborted, which also ends the work that it has on the device. What was queued and never ends is ended from outside, by
//! an [`Aborter`]. One thread issues at a time. Several communicators of a device are issued in one order on all ranks; a send and a
//! receive that must both progress belong to one group. Two ranks on one device are refused by NCCL.

use std::ffi::{CStr, c_char, c_int, c_uint, c_void};
use std::mem::size_of;
use std::path::{Path, PathBuf};
use std::ptr;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use cudarc::nccl::sys::{ncclComm_t, ncclConfig_t, ncclUniqueId};

use super::{Address, CudaError, Library, Stream, load};

/// Bytes of a communicator's id.
pub const UNIQUE_ID: usize = 128;
/// The version that the configuration is written for.
const WRITTEN_FOR: c_uint = 2_28_03;
/// The oldest version that splits communicators.
const OLDEST: c_int = 2_18_00;
/// A number that is not said.
const UNSAID: c_int = c_int::MIN;
/// A result: done.
const SUCCESS: c_int = 0;
/// A result: not done yet.
const IN_PROGRESS: c_int = 7;
/// Polls before the thread sleeps between them.
const HASTY: u32 = 1000;

/// What all ranks of a communicator must know before they join it; one of them makes it and hands it out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UniqueId(pub [u8; UNIQUE_ID]);

/// What a buffer consists of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Element {
    /// One byte of whatever it is; not to be summed.
    Byte,
    /// f32.
    F32,
    /// bf16.
    Bf16,
}

impl Element {
    /// `ncclDataType_t`.
    fn number(self) -> c_int {
        match self {
            Self::Byte => 1,
            Self::F32 => 7,
            Self::Bf16 => 9,
        }
    }
}

/// How elements of several ranks become one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reduction {
    /// Their sum.
    Sum,
    /// The largest.
    Max,
}

impl Reduction {
    /// `ncclRedOp_t`.
    fn number(self) -> c_int {
        match self {
            Self::Sum => 0,
            Self::Max => 2,
        }
    }
}

macro_rules! functions {
    ($($name:ident = $symbol:literal: fn($($argument:ty),*) -> $result:ty;)*) => {
        /// NCCL's functions.
        struct Functions {
            $($name: unsafe extern "C" fn($($argument),*) -> $result,)*
        }

        impl Functions {
            /// Finds them all.
            fn of(library: &libloading::Library) -> Result<Self, &'static str> {
                Ok(Self {
                    $($name: {
                        // SAFETY: the type is that of NCCL's header, in which enumerations are as wide as integers.
                        *unsafe { library.get(concat!($symbol, "\0").as_bytes()) }.map_err(|_| $symbol)?
                    },)*
                })
            }
        }
    };
}

functions! {
    version = "ncclGetVersion": fn(*mut c_int) -> c_int;
    unique_id = "ncclGetUniqueId": fn(*mut ncclUniqueId) -> c_int;
    init = "ncclCommInitRankConfig": fn(*mut ncclComm_t, c_int, ncclUniqueId, c_int, *mut ncclConfig_t) -> c_int;
    split = "ncclCommSplit": fn(ncclComm_t, c_int, c_int, *mut ncclComm_t, *mut ncclConfig_t) -> c_int;
    finalize = "ncclCommFinalize": fn(ncclComm_t) -> c_int;
    destroy = "ncclCommDestroy": fn(ncclComm_t) -> c_int;
    abort = "ncclCommAbort": fn(ncclComm_t) -> c_int;
    async_error = "ncclCommGetAsyncError": fn(ncclComm_t, *mut c_int) -> c_int;
    last_error = "ncclGetLastError": fn(ncclComm_t) -> *const c_char;
    group_start = "ncclGroupStart": fn() -> c_int;
    group_end = "ncclGroupEnd": fn() -> c_int;
    send = "ncclSend": fn(*const c_void, usize, c_int, c_int, ncclComm_t, *mut c_void) -> c_int;
    receive = "ncclRecv": fn(*mut c_void, usize, c_int, c_int, ncclComm_t, *mut c_void) -> c_int;
    all_reduce = "ncclAllReduce": fn(*const c_void, *mut c_void, usize, c_int, c_int, ncclComm_t, *mut c_void) -> c_int;
    reduce = "ncclReduce": fn(*const c_void, *mut c_void, usize, c_int, c_int, c_int, ncclComm_t, *mut c_void) -> c_int;
    broadcast = "ncclBroadcast": fn(*const c_void, *mut c_void, usize, c_int, c_int, ncclComm_t, *mut c_void) -> c_int;
    all_gather = "ncclAllGather": fn(*const c_void, *mut c_void, usize, c_int, ncclComm_t, *mut c_void) -> c_int;
}

/// NCCL, loaded.
#[derive(Clone)]
pub struct Nccl {
    functions: Arc<Functions>,
    file: PathBuf,
    version: c_int,
}

impl Nccl {
    /// Loads NCCL for good. `path` is where it may be, as in [`super::probe`](fn@super::probe).
    ///
    /// # Errors
    /// There is none, or it is older than 2.18.
    pub fn open(path: Option<&Path>) -> Result<Self, CudaError> {
        let file = load(Library::Nccl, path)?;
        let unfit = |what: String| CudaError::NoNccl { looked: format!("{} {what}", file.display()) };
        // SAFETY: it is NCCL, whose initialisers any program may run; it was loaded before.
        let library = unsafe { libloading::Library::new(&file) };
        let library = library.map_err(|error| unfit(format!("cannot be loaded: {error}")))?;
        let functions = Functions::of(&library).map_err(|symbol| unfit(format!("has no `{symbol}`")))?;
        std::mem::forget(library);
        let mut version = 0;
        // SAFETY: NCCL writes one integer.
        let said = unsafe { (functions.version)(&raw mut version) };
        if said != SUCCESS || version < OLDEST {
            return Err(unfit(format!("is of version {version}, and 2.18 is needed")));
        }
        Ok(Self { functions: Arc::new(functions), file, version })
    }

    /// The file that it was loaded from; a bare name where the loader found it.
    #[must_use]
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// Its version, such as 2.28.9.
    #[must_use]
    pub fn version(&self) -> String {
        format!("{}.{}.{}", self.version / 10_000, self.version / 100 % 100, self.version % 100)
    }

    /// A new communicator's id.
    ///
    /// # Errors
    /// NCCL finds no network to meet on.
    pub fn unique_id(&self) -> Result<UniqueId, CudaError> {
        let mut id = ncclUniqueId { internal: [0; UNIQUE_ID] };
        // SAFETY: NCCL writes the id.
        let result = unsafe { (self.functions.unique_id)(&raw mut id) };
        if result != SUCCESS {
            return Err(self.failed("ncclGetUniqueId", result, ptr::null_mut()));
        }
        Ok(UniqueId(id.internal.map(c_char::cast_unsigned)))
    }

    /// Joins a communicator with the device that is current on this thread, and waits until all its ranks have come. `patience` is how
    /// long this and every later call may take.
    ///
    /// # Errors
    /// NCCL failed, or not all came in time.
    pub fn join(
        &self,
        id: &UniqueId,
        ranks: u32,
        rank: u32,
        patience: Duration,
    ) -> Result<Communicator, CudaError> {
        let id = ncclUniqueId { internal: id.0.map(u8::cast_signed) };
        let mut config = config();
        // NCCL may write the handle again when it is done. What did not end in time keeps its place.
        let place = Box::leak(Box::new(ptr::null_mut::<cudarc::nccl::sys::ncclComm>()));
        // SAFETY: the place and the configuration live; the configuration is read before the call returns.
        let result = unsafe {
            let (ranks, rank) = (ranks.cast_signed(), rank.cast_signed());
            (self.functions.init)(&raw mut *place, ranks, id, rank, &raw mut config)
        };
        let joined = Communicator::new(self, read(place), patience);
        joined.go_on("ncclCommInitRankConfig", result)?;
        // SAFETY: it is done, so that nothing writes there any more.
        drop(unsafe { Box::from_raw(place) });
        Ok(joined)
    }

    /// Makes one group of what is issued on some communicators meanwhile: none of it waits for another part of it. Waits until NCCL has
    /// queued all of it.
    ///
    /// # Errors
    /// The error of what was issued, else NCCL's.
    pub fn group<T>(
        &self,
        communicators: &mut [&mut Communicator],
        issue: impl FnOnce(&mut [&mut Communicator]) -> Result<T, CudaError>,
    ) -> Result<T, CudaError> {
        // SAFETY: it takes nothing. The end follows below on the same thread, whatever happens between.
        let started = unsafe { (self.functions.group_start)() };
        if started != SUCCESS {
            return Err(self.failed("ncclGroupStart", started, ptr::null_mut()));
        }
        let mut open = Open { nccl: self, communicators, closed: false };
        open.communicators.iter_mut().for_each(|communicator| communicator.grouped = true);
        let issued = issue(open.communicators);
        let ended = open.close();
        let issued = issued?;
        for communicator in open.communicators.iter() {
            communicator.go_on("ncclGroupEnd", ended)?;
        }
        Ok(issued)
    }

    fn failed(&self, call: &'static str, number: c_int, handle: ncclComm_t) -> CudaError {
        // SAFETY: the handle lives or is null; the text is NCCL's, ends with 0, and is copied at once.
        let last = unsafe {
            let last = (self.functions.last_error)(handle);
            if last.is_null() { String::new() } else { CStr::from_ptr(last).to_string_lossy().into_owned() }
        };
        let last = if last.trim().is_empty() { "NCCL says no more".to_owned() } else { last };
        CudaError::NcclFailed { call, name: name(number), number, last }
    }
}

/// A group that was started; it ends with this, even if what issues panics.
struct Open<'a, 'b> {
    nccl: &'a Nccl,
    communicators: &'a mut [&'b mut Communicator],
    closed: bool,
}

impl Open<'_, '_> {
    fn close(&mut self) -> c_int {
        self.closed = true;
        self.communicators.iter_mut().for_each(|communicator| communicator.grouped = false);
        // SAFETY: the group was started on this thread.
        unsafe { (self.nccl.functions.group_end)() }
    }
}

impl Drop for Open<'_, '_> {
    fn drop(&mut self) {
        if !self.closed {
            self.close();
        }
    }
}

/// A handle that another thread may write.
fn read(place: &ncclComm_t) -> ncclComm_t {
    // SAFETY: it is a reference.
    unsafe { ptr::read_volatile(place) }
}

/// What NCCL calls a result.
fn name(number: c_int) -> String {
    let names = [
        "ncclSuccess",
        "ncclUnhandledCudaError",
        "ncclSystemError",
        "ncclInternalError",
        "ncclInvalidArgument",
        "ncclInvalidUsage",
        "ncclRemoteError",
        "ncclInProgress",
        "ncclTimeout",
    ];
    let name = usize::try_from(number).ok().and_then(|number| names.get(number));
    name.map_or_else(|| "a result that schedc does not know".to_owned(), |&name| name.to_owned())
}

/// `NCCL_CONFIG_INITIALIZER`, but not blocking.
fn config() -> ncclConfig_t {
    ncclConfig_t {
        size: size_of::<ncclConfig_t>(),
        magic: 0xcafe_beef,
        version: WRITTEN_FOR,
        blocking: 0,
        cgaClusterSize: UNSAID,
        minCTAs: UNSAID,
        maxCTAs: UNSAID,
        netName: ptr::null(),
        splitShare: UNSAID,
        trafficClass: UNSAID,
        commName: ptr::null(),
        collnetEnable: UNSAID,
        CTAPolicy: UNSAID,
        shrinkShare: UNSAID,
        nvlsCTAs: UNSAID,
        nChannelsPerNetPeer: UNSAID,
        nvlinkCentricSched: UNSAID,
    }
}

/// A handle; null after it was aborted or destroyed.
struct Handle(ncclComm_t);

// SAFETY: NCCL takes its handles from any thread, one at a time, which the mutex around them sees to.
unsafe impl Send for Handle {}

/// A place in a communicator. Unless it was finished, it is aborted when it is dropped.
pub struct Communicator {
    nccl: Nccl,
    handle: Arc<Mutex<Handle>>,
    patience: Duration,
    /// Whether it is issued on as a part of a group.
    grouped: bool,
}

/// Ends a communicator from any thread, and with it the work that it has on the device.
#[derive(Clone)]
pub struct Aborter {
    nccl: Nccl,
    handle: Arc<Mutex<Handle>>,
}

impl Aborter {
    /// Ends it, if it has not ended yet. Whoever issues on it from now on is told so.
    pub fn abort(&self) {
        let mut handle = self.handle.lock().unwrap_or_else(PoisonError::into_inner);
        let ended = std::mem::replace(&mut handle.0, ptr::null_mut());
        if !ended.is_null() {
            // SAFETY: the handle lived until now, and nobody else has it any more. There is nothing to do about a failure.
            let _ = unsafe { (self.nccl.functions.abort)(ended) };
        }
    }
}

impl Communicator {
    fn new(nccl: &Nccl, handle: ncclComm_t, patience: Duration) -> Self {
        let handle = Arc::new(Mutex::new(Handle(handle)));
        Self { nccl: nccl.clone(), handle, patience, grouped: false }
    }

    /// What ends it from another thread.
    #[must_use]
    pub fn aborter(&self) -> Aborter {
        Aborter { nccl: self.nccl.clone(), handle: Arc::clone(&self.handle) }
    }

    /// Calls NCCL with the handle.
    fn with(
        &self,
        call: &'static str,
        body: impl FnOnce(&Functions, ncclComm_t) -> c_int,
    ) -> Result<c_int, CudaError> {
        let handle = self.handle.lock().unwrap_or_else(PoisonError::into_inner);
        if handle.0.is_null() {
            let reason = "the communicator was aborted".to_owned();
            return Err(CudaError::Failed { call, reason });
        }
        Ok(body(&self.nccl.functions, handle.0))
    }

    /// Goes on from a call's result: waits until it is done, unless it is one of a group. What failed or took too long is aborted.
    fn go_on(&self, call: &'static str, result: c_int) -> Result<(), CudaError> {
        let (mut state, mut polls) = (result, 0_u32);
        let until = Instant::now() + self.patience;
        loop {
            match state {
                SUCCESS => return Ok(()),
                IN_PROGRESS if self.grouped => return Ok(()),
                IN_PROGRESS if Instant::now() > until => {
                    self.aborter().abort();
                    let milliseconds = self.patience.as_millis() as u64;
                    return Err(CudaError::NcclStalled { call, milliseconds });
                }
                IN_PROGRESS => {}
                failed => return Err(self.fail(call, failed)),
            }
            polls = polls.saturating_add(1);
            if polls > HASTY {
                thread::sleep(Duration::from_micros(100));
            } else {
                std::hint::spin_loop();
            }
            state = self.state(call)?;
        }
    }

    /// Says what NCCL said, and ends the communicator.
    fn fail(&self, call: &'static str, number: c_int) -> CudaError {
        let handle = self.handle.lock().unwrap_or_else(PoisonError::into_inner);
        let error = self.nccl.failed(call, number, handle.0);
        drop(handle);
        self.aborter().abort();
        error
    }

    /// What NCCL says of what it does on its own.
    fn state(&self, call: &'static str) -> Result<c_int, CudaError> {
        let mut state = SUCCESS;
        // SAFETY: the handle lives; NCCL writes one integer.
        let asked =
            self.with(call, |functions, handle| unsafe { (functions.async_error)(handle, &raw mut state) })?;
        if asked == SUCCESS { Ok(state) } else { Err(self.fail(call, asked)) }
    }

    /// Whether what was queued goes well so far; never waits. A communicator that failed is aborted.
    ///
    /// # Errors
    /// It does not: a peer ended, or the network failed.
    pub fn check(&mut self) -> Result<(), CudaError> {
        match self.state("ncclCommGetAsyncError")? {
            SUCCESS | IN_PROGRESS => Ok(()),
            failed => Err(self.fail("ncclCommGetAsyncError", failed)),
        }
    }

    /// Sends elements to a rank.
    ///
    /// # Errors
    /// NCCL failed or stalled.
    pub fn send(
        &mut self,
        stream: Stream,
        to: u32,
        at: Address,
        element: Element,
        count: u64,
    ) -> Result<(), CudaError> {
        // SAFETY: the handle lives. That the place is memory of the communicator's device, large enough and not written before the
        // stream is past this, is the caller's promise; so below.
        let result = self.with("ncclSend", |functions, handle| unsafe {
            let (to, number) = (to.cast_signed(), element.number());
            (functions.send)(pointer(at), count as usize, number, to, handle, stream.0)
        })?;
        self.go_on("ncclSend", result)
    }

    /// Receives elements from a rank.
    ///
    /// # Errors
    /// NCCL failed or stalled.
    pub fn receive(
        &mut self,
        stream: Stream,
        from: u32,
        at: Address,
        element: Element,
        count: u64,
    ) -> Result<(), CudaError> {
        // SAFETY: as in `send`.
        let result = self.with("ncclRecv", |functions, handle| unsafe {
            let (from, number) = (from.cast_signed(), element.number());
            (functions.receive)(pointer(at), count as usize, number, from, handle, stream.0)
        })?;
        self.go_on("ncclRecv", result)
    }

    /// Reduces every rank's elements; all get the result, which may lie where the elements do.
    ///
    /// # Errors
    /// NCCL failed or stalled.
    pub fn all_reduce(
        &mut self,
        stream: Stream,
        (from, to): (Address, Address),
        (element, count): (Element, u64),
        reduction: Reduction,
    ) -> Result<(), CudaError> {
        // SAFETY: as in `send`.
        let result = self.with("ncclAllReduce", |functions, handle| unsafe {
            let (number, reduction) = (element.number(), reduction.number());
            let (from, to) = (pointer(from), pointer(to));
            (functions.all_reduce)(from, to, count as usize, number, reduction, handle, stream.0)
        })?;
        self.go_on("ncclAllReduce", result)
    }

    /// Reduces every rank's elements; one gets the result, the others' `to` is not used.
    ///
    /// # Errors
    /// NCCL failed or stalled.
    pub fn reduce(
        &mut self,
        stream: Stream,
        (from, to): (Address, Address),
        (element, count): (Element, u64),
        reduction: Reduction,
        root: u32,
    ) -> Result<(), CudaError> {
        // SAFETY: as in `send`.
        let result = self.with("ncclReduce", |functions, handle| unsafe {
            let (number, reduction, root) = (element.number(), reduction.number(), root.cast_signed());
            let (from, to) = (pointer(from), pointer(to));
            (functions.reduce)(from, to, count as usize, number, reduction, root, handle, stream.0)
        })?;
        self.go_on("ncclReduce", result)
    }

    /// Gives every rank the elements of one; the others' `from` is not used.
    ///
    /// # Errors
    /// NCCL failed or stalled.
    pub fn broadcast(
        &mut self,
        stream: Stream,
        (from, to): (Address, Address),
        (element, count): (Element, u64),
        root: u32,
    ) -> Result<(), CudaError> {
        // SAFETY: as in `send`.
        let result = self.with("ncclBroadcast", |functions, handle| unsafe {
            let (number, root) = (element.number(), root.cast_signed());
            (functions.broadcast)(pointer(from), pointer(to), count as usize, number, root, handle, stream.0)
        })?;
        self.go_on("ncclBroadcast", result)
    }

    /// Gives every rank the elements of all, in the order of the ranks: `count` of each.
    ///
    /// # Errors
    /// NCCL failed or stalled.
    pub fn all_gather(
        &mut self,
        stream: Stream,
        (from, to): (Address, Address),
        (element, count): (Element, u64),
    ) -> Result<(), CudaError> {
        // SAFETY: as in `send`.
        let result = self.with("ncclAllGather", |functions, handle| unsafe {
            let number = element.number();
            (functions.all_gather)(pointer(from), pointer(to), count as usize, number, handle, stream.0)
        })?;
        self.go_on("ncclAllGather", result)
    }

    /// A communicator of those ranks that come with the same colour, in the order of their keys; none for those without one. All ranks
    /// of this one call it.
    ///
    /// # Errors
    /// NCCL failed or stalled.
    pub fn split(&mut self, colour: Option<u32>, key: u32) -> Result<Option<Self>, CudaError> {
        let colour = colour.map_or(-1, u32::cast_signed);
        let mut config = config();
        // NCCL writes the handle when it is done. What did not end in time keeps its place.
        let place = Box::leak(Box::new(ptr::null_mut::<cudarc::nccl::sys::ncclComm>()));
        // SAFETY: the handle, the place and the configuration live.
        let result = self.with("ncclCommSplit", |functions, handle| unsafe {
            (functions.split)(handle, colour, key.cast_signed(), &raw mut *place, &raw mut config)
        })?;
        self.go_on("ncclCommSplit", result)?;
        let handle = read(place);
        if handle.is_null() {
            // SAFETY: it is done, so that nothing writes there any more.
            drop(unsafe { Box::from_raw(place) });
            return Ok(None);
        }
        let part = Self::new(&self.nccl, handle, self.patience);
        part.go_on("ncclCommSplit", IN_PROGRESS)?;
        // SAFETY: as above.
        drop(unsafe { Box::from_raw(place) });
        Ok(Some(part))
    }

    /// Waits until all that was queued on it has run, and ends it.
    ///
    /// # Errors
    /// NCCL failed or stalled; it is aborted then.
    pub fn finish(self) -> Result<(), CudaError> {
        // SAFETY: the handle lives.
        let result =
            self.with("ncclCommFinalize", |functions, handle| unsafe { (functions.finalize)(handle) })?;
        self.go_on("ncclCommFinalize", result)?;
        let mut handle = self.handle.lock().unwrap_or_else(PoisonError::into_inner);
        let ended = std::mem::replace(&mut handle.0, ptr::null_mut());
        drop(handle);
        if ended.is_null() {
            return Ok(());
        }
        // SAFETY: the handle lived until now, and nobody else has it any more.
        let result = unsafe { (self.nccl.functions.destroy)(ended) };
        if result == SUCCESS {
            return Ok(());
        }
        Err(self.nccl.failed("ncclCommDestroy", result, ptr::null_mut()))
    }
}

impl Drop for Communicator {
    fn drop(&mut self) {
        self.aborter().abort();
    }
}

/// A place as NCCL takes it.
fn pointer(at: Address) -> *mut c_void {
    at.0 as usize as *mut c_void
}
