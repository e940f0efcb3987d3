//! Plans whose model cannot be run are refused by name, whatever file they came from.

use miette::Diagnostic;
use schedc::execute::cpu::CpuBackend;
use schedc::ir::{
    At, ClassId, CollectiveOp, Compute, Dims, Header, KindId, Port, Precision, Rank, Relation, Source,
};

use super::rig::{Backward, Vocabulary, header, tiny, train};

/// The code that some rank refuses a changed header with.
fn refusal(change: impl FnOnce(&mut Header)) -> String {
    let mut header = header(&tiny(true), &[0, 1], 2, Backward::Split, Vocabulary::Two);
    change(&mut header);
    let refused = [Rank(0), Rank(1)].map(|rank| CpuBackend::new(&header, rank, &train()).err());
    let error = refused.into_iter().flatten().next().expect("a rank refuses a header that cannot run");
    error.code().expect("diagnostics have codes").to_string()
}

#[test]
fn a_dimension_of_zero_is_refused() {
    assert_eq!(refusal(|header| header.model.hidden = 0), "schedc::execute::empty_model");
}

#[test]
fn heads_that_do_not_divide_the_width_are_refused() {
    assert_eq!(refusal(|header| header.model.heads = 5), "schedc::execute::uneven_heads");
}

#[test]
fn a_width_that_words_of_two_activations_do_not_fill_is_refused() {
    let odd = |header: &mut Header| {
        header.model = Dims { hidden: 11, heads: 1, precision: Precision::Bf16, ..header.model };
    };
    assert_eq!(refusal(odd), "schedc::execute::odd_width");
}

#[test]
fn a_model_that_no_machine_holds_is_refused() {
    let all = u32::MAX;
    let dims = Dims {
        layers: all,
        hidden: all,
        heads: 1,
        sequence: all,
        batch: all,
        vocab: all,
        tied: false,
        precision: Precision::F32,
    };
    assert_eq!(refusal(|header| header.model = dims), "schedc::execute::oversized_model");
}

#[test]
fn buffers_of_another_model_are_refused() {
    assert_eq!(refusal(|header| header.model.layers = 8), "schedc::execute::buffer_shape");
    assert_eq!(refusal(|header| header.catalog.classes[3].at_stage.clear()), "schedc::execute::buffer_shape");
}

#[test]
fn passes_without_their_buffers_are_refused() {
    let code = "schedc::execute::pass_contract";
    assert_eq!(refusal(|header| header.catalog.kinds[0].makes.clear()), code);
    assert_eq!(refusal(|header| header.catalog.kinds[0].needs.clear()), code);
    assert_eq!(refusal(|header| header.catalog.kinds[1].gives.clear()), code);
    assert_eq!(refusal(|header| header.catalog.kinds[3].needs.clear()), code);
    let without_state = |header: &mut Header| {
        header.catalog.kinds[2].frees.clear();
        header.catalog.kinds[2].needs.clear();
    };
    assert_eq!(refusal(without_state), code);
    assert_eq!(refusal(|header| header.catalog.kinds[2].at = At::EveryRank), code);
    let ungathered = CollectiveOp::AllReduce;
    assert_eq!(refusal(|header| header.catalog.collectives[0].op = ungathered), code);
    let without_softmax = |header: &mut Header| {
        header.catalog.kinds[3].computes = None;
        header.catalog.kinds[5].computes = None;
    };
    assert_eq!(refusal(without_softmax), code);
}

#[test]
fn values_that_come_another_way_or_from_another_pass_are_refused() {
    let code = "schedc::execute::pass_contract";
    let ops = [(0, CollectiveOp::AllReduce), (1, CollectiveOp::AllGather), (2, CollectiveOp::Broadcast)];
    for (collective, op) in ops {
        assert_eq!(refusal(|header| header.catalog.collectives[collective].op = op), code, "{op}");
    }
    let of_softmax = |header: &mut Header| header.catalog.collectives[2].kind = KindId(3);
    assert_eq!(refusal(of_softmax), code, "the sum of gradients that are not rescaled");
    let first = |header: &mut Header| {
        let Source::Pass { at, .. } = &mut header.catalog.kinds[3].needs[0].from else { panic!() };
        *at = Relation::First;
    };
    assert_eq!(refusal(first), code, "the output layer of the first stage's activations");
}

#[test]
fn a_pass_gives_and_makes_what_its_computation_writes() {
    let code = "schedc::execute::pass_contract";
    assert_eq!(refusal(|header| header.catalog.kinds[0].gives.push(ClassId(1))), code);
    assert_eq!(refusal(|header| header.catalog.kinds[2].gives.push(ClassId(1))), code);
    assert_eq!(refusal(|header| header.catalog.kinds[6].makes.push(ClassId(5))), code);
}

#[test]
fn a_need_that_carries_a_value_brings_no_state() {
    let carries = |header: &mut Header| {
        let Source::Pass { port, .. } = &mut header.catalog.kinds[1].needs[0].from else { panic!() };
        *port = Some(Port(0));
    };
    assert_eq!(refusal(carries), "schedc::execute::pass_contract");
}

#[test]
fn half_a_model_and_twice_the_work_and_a_mixture_are_refused() {
    for kind in [0, 1, 2, 4, 6, 7] {
        let lacks = |header: &mut Header| drop(header.catalog.kinds.remove(kind));
        assert_eq!(refusal(lacks), "schedc::execute::lacks_computation", "without kind {kind}");
    }
    for kind in 0..8 {
        let twice = |header: &mut Header| header.catalog.kinds.push(header.catalog.kinds[kind].clone());
        assert_eq!(refusal(twice), "schedc::execute::computed_twice", "kind {kind} twice");
    }
    for (kind, computes) in
        [(2, Compute::StageBackward), (4, Compute::OutputGrad), (7, Compute::OutputSoftmax)]
    {
        let mixed = |header: &mut Header| header.catalog.kinds[kind].computes = Some(computes);
        assert_eq!(refusal(mixed), "schedc::execute::mixed_computations", "{computes}");
    }
}

#[test]
fn a_tied_embedding_sharded_on_one_side_is_refused() {
    let one_side = |header: &mut Header| {
        header.catalog.kinds[5].computes = None;
    };
    assert_eq!(refusal(one_side), "schedc::execute::half_sharded");
}
