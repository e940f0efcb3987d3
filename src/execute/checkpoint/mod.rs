//! Checkpoints: a directory a step, with one safetensors file a rank, which is complete or absent.
//!
//! A checkpoint is written beside its place, brought to the disk (files, then directory), and renamed; a crash at any moment leaves the
//! one before. The newest two are kept. It resumes bit for bit, on the plan, the model, the seed and the data that it was made with.

mod directory;
mod file;
mod identity;

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

pub use directory::prepare;
pub use identity::Identity;

use directory::{UNFINISHED, free_name, is_no_file, name_of, prune, remove_unfinished, steps, sync};
use file::{Label, VERSION, damaged, file_name, label, read, restore_rank, write_rank};

use super::backend::Store;
use super::error::ExecuteError;
use super::tokenizer::Tokenizer;
use crate::ir::{Mode, Rank};

/// Where the tokenizer of a checkpoint lies.
const TOKENIZER: &str = "tokenizer.json";

/// A complete checkpoint.
#[derive(Debug)]
pub struct Checkpoint {
    path: PathBuf,
    /// Steps that had been taken.
    pub step: u64,
    /// Newer ones that are not complete, the newest first.
    pub skipped: Vec<Skipped>,
}

/// A checkpoint that is passed over.
#[derive(Clone, Debug)]
pub struct Skipped {
    /// Where it lies.
    pub path: PathBuf,
    /// Why, as one sentence.
    pub reason: String,
}

/// A checkpoint on its way to the disk. [`Saving::begin`], then [`Saving::write`] for all ranks, then [`Saving::commit`]; with several
/// processes each writes its own ranks, and one does the rest.
#[derive(Debug)]
pub struct Saving<'a> {
    /// Where checkpoints lie.
    pub directory: &'a Path,
    /// Steps that have been taken.
    pub step: u64,
    /// The run.
    pub run: &'a Identity,
    /// Its tokenizer.
    pub tokenizer: &'a Tokenizer,
    /// Ranks of the plan.
    pub ranks: u32,
}

impl Saving<'_> {
    /// Where it will lie.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        self.directory.join(name_of(self.step))
    }

    fn unfinished(&self) -> PathBuf {
        self.directory.join(format!("{UNFINISHED}{}", name_of(self.step)))
    }

    fn failed(&self, source: io::Error) -> ExecuteError {
        ExecuteError::Write { what: self.path().display().to_string(), source }
    }

    /// Makes the place for it, beside its own.
    ///
    /// # Errors
    /// The directory cannot be written.
    pub fn begin(&self) -> Result<(), ExecuteError> {
        let made = || -> io::Result<()> {
            fs::create_dir_all(self.directory)?;
            remove_unfinished(self.directory)?;
            fs::create_dir(self.unfinished())
        };
        made().map_err(|source| self.failed(source))
    }

    /// Writes the files of some ranks, neighbours, of which `first` is the first.
    ///
    /// # Errors
    /// A file cannot be written.
    pub fn write<'a, B: Store + 'a>(
        &self,
        first: usize,
        backends: impl ExactSizeIterator<Item = &'a mut B>,
    ) -> Result<(), ExecuteError> {
        for (rank, backend) in
            backends.enumerate().map(|(place, backend)| (Rank::new(first + place), backend))
        {
            let label = Label {
                version: VERSION,
                step: self.step,
                rank: rank.0,
                ranks: self.ranks,
                run: self.run.clone(),
            };
            write_rank(&self.unfinished().join(file_name(rank)), backend, &label)
                .map_err(|source| self.failed(source))?;
        }
        Ok(())
    }

    /// Brings it under its name once all ranks are written, and removes the older checkpoints of the run.
    ///
    /// # Errors
    /// A file cannot be written.
    pub fn commit(&self) -> Result<(), ExecuteError> {
        let (directory, unfinished) = (self.directory, self.unfinished());
        let json = self.tokenizer.to_json()?;
        let saved = || -> io::Result<()> {
            if let Some(json) = json {
                let path = unfinished.join(TOKENIZER);
                fs::write(&path, json)?;
                File::open(path)?.sync_all()?;
            }
            sync(&unfinished)?;
            free_name(directory, self.step)?;
            fs::rename(&unfinished, self.path())?;
            sync(directory)?;
            remove_unfinished(directory)?;
            prune(directory, self.step, self.run)
        };
        saved().map_err(|source| self.failed(source))
    }
}

impl Checkpoint {
    /// The newest complete checkpoint of a directory; `None` where it has none at all.
    ///
    /// # Errors
    /// The directory cannot be read, or has checkpoints and none of them is complete.
    pub fn newest(directory: &Path) -> Result<Option<Self>, ExecuteError> {
        is_no_file(directory)?;
        let steps = match steps(directory) {
            Ok(steps) => steps,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) if error.kind() == io::ErrorKind::NotADirectory => {
                return Err(ExecuteError::NotADirectory { path: directory.display().to_string() });
            }
            Err(source) => return Err(ExecuteError::Read { what: directory.display().to_string(), source }),
        };
        let mut skipped = Vec::new();
        for (step, path) in steps.into_iter().rev() {
            match Self::examine(&path, step) {
                Ok(_) => return Ok(Some(Self { path, step, skipped })),
                Err(error) => skipped.push(Skipped { path, reason: error.to_string() }),
            }
        }
        let Some(newest) = skipped.first() else { return Ok(None) };
        Err(ExecuteError::NoCompleteCheckpoint {
            directory: directory.display().to_string(),
            found: skipped.len(),
            reason: newest.reason.clone(),
        })
    }

    /// Checks the header and the length of every rank's file; the label of the first.
    fn examine(path: &Path, step: u64) -> Result<Label, ExecuteError> {
        let first = label(&path.join(file_name(Rank(0))))?;
        for rank in 0..first.ranks {
            let path = path.join(file_name(Rank(rank)));
            let own = label(&path)?;
            if (own.step, own.rank, own.ranks) != (step, rank, first.ranks) || own.run != first.run {
                return Err(damaged(&path, "it belongs to another step, rank or run"));
            }
        }
        Ok(first)
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
    pub fn check(&self, run: &Identity, mode: Mode) -> Result<(), ExecuteError> {
        let path = self.path.join(file_name(Rank(0)));
        let label = label(&path)?;
        match label.run.difference(run, mode) {
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
    pub fn restore<'a, B: Store + 'a>(
        &self,
        backends: impl ExactSizeIterator<Item = &'a mut B>,
    ) -> Result<(), ExecuteError> {
        let ranks = backends.len();
        self.restore_part(0, ranks, backends)
    }

    /// Restores some of so many ranks, neighbours, of which `first` is the first.
    ///
    /// # Errors
    /// A file is damaged, or lacks a parameter.
    pub fn restore_part<'a, B: Store + 'a>(
        &self,
        first: usize,
        ranks: usize,
        backends: impl ExactSizeIterator<Item = &'a mut B>,
    ) -> Result<(), ExecuteError> {
        let ranks = ranks as u32;
        for (rank, backend) in backends.enumerate().map(|(place, backend)| (first + place, backend)) {
            let path = self.path.join(file_name(Rank::new(rank)));
            let label = label(&path)?;
            if (label.step, label.rank, label.ranks) != (self.step, rank as u32, ranks) {
                return Err(damaged(&path, "it belongs to another step or rank"));
            }
            restore_rank(&path, &read(&path)?, backend)?;
            backend.set_steps(self.step);
        }
        Ok(())
    }
}
