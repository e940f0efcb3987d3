//! Verified plan + [`Device`] -> trained steps: the ranks of a process on one device.
//!
//! A rank has an arena of exactly the plan's bytes, its parameters and a queue for each lane. Everything that a step asks of the device is
//! resolved once (`script` walks the lanes, `passes` and what it calls put each pass's kernels and products in a list, `exchange` the
//! messages), so that a step is that list again, or one graph: its calls depend on nothing but the plan. What changes from step to step
//! lies in the device's memory (the ids) or comes after the list: Adam's factors depend on the step's number, so the optimizer's launches, one
//! a rank, are no part of a graph.
//!
//! A plan in f32 is the mode that is held against the CPU. In bf16, activations and their gradients are; what passes read of parameters are
//! rounded copies; products accumulate in f32; statistics, parameters, their gradients and moments are f32.

mod attention;
mod build;
mod calls;
mod channels;
mod engine;
mod exchange;
mod executor;
mod layer;
mod meet;
mod parameters;
mod passes;
mod ranks;
mod recorder;
mod script;
mod shape;
mod train;
mod vocabulary;

use std::ops::Range;

use miette::Diagnostic;
use thiserror::Error;

use super::{CudaError, Device};
use crate::execute::ExecuteError;
use crate::execute::check::{CheckReport, Outcome, compare};
use crate::execute::data::Tokens;
use crate::execute::interpreter::Finish;
use crate::execute::model::Train;
use crate::execute::stored::{copies_of, gather_of};
use crate::execute::watchdog::Drill;
use crate::ir::{Plan, Precision};
use crate::verify::Verified;

pub use calls::Signals;
pub use engine::Engine;
pub use executor::Executor;
pub use parameters::Kept;
pub use train::{Ended, Way, train_on};

/// The largest relative difference from the CPU's reference that passes.
#[must_use]
pub fn tolerance(precision: Precision) -> f64 {
    match precision {
        Precision::F32 => 1e-4,
        Precision::Bf16 => 2e-2,
    }
}

/// Why a plan does not run on a device.
#[derive(Debug, Error, Diagnostic)]
#[non_exhaustive]
pub enum RunError {
    /// The device.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Device(#[from] CudaError),
    /// The plan.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Plan(#[from] ExecuteError),
}

/// What an executor does beside its steps.
#[derive(Clone, Debug)]
pub struct Scope {
    /// The ranks of this process: neighbours.
    pub local: Range<usize>,
    /// In how many of the last steps it notes when each instruction began and ended.
    pub record: u32,
    /// A failure that it acts out.
    pub drill: Option<Drill>,
    /// What it shares with who watches over it.
    pub signals: Signals,
}

impl Scope {
    /// So many of a plan's ranks, and nothing else.
    #[must_use]
    pub fn of(plan: &Plan, local: Range<usize>) -> Self {
        let lanes = plan.ranks.get(local.clone()).unwrap_or_default().iter().map(|rank| rank.lanes.len());
        Self { signals: Signals::new(lanes.sum()), local, record: 0, drill: None }
    }
}

/// Runs one step of a plan on a device and of the reference on the CPU, with the same weights and tokens.
///
/// # Errors
/// The plan cannot be run, or the device fails. A difference is no error here: see [`CheckReport::verdict`].
pub fn check<D: Device>(
    plan: &Verified,
    train: &Train,
    batches: &[Tokens],
    device: D,
) -> Result<CheckReport, RunError> {
    let mut executor = Executor::new(plan, train, device)?;
    let loss = executor.step(batches, Finish::Keep)?.ok_or(ExecuteError::NoLoss)?;
    let kept = executor.kept()?;
    let found = gather_of(kept.iter().map(Kept::tensors));
    let copies = copies_of(kept.iter().map(Kept::tensors));
    let outcome = Outcome { loss, found, copies, arenas: executor.arena_bytes() };
    Ok(compare(plan, train, batches, &outcome, Some(tolerance(plan.header.model.precision)))?)
}
