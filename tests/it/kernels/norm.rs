//! Layer norms and sums of columns.

use schedc::execute::cpu::plain;
use schedc::kernels::{Stored, launch};

use super::{Arg, Buffer, Draws, close, hosts};

const SIZES: [(usize, usize); 6] = [(1, 1), (3, 17), (17, 3), (5, 257), (257, 40), (2, 2048)];

#[test]
fn layer_norm_is_that_of_the_cpu() {
    let mut draws = Draws::new();
    for host in hosts().into_iter().flatten() {
        for (rows, width) in SIZES {
            let stored = host.stored;
            let x = draws.numbers(stored, rows * width, 3.0);
            let [weight, bias] = [2.0, 1.0].map(|most| draws.numbers(Stored::F32, width, most));
            let [expected, statistics] = plain::layer_norm(&x, &weight, &bias);
            let (y, stats) =
                (Buffer::stored(stored, &vec![0.0; rows * width]), Buffer::f32(&vec![0.0; 2 * rows]));
            let (from, weight, bias) = (Buffer::stored(stored, &x), Buffer::f32(&weight), Buffer::f32(&bias));
            let sides = [Arg::Int(rows as i32), Arg::Int(width as i32)];
            let pointers = [&y, &stats, &from, &weight, &bias].map(Arg::To);
            host.run(
                launch::layer_norm_forward(stored, rows as u32, width as u32),
                &[&pointers[..], &sides].concat(),
            );
            close("statistics", Stored::F32, &stats.values(), &statistics, 1e-5);
            close("layer norm", stored, &y.values(), &expected, 1e-5);
        }
    }
}

#[test]
fn a_layer_norms_gradients_are_those_of_the_cpu() {
    let mut draws = Draws::new();
    for host in hosts().into_iter().flatten() {
        for (rows, width) in SIZES {
            let stored = host.stored;
            let [x, dy, held] = [3.0, 1.0, 1.0].map(|most| draws.numbers(stored, rows * width, most));
            let weight = draws.numbers(Stored::F32, width, 2.0);
            let [_, stats] = plain::layer_norm(&x, &weight, &weight);
            let [mut of_x, of_weight, of_bias] = plain::layer_norm_gradients(&dy, &x, &stats, &weight);
            of_x.iter_mut().zip(&held).for_each(|(gradient, held)| *gradient += held);
            let (dx, dy) = (Buffer::stored(stored, &held), Buffer::stored(stored, &dy));
            let (x, stats, weight) = (Buffer::stored(stored, &x), Buffer::f32(&stats), Buffer::f32(&weight));
            let sides = [Arg::Int(rows as i32), Arg::Int(width as i32)];
            let (rows, width) = (rows as u32, width as u32);
            let pointers = [&dx, &dy, &x, &stats, &weight].map(Arg::To);
            host.run(launch::layer_norm_backward(stored, rows, width), &[&pointers[..], &sides].concat());
            close("gradient by x", stored, &dx.values(), &of_x, 2e-5);

            let shape = launch::layer_norm_partial(stored, rows, width);
            let chunks = shape.grid[1];
            let partial = Buffer::f32(&vec![0.0; (2 * chunks * width) as usize]);
            let chunk = Arg::Int(launch::CHUNK as i32);
            let pointers = [&partial, &dy, &x, &stats].map(Arg::To);
            host.run(shape, &[&pointers[..], &sides, &[chunk]].concat());
            let shares = partial.values();
            for (which, expected) in [of_weight, of_bias].iter().enumerate() {
                let start = which * (chunks * width) as usize;
                let shares = Buffer::f32(&shares[start..start + (chunks * width) as usize]);
                let sum = Buffer::f32(&vec![0.0; width as usize]);
                let sides = [Arg::Int(chunks as i32), Arg::Int(width as i32)];
                host.run(
                    launch::column_collect(width),
                    &[Arg::To(&sum), Arg::To(&shares), sides[0], sides[1]],
                );
                close("gradient of a parameter", Stored::F32, &sum.values(), expected, 2e-5);
            }
        }
    }
}

#[test]
fn a_biass_gradient_is_the_sum_of_columns_added_to_what_was_there() {
    let mut draws = Draws::new();
    for host in hosts().into_iter().flatten() {
        for (rows, width) in SIZES {
            let (stored, sides) = (host.stored, [rows as i32, width as i32].map(Arg::Int));
            let dy = draws.numbers(stored, rows * width, 1.0);
            let held = draws.numbers(Stored::F32, width, 1.0);
            let sums = (0..width).map(|column| {
                let rows = dy.chunks_exact(width).map(|row| f64::from(row[column]));
                (f64::from(held[column]) + rows.sum::<f64>()) as f32
            });
            let expected: Vec<f32> = sums.collect();
            let shape = launch::bias_partial(stored, rows as u32, width as u32);
            let partial = Buffer::f32(&vec![0.0; shape.grid[1] as usize * width]);
            let (dy, gradient) = (Buffer::stored(stored, &dy), Buffer::f32(&held));
            let chunk = Arg::Int(launch::CHUNK as i32);
            host.run(shape, &[Arg::To(&partial), Arg::To(&dy), sides[0], sides[1], chunk]);
            let chunks = Arg::Int(shape.grid[1] as i32);
            let collect = launch::column_collect(width as u32);
            host.run(collect, &[Arg::To(&gradient), Arg::To(&partial), chunks, sides[1]]);
            close("sums", Stored::F32, &gradient.values(), &expected, 2e-5);
        }
    }
}
