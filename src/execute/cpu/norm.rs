//! Layer norm (Ba et al. 2016, arXiv:1607.06450) and its gradients.

use crate::execute::model::Spec;

use super::param::Param;
use super::vector::{dot, sum, vectorised};

/// Added to the variance.
const EPS: f32 = 1e-5;

/// A layer norm.
#[derive(Clone)]
pub(super) struct Norm {
    /// `[hidden]`.
    pub(super) weight: Param,
    /// `[hidden]`.
    pub(super) bias: Param,
}

impl Norm {
    /// A norm as it starts.
    pub(super) fn new([weight, bias]: [Spec; 2], seed: u64) -> Self {
        Self { weight: Param::new(weight, seed), bias: Param::new(bias, seed) }
    }

    /// `y = (x - mean) / deviation * w + b`, row by row; keeps means and inverse deviations, `[2, tokens]`.
    pub(super) fn forward(&self, x: &[f32], y: &mut [f32], stats: &mut [f32]) {
        let (weight, bias) = (&self.weight.value[..], &self.bias.value[..]);
        let width = weight.len();
        let (means, inverses) = stats.split_at_mut(stats.len() / 2);
        vectorised!(|| {
            let rows = x.chunks_exact(width).zip(y.chunks_exact_mut(width));
            for ((x, y), (mean, inverse)) in rows.zip(means.iter_mut().zip(inverses)) {
                *mean = sum(x) / width as f32;
                for (y, x) in y.iter_mut().zip(x) {
                    *y = x - *mean;
                }
                *inverse = 1.0 / (dot(y, y) / width as f32 + EPS).sqrt();
                for (y, (w, b)) in y.iter_mut().zip(weight.iter().zip(bias)) {
                    *y = (*y * *inverse).mul_add(*w, *b);
                }
            }
        });
    }

    /// Adds the input's gradient to `dx` and the parameters' to theirs; leaves the normalised gradient in `dy`.
    pub(super) fn backward(&mut self, dy: &mut [f32], x: &[f32], stats: &[f32], dx: &mut [f32]) {
        let Self { weight, bias } = self;
        let width = weight.value.len();
        let (means, inverses) = stats.split_at(stats.len() / 2);
        let (weight, dw, db) = (&weight.value[..], &mut weight.gradient[..], &mut bias.gradient[..]);
        vectorised!(|| {
            let rows = dy.chunks_exact_mut(width).zip(x.chunks_exact(width)).zip(dx.chunks_exact_mut(width));
            for (((dy, x), dx), (&mean, &inverse)) in rows.zip(means.iter().zip(inverses)) {
                for column in 0..width {
                    let normal = (x[column] - mean) * inverse;
                    dw[column] = dy[column].mul_add(normal, dw[column]);
                    db[column] += dy[column];
                    dy[column] *= weight[column];
                }
                // Projections of the gradient on the constant row and on the normalised row, which the norm removes.
                let constant = sum(dy) / width as f32;
                let along = (dot(dy, x) - mean * constant * width as f32) * inverse / width as f32;
                for column in 0..width {
                    let normal = (x[column] - mean) * inverse;
                    dx[column] += inverse * (dy[column] - constant - normal * along);
                }
            }
        });
    }
}
