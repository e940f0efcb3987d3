//! GELU in its tanh form (Hendrycks & Gimpel 2016, arXiv:1606.08415), written with the logistic function:
//! 0.5 x (1 + tanh u) = x σ(2u), u = √(2/π) (x + 0.044715 x³).

use super::vector::{sigmoid, vectorised};

/// 2 √(2/π).
const TWICE_ROOT: f32 = 1.595_769;
/// The cubic term's share.
const CUBIC: f32 = 0.044_715;

/// `y = gelu(x)`.
pub(super) fn forward(x: &[f32], y: &mut [f32]) {
    vectorised(|| {
        for (y, &x) in y.iter_mut().zip(x) {
            let twice = TWICE_ROOT * x * (CUBIC * x).mul_add(x, 1.0);
            *y = x * sigmoid(twice);
        }
    });
}

/// `dy *= gelu'(x)`.
pub(super) fn backward(dy: &mut [f32], x: &[f32]) {
    vectorised(|| {
        for (dy, &x) in dy.iter_mut().zip(x) {
            let square = x * x;
            let gate = sigmoid(TWICE_ROOT * x * CUBIC.mul_add(square, 1.0));
            let slope = TWICE_ROOT * (3.0 * CUBIC).mul_add(square, 1.0);
            *dy *= (x * slope * (1.0 - gate)).mul_add(gate, gate);
        }
    });
}
