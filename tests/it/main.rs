//! The tests of schedc: one binary, one file for each topic, data beside it.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

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
