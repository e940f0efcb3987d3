//! schedc compiles a declarative pipeline schedule into one instruction stream per rank, proves the streams right and runs them.

pub mod cost;
pub mod execute;
pub mod graph;
pub mod ir;
pub mod lower;
pub mod order;
pub mod source;
pub mod transform;
