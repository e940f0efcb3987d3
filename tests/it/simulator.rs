//! What the simulator says of a run: the critical path, and memory over time.

use proptest::prelude::*;
use schedc::cost::{CostSpec, Costs, Durations};
use schedc::ir::{Op, Rank, Ticks};
use schedc::simulate::{
    Idle, Known, RankMemory, Rate, Report, Timeline, critical_links, critical_path, idle, memory,
    memory_peaks, report_schema, resident, simulate,
};
use schedc::verify::Verified;

use crate::cli::schedc;
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
        ..Durations::default()
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

/// Idle time of every rank, part by part.
fn idle_adds_up(plan: &Verified, timeline: &Timeline) {
    let parts = idle(plan, timeline);
    let busiest = timeline.ranks.iter().map(|rank| rank.busy).max().unwrap();
    for (rank, parts) in timeline.ranks.iter().zip(&parts) {
        assert_eq!(parts.total().0, timeline.makespan().0 - rank.busy.0, "{parts:?}");
        assert_eq!(parts.imbalance.0, busiest.0 - rank.busy.0);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 80, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_parts_of_idle_time_add_up_to_it(
        schedule in prop::sample::select(SCHEDULES.to_vec()),
        with in prop::sample::select(TRANSFORMS.to_vec()),
        p in 1..6_u32,
        m in 1..10_u32,
        costs in prop::collection::vec(prop_oneof![Just(0), 1..30_u32], 8),
        transfer in 0..20_u32,
    ) {
        let [f, b, w, message, reduce, gather, broadcast, output] = costs[..] else { unreachable!() };
        let vocab = with.map_or(String::new(), |_| format!(",S={output},T={gather}"));
        let costs = format!(
            "F={f},B={b},W={w},p2p={message},all_reduce={reduce},all_gather={gather},broadcast={broadcast}{vocab}"
        );
        let (plan, timeline, _) = timed(schedule, with, &[], (p, m), &costs);
        idle_adds_up(&plan, &timeline);
        let links = linked(&plan, f64::from(f), f64::from(message), f64::from(transfer));
        idle_adds_up(&plan, &simulate(&plan, &links));
    }
}

/// The parts of a rank's idle time in units: warm-up, dependency, message, collective, imbalance, cool-down.
fn parts(costs: &str, with: Option<&str>, p: u32, m: u32, rank: usize) -> [i64; 6] {
    let (plan, timeline, _) = timed("1f1b", with, &[], (p, m), costs);
    let bound = CostSpec::parse(costs).unwrap().bind_plan(&plan.header).unwrap();
    let Idle { warm_up, dependency, message, collective, imbalance, cool_down } =
        idle(&plan, &timeline)[rank];
    [warm_up, dependency, message, collective, imbalance, cool_down]
        .map(|ticks| bound.in_units(ticks).round() as i64)
}

#[test]
fn the_bubble_of_1f1b_is_warm_up_and_waiting_for_what_others_compute() {
    // Rank 3 starts after three forwards and ends before three backwards of two units each.
    assert_eq!(parts("F=1,B=1,W=1", None, 4, 8, 3), [3, 0, 0, 0, 0, 6]);
    // Rank 0 waits for the first backward to come back and then after every backward of its cool-down.
    assert_eq!(parts("F=1,B=1,W=1", None, 4, 8, 0), [0, 9, 0, 0, 0, 0]);
    // One microbatch there and back: two messages each way are under way.
    assert_eq!(parts("F=1,B=1,W=1,p2p=2", None, 3, 1, 0), [0, 6, 8, 0, 0, 0]);
}

#[test]
fn a_collective_that_is_under_way_is_waited_for_as_one() {
    let costs = "F=10,B=10,W=0,S=3,T=0,IF=0,IB=0,p2p=2,broadcast=1,all_gather=4,all_reduce=5,reduce=5";
    // After its F rank 1 waits for the broadcast to S and, after S, for both parts of C1.
    assert_eq!(parts(costs, Some("vocab-2"), 2, 1, 1)[3], 10);
}

#[test]
fn what_is_resident_is_what_a_run_allocates() {
    for schedule in ["1f1b", "interleaved", "v-half", "dualpipe", "chimera"] {
        for with in TRANSFORMS {
            for tied in [false, true] {
                for p in [1, 2, 4] {
                    let Some(plan) = compiles(schedule, with, p, tied) else { continue };
                    for (rank, found) in Rank::all(plan.ranks.len()).zip(resident(&plan.header)) {
                        let held = schedc::execute::model::Held::of(&plan.header, rank).unwrap();
                        assert_eq!(
                            found.total(),
                            held.parameter_bytes(),
                            "{schedule} {with:?} p={p} {tied} {rank}"
                        );
                    }
                }
            }
        }
    }
}

#[test]
fn the_predicted_memory_of_a_run_is_what_it_allocates_to_the_byte() {
    use schedc::execute::cpu::CpuBackend;
    use schedc::execute::interpreter::Engine;
    use schedc::execute::model::Train;
    use schedc::execute::watchdog::Limits;
    for (schedule, with, tied) in [
        ("1f1b", None, false),
        ("1f1b", Some("vocab-1"), true),
        ("interleaved", Some("vocab-2"), false),
        ("v-half", Some("vocab-1"), false),
        ("zb-v", None, true),
        ("seq1f1b", Some("interlaced"), true),
    ] {
        let plan = library(schedule, with, 4, 8, tiny(8, tied));
        let costs = CostSpec::default().bind_plan(&plan.header).unwrap();
        let report = Report::of(&plan, &costs, &Known::default());
        let make = |rank| Ok(CpuBackend::new(&plan.header, rank, &Train::default())?);
        let engine = Engine::new(&plan, make, &Limits::default()).unwrap();
        let arenas: Vec<u64> = engine.arena_bytes().into_iter().map(|bytes| bytes.0).collect();
        let foretold: Vec<u64> = report.ranks.iter().map(|rank| rank.memory.arena).collect();
        assert_eq!(foretold, arenas, "{schedule} {with:?}");
        let resident: u64 = report.ranks.iter().map(|rank| rank.memory.resident.total()).sum();
        assert_eq!(resident, engine.parameter_bytes().0, "{schedule} {with:?}");
        let total: u64 = report.ranks.iter().map(|rank| rank.memory.total).sum();
        assert_eq!(total, arenas.iter().sum::<u64>() + engine.parameter_bytes().0);
    }
}

/// Two flows go with an even number of ranks.
fn compiles(schedule: &str, with: Option<&str>, p: u32, tied: bool) -> Option<Verified> {
    let two_flows = ["dualpipe", "chimera"].contains(&schedule);
    (!two_flows || p.is_multiple_of(2)).then(|| library(schedule, with, p, 8, tiny(p * 2, tied)))
}

#[test]
fn the_report_is_one_of_the_published_schema() {
    let path = "docs/simulation.schema.json";
    if std::env::var_os("SCHEDC_BLESS").is_some() {
        std::fs::write(path, report_schema()).unwrap();
    }
    let published = std::fs::read_to_string(path).unwrap();
    assert!(published == report_schema(), "run the tests once with SCHEDC_BLESS=1 and commit {path}");
    let plan = library("1f1b", Some("vocab-1"), 4, 8, tiny(4, false));
    let costs = CostSpec::default().bind_plan(&plan.header).unwrap();
    let report = Report::of(&plan, &costs, &Known { over_time: true, ..Known::default() });
    let schema: serde_json::Value = serde_json::from_str(&published).unwrap();
    let value = serde_json::to_value(&report).unwrap();
    conforms(&value, &schema, &schema);
    assert_eq!(value["schedc_simulation"], 1);
}

/// Every field is one of the schema's, and every field that the schema demands is there.
fn conforms(value: &serde_json::Value, schema: &serde_json::Value, root: &serde_json::Value) {
    let of_some = |choice: &&serde_json::Value| choice["type"] != "null";
    let schema = schema["anyOf"].as_array().and_then(|all| all.iter().find(of_some)).unwrap_or(schema);
    let schema = match schema["$ref"].as_str() {
        Some(path) => root.pointer(path.trim_start_matches('#')).unwrap(),
        None => schema,
    };
    match value {
        serde_json::Value::Object(fields) => {
            for (name, field) in fields {
                let described = &schema["properties"][name];
                let described = if described.is_null() { &schema["additionalProperties"] } else { described };
                assert!(!described.is_null(), "{name} is not in the schema");
                conforms(field, described, root);
            }
            for required in schema["required"].as_array().into_iter().flatten() {
                assert!(fields.contains_key(required.as_str().unwrap()), "{required} is missing");
            }
        }
        serde_json::Value::Array(entries) => {
            entries
                .iter()
                .filter(|_| schema["items"].is_object())
                .for_each(|entry| conforms(entry, &schema["items"], root));
        }
        _ => {}
    }
}

#[test]
fn mfu_is_the_models_flops_over_what_the_devices_could_do_in_the_step() {
    let plan = library("1f1b", None, 4, 8, tiny(4, false));
    let costs = CostSpec::default().bind_plan(&plan.header).unwrap();
    // 33 units of 2 s, 4 devices of 10 FLOP/s: 2640 FLOPs could be done.
    let rate = Rate { step_flops: 1320.0, device_flops: 10.0, seconds: 2.0 };
    let report = Report::of(&plan, &costs, &Known { rate: Some(rate), ..Known::default() });
    assert!((report.mfu.unwrap() - 0.5).abs() < 1e-12, "{:?}", report.mfu);
    assert_eq!(Report::of(&plan, &costs, &Known::default()).mfu, None);
}

#[test]
fn simulate_prints_a_table_for_people_that_fits_a_terminal() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    for words in
        ["1f1b -p 4 -m 8", "v-half --with vocab-1 -p 8 -m 32 --cost F=10,B=12,W=8,p2p=1,all_reduce=2"]
    {
        let done = schedc(path, &format!("simulate {words}"));
        assert_eq!(done.code, 0, "{}", done.err);
        assert!(done.out.lines().all(|line| line.chars().count() <= 110), "{}", done.out);
    }
    let done = schedc(path, "simulate 1f1b -p 4 -m 8");
    insta::assert_snapshot!("simulate_1f1b", done.out);
    let done = schedc(path, "simulate 1f1b -p 64 -m 128 --with vocab-2");
    assert!(done.out.lines().all(|line| line.chars().count() <= 110), "{}", done.out);
    assert_eq!(done.out.lines().filter(|line| line.starts_with('r')).count(), 64 + 1, "{}", done.out);
}

#[test]
fn simulate_takes_a_plan_under_any_costs() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    schedc(path, "compile 1f1b -p 4 -m 8 -o one.plan");
    let done = schedc(path, "simulate one.plan --cost F=2,B=2,W=2 --json");
    let report: serde_json::Value = serde_json::from_str(&done.out).unwrap();
    assert_eq!(report["makespan"].as_f64(), Some(66.0), "{}", done.out);
    assert_eq!(report["ranks"][3]["idle_parts"]["warm_up"].as_f64(), Some(6.0));
    schedc(path, "simulate one.plan --cost S=2").refused(1, &["schedc::cost::unknown_name"]);
    schedc(path, "simulate one.plan -p 2").refused(2, &["schedc::cli::contradiction"]);
    schedc(path, "simulate 1f1b -p 2").refused(2, &["schedc::cli::missing_flag", "schedc simulate 1f1b"]);
}

#[test]
fn a_plan_over_the_memory_limit_is_refused_with_rank_moment_and_owners() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    schedc(path, "compile 1f1b -p 4 -m 8 -o one.plan");
    let said =
        ["schedc::simulate::over_memory_limit", "r0 needs", "1.0 MiB", "`act` of F.s0", "m0-m3", "at 3"];
    for words in ["compile 1f1b -p 4 -m 8", "simulate 1f1b -p 4 -m 8", "verify one.plan"] {
        schedc(path, &format!("{words} --memory-limit 1MiB")).refused(1, &said);
        assert_eq!(schedc(path, &format!("{words} --memory-limit 80GB")).code, 0, "{words}");
    }
    let done = schedc(path, "simulate 1f1b -p 4 -m 8 --memory-limit 80XB");
    assert_eq!(done.code, 2, "{}", done.err);
    assert!(done.err.contains("MiB, GiB or TiB"), "{}", done.err);
}

#[test]
fn a_schedule_that_keeps_what_it_requires_compiles() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let text = "schedule \"own\" {\n    require peak <= ranks\n    require peak <= 80 GB\n    require bubble <= 30 percent\n    order F^(min(ranks - rank - 1, microbatches)) (F B)^* B^*\n}\n";
    std::fs::write(path.join("own.sched"), text).unwrap();
    assert_eq!(schedc(path, "compile own.sched -p 4 -m 8").code, 0);
    assert_eq!(schedc(path, "fmt own.sched --check").code, 0);
    schedc(path, "compile own.sched -p 4 -m 4")
        .refused(1, &["schedc::simulate::unmet_requirement", "42.86 percent"]);
}

#[test]
fn on_a_device_memory_is_what_the_training_keeps_there() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let model = "--layers 32 --hidden 3072 --heads 24 --seq 2048 --vocab 32768";
    let words = format!("simulate 1f1b -p 8 -m 16 {model} --device a100-80g");
    let done = schedc(path, &format!("{words} --json --over-time"));
    assert_eq!(done.code, 0, "{}", done.err);
    let report: serde_json::Value = serde_json::from_str(&done.out).unwrap();
    assert_eq!(report["unit"], "µs");
    let mfu = report["mfu"].as_f64().unwrap();
    assert!((0.05..1.0).contains(&mfu), "{mfu}");
    for rank in report["ranks"].as_array().unwrap() {
        let memory = &rank["memory"];
        let bytes = |name: &str| memory[name].as_u64().unwrap();
        let resident =
            ["parameters", "gradients", "optimizer"].map(|name| memory["resident"][name].as_u64().unwrap());
        assert_eq!(bytes("total"), bytes("peak") + bytes("reserved") + resident.iter().sum::<u64>());
        let owners: u64 =
            memory["owners"].as_array().unwrap().iter().map(|owner| owner["bytes"].as_u64().unwrap()).sum();
        assert_eq!(owners, bytes("peak"));
        let sums = memory["over_time"]["bytes"].as_array().unwrap().iter();
        let sums =
            sums.map(|row| row.as_array().unwrap().iter().map(|bytes| bytes.as_u64().unwrap()).sum::<u64>());
        assert_eq!(sums.max(), Some(bytes("peak")));
    }
    let most = report["ranks"]
        .as_array()
        .unwrap()
        .iter()
        .map(|rank| rank["memory"]["total"].as_u64().unwrap())
        .max();
    let most = most.unwrap();
    schedc(path, &format!("{words} --memory-limit {}", most - 1))
        .refused(1, &["schedc::simulate::over_memory_limit", "parameters, gradients, optimizer"]);
    let done = schedc(path, &format!("{words} --memory-limit {most}"));
    assert_eq!(done.code, 0, "{}", done.err);
    assert!(done.out.contains(" ms · "), "{}", done.out);
    assert!(done.out.lines().all(|line| line.chars().count() <= 110), "{}", done.out);
}

/// The costs of a machine whose ranks are threads, or of devices of their own: passes of each kind take the same everywhere, messages nothing.
fn of_passes(plan: &Verified, times: &[u32], threads: Option<f64>) -> Costs {
    let ranks = plan.ranks.len();
    let time = |(_, &time): (&schedc::ir::Kind, &u32)| vec![f64::from(time)];
    let kinds = &plan.header.catalog.kinds;
    let durations = Durations {
        passes: kinds.iter().zip(times.iter().cycle()).map(time).collect(),
        collectives: vec![0.0; plan.header.catalog.collectives.len()],
        messages: vec![0.0; ranks * ranks],
        transfers: vec![0.0; ranks * ranks],
        steps: Vec::new(),
        threads,
        ranks: ranks as u32,
    };
    let units = plan.header.microbatches * plan.header.slices;
    durations.bind(plan.header.stages.len() as u32, units).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn threads_run_every_plan_to_its_end_and_wait_for_nothing_without_a_cause(
        schedule in prop::sample::select(SCHEDULES.to_vec()),
        with in prop::sample::select(TRANSFORMS.to_vec()),
        p in 1..6_u32,
        m in 1..10_u32,
        times in prop::collection::vec(prop_oneof![1 => Just(0), 4 => 1..30_u32], 12),
        contention in 0..100_u32,
    ) {
        let (plan, ..) = timed(schedule, with, &[], (p, m), "F=1,B=1,W=1");
        let contention = f64::from(contention) / 100.0;
        let run = |threads| simulate(&plan, &of_passes(&plan, &times, threads));
        let (devices, alone, beside) = (run(None), run(Some(0.0)), run(Some(contention)));
        for timeline in [&alone, &beside] {
            path_spans_the_makespan(&plan, timeline);
            memory_is_what_lives(&plan, timeline);
            for (parts, rank) in idle(&plan, timeline).iter().zip(&timeline.ranks) {
                prop_assert_eq!(parts.total().0 + rank.busy.0, timeline.makespan().0);
            }
        }
        // Collectives of threads let members go that read nothing, which no device does.
        if with.is_none() {
            prop_assert!(alone.makespan() >= devices.makespan());
        }
        // Rounded to ticks, pass by pass.
        let rounds = plan.ranks.iter().map(|rank| rank.instrs.len() as u64).sum::<u64>();
        prop_assert!(beside.makespan().0 + rounds >= alone.makespan().0);
    }
}

/// Of a chain of collectives each one waits at a thread for the pass that it is in: with the times of a machine with two cores that makes a step of
/// 1F1B with vocabulary passes a tenth longer, and none of `GPipe`, which has nothing to wait for.
#[test]
fn collectives_wait_for_the_pass_that_a_thread_is_in() {
    let longer = |schedule: &str| {
        let plan = library(schedule, Some("vocab-1"), 2, 8, tiny(4, false));
        let times = plan.header.catalog.kinds.iter().map(|kind| match kind.name.as_str() {
            "F" => 28_000,
            "B" => 57_000,
            "S" => 4_300,
            "T" => 7_500,
            _ => 30,
        });
        let times: Vec<u32> = times.collect();
        let run = |threads| simulate(&plan, &of_passes(&plan, &times, threads)).makespan();
        // In thousandths.
        run(Some(0.0)).0 * 1000 / run(None).0
    };
    assert!(longer("1f1b") > 1100, "{}", longer("1f1b"));
    assert!(longer("gpipe") < 1010, "{}", longer("gpipe"));
}
