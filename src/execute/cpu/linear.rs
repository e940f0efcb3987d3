//! y = x Wᵀ + b, and its gradients.

use crate::execute::model::Spec;

use super::param::Param;
use super::product::{Into, Matrix, MatrixMut, product};
use super::transpose::transpose;
use super::vector::{add, vectorised};

/// A linear layer.
#[derive(Clone)]
pub(super) struct Linear {
    /// `[outputs, inputs]`.
    pub(super) weight: Param,
    /// `[outputs]`.
    pub(super) bias: Param,
    inputs: usize,
    outputs: usize,
}

impl Linear {
    /// Draws a layer.
    pub(super) fn new([weight, bias]: [Spec; 2], seed: u64) -> Self {
        let (outputs, inputs) = (weight.shape[0] as usize, weight.shape[1] as usize);
        Self { weight: Param::new(weight, seed).with_turned(), bias: Param::new(bias, seed), inputs, outputs }
    }

    /// `y = x Wᵀ + b`.
    pub(super) fn forward(&self, x: &[f32], y: &mut [f32]) {
        y.chunks_exact_mut(self.outputs).for_each(|row| row.copy_from_slice(&self.bias.value));
        self.multiply(x, y);
    }

    /// `y += x Wᵀ + b`.
    pub(super) fn forward_onto(&self, x: &[f32], y: &mut [f32]) {
        vectorised!(|| y.chunks_exact_mut(self.outputs).for_each(|row| add(row, &self.bias.value)));
        self.multiply(x, y);
    }

    /// `y += x Wᵀ`.
    fn multiply(&self, x: &[f32], y: &mut [f32]) {
        let n = x.len() / self.inputs;
        let weight = Matrix::new(&self.weight.turned, self.inputs, self.outputs);
        let x = Matrix::new(x, n, self.inputs);
        product(MatrixMut::new(y, n, self.outputs), Into::Add, 1.0, x, weight);
    }

    /// `dx = dy W`.
    pub(super) fn input_grad(&self, dy: &[f32], dx: &mut [f32]) {
        let n = dy.len() / self.outputs;
        let weight = Matrix::new(&self.weight.value, self.outputs, self.inputs);
        let dy = Matrix::new(dy, n, self.outputs);
        product(MatrixMut::new(dx, n, self.inputs), Into::Replace, 1.0, dy, weight);
    }

    /// `dW += dyᵀ x`, `db += Σ dy`. `turned` is scratch for dyᵀ.
    pub(super) fn weight_grad(&mut self, x: &[f32], dy: &[f32], turned: &mut [f32]) {
        let n = dy.len() / self.outputs;
        let gradient = MatrixMut::new(&mut self.weight.gradient, self.outputs, self.inputs);
        transpose(dy, n, self.outputs, self.outputs, turned);
        let (x, turned) = (Matrix::new(x, n, self.inputs), Matrix::new(turned, self.outputs, n));
        product(gradient, Into::Add, 1.0, turned, x);
        let bias = &mut self.bias.gradient;
        vectorised!(|| dy.chunks_exact(self.outputs).for_each(|row| add(bias, row)));
    }
}
