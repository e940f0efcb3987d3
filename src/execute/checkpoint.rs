//! Checkpoints: a directory a step, with one safetensors file a rank, which is complete or absent.
//!
//! A checkpoint is written beside its place, brought to the disk (files, then directory), and renamed; a crash at any moment leaves the
//! one before. The newest two are kept. It resumes bit for bit, on the plan, the model, the seed and the data that it was made with.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use safetensors::SafeTensors;
use serde::{Deserialize, Serialize};

use super::backend::{Backend, State};
use super::error::ExecuteError;
use super::stored::{Stored, metadata, numbers, write};
use super::tokenizer::Tokenizer;
use crate::ir::{Header, Rank};

/// How many checkpoints are kept.
const KEPT: usize = 2;

/// What the names of unfinished checkpoints begin with.
const UNFINISHED: &str = ".tmp-";

/// Where the tokenizer of a checkpoint lies.
const TOKENIZER: &str = "tokenizer.json";

/// What a run must have in common with the checkpoint that it resumes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity(BTreeMap<String, String>);

/// The parts of an identity, in the order in which differences are reported.
const PARTS: [&str; 17] = [
    "schedule",
    "transforms",
    "ranks",
    "stages",
    "microbatches",
    "layers",
    "hidden",
    "heads",
    "sequence",
    "batch",
    "vocab",
    "tied embeddings",
    "seed",
    "tokenizer",
    "data",
    "learning rate",
    "plan",
];

impl Identity {
    /// The identity of a run. `plan` is the plan's hash, where it is known.
    #[must_use]
    pub fn new(
        header: &Header,
        seed: u64,
        lr: f32,
        tokenizer: &Tokenizer,
        data: String,
        plan: Option<&str>,
    ) -> Self {
        let dims = &header.model;
        let stages: Vec<String> = header.stages.iter().map(ToString::to_string).collect();
        let or_none = |list: String| if list.is_empty() { "none".to_owned() } else { list };
        let values = [
            header.name.clone(),
            or_none(header.transforms.join(", ")),
            header.ranks().to_string(),
            stages.join(" "),
            header.microbatches.to_string(),
            dims.layers.to_string(),
            dims.hidden.to_string(),
            dims.heads.to_string(),
            dims.sequence.to_string(),
            dims.batch.to_string(),
            dims.vocab.to_string(),
            dims.tied.to_string(),
            seed.to_string(),
            tokenizer.name().to_owned(),
            data,
            lr.to_string(),
            or_none(plan.unwrap_or_default().to_owned()),
        ];
        Self(PARTS.into_iter().map(str::to_owned).zip(values).collect())
    }

    /// The first part that differs: its name, this value and the other.
    fn difference(&self, other: &Self) -> Option<(&'static str, String, String)> {
        let value = |of: &Self, part: &str| of.0.get(part).cloned().unwrap_or_else(|| "none".to_owned());
        PARTS.into_iter().find_map(|part| {
            let (mine, theirs) = (value(self, part), value(other, part));
            (mine != theirs).then_some((part, mine, theirs))
        })
    }
}

/// What each file of a checkpoint says about itself.
#[derive(Debug, Serialize, Deserialize)]
struct Label {
    version: u32,
    step: u64,
    rank: u32,
    ranks: u32,
    run: Identity,
}

/// A complete checkpoint.
#[derive(Debug)]
pub struct Checkpoint {
    path: PathBuf,
    /// Steps that had been taken.
    pub step: u64,
}

/// Writes the state of every rank after `step` steps, and removes the older checkpoints.
///
/// # Errors
/// A file cannot be written.
pub fn save<'a, B: Backend + 'a>(
    directory: &Path,
    step: u64,
    run: &Identity,
    tokenizer: &Tokenizer,
    backends: impl ExactSizeIterator<Item = &'a mut B>,
) -> Result<PathBuf, ExecuteError> {
    let json = tokenizer.to_json()?;
    let name = format!("step-{step:08}");
    let path = directory.join(&name);
    let saved = || -> io::Result<()> {
        fs::create_dir_all(directory)?;
        remove_unfinished(directory)?;
        let unfinished = directory.join(format!("{UNFINISHED}{name}"));
        fs::create_dir(&unfinished)?;
        let ranks = backends.len() as u32;
        for (rank, backend) in backends.enumerate() {
            let label = Label { version: 1, step, rank: rank as u32, ranks, run: run.clone() };
            write_rank(&unfinished.join(file_name(Rank::new(rank))), backend, &label)?;
        }
        if let Some(json) = json {
            let path = unfinished.join(TOKENIZER);
            fs::write(&path, json)?;
            File::open(path)?.sync_all()?;
        }
        sync_directory(&unfinished)?;
        if path.exists() {
            fs::rename(&path, directory.join(format!("{UNFINISHED}replaced-{name}")))?;
        }
        fs::rename(&unfinished, &path)?;
        sync_directory(directory)?;
        remove_unfinished(directory)?;
        prune(directory)
    };
    saved().map_err(|source| ExecuteError::Write { what: path.display().to_string(), source })?;
    Ok(path)
}

impl Checkpoint {
    /// The newest complete checkpoint of a directory, if it has one.
    ///
    /// # Errors
    /// The directory cannot be read.
    pub fn newest(directory: &Path) -> Result<Option<Self>, ExecuteError> {
        let steps = match steps(directory) {
            Ok(steps) => steps,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(ExecuteError::Read { what: directory.display().to_string(), source }),
        };
        Ok(steps.into_iter().rev().map(|(step, path)| Self { path, step }).find(Self::is_complete))
    }

    /// Where it lies.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Refuses a checkpoint of another run, by what differs.
    ///
    /// # Errors
    /// It was made with another plan, model, seed, tokenizer or data, or is damaged.
    pub fn check(&self, run: &Identity) -> Result<(), ExecuteError> {
        let path = self.path.join(file_name(Rank(0)));
        let label = label(&path, &read(&path)?)?;
        match label.run.difference(run) {
            None => Ok(()),
            Some((what, kept, now)) => Err(ExecuteError::CheckpointDiffers {
                path: self.path.display().to_string(),
                what,
                kept,
                now,
            }),
        }
    }

    /// The tokenizer that it keeps; `None` where the run reads bytes.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn tokenizer(&self, vocab: u32) -> Result<Option<Tokenizer>, ExecuteError> {
        let path = self.path.join(TOKENIZER);
        if !path.exists() {
            return Ok(None);
        }
        let json = String::from_utf8(read(&path)?).map_err(|_| damaged(&path, "it is not text"))?;
        Tokenizer::from_json(&json, vocab).map(Some)
    }

    /// Restores every rank.
    ///
    /// # Errors
    /// A file is damaged, or lacks a parameter.
    pub fn restore<'a, B: Backend + 'a>(
        &self,
        backends: impl ExactSizeIterator<Item = &'a mut B>,
    ) -> Result<(), ExecuteError> {
        let ranks = backends.len() as u32;
        for (rank, backend) in backends.enumerate() {
            let path = self.path.join(file_name(Rank::new(rank)));
            let bytes = read(&path)?;
            let label = label(&path, &bytes)?;
            if (label.step, label.rank, label.ranks) != (self.step, rank as u32, ranks) {
                return Err(damaged(&path, "it belongs to another step or rank"));
            }
            restore_rank(&path, &bytes, backend)?;
            backend.set_steps(self.step);
        }
        Ok(())
    }

    /// Whether every rank's file is there, as the first one counts them.
    fn is_complete(&self) -> bool {
        let path = self.path.join(file_name(Rank(0)));
        let Some(label) = read(&path).ok().and_then(|bytes| label(&path, &bytes).ok()) else {
            return false;
        };
        (0..label.ranks).all(|rank| self.path.join(file_name(Rank(rank))).is_file())
    }
}

fn file_name(rank: Rank) -> String {
    format!("rank-{:03}.safetensors", rank.0)
}

fn write_rank(path: &Path, backend: &mut impl Backend, label: &Label) -> io::Result<()> {
    let mut tensors = Vec::new();
    for tensor in backend.tensors() {
        let mut shape: Vec<usize> = tensor.shape.iter().map(|&side| side as usize).collect();
        if let Some(rows) = shape.first_mut() {
            *rows = (tensor.rows.end - tensor.rows.start) as usize;
        }
        for (part, data) in [("value", tensor.value), ("first", tensor.first), ("second", tensor.second)] {
            tensors.push((format!("{part}.{}", tensor.name), Stored::f32(shape.clone(), data)));
        }
    }
    write(path, tensors, serde_json::to_string(label)?)
}

fn restore_rank(path: &Path, bytes: &[u8], backend: &mut impl Backend) -> Result<(), ExecuteError> {
    let file = SafeTensors::deserialize(bytes).map_err(|error| damaged(path, &error.to_string()))?;
    let names: Vec<String> = backend.tensors().iter().map(|tensor| tensor.name.to_owned()).collect();
    for name in names {
        let missing =
            || damaged(path, &format!("it lacks the parameter `{name}`, or has it in another size"));
        let part = |part: &str| numbers(&file, &format!("{part}.{name}")).ok_or_else(missing);
        let (value, first, second) = (part("value")?, part("first")?, part("second")?);
        if !backend.load(&name, State { value: &value, first: &first, second: &second }) {
            return Err(missing());
        }
    }
    Ok(())
}

fn label(path: &Path, bytes: &[u8]) -> Result<Label, ExecuteError> {
    let text = metadata(bytes).ok_or_else(|| damaged(path, "it is not a checkpoint file"))?;
    serde_json::from_str(&text).map_err(|error| damaged(path, &error.to_string()))
}

fn read(path: &Path) -> Result<Vec<u8>, ExecuteError> {
    fs::read(path).map_err(|source| ExecuteError::Read { what: path.display().to_string(), source })
}

fn damaged(path: &Path, reason: &str) -> ExecuteError {
    ExecuteError::CheckpointDamaged { path: path.display().to_string(), reason: reason.to_owned() }
}

/// The finished checkpoints of a directory, by step.
fn steps(directory: &Path) -> io::Result<BTreeMap<u64, PathBuf>> {
    let mut steps = BTreeMap::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let name = entry.file_name();
        let step = name.to_str().and_then(|name| name.strip_prefix("step-")?.parse().ok());
        if let Some(step) = step {
            steps.insert(step, entry.path());
        }
    }
    Ok(steps)
}

fn prune(directory: &Path) -> io::Result<()> {
    for path in steps(directory)?.values().rev().skip(KEPT) {
        // Renamed first, so that a crash in between leaves no half of a checkpoint under a finished one's name.
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let doomed = directory.join(format!("{UNFINISHED}old-{name}"));
        fs::rename(path, &doomed)?;
        fs::remove_dir_all(doomed)?;
    }
    Ok(())
}

fn remove_unfinished(directory: &Path) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let unfinished = entry.file_name().to_str().is_some_and(|name| name.starts_with(UNFINISHED));
        if unfinished && entry.file_type()?.is_dir() {
            fs::remove_dir_all(entry.path())?;
        }
    }
    Ok(())
}

/// Brings a directory's names to the disk.
fn sync_directory(directory: &Path) -> io::Result<()> {
    if cfg!(unix) { File::open(directory)?.sync_all() } else { Ok(()) }
}
