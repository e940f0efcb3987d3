//! GELU, biases, Adam.

use schedc::execute::cpu::plain;
use schedc::execute::model::Train;
use schedc::kernels::{Stored, launch};

use super::{Arg, Buffer, Draws, close, hosts};

const COUNTS: [usize; 5] = [1, 3, 17, 257, 4099];

#[test]
fn gelu_and_its_gradient_are_those_of_the_cpu() {
    let mut draws = Draws::new();
    for host in hosts().into_iter().flatten() {
        for count in COUNTS {
            let stored = host.stored;
            let [x, dy] = [6.0, 1.0].map(|most| draws.numbers(stored, count, most));
            let (from, y) = (Buffer::stored(stored, &x), Buffer::stored(stored, &vec![0.0; count]));
            let length = Arg::Long(count as i64);
            host.run(launch::gelu_forward(stored, count as u64), &[Arg::To(&y), Arg::To(&from), length]);
            close("gelu", stored, &y.values(), &plain::gelu(&x), 1e-6);
            let gradient = Buffer::stored(stored, &dy);
            let pointers = [Arg::To(&gradient), Arg::To(&from), length];
            host.run(launch::gelu_backward(stored, count as u64), &pointers);
            close("slope", stored, &gradient.values(), &plain::gelu_gradient(&dy, &x), 2e-6);
        }
    }
}

#[test]
fn a_bias_is_added_to_every_row() {
    let mut draws = Draws::new();
    for host in hosts().into_iter().flatten() {
        for (rows, width) in [(1, 1), (3, 17), (17, 257), (2, 2048)] {
            let x = draws.numbers(host.stored, rows * width, 1.0);
            let bias = draws.numbers(host.stored, width, 1.0);
            let expected: Vec<f32> = x.iter().enumerate().map(|(i, x)| x + bias[i % width]).collect();
            let (y, bias) = (Buffer::stored(host.stored, &x), Buffer::stored(host.stored, &bias));
            let shape = launch::bias_add(host.stored, rows as u32, width as u32);
            host.run(shape, &[Arg::To(&y), Arg::To(&bias), Arg::Int(width as i32)]);
            close("sum", host.stored, &y.values(), &expected, 1e-7);
        }
    }
}

#[test]
fn two_steps_of_adam_are_those_of_the_cpu_and_leave_no_gradient() {
    let mut draws = Draws::new();
    let train = Train { weight_decay: 0.1, ..Train::default() };
    for host in hosts().into_iter().flatten() {
        for count in COUNTS {
            let [value, one, two] = [1.0, 0.1, 0.1].map(|most| draws.numbers(Stored::F32, count, most));
            let [expected, firsts, seconds] = plain::adam(&train, &value, &[&one, &two]);
            let zeros = vec![0.0; count];
            let (values, first, second) = (Buffer::f32(&value), Buffer::f32(&zeros), Buffer::f32(&zeros));
            let copy = Buffer::stored(host.stored, &zeros);
            for (t, gradient) in [(1, &one), (2, &two)] {
                let gradient = Buffer::f32(gradient);
                let bias = |beta: f32| 1.0 - f64::from(beta).powi(t);
                let rate = (f64::from(train.lr) / bias(train.beta1)) as f32;
                let root = (1.0 / bias(train.beta2).sqrt()) as f32;
                let keep = 1.0 - train.lr * train.weight_decay;
                let pointers = [&values, &gradient, &first, &second, &copy].map(Arg::To);
                let factors = [train.beta1, train.beta2, rate, root, train.eps, keep].map(Arg::Float);
                let length = [Arg::Long(count as i64)];
                let shape = launch::adam(host.stored, count as u64);
                host.run(shape, &[&pointers[..], &factors, &length].concat());
                assert!(gradient.values().iter().all(|gradient| gradient.to_bits() == 0));
            }
            close("values", Stored::F32, &values.values(), &expected, 1e-6);
            close("first moments", Stored::F32, &first.values(), &firsts, 1e-6);
            close("second moments", Stored::F32, &second.values(), &seconds, 1e-6);
            close("copies", host.stored, &copy.values(), &expected, 1e-6);
        }
    }
}
