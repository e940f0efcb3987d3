//! schedc compiles a declarative pipeline schedule into one instruction stream per rank, proves the streams right and runs them.
#![doc = include_str!("ARCHITECTURE.md")]

pub mod cost;
pub mod cuda;
pub mod diag;
pub mod driver;
pub mod emit;
pub mod execute;
pub mod forward;
pub mod graph;
pub mod import;
pub mod ir;
pub mod kernels;
pub mod launch;
pub mod lower;
pub mod order;
pub mod resolve;
pub mod simulate;
pub mod source;
pub mod syntax;
pub mod timing;
pub mod torch;
pub mod transform;
pub mod verify;
pub mod view;
