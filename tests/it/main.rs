//! The tests of schedc: one binary, one file for each topic, data beside it.

mod forms;
mod mutations;
mod plans;
mod verify;
