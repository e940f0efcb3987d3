//! Plans whose model cannot be run are refused by name, whatever file they came from.

use miette::Diagnostic;
use schedc::execute::cpu::CpuBackend;
use schedc::ir::{At, CollectiveOp, Dims, Header, Rank};

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
fn a_model_that_no_machine_holds_is_refused() {
    let all = u32::MAX;
    let dims =
        Dims { layers: all, hidden: all, heads: 1, sequence: all, batch: all, vocab: all, tied: false };
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
fn a_tied_embedding_sharded_on_one_side_is_refused() {
    let one_side = |header: &mut Header| {
        header.catalog.kinds[5].computes = None;
    };
    assert_eq!(refusal(one_side), "schedc::execute::half_sharded");
}
