//! One rank's file of a checkpoint: what it says about itself, its parameters and moments.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::Path;

use safetensors::SafeTensors;
use safetensors::tensor::Metadata;
use serde::{Deserialize, Serialize};

use super::Identity;
use crate::execute::backend::{State, Store};
use crate::execute::error::ExecuteError;
use crate::execute::stored::{METADATA, Stored, numbers, write};
use crate::ir::Rank;

/// The version of the layout.
pub(super) const VERSION: u32 = 1;

/// Bytes before the header: its length.
const LENGTH: u64 = 8;

/// The longest header that is read.
const LONGEST: u64 = 100_000_000;

/// What each file of a checkpoint says about itself.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Label {
    pub(super) version: u32,
    pub(super) step: u64,
    pub(super) rank: u32,
    pub(super) ranks: u32,
    pub(super) run: Identity,
}

/// The name of a rank's file.
pub(super) fn file_name(rank: Rank) -> String {
    format!("rank-{:03}.safetensors", rank.0)
}

/// The label of a file that has the length that its header states. Only the header is read.
///
/// # Errors
/// The file cannot be read, or is damaged.
pub(super) fn label(path: &Path) -> Result<Label, ExecuteError> {
    let unread = |source| ExecuteError::Read { what: path.display().to_string(), source };
    let mut file = File::open(path).map_err(unread)?;
    let found = file.metadata().map_err(unread)?.len();
    let mut length = [0; LENGTH as usize];
    file.read_exact(&mut length).map_err(|_| damaged(path, "it is too short for a header"))?;
    let length = u64::from_le_bytes(length);
    if length > LONGEST || length > found.saturating_sub(LENGTH) {
        return Err(damaged(path, "it is too short for its header, or is no checkpoint file"));
    }
    let mut header = vec![0; length as usize];
    file.read_exact(&mut header).map_err(unread)?;
    let header: Metadata =
        serde_json::from_slice(&header).map_err(|error| damaged(path, &error.to_string()))?;
    let stated = (header.data_len() as u64).saturating_add(LENGTH + length);
    if stated != found {
        return Err(damaged(path, &format!("it has {found} bytes, and its header states {stated}")));
    }
    let text = header.metadata().as_ref().and_then(|metadata| metadata.get(METADATA));
    let text = text.ok_or_else(|| damaged(path, "it is not a checkpoint file"))?;
    let label: Label = serde_json::from_str(text).map_err(|error| damaged(path, &error.to_string()))?;
    if label.version == VERSION {
        Ok(label)
    } else {
        Err(damaged(path, &format!("its layout has version {}, and this is {VERSION}", label.version)))
    }
}

/// Writes the parameters and moments of a rank.
pub(super) fn write_rank(path: &Path, backend: &mut impl Store, label: &Label) -> io::Result<()> {
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

/// Takes the parameters and moments of a rank from its file.
///
/// # Errors
/// A parameter is missing, or has another size.
pub(super) fn restore_rank(path: &Path, bytes: &[u8], backend: &mut impl Store) -> Result<(), ExecuteError> {
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

/// The bytes of a file.
pub(super) fn read(path: &Path) -> Result<Vec<u8>, ExecuteError> {
    fs::read(path).map_err(|source| ExecuteError::Read { what: path.display().to_string(), source })
}

pub(super) fn damaged(path: &Path, reason: &str) -> ExecuteError {
    ExecuteError::CheckpointDamaged { path: path.display().to_string(), reason: reason.to_owned() }
}
