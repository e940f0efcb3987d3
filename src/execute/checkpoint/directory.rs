//! The directory of checkpoints: which names in it are ours, and what of it may be removed.
//!
//! A user may keep other things there. Only what was surely written here is removed: directories with the prefix of unfinished work, and
//! complete checkpoints of the same run.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use super::file::{file_name, label};
use super::{Checkpoint, Identity};
use crate::execute::error::ExecuteError;
use crate::ir::Rank;

/// How many checkpoints are kept.
const KEPT: usize = 2;

/// What the names of unfinished work begin with.
pub(super) const UNFINISHED: &str = ".schedc-tmp-";

/// The name of a step's checkpoint.
pub(super) fn name_of(step: u64) -> String {
    format!("step-{step:08}")
}

/// The step of a checkpoint's name. Any other spelling of the number is not ours.
fn step_of(name: &str) -> Option<u64> {
    let step = name.strip_prefix("step-")?.parse().ok()?;
    (name_of(step) == name).then_some(step)
}

/// Makes the directory, and tries whether it can be written.
///
/// # Errors
/// It is a file, or cannot be made or written.
pub fn prepare(directory: &Path) -> Result<(), ExecuteError> {
    is_no_file(directory)?;
    let probe = directory.join(format!("{UNFINISHED}probe"));
    let tried = || -> io::Result<()> {
        fs::create_dir_all(directory)?;
        remove_unfinished(directory)?;
        fs::create_dir(&probe)?;
        fs::remove_dir(&probe)
    };
    tried().map_err(|source| ExecuteError::Write { what: directory.display().to_string(), source })
}

/// Refuses a file in the place of the directory.
pub(super) fn is_no_file(directory: &Path) -> Result<(), ExecuteError> {
    if directory.exists() && !directory.is_dir() {
        return Err(ExecuteError::NotADirectory { path: directory.display().to_string() });
    }
    Ok(())
}

/// What has the name of a finished checkpoint, by step.
pub(super) fn steps(directory: &Path) -> io::Result<BTreeMap<u64, PathBuf>> {
    let mut steps = BTreeMap::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if let Some(step) = entry.file_name().to_str().and_then(step_of)
            && entry.file_type()?.is_dir()
        {
            steps.insert(step, entry.path());
        }
    }
    Ok(steps)
}

/// Removes the complete checkpoints of a run but the newest, of which `saved` always is one.
pub(super) fn prune(directory: &Path, saved: u64, run: &Identity) -> io::Result<()> {
    let others = steps(directory)?.into_iter().rev().filter(|(step, _)| *step != saved);
    let complete =
        others.filter(|(step, path)| Checkpoint::examine(path, *step).is_ok_and(|label| label.run == *run));
    for (step, path) in complete.skip(KEPT - 1) {
        // Renamed first, so that a crash in between leaves no half of a checkpoint under a finished one's name.
        let doomed = directory.join(format!("{UNFINISHED}old-{}", name_of(step)));
        fs::rename(path, &doomed)?;
        fs::remove_dir_all(doomed)?;
    }
    Ok(())
}

/// Frees the name of a step. What is surely an older checkpoint of that step becomes unfinished work; anything else is kept under
/// another name.
pub(super) fn free_name(directory: &Path, step: u64) -> io::Result<()> {
    let path = directory.join(name_of(step));
    if !path.exists() {
        return Ok(());
    }
    let ours = label(&path.join(file_name(Rank(0)))).is_ok_and(|label| label.step == step);
    let place = if ours {
        directory.join(format!("{UNFINISHED}replaced-{}", name_of(step)))
    } else {
        let numbered = |number: u64| directory.join(format!("set-aside-{number}-{}", name_of(step)));
        (1..u64::MAX).map(numbered).find(|place| !place.exists()).unwrap_or_else(|| numbered(0))
    };
    fs::rename(path, place)
}

/// Removes what earlier runs did not finish.
pub(super) fn remove_unfinished(directory: &Path) -> io::Result<()> {
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
pub(super) fn sync(directory: &Path) -> io::Result<()> {
    if cfg!(unix) { File::open(directory)?.sync_all() } else { Ok(()) }
}
