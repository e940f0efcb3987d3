//! Every level's text of a few schedules: `tests/golden/<name>.sched`, each with its orders and its plan beside it.
//!
//! The first line says for which numbers, as in `tests/ui`. A new file is a new case.

use std::path::{Path, PathBuf};

use schedc::cost::UNIT;
use schedc::driver::{self, Input, Job};
use schedc::emit::{plan_hash, plan_json, plan_text};
use schedc::import::read_plan;
use schedc::ir::{Dims, Mode, Placed, Schedule, Site};
use schedc::resolve::{Model, Partitioning};
use schedc::source::Sources;

use crate::compiled::{SCHEDULES, TRANSFORMS, library, tiny};
use crate::support::Options;

fn cases() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<_> =
        files.filter(|path| path.extension().is_some_and(|ending| ending == "sched")).collect();
    files.sort();
    assert!(!files.is_empty());
    files
}

/// `F0`, `B.1:2`, `F0.1`: the kind, the chunk where a rank has several, the microbatch and, where it is cut, the slice.
fn word(schedule: &Schedule, placed: &Placed) -> String {
    let name = &schedule.catalog.kind(placed.pass.kind).name;
    let microbatch = schedule.shape.cut().name(placed.pass.microbatch).to_string().split_off(1);
    match placed.pass.site {
        Site::Stage(stage) if schedule.shape.chunks > 1 => {
            format!("{name}.{}:{microbatch}", schedule.shape.chunk_of(stage).0)
        }
        _ => format!("{name}{microbatch}"),
    }
}

fn orders(schedule: &Schedule) -> String {
    let row = |(rank, order): (usize, &Vec<Placed>)| {
        let words: Vec<_> = order.iter().map(|placed| word(schedule, placed)).collect();
        format!("r{rank}  {}\n", words.join(" "))
    };
    schedule.orders.iter().enumerate().map(row).collect()
}

#[test]
fn orders_and_plans_are_as_they_were() {
    for path in cases() {
        let stem = path.file_stem().unwrap().to_string_lossy().into_owned();
        let text = std::fs::read_to_string(&path).unwrap();
        let words =
            text.lines().next().and_then(|line| line.strip_prefix("//@")).expect("numbers on the first line");
        let options = Options::parse(words);
        let dims =
            Dims { layers: options.ranks, hidden: 4, heads: 2, sequence: 2, vocab: 8, ..options.model };
        let job = Job {
            input: Input::File { name: &stem, bytes: text.as_bytes(), schedule: None },
            with: &options.with,
            set: &options.set,
            ranks: options.ranks,
            microbatches: options.microbatches,
            model: Model { layers: Some(dims.layers), dims, partition: Partitioning::Uniform },
            costs: &UNIT,
            retime: None,
            mode: Mode::Training,
        };
        let schedule = driver::schedule(&job, &mut Sources::default()).unwrap();
        let plan = driver::compile(&job, &mut Sources::default()).unwrap();
        insta::with_settings!({
            snapshot_path => path.parent().unwrap(),
            prepend_module_to_snapshot => false,
            omit_expression => true,
        }, {
            insta::assert_snapshot!(format!("{stem}.schedule"), orders(&schedule));
            insta::assert_snapshot!(format!("{stem}.plan"), plan_text(&plan));
        });
    }
}

#[test]
fn both_forms_of_every_plan_read_back_as_the_same_plan() {
    for schedule in SCHEDULES {
        for with in TRANSFORMS {
            for (p, m, tied) in [(1, 2, true), (2, 3, true), (4, 5, false)] {
                let plan = library(schedule, with, p, m, tiny(3, tied));
                for text in [plan_text(&plan), plan_json(&plan)] {
                    let (again, _) = read_plan("plan", text.as_bytes()).unwrap();
                    assert_eq!(plan_hash(&again), plan_hash(&plan), "{schedule} with {with:?} p={p} m={m}");
                    assert!(again == *plan, "{schedule} with {with:?} p={p} m={m}");
                }
            }
        }
    }
}
