//! The machine -> what of CUDA it has, by name; kernels' sources -> PTX and cubins.
//!
//! Nothing of CUDA is linked: [`probe`](fn@probe) looks for the libraries, loads them, and says which are missing and where it looked; it never
//! panics. [`Gpu`] is a [`Device`] that is there; [`Nccl`] and its [`Communicator`] move buffers between devices. [`compile`] makes a device's code of one source of [`crate::kernels`] by NVRTC, which needs no GPU.
#![allow(unsafe_code, reason = "CUDA's libraries are C")]

mod device;
mod error;
mod gpu;
mod nccl;
mod nvrtc;
mod probe;
pub mod run;
mod transfer;

pub use device::{Address, Argument, Device, Epilogue, Event, Graph, Matrix, Product, Purpose, Queue};
pub use error::CudaError;
pub use gpu::{ALIGNED, Gpu, Layout, Operation, Packed, Pointers, Side, Stream, describe};
pub use nccl::{Aborter, Communicator, Element, Nccl, Reduction, UNIQUE_ID, UniqueId};
pub use nvrtc::{Architecture, Code, Resources, Variant, compile};
pub use probe::{Library, Probe, load, probe};
pub use transfer::{Channel, Ender, Meeting, Move, Transfer};
