//! The reference against differences of its own loss, and its optimizer against Adam's formula.
#![allow(clippy::cast_precision_loss, reason = "the numbers are small")]

use schedc::execute::backend::State;
use schedc::execute::reference::Reference;
use schedc::ir::Dims;

use super::rig::{Data, ascending, tiny, train};

/// A model whose weights are far larger than initial ones, so that every gradient stands well above rounding.
fn wide_awake(dims: &Dims, m: u32) -> (Reference, Vec<(String, Vec<f32>)>) {
    let mut model = Reference::new(dims, &train(), m).expect("the model runs");
    let values: Vec<(String, Vec<f32>)> = model
        .tensors()
        .iter()
        .enumerate()
        .map(|(k, tensor)| {
            let noise = |i: usize| ((i * 7919 + k * 31) % 199) as f32 / 199.0 - 0.5;
            let is_weight = tensor.shape.len() == 2;
            let change = |(i, &v): (usize, &f32)| if is_weight { 15.0 * v } else { v + 0.5 * noise(i) };
            (tensor.name.to_owned(), tensor.value.iter().enumerate().map(change).collect())
        })
        .collect();
    for (name, value) in &values {
        set(&mut model, name, value);
    }
    (model, values)
}

fn set(model: &mut Reference, name: &str, value: &[f32]) {
    let zeros = vec![0.0; value.len()];
    assert!(model.load(name, State { value, first: &zeros, second: &zeros }));
}

#[test]
fn gradients_agree_with_differences_of_the_loss() {
    for tied in [false, true] {
        let dims = tiny(tied);
        let data = Data::new(&dims, 2);
        let order = ascending(2);
        let (mut model, values) = wide_awake(&dims, 2);
        model.accumulate(&data.batches(), &order);
        let gradients: Vec<Vec<f32>> = model.tensors().iter().map(|t| t.gradient.to_vec()).collect();
        for ((name, value), gradient) in values.iter().zip(&gradients) {
            let norm = gradient.iter().map(|g| f64::from(*g).powi(2)).sum::<f64>().sqrt();
            let typical = norm / (gradient.len() as f64).sqrt();
            for i in (0..value.len()).step_by(value.len().div_ceil(6)) {
                let step = 2e-3_f32;
                let mut loss_at = |change: f32| {
                    let mut moved = value.clone();
                    moved[i] += change;
                    set(&mut model, name, &moved);
                    model.accumulate(&data.batches(), &order)
                };
                let slope = (loss_at(step) - loss_at(-step)) / (2.0 * f64::from(step));
                set(&mut model, name, value);
                let off = (slope - f64::from(gradient[i])).abs();
                let allowed = 2e-2 * f64::from(gradient[i]).abs().max(typical) + 3e-4;
                assert!(off <= allowed, "{name}[{i}]: difference {slope}, gradient {}", gradient[i]);
            }
            assert!(norm > 1e-3 || name.ends_with("qkv.bias"), "{name} has a gradient worth checking");
        }
    }
}

#[test]
fn adam_moves_as_its_formula_says() {
    let dims = tiny(false);
    let data = Data::new(&dims, 2);
    let mut model = Reference::new(&dims, &train(), 2).expect("the model runs");
    let train = train();
    let all = |model: &mut Reference, of: fn(&schedc::execute::backend::Tensor<'_>) -> Vec<f32>| {
        model.tensors().iter().flat_map(of).map(f64::from).collect::<Vec<f64>>()
    };
    let (mut first, mut second) = (Vec::new(), Vec::new());
    for t in 1..=3 {
        let before = all(&mut model, |tensor| tensor.value.to_vec());
        model.accumulate(&data.batches(), &ascending(2));
        let gradient = all(&mut model, |tensor| tensor.gradient.to_vec());
        model.step();
        first.resize(before.len(), 0.0);
        second.resize(before.len(), 0.0);
        let after = all(&mut model, |tensor| tensor.value.to_vec());
        let [b1, b2] = [train.beta1, train.beta2].map(f64::from);
        for i in 0..before.len() {
            first[i] = b1 * first[i] + (1.0 - b1) * gradient[i];
            second[i] = b2 * second[i] + (1.0 - b2) * gradient[i] * gradient[i];
            let (m, v) = (first[i] / (1.0 - b1.powi(t)), second[i] / (1.0 - b2.powi(t)));
            let expected = before[i] - f64::from(train.lr) * m / (v.sqrt() + f64::from(train.eps));
            assert!((after[i] - expected).abs() < 2e-6, "element {i} at step {t}: {} {expected}", after[i]);
        }
        assert!(
            all(&mut model, |tensor| tensor.gradient.to_vec()).iter().all(|&g| g.abs() < f64::MIN_POSITIVE)
        );
    }
}

#[test]
fn a_few_steps_learn_two_microbatches_by_heart() {
    let dims = tiny(true);
    let data = Data::new(&dims, 2);
    let mut model = Reference::new(&dims, &train(), 2).expect("the model runs");
    let mut losses = Vec::new();
    for _ in 0..60 {
        losses.push(model.accumulate(&data.batches(), &ascending(2)));
        model.step();
    }
    assert!((losses[0] - f64::from(dims.vocab).ln()).abs() < 0.1, "it starts at the uniform loss");
    assert!(losses[59] < 0.3 * losses[0], "it ends at {}", losses[59]);
}
