//! Errors of a run that no `.sched` file alone can cause, each by its code.

use std::fs;
use std::io;

use miette::Diagnostic;
use schedc::driver::Unsound;
use schedc::execute::ExecuteError;
use schedc::execute::backend::Backend;
use schedc::execute::check::{CheckReport, Difference};
use schedc::execute::interpreter::{Engine, Finish};
use schedc::execute::watchdog::Limits;
use schedc::ir::{Dims, Precision, Rank};
use schedc::verify::{Options, Verified, verify};

use crate::cli::{SMALL, schedc};
use crate::compiled::{library, one_f_one_b, tiny};
use crate::execute::{IDLE, batches};

/// The code of an error; what it says and advises is there and is one sentence.
fn code(error: &dyn Diagnostic) -> String {
    let (message, help) = (error.to_string(), error.help().expect("every error says what to do").to_string());
    assert!(!message.is_empty() && !help.is_empty() && !message.ends_with('.'), "{message}");
    error.code().expect("every error has a code").to_string()
}

/// What refuses an idle engine for a plan.
fn engine(plan: &Verified) -> String {
    let error = Engine::new(plan, |_| Ok(IDLE), &Limits::default()).expect_err("the plan can't be run");
    code(&error)
}

/// Runs a command on a small model; it must be refused with exit 1 and the code.
#[track_caller]
fn run(folder: &std::path::Path, words: &str, code: &str) {
    schedc(folder, &format!("run {words} {SMALL}")).refused(1, &[code]);
}

#[test]
fn an_unsound_plan_of_the_compilers_own_is_reported_as_a_bug() {
    let mut plan = one_f_one_b(2, 2, tiny(2, false)).into_plan();
    plan.ranks[0].peak.bytes.0 += 64;
    let unsound = Unsound::from(verify(plan, &Options::default()).expect_err("the peak is wrong"));
    assert_eq!(code(&unsound), "schedc::driver::unsound");
    assert_eq!(unsound.related().expect("it lists the rules").count(), 1);
}

#[test]
fn plans_that_the_interpreter_has_no_words_for_are_refused() {
    let mut plan = one_f_one_b(2, 2, tiny(2, false)).into_plan();
    plan.header.catalog.kinds[1].computes = None;
    assert_eq!(engine(&verify(plan, &Options::default()).unwrap()), "schedc::execute::no_compute");
    let mut plan = one_f_one_b(2, 2, tiny(2, false)).into_plan();
    "router".clone_into(&mut plan.header.catalog.classes[0].name);
    assert_eq!(engine(&verify(plan, &Options::default()).unwrap()), "schedc::execute::unknown_class");
    // The idle backend holds no tied embedding, so the sum of its gradient has another size than the plan says.
    assert_eq!(engine(&one_f_one_b(2, 2, tiny(2, true))), "schedc::execute::malformed");
}

#[test]
fn two_values_of_one_class_have_no_meaning() {
    let folder = tempfile::tempdir().unwrap();
    let text = "transform \"twice\" {
    pass IF at every rank  computes input_lookup  gives x
    barrier C = all_reduce IF.x
    F(first) needs reduce IF, C.x
    pass IB at every rank  computes input_scatter  needs broadcast B(first)
}
schedule \"own\" {
    apply \"twice\"
    order F^* B^*
}
";
    fs::write(folder.path().join("own.sched"), text).unwrap();
    run(folder.path(), "own.sched -p 2 -m 2", "schedc::execute::ambiguous_buffer");
}

#[test]
fn more_memory_than_there_is_is_refused_before_it_is_taken() {
    let folder = tempfile::tempdir().unwrap();
    let huge = "run gpipe -p 1 -m 1 --hidden 1024 --heads 4 --vocab 4000000000 --seq 8";
    schedc(folder.path(), huge).refused(1, &["schedc::execute::too_large"]);
    let dims = Dims {
        layers: 1,
        hidden: 1 << 20,
        heads: 1,
        sequence: 1 << 20,
        batch: 1 << 8,
        vocab: 256,
        tied: false,
        precision: Precision::F32,
    };
    assert_eq!(engine(&one_f_one_b(1, 1, dims)), "schedc::execute::out_of_memory");
}

#[test]
fn the_cpu_computes_no_plan_in_bf16() {
    let packed = Dims { precision: Precision::Bf16, ..tiny(2, false) };
    assert_eq!(engine(&one_f_one_b(2, 2, packed)), "schedc::execute::bf16_on_cpu");
    let folder = tempfile::tempdir().unwrap();
    let line = "run 1f1b -p 2 -m 2 --precision bf16 --steps 1";
    schedc(folder.path(), line).refused(1, &["schedc::execute::bf16_on_cpu"]);
    schedc(folder.path(), "compile 1f1b -p 2 -m 2 --precision fp8").refused(2, &["write `f32` or `bf16`"]);
}

#[test]
fn the_cpu_runs_no_graph() {
    let folder = tempfile::tempdir().unwrap();
    schedc(folder.path(), "run 1f1b -p 2 -m 2 --graph").refused(1, &["schedc::cuda::graph_on_cpu"]);
}

#[test]
fn an_engine_that_failed_says_so() {
    let limits = Limits { drill: Some("r1@2=panic".parse().unwrap()), ..Limits::default() };
    let plan = one_f_one_b(2, 2, tiny(2, false));
    let mut engine = Engine::new(&plan, |_| Ok(IDLE), &limits).unwrap();
    let mut step = || code(&engine.step(0, batches(&plan.header.model, 2), Finish::Update).unwrap_err());
    assert_eq!(step(), "schedc::execute::rank_failed");
    assert_eq!(step(), "schedc::execute::ended");
}

#[test]
fn texts_that_cannot_be_trained_on_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("short"), "abc").unwrap();
    fs::File::create(folder.path().join("long")).unwrap().set_len((1 << 30) + 1).unwrap();
    for (words, code) in [
        ("--data missing", "schedc::execute::read"),
        ("--data .", "schedc::execute::read"),
        ("--data short", "schedc::execute::text_too_short"),
        ("--data long", "schedc::execute::text_too_long"),
        ("--vocab 200", "schedc::execute::vocab_too_small"),
        ("--steps 1 --dump no/such/folder/step", "schedc::execute::write"),
    ] {
        run(folder.path(), &format!("1f1b -p 2 -m 2 {words}"), code);
    }
}

#[cfg(not(feature = "bpe"))]
#[test]
fn byte_pairs_need_their_feature() {
    let folder = tempfile::tempdir().unwrap();
    run(folder.path(), "1f1b -p 2 -m 2 --tokenizer bpe --vocab 512", "schedc::execute::no_bpe");
}

#[cfg(feature = "bpe")]
#[test]
fn a_kept_vocabulary_that_is_damaged_is_refused() {
    let error = schedc::execute::tokenizer::Tokenizer::from_json("{", 512).unwrap_err();
    assert_eq!(code(&error), "schedc::execute::tokenizer");
}

#[test]
fn checkpoints_of_other_runs_and_damaged_ones_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let job = "1f1b -p 2 -m 2 --steps 2 --checkpoint kept";
    assert_eq!(schedc(folder.path(), &format!("run {job} {SMALL}")).code, 0);
    run(folder.path(), &format!("{job} --seed 1"), "schedc::execute::checkpoint_differs");
    let file = folder.path().join("kept/step-00000002/rank-001.safetensors");
    let bytes = fs::read(&file).unwrap();
    let (_, header) = safetensors::SafeTensors::read_metadata(&bytes).unwrap();
    let nothing: Vec<(String, safetensors::tensor::TensorView<'_>)> = Vec::new();
    let empty = safetensors::serialize(nothing, header.metadata().clone()).unwrap();
    fs::write(&file, empty).unwrap();
    run(folder.path(), job, "schedc::execute::checkpoint_damaged");
    fs::write(&file, "rubbish").unwrap();
    run(folder.path(), job, "schedc::execute::no_complete_checkpoint");
}

#[test]
fn places_that_cannot_be_written_are_refused_before_the_first_step() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("file"), "kept").unwrap();
    for (words, code) in [
        ("--checkpoint file", "schedc::execute::not_a_directory"),
        ("--checkpoint file/below", "schedc::execute::not_a_directory"),
        ("--dump no/such/folder/step", "schedc::execute::write"),
        ("--dump .", "schedc::execute::write"),
        ("--steps 0 --dump step", "schedc::execute::nothing_to_dump"),
        ("--forward-only --dump step", "schedc::execute::no_gradients"),
        ("--forward-only --checkpoint empty", "schedc::execute::nothing_to_evaluate"),
    ] {
        let done = schedc(folder.path(), &format!("run 1f1b -p 2 -m 2 --check {words} {SMALL}"));
        done.refused(1, &[code]);
        assert!(!done.out.contains("check"), "{words}: {}", done.out);
    }
    assert_eq!(fs::read_to_string(folder.path().join("file")).unwrap(), "kept");
    assert!(!folder.path().join("step").exists());
}

#[test]
fn a_run_that_diverges_ends_before_it_is_saved() {
    let folder = tempfile::tempdir().unwrap();
    let job = format!("run 1f1b -p 2 -m 2 --steps 9 --lr 1e9 --checkpoint kept {SMALL}");
    schedc(folder.path(), &job).refused(1, &["schedc::execute::diverged", "--lr"]);
    assert_eq!(fs::read_dir(folder.path().join("kept")).unwrap().count(), 0);
    for rate in ["1e20", "nan", "0", "inf"] {
        let done = schedc(folder.path(), &format!("run 1f1b -p 2 -m 2 --lr {rate}"));
        done.refused(2, &["larger than 0 and at most 1e9"]);
    }
}

#[test]
fn a_check_fails_by_number_and_by_bit() {
    let report = |relative: f64, bits_equal, bits_demanded| CheckReport {
        tolerance: schedc::execute::check::TOLERANCE,
        loss: 1.0,
        reference_loss: 1.0,
        tensors: vec![Difference { name: "layer.0.qkv".to_owned(), relative, bits_equal }],
        bits_demanded,
        arenas: Vec::new(),
    };
    let refused = |report: CheckReport| code(&report.verdict().expect_err("it differs"));
    assert!(report(1e-6, false, false).verdict().is_ok());
    assert_eq!(refused(report(1e-4, false, false)), "schedc::execute::check_failed");
    assert_eq!(refused(report(f64::NAN, false, false)), "schedc::execute::check_failed");
    assert_eq!(refused(report(1e-9, false, true)), "schedc::execute::check_bits");
}

/// What only a machine at its limits, or a backend without a loss, causes.
#[test]
fn errors_of_the_machine_say_what_to_do() {
    let source = io::Error::other("no more threads");
    assert_eq!(code(&ExecuteError::Thread { rank: Rank(3), source }), "schedc::execute::thread");
    let plan = library("1f1b", None, 1, 1, tiny(1, false));
    let mut engine = Engine::new(&plan, |_| Ok(IDLE), &Limits::default()).unwrap();
    assert!(engine.backends().all(|backend| backend.loss() == Some(0.0)));
    assert_eq!(code(&ExecuteError::NoLoss), "schedc::execute::no_loss");
}
