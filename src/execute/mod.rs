//! Executes a verified plan: a backend runs the passes of a rank, whoever walks the plan moves the buffers.
//!
//! [`backend`] is the door between the two. [`model`] says which parameters a rank holds, how they start and how the buffers
//! of a pass are cut; [`cpu`] computes; [`mod@reference`] is the same model without a pipeline, to hold the others against.

pub mod backend;
pub mod cpu;
pub mod model;
pub mod reference;
