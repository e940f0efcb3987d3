//! The model without a pipeline: one rank, one microbatch after the other, to hold every schedule against.
//!
//! It shares the layers' kernels with the CPU backend, but not its passes, buffers or sharding, so a schedule that keeps the
//! vocabulary layers whole agrees with it bit for bit, given the order in which its microbatches ran backward.

use std::fmt;

use crate::ir::{Dims, Microbatch};

use super::backend::{Batch, State, Tensor};
use super::cpu::Whole;
use super::model::{ModelError, Train};

/// A GPT on one rank.
#[derive(Clone)]
pub struct Reference {
    model: Whole,
    steps: u64,
}

impl fmt::Debug for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reference").field("steps", &self.steps).finish_non_exhaustive()
    }
}

impl Reference {
    /// Draws the model; a step's loss is the mean over `microbatches`.
    ///
    /// # Errors
    /// A dimension is 0, or the heads do not divide the width.
    pub fn new(dims: &Dims, train: &Train, microbatches: u32) -> Result<Self, ModelError> {
        Ok(Self { model: Whole::new(dims, train, microbatches)?, steps: 0 })
    }

    /// The mean loss over all microbatches, and their gradients added to [`Reference::tensors`] in the order given.
    ///
    /// Requires: `order` names each of `batches` once.
    pub fn accumulate(&mut self, batches: &[Batch<'_>], order: &[Microbatch]) -> f64 {
        let (mut losses, count) =
            (vec![0.0; batches.len()], u32::try_from(batches.len()).unwrap_or(u32::MAX));
        for microbatch in order {
            let batch = batches[microbatch.index()];
            losses[microbatch.index()] = self.model.forward(batch.tokens, batch.targets);
            self.model.backward(batch.tokens);
        }
        losses.iter().sum::<f64>() / f64::from(count.max(1))
    }

    /// Every parameter in pipeline order, each whole, with the gradients so far.
    pub fn tensors(&mut self) -> Vec<Tensor<'_>> {
        self.model.tensors()
    }

    /// One step of Adam; zeroes the gradients.
    pub fn step(&mut self) {
        self.steps += 1;
        self.model.step(self.steps);
    }

    /// Replaces a parameter and its moments; false where a name or a length differs.
    pub fn load(&mut self, name: &str, state: State<'_>) -> bool {
        self.model.load(name, state)
    }
}
