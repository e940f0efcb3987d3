//! The tests of schedc, one binary.

mod execute;
mod plans;
mod train;
