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

mod communicator;
mod functions;

use std::ffi::{CStr, c_char, c_int};
use std::path::{Path, PathBuf};
use std::ptr;
use std::sync::Arc;
use std::time::Duration;

use cudarc::nccl::sys::{ncclComm_t, ncclUniqueId};

use super::{CudaError, Library, load};
use functions::{Functions, SUCCESS, config, name, read};

pub use communicator::{Aborter, Communicator};

/// Bytes of a communicator's id.
pub const UNIQUE_ID: usize = 128;
/// The oldest version that splits communicators.
const OLDEST: c_int = 2_18_00;

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
