//! The CPU backend: f32, one thread a rank, matrix products from packed panels, everything else vectorised loops.
//!
//! Kernels first (`panels`, `tile`, `product`, `vector`, the layers' own loops), then the layers that use them, then what a rank holds,
//! then its passes. The reference model calls the same layers, so that a schedule without sharding agrees with it bit for bit.
#![allow(
    clippy::cast_precision_loss,
    reason = "lengths become divisors; a model's lengths are exact in f32 or near enough"
)]

mod attention;
mod backend;
mod gelu;
mod input;
mod layer;
mod linear;
mod norm;
mod output;
mod panels;
mod param;
mod parameters;
pub mod plain;
mod product;
mod shard;
mod softmax;
mod stage;
mod tables;
mod tile;
mod transpose;
mod vector;
mod whole;
mod workspace;

pub use backend::CpuBackend;
pub(super) use whole::Whole;
