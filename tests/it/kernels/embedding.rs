//! Lookups and their gradients.

use schedc::execute::cpu::plain;
use schedc::kernels::{Stored, launch};

use super::{Arg, Buffer, Draws, close, hosts};

/// Batch, sequence, width, first row of the shard, its rows.
const SIZES: [[usize; 5]; 4] =
    [[1, 1, 1, 0, 5], [2, 17, 17, 3, 9], [3, 101, 40, 0, 40], [1, 257, 1100, 39, 1]];
const VOCABULARY: u32 = 40;

#[test]
fn lookups_with_and_without_positions_are_those_of_the_cpu() {
    let mut draws = Draws::new();
    for host in hosts().into_iter().flatten() {
        for [batch, sequence, width, first, rows] in SIZES {
            let (stored, count) = (host.stored, batch * sequence);
            let table = draws.numbers(stored, rows * width, 1.0);
            let positions = draws.numbers(stored, sequence * width, 1.0);
            let tokens = draws.ids(count, VOCABULARY);
            let bare = plain::lookup(&table, first, &tokens, width);
            let place = |i: usize| i % (sequence * width);
            let placed: Vec<f32> = bare.iter().enumerate().map(|(i, x)| x + positions[place(i)]).collect();
            let x = Buffer::stored(stored, &vec![0.0; count * width]);
            let (table, positions) = (Buffer::stored(stored, &table), Buffer::stored(stored, &positions));
            let ids = Buffer::ids(&tokens);
            let sides = [first, rows, sequence, width].map(|side| Arg::Int(side as i32));
            let shape = launch::embedding_forward(stored, count as u32, width as u32);
            for (positions, expected) in [(Arg::To(&positions), &placed), (Arg::Null, &bare)] {
                let pointers = [Arg::To(&x), Arg::To(&table), positions, Arg::To(&ids)];
                host.run(shape, &[&pointers[..], &sides].concat());
                close("lookup", stored, &x.values(), expected, 1e-7);
            }
            let shape = launch::positions_add(stored, count as u32, width as u32);
            host.run(shape, &[Arg::To(&x), Arg::To(&positions), sides[2], sides[3]]);
            close("with positions", stored, &x.values(), &placed, 1e-7);
        }
    }
}

#[test]
fn the_gradient_of_a_table_is_that_of_the_cpu_to_the_bit() {
    let mut draws = Draws::new();
    for host in hosts().into_iter().flatten() {
        for [batch, sequence, width, first, rows] in SIZES {
            let (stored, count) = (host.stored, batch * sequence);
            let held = draws.numbers(Stored::F32, rows * width, 1.0);
            let dx = draws.numbers(stored, count * width, 1.0);
            let tokens = draws.ids(count, VOCABULARY);
            let expected = plain::scatter(&held, first, &tokens, width, &dx);
            let (gradient, dx) = (Buffer::f32(&held), Buffer::stored(stored, &dx));
            let ids = Buffer::ids(&tokens);
            let sides = [first, rows, count, width].map(|side| Arg::Int(side as i32));
            let pointers = [&gradient, &dx, &ids].map(Arg::To);
            let shape = launch::embedding_backward(stored, count as u32, width as u32);
            host.run(shape, &[&pointers[..], &sides].concat());
            let same = gradient.values().iter().zip(&expected).all(|(a, b)| a.to_bits() == b.to_bits());
            assert!(same, "{sides:?}", sides = [batch, sequence, width, first, rows]);
        }
    }
}

#[test]
fn the_gradient_of_the_positions_is_summed_over_sequences() {
    let mut draws = Draws::new();
    for host in hosts().into_iter().flatten() {
        for [batch, sequence, width, ..] in SIZES {
            let stored = host.stored;
            let held = draws.numbers(Stored::F32, sequence * width, 1.0);
            let dx = draws.numbers(stored, batch * sequence * width, 1.0);
            let mut expected = held.clone();
            for sequence in dx.chunks_exact(held.len()) {
                expected.iter_mut().zip(sequence).for_each(|(sum, dx)| *sum += dx);
            }
            let (gradient, dx) = (Buffer::f32(&held), Buffer::stored(stored, &dx));
            let sides = [batch, sequence, width].map(|side| Arg::Int(side as i32));
            let shape = launch::positions_backward(stored, sequence as u32, width as u32);
            host.run(shape, &[&[Arg::To(&gradient), Arg::To(&dx)][..], &sides].concat());
            close("positions", Stored::F32, &gradient.values(), &expected, 1e-7);
        }
    }
}
