//! The tests of schedc: one binary, one file for each topic, data beside it.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod forms;
mod mutations;
mod plans;
mod verify;
