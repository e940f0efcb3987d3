//! What the driver hands out -> owners that give it back when they are dropped.
//!
//! No drop panics or waits for an answer: what can't be given back (a device that failed) goes with the process. All of them need the
//! context to be current, which [`super::Gpu`] sees to.

use std::ffi::c_void;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;

use cudarc::driver::result;
use cudarc::driver::sys;

use super::super::CudaError;
use super::driver::{Named as _, said};
use crate::ir::Bytes;

/// Memory of the device.
pub(super) struct Memory {
    at: sys::CUdeviceptr,
}

impl Memory {
    /// So many bytes (one at least), zeroed, aligned to 256 at least. Waits for the device.
    pub(super) fn new(bytes: u64, what: &'static str) -> Result<Self, CudaError> {
        let asked = usize::try_from(bytes.max(1)).unwrap_or(usize::MAX);
        // SAFETY: it is written before anything reads it.
        let made = unsafe { result::malloc_sync(asked) };
        let at = made.map_err(|error| {
            if error.0 != sys::CUresult::CUDA_ERROR_OUT_OF_MEMORY {
                return CudaError::Failed { call: "cuMemAlloc", reason: said(error) };
            }
            let (free, total) = free();
            CudaError::OutOfMemory { what, asked: Bytes(bytes), free, total }
        })?;
        let memory = Self { at };
        // SAFETY: so many bytes were just given; nothing else knows of them.
        unsafe { result::memset_d8_sync(at, 0, asked) }.named("cuMemsetD8")?;
        // It may return before it is done, and no queue of ours waits for the default one.
        result::ctx::synchronize().named("cuCtxSynchronize")?;
        Ok(memory)
    }

    /// Its first byte.
    pub(super) fn at(&self) -> sys::CUdeviceptr {
        self.at
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: it was given by the driver and is freed once.
        let _ = unsafe { result::free_sync(self.at) };
    }
}

/// Free and total memory of the current device; 0 where the driver does not say.
pub(super) fn free() -> (Bytes, Bytes) {
    let (free, total) = result::mem_get_info().unwrap_or((0, 0));
    (Bytes(free as u64), Bytes(total as u64))
}

/// Memory of the host that the device copies from and to by itself.
pub(super) struct Pinned {
    at: *mut u8,
    bytes: usize,
}

impl Pinned {
    /// So many bytes, zeroed. Cached, since the host reads it too.
    pub(super) fn new(bytes: usize) -> Result<Self, CudaError> {
        // SAFETY: it is written before anything reads it.
        let at = unsafe { result::malloc_host(bytes, 0) }.named("cuMemHostAlloc")?.cast::<u8>();
        // SAFETY: so many bytes were just given.
        unsafe { at.write_bytes(0, bytes) };
        Ok(Self { at, bytes })
    }

    /// Copies into its beginning. The device must not be reading it.
    pub(super) fn fill(&mut self, from: &[u8]) {
        let count = from.len().min(self.bytes);
        // SAFETY: it has so many bytes, and is no memory of the slice.
        unsafe { self.at.copy_from_nonoverlapping(from.as_ptr(), count) };
    }

    /// Copies out of its beginning. The device must not be writing it.
    pub(super) fn empty(&self, into: &mut [u8]) {
        let count = into.len().min(self.bytes);
        // SAFETY: it has so many bytes, all written once, and is no memory of the slice.
        unsafe { self.at.copy_to_nonoverlapping(into.as_mut_ptr(), count) };
    }

    /// How much it holds.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Its first byte.
    pub(super) fn at(&self) -> *mut u8 {
        self.at
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        // SAFETY: it was given by the driver and is freed once.
        let _ = unsafe { result::free_host(self.at.cast()) };
    }
}

/// Numbers of the host that the device writes. They live as long as anyone looks at them; the device knows them until this is dropped.
pub(super) struct Cells {
    cells: Arc<[AtomicU32]>,
    /// The first one's place, as the device knows it.
    first: sys::CUdeviceptr,
}

impl Cells {
    pub(super) fn new(cells: Arc<[AtomicU32]>) -> Result<Self, CudaError> {
        if cells.is_empty() {
            return Ok(Self { cells, first: 0 });
        }
        let place: *mut c_void = cells.as_ptr().cast_mut().cast();
        let flags = sys::CU_MEMHOSTREGISTER_PORTABLE | sys::CU_MEMHOSTREGISTER_DEVICEMAP;
        // SAFETY: the numbers lie there until they are given back by the drop.
        let registered = unsafe { sys::cuMemHostRegister_v2(place, size_of_val(&*cells), flags) };
        registered.result().named("cuMemHostRegister")?;
        let mut owned = Self { cells, first: 0 };
        // SAFETY: they were just registered; the driver writes one pointer.
        let found = unsafe { sys::cuMemHostGetDevicePointer_v2(&raw mut owned.first, place, 0) };
        found.result().named("cuMemHostGetDevicePointer")?;
        Ok(owned)
    }

    /// One of them.
    pub(super) fn at(&self, cell: u32) -> Option<sys::CUdeviceptr> {
        ((cell as usize) < self.cells.len()).then(|| self.first + 4 * u64::from(cell))
    }
}

impl Drop for Cells {
    fn drop(&mut self) {
        if !self.cells.is_empty() {
            // SAFETY: they were registered, and are given back once.
            let _ = unsafe { sys::cuMemHostUnregister(self.cells.as_ptr().cast_mut().cast()) };
        }
    }
}

/// A stream that waits for no default stream.
pub(super) struct OwnedStream(pub(super) sys::CUstream);

impl OwnedStream {
    pub(super) fn new() -> Result<Self, CudaError> {
        let kind = result::stream::StreamKind::NonBlocking;
        Ok(Self(result::stream::create(kind).named("cuStreamCreate")?))
    }

    /// One that goes before others where a device runs both: what others wait for.
    pub(super) fn urgent() -> Result<Self, CudaError> {
        let (mut stream, mut least, mut greatest) = (std::ptr::null_mut(), 0, 0);
        let flags = sys::CUstream_flags::CU_STREAM_NON_BLOCKING as u32;
        // SAFETY: the driver writes two integers, then a handle.
        unsafe {
            let asked = sys::cuCtxGetStreamPriorityRange(&raw mut least, &raw mut greatest);
            asked.result().named("cuCtxGetStreamPriorityRange")?;
            let made = sys::cuStreamCreateWithPriority(&raw mut stream, flags, greatest);
            made.result().named("cuStreamCreateWithPriority")?;
        }
        Ok(Self(stream))
    }

    /// Whether all that was put on it has run.
    pub(super) fn is_done(&self) -> Result<bool, CudaError> {
        // SAFETY: the stream lives.
        match unsafe { sys::cuStreamQuery(self.0) } {
            sys::CUresult::CUDA_ERROR_NOT_READY => Ok(false),
            other => other.result().named("cuStreamQuery").map(|()| true),
        }
    }

    /// Writes a number once all that was put on it has run, and others can see what that wrote.
    pub(super) fn write(&self, at: sys::CUdeviceptr, value: u32) -> Result<(), CudaError> {
        let flags = sys::CUstreamWriteValue_flags::CU_STREAM_WRITE_VALUE_DEFAULT as u32;
        // SAFETY: the stream lives; the place is one of `Cells`.
        unsafe { sys::cuStreamWriteValue32_v2(self.0, at, value, flags) }
            .result()
            .named("cuStreamWriteValue32")
    }

    /// Waits until all that was put on it has run.
    pub(super) fn finish(&self) -> Result<(), CudaError> {
        // SAFETY: the stream lives.
        unsafe { result::stream::synchronize(self.0) }.named("cuStreamSynchronize")
    }
}

impl Drop for OwnedStream {
    fn drop(&mut self) {
        // SAFETY: the driver made it, and it is destroyed once.
        let _ = unsafe { result::stream::destroy(self.0) };
    }
}

/// An event.
pub(super) struct OwnedEvent(sys::CUevent);

impl OwnedEvent {
    pub(super) fn new(timed: bool) -> Result<Self, CudaError> {
        let flags = if timed {
            sys::CUevent_flags::CU_EVENT_DEFAULT
        } else {
            sys::CUevent_flags::CU_EVENT_DISABLE_TIMING
        };
        Ok(Self(result::event::create(flags).named("cuEventCreate")?))
    }

    /// Marks the moment at which all that was put on a stream so far has run.
    pub(super) fn record(&self, stream: &OwnedStream) -> Result<(), CudaError> {
        // SAFETY: both live.
        unsafe { result::event::record(self.0, stream.0) }.named("cuEventRecord")
    }

    /// Lets a stream wait for the moment that was marked last.
    pub(super) fn hold(&self, stream: &OwnedStream) -> Result<(), CudaError> {
        let flags = sys::CUevent_wait_flags::CU_EVENT_WAIT_DEFAULT;
        // SAFETY: both live.
        unsafe { result::stream::wait_event(stream.0, self.0, flags) }.named("cuStreamWaitEvent")
    }

    /// Lets the host wait for the moment that was marked last.
    pub(super) fn finish(&self) -> Result<(), CudaError> {
        // SAFETY: it lives.
        unsafe { result::event::synchronize(self.0) }.named("cuEventSynchronize")
    }

    /// Microseconds from this to another.
    pub(super) fn until(&self, other: &Self) -> Result<f64, CudaError> {
        // SAFETY: both live.
        let milliseconds = unsafe { result::event::elapsed(self.0, other.0) };
        Ok(f64::from(milliseconds.named("cuEventElapsedTime")?) * 1e3)
    }
}

impl Drop for OwnedEvent {
    fn drop(&mut self) {
        // SAFETY: the driver made it, and it is destroyed once.
        let _ = unsafe { result::event::destroy(self.0) };
    }
}
