//! The driver -> a device's context, and the driver's errors by name.

use std::ffi::c_char;

use cudarc::driver::result::{self, DriverError};
use cudarc::driver::sys;

use super::super::{CudaError, Library, load};

/// The driver of CUDA 13.0: machine code of NVRTC 13.0 needs it, and all functions that are called here are in it.
const NEEDED: i32 = 13_000;

/// What is called of it; `cudarc` panics at the first call of a function that is not there.
const FUNCTIONS: &[&str] = &[
    "cuCtxGetStreamPriorityRange",
    "cuCtxSetCurrent",
    "cuCtxSynchronize",
    "cuDeviceGet",
    "cuDeviceGetAttribute",
    "cuDeviceGetCount",
    "cuDeviceGetName",
    "cuDeviceGetUuid_v2",
    "cuDevicePrimaryCtxRelease_v2",
    "cuDevicePrimaryCtxRetain",
    "cuEventCreate",
    "cuEventDestroy_v2",
    "cuEventElapsedTime_v2",
    "cuEventRecord",
    "cuEventSynchronize",
    "cuFuncGetAttribute",
    "cuFuncGetParamInfo",
    "cuFuncLoad",
    "cuFuncSetAttribute",
    "cuGetErrorString",
    "cuGraphDestroy",
    "cuGraphExecDestroy",
    "cuGraphInstantiateWithFlags",
    "cuGraphLaunch",
    "cuGraphUpload",
    "cuLaunchKernel",
    "cuMemAlloc_v2",
    "cuMemFreeHost",
    "cuMemFree_v2",
    "cuMemGetInfo_v2",
    "cuMemHostAlloc",
    "cuMemHostGetDevicePointer_v2",
    "cuMemHostRegister_v2",
    "cuMemHostUnregister",
    "cuMemcpyDtoDAsync_v2",
    "cuMemcpyDtoHAsync_v2",
    "cuMemcpyHtoDAsync_v2",
    "cuMemsetD8Async",
    "cuMemsetD8_v2",
    "cuModuleGetFunction",
    "cuModuleLoadData",
    "cuModuleUnload",
    "cuStreamBeginCapture_v2",
    "cuStreamCreate",
    "cuStreamCreateWithPriority",
    "cuStreamDestroy_v2",
    "cuStreamEndCapture",
    "cuStreamQuery",
    "cuStreamSynchronize",
    "cuStreamWaitEvent",
    "cuStreamWriteValue32_v2",
];

/// The first of some functions that a library does not have.
pub(super) fn lacking(library: &libloading::Library, functions: &[&'static str]) -> Option<&'static str> {
    let lacks = |name: &&&'static str| {
        // SAFETY: the function is looked up and not called.
        unsafe { library.get::<unsafe extern "C" fn()>(name.as_bytes()) }.is_err()
    };
    functions.iter().find(lacks).copied()
}

/// What a library's error says, as a result of this crate.
pub(super) trait Named<T> {
    /// Names the function that failed.
    fn named(self, call: &'static str) -> Result<T, CudaError>;
}

impl<T> Named<T> for Result<T, DriverError> {
    fn named(self, call: &'static str) -> Result<T, CudaError> {
        self.map_err(|error| CudaError::Failed { call, reason: said(error) })
    }
}

/// The name, the number and the words of a driver's error.
pub(super) fn said(error: DriverError) -> String {
    let words = error.error_string().map(|words| words.to_string_lossy().into_owned());
    let words = words.unwrap_or_else(|_| "the driver has no words for it".to_owned());
    format!("{:?} ({}): {words}", error.0, error.0 as u32)
}

/// Finds the driver, and has it begin.
fn start() -> Result<(), CudaError> {
    load(Library::Driver, None)?;
    // SAFETY: it only tries to load the library.
    if !unsafe { sys::is_culib_present() } {
        let looked = "it is loaded, but not found again by its name".to_owned();
        return Err(CudaError::NoDriver { looked });
    }
    result::init().map_err(|error| CudaError::NoDevice { reason: said(error) })
}

/// How many devices the driver shows.
pub(super) fn devices() -> Result<u32, CudaError> {
    start()?;
    let count = result::device::get_count().named("cuDeviceGetCount")?;
    Ok(count.max(0).cast_unsigned())
}

/// The context that all libraries of a process share on a device.
pub(super) struct Context {
    device: sys::CUdevice,
    handle: sys::CUcontext,
}

impl Context {
    /// Finds the driver, a device of it, and retains its context.
    pub(super) fn open(ordinal: u32) -> Result<Self, CudaError> {
        start()?;
        let mut version = 0;
        // SAFETY: the driver writes one integer.
        unsafe { sys::cuDriverGetVersion(&raw mut version) }.result().named("cuDriverGetVersion")?;
        if version < NEEDED {
            let found = format!("{}.{}", version / 1000, version % 1000 / 10);
            return Err(CudaError::DriverTooOld { found });
        }
        // SAFETY: the driver is there.
        if let Some(call) = lacking(unsafe { sys::culib() }, FUNCTIONS) {
            return Err(CudaError::Failed { call, reason: "the driver has no such function".to_owned() });
        }
        let count = devices()?.cast_signed();
        let index = i32::try_from(ordinal).ok().filter(|&index| index < count);
        let Some(index) = index else {
            let reason = format!("device {ordinal} was asked for, and there are {count}");
            return Err(CudaError::NoDevice { reason });
        };
        let device = result::device::get(index).named("cuDeviceGet")?;
        // SAFETY: the device is the driver's. It is released once, by the drop.
        let handle = unsafe { result::primary_ctx::retain(device) }.named("cuDevicePrimaryCtxRetain")?;
        let context = Self { device, handle };
        context.bind()?;
        Ok(context)
    }

    /// Makes it the one that calls of this thread mean.
    pub(super) fn bind(&self) -> Result<(), CudaError> {
        // SAFETY: the context is retained.
        unsafe { result::ctx::set_current(self.handle) }.named("cuCtxSetCurrent")
    }

    /// A number that describes the device.
    pub(super) fn attribute(&self, attribute: sys::CUdevice_attribute) -> Result<i32, CudaError> {
        // SAFETY: the device is the driver's.
        unsafe { result::device::get_attribute(self.device, attribute) }.named("cuDeviceGetAttribute")
    }

    /// What tells the device from all others.
    pub(super) fn identity(&self) -> Result<[u64; 2], CudaError> {
        let mut uuid = sys::CUuuid { bytes: [0; 16] };
        // SAFETY: the driver writes 16 bytes.
        unsafe { sys::cuDeviceGetUuid_v2(&raw mut uuid, self.device) }.result().named("cuDeviceGetUuid")?;
        let bytes = uuid.bytes.map(c_char::cast_unsigned);
        let (numbers, _) = bytes.as_chunks::<8>();
        Ok(std::array::from_fn(|at| u64::from_le_bytes(numbers[at])))
    }

    /// The device's name.
    pub(super) fn name(&self) -> Result<String, CudaError> {
        result::device::get_name(self.device).named("cuDeviceGetName")
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        // SAFETY: it was retained once, and whatever was made in it is dropped before.
        let _ = unsafe { result::primary_ctx::release(self.device) };
    }
}
