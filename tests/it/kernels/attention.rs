//! Attention and its gradients, on whole sequences and on slices.

use schedc::execute::cpu::plain;
use schedc::execute::model::Sizes;
use schedc::kernels::{Stored, launch};

use super::host::Host;
use super::{Arg, Buffer, Draws, close, hosts};

/// Batch, heads, tokens of a slice, slices.
const SIZES: [[usize; 4]; 8] = [
    [1, 1, 1, 1],
    [2, 3, 3, 1],
    [1, 2, 33, 1],
    [1, 1, 70, 1],
    [2, 2, 17, 3],
    [1, 1, 40, 2],
    [1, 1, 135, 1],
    [1, 2, 67, 3],
];

/// The last slice's attention on the host, and the gradients by the queries, keys and values of every slice: those of earlier slices, keys and values only.
fn attend(
    host: &Host,
    sizes: &Sizes,
    qkv: &[Vec<f32>],
    gradient: &[f32],
    owed: &[f32],
) -> (Vec<f32>, Vec<Vec<f32>>) {
    let (stored, nh, rows) = (host.stored, sizes.tokens * sizes.hidden, sizes.batch * sizes.heads);
    let (heads, sequence) = (rows as u32, sizes.sequence as u32);
    let acts: Vec<Buffer> = qkv.iter().map(|qkv| Buffer::stored(stored, qkv)).collect();
    let (own, earlier) = acts.split_last().unwrap();
    let pointers = Buffer::pointers(&earlier.iter().collect::<Vec<_>>());
    let lengths = [earlier.len(), sizes.heads, sizes.sequence].map(|side| Arg::Int(side as i32));
    let factor = Arg::Float(1.0 / (host.head as f32).sqrt());
    let attended = Buffer::stored(stored, &vec![0.0; nh]);
    let [logarithms, products] = [(); 2].map(|()| Buffer::f32(&vec![0.0; rows * sizes.sequence]));
    let forward = [&attended, &logarithms, own, &pointers].map(Arg::To);
    host.run(
        launch::attention_forward(stored, heads, sequence, host.head),
        &[&forward[..], &lengths, &[factor]].concat(),
    );

    let gradient = Buffer::stored(stored, gradient);
    let count = Arg::Int((rows * sizes.sequence) as i32);
    let of_rows = [&products, &attended, &gradient].map(Arg::To);
    host.run(launch::attention_products(heads, sequence), &[&of_rows[..], &lengths[1..], &[count]].concat());
    let d_qkv = Buffer::stored(stored, &vec![0.0; 3 * nh]);
    let queries = [&d_qkv, own, &pointers, &gradient, &logarithms, &products].map(Arg::To);
    host.run(
        launch::attention_queries(stored, heads, sequence, host.head),
        &[&queries[..], &lengths, &[factor]].concat(),
    );
    let shape = launch::attention_keys(stored, heads, sequence, host.head);
    let mut found = Vec::new();
    for slice in earlier {
        let due = Buffer::f32(owed);
        let pointers = [&d_qkv, &due, own, slice, &gradient, &logarithms, &products].map(Arg::To);
        host.run(shape, &[&pointers[..], &lengths[1..], &[factor]].concat());
        found.push(due.values());
    }
    let mut pointers = [&d_qkv, &d_qkv, own, own, &gradient, &logarithms, &products].map(Arg::To);
    let due = Buffer::f32(owed);
    pointers[1] = if earlier.is_empty() { Arg::Null } else { Arg::To(&due) };
    pointers[3] = Arg::Null;
    host.run(shape, &[&pointers[..], &lengths[1..], &[factor]].concat());
    found.push(d_qkv.values());
    (attended.values(), found)
}

#[test]
fn attention_and_its_gradients_are_those_of_the_cpu_on_sequences_and_on_slices() {
    let mut draws = Draws::new();
    for host in hosts().into_iter().flatten() {
        for [batch, heads, sequence, slices] in SIZES {
            let (hidden, tokens, keys) = (heads * host.head as usize, batch * sequence, sequence * slices);
            let sizes = Sizes { batch, sequence, keys, tokens, hidden, heads, vocab: 1, packed: 1 };
            let qkv: Vec<_> =
                (0..slices).map(|_| draws.numbers(host.stored, 3 * tokens * hidden, 1.5)).collect();
            let gradient = draws.numbers(host.stored, tokens * hidden, 1.0);
            let owed = draws.numbers(Stored::F32, 2 * tokens * hidden, 1.0);
            let (expected, mut gradients) = plain::attention(&sizes, &qkv, &gradient);
            // What slices were owed before.
            let (own, earlier) = gradients.split_last_mut().unwrap();
            for sums in &mut *earlier {
                sums.iter_mut().zip(&owed).for_each(|(sum, owed)| *sum += owed);
            }
            let debts = own.chunks_exact_mut(3 * hidden).zip(owed.chunks_exact(2 * hidden));
            for (row, owed) in debts.filter(|_| slices > 1) {
                row[hidden..].iter_mut().zip(owed).for_each(|(sum, owed)| *sum += owed);
            }
            let (attended, found) = attend(host, &sizes, &qkv, &gradient, &owed);
            let part = if host.stored == Stored::Bf16 { 8e-3 } else { 1e-5 };
            close("attended", host.stored, &attended, &expected, part);
            for (found, expected) in found.iter().zip(&gradients) {
                close("gradients", host.stored, found, expected, part);
            }
        }
    }
}
