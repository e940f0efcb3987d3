//! y = x Wᵀ + b, and its gradients.

use crate::execute::model::Spec;

use super::param::Param;
use super::product::{Matrix, MatrixMut, Onto, product, product_of_turned};
use super::vector::{add, vectorised};
use super::workspace::Factors;

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
        Self {
            weight: Param::new(weight, seed).with_panels().with_turned_panels(),
            bias: Param::new(bias, seed),
            inputs,
            outputs,
        }
    }

    /// `y = x Wᵀ + b`.
    pub(super) fn forward(&self, x: &[f32], y: &mut [f32]) {
        self.multiply(x, y, Onto::Row(&self.bias.value));
    }

    /// `y += x Wᵀ + b`.
    pub(super) fn forward_onto(&self, x: &[f32], y: &mut [f32]) {
        self.multiply(x, y, Onto::ItselfAndRow(&self.bias.value));
    }

    /// `y = onto + x Wᵀ`.
    fn multiply(&self, x: &[f32], y: &mut [f32], onto: Onto<'_>) {
        let x = Matrix::new(x, x.len() / self.inputs, self.inputs);
        product(MatrixMut::new(y, self.outputs), onto, x, self.weight.copies.turned());
    }

    /// `dx = dy W`.
    pub(super) fn input_grad(&self, dy: &[f32], dx: &mut [f32]) {
        let dy = Matrix::new(dy, dy.len() / self.outputs, self.outputs);
        product(MatrixMut::new(dx, self.inputs), Onto::Nothing, dy, self.weight.copies.plain());
    }

    /// `dW += dyᵀ x`, `db += Σ dy`.
    pub(super) fn weight_grad(&mut self, x: &[f32], dy: &[f32], factors: &mut Factors) {
        let Factors { tiles, packed, .. } = factors;
        let n = dy.len() / self.outputs;
        let x = packed.pack(x, n, self.inputs, self.inputs);
        let gradient = MatrixMut::new(&mut self.weight.gradient, self.inputs);
        product_of_turned(gradient, Onto::Itself, Matrix::new(dy, n, self.outputs), x, tiles);
        let bias = &mut self.bias.gradient;
        vectorised!(|| dy.chunks_exact(self.outputs).for_each(|row| add(bias, row)));
    }
}
