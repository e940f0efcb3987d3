//! schedc compiles a declarative pipeline schedule into one instruction stream per rank, proves the streams right and runs them.

pub mod diag;
pub mod ir;
pub mod resolve;
pub mod source;
pub mod syntax;
