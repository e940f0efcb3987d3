//! A place in a communicator: what is issued on it, and its end.

use std::ffi::{c_int, c_void};
use std::ptr;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use cudarc::nccl::sys::ncclComm_t;

use super::super::{Address, CudaError, Stream};
use super::functions::{Functions, IN_PROGRESS, SUCCESS, config, read};
use super::{Element, Nccl, Reduction};

/// Polls before the thread sleeps between them.
const HASTY: u32 = 1000;

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
    pub(super) grouped: bool,
}

/// Ends a communicator from any thread, and with it the work that it has on the device.
#[derive(Clone)]
pub struct Aborter {
    nccl: Nccl,
    handle: Arc<Mutex<Handle>>,
}

impl Aborter {
    /// Ends it, if it has not ended yet. Whoever issues on it from now on is told so. NCCL may wait here for all work of the device, that of
    /// other communicators included: end those that wait for each other on a thread each.
    pub fn abort(&self) {
        let mut handle = self.handle.lock().unwrap_or_else(PoisonError::into_inner);
        let ended = std::mem::replace(&mut handle.0, ptr::null_mut());
        // The call may wait for the device, and who asks meanwhile shall be told that it has ended.
        drop(handle);
        if !ended.is_null() {
            // SAFETY: the handle lived until now, and nobody else has it any more. There is nothing to do about a failure.
            let _ = unsafe { (self.nccl.functions.abort)(ended) };
        }
    }
}

impl Communicator {
    pub(super) fn new(nccl: &Nccl, handle: ncclComm_t, patience: Duration) -> Self {
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

    /// A message; one that is no part of a group is a group of its own, since NCCL 2.23 may say that another is queued before it is. Nobody
    /// ends the communicator meanwhile.
    fn message(
        &self,
        call: &'static str,
        body: impl FnOnce(&Functions, ncclComm_t) -> c_int,
    ) -> Result<(), CudaError> {
        let alone = !self.grouped;
        let result = self.with(call, |functions, handle| {
            // SAFETY: they take nothing; the end follows on the same thread, whatever happens between.
            let started = if alone { unsafe { (functions.group_start)() } } else { SUCCESS };
            if started != SUCCESS {
                return started;
            }
            let issued = body(functions, handle);
            // SAFETY: as above.
            let ended = if alone { unsafe { (functions.group_end)() } } else { SUCCESS };
            if matches!(issued, SUCCESS | IN_PROGRESS) && alone { ended } else { issued }
        })?;
        self.go_on(call, result)
    }

    /// Goes on from a call's result: waits until it is done, unless it is one of a group. What failed or took too long is aborted.
    pub(super) fn go_on(&self, call: &'static str, result: c_int) -> Result<(), CudaError> {
        let (mut state, mut polls) = (result, 0_u32);
        if state == SUCCESS && !self.grouped {
            // Some versions say so of a send or a receive before it is queued.
            state = self.state(call)?;
        }
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
        self.message("ncclSend", |functions, handle| unsafe {
            let (to, number) = (to.cast_signed(), element.number());
            (functions.send)(pointer(at), count as usize, number, to, handle, stream.0)
        })
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
        self.message("ncclRecv", |functions, handle| unsafe {
            let (from, number) = (from.cast_signed(), element.number());
            (functions.receive)(pointer(at), count as usize, number, from, handle, stream.0)
        })
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

    /// Reduces every rank's elements, and gives each rank its share of the result, in the order of the ranks: `count` to each.
    ///
    /// # Errors
    /// NCCL failed or stalled.
    pub fn reduce_scatter(
        &mut self,
        stream: Stream,
        (from, to): (Address, Address),
        (element, count): (Element, u64),
        reduction: Reduction,
    ) -> Result<(), CudaError> {
        // SAFETY: as in `send`.
        let result = self.with("ncclReduceScatter", |functions, handle| unsafe {
            let (number, reduction) = (element.number(), reduction.number());
            let (from, to) = (pointer(from), pointer(to));
            (functions.reduce_scatter)(from, to, count as usize, number, reduction, handle, stream.0)
        })?;
        self.go_on("ncclReduceScatter", result)
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
