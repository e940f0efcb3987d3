//! The tests of schedc: one binary, one file for each topic, data beside it.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod artifact;
mod blocks;
mod browser;
mod cli;
mod compiled;
mod diff;
mod differential;
mod execute;
mod explain;
mod flows;
mod forms;
mod forward;
mod golden;
mod language;
mod model;
mod models;
mod mutations;
mod orders;
mod partition;
mod peaks;
mod plans;
mod printer;
mod properties;
mod readme;
mod refused;
mod simulated;
mod simulator;
mod slices;
mod support;
mod tables;
mod torch;
mod train;
mod ui;
mod verify;
mod view;
