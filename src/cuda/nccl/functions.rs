//! NCCL's functions, its numbers and its configuration.

use std::ffi::{c_char, c_int, c_uint, c_void};
use std::mem::size_of;
use std::ptr;

use cudarc::nccl::sys::{ncclComm_t, ncclConfig_t, ncclUniqueId};

/// A result: done.
pub(super) const SUCCESS: c_int = 0;
/// A result: not done yet.
pub(super) const IN_PROGRESS: c_int = 7;
/// The version that the configuration is written for.
const WRITTEN_FOR: c_uint = 2_28_03;
/// Blocks that an operation may have on the device.
const MOST_BLOCKS: c_int = 8;
/// A number that is not said.
const UNSAID: c_int = c_int::MIN;

macro_rules! functions {
    ($($name:ident = $symbol:literal: fn($($argument:ty),*) -> $result:ty;)*) => {
        /// NCCL's functions.
        pub(super) struct Functions {
            $(pub(super) $name: unsafe extern "C" fn($($argument),*) -> $result,)*
        }

        impl Functions {
            /// Finds them all.
            pub(super) fn of(library: &libloading::Library) -> Result<Self, &'static str> {
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
    reduce_scatter = "ncclReduceScatter": fn(*const c_void, *mut c_void, usize, c_int, c_int, ncclComm_t, *mut c_void) -> c_int;
    all_gather = "ncclAllGather": fn(*const c_void, *mut c_void, usize, c_int, ncclComm_t, *mut c_void) -> c_int;
}

/// A handle that another thread may write.
pub(super) fn read(place: &ncclComm_t) -> ncclComm_t {
    // SAFETY: it is a reference.
    unsafe { ptr::read_volatile(place) }
}

/// What NCCL calls a result.
pub(super) fn name(number: c_int) -> String {
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
pub(super) fn config() -> ncclConfig_t {
    ncclConfig_t {
        size: size_of::<ncclConfig_t>(),
        magic: 0xcafe_beef,
        version: WRITTEN_FOR,
        blocking: 0,
        cgaClusterSize: UNSAID,
        minCTAs: UNSAID,
        // Lanes that wait hold so many multiprocessors, which passes need.
        maxCTAs: MOST_BLOCKS,
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
