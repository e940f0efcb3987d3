//! The tests of schedc: one binary, one file for each topic, data beside it.

mod forms;
mod language;
mod mutations;
mod plans;
mod printer;
mod support;
mod ui;
mod verify;
