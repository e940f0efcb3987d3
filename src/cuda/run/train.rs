//! A whole run on a device: data, the check, steps. Checkpoints, dumps and recordings are the CPU's.

use std::time::Instant;

use super::{Executor, RunError, check};
use crate::cuda::{CudaError, Device};
use crate::execute::ExecuteError;
use crate::execute::data::{Corpus, Text};
use crate::execute::interpreter::Finish;
use crate::execute::tokenizer::Tokenizer;
use crate::execute::train::{Ending, Listener, Losses, Opening, Pace, Settings, Taken, parameters};
use crate::ir::Bytes;
use crate::verify::Verified;

/// Refuses what only the CPU's executor does.
fn supported(settings: &Settings) -> Result<(), CudaError> {
    let asked = [
        ("--checkpoint", settings.checkpoint.is_some()),
        ("--dump", settings.dump.is_some()),
        ("--trace", settings.record > 0),
        ("--inject", settings.limits.drill.is_some()),
    ];
    match asked.into_iter().find(|(_, asked)| *asked) {
        Some((flag, _)) => Err(CudaError::NotOnADevice { flag }),
        None => Ok(()),
    }
}

/// Trains a model by a plan on a device that `make` opens, or evaluates it where the plan is forward-only. The check, where it is asked
/// for, has the device for itself before the run has it.
///
/// # Errors
/// The plan cannot be run on a device, the data cannot be read, the device fails, or the check fails.
pub fn train_on<D: Device>(
    plan: &Verified,
    settings: &Settings,
    mut make: impl FnMut() -> Result<D, CudaError>,
    listener: &mut impl Listener,
) -> Result<Ending, RunError> {
    supported(settings)?;
    let (header, dims) = (&plan.header, plan.header.model);
    let text = Text::load(settings.data.as_deref())?;
    let tokenizer = Tokenizer::new(settings.tokenizer, &text.bytes, dims.vocab)?;
    let corpus = Corpus::new(&text, &tokenizer, dims.sequence)?;
    let batches = |step| corpus.step(&dims, settings.train.seed, step, header.microbatches);
    if settings.check {
        let report = check(plan, &settings.train, &batches(0), make()?)?;
        listener.checked(&report);
        report.verdict()?;
    }
    let mut executor = Executor::new(plan, &settings.train, make()?)?;
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
        resumed: None,
        skipped: Vec::new(),
        steps: settings.steps,
    });
    let (mut clock, mut losses) = (Pace::new(header), Losses::default());
    for step in 1..=settings.steps {
        let batches = batches(step - 1);
        let started = Instant::now();
        let loss = executor.step(&batches, Finish::Update)?.ok_or(ExecuteError::NoLoss)?;
        if !loss.is_finite() {
            return Err(ExecuteError::Diverged { step, loss, lr: settings.train.lr }.into());
        }
        losses.add(loss);
        let (tokens_per_second, gflops) = clock.add(started.elapsed());
        listener.taken(&Taken { step, loss, tokens_per_second, gflops });
    }
    let (tokens_per_second, gflops) = clock.mean();
    let (ends, mean) = (losses.ends, losses.mean());
    Ok(Ending { steps: settings.steps, losses: ends, mean, entropy, tokens_per_second, gflops })
}
