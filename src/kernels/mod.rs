//! Model sizes -> launches: the kernels of the CUDA backend, as sources that NVRTC compiles at run time.
//!
//! The sources lie beside this file, in `cuda/`, and are part of the binary. [`Kernel`] names them, [`launch`] says in which shape each is
//! launched. What each computes is said at its definition and in `docs/kernels.md`. Nothing here
//! needs a GPU: the tests compile the same sources for the host and hold them against the CPU backend.

pub mod launch;
mod source;

pub use launch::Launch;
pub use source::{HEADERS, Kernel, SOURCES, Source, Stored};
