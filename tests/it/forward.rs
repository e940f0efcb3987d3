//! Forward-only twins: derived from any schedule with any transform, they compute the loss of its step and nothing else.

use schedc::emit::{plan_json, plan_text};
use schedc::execute::ExecuteError;
use schedc::execute::backend::Backend as _;
use schedc::execute::check::check;
use schedc::execute::cpu::CpuBackend;
use schedc::execute::data::{Corpus, Text, Tokens};
use schedc::execute::interpreter::{Engine, Finish};
use schedc::execute::model::Train;
use schedc::execute::tokenizer::Tokenizer;
use schedc::execute::watchdog::Limits;
use schedc::import::read_plan;
use schedc::ir::{Bytes, Compute, Dims, Mode, Op, Payload};
use schedc::verify::Verified;

use crate::compiled::{SCHEDULES, TRANSFORMS, forward_only, library, tiny};

fn batches(dims: &Dims, microbatches: u32) -> Vec<Tokens> {
    let text = Text::load(None).unwrap();
    let corpus = Corpus::new(&text, &Tokenizer::Bytes, dims.sequence).unwrap();
    corpus.step(dims, 3, 0, microbatches)
}

/// The loss of one step, and what its gradients sum to.
fn step(plan: &Verified) -> (f64, f64) {
    let batches = batches(&plan.header.model, plan.header.microbatches);
    let make = |rank| Ok::<_, ExecuteError>(CpuBackend::new(&plan.header, rank, &Train::default())?);
    let mut engine = Engine::new(plan, make, &Limits::default()).unwrap();
    let loss = engine.step(1, batches.clone(), Finish::Keep).unwrap().unwrap();
    let again = engine.step(2, batches, Finish::Update).unwrap().unwrap();
    if !plan.header.mode.is_training() {
        assert_eq!(loss.to_bits(), again.to_bits(), "evaluation changes nothing");
    }
    let gradients: Vec<f64> = engine
        .backends()
        .flat_map(|backend| {
            let tensors = backend.tensors();
            tensors
                .iter()
                .map(|tensor| tensor.gradient.iter().map(|x| f64::from(x.abs())).sum())
                .collect::<Vec<f64>>()
        })
        .collect();
    (loss, gradients.iter().sum())
}

#[test]
fn a_twin_has_the_loss_of_the_step_that_it_comes_from() {
    for schedule in SCHEDULES {
        for with in TRANSFORMS {
            for (p, m, tied) in [(1, 2, false), (2, 3, true), (4, 8, false)] {
                let context = format!("{schedule} with {with:?} p={p} m={m}");
                let (loss, _) = step(&library(schedule, with, p, m, tiny(8, tied)));
                let (found, gradients) = step(&forward_only(schedule, with, p, m, tiny(8, tied)));
                assert_eq!(found.to_bits(), loss.to_bits(), "{context}: {found} and {loss}");
                assert_eq!(gradients.to_bits(), 0, "{context}: gradients were computed");
            }
        }
    }
}

#[test]
fn a_twin_has_no_backward_pass_and_no_collective_that_nobody_reads() {
    for schedule in SCHEDULES {
        for with in TRANSFORMS {
            for (p, m) in [(1, 1), (4, 2), (4, 16), (5, 7)] {
                let plan = forward_only(schedule, with, p, m, tiny(8, true));
                let context = format!("{schedule} with {with:?} p={p} m={m}");
                assert_eq!(plan.header.mode, Mode::ForwardOnly);
                let catalog = &plan.header.catalog;
                assert!(
                    catalog.kinds.iter().all(|kind| kind.computes.is_some_and(Compute::is_forward)),
                    "{context}"
                );
                let names: Vec<&str> = catalog.collectives.iter().map(|c| c.name.as_str()).collect();
                let expected: &[&str] =
                    if with.is_none() { &[] } else { &["broadcast F(last)", "C1.stats", "reduce IF"] };
                let mut sorted = names.clone();
                sorted.sort_unstable();
                let mut wanted = expected.to_vec();
                wanted.sort_unstable();
                assert_eq!(sorted, wanted, "{context}");
                let sums = plan.ranks.iter().flat_map(|rank| &rank.instrs);
                let tied = |op: &Op| matches!(op, Op::Collective { payload: Payload::TiedGradient, .. });
                assert!(!sums.into_iter().any(|instr| tied(&instr.op)), "{context}: a gradient is summed");
            }
        }
    }
}

#[test]
fn state_for_backward_is_scratch_of_one_pass() {
    for schedule in SCHEDULES {
        for with in TRANSFORMS {
            let trained = library(schedule, with, 4, 16, tiny(8, false));
            let plan = forward_only(schedule, with, 4, 16, tiny(8, false));
            let live = |class: &str| {
                let id = plan.header.catalog.classes.iter().position(|known| known.name == class).unwrap();
                plan.ranks.iter().map(move |rank| rank.peak.live[id]).max().unwrap()
            };
            // Later slices read what earlier ones made.
            let chunks = plan.header.stages.len() as u32 / plan.header.ranks();
            let most = if plan.header.slices > 1 { plan.header.slices * chunks } else { 1 };
            assert_eq!(live("act"), most, "{schedule} with {with:?}");
            assert!(live("logits") <= 1, "{schedule} with {with:?}");
            let bytes =
                |plan: &Verified| plan.ranks.iter().map(|rank| rank.peak.bytes).max().unwrap_or(Bytes(0));
            assert!(bytes(&plan) < bytes(&trained), "{schedule} with {with:?}");
        }
    }
}

#[test]
fn a_twin_passes_the_check_and_its_forms_are_read_back() {
    let plan = forward_only("interleaved", Some("vocab-1"), 4, 8, tiny(8, false));
    let batches = batches(&plan.header.model, plan.header.microbatches);
    let report = check(&plan, &Train::default(), &batches, &Limits::default()).unwrap();
    report.verdict().unwrap();
    assert!(report.tensors.is_empty(), "there are no gradients to compare");
    for text in [plan_text(&plan), plan_json(&plan)] {
        assert!(text.contains("forward"), "the header says so");
        let (read, _) = read_plan("twin", text.as_bytes()).map_err(miette::Report::new).unwrap();
        assert_eq!(&read, plan.plan());
    }
}
