//! What a run works on, wherever its ranks are: text, tokenizer, the checkpoint that it goes on from, its steps, and how fast they are.

use std::ops::Range;
use std::path::Path;
use std::time::Duration;

use super::checkpoint::{Checkpoint, Identity, Saving, Skipped, prepare};
use super::data::{Corpus, Text, Tokens};
use super::dump::probe;
use super::error::ExecuteError;
use super::tokenizer::{Tokenizer, TokenizerKind};
use super::train::{Ending, Opening, Settings, Taken, flops_per_token, parameters};
use crate::ir::{Bytes, Dims, Header, Plan};

/// The work of a run.
pub(crate) struct Job<'a> {
    plan: &'a Plan,
    settings: &'a Settings,
    corpus: Corpus,
    tokenizer: Tokenizer,
    resumed: Option<Checkpoint>,
    /// The steps that it takes, from 0.
    pub(crate) steps: Range<u64>,
}

impl<'a> Job<'a> {
    /// Reads the text and finds the newest checkpoint. The process that leads tries the places that will be written.
    ///
    /// # Errors
    /// A file cannot be read or written; the text is too short; there is nothing to evaluate.
    pub(crate) fn new(plan: &'a Plan, settings: &'a Settings, leads: bool) -> Result<Self, ExecuteError> {
        let header = &plan.header;
        let dims = &header.model;
        let text = Text::load(settings.data.as_deref())?;
        let resumed = settings.checkpoint.as_deref().map(Checkpoint::newest).transpose()?.flatten();
        let tokenizer = tokenizer(settings, resumed.as_ref(), &text, dims)?;
        let corpus = Corpus::new(&text, &tokenizer, dims.sequence)?;
        let begin = resumed.as_ref().map_or(0, |checkpoint| checkpoint.step);
        let trains = header.mode.is_training();
        let end = if trains { settings.steps } else { begin.saturating_add(settings.steps) };
        match trains {
            true if leads => writable(settings, begin)?,
            true => {}
            false => evaluable(settings, resumed.is_some())?,
        }
        Ok(Self { plan, settings, corpus, tokenizer, resumed, steps: begin..end })
    }

    /// The batches of a step.
    pub(crate) fn batches(&self, step: u64) -> Vec<Tokens> {
        let Header { model, microbatches, .. } = &self.plan.header;
        self.corpus.step(model, self.settings.train.seed, step, *microbatches)
    }

    /// Where a step is written.
    pub(crate) fn dumps(&self, step: u64) -> Option<&'a Path> {
        self.settings.dump.as_deref().filter(|_| step == self.steps.start)
    }

    /// What a checkpoint of the run is a checkpoint of.
    pub(crate) fn identity(&self) -> Identity {
        let (train, hash) = (&self.settings.train, self.settings.plan_hash.as_deref());
        let print = self.corpus.fingerprint();
        Identity::new(&self.plan.header, train.seed, train.lr, &self.tokenizer, print, hash)
    }

    /// The checkpoint that the run goes on from, if there is one.
    ///
    /// # Errors
    /// It is of another run.
    pub(crate) fn goes_on_from(&self, run: &Identity) -> Result<Option<&Checkpoint>, ExecuteError> {
        let Some(checkpoint) = &self.resumed else { return Ok(None) };
        checkpoint.check(run, self.plan.header.mode)?;
        Ok(Some(checkpoint))
    }

    /// What the run begins with; the bytes are those of arenas, parameters and workspaces.
    pub(crate) fn opening(&mut self, [arenas, parameter_bytes, workspace]: [Bytes; 3]) -> Opening {
        let skipped: Option<Vec<Skipped>> =
            self.resumed.as_mut().map(|checkpoint| std::mem::take(&mut checkpoint.skipped));
        let resumed = self.resumed.as_ref();
        Opening {
            parameters: parameters(&self.plan.header.model),
            arenas,
            parameter_bytes,
            workspace,
            data: self.corpus.name.clone(),
            tokens: self.corpus.len(),
            tokenizer: (self.tokenizer.name(), self.tokenizer.ids()),
            vocab: self.plan.header.model.vocab,
            entropy: self.entropy(),
            resumed: resumed.map(|checkpoint| (checkpoint.path().to_owned(), checkpoint.step)),
            skipped: skipped.unwrap_or_default(),
            steps: self.steps.end,
        }
    }

    /// The unigram entropy of the text, in nats.
    pub(crate) fn entropy(&self) -> f64 {
        self.corpus.unigram_entropy()
    }

    /// The checkpoint to write after so many steps, if there is to be one.
    pub(crate) fn saving<'b>(&'b self, done: u64, run: &'b Identity) -> Option<Saving<'b>> {
        let kept = self.plan.header.mode.is_training() && is_kept(self.settings, done);
        let directory = self.settings.checkpoint.as_ref().filter(|_| kept)?;
        let ranks = self.plan.ranks.len() as u32;
        Some(Saving { directory, step: done, run, tokenizer: &self.tokenizer, ranks })
    }
}

/// Whether there is a checkpoint after so many steps.
fn is_kept(settings: &Settings, done: u64) -> bool {
    done == settings.steps || done.is_multiple_of(settings.checkpoint_every.max(1))
}

/// Tries the places that will be written, before any step is taken.
fn writable(settings: &Settings, begin: u64) -> Result<(), ExecuteError> {
    if let Some(directory) = &settings.checkpoint {
        prepare(directory)?;
    }
    let Some(path) = &settings.dump else { return Ok(()) };
    if begin >= settings.steps {
        return Err(ExecuteError::NothingToDump { done: begin, steps: settings.steps });
    }
    probe(path)
}

/// Refuses what evaluation has nothing for: a dump without gradients, a directory without a model.
fn evaluable(settings: &Settings, resumed: bool) -> Result<(), ExecuteError> {
    if settings.dump.is_some() {
        return Err(ExecuteError::NoGradients);
    }
    match &settings.checkpoint {
        Some(directory) if !resumed => {
            Err(ExecuteError::NothingToEvaluate { directory: directory.display().to_string() })
        }
        _ => Ok(()),
    }
}

/// The tokenizer that the checkpoint kept, or a new one.
fn tokenizer(
    settings: &Settings,
    resumed: Option<&Checkpoint>,
    text: &Text,
    dims: &Dims,
) -> Result<Tokenizer, ExecuteError> {
    if settings.tokenizer == TokenizerKind::Bpe
        && let Some(kept) = resumed.map(|checkpoint| checkpoint.tokenizer(dims.vocab)).transpose()?.flatten()
    {
        return Ok(kept);
    }
    Tokenizer::new(settings.tokenizer, &text.bytes, dims.vocab)
}

/// How a run goes.
pub(crate) struct Tally {
    pace: Pace,
    losses: Losses,
}

impl Tally {
    /// No step yet.
    pub(crate) fn new(header: &Header) -> Self {
        Self { pace: Pace::new(header), losses: Losses::default() }
    }

    /// Counts a step.
    pub(crate) fn add(&mut self, step: u64, loss: f64, time: Duration) -> Taken {
        self.losses.add(loss);
        let (tokens_per_second, gflops) = self.pace.add(time);
        Taken { step, loss, tokens_per_second, gflops }
    }

    /// What the run came to.
    pub(crate) fn ending(&self, entropy: f64) -> Ending {
        let (tokens_per_second, gflops) = self.pace.mean();
        let (steps, losses, mean) = (self.losses.count.into(), self.losses.ends, self.losses.mean());
        Ending { steps, losses, mean, entropy, tokens_per_second, gflops }
    }
}

/// The losses of a run's steps.
#[derive(Default)]
struct Losses {
    ends: Option<(f64, f64)>,
    sum: f64,
    count: u32,
}

impl Losses {
    fn add(&mut self, loss: f64) {
        self.ends = Some((self.ends.map_or(loss, |(first, _)| first), loss));
        self.sum += loss;
        self.count += 1;
    }

    fn mean(&self) -> Option<f64> {
        (self.count > 0).then(|| self.sum / f64::from(self.count))
    }
}

/// How fast steps are.
struct Pace {
    tokens: f64,
    flops: f64,
    steps: f64,
    time: Duration,
}

impl Pace {
    #[allow(clippy::cast_precision_loss, reason = "a rate needs no more than 52 bits")]
    fn new(header: &Header) -> Self {
        let tokens = header.model.tokens() as f64 * f64::from(header.microbatches);
        // Backward is twice forward.
        let share = if header.mode.is_training() { 1.0 } else { 3.0 };
        let flops = tokens * flops_per_token(&header.model) / share;
        Self { tokens, flops, steps: 0.0, time: Duration::ZERO }
    }

    /// Counts a step; gives its tokens a second and 10^9 operations a second.
    fn add(&mut self, time: Duration) -> (f64, f64) {
        self.steps += 1.0;
        self.time += time;
        self.rates(1.0, time)
    }

    /// The same over all steps.
    fn mean(&self) -> (f64, f64) {
        self.rates(self.steps, self.time)
    }

    fn rates(&self, steps: f64, time: Duration) -> (f64, f64) {
        let seconds = time.as_secs_f64().max(1e-9);
        (self.tokens * steps / seconds, self.flops * steps / seconds / 1e9)
    }
}
