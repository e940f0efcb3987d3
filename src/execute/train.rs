//! A whole run: data, the check, steps, checkpoints, the dump. It prints nothing; whoever listens is told what happens.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::Instant;

use super::check::{CheckReport, check};
use super::checkpoint::Skipped;
use super::cpu::CpuBackend;
use super::data::Tokens;
use super::dump::dump;
use super::error::ExecuteError;
use super::interpreter::{Engine, Finish};
use super::job::{Job, Tally};
use super::model::{Held, Train};
use super::recording::Recording;
use super::stored::gather;
pub use super::together::terms;
use super::together::{come_together, ready, save_part};
use super::tokenizer::TokenizerKind;
use super::watchdog::Limits;
use crate::ir::{Bytes, Dims, Rank};
use crate::launch::Place;
use crate::verify::Verified;

/// What a run should do.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Steps in all, those before a resumed checkpoint included.
    pub steps: u64,
    /// How the model starts and is trained; its seed also chooses the batches.
    pub train: Train,
    /// The text; the project's own documents where none is named.
    pub data: Option<PathBuf>,
    /// How the text is cut into tokens.
    pub tokenizer: TokenizerKind,
    /// Whether to hold one step against the reference first.
    pub check: bool,
    /// Where checkpoints lie.
    pub checkpoint: Option<PathBuf>,
    /// Steps from one checkpoint to the next.
    pub checkpoint_every: u64,
    /// Where the first step is written.
    pub dump: Option<PathBuf>,
    /// How many of the last steps are recorded, instruction by instruction; 0 for none.
    pub record: u32,
    /// When the run is given up.
    pub limits: Limits,
    /// The plan's hash, if it is known.
    pub plan_hash: Option<String>,
}

/// What a run begins with.
#[derive(Clone, Debug)]
pub struct Opening {
    /// Parameters of the model.
    pub parameters: u64,
    /// The arenas of all ranks: the peaks that the plan states.
    pub arenas: Bytes,
    /// Parameters, gradients and Adam's moments of all ranks.
    pub parameter_bytes: Bytes,
    /// What is allocated beside them: the backends' workspaces and the channels.
    pub workspace: Bytes,
    /// The text's name.
    pub data: String,
    /// Its tokens.
    pub tokens: usize,
    /// The tokenizer's name and its ids.
    pub tokenizer: (&'static str, u32),
    /// Entries of the vocabulary; those beyond the tokenizer's ids never occur.
    pub vocab: u32,
    /// The unigram entropy of the text, in nats.
    pub entropy: f64,
    /// The checkpoint that the run resumes from, and its step.
    pub resumed: Option<(PathBuf, u64)>,
    /// Newer checkpoints that were passed over, since they are not complete.
    pub skipped: Vec<Skipped>,
    /// Steps in all.
    pub steps: u64,
}

/// One step that was taken.
#[derive(Clone, Copy, Debug)]
pub struct Taken {
    /// Its number, from 1.
    pub step: u64,
    /// The mean loss before its update, in nats a token.
    pub loss: f64,
    /// Tokens a second.
    pub tokens_per_second: f64,
    /// 10^9 floating-point operations a second, as [`flops_per_token`] counts them.
    pub gflops: f64,
}

/// What a run came to.
#[derive(Clone, Copy, Debug)]
pub struct Ending {
    /// Steps that this run took.
    pub steps: u64,
    /// The loss of the first and of the last of them.
    pub losses: Option<(f64, f64)>,
    /// The mean loss of all of them: what evaluation comes to.
    pub mean: Option<f64>,
    /// The unigram entropy of the text, in nats.
    pub entropy: f64,
    /// Tokens a second over all steps.
    pub tokens_per_second: f64,
    /// 10^9 floating-point operations a second over all steps.
    pub gflops: f64,
}

/// Is told what happens in a run.
pub trait Listener {
    /// The check is done.
    fn checked(&mut self, report: &CheckReport);
    /// The steps begin.
    fn opened(&mut self, opening: &Opening);
    /// A step was taken.
    fn taken(&mut self, taken: &Taken);
    /// A checkpoint was written.
    fn saved(&mut self, path: &Path);
    /// The first step was written.
    fn dumped(&mut self, path: &Path);
    /// The steps are taken, and the last of them were recorded.
    fn recorded(&mut self, recording: Recording) {
        drop(recording);
    }
}

/// Trains a model by a plan; by a forward-only plan, evaluates it on the batches of as many steps.
///
/// # Errors
/// The plan cannot be run, the data or a checkpoint does not fit, a file cannot be read or written, a rank fails or stalls, or the
/// check fails.
pub fn train(
    plan: &Verified,
    settings: &Settings,
    listener: &mut impl Listener,
) -> Result<Ending, ExecuteError> {
    train_across(plan, settings, None, listener)
}

/// The same where other processes have some of the ranks. Every process takes every step, and has its loss.
///
/// # Errors
/// As [`train`]; or another process fails, stalls, or is gone.
pub fn train_across(
    plan: &Verified,
    settings: &Settings,
    place: Option<&Place>,
    listener: &mut impl Listener,
) -> Result<Ending, ExecuteError> {
    let header = &plan.header;
    let (local, mesh) = come_together(plan, settings, "cpu", place)?;
    fits(plan, &local)?;
    let mut job = Job::new(plan, settings, local.start == 0)?;
    if settings.check {
        let report = check(plan, &settings.train, &job.batches(0), &settings.limits)?;
        listener.checked(&report);
        report.verdict()?;
    }

    let make = |rank| Ok(CpuBackend::new(header, rank, &settings.train)?);
    let mut engine = Engine::across(plan, make, &settings.limits, mesh)?;
    if settings.record > 0 {
        engine.record(settings.record)?;
    }
    let run = job.identity();
    if let Some(checkpoint) = job.goes_on_from(&run)? {
        checkpoint.restore_part(local.start, plan.ranks.len(), backends(&mut engine).into_iter())?;
    }
    let arenas = Bytes(engine.arena_bytes().iter().map(|bytes| bytes.0).sum());
    let own = [arenas, engine.parameter_bytes(), engine.workspace_bytes()];
    let sums = ready(engine.parts().0, job.steps.start, own)?;
    listener.opened(&job.opening(sums));

    let mut tally = Tally::new(header);
    for step in job.steps.clone() {
        let batches = job.batches(step);
        let started = Instant::now();
        let dump = job.dumps(step);
        let loss = take(&mut engine, step + 1, batches, &header.model, settings.train.lr, dump)?;
        if let Some(path) = dump {
            listener.dumped(path);
        }
        listener.taken(&tally.add(step + 1, loss, started.elapsed()));
        if let Some(saving) = job.saving(step + 1, &run) {
            let (control, backends) = engine.parts();
            save_part(&saving, control, || saving.write(local.start, backends.into_iter()))?;
            listener.saved(&saving.path());
        }
    }
    engine.finish();
    if settings.record > 0 {
        listener.recorded(engine.recording());
    }
    Ok(tally.ending(job.entropy()))
}

/// Takes a step, and writes it where a path is given; the loss. It ends with the first loss that is not a number: the update that
/// follows would spoil every parameter, and a checkpoint would keep it.
fn take(
    engine: &mut Engine<CpuBackend>,
    step: u64,
    batches: Vec<Tokens>,
    dims: &Dims,
    lr: f32,
    path: Option<&Path>,
) -> Result<f64, ExecuteError> {
    let finite = |loss: Option<f64>| match loss {
        Some(loss) if loss.is_finite() => Ok(loss),
        Some(loss) => Err(ExecuteError::Diverged { step, loss, lr }),
        None => Err(ExecuteError::NoLoss),
    };
    let Some(path) = path else {
        return finite(engine.step(step, batches, Finish::Update)?);
    };
    let loss = finite(engine.step(step, batches.clone(), Finish::Keep)?)?;
    dump(path, dims, &gather(engine.backends()), &batches, loss)?;
    engine.backends().for_each(super::backend::Backend::step);
    Ok(loss)
}

fn backends(engine: &mut Engine<CpuBackend>) -> Vec<&mut CpuBackend> {
    engine.backends().collect()
}

/// Refuses a run that needs more memory than the machine has at hand, before it is killed for it.
fn fits(plan: &Verified, local: &Range<usize>) -> Result<(), ExecuteError> {
    let mut needed: u64 = 0;
    for rank in local.clone().map(Rank::new) {
        let held = Held::of(&plan.header, rank)?;
        let arena = plan.ranks[rank.index()].peak.bytes.0;
        needed = needed.saturating_add(arena).saturating_add(held.parameter_bytes());
    }
    match available_memory() {
        Some(available) if needed > available => {
            Err(ExecuteError::TooLarge { needed: Bytes(needed), available: Bytes(available) })
        }
        _ => Ok(()),
    }
}

/// What the system says can be allocated without swapping; `None` where it does not say.
fn available_memory() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kibibytes.checked_mul(1024)
}

/// Parameters of the model; a tied embedding counts once.
#[must_use]
pub fn parameters(dims: &Dims) -> u64 {
    let [layers, hidden, sequence, vocab] =
        [dims.layers, dims.hidden, dims.sequence, dims.vocab].map(u64::from);
    let layer = 12 * hidden * hidden + 13 * hidden;
    let tables = if dims.tied { 1 } else { 2 };
    layers * layer + tables * vocab * hidden + sequence * hidden + 2 * hidden
}

/// Floating-point operations of a step for each token: `6 * (12 L h² + V h) + 12 L s h`.
///
/// Six for each weight of a matrix product (two forward, four backward): `12 h²` in each of L layers and the output layer's `V h`.
/// Attention's two products with the sequence: `4 s h` forward, twice that backward, the causal half not subtracted.
#[must_use]
#[allow(clippy::cast_precision_loss, reason = "a rate needs no more than 52 bits")]
pub fn flops_per_token(dims: &Dims) -> f64 {
    let [layers, hidden, sequence, vocab] =
        [dims.layers, dims.hidden, dims.sequence, dims.vocab].map(f64::from);
    6.0 * (12.0 * layers * hidden * hidden + vocab * hidden) + 12.0 * layers * sequence * hidden
}
