//! GELU in its tanh form (Hendrycks & Gimpel 2016, arXiv:1606.08415), written with the logistic function:
//! 0.5 x (1 + tanh u) = x σ(2u), u = √(2/π) (x + 0.044715 x³).

use super::vector::{sigmoid, vectorised};

/// 2 √(2/π).
const TWICE_ROOT: f32 = 1.595_769;
/// The cubic term's share.
const CUBIC: f32 = 0.044_715;

/// `y = gelu(x)`.
pub(super) fn forward(x: &[f32], y: &mut [f32]) {
    vectorised!(|| {
        for (y, &x) in y.iter_mut().zip(x) {
            let twice = TWICE_ROOT * x * (CUBIC * x).mul_add(x, 1.0);
            *y = x * sigmoid(twice);
        }
    });
}

/// `dy *= gelu'(x)`.
pub(super) fn backward(dy: &mut [f32], x: &[f32]) {
    vectorised!(|| {
        for (dy, &x) in dy.iter_mut().zip(x) {
            let square = x * x;
            let gate = sigmoid(TWICE_ROOT * x * CUBIC.mul_add(square, 1.0));
            let slope = TWICE_ROOT * (3.0 * CUBIC).mul_add(square, 1.0);
            *dy *= (x * slope * (1.0 - gate)).mul_add(gate, gate);
        }
    });
}

#[cfg(test)]
mod tests {
    use super::{backward, forward};

    #[test]
    fn gelu_and_its_slope_agree_with_the_tanh_form() {
        let points: Vec<f32> = (-3000..3000_i16).map(|i| f32::from(i) / 250.0).collect();
        let (mut value, mut slope) = (vec![0.0; points.len()], vec![1.0; points.len()]);
        forward(&points, &mut value);
        backward(&mut slope, &points);
        let root = (2.0 / std::f64::consts::PI).sqrt();
        for (i, &x) in points.iter().enumerate() {
            let x = f64::from(x);
            let t = (root * (x + 0.044_715 * x.powi(3))).tanh();
            let exact = 0.5 * x * (1.0 + t);
            let exact_slope =
                0.5 * (1.0 + t) + 0.5 * x * (1.0 - t * t) * root * (1.0 + 3.0 * 0.044_715 * x * x);
            assert!((f64::from(value[i]) - exact).abs() <= 4e-7 * x.abs().max(1.0), "gelu({x})");
            assert!((f64::from(slope[i]) - exact_slope).abs() <= 2e-6, "gelu'({x})");
        }
    }
}
