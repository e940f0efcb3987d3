//! Sequence slices: their order and cost against the published ones, what passes read of earlier slices, and what they compute.

use schedc::cost::UNIT;
use schedc::driver::{Input, Job, compile};
use schedc::emit::plan_text;
use schedc::execute::cpu::CpuBackend;
use schedc::execute::data::Tokens;
use schedc::execute::model::Train;
use schedc::ir::{Dims, Microbatch, Op, Pass, Precision, Rank, Relation, Source};
use schedc::resolve::{Model, Partitioning};
use schedc::source::Sources;
use schedc::verify::Verified;

use crate::compiled::{TRANSFORMS, library, library_set, tiny};
use crate::execute::matrix;
use crate::orders::Orders;

fn slices(s: i64) -> Vec<(String, i64)> {
    vec![("s".to_owned(), s)]
}

/// A schedule of a test's own, compiled.
pub(crate) fn own(text: &str, with: &[&str], ranks: u32, microbatches: u32, model: Dims) -> Verified {
    let with: Vec<String> = with.iter().map(ToString::to_string).collect();
    let input = Input::File { name: "own", bytes: text.as_bytes(), schedule: None };
    let model = Model { layers: Some(model.layers), dims: model, partition: Partitioning::Uniform };
    let job = Job {
        input,
        with: &with,
        set: &[],
        ranks,
        microbatches,
        model,
        costs: &UNIT,
        retime: None,
        mode: schedc::ir::Mode::Training,
    };
    compile(&job, &mut Sources::default()).unwrap_or_else(|errors| {
        panic!("{:?}\n{text}", miette::Report::new(errors.into_iter().next().unwrap()))
    })
}

/// Sun et al. 2024, at f = b = w = 1 and slices that cost 1/s: makespan and peaks in passes and activations of a slice.
#[test]
fn seq1f1b_takes_and_keeps_what_it_was_published_with() {
    for (s, m, makespan, peaks) in [
        (2, 4, 33, [5, 4, 3, 2]),
        (2, 8, 57, [5, 4, 3, 2]),
        (4, 4, 57, [7, 6, 5, 4]),
        (4, 32, 393, [7, 6, 5, 4]),
    ] {
        let taken = Orders::with("seq1f1b", &slices(s), 4, m).time();
        assert_eq!((taken.makespan, &taken.peaks[..]), (makespan, &peaks[..]), "s={s} m={m}");
    }
}

/// Excess 3(p - 1)/s stages, peak (p - 1)/s + 1 microbatches.
#[test]
fn seq1f1b_has_its_closed_forms() {
    for (p, m, s) in [(1, 1, 2), (2, 4, 2), (3, 5, 4), (4, 8, 1), (8, 16, 4), (5, 7, 2)] {
        let taken = Orders::with("seq1f1b", &slices(i64::from(s)), p, m).time();
        let work = 3 * u64::from(m * s);
        assert_eq!(taken.makespan - work, 3 * u64::from(p - 1), "p={p} m={m} s={s}");
        assert_eq!(taken.peaks[0], (p - 1 + s) as usize, "p={p} m={m} s={s}");
    }
}

#[test]
fn one_slice_is_the_schedule_without_slices() {
    for with in TRANSFORMS {
        let sliced = library_set("seq1f1b", &slices(1), with, 4, 6, tiny(4, true));
        let plain = library("1f1b", with, 4, 6, tiny(4, true));
        assert_eq!(plan_text(&sliced).replace("name seq1f1b\n", "name 1f1b\n"), plan_text(&plain));
    }
}

#[test]
fn passes_read_what_every_earlier_slice_left_and_backward_goes_the_other_way() {
    let plan = library_set("seq1f1b", &slices(4), None, 2, 2, tiny(2, false));
    let (header, cut) = (&plan.header, plan.header.cut());
    let act = header.catalog.classes.iter().position(|class| class.name == "act").unwrap();
    let last = |unit| cut.slice(unit) + 1 == header.slices;
    for rank in &plan.ranks {
        let mut backward: Vec<Microbatch> = Vec::new();
        for instr in &rank.instrs {
            let Op::Pass(Pass { kind, microbatch: unit, .. }) = instr.op else { continue };
            let reads = rank.operands(instr).reads();
            let states = reads.filter(|read| rank.buffers[read.index()].class.index() == act).count();
            let own = usize::from(header.catalog.kind(kind).name == "B");
            assert_eq!(states, own + cut.slice(unit) as usize);
            if own == 1 {
                let after = backward.last().is_some_and(|&before| cut.earlier(before) == Some(unit));
                assert!(after || last(unit), "{backward:?} {unit}");
                backward.push(unit);
            }
        }
        assert_eq!(backward.len(), 8);
    }
}

#[test]
fn slices_agree_with_whole_sequences_for_every_number_of_slices_and_blocks_of_attention() {
    let long = Dims {
        layers: 2,
        hidden: 8,
        heads: 2,
        sequence: 96,
        batch: 2,
        vocab: 257,
        tied: true,
        precision: Precision::F32,
    };
    let cases = [
        (tiny(4, false), 4, 2, 3),
        (Dims { sequence: 12, ..tiny(3, true) }, 3, 3, 2),
        (Dims { sequence: 6, batch: 3, ..tiny(2, false) }, 6, 2, 2),
        (long, 2, 2, 2),
        (long, 4, 1, 1),
    ];
    for (model, s, p, m) in cases {
        for with in TRANSFORMS {
            let name = format!("{s} slices with {with:?} at p={p}, m={m}");
            matrix([(name, library_set("seq1f1b", &slices(s), with, p, m, model))]);
        }
    }
}

/// Weight gradients apart, several chunks, and all forwards before all backwards.
#[test]
fn slices_work_with_split_backward_chunks_and_other_orders() {
    let texts = [
        "schedule \"split\" { passes F, B, W  slices 2  stream B by microbatch, -slice  stream W by microbatch, -slice
             let w = min(ranks - rank, microbatches * slices) + slices - 2
             order F^w (F B)^(rank + 1) (W F B)^* (W B)^* W^* }",
        "schedule \"looped\" { chunks 2  slices 4  stream F by chunk, microbatch, slice
             stream B by -chunk, -microbatch, -slice  order F^* B^* }",
        "schedule \"by itself\" { passes F, B, W  slices 2
             order F^(min(ranks - rank, microbatches) + slices - 1) (B W F)^* (B W)^* }",
        "schedule \"late\" { slices 2  stream B by -slice, microbatch  order F^* B^* }",
    ];
    for text in texts {
        for with in [&[][..], &["vocab-1"], &["vocab-2"], &["interlaced"]] {
            for (p, m) in [(1, 2), (2, 3)] {
                let plan = own(text, with, p, m, tiny(2 * p, true));
                matrix([(format!("{with:?} p={p} m={m} of {text}"), plan)]);
            }
        }
    }
}

#[test]
fn a_plan_whose_slices_do_not_need_each_other_is_not_run() {
    for (pass, relation) in [("F", Relation::Earlier), ("B", Relation::Earlier), ("B", Relation::Later)] {
        let mut plan = library("seq1f1b", None, 1, 1, tiny(1, false)).into_plan();
        let kind = plan.header.catalog.kind_named(pass).unwrap();
        let leads = |at: Relation| at == relation;
        let needs = &mut plan.header.catalog.kinds[kind.index()].needs;
        needs.retain(|need| !matches!(need.from, Source::Pass { at, .. } if leads(at)));
        let error = CpuBackend::new(&plan.header, Rank(0), &Train::default()).unwrap_err();
        let way = if relation == Relation::Earlier { "earlier" } else { "later" };
        assert!(error.to_string().contains(way), "{error}");
    }
}

#[test]
fn a_microbatch_is_cut_into_the_same_part_of_every_row() {
    let tokens = Tokens { inputs: (0..8).collect(), targets: (1..9).collect() };
    let cut = tokens.clone().sliced(4, 2);
    assert_eq!(cut[0].inputs, [0, 1, 4, 5]);
    assert_eq!(cut[1].inputs, [2, 3, 6, 7]);
    assert_eq!(cut[1].targets, [3, 4, 7, 8]);
    assert_eq!(tokens.clone().sliced(4, 1), [tokens]);
}
