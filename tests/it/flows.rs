//! Two flows in opposite directions and overlapped pairs, as plans have them.

use schedc::ir::{Flow, Microbatch, Op, Payload, Plan, Rank, Site, Stage};
use schedc::verify::{Channel, Fifo, Options, Sends, verify};

use crate::compiled::{TRANSFORMS, library, tiny};
use crate::execute::matrix;
use crate::orders::library_schedule;
use crate::slices::own;

fn sums(plan: &Plan) -> Vec<(Rank, Payload, Vec<Rank>)> {
    let all = plan.ranks.iter().enumerate().flat_map(|(rank, part)| {
        part.instrs.iter().filter_map(move |instr| match instr.op {
            Op::Collective { payload: Payload::Value { .. }, .. } => None,
            Op::Collective { payload, group, .. } => Some((Rank::new(rank), payload, group)),
            _ => None,
        })
    });
    all.map(|(rank, payload, group)| (rank, payload, plan.header.groups[group.index()].0.clone())).collect()
}

fn pairs(plan: &Plan) -> usize {
    plan.ranks.iter().flat_map(|rank| &rank.instrs).filter(|instr| instr.overlaps).count()
}

#[test]
fn every_pass_of_a_microbatch_runs_at_the_stages_of_its_flow() {
    for (schedule, m) in [("chimera", 5), ("dualpipe", 9)] {
        let schedule = library_schedule(schedule, &[], 3, m);
        assert_eq!(schedule.shape.stages, [0, 1, 2, 2, 1, 0].map(Rank));
        for placed in schedule.orders.iter().flatten() {
            let Site::Stage(stage) = placed.pass.site else { panic!("all passes run at stages") };
            let flow = placed.pass.microbatch.0 % 2;
            assert_eq!((stage.0 / 3, schedule.shape.flow_at(stage)), (flow, Flow(flow)));
        }
        assert_eq!(schedule.shape.flow_of(Microbatch(4)), Flow(0));
    }
}

#[test]
fn copies_on_two_ranks_are_summed_and_those_on_one_are_one() {
    let plan = library("chimera", None, 3, 4, tiny(3, false));
    let group = |ranks: [u32; 2]| ranks.map(Rank).to_vec();
    let expected: Vec<_> = [0, 2]
        .into_iter()
        .flat_map(|rank| {
            let sum = |stage| (Rank(rank), Payload::StageGradient(Stage(stage)), group([0, 2]));
            [sum(0), sum(2)]
        })
        .collect();
    assert_eq!(sums(&plan), expected);
    assert!(sums(&library("chimera", None, 1, 4, tiny(3, true))).is_empty());
}

#[test]
fn a_tied_embedding_of_two_flows_is_summed_over_both_ends() {
    let plan = library("dualpipe", None, 4, 8, tiny(4, true));
    let tied: Vec<_> =
        sums(&plan).into_iter().filter(|(_, payload, _)| *payload == Payload::TiedGradient).collect();
    let ends = vec![Rank(0), Rank(3)];
    assert_eq!(
        tied,
        [Rank(0), Rank(3)].map(|rank| (rank, Payload::TiedGradient, ends.clone())),
        "the ends hold both layers"
    );
    let sharded = library("dualpipe", Some("vocab-2"), 4, 8, tiny(4, true));
    assert!(sums(&sharded).iter().all(|(_, payload, _)| *payload != Payload::TiedGradient));
}

#[test]
fn pairs_are_kept_under_every_transform() {
    for schedule in ["dualpipe", "dualpipe-v"] {
        let plain = pairs(&library(schedule, None, 4, 16, tiny(8, false)));
        for with in TRANSFORMS {
            let kept = pairs(&library(schedule, with, 4, 16, tiny(8, false)));
            assert!(kept * 2 > plain, "{schedule} with {with:?}: {kept} of {plain}");
        }
    }
}

#[test]
fn plans_of_two_flows_and_of_pairs_run_under_the_strictest_channel() {
    let channel = Channel { sends: Sends::Rendezvous, queue: Fifo::PerRank };
    for schedule in ["chimera", "dualpipe", "dualpipe-v"] {
        for with in TRANSFORMS {
            for (p, m) in [(2, 4), (3, 7), (4, 9)] {
                let plan = library(schedule, with, p, m, tiny(2 * p, true)).into_plan();
                let options = Options { channel, ..Options::default() };
                assert!(verify(plan, &options).is_ok(), "{schedule} with {with:?} p={p} m={m}");
            }
        }
    }
}

#[test]
fn a_priority_list_takes_every_microbatch_in_its_flow() {
    let text = "schedule \"list\" {\n    place bidirectional\n    passes F, B, W\n    greedy {\n        \
                limit act <= ranks + 1\n        prefer B.0 B.1 F.0 F.1 W.0 W.1\n    }\n}\n";
    let sizes = [(1, 3), (2, 4), (3, 5), (4, 8)];
    matrix(TRANSFORMS.into_iter().flat_map(|with| {
        sizes.map(|(p, m)| {
            let with: Vec<&str> = with.into_iter().collect();
            let plan = own(text, &with, p, m, tiny(p, true));
            let act = plan.header.catalog.classes.iter().position(|class| class.name == "act").unwrap();
            let most = plan.ranks.iter().map(|rank| rank.peak.live[act]).max().unwrap();
            assert!(!with.is_empty() || most <= p + 1, "p={p} m={m}: {most} activations");
            (format!("{with:?} p={p} m={m}"), plan)
        })
    }));
}
