//! A whole run on a device: data, the check, steps, checkpoints, the dump, the recording; as [`crate::execute::train`] on the CPU.

use std::path::Path;
use std::time::{Duration, Instant};

use super::{Engine, Executor, Kept, RunError, check};
use crate::cuda::{CudaError, Device};
use crate::execute::ExecuteError;
use crate::execute::checkpoint::{Checkpoint, Saving};
use crate::execute::control::Patience;
use crate::execute::data::Tokens;
use crate::execute::dump::dump;
use crate::execute::job::{Job, Tally};
use crate::execute::stored::gather_of;
use crate::execute::together::{come_together, ready, save_part};
use crate::execute::train::{Ending, Listener, Settings};
use crate::ir::Dims;
use crate::launch::Place;
use crate::verify::Verified;

/// What a device does differently from the CPU.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Way {
    /// Each step is a graph that was captured once. Nothing is recorded then: a graph's events have no times.
    pub graph: bool,
}

/// How a run on a device went.
#[derive(Clone, Copy, Debug)]
pub struct Ended {
    /// As on the CPU.
    pub ending: Ending,
    /// Nanoseconds that the host took to issue an instruction of the plan, on average; 0 where no step was taken.
    pub issuing: f64,
}

/// Refuses what a device does not do.
fn supported(settings: &Settings, way: Way) -> Result<(), CudaError> {
    if way.graph && settings.limits.drill.is_some() {
        return Err(CudaError::GraphNotDrilled);
    }
    if way.graph && settings.record > 0 {
        return Err(CudaError::GraphNotTimed);
    }
    Ok(())
}

/// Trains a model by a plan on a device that `make` opens, or evaluates it where the plan is forward-only; with the devices of other
/// processes, where this one has a place among several. The check, where it is asked for, has the device for itself before the run has it.
///
/// # Errors
/// The plan cannot be run on a device, the data or a checkpoint does not fit, a file cannot be read or written, the device fails, no rank
/// makes progress, another process ends, or the check fails.
pub fn train_on<D: Device + Send + 'static>(
    plan: &Verified,
    settings: &Settings,
    (way, place): (Way, Option<&Place>),
    mut make: impl FnMut() -> Result<D, CudaError>,
    listener: &mut impl Listener,
) -> Result<Ended, RunError> {
    supported(settings, way)?;
    if let Some(&Place { processes, .. }) = place.filter(|place| place.processes != plan.ranks.len()) {
        return Err(CudaError::OneRankAProcess { ranks: plan.ranks.len(), processes }.into());
    }
    let backend = if way.graph { "cuda, steps as graphs" } else { "cuda" };
    let (local, mesh) = come_together(plan, settings, backend, place)?;
    let mut job = Job::new(plan, settings, local.start == 0)?;
    if settings.check {
        let report = check(plan, &settings.train, &job.batches(0), make()?)?;
        listener.checked(&report);
        report.verdict()?;
    }
    let mut engine = Engine::new(plan, &settings.train, make, (&settings.limits, settings.record), mesh)?;
    let run = job.identity();
    if let Some(checkpoint) = job.goes_on_from(&run)? {
        restore(checkpoint, (local.start, plan.ranks.len()), engine.executor()?)?;
    }
    if way.graph {
        engine.job(job.steps.start, Patience::Life, Executor::capture)?;
    }
    let own = engine.executor()?.held_bytes();
    let sums = ready(engine.parts()?.0, job.steps.start, own)?;
    listener.opened(&job.opening(sums));
    let mut tally = Tally::new(&plan.header);
    for step in job.steps.clone() {
        let batches = job.batches(step);
        let started = Instant::now();
        let path = job.dumps(step);
        let loss = take(&mut engine, step + 1, batches, &plan.header.model, settings, path)?;
        if settings.record > 0 {
            let updates = plan.header.mode.is_training();
            engine.job(step + 1, Patience::Progress, move |executor| executor.note(step + 1, updates))?;
        }
        if let Some(path) = path {
            listener.dumped(path);
        }
        listener.taken(&tally.add(step + 1, loss, started.elapsed()));
        if let Some(saving) = job.saving(step + 1, &run) {
            save(&saving, local.start, &mut engine)?;
            listener.saved(&saving.path());
        }
    }
    engine.finish()?;
    if settings.record > 0 {
        listener.recorded(engine.executor()?.recording());
    }
    let ending = tally.ending(job.entropy());
    let instrs = plan.ranks[local].iter().map(|rank| rank.instrs.len()).sum();
    Ok(Ended { ending, issuing: issuing(instrs, engine.executor()?.issuing(), ending.steps) })
}

/// Goes on from a checkpoint with the ranks of this process, the first of so many.
fn restore<D: Device>(
    checkpoint: &Checkpoint,
    (first, ranks): (usize, usize),
    executor: &mut Executor<D>,
) -> Result<(), RunError> {
    let mut kept = executor.kept()?;
    checkpoint.restore_part(first, ranks, kept.iter_mut())?;
    executor.restore(&kept, checkpoint.step)
}

/// Writes a checkpoint, with the other processes.
fn save<D: Device + Send + 'static>(
    saving: &Saving<'_>,
    first: usize,
    engine: &mut Engine<D>,
) -> Result<(), RunError> {
    let (control, executor) = engine.parts()?;
    save_part(saving, control, || Ok(saving.write(first, executor.kept()?.iter_mut())?))
}

/// Nanoseconds an instruction.
#[allow(clippy::cast_precision_loss, reason = "a duration needs no more than 52 bits")]
fn issuing(instrs: usize, all: Duration, steps: u64) -> f64 {
    all.as_nanos() as f64 / (steps.max(1) as f64 * instrs.max(1) as f64)
}

/// Takes a step, and writes it where a path is given; the loss. It ends with the first loss that is not a number.
fn take<D: Device + Send + 'static>(
    engine: &mut Engine<D>,
    step: u64,
    batches: Vec<Tokens>,
    dims: &Dims,
    settings: &Settings,
    path: Option<&Path>,
) -> Result<f64, RunError> {
    let kept = path.map(|_| batches.clone());
    let loss = engine.step(step, batches)?.ok_or(ExecuteError::NoLoss)?;
    if !loss.is_finite() {
        return Err(ExecuteError::Diverged { step, loss, lr: settings.train.lr }.into());
    }
    if let (Some(path), Some(batches)) = (path, kept) {
        let kept = engine.executor()?.kept()?;
        dump(path, dims, &gather_of(kept.iter().map(Kept::tensors)), &batches, loss)?;
    }
    engine.update()?;
    Ok(loss)
}
