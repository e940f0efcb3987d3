//! PyTorch's schedules: read, checked by every rule, written, and brought home as plans.

use std::fs;
use std::path::{Path, PathBuf};

use miette::{Diagnostic, GraphicalReportHandler, GraphicalTheme};
use proptest::prelude::*;
use schedc::cost::UNIT;
use schedc::driver::{Input, Job, compile, schedule};
use schedc::ir::{Dims, Mode, Schedule, Site};
use schedc::resolve::{Model, Partitioning};
use schedc::source::Sources;
use schedc::torch::{
    Channel, Form, Placement, Sound, Target, TorchError, Unsupported, WriteError, check, read, write,
};
use schedc::verify::Verified;

use crate::compiled::{SCHEDULES, forward_only, library, tiny};
use crate::differential::oracle;
use crate::orders::{Cell, library_schedule};

const CHANNELS: [(&str, Channel); 3] =
    [("gloo", Channel::Gloo), ("nccl", Channel::Nccl), ("rendezvous", Channel::Rendezvous)];

fn sound(name: &str, text: &[u8], channel: Channel) -> Result<Sound, Box<TorchError>> {
    read(name, text).and_then(|rows| check(rows, channel, None))
}

fn codes(error: &TorchError) -> Vec<String> {
    error.problems.iter().map(schedc::torch::Problem::name).collect()
}

fn rendered(diagnostic: &dyn Diagnostic) -> String {
    let mut text = String::new();
    let handler = GraphicalReportHandler::new_themed(GraphicalTheme::unicode_nocolor()).with_width(110);
    handler.render_report(&mut text, diagnostic).unwrap();
    text.lines().map(str::trim_end).collect::<Vec<_>>().join("\n")
}

fn csv_files(folder: &Path) -> Vec<PathBuf> {
    let files = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<_> = files.filter(|path| path.extension().is_some_and(|kind| kind == "csv")).collect();
    files.sort();
    assert!(!files.is_empty());
    files
}

fn stem(path: &Path) -> String {
    path.file_stem().unwrap().to_string_lossy().into_owned()
}

#[test]
fn every_broken_file_is_refused_with_the_code_that_it_is_named_for() {
    for path in csv_files(Path::new("tests/ui/torch")) {
        let stem = stem(&path);
        let (code, variant) = stem.split_once('@').unwrap_or((&stem, ""));
        let channel = CHANNELS.iter().find(|(word, _)| variant.ends_with(word));
        let channel = channel.map_or(Channel::Gloo, |&(_, channel)| channel);
        let placement = (code == "misplaced").then_some(Placement::V);
        let checked = read(&format!("{stem}.csv"), &fs::read(&path).unwrap())
            .and_then(|rows| check(rows, channel, placement));
        let error = checked.map(|_| ()).expect_err(&stem);
        assert!(codes(&error).contains(&format!("schedc::torch::{code}")), "{stem}: {:?}", codes(&error));
        insta::with_settings!({
            snapshot_path => "../ui/torch",
            prepend_module_to_snapshot => false,
            omit_expression => true,
        }, { insta::assert_snapshot!(stem, rendered(&*error)) });
    }
}

/// What is refused on one channel is safe on a laxer one.
#[test]
fn a_deadlock_depends_on_the_channel() {
    let verdicts = |name: &str| {
        let text = fs::read(format!("tests/ui/torch/{name}.csv")).unwrap();
        CHANNELS.map(|(_, channel)| sound(name, &text, channel).is_ok())
    };
    assert_eq!(verdicts("deadlock@gloo"), [false, false, false]);
    assert_eq!(verdicts("deadlock@nccl"), [true, false, false]);
    assert_eq!(verdicts("deadlock@rendezvous"), [true, false, false]);
    assert_eq!(verdicts("deadlock@compute_nccl"), [false, false, false]);
}

/// A receive may be posted before other passes, but where messages queue up not before the send that its own message waits for.
#[test]
fn an_early_receive_is_safe_where_the_messages_of_both_ranks_stay_in_one_order() {
    let early = "0F0,0SEND_F0,0RECV_B0,0F1,0WAIT_SEND_F0,0B0,0SEND_F1,0RECV_B1,0B1,0WAIT_SEND_F1,0REDUCE_GRAD,0WAIT_REDUCE_GRAD\n\
                 1RECV_F0,1F0,1B0,1SEND_B0,1RECV_F1,1F1,1B1,1SEND_B1,1REDUCE_GRAD,1WAIT_REDUCE_GRAD,1WAIT_SEND_B0,1WAIT_SEND_B1\n";
    for (name, channel) in CHANNELS {
        assert!(sound("early", early.as_bytes(), channel).is_ok(), "{name}");
    }
    // Posted before the pass whose output its own message waits for.
    let earlier = early
        .replace("0SEND_F0,0RECV_B0,0F1", "0SEND_F0,0RECV_B0,0RECV_B1,0F1")
        .replace("0SEND_F1,0RECV_B1", "0SEND_F1");
    assert_eq!(
        CHANNELS.map(|(_, channel)| sound("earlier", earlier.as_bytes(), channel).is_ok()),
        [true, false, false]
    );
}

#[test]
fn every_good_file_is_accepted_on_every_channel() {
    let Some(folder) = oracle("torch") else { return };
    let files = csv_files(&folder);
    assert_eq!(files.len(), 28);
    for path in files {
        for (name, channel) in CHANNELS {
            let text = fs::read(&path).unwrap();
            let sound = sound(&stem(&path), &text, channel);
            let sound = sound.unwrap_or_else(|error| panic!("{name}: {}", rendered(&*error)));
            let v = ["DualPipeV", "ZBV"].iter().any(|name| stem(&path).starts_with(name));
            assert_eq!(sound.placement(), Some(if v { Placement::V } else { Placement::Loop }), "{path:?}");
        }
    }
}

#[test]
fn every_fault_has_its_verdict() {
    let Some(folder) = oracle("torch-faults") else { return };
    let table = fs::read_to_string(folder.join("EXPECTED.csv")).unwrap();
    let expected_code = |verdict: &str| match verdict {
        "accept" => None,
        "refuse: a send without its wait" => Some("schedc::torch::unwaited_send"),
        "refuse: gradients never reduced" => Some("schedc::torch::unreduced"),
        "refuse: a receive without its send" => Some("schedc::torch::missing_send"),
        "refuse: receives out of order with the sends" => Some("schedc::torch::receive_order"),
        "refuse: deadlock" => Some("schedc::torch::deadlock"),
        "refuse: text behind an action" => Some("schedc::torch::trailing_text"),
        other => panic!("unknown verdict {other}"),
    };
    let rows: Vec<_> = table.lines().skip(1).map(|row| row.split_once(',').unwrap()).collect();
    assert_eq!(rows.len(), 8);
    for (file, verdict) in rows {
        let text = fs::read(folder.join(file)).unwrap();
        for (_, channel) in CHANNELS {
            let found = sound(file, &text, channel).err().map(|error| codes(&error)[0].clone());
            assert_eq!(found.as_deref(), expected_code(verdict), "{file}");
        }
    }
}

/// One cell less of a file with messages is always noticed; but for FSDP's last `RESHARD`, which only frees memory.
#[test]
fn a_file_without_any_one_of_its_cells_is_refused() {
    let text = export("1f1b", 3, 4, Form::Comms);
    let rows: Vec<Vec<&str>> = text.lines().map(|row| row.split(',').collect()).collect();
    for (at, row) in rows.iter().enumerate() {
        for cell in 0..row.len() {
            let mut broken = rows.clone();
            let removed = broken[at].remove(cell);
            let broken = broken.iter().map(|row| row.join(",") + "\n").collect::<String>();
            let verdict = sound("broken", broken.as_bytes(), Channel::Gloo);
            assert_eq!(verdict.is_ok(), removed.ends_with("RESHARD"), "without {removed} in row {at}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever a file holds, reading and checking it ends with a verdict that can be shown.
    #[test]
    fn any_file_gets_a_verdict(edits in prop::collection::vec((0_usize..4000, "[0-9FIWBSENDRCV_;,()é世\n]{0,6}"), 0..6)) {
        let mut text = export("dualpipe-v", 2, 4, Form::Comms);
        for (at, edit) in edits {
            let at = text.floor_char_boundary(at % text.len());
            let end = text.ceil_char_boundary((at + edit.len() / 2).min(text.len()));
            text.replace_range(at..end, &edit);
        }
        for (_, channel) in CHANNELS {
            if let Err(error) = sound("edited", text.as_bytes(), channel) {
                assert!(rendered(&*error).contains("schedc::torch::"));
            }
        }
    }
}

fn export(schedule: &str, ranks: u32, microbatches: u32, form: Form) -> String {
    let plan = library(schedule, None, ranks, microbatches, tiny(2 * ranks, false));
    write(&plan, Target::Torch2_15, form).unwrap_or_else(|error| panic!("{schedule}: {error:?}"))
}

/// The passes of a schedule, a row for each rank, with whether each overlaps the next.
fn cells(schedule: &Schedule) -> Vec<Vec<(Cell, bool)>> {
    let cell = |placed: &schedc::ir::Placed| {
        let Site::Stage(stage) = placed.pass.site else { panic!("passes at stages only") };
        let letter = schedule.catalog.kind(placed.pass.kind).name.chars().next().unwrap();
        ((letter, stage.index(), placed.pass.microbatch.index()), placed.overlaps)
    };
    schedule.orders.iter().map(|order| order.iter().map(cell).collect()).collect()
}

fn job<'a>(sound: &'a Sound, with: &'a [String], mode: Mode) -> Job<'a> {
    let dims = tiny(1, false);
    Job {
        input: Input::Torch(sound),
        with,
        set: &[],
        ranks: sound.rows().ranks() as u32,
        microbatches: sound.microbatches(),
        model: Model { layers: None, dims, partition: Partitioning::Uniform },
        costs: &UNIT,
        retime: None,
        mode,
    }
}

fn brought_home(name: &str, text: &[u8]) -> Schedule {
    let sound = sound(name, text, Channel::Gloo).unwrap_or_else(|error| panic!("{}", rendered(&*error)));
    schedule(&job(&sound, &[], Mode::Training), &mut Sources::default())
        .unwrap_or_else(|errors| panic!("{name}: {errors:?}"))
}

/// What the target can't express, by the library's name.
const REFUSED: [&str; 3] = ["seq1f1b", "chimera", "dualpipe"];

#[test]
fn a_schedule_written_for_pytorch_in_either_form_comes_back_the_same() {
    for name in SCHEDULES.iter().filter(|name| !REFUSED.contains(name)) {
        for (p, m) in [(2, 3), (3, 4), (4, 8)] {
            let own = cells(&library_schedule(name, &[], p, m));
            for form in [Form::Compute, Form::Comms] {
                let text = export(name, p, m, form);
                let back = brought_home(name, text.as_bytes());
                assert_eq!(cells(&back), own, "{name} p={p} m={m} as {form}");
            }
        }
    }
}

#[test]
fn exports_equal_pytorchs_own_files_pass_by_pass() {
    let Some(folder) = oracle("torch") else { return };
    let pairs = [
        ("gpipe", "GPipe", ""),
        ("1f1b", "1F1B", ""),
        ("interleaved", "Interleaved1F1B", "_v2"),
        ("looped-bfs", "LoopedBFS", "_v2"),
        ("dualpipe-v", "DualPipeV", "_v2"),
    ];
    for (ours, theirs, chunks) in pairs {
        for (p, m) in [(2, 4), (4, 8)] {
            for (form, word) in [(Form::Compute, "compute"), (Form::Comms, "comms")] {
                let name = format!("{theirs}_p{p}_m{m}{chunks}.{word}.csv");
                let torch = brought_home(&name, &fs::read(folder.join(&name)).unwrap());
                let own = brought_home(ours, export(ours, p, m, form).as_bytes());
                assert_eq!(cells(&own), cells(&torch), "{ours} against {name}");
            }
        }
    }
}

/// GPipe's and 1F1B's compute cells are the same to the letter.
#[test]
fn plain_exports_equal_pytorchs_own_files_cell_by_cell() {
    let Some(folder) = oracle("torch") else { return };
    for (ours, theirs) in [("gpipe", "GPipe"), ("1f1b", "1F1B")] {
        for (p, m) in [(2, 4), (4, 8)] {
            let file = fs::read_to_string(folder.join(format!("{theirs}_p{p}_m{m}.compute.csv"))).unwrap();
            assert_eq!(export(ours, p, m, Form::Compute), file.replace("\r\n", "\n"));
        }
    }
}

fn refusals(plan: &Verified) -> Vec<String> {
    match write(plan, Target::Torch2_15, Form::Comms) {
        Err(WriteError::Unsupported(reasons)) => {
            let code = |reason: &Unsupported| reason.code().unwrap().to_string();
            reasons.iter().map(|reason| format!("{}: {reason}", code(reason))).collect()
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_pytorch_has_no_word_for_is_refused_by_name() {
    let model = tiny(4, false);
    let one = |plan: &Verified, code: &str, words: &str| {
        let reasons = refusals(plan);
        assert!(
            reasons.len() == 1 && reasons[0].starts_with(code) && reasons[0].contains(words),
            "{reasons:?}"
        );
    };
    let vocab = library("1f1b", Some("vocab-2"), 2, 4, model);
    one(&vocab, "schedc::torch::no_such_pass", "`S`, `C1`, `T`");
    one(&vocab, "schedc::torch::no_such_pass", "of vocab-2");
    one(&library("dualpipe", None, 2, 4, model), "schedc::torch::two_copies", "`dualpipe`");
    one(&library("seq1f1b", None, 2, 4, model), "schedc::torch::sliced", "2 slices");
    one(&forward_only("1f1b", None, 2, 4, model), "schedc::torch::forward_only", "forwards only");
    one(&library("1f1b", None, 2, 4, tiny(4, true)), "schedc::torch::no_collective", "tied embedding");
    // There and back, both ends of the model are on one rank, which needs no collective.
    write(&library("zb-v", None, 2, 4, tiny(4, true)), Target::Torch2_15, Form::Comms).unwrap();
}

fn compiled(text: &str) -> Verified {
    let model = Model { layers: None, dims: tiny(1, false), partition: Partitioning::Uniform };
    let job = Job {
        input: Input::File { name: "own.sched", bytes: text.as_bytes(), schedule: None },
        with: &[],
        set: &[],
        ranks: 2,
        microbatches: 3,
        model,
        costs: &UNIT,
        retime: None,
        mode: Mode::Training,
    };
    compile(&job, &mut Sources::default()).unwrap_or_else(|errors| panic!("{errors:?}"))
}

#[test]
fn a_need_that_pytorch_cannot_meet_is_refused_by_name() {
    let skip = "pass G at stage computes stage_forward needs G(prev) gives x makes act\n\
                pass H at stage computes stage_backward needs G, G(first), H(next) gives dx frees act\n\
                schedule \"skip\" {\n    passes G, H\n    order G^* H^*\n}\n";
    let reasons = refusals(&compiled(skip));
    assert!(reasons[0].starts_with("schedc::torch::no_such_need"), "{reasons:?}");
    let plain = compiled(&skip.replace(", G(first)", "").replace("skip", "plain"));
    assert!(write(&plain, Target::Torch2_15, Form::Compute).is_ok());
}

#[test]
fn an_order_that_pytorchs_losses_forbid_is_not_written() {
    let plan = compiled("schedule \"last-first\" {\n    stream F by -microbatch\n    order F^* B^*\n}\n");
    let Err(WriteError::Unsound(error)) = write(&plan, Target::Torch2_15, Form::Comms) else {
        panic!("the last stage's forwards come in the wrong order")
    };
    assert_eq!(codes(&error)[0], "schedc::torch::forward_order");
}

#[test]
fn uneven_stages_verify_but_make_no_plan() {
    let text = "0F0,1F0,1B0,0B0\n2F0,2B0\n";
    let sound = sound("uneven", text.as_bytes(), Channel::Nccl).unwrap();
    assert_eq!(sound.stages(), [0, 0, 1]);
    let errors = schedule(&job(&sound, &[], Mode::Training), &mut Sources::default()).expect_err("uneven");
    assert_eq!(errors[0].code().unwrap().to_string(), "schedc::torch::uneven_stages");
}

#[test]
fn a_foreign_schedule_takes_transforms_and_a_forward_only_twin() {
    let Some(folder) = oracle("torch") else { return };
    for path in csv_files(&folder) {
        let sound = sound(&stem(&path), &fs::read(&path).unwrap(), Channel::Gloo).unwrap();
        for with in [vec![], vec!["vocab-2".to_owned()]] {
            for mode in [Mode::Training, Mode::ForwardOnly] {
                let plan = compile(&job(&sound, &with, mode), &mut Sources::default());
                assert!(plan.is_ok(), "{path:?} with {with:?}: {plan:?}");
            }
        }
    }
}

/// Torch's `1F1B` brought home is ours: the same plan but for its name.
#[test]
fn a_foreign_1f1b_makes_the_plan_of_the_library() {
    let Some(folder) = oracle("torch") else { return };
    let text = fs::read(folder.join("1F1B_p4_m8.comms.csv")).unwrap();
    let sound = sound("1F1B", &text, Channel::Nccl).unwrap();
    let dims = Dims { layers: 4, ..tiny(4, false) };
    let mut foreign = compile(
        &Job {
            model: Model { layers: Some(4), dims, partition: Partitioning::Uniform },
            ..job(&sound, &[], Mode::Training)
        },
        &mut Sources::default(),
    )
    .unwrap_or_else(|errors| panic!("{errors:?}"))
    .into_plan();
    let own = library("1f1b", None, 4, 8, dims).into_plan();
    foreign.header.name.clone_from(&own.header.name);
    assert!(foreign == own);
}
