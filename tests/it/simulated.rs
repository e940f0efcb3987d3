//! Costs, the simulator and `compare`: what the library's plans take, against the published generators and closed forms.

use std::fs;

use proptest::prelude::*;
use schedc::cost::{CostError, CostSpec, Costs, UNIT};
use schedc::driver::{Input, Job, compile};
use schedc::ir::{At, InstrId, Microbatch, Mode, Op, Pass, Rank, Site, Stage, Ticks};
use schedc::resolve::{Model, Partitioning};
use schedc::simulate::{Timeline, activations, simulate};
use schedc::source::Sources;
use schedc::verify::Verified;

use crate::cli::schedc;
use crate::compiled::{SCHEDULES, TRANSFORMS, library, tiny};
use crate::differential::oracle;

/// A library schedule, compiled for costs and run under them.
pub(crate) fn timed(
    name: &str,
    with: Option<&str>,
    set: &[(&str, i64)],
    (p, m): (u32, u32),
    costs: &str,
) -> (Verified, Timeline, f64) {
    let spec = CostSpec::parse(costs).unwrap();
    let with: Vec<String> = with.iter().map(ToString::to_string).collect();
    let set: Vec<_> = set.iter().map(|&(name, value)| (name.to_owned(), value)).collect();
    let model = Model { layers: None, dims: tiny(1, false), partition: Partitioning::Uniform };
    let job = Job {
        input: Input::Library(name),
        with: &with,
        set: &set,
        ranks: p,
        microbatches: m,
        model,
        costs: &spec,
        retime: None,
        mode: Mode::Training,
    };
    let plan = compile(&job, &mut Sources::default())
        .unwrap_or_else(|errors| panic!("{name} {p} {m} {costs}: {errors:?}"));
    let costs = spec.bind_plan(&plan.header).unwrap();
    let timeline = simulate(&plan, &costs);
    let makespan = costs.in_units(timeline.makespan());
    (plan, timeline, makespan)
}

/// A row of the published generators' results: name, p, m, costs, makespan, bubble, span bubble, peaks.
fn rows(name: &str) -> Vec<Vec<String>> {
    let Some(text) = oracle("schedules.csv").map(|file| fs::read_to_string(file).unwrap()) else {
        return Vec::new();
    };
    let rows = text.lines().map(|line| line.split(',').map(str::to_owned).collect::<Vec<_>>());
    rows.filter(|row| row[0] == name && row[4] == "ok").collect()
}

/// `f/b/w/c` as a list of costs.
fn costs_of(cell: &str) -> String {
    let parts: Vec<_> = cell.split('/').collect();
    format!("F={},B={},W={},p2p={}", parts[0], parts[1], parts[2], parts[3])
}

/// A row beside ours: makespan, bubble, span bubble, peaks of the ranks.
struct Pair {
    p: u32,
    m: u32,
    costs: String,
    ours: ([f64; 3], Vec<f64>),
    theirs: ([f64; 3], Vec<f64>),
}

impl Pair {
    /// Whether ours equals the published number, which has four decimals.
    fn equal(&self, column: usize) -> bool {
        (self.ours.0[column] - self.theirs.0[column]).abs() < 0.000_06
    }
}

impl std::fmt::Display for Pair {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "p={} m={} {}: {:?} against {:?}", self.p, self.m, self.costs, self.ours, self.theirs)
    }
}

/// Every published row beside ours.
fn pairs(name: &str, set: &[(&str, i64)], theirs: &str) -> Vec<Pair> {
    let pair = |row: Vec<String>| {
        let number = |column: usize| row[column].parse::<f64>().unwrap();
        let (p, m) = (row[1].parse().unwrap(), row[2].parse().unwrap());
        let (plan, timeline, makespan) = timed(name, None, set, (p, m), &costs_of(&row[3]));
        let peaks = row[12].split(' ').map(|peak| peak.parse().unwrap()).collect();
        let ours = ([makespan, timeline.bubble(), timeline.span_bubble()], activations(&plan));
        Pair { p, m, costs: row[3].clone(), ours, theirs: ([number(5), number(6), number(8)], peaks) }
    };
    rows(theirs).into_iter().map(pair).collect()
}

#[test]
fn one_f_one_b_interleaved_and_seq1f1b_take_what_the_published_generators_take() {
    for (name, set, theirs) in [
        ("1f1b", &[][..], "1f1b"),
        ("interleaved", &[("v", 2)], "vpp2"),
        ("interleaved", &[("v", 4)], "vpp4"),
        ("seq1f1b", &[("s", 2)], "seq1f1b_2"),
        ("seq1f1b", &[("s", 4)], "seq1f1b_4"),
    ] {
        for pair in pairs(name, set, theirs) {
            assert!((0..3).all(|column| pair.equal(column)), "{name} {pair}");
            assert_eq!(pair.ours.1, pair.theirs.1, "{name} {pair}");
        }
    }
}

#[test]
fn zb_h1_takes_what_its_generator_takes() {
    for pair in pairs("zb-h1", &[], "zb1p") {
        assert_eq!(pair.ours.1, pair.theirs.1, "{pair}");
        assert!((0..3).all(|column| pair.equal(column)), "{pair}");
    }
}

/// Blocks and priority lists, placed by time: nowhere longer than the published orders, in no more memory.
#[test]
fn what_is_placed_by_time_is_no_longer_than_what_its_generator_makes() {
    for (name, set, theirs) in [
        ("interleaved-zb", &[("v", 2)][..], "gint2"),
        ("interleaved-zb", &[("v", 4)], "gint4"),
        ("zb-v", &[], "zbv"),
        ("v-half", &[], "vhalf"),
        ("v-min", &[], "vmin"),
        ("1f1b-v", &[], "v1f1b"),
    ] {
        let most = |peaks: &[f64]| peaks.iter().copied().fold(0.0, f64::max);
        for pair in pairs(name, set, theirs) {
            assert!(pair.ours.0[0] <= pair.theirs.0[0] + 1e-9, "{name} {pair}");
            assert!(most(&pair.ours.1) <= most(&pair.theirs.1), "{name} {pair}");
            // Their generators place by slots, whatever passes and messages take.
            if ["v-half", "v-min"].contains(&name) && pair.costs.ends_with("/1") {
                assert!(pair.ours.0[0] < pair.theirs.0[0] - 0.5, "{name} {pair}");
            }
        }
    }
}

/// The generator keeps one microbatch more, for the same makespan; where messages take time its longest rank idles a little less at p = 8.
#[test]
fn zb_h2_takes_what_its_generator_takes_with_one_activation_less() {
    for pair in pairs("zb-h2", &[], "zb2p") {
        assert!(pair.equal(0) && pair.equal(1), "{pair}");
        assert!(pair.equal(2) || pair.p == 8 && pair.ours.0[2] < pair.theirs.0[2] + 0.02, "{pair}");
        let most = f64::from((2 * pair.p - 1).min(pair.m));
        assert!(pair.ours.1.iter().all(|&peak| (peak - most).abs() < 1e-9), "{pair}");
        assert!(pair.ours.1.iter().zip(&pair.theirs.1).all(|(ours, theirs)| ours <= theirs), "{pair}");
    }
}

/// The code of a refused list of costs, bound to 1F1B with a transform.
fn refused(costs: &str, with: Option<&str>) -> String {
    let plan = library("1f1b", with, 2, 2, tiny(2, false));
    let error = CostSpec::parse(costs).and_then(|spec| spec.bind_plan(&plan.header)).unwrap_err();
    miette::Diagnostic::code(&error).unwrap().to_string()
}

#[test]
fn costs_that_can_not_be_used_are_refused_with_their_codes() {
    for (costs, code) in [
        ("F", "schedc::cost::malformed"),
        ("F=x", "schedc::cost::bad_number"),
        ("F=-1", "schedc::cost::negative"),
        ("F=0.0000001", "schedc::cost::too_fine"),
        ("F=99999999999999999999", "schedc::cost::too_large"),
        ("F=1,F=2", "schedc::cost::given_twice"),
        ("G=1", "schedc::cost::unknown_name"),
        ("S=1", "schedc::cost::unknown_name"),
        ("F=9999999999999,B=0.000001", "schedc::cost::too_long"),
    ] {
        assert_eq!(refused(costs, None), code, "{costs}");
    }
    assert_eq!(refused("C2=1", Some("vocab-2")), "schedc::cost::unknown_name");
}

#[test]
fn an_unknown_name_is_told_the_nearest_one() {
    let plan = library("1f1b", Some("vocab-2"), 2, 2, tiny(2, false));
    let help = |costs: &str| match CostSpec::parse(costs).unwrap().bind_plan(&plan.header) {
        Err(CostError::UnknownName { help, .. }) => help,
        other => panic!("{other:?}"),
    };
    assert_eq!(help("all_reduced=1"), "did you mean `all_reduce`?");
    assert!(help("zzz=1").contains("F, B, S, C1, T, IF, IB, broadcast"), "{}", help("zzz=1"));
}

/// The cost of a kind by name, in the unit that costs were written in.
fn bound(costs: &str, schedule: &str, with: Option<&str>, name: &str) -> f64 {
    let plan = library(schedule, with, 4, 4, tiny(2, false));
    let costs = CostSpec::parse(costs).unwrap().bind_plan(&plan.header).unwrap();
    let kind = plan.header.catalog.kind_named(name).unwrap();
    let site = match plan.header.catalog.kind(kind).at {
        At::Stage => Site::Stage(Stage(0)),
        At::EveryRank => Site::Rank(Rank(0)),
    };
    costs.in_units(costs.pass(Pass { kind, site, microbatch: Microbatch(0) }))
}

#[test]
fn what_is_not_named_costs_what_f_costs_or_a_quarter_of_it() {
    let vocab = Some("vocab-2");
    for (costs, schedule, with, name, expected) in [
        // A fused backward does W's work as well.
        ("F=10", "1f1b", None, "B", 20.0),
        ("F=10,B=12", "1f1b", None, "B", 22.0),
        ("F=10,B=12,W=8", "1f1b", None, "B", 20.0),
        ("F=10,B=12,W=8", "zb-h1", None, "B", 12.0),
        ("W=8", "zb-h1", None, "B", 1.0),
        // A chunk's pass is a share of the rank's, a pass at every rank is not.
        ("F=10,S=3", "interleaved", vocab, "F", 5.0),
        ("F=10,S=3", "interleaved", vocab, "S", 3.0),
        ("F=10,S=3", "interleaved", vocab, "T", 2.5),
        // A slice's pass is a share of its microbatch's, wherever it runs.
        ("F=10,S=3", "seq1f1b", vocab, "F", 5.0),
        ("F=10,S=3", "seq1f1b", vocab, "S", 1.5),
        ("F=10,S=3", "seq1f1b", vocab, "T", 1.25),
        // The steps of barriers take nothing, unless they are named.
        ("F=10", "1f1b", vocab, "C1", 0.0),
        ("F=10,rescale=.5", "1f1b", vocab, "C1", 0.5),
        ("F=10,rescale=.5,C1=.25", "1f1b", vocab, "C1", 0.25),
    ] {
        let cost = bound(costs, schedule, with, name);
        assert!((cost - expected).abs() < 1e-9, "{costs} {schedule} {name}: {cost} is not {expected}");
    }
}

#[test]
fn only_the_ratio_of_costs_matters_to_a_plan() {
    for name in ["1f1b", "interleaved", "zb-h2"] {
        let (one, ..) = timed(name, Some("vocab-1"), &[], (4, 8), "F=1,B=1.2,W=.8,p2p=.1");
        let (other, ..) = timed(name, Some("vocab-1"), &[], (4, 8), "F=10,B=12,W=8,p2p=1");
        assert_eq!(one.into_plan(), other.into_plan(), "{name}");
    }
    let plan = library("1f1b", None, 2, 2, tiny(2, false));
    let named = CostSpec::parse("F=1,B=1,W=1,p2p=0").unwrap();
    assert_eq!(UNIT.bind_plan(&plan.header), named.bind_plan(&plan.header));
}

/// Every instruction starts as soon as its lane and what it waits for let it, and lasts as long as it must.
fn follows_the_plan(plan: &Verified, timeline: &Timeline, costs: &Costs) {
    for (index, rank) in plan.ranks.iter().enumerate() {
        let id = Rank::new(index);
        let mut free = vec![Ticks(0); rank.lanes.len()];
        let mut busy = 0;
        let mut first: Option<InstrId> = None;
        for (number, instr) in rank.instrs.iter().enumerate() {
            let number = InstrId::new(number);
            let (start, end) = (timeline.start(id, number), timeline.end(id, number));
            if let (Op::Pass(pass), Some(first)) = (instr.op, first.filter(|_| instr.lane.index() == 0)) {
                assert_eq!(
                    (start, end),
                    (timeline.start(id, first), timeline.end(id, first)),
                    "{id} {number}"
                );
                busy += costs.pass(pass).0;
            }
            let lane = |other: &&schedc::ir::Instr| other.lane == instr.lane;
            let second = rank.instrs[number.index() + 1..].iter().find(lane).filter(|_| instr.overlaps);
            if instr.lane.index() == 0 && std::mem::replace(&mut first, second.map(|_| number)).is_some() {
                continue;
            }
            let others = second.into_iter().flat_map(|second| rank.operands(second).waits.iter().copied());
            let waits = rank.operands(instr).waits.iter().copied().chain(others);
            let waits = waits.map(|wait| timeline.end(id, InstrId(wait))).max();
            assert_eq!(start, free[instr.lane.index()].max(waits.unwrap_or_default()), "{id} {number}");
            let lasts = match instr.op {
                Op::Pass(pass) => {
                    if instr.lane.index() == 0 {
                        busy += costs.pass(pass).0;
                    }
                    Some(match second.map(|second| second.op) {
                        Some(Op::Pass(second)) => costs.pair(pass, second),
                        _ => costs.pass(pass),
                    })
                }
                Op::Send { to, .. } => Some(costs.message(id, to)),
                Op::Step => Some(Ticks(0)),
                Op::Recv { .. } | Op::Collective { .. } => None,
            };
            assert!(end >= start && lasts.is_none_or(|lasts| end == start + lasts), "{id} {number}");
            free[instr.lane.index()] = match instr.op {
                Op::Send { to, .. } => start + costs.occupies(id, to),
                _ => end,
            };
        }
        assert_eq!(timeline.ranks[index].busy, Ticks(busy), "{id}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn under_any_costs_plans_are_sound_and_run_to_their_end(
        schedule in prop::sample::select(SCHEDULES.to_vec()),
        with in prop::sample::select(TRANSFORMS.to_vec()),
        p in 1..6_u32,
        m in 1..10_u32,
        passes in prop::collection::vec(0..40_u32, 3),
        rest in prop::collection::vec(prop_oneof![Just(0), 0..60_u32], 6),
    ) {
        let passes_cost = format!("F={},B={},W={}", passes[0], passes[1], passes[2]);
        let [message, reduce, gather, broadcast, output, input] = rest[..] else { unreachable!() };
        let far = format!("p2p={message},all_reduce={reduce},all_gather={gather},broadcast={broadcast},reduce={input}");
        let vocab = with.map_or(String::new(), |_| format!(",S={output},IB={reduce},T=.{gather}"));
        let costs = format!("{passes_cost},{far}{vocab}");
        let (plan, timeline, _) = timed(schedule, with, &[], (p, m), &costs);
        let costs = CostSpec::parse(&costs).unwrap().bind_plan(&plan.header).unwrap();
        follows_the_plan(&plan, &timeline, &costs);
        let busy = timeline.ranks.iter().map(|rank| rank.busy).max().unwrap();
        prop_assert!(timeline.makespan() >= busy);
        prop_assert!((0.0..=1.0).contains(&timeline.bubble()) && (0.0..=1.0).contains(&timeline.span_bubble()));
    }
}

#[test]
fn a_microbatch_takes_its_passes_messages_and_collectives_end_to_end() {
    let costs = "F=10,B=10,W=0,S=3,T=0,IF=0,IB=0,p2p=2,broadcast=1,all_gather=4,all_reduce=5,reduce=5";
    let (_, _, makespan) = timed("1f1b", Some("vocab-2"), &[], (2, 1), costs);
    let forward = [5.0, 10.0, 2.0, 10.0]; // the lookups' sum, F, a message, F
    let output = [1.0, 3.0, 4.0, 5.0]; // the broadcast, S, both parts of C1
    let backward = [10.0, 2.0, 10.0, 1.0]; // B, a message, B, the broadcast to IB
    let expected: f64 = [forward, output, backward].iter().flatten().sum();
    assert!((makespan - expected).abs() < 1e-9, "{makespan} is not {expected}");
}

#[test]
fn compare_prints_aligned_columns_for_all_combinations_of_sizes() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    fs::write(path.join("own.sched"), "schedule \"own\" {\n    order F^* B^*\n}\n").unwrap();
    let costs = "--cost F=10,B=10,W=10,p2p=1,S=3";
    let words = "compare 1f1b interleaved:v=4 own.sched -p 2,4 -m 4,8 --with vocab-1";
    let done = schedc(path, &format!("{words} {costs}"));
    assert_eq!(done.code, 0, "{}", done.err);
    let lines: Vec<_> = done.out.lines().collect();
    assert_eq!(lines.len(), 1 + 3 * 4, "{}", done.out);
    assert!(lines.iter().all(|line| line.len() == lines[0].len()), "{}", done.out);
    let done = schedc(path, "compare 1f1b zb-h1 -p 4 -m 8 --json");
    let rows: serde_json::Value = serde_json::from_str(&done.out).unwrap();
    assert_eq!((rows[0]["schedule"].as_str(), rows[0]["makespan"].as_f64()), (Some("1f1b"), Some(33.0)));
    assert_eq!((rows[1]["schedule"].as_str(), rows[1]["makespan"].as_f64()), (Some("zb-h1"), Some(27.0)));
}

#[test]
fn compare_refuses_what_it_can_not_compare() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    schedc(path, "compare 1f1b interleaved:v= -p 2 -m 4").refused(2, &["schedc::cli::bad_parameter", "`v=`"]);
    schedc(path, "compare 1f1b interleaved:v=2,v=3 -p 2 -m 4").refused(2, &["schedc::cli::set_twice"]);
    schedc(path, "compare 1f1b --cost W=1,S=1 -p 2 -m 4").refused(1, &["schedc::cost::unknown_name", "`S`"]);
    schedc(path, "compare 1f1b --cost W=-1 -p 2 -m 4").refused(2, &["schedc::cost::negative"]);
    schedc(path, "compare 1f2b -p 2 -m 4").refused(1, &["did you mean `1f1b`"]);
    schedc(path, "compile 1f1b -p 2 -m 4 --cost V=1").refused(1, &["schedc::cost::unknown_name"]);
    schedc(path, "compile 1f1b -p 2 -m 4 -o one.plan");
    schedc(path, "compare one.plan -p 2 -m 4").refused(2, &["schedc::cli::already_a_plan"]);
    schedc(path, "run one.plan --cost F=2").refused(2, &["schedc::cli::contradiction", "fixed costs"]);
}
