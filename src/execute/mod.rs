//! Executes a verified plan: a backend runs the passes of a rank, whoever walks the plan moves the buffers.
//!
//! [`backend`] is the door between the two. [`model`] says which parameters a rank holds, how they start and how the buffers
//! of a pass are cut; [`cpu`] computes; [`mod@reference`] is the same model without a pipeline, to hold the others against.
//! [`interpreter`] walks the plan: `prepare` resolves it, `control` watches and talks to other processes, `wiring` lays the channels, `machine` is one rank at work, `transport` what lies between ranks,
//! [`watchdog`] what is said when a run ends badly, [`recording`] when everything happened. [`train`] is a whole run: [`data`], [`tokenizer`], [`checkpoint`], [`check`],
//! [`dump`].

mod arena;
pub mod backend;
pub mod check;
pub mod checkpoint;
pub(crate) mod control;
pub mod cpu;
pub mod data;
pub mod dump;
mod error;
pub mod interpreter;
pub(crate) mod job;
mod machine;
pub mod model;
pub(crate) mod prepare;
pub mod recording;
pub mod reference;
mod remote;
pub mod stored;
pub(crate) mod together;
pub mod tokenizer;
pub mod train;
pub(crate) mod transport;
pub(crate) mod views;
pub mod watchdog;
mod wiring;

pub use error::ExecuteError;
