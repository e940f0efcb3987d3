//! Recorded runs as profiles: what passes of other contents take by them, and what cannot be told.

use miette::Diagnostic;
use schedc::cost::{CostError, CostSpec, Costs, Profile};
use schedc::ir::{At, Compute, Dims, Header, Kind, Microbatch, Pass, Precision, Rank, Site, Stage};
use schedc::simulate::{Known, Report};
use schedc::verify::Verified;

use crate::cli::schedc;
use crate::compiled::{forward_only, library};

const MODEL: Dims = Dims {
    layers: 8,
    hidden: 256,
    heads: 8,
    sequence: 256,
    batch: 1,
    vocab: 4096,
    tied: false,
    precision: Precision::F32,
};

/// What a machine takes for each part, in microseconds: of a layer, of the whole vocabulary, of a token's row, of a parameter.
struct Machine {
    layer: [f64; 3],
    logits: f64,
    quotient: f64,
    output: [f64; 2],
    lookup: f64,
    scatter: f64,
    parameter: f64,
}

const MACHINE: Machine = Machine {
    layer: [8000.0, 10000.0, 7000.0],
    logits: 10000.0,
    quotient: 500.0,
    output: [9000.0, 8500.0],
    lookup: 30.0,
    scatter: 25.0,
    parameter: 0.002,
};

impl Machine {
    /// What a pass takes at the i-th of its sites.
    fn pass(&self, header: &Header, kind: &Kind, site: usize) -> f64 {
        let Self { layer, logits, quotient, output, lookup, scatter, .. } = *self;
        let sharded = [header.catalog.shards_input(), header.catalog.shards_output()];
        let depth = header.depth() as usize;
        let place = site % depth;
        let layers = if kind.at == At::Stage {
            f64::from(header.layers_of(Stage(place as u32)).len() as u32)
        } else {
            0.0
        };
        let when = |there: bool, time: f64| if there { time } else { 0.0 };
        let first = place == 0 && !sharded[0];
        let last = place + 1 == depth && !sharded[1];
        let part = |time: f64| time / f64::from(header.ranks());
        let input = || layers * layer[1] + when(first, scatter) + when(last, output[0]);
        let weights = || layers * layer[2] + when(last, output[1]);
        let slices = f64::from(header.cut().slices);
        let time = match kind.computes.unwrap() {
            Compute::StageForward => layers * layer[0] + when(first, lookup) + when(last, logits + quotient),
            Compute::StageInputGrad => input(),
            Compute::StageWeightGrad => weights(),
            Compute::StageBackward => input() + weights(),
            Compute::OutputSoftmax => part(logits),
            Compute::OutputSoftmaxGrad => part(logits + output[0]),
            Compute::OutputGrad => part(quotient + output[0] + output[1]),
            Compute::OutputWeightGrad => part(quotient + output[1]),
            Compute::InputLookup => lookup,
            Compute::InputScatter => scatter,
            _ => 0.0,
        };
        time / slices
    }
}

/// A run of a plan on that machine, as `schedc run --trace` would write it: two steps after a first one that took ten times as long. Ranks
/// come one after the other, so that they do not get in each other's way.
fn recorded(plan: &Verified, machine: &Machine, parameters: &[u64]) -> String {
    let header = &plan.header;
    let mut events = Vec::new();
    let mut now = 0.0;
    for step in 1..=3 {
        let slower = if step == 1 { 10.0 } else { 1.0 };
        let mut event = |cat: &str, name: &str, rank: u32, site: usize, took: f64| {
            let took = took * slower;
            events.push(format!(
                "{{\"name\":\"{name}\",\"cat\":\"{cat}\",\"ph\":\"X\",\"ts\":{now},\"dur\":{took},\"pid\":{rank},\"tid\":0,\"args\":{{\"kind\":\"{name}\",\"site\":{site},\"step\":{step}}}}}"
            ));
            now += took;
        };
        for kind in &header.catalog.kinds {
            let sites = if kind.at == At::Stage { header.stages.len() } else { plan.ranks.len() };
            for site in 0..sites {
                let rank = if kind.at == At::Stage { header.stages[site].0 } else { site as u32 };
                event("pass", &kind.name, rank, site, machine.pass(header, kind, site));
            }
        }
        for (rank, &held) in parameters.iter().enumerate() {
            #[allow(clippy::cast_precision_loss, reason = "a few millions")]
            event("step", "step", rank as u32, 0, machine.parameter * held as f64);
        }
    }
    let kind = |kind: &Kind| {
        let computes = kind.computes.map_or("null".to_owned(), |computes| format!("\"{computes}\""));
        format!(
            "{{\"name\":\"{}\",\"at_stage\":{},\"computes\":{computes}}}",
            kind.name,
            kind.at == At::Stage
        )
    };
    let kinds: Vec<String> = header.catalog.kinds.iter().map(kind).collect();
    let stages: Vec<u32> = header.stages.iter().map(|rank| rank.0).collect();
    let layers: Vec<usize> =
        Stage::all(header.depth() as usize).map(|place| header.layers_of(place).len()).collect();
    let model = serde_json::to_string(&header.model).unwrap();
    format!(
        "{{\"schedc\":{{\"ranks\":{},\"microbatches\":8,\"slices\":{},\"stages\":{stages:?},\"measured\":true,\"first\":1,\
         \"model\":{model},\"flows\":{},\"layers\":{layers:?},\"kinds\":[{}]}},\"traceEvents\":[{}]}}",
        plan.ranks.len(),
        header.cut().slices,
        header.flows,
        kinds.join(","),
        events.join(",")
    )
}

/// The parameters of both ranks of a plan without copies: half of the layers, one table or half of both, positions or the last norm.
const PARAMETERS: [u64; 2] = [4 * 789_760 + 4096 * 256 + 256 * 256, 4 * 789_760 + 4096 * 256 + 2 * 256];

fn profiled(schedule: &str, with: Option<&str>) -> CostSpec {
    let plan = library(schedule, with, 2, 8, MODEL);
    let trace = recorded(&plan, &MACHINE, &PARAMETERS);
    CostSpec::default()
        .with_profile(Profile::parse("trace.json", &trace).map_err(miette::Report::new).unwrap())
}

fn cost(costs: &Costs, header: &Header, kind: &Kind, site: usize) -> f64 {
    let kind = header.catalog.kind_named(&kind.name).unwrap();
    let at = header.catalog.kind(kind).at;
    let site = if at == At::Stage { Site::Stage(Stage::new(site)) } else { Site::Rank(Rank::new(site)) };
    costs.in_units(costs.pass(Pass { kind, site, microbatch: Microbatch(0) }))
}

/// How far the passes of a schedule are from what the machine takes, at worst, as a part of it.
fn worst(profile: &CostSpec, schedule: &str, with: Option<&str>) -> f64 {
    let plan = library(schedule, with, 2, 8, MODEL);
    let header = &plan.header;
    let costs = profile.bind_plan(header).unwrap();
    let mut worst: f64 = 0.0;
    for kind in &header.catalog.kinds {
        let sites = if kind.at == At::Stage { header.stages.len() } else { 2 };
        for site in 0..sites {
            let takes = MACHINE.pass(header, kind, site);
            let off = (cost(&costs, header, kind, site) - takes).abs();
            worst = worst.max(if takes > 100.0 { off / takes } else { off / 1e5 });
        }
    }
    worst
}

const OTHERS: [(&str, Option<&str>); 14] = [
    ("gpipe", None),
    ("1f1b", None),
    ("zb-h1", None),
    ("interleaved", None),
    ("zb-v", None),
    ("v-half", None),
    ("hanayo", None),
    ("chimera", None),
    ("dualpipe-v", None),
    ("1f1b", Some("vocab-1")),
    ("1f1b", Some("vocab-2")),
    ("v-half", Some("vocab-1")),
    ("zb-v", Some("vocab-2")),
    ("1f1b", Some("interlaced")),
];

/// The four parts of the output layer come in two passes here and in three there: two of them are told apart by operations alone.
#[test]
fn what_was_measured_under_one_schedule_predicts_every_other() {
    for (schedule, with) in [("zb-h1", Some("vocab-1")), ("zb-h1", Some("vocab-2")), ("zb-h1", None)] {
        let profile = profiled(schedule, with);
        for (other, transform) in OTHERS {
            let off = worst(&profile, other, transform);
            assert!(off < 0.08, "{other} {transform:?} by {schedule} {with:?}: off by {off}");
        }
    }
}

/// Layers, and the output layer as one, are known to the digit.
#[test]
fn a_part_that_has_passes_of_its_own_is_known_exactly() {
    let profile = profiled("zb-h1", Some("vocab-1"));
    for (other, with) in [("1f1b", Some("vocab-1")), ("v-half", Some("vocab-1")), ("zb-h1", Some("vocab-1"))]
    {
        let off = worst(&profile, other, with);
        assert!(off < 1e-4, "{other} {with:?}: off by {off}");
    }
    let plain = library("1f1b", None, 2, 8, MODEL);
    let costs = profile.bind_plan(&plain.header).unwrap();
    let forward = &plain.header.catalog.kinds[0];
    assert!((cost(&costs, &plain.header, forward, 0) / 32_030.0 - 1.0).abs() < 1e-4);
}

/// One backward for both gradients does not say which takes how long; together they are what was measured.
#[test]
fn a_fused_backward_is_split_by_operations() {
    let profile = profiled("1f1b", None);
    let split = library("zb-h1", None, 2, 8, MODEL);
    let costs = profile.bind_plan(&split.header).unwrap();
    let kinds = &split.header.catalog.kinds;
    let times = ["B", "W"].map(|name| {
        let kind = kinds.iter().find(|kind| kind.name == name).unwrap();
        cost(&costs, &split.header, kind, 0)
    });
    let whole = 4.0 * (MACHINE.layer[1] + MACHINE.layer[2]) + MACHINE.scatter;
    assert!(((times[0] + times[1]) / whole - 1.0).abs() < 1e-3, "{times:?}");
    assert!(times[0] > times[1] && times[1] > 0.3 * whole, "{times:?}");
    for (other, with) in [("gpipe", None), ("interleaved", None), ("chimera", None)] {
        let off = worst(&profile, other, with);
        assert!(off < 5e-3, "{other}: off by {off}");
    }
}

#[test]
fn the_output_layer_of_a_last_stage_is_not_forgotten() {
    let sharded = profiled("zb-h1", Some("vocab-1"));
    let plan = library("1f1b", None, 2, 8, MODEL);
    let costs = sharded.bind_plan(&plan.header).unwrap();
    let forward = &plan.header.catalog.kinds[0];
    let [first, last] = [0, 1].map(|stage| cost(&costs, &plan.header, forward, stage));
    assert!(last - first > 10_000.0, "{first} {last}");
}

#[test]
fn the_optimizer_ends_the_step_of_the_slowest_rank() {
    let profile = profiled("zb-h1", Some("vocab-1"));
    let plan = library("gpipe", None, 2, 8, MODEL);
    let costs = profile.bind_plan(&plan.header).unwrap();
    let report = Report::of(&plan, &costs, &Known::default());
    #[allow(clippy::cast_precision_loss, reason = "a few millions")]
    let update = PARAMETERS.map(|held| held as f64 * MACHINE.parameter);
    // Rank 0 has the last pass.
    assert!((report.step - report.makespan - update[0]).abs() < 1.0, "{} {}", report.step, report.makespan);
    let evaluation = forward_only("gpipe", None, 2, 8, MODEL);
    let costs = profile.bind_plan(&evaluation.header).unwrap();
    let report = Report::of(&evaluation, &costs, &Known::default());
    assert!((report.step - report.makespan).abs() < 1e-9);
}

fn code(error: &dyn Diagnostic) -> String {
    error.code().unwrap().to_string()
}

#[test]
fn a_profile_of_another_model_is_refused_by_name() {
    let profile = profiled("1f1b", None);
    for (dims, flag) in [
        (Dims { hidden: 128, ..MODEL }, "--hidden 256"),
        (Dims { heads: 4, ..MODEL }, "--heads 8"),
        (Dims { sequence: 128, ..MODEL }, "--seq 256"),
    ] {
        let plan = library("1f1b", None, 2, 8, dims);
        let error = profile.bind_plan(&plan.header).unwrap_err();
        assert_eq!(code(&error), "schedc::cost::other_model");
        assert!(error.help().unwrap().to_string().contains(flag), "{error}");
        assert!(error.labels().unwrap().next().is_some() && error.source_code().is_some());
    }
    // What takes in proportion is no other model.
    for dims in [Dims { layers: 12, ..MODEL }, Dims { vocab: 8192, ..MODEL }, Dims { batch: 2, ..MODEL }] {
        let plan = library("1f1b", Some("vocab-2"), 2, 8, dims);
        assert!(profile.bind_plan(&plan.header).is_ok());
    }
}

#[test]
fn what_was_not_measured_in_any_pass_is_missing() {
    let plan = forward_only("1f1b", None, 2, 8, MODEL);
    let profile = CostSpec::default()
        .with_profile(Profile::parse("trace.json", &recorded(&plan, &MACHINE, &[0, 0])).unwrap());
    let trained = library("1f1b", None, 2, 8, MODEL);
    let error = profile.bind_plan(&trained.header).unwrap_err();
    assert!(matches!(&error, CostError::MissingPass { pass, .. } if pass == "B"), "{error}");
    assert_eq!(code(&error), "schedc::cost::missing_pass");
}

#[test]
fn a_file_that_does_not_say_what_was_computed_is_no_profile() {
    let plan = library("1f1b", None, 2, 8, MODEL);
    let whole = recorded(&plan, &MACHINE, &[0, 0]);
    let refused = |text: &str, why: &str| {
        let error = Profile::parse("trace.json", text).unwrap_err();
        assert_eq!(code(&error), "schedc::cost::not_a_trace", "{error}");
        assert!(error.to_string().contains(why), "{error}");
    };
    let changed = |from: &str, to: &str| {
        assert!(whole.contains(from), "{from}");
        whole.replace(from, to)
    };
    refused(&changed("\"model\"", "\"modell\""), "of which model");
    refused(&changed("\"measured\":true", "\"measured\":false"), "a prediction");
    refused(&changed("\"flows\":1", "\"flows\":0"), "cannot be");
    refused(&changed("\"layers\":[4, 4]", "\"layers\":[8]"), "cannot be");
    refused(&changed("\"stages\":[0, 1]", "\"stages\":[0, 7]"), "cannot be");
    refused(&changed("\"ranks\":2", "\"ranks\":4294967295"), "cannot be");
    refused(&changed("\"site\":1", "\"site\":5"), "no site 5");
    refused(&changed("\"kind\":\"F\"", "\"kind\":\"G\""), "what `G` is");
    refused(&changed("\"dur\":32030", "\"dur\":-1"), "takes -1");
    refused(&changed("\"step\":2", "\"step\":1").replace("\"step\":3", "\"step\":1"), "only the first step");
}

#[test]
fn noise_is_averaged_and_what_is_absurd_left_out() {
    let mut events = Vec::new();
    let mut now = 0.0;
    for (step, forward) in [(2, 100.0), (3, 100.0), (4, 160.0), (5, 9000.0)] {
        for (name, site, dur) in [("F", 0, forward), ("F", 1, 100.0), ("B", 0, 200.0), ("B", 1, 200.0)] {
            events.push(format!(
                "{{\"name\":\"{name}\",\"cat\":\"pass\",\"ph\":\"X\",\"ts\":{now},\"dur\":{dur},\"pid\":{site},\"tid\":0,\"args\":{{\"site\":{site},\"step\":{step}}}}}"
            ));
            now += dur;
        }
    }
    let plan = library("gpipe", None, 2, 4, MODEL);
    let head = recorded(&plan, &MACHINE, &[0, 0]);
    let head = &head[..head.find("\"traceEvents\"").unwrap()];
    let text = format!("{head}\"traceEvents\":[{}]}}", events.join(","));
    let spec = CostSpec::default().with_profile(Profile::parse("trace.json", &text).unwrap());
    let costs = spec.bind_plan(&plan.header).unwrap();
    let forward = &plan.header.catalog.kinds[0];
    assert!((cost(&costs, &plan.header, forward, 0) - 120.0).abs() < 1e-3);
}

/// A rank that takes 100 µs alone and 150 beside another is found out, and slows others down as much.
#[test]
fn ranks_that_slow_each_other_down_do_so_in_the_prediction() {
    let plan = library("gpipe", None, 2, 4, MODEL);
    let head = recorded(&plan, &MACHINE, &[0, 0]);
    let head = &head[..head.find("\"traceEvents\"").unwrap()];
    let mut events = Vec::new();
    let mut put = |name: &str, site: u32, ts: f64, dur: f64| {
        events.push(format!(
            "{{\"name\":\"{name}\",\"cat\":\"pass\",\"ph\":\"X\",\"ts\":{ts},\"dur\":{dur},\"pid\":{site},\"tid\":0,\"args\":{{\"site\":{site},\"step\":2}}}}"
        ));
    };
    for turn in 0..4 {
        let start = f64::from(turn) * 2000.0;
        // Alone, one after the other; then both at a time.
        put("F", 0, start, 100.0);
        put("F", 1, start + 100.0, 100.0);
        put("B", 0, start + 200.0, 200.0);
        put("B", 1, start + 400.0, 200.0);
        put("F", 0, start + 700.0, 150.0);
        put("F", 1, start + 700.0, 150.0);
        put("B", 0, start + 900.0, 300.0);
        put("B", 1, start + 900.0, 300.0);
    }
    let text = format!("{head}\"traceEvents\":[{}]}}", events.join(","));
    let spec = CostSpec::default().with_profile(Profile::parse("trace.json", &text).unwrap());
    let costs = spec.bind_plan(&plan.header).unwrap();
    let contention = costs.threads().unwrap();
    assert!((contention - 0.5).abs() < 1e-9, "{contention}");
    let report = Report::of(&plan, &costs, &Known::default());
    // F alone, three pairs of F at a time, F alone; the same of B.
    let expected = (100.0 + 3.0 * 150.0 + 100.0) * 3.0;
    assert!((report.makespan / expected - 1.0).abs() < 1e-2, "{} {expected}", report.makespan);
}

/// From the run to the three commands that take a profile.
#[test]
fn a_run_predicts_other_schedules_on_the_command_line() {
    let folder = tempfile::tempdir().unwrap();
    let run = |words: &str| schedc(folder.path(), words);
    let model = "-p 2 -m 2 --layers 4 --hidden 16 --heads 2 --seq 8 --vocab 256";
    let done = run(&format!("run zb-h1 --with vocab-1 {model} --steps 3 --trace prof.json"));
    assert_eq!(done.code, 0, "{}", done.err);
    for schedule in ["1f1b", "interleaved", "zb-v", "seq1f1b", "chimera", "1f1b --with vocab-2"] {
        let done = run(&format!("simulate {schedule} {model} --profile prof.json"));
        assert!(done.code == 0 && done.out.contains("step"), "{schedule}: {}{}", done.out, done.err);
    }
    let done = run(&format!("compare gpipe v-half {model} --profile prof.json"));
    assert!(done.code == 0 && done.out.contains("v-half"), "{}{}", done.out, done.err);
    let done = run(&format!("view prof.json hanayo {model} --profile prof.json -o both.svg"));
    assert_eq!(done.code, 0, "{}", done.err);
    // What is drawn again says as much as before.
    assert_eq!(run("view prof.json -o again.json").code, 0);
    let done = run(&format!("simulate gpipe {model} --profile again.json"));
    assert_eq!(done.code, 0, "{}", done.err);
    run("simulate 1f1b -p 2 -m 2 --profile prof.json")
        .refused(1, &["schedc::cost::other_model", "--hidden 16"]);
    assert_eq!(run(&format!("run 1f1b {model} --steps 1 --trace one.json")).code, 0);
    run(&format!("simulate 1f1b {model} --profile one.json"))
        .refused(1, &["schedc::cost::not_a_trace", "only the first step"]);
}

#[test]
fn a_profile_is_measured_by_a_command_and_read_by_another() {
    let folder = tempfile::tempdir().unwrap();
    let model = "-p 2 -m 3 --layers 4 --hidden 32 --heads 2 --seq 16";
    let done =
        schedc(folder.path(), &format!("profile zb-h1 --with vocab-1 {model} --steps 2 --json -o prof.json"));
    assert_eq!(done.code, 0, "{}", done.err);
    let said: serde_json::Value = serde_json::from_str(&done.out).unwrap();
    assert_eq!(said["steps"], 2);
    // Two steps, three microbatches, two stages or ranks.
    for pass in ["F", "B", "W", "S", "T", "IF", "IB"] {
        assert_eq!(said["passes"][pass]["count"], 12, "{pass}");
        assert!(said["passes"][pass]["mean"].as_f64().unwrap() > 0.0, "{pass}");
    }
    // T: x, logits of half a vocabulary, the input's gradient, the statistics of both ranks.
    let words = 16 * (32 + 128 + 32) + 2 * 3 * 16;
    assert_eq!(said["vocabulary_bytes"], 4 * words);
    let simulated = schedc(folder.path(), &format!("simulate 1f1b {model} --profile prof.json --json"));
    assert_eq!(simulated.code, 0, "{}", simulated.err);
    let said: serde_json::Value = serde_json::from_str(&simulated.out).unwrap();
    assert!(said["step"].as_f64().unwrap() > said["makespan"].as_f64().unwrap());
    let shown = schedc(folder.path(), &format!("profile gpipe {model} --steps 1 -o other.json"));
    assert!(
        shown.out.starts_with("B ") && shown.out.contains("profile   other.json (1 steps)"),
        "{}",
        shown.out
    );
    schedc(folder.path(), &format!("profile gpipe {model} -o none/prof.json"))
        .refused(1, &["none/prof.json"]);
}
