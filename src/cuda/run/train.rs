//! A whole run on a device: data, the check, steps, checkpoints, the dump, the recording; as [`crate::execute::train`] on the CPU.

use std::path::Path;
use std::time::Instant;

use super::{Executor, Kept, RunError, check};
use crate::cuda::{CudaError, Device};
use crate::execute::ExecuteError;
use crate::execute::checkpoint::{Checkpoint, Identity, Saving};
use crate::execute::data::{Corpus, Text, Tokens};
use crate::execute::dump::dump;
use crate::execute::interpreter::Finish;
use crate::execute::stored::gather_of;
use crate::execute::train::{
    Ending, Listener, Losses, Opening, Pace, Settings, Taken, evaluable, is_kept, parameters, tokenizer,
    writable,
};
use crate::ir::{Bytes, Dims};
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
    if settings.limits.drill.is_some() {
        return Err(CudaError::NotOnADevice { flag: "--inject" });
    }
    if way.graph && settings.record > 0 {
        return Err(CudaError::GraphNotTimed);
    }
    Ok(())
}

/// Trains a model by a plan on a device that `make` opens, or evaluates it where the plan is forward-only. The check, where it is asked
/// for, has the device for itself before the run has it.
///
/// # Errors
/// The plan cannot be run on a device, the data or a checkpoint does not fit, a file cannot be read or written, the device fails, or the
/// check fails.
pub fn train_on<D: Device>(
    plan: &Verified,
    settings: &Settings,
    way: Way,
    mut make: impl FnMut() -> Result<D, CudaError>,
    listener: &mut impl Listener,
) -> Result<Ended, RunError> {
    supported(settings, way)?;
    let (header, dims) = (&plan.header, plan.header.model);
    let text = Text::load(settings.data.as_deref())?;
    let mut resumed = settings.checkpoint.as_deref().map(Checkpoint::newest).transpose()?.flatten();
    let tokenizer = tokenizer(settings, resumed.as_ref(), &text, &dims)?;
    let corpus = Corpus::new(&text, &tokenizer, dims.sequence)?;
    let batches = |step| corpus.step(&dims, settings.train.seed, step, header.microbatches);
    let begin = resumed.as_ref().map_or(0, |checkpoint| checkpoint.step);
    let trains = header.mode.is_training();
    let end = if trains { settings.steps } else { begin.saturating_add(settings.steps) };
    if trains {
        writable(settings, begin)?;
    } else {
        evaluable(settings, resumed.is_some())?;
    }
    if settings.check {
        let report = check(plan, &settings.train, &batches(0), make()?)?;
        listener.checked(&report);
        report.verdict()?;
    }
    let mut executor = Executor::recorded(plan, &settings.train, make()?, settings.record)?;
    let train = &settings.train;
    let hash = settings.plan_hash.as_deref();
    let run = Identity::new(header, train.seed, train.lr, &tokenizer, corpus.fingerprint(), hash);
    if let Some(checkpoint) = &resumed {
        checkpoint.check(&run, header.mode)?;
        restore(checkpoint, &mut executor)?;
    }
    if way.graph {
        executor.capture()?;
    }
    let skipped = resumed.as_mut().map(|checkpoint| std::mem::take(&mut checkpoint.skipped));
    let entropy = corpus.unigram_entropy();
    listener.opened(&Opening {
        parameters: parameters(&dims),
        arenas: Bytes(executor.arena_bytes().iter().map(|bytes| bytes.0).sum()),
        parameter_bytes: executor.parameter_bytes(),
        workspace: executor.workspace_bytes(),
        data: corpus.name.clone(),
        tokens: corpus.len(),
        tokenizer: (tokenizer.name(), tokenizer.ids()),
        vocab: dims.vocab,
        entropy,
        resumed: resumed.map(|checkpoint| (checkpoint.path().to_owned(), checkpoint.step)),
        skipped: skipped.unwrap_or_default(),
        steps: end,
    });
    let (mut clock, mut losses) = (Pace::new(header), Losses::default());
    for step in begin..end {
        let batches = batches(step);
        let started = Instant::now();
        let path = settings.dump.as_deref().filter(|_| step == begin);
        let loss = take(&mut executor, step + 1, &batches, &dims, settings, path)?;
        executor.note(step + 1, trains)?;
        if let Some(path) = path {
            listener.dumped(path);
        }
        losses.add(loss);
        let (tokens_per_second, gflops) = clock.add(started.elapsed());
        listener.taken(&Taken { step: step + 1, loss, tokens_per_second, gflops });
        if let Some(directory) =
            settings.checkpoint.as_ref().filter(|_| trains && is_kept(settings, step + 1))
        {
            let ranks = plan.ranks.len() as u32;
            let saving = Saving { directory, step: step + 1, run: &run, tokenizer: &tokenizer, ranks };
            save(&saving, &mut executor)?;
            listener.saved(&saving.path());
        }
    }
    if settings.record > 0 {
        listener.recorded(executor.recording());
    }
    let (tokens_per_second, gflops) = clock.mean();
    let steps = end.saturating_sub(begin);
    let (ends, mean) = (losses.ends, losses.mean());
    let ending = Ending { steps, losses: ends, mean, entropy, tokens_per_second, gflops };
    Ok(Ended { ending, issuing: issuing(plan, &executor, steps) })
}

/// Goes on from a checkpoint.
fn restore<D: Device>(checkpoint: &Checkpoint, executor: &mut Executor<D>) -> Result<(), RunError> {
    let mut kept = executor.kept()?;
    checkpoint.restore(kept.iter_mut())?;
    executor.restore(&kept, checkpoint.step)
}

/// Writes a checkpoint.
fn save<D: Device>(saving: &Saving<'_>, executor: &mut Executor<D>) -> Result<(), RunError> {
    saving.begin()?;
    saving.write(0, executor.kept()?.iter_mut())?;
    Ok(saving.commit()?)
}

/// Nanoseconds an instruction.
#[allow(clippy::cast_precision_loss, reason = "a duration needs no more than 52 bits")]
fn issuing<D: Device>(plan: &Verified, executor: &Executor<D>, steps: u64) -> f64 {
    let instrs: usize = plan.ranks.iter().map(|rank| rank.instrs.len()).sum();
    executor.issuing().as_nanos() as f64 / (steps.max(1) as f64 * instrs.max(1) as f64)
}

/// Takes a step, and writes it where a path is given; the loss. It ends with the first loss that is not a number.
fn take<D: Device>(
    executor: &mut Executor<D>,
    step: u64,
    batches: &[Tokens],
    dims: &Dims,
    settings: &Settings,
    path: Option<&Path>,
) -> Result<f64, RunError> {
    let loss = executor.step(batches, Finish::Keep)?.ok_or(ExecuteError::NoLoss)?;
    if !loss.is_finite() {
        return Err(ExecuteError::Diverged { step, loss, lr: settings.train.lr }.into());
    }
    if let Some(path) = path {
        let kept = executor.kept()?;
        dump(path, dims, &gather_of(kept.iter().map(Kept::tensors)), batches, loss)?;
    }
    executor.update()?;
    Ok(loss)
}
