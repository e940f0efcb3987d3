//! Passes of stages, driven by hand, against the reference: equal bits.

use schedc::execute::backend::Backend;
use schedc::execute::cpu::CpuBackend;
use schedc::execute::reference::Reference;
use schedc::ir::{Dims, Header, Microbatch};

use super::rig::{Backward, Data, Vocabulary, ascending, backends, backward, forward, header, tiny, train};

/// Sums the two copies of a tied embedding as the plan's all-reduce does.
fn sum_copies(header: &Header, backends: &mut [CpuBackend]) {
    let first = header.stages[0].index();
    let last = header.stages[header.stages.len() - 1].index();
    if first == last || !header.model.tied {
        return;
    }
    let other = backends[last].tied_gradient().to_vec();
    let mine = backends[first].tied_gradient();
    mine.iter_mut().zip(&other).for_each(|(mine, other)| *mine += other);
    let sum = mine.to_vec();
    backends[last].tied_gradient().copy_from_slice(&sum);
}

/// Two steps of a schedule that runs all forwards, then all backwards in `order`, against the reference.
fn agrees(dims: &Dims, places: &[u32], way: Backward, order: &[Microbatch]) {
    let m = order.len() as u32;
    let header = header(dims, places, m, way, Vocabulary::Whole);
    let data = Data::new(dims, m);
    let mut backends = backends(&header);
    let mut reference = Reference::new(dims, &train(), m).expect("the model runs");
    for _ in 0..2 {
        let batches = data.batches();
        let mut acts: Vec<_> = ascending(m)
            .into_iter()
            .map(|j| forward(&header, &mut backends, None, j, batches[j.index()]).1)
            .collect();
        for &j in order {
            backward(&header, &mut backends, &mut acts[j.index()], None, j, batches[j.index()]);
        }
        sum_copies(&header, &mut backends);
        let loss = reference.accumulate(&batches, order);
        let last = header.stages[header.stages.len() - 1].index();
        assert_eq!(backends[last].loss().map(f64::to_bits), Some(loss.to_bits()));
        compare(&mut backends, &mut reference);
        backends.iter_mut().for_each(Backend::step);
        reference.step();
        compare(&mut backends, &mut reference);
    }
}

/// Every tensor of every rank has the bits of the reference's, and every tensor of the reference is somewhere.
fn compare(backends: &mut [CpuBackend], reference: &mut Reference) {
    let whole = reference.tensors();
    let mut seen = vec![false; whole.len()];
    for backend in backends {
        for tensor in backend.tensors() {
            let at = whole.iter().position(|other| other.name == tensor.name).expect("the same names");
            seen[at] = true;
            let bits = |values: &[f32]| values.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
            assert!(bits(tensor.gradient) == bits(whole[at].gradient), "gradient of {}", tensor.name);
            assert!(bits(tensor.value) == bits(whole[at].value), "value of {}", tensor.name);
        }
    }
    assert!(seen.iter().all(|&seen| seen));
}

#[test]
fn a_chain_of_stages_has_the_bits_of_the_reference() {
    for tied in [false, true] {
        for way in [Backward::Fused, Backward::Split] {
            for places in [&[0][..], &[0, 1], &[0, 1, 2], &[0, 1, 1, 0], &[0, 1, 0, 1]] {
                agrees(&tiny(tied), places, way, &ascending(3));
            }
        }
    }
}

#[test]
fn stages_without_layers_pass_the_stream_through() {
    for layers in [0, 1] {
        for way in [Backward::Fused, Backward::Split] {
            agrees(&Dims { layers, ..tiny(true) }, &[0, 1, 2], way, &ascending(2));
        }
    }
}

#[test]
fn another_order_of_backwards_is_matched_by_the_reference_in_that_order() {
    agrees(&tiny(true), &[0, 1], Backward::Fused, &[Microbatch(2), Microbatch(0), Microbatch(1)]);
}

#[test]
fn what_is_loaded_is_what_trains() {
    let header = header(&tiny(false), &[0, 1], 1, Backward::Fused, Vocabulary::Whole);
    let mut from = backends(&header);
    let data = Data::new(&header.model, 1);
    let step = |backends: &mut [CpuBackend]| {
        let (_, mut acts) = forward(&header, backends, None, Microbatch(0), data.batches()[0]);
        backward(&header, backends, &mut acts, None, Microbatch(0), data.batches()[0]);
        backends.iter_mut().for_each(Backend::step);
    };
    step(&mut from);
    let mut to = backends(&header);
    for (from, to) in from.iter_mut().zip(&mut to) {
        for t in from.tensors() {
            let state = schedc::execute::backend::State { value: t.value, first: t.first, second: t.second };
            assert!(to.load(t.name, state));
            assert!(!to.load("no.such", state));
        }
        to.set_steps(from.steps());
    }
    step(&mut from);
    step(&mut to);
    for (from, to) in from.iter_mut().zip(&mut to) {
        for (a, b) in from.tensors().iter().zip(to.tensors()) {
            assert_eq!((a.value, a.first, a.second), (b.value, b.first, b.second), "{}", a.name);
        }
        assert_eq!(from.parameter_bytes(), to.parameter_bytes());
    }
}
