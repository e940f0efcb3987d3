//! What the simulator says of a run: the critical path, and memory over time.

use proptest::prelude::*;
use schedc::cost::{CostSpec, Costs, Durations};
use schedc::ir::{Op, Rank, Ticks};
use schedc::simulate::{RankMemory, Timeline, critical_links, critical_path, memory, memory_peaks, simulate};
use schedc::verify::Verified;

use crate::compiled::{SCHEDULES, TRANSFORMS, library, tiny};
use crate::simulated::timed;

/// The links lie end to end from 0 to the last pass, and no instruction stands in the path before something that it follows from.
fn path_spans_the_makespan(plan: &Verified, timeline: &Timeline) {
    let links = critical_links(plan, timeline);
    let last = timeline.ranks.iter().map(|rank| rank.last).max().unwrap();
    assert_eq!(links.first().unwrap().from, Ticks(0));
    assert_eq!(links.last().unwrap().to, last);
    for pair in links.windows(2) {
        assert_eq!(pair[0].to, pair[1].from, "{pair:?}");
        let [from, to] = [pair[0], pair[1]];
        assert!(timeline.start(from.rank, from.instr) <= timeline.end(to.rank, to.instr));
        // Another rank is reached by a message or a collective only.
        if from.rank != to.rank {
            let op =
                |link: schedc::simulate::Link| plan.ranks[link.rank.index()].instrs[link.instr.index()].op;
            let met = match (op(from), op(to)) {
                (Op::Send { to: peer, value }, Op::Recv { from: other, value: expected }) => {
                    (peer, other, value) == (to.rank, from.rank, expected)
                }
                (Op::Collective { payload, .. }, Op::Collective { payload: other, .. }) => payload == other,
                _ => false,
            };
            assert!(met, "{pair:?}");
        }
    }
    let sum: u64 = links.iter().map(|link| link.to.0 - link.from.0).sum();
    assert_eq!(Ticks(sum), last);
    let ids: Vec<_> = links.iter().map(|link| (link.rank, link.instr)).collect();
    assert_eq!(ids, critical_path(plan, timeline));
}

/// Memory is worked out anew, buffer by buffer, at every moment at which something changes.
fn memory_is_what_lives(plan: &Verified, timeline: &Timeline) {
    let all = memory(plan, timeline);
    assert_eq!(
        all.iter().map(|memory| memory.peak.clone()).collect::<Vec<_>>(),
        memory_peaks(plan, timeline)
    );
    for (rank, memory) in Rank::all(all.len()).zip(&all) {
        let RankMemory { classes, moments, bytes, peak, arena } = memory;
        assert_eq!(classes.len(), plan.header.catalog.classes.len());
        assert_eq!(moments.len(), bytes.len());
        assert!(moments.is_sorted());
        assert!(peak.bytes <= *arena, "{rank}: {peak:?} is over {arena}");
        let sums: Vec<u64> = bytes.iter().map(|row| row.iter().sum()).collect();
        assert_eq!(sums.iter().copied().max().unwrap_or(0), peak.bytes.0, "{rank}");
        assert_eq!(peak.by_class.iter().sum::<u64>(), peak.bytes.0);
        assert_eq!(peak.owners.iter().map(|owner| owner.bytes.0).sum::<u64>(), peak.bytes.0);
        assert_eq!(sums.last().copied().unwrap_or(0), 0, "{rank}: nothing is left at the end");
        let ours = &plan.ranks[rank.index()];
        let mut live = vec![None; ours.buffers.len()];
        let mut spans = Vec::new();
        for (id, instr) in ours.instrs.iter().enumerate() {
            let id = schedc::ir::InstrId::new(id);
            let operands = ours.operands(instr);
            for buffer in operands.writes() {
                live[buffer.index()].get_or_insert(timeline.start(rank, id));
            }
            for buffer in operands.frees() {
                let start = live[buffer.index()].take().unwrap();
                spans.push((start, timeline.end(rank, id), ours.buffers[buffer.index()].bytes().0));
            }
        }
        for (at, moment) in moments.iter().enumerate() {
            if moments.get(at + 1) != Some(moment) {
                let held = spans.iter().filter(|(from, to, _)| from <= moment && moment < to);
                assert_eq!(sums[at], held.map(|span| span.2).sum::<u64>(), "{rank} at {moment:?}");
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_critical_path_is_as_long_as_the_makespan_and_memory_is_what_lives(
        schedule in prop::sample::select(SCHEDULES.to_vec()),
        with in prop::sample::select(TRANSFORMS.to_vec()),
        p in 1..6_u32,
        m in 1..10_u32,
        costs in prop::collection::vec(prop_oneof![Just(0), 1..30_u32], 8),
    ) {
        let [f, b, w, message, reduce, gather, broadcast, output] = costs[..] else { unreachable!() };
        let vocab = with.map_or(String::new(), |_| format!(",S={output},T={gather}"));
        let costs = format!(
            "F={f},B={b},W={w},p2p={message},all_reduce={reduce},all_gather={gather},broadcast={broadcast}{vocab}"
        );
        let (plan, timeline, _) = timed(schedule, with, &[], (p, m), &costs);
        path_spans_the_makespan(&plan, &timeline);
        memory_is_what_lives(&plan, &timeline);
    }

    #[test]
    fn messages_that_share_a_link_follow_one_another(
        schedule in prop::sample::select(SCHEDULES.to_vec()),
        p in 2..5_u32,
        m in 1..8_u32,
        pass in 1..20_u32,
        latency in 0..10_u32,
        transfer in 0..40_u32,
    ) {
        let plan = library(schedule, None, p, m, tiny(p * 2, false));
        let costs = linked(&plan, f64::from(pass), f64::from(latency), f64::from(transfer));
        let timeline = simulate(&plan, &costs);
        path_spans_the_makespan(&plan, &timeline);
        memory_is_what_lives(&plan, &timeline);
        for (rank, ours) in Rank::all(plan.ranks.len()).zip(&plan.ranks) {
            let mut last = std::collections::BTreeMap::new();
            for (id, instr) in ours.instrs.iter().enumerate() {
                let Op::Send { to, .. } = instr.op else { continue };
                let start = timeline.start(rank, schedc::ir::InstrId::new(id));
                if let Some(before) = last.insert(to, start) {
                    prop_assert!(start.0 >= before.0 + costs.occupies(rank, to).0);
                }
            }
        }
    }
}

/// Every pass takes as long; messages take a latency and a transfer, in which their link is taken.
fn linked(plan: &Verified, pass: f64, latency: f64, transfer: f64) -> Costs {
    let header = &plan.header;
    let pairs = plan.ranks.len() * plan.ranks.len();
    let durations = Durations {
        passes: vec![vec![pass]; header.catalog.kinds.len()],
        collectives: vec![0.0; header.catalog.collectives.len()],
        messages: vec![latency + transfer; pairs],
        transfers: vec![transfer; pairs],
        ranks: plan.ranks.len() as u32,
    };
    durations.bind(header.stages.len() as u32, header.cut().units()).unwrap()
}

#[test]
fn a_microbatch_alone_is_its_own_critical_path() {
    let (plan, timeline, _) = timed("1f1b", None, &[], (3, 1), "F=2,B=3,W=0,p2p=1");
    let path = critical_path(&plan, &timeline);
    let ops: Vec<String> = path
        .iter()
        .map(|(rank, instr)| match plan.ranks[rank.index()].instrs[instr.index()].op {
            Op::Pass(pass) => format!("{}.{}", plan.header.catalog.kind(pass.kind).name, pass.site),
            Op::Send { to, .. } => format!("{rank}>{to}"),
            Op::Recv { from, .. } => format!("{rank}<{from}"),
            _ => "other".to_owned(),
        })
        .collect();
    let expected = [
        "F.s0", "r0>r1", "r1<r0", "F.s1", "r1>r2", "r2<r1", "F.s2", "B.s2", "r2>r1", "r1<r2", "B.s1",
        "r1>r0", "r0<r1", "B.s0",
    ];
    assert_eq!(ops, expected);
}

#[test]
fn the_first_rank_of_1f1b_holds_its_activations_at_the_peak() {
    let spec = CostSpec::parse("F=1,B=1,W=1").unwrap();
    let plan = library("1f1b", None, 4, 8, tiny(4, false));
    let costs = spec.bind_plan(&plan.header).unwrap();
    let peaks = memory_peaks(&plan, &simulate(&plan, &costs));
    let held: Vec<_> = peaks[0].owners.iter().filter(|owner| owner.class == "act").collect();
    assert_eq!(held.len(), 4, "{:?}", peaks[0]);
    assert!(held.iter().all(|owner| owner.kind == "F"));
}
