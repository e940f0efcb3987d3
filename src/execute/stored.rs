//! Tensors in safetensors files, and whole parameters put together from the rows that ranks hold.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::File;
use std::io;
use std::path::Path;

use safetensors::{Dtype, SafeTensorError, SafeTensors, View};

use super::backend::{Backend, Tensor};
use crate::ir::Rank;

/// The key of the metadata that says what a file is.
pub(super) const METADATA: &str = "schedc";

/// A tensor on its way into a file.
pub(super) struct Stored<'a> {
    shape: Vec<usize>,
    data: Numbers<'a>,
}

enum Numbers<'a> {
    F32(&'a [f32]),
    F64(f64),
    I64(Vec<i64>),
}

impl<'a> Stored<'a> {
    /// Values of a parameter, or of rows of one.
    pub(super) fn f32(shape: Vec<usize>, data: &'a [f32]) -> Self {
        Self { shape, data: Numbers::F32(data) }
    }

    /// One number.
    pub(super) fn scalar(value: f64) -> Self {
        Self { shape: vec![1], data: Numbers::F64(value) }
    }

    /// Token ids.
    pub(super) fn ids(shape: Vec<usize>, ids: impl Iterator<Item = u32>) -> Self {
        Self { shape, data: Numbers::I64(ids.map(i64::from).collect()) }
    }
}

impl View for Stored<'_> {
    fn dtype(&self) -> Dtype {
        match self.data {
            Numbers::F32(_) => Dtype::F32,
            Numbers::F64(_) => Dtype::F64,
            Numbers::I64(_) => Dtype::I64,
        }
    }

    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        match &self.data {
            Numbers::F32(data) => data.iter().flat_map(|number| number.to_le_bytes()).collect(),
            Numbers::F64(number) => number.to_le_bytes().to_vec().into(),
            Numbers::I64(data) => data.iter().flat_map(|number| number.to_le_bytes()).collect(),
        }
    }

    fn data_len(&self) -> usize {
        match &self.data {
            Numbers::F32(data) => data.len() * 4,
            Numbers::F64(_) => 8,
            Numbers::I64(data) => data.len() * 8,
        }
    }
}

/// Writes a file and waits until it lies on the disk.
pub(super) fn write(path: &Path, tensors: Vec<(String, Stored<'_>)>, metadata: String) -> io::Result<()> {
    let metadata = HashMap::from([(METADATA.to_owned(), metadata)]);
    safetensors::serialize_to_file(tensors, Some(metadata), path).map_err(|error| match error {
        SafeTensorError::IoError(error) => error,
        other => io::Error::other(other.to_string()),
    })?;
    File::open(path)?.sync_all()
}

/// The numbers of an f32 tensor of a file.
pub(super) fn numbers(file: &SafeTensors<'_>, name: &str) -> Option<Vec<f32>> {
    let tensor = file.tensor(name).ok().filter(|tensor| tensor.dtype() == Dtype::F32)?;
    let (numbers, _) = tensor.data().as_chunks::<4>();
    Some(numbers.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect())
}

/// A parameter with the rows of all ranks.
#[derive(Clone, Debug, PartialEq)]
pub struct Whole {
    /// Its shape.
    pub shape: Vec<u64>,
    /// Its values.
    pub value: Vec<f32>,
    /// The gradient of the mean loss of the step.
    pub gradient: Vec<f32>,
}

/// The gradient of a whole parameter of which another rank has a copy, too.
#[derive(Clone, Debug)]
pub struct Copied {
    /// The parameter.
    pub name: String,
    /// The rank that it lies on.
    pub rank: Rank,
    /// Its gradient.
    pub gradient: Vec<f32>,
}

/// The gradients of second and further copies of parameters that lie whole on several ranks.
pub fn copies<'a, B: Backend + 'a>(backends: impl Iterator<Item = &'a mut B>) -> Vec<Copied> {
    copies_of(backends.map(Backend::tensors))
}

/// The same of what ranks hold, by rank.
pub fn copies_of<'a>(ranks: impl Iterator<Item = Vec<Tensor<'a>>>) -> Vec<Copied> {
    let (mut seen, mut copies) = (BTreeSet::new(), Vec::new());
    for (rank, tensors) in ranks.enumerate() {
        for tensor in tensors {
            let whole = tensor.rows.start == 0 && Some(&tensor.rows.end) == tensor.shape.first();
            if whole && !seen.insert(tensor.name.to_owned()) {
                let (name, gradient) = (tensor.name.to_owned(), tensor.gradient.to_vec());
                copies.push(Copied { name, rank: Rank::new(rank), gradient });
            }
        }
    }
    copies
}

/// Puts every parameter together, by name. Rows that no rank holds are not a number.
pub fn gather<'a, B: Backend + 'a>(backends: impl Iterator<Item = &'a mut B>) -> BTreeMap<String, Whole> {
    gather_of(backends.map(Backend::tensors))
}

/// The same of what ranks hold, by rank.
pub fn gather_of<'a>(ranks: impl Iterator<Item = Vec<Tensor<'a>>>) -> BTreeMap<String, Whole> {
    let mut wholes: BTreeMap<String, Whole> = BTreeMap::new();
    for tensors in ranks {
        for tensor in tensors {
            let elements = tensor.shape.iter().product::<u64>() as usize;
            let whole = wholes.entry(tensor.name.to_owned()).or_insert_with(|| Whole {
                shape: tensor.shape.to_vec(),
                value: vec![f32::NAN; elements],
                gradient: vec![f32::NAN; elements],
            });
            let row = tensor.shape.iter().skip(1).product::<u64>() as usize;
            let start = tensor.rows.start as usize * row;
            let range = start..start + tensor.value.len();
            whole.value[range.clone()].copy_from_slice(tensor.value);
            whole.gradient[range].copy_from_slice(tensor.gradient);
        }
    }
    wholes
}
