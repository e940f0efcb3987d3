//! The device behind the CUDA backend, as far as it goes without one: layouts of products, arguments of kernels, refusals by name, NCCL's
//! owner on a stand-in for the library, and the script that measures on a GPU.
#![allow(unsafe_code, reason = "the stand-in for NCCL is a C library")]

mod driver;
mod nccl;
mod products;
mod script;
mod whole;
