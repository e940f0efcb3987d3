//! The CPU's kernels on plain slices: what the kernels of other backends are held against.

use crate::execute::model::{Draw, Spec};

use super::norm::Norm;
use super::param::Param;

/// A parameter of one side, or rows `first..` of one of two.
fn param(value: &[f32], width: usize, first: usize) -> Param {
    let rows = first as u64..(first + value.len() / width) as u64;
    let shape = if width == 1 { vec![rows.end] } else { vec![rows.end, width as u64] };
    let spec = Spec { name: String::new(), shape, rows, draw: Draw::Constant(0.0) };
    let mut param = Param::new(spec, 0);
    param.value.copy_from_slice(value);
    param
}

/// Layer norm of `x`, `[rows, width]`; the width is that of `weight`. The result and its statistics, `[2, rows]`.
#[must_use]
pub fn layer_norm(x: &[f32], weight: &[f32], bias: &[f32]) -> [Vec<f32>; 2] {
    let norm = Norm { weight: param(weight, 1, 0), bias: param(bias, 1, 0) };
    let (mut y, mut stats) = (vec![0.0; x.len()], vec![0.0; x.len() / weight.len() * 2]);
    norm.forward(x, &mut y, &mut stats);
    [y, stats]
}

/// The gradients by a layer norm's input, weight and bias.
#[must_use]
pub fn layer_norm_gradients(dy: &[f32], x: &[f32], stats: &[f32], weight: &[f32]) -> [Vec<f32>; 3] {
    let mut norm = Norm { weight: param(weight, 1, 0), bias: param(weight, 1, 0) };
    let mut dx = vec![0.0; x.len()];
    norm.backward(&mut dy.to_vec(), x, stats, &mut dx);
    [dx, norm.weight.gradient, norm.bias.gradient]
}
