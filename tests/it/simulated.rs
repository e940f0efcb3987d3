//! Costs, the simulator and `compare`: what the library's plans take, against the published generators and closed forms.

use std::fs;
use std::path::Path;

use proptest::prelude::*;
use schedc::cost::{CostSpec, UNIT};
use schedc::driver::{Input, Job, compile};
use schedc::ir::{InstrId, Lane, Rank};
use schedc::resolve::Model;
use schedc::simulate::{Timeline, activations, simulate};
use schedc::source::Sources;
use schedc::verify::Verified;

use crate::cli::schedc;
use crate::compiled::{SCHEDULES, TRANSFORMS, tiny};

/// A library schedule, compiled for costs and run under them.
fn timed(
    name: &str,
    with: Option<&str>,
    set: &[(&str, i64)],
    (p, m): (u32, u32),
    costs: &str,
) -> (Verified, Timeline, f64) {
    let spec = CostSpec::parse(costs).unwrap();
    let with: Vec<String> = with.iter().map(ToString::to_string).collect();
    let set: Vec<_> = set.iter().map(|&(name, value)| (name.to_owned(), value)).collect();
    let model = Model { layers: None, dims: tiny(1, false) };
    let job = Job {
        input: Input::Library(name),
        with: &with,
        set: &set,
        ranks: p,
        microbatches: m,
        model,
        costs: &spec,
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
    let folder = std::env::var_os("SCHEDC_ORACLES").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/oracles"),
        std::path::PathBuf::from,
    );
    let _ = folder;
    let Some(text) =
        crate::differential::oracle("schedules.csv").map(|file| fs::read_to_string(file).unwrap())
    else {
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

#[test]
fn the_library_takes_what_the_published_generators_take() {
    let pairs: [(&str, &[(&str, i64)], &str); 5] = [
        ("1f1b", &[], "1f1b"),
        ("interleaved", &[("v", 2)], "vpp2"),
        ("interleaved", &[("v", 4)], "vpp4"),
        ("zb-h1", &[], "zb1p"),
        ("zb-h2", &[], "zb2p"),
    ];
    let mut wrong = Vec::new();
    for (name, set, theirs) in pairs {
        for row in rows(theirs) {
            let at = |column: usize| row[column].parse::<f64>().unwrap();
            let size = (row[1].parse().unwrap(), row[2].parse().unwrap());
            let (plan, timeline, makespan) = timed(name, None, set, size, &costs_of(&row[3]));
            let peaks: Vec<f64> = row[12].split(' ').map(|peak| peak.parse().unwrap()).collect();
            let ours = (makespan, timeline.bubble(), timeline.span_bubble(), activations(&plan));
            let near = |ours: f64, theirs: f64| (ours - theirs).abs() < 0.000_06;
            let same = near(ours.0, at(5)) && near(ours.1, at(6)) && near(ours.2, at(8)) && ours.3 == peaks;
            if !same {
                wrong.push(format!(
                    "{name} {size:?} {}: {ours:?} against {:?}",
                    row[3],
                    (at(5), at(6), at(8), peaks)
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}
