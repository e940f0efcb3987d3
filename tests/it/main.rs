//! Tests of the whole, by topic.

mod language;
mod printer;
mod support;
mod ui;
