//! The tests of schedc: one binary, one file for each topic, data beside it.

mod compiled;
mod execute;
mod forms;
mod language;
mod model;
mod mutations;
mod plans;
mod printer;
mod support;
mod train;
mod ui;
mod verify;
