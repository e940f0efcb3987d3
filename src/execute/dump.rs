//! One step in a file: weights, tokens, loss and gradients, whole, so that any other framework can be held against them.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::path::Path;

use super::data::Tokens;
use super::error::ExecuteError;
use super::stored::{Stored, Whole, write};
use crate::ir::Dims;

/// Tries whether the file can be written; what it holds stays.
///
/// # Errors
/// It cannot be written.
pub fn probe(path: &Path) -> Result<(), ExecuteError> {
    let new = !path.exists();
    let tried = OpenOptions::new().write(true).create(true).truncate(false).open(path);
    let tried = tried.and_then(|_| if new { fs::remove_file(path) } else { Ok(()) });
    tried.map_err(|source| ExecuteError::Write { what: path.display().to_string(), source })
}

/// Writes a step: parameters before it with their gradients, by name; tokens by microbatch; the mean loss.
///
/// # Errors
/// The file cannot be written.
pub fn dump(
    path: &Path,
    dims: &Dims,
    wholes: &BTreeMap<String, Whole>,
    batches: &[Tokens],
    loss: f64,
) -> Result<(), ExecuteError> {
    let mut tensors = Vec::new();
    for (name, whole) in wholes {
        let shape: Vec<usize> = whole.shape.iter().map(|&side| side as usize).collect();
        tensors.push((format!("weight.{name}"), Stored::f32(shape.clone(), &whole.value)));
        tensors.push((format!("gradient.{name}"), Stored::f32(shape, &whole.gradient)));
    }
    let shape = vec![batches.len(), dims.batch as usize, dims.sequence as usize];
    let inputs = batches.iter().flat_map(|batch| batch.inputs.iter().copied());
    let targets = batches.iter().flat_map(|batch| batch.targets.iter().copied());
    tensors.push(("tokens".to_owned(), Stored::ids(shape.clone(), inputs)));
    tensors.push(("targets".to_owned(), Stored::ids(shape, targets)));
    tensors.push(("loss".to_owned(), Stored::scalar(loss)));
    let metadata = serde_json::json!({ "version": 1, "model": dims }).to_string();
    write(path, tensors, metadata)
        .map_err(|source| ExecuteError::Write { what: path.display().to_string(), source })
}
