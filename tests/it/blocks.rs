//! Orders by slots: blocks of the library at many sizes, random blocks, and blocks as large as they may be.

use std::collections::HashSet;

use proptest::prelude::*;
use schedc::diag::Error;
use schedc::driver::{Input, Job, schedule};
use schedc::ir::{Pass, RankOrder, Schedule};
use schedc::resolve::{Model, Partitioning};
use schedc::source::Sources;

use crate::compiled::tiny;
use crate::orders::{Orders, library_schedule};
use crate::support::{Options, code, program, rendered};

const BLOCKS: [&str; 3] = ["v-half", "v-min", "1f1b-v"];

/// The orders of a text's only schedule.
fn ordered(text: &str, ranks: u32, microbatches: u32) -> Result<Schedule, Vec<Error>> {
    let input = Input::File { name: "block.sched", bytes: text.as_bytes(), schedule: None };
    let model = Model { layers: None, dims: tiny(1, false), partition: Partitioning::Uniform };
    let job = Job {
        input,
        with: &[],
        set: &[],
        ranks,
        microbatches,
        model,
        costs: &schedc::cost::UNIT,
        mode: schedc::ir::Mode::Training,
        retime: None,
    };
    schedule(&job, &mut Sources::default())
}

/// Asserts that every pass of the catalog stands once, on the rank that holds its stage.
fn assert_complete(schedule: &Schedule) {
    let mut seen: HashSet<Pass> = HashSet::new();
    for (rank, order) in schedule.orders.iter().enumerate() {
        for placed in order {
            let schedc::ir::Site::Stage(stage) = placed.pass.site else { panic!("passes at stages only") };
            assert_eq!(schedule.shape.rank_of(stage).index(), rank);
            assert!(seen.insert(placed.pass), "{:?} stands twice", placed.pass);
        }
    }
    let shape = &schedule.shape;
    let all = schedule.catalog.kinds.len() * shape.stages.len() * shape.microbatches as usize;
    assert_eq!(seen.len(), all);
}

#[test]
fn the_librarys_blocks_fit_at_every_number_of_ranks() {
    for name in BLOCKS {
        for ranks in 1..=64 {
            assert_complete(&library_schedule(name, &[], ranks, 3));
        }
        for ranks in [1, 2, 3, 4, 5, 6, 8, 12, 16] {
            for microbatches in [1, 2, 7, 20] {
                Orders::of(name, ranks, microbatches).time();
            }
        }
    }
}

#[test]
fn blocks_hold_as_many_chunks_as_published() {
    // In activations of chunks; half of them are microbatches of a stage. Facts of the published generators, m = 4p.
    for (name, published) in [
        ("v-half", [(4, 6), (8, 10), (16, 18)]),
        ("v-min", [(4, 4), (8, 8), (16, 12)]),
        ("1f1b-v", [(4, 6), (8, 12), (16, 22)]),
    ] {
        for (p, most) in published {
            let peak = Orders::of(name, p, 4 * p).time().peaks.into_iter().max().unwrap();
            assert!(peak <= most, "{name} p={p}: {peak} chunks");
        }
    }
}

#[test]
fn a_rank_runs_its_passes_by_slot_and_fills_idle_ones() {
    let text = "schedule \"x\" { passes F, B, W block every 3 { F at rank B at 4 - rank W fill } }";
    let schedule = ordered(text, 2, 3).unwrap();
    let shown = |rank: usize| -> Vec<String> {
        let name = |pass: Pass| format!("{}{}", schedule.catalog.kind(pass.kind).name, pass.microbatch.0);
        schedule.orders[rank].iter().map(|placed| name(placed.pass)).collect()
    };
    assert_eq!(shown(0), ["F0", "F1", "B0", "W0", "F2", "B1", "W1", "B2", "W2"]);
    // By its slots rank 1 would run W1 before B2, and rank 0 wait for B2.
    assert_eq!(shown(1), ["F0", "B0", "F1", "W0", "B1", "F2", "B2", "W1", "W2"]);
}

#[test]
fn passes_that_take_idle_slots_may_wait_for_one_another_across_ranks() {
    for (ranks, text) in [
        (4, "schedule \"x\" { passes F, B, W block every 3 { F fill B fill W fill } }"),
        (4, "schedule \"x\" { block every 3 { F fill B fill } }"),
        (3, "schedule \"x\" { chunks 2 place wave block every 6 { F fill B.1 fill B.0 fill } }"),
    ] {
        assert_complete(&ordered(text, ranks, 5).unwrap());
    }
}

#[test]
fn slots_before_0_and_far_away_are_slots_like_others() {
    for text in [
        "schedule \"x\" { block every 3 { F at rank - 1000 B at 2 * ranks - 2 * rank + 1 } }",
        "schedule \"x\" { block every 1099511627 { F at rank B at 1099511627776 - 2 * rank } }",
        "schedule \"x\" { block every 2147483648 { F at rank - 1099511627776 B fill } }",
    ] {
        assert_complete(&ordered(text, 4, 5).unwrap());
    }
}

#[test]
fn a_priority_list_names_every_pass_of_every_chunk_and_its_limits() {
    let text = "schedule \"x\" { chunks 2 place wave passes F, B, W \
                greedy { limit act <= 2 * ranks - rank limit delta <= 0 prefer B.1 B.0 F.(chunks - 1) F.0 W } }";
    let program = program("x", text.as_bytes(), &Options::parse("ranks=4")).unwrap();
    let RankOrder::Greedy(greedy) = &program.ranks[3].order else { panic!("a priority list") };
    let name =
        |member: &schedc::ir::Member| format!("{}{}", program.catalog.kind(member.kind).name, member.chunk);
    assert_eq!(
        greedy.prefer.iter().map(name).collect::<Vec<_>>(),
        ["Bc1", "Bc0", "Fc1", "Fc0", "Wc0", "Wc1"]
    );
    let limits = greedy.limits.iter().map(|cap| (program.catalog.class(cap.class).name.as_str(), cap.most));
    assert_eq!(limits.collect::<Vec<_>>(), [("act", 5), ("delta", 0)]);
}

#[test]
fn the_largest_blocks_are_ordered() {
    let wave = |chunks: u32| {
        format!(
            "schedule \"x\" {{ passes F, B, W chunks {chunks} block every 3 * chunks {{ F fill B fill W fill }} }}"
        )
    };
    for (ranks, chunks, microbatches) in
        [(1, 1 << 14, 2), (1 << 14, 1, 2), (1 << 7, 1 << 7, 2), (1, 1, 1 << 17)]
    {
        assert_complete(&ordered(&wave(chunks), ranks, microbatches).unwrap());
    }
}

/// A random block over two chunks; some of them fit.
fn block() -> impl Strategy<Value = String> {
    let slot = |shift: u32| {
        let line = prop::sample::select(vec![
            "rank",
            "2 * ranks - rank",
            "2 * ranks + rank",
            "4 * ranks - rank",
            "2 * rank",
            "0",
        ]);
        prop_oneof![
            3 => (line, 0..6_u32).prop_map(move |(line, by)| format!("at {line} + {}", by + shift)),
            1 => Just("fill".to_owned()),
        ]
    };
    let fused = any::<bool>();
    (1..9_u32, slot(0), slot(3), slot(3), slot(6), fused).prop_map(|(every, f0, f1, b1, b0, fused)| {
        let (passes, w) = if fused { ("", "") } else { ("passes F, B, W", "W fill") };
        format!(
            "schedule \"random\" {{ {passes} chunks 2 place wave block every {every} {{ \
             F.0 {f0} F.1 {f1} B.1 {b1} B.0 {b0} {w} }} }}"
        )
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_block_is_refused_at_its_lines_or_orders_every_pass_once(
        text in block(),
        ranks in 1..7_u32,
        microbatches in 1..6_u32,
    ) {
        match ordered(&text, ranks, microbatches) {
            Ok(schedule) => assert_complete(&schedule),
            Err(errors) => {
                let known = ["order::collision", "order::too_early", "order::no_slot"];
                let other = errors.iter().find(|error| !known.contains(&code(error).as_str()));
                prop_assert!(other.is_none(), "{}\n{text}", rendered(other.unwrap()));
            }
        }
    }

    #[test]
    fn what_is_refused_of_a_block_does_not_depend_on_the_microbatches(text in block(), ranks in 1..7_u32) {
        let said = |microbatches| {
            let errors = ordered(&text, ranks, microbatches).err().unwrap_or_default();
            errors.iter().map(rendered).collect::<String>()
        };
        prop_assert_eq!(said(1), said(9));
    }
}
