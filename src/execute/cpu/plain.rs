//! The CPU's kernels on plain slices: what the kernels of other backends are held against.

use crate::execute::model::{Draw, LayerAct, Sizes, Spec, Train};

use super::attention::{self, Before};
use super::norm::Norm;
use super::panels::Packed;
use super::param::{Adam, Param};
use super::tables::OutputTable;
use super::workspace::Factors;
use super::{gelu, input, shard, softmax};

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

/// GELU.
#[must_use]
pub fn gelu(x: &[f32]) -> Vec<f32> {
    let mut y = vec![0.0; x.len()];
    gelu::forward(x, &mut y);
    y
}

/// `dy` times GELU's slope.
#[must_use]
pub fn gelu_gradient(dy: &[f32], x: &[f32]) -> Vec<f32> {
    let mut dx = dy.to_vec();
    gelu::backward(&mut dx, x);
    dx
}

/// The rows of tokens in a table whose first row is `first`, 0 where it has none.
#[must_use]
pub fn lookup(table: &[f32], first: usize, tokens: &[u32], width: usize) -> Vec<f32> {
    let mut x = vec![0.0; tokens.len() * width];
    input::lookup(&param(table, width, first), tokens, width, &mut x);
    x
}

/// The gradient of a table of so many rows, added to what is there.
#[must_use]
pub fn scatter(gradient: &[f32], first: usize, tokens: &[u32], width: usize, dx: &[f32]) -> Vec<f32> {
    let mut table = param(gradient, width, first);
    table.gradient.copy_from_slice(gradient);
    input::scatter(&mut table, tokens, width, dx);
    table.gradient
}

/// Adam's steps from moments of 0, one for each gradient: values, first and second moments.
#[must_use]
pub fn adam(train: &Train, value: &[f32], gradients: &[&[f32]]) -> [Vec<f32>; 3] {
    let mut param = param(value, 1, 0);
    for (t, gradient) in (1..).zip(gradients) {
        param.gradient.copy_from_slice(gradient);
        param.step(&Adam::at(train, t));
    }
    let tensor = param.tensor();
    [tensor.value, tensor.first, tensor.second].map(<[f32]>::to_vec)
}

/// Attention on whole sequences, or on the last of the slices of which `qkv` has the tokens' queries, keys and values: its output, and the
/// gradients by `qkv` of every slice of that of the output.
#[must_use]
pub fn attention(sizes: &Sizes, qkv: &[Vec<f32>], gradient: &[f32]) -> (Vec<f32>, Vec<Vec<f32>>) {
    let elements = LayerAct::elements(sizes);
    let mut acts = vec![vec![0.0; elements]; qkv.len()];
    for (act, qkv) in acts.iter_mut().zip(qkv) {
        LayerAct::cut(sizes, act).qkv.copy_from_slice(qkv);
    }
    let Some((own, earlier)) = acts.split_last_mut() else { return (Vec::new(), Vec::new()) };
    let act = LayerAct::cut(sizes, own);
    let mut slices: Vec<&mut [f32]> = earlier.iter_mut().map(|act| &mut act[..]).collect();
    let mut before = Before::new(&mut slices, 0);
    let mut factors = Factors::new(sizes);
    attention::forward(sizes, act.qkv, &mut before, act.probabilities, act.attended, &mut factors);
    let mut d_qkv = vec![0.0; 3 * sizes.tokens * sizes.hidden];
    let mut scores = vec![0.0; sizes.sequence * sizes.keys];
    attention::backward(sizes, &act, &mut before, gradient, &mut d_qkv, &mut scores, &mut factors);
    let attended = act.attended.to_vec();
    let mut gradients: Vec<_> =
        slices.iter_mut().map(|act| LayerAct::cut(sizes, act).owed.to_vec()).collect();
    gradients.push(d_qkv);
    (attended, gradients)
}

/// Turns `[rows, columns]` into `[columns, rows]`.
fn turned(matrix: &[f32], columns: usize) -> Vec<f32> {
    let rows = matrix.len().checked_div(columns).unwrap_or(0);
    (0..columns * rows).map(|i| matrix[i % rows * columns + i / rows]).collect()
}

/// A shard of the output layer: the vocabulary's rows from `first` on, `[rows, hidden]`.
#[derive(Clone, Copy, Debug)]
pub struct Shard<'a> {
    /// The first row.
    pub first: usize,
    /// How many.
    pub rows: usize,
    /// Their values.
    pub value: &'a [f32],
}

impl Shard<'_> {
    fn table<'a>(&'a self, gradient: &'a mut [f32]) -> OutputTable<'a> {
        let rows = self.first..self.first + self.rows;
        OutputTable { rows, value: self.value, packed: Packed::default(), gradient }
    }

    /// Pass S on logits `[tokens, rows]`: their exponentials, `[tokens, rows]`, and the statistics, `[3, tokens]`.
    #[must_use]
    pub fn statistics(&self, logits: &[f32], targets: &[u32]) -> [Vec<f32>; 2] {
        let n = targets.len();
        let mut logits = turned(logits, self.rows);
        let (mut stats, mut partial) = (vec![0.0; 3 * n], vec![0.0; n]);
        for (token, &target) in targets.iter().enumerate() {
            let row = (target as usize).checked_sub(self.first).filter(|&row| row < self.rows);
            stats[2 * n + token] = row.map_or(f32::NEG_INFINITY, |row| logits[row * n + token]);
        }
        let (most, sums) = stats.split_at_mut(n);
        softmax::columns_max(&logits, most);
        softmax::columns_exponentiate(&mut logits, most, &mut sums[..n], &mut partial);
        [turned(&logits, n), stats]
    }

    /// Pass T on exponentials `[tokens, rows]` by gathered statistics, as rank `rank`: the gradient by the logits, and the mean loss.
    #[must_use]
    pub fn gradient(
        &self,
        rank: usize,
        stats: &[f32],
        targets: &[u32],
        share: f32,
        exponentials: &[f32],
    ) -> (Vec<f32>, f64) {
        let n = targets.len();
        let (mut held, mut each) = (turned(exponentials, self.rows), vec![0.0; n]);
        let loss =
            shard::logits_grad(&self.table(&mut []), rank, stats, targets, share, &mut held, &mut each);
        (turned(&held, n), loss)
    }

    /// Algorithm 2's rescale of `unscaled`, `[tokens, hidden]`.
    #[must_use]
    pub fn rescale(
        &self,
        rank: usize,
        stats: &[f32],
        targets: &[u32],
        share: f32,
        unscaled: &[f32],
    ) -> Vec<f32> {
        let mut dx = vec![0.0; unscaled.len()];
        shard::rescale(&self.table(&mut []), rank, stats, targets, share, unscaled, &mut dx);
        dx
    }
}
