//! Tests of the whole, by topic.
#![allow(clippy::unwrap_used, reason = "a test that has nothing to unwrap has failed")]

mod language;
mod printer;
mod support;
mod ui;
