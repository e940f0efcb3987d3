//! What was put on streams between two calls -> a graph of it that is launched as one.

use cudarc::driver::{result, sys};

use super::super::CudaError;
use super::driver::Named as _;
use super::owned::OwnedStream;

/// A graph that can be launched again and again.
pub(super) struct Executable(sys::CUgraphExec);

/// What was captured; only needed until it is instantiated.
struct Template(sys::CUgraph);

/// From here on calls on this stream, and on those that wait for its events, are kept. Calls of other threads go on as before.
pub(super) fn begin(stream: &OwnedStream) -> Result<(), CudaError> {
    let mode = sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL;
    // SAFETY: the stream lives.
    unsafe { result::stream::begin_capture(stream.0, mode) }.named("cuStreamBeginCapture")
}

/// What was kept, ready to be launched.
pub(super) fn end(stream: &OwnedStream) -> Result<Executable, CudaError> {
    // SAFETY: the stream lives and is being captured.
    let graph = unsafe { result::stream::end_capture(stream.0) }.named("cuStreamEndCapture")?;
    if graph.is_null() {
        let reason = "the capture was broken off".to_owned();
        return Err(CudaError::Failed { call: "cuStreamEndCapture", reason });
    }
    let template = Template(graph);
    let flags = sys::CUgraphInstantiate_flags(0);
    // SAFETY: the graph lives.
    let made = unsafe { result::graph::instantiate(template.0, flags) };
    let executable = Executable(made.named("cuGraphInstantiate")?);
    // Else the first launch would bring it to the device.
    // SAFETY: both live.
    unsafe { result::graph::upload(executable.0, stream.0) }.named("cuGraphUpload")?;
    Ok(executable)
}

impl Executable {
    /// Puts it on a stream.
    pub(super) fn launch(&self, stream: &OwnedStream) -> Result<(), CudaError> {
        // SAFETY: both live; memory and code that its nodes use are dropped after it.
        unsafe { result::graph::launch(self.0, stream.0) }.named("cuGraphLaunch")
    }
}

impl Drop for Executable {
    fn drop(&mut self) {
        // SAFETY: the driver made it, and it is destroyed once.
        let _ = unsafe { result::graph::exec_destroy(self.0) };
    }
}

impl Drop for Template {
    fn drop(&mut self) {
        // SAFETY: the driver made it, and it is destroyed once.
        let _ = unsafe { result::graph::destroy(self.0) };
    }
}
