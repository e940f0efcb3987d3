//! The tests of schedc, one binary.

mod execute;
mod model;
mod plans;
mod train;
