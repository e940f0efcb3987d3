//! schedc compiles a declarative pipeline schedule into one instruction stream per rank, proves the streams right and runs them.

pub mod execute;
pub mod ir;
pub mod source;
