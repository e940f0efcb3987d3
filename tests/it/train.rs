//! Whole runs: data, tokenizers, checkpoints that survive a crash, the dump.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use safetensors::SafeTensors;
use schedc::execute::ExecuteError;
use schedc::execute::check::CheckReport;
use schedc::execute::checkpoint::Checkpoint;
use schedc::execute::data::{Corpus, Text};
use schedc::execute::model::Train;
use schedc::execute::tokenizer::{Tokenizer, TokenizerKind};
use schedc::execute::train::{Listener, Opening, Settings, Taken, parameters, train};
use schedc::execute::watchdog::Limits;
use schedc::ir::{Dims, Microbatch, Precision};
use schedc::verify::Verified;

use crate::compiled::{forward_only, one_f_one_b, tiny};

/// Keeps what a run says.
#[derive(Default)]
struct Notes {
    opening: Option<Opening>,
    losses: BTreeMap<u64, u64>,
    saved: Vec<PathBuf>,
    checks: Vec<CheckReport>,
}

impl Listener for Notes {
    fn checked(&mut self, report: &CheckReport) {
        self.checks.push(report.clone());
    }

    fn opened(&mut self, opening: &Opening) {
        self.opening = Some(opening.clone());
    }

    fn taken(&mut self, taken: &Taken) {
        self.losses.insert(taken.step, taken.loss.to_bits());
    }

    fn saved(&mut self, path: &Path) {
        self.saved.push(path.to_owned());
    }

    fn dumped(&mut self, _: &Path) {}
}

fn settings(steps: u64) -> Settings {
    Settings {
        steps,
        train: Train::default(),
        data: None,
        tokenizer: TokenizerKind::Bytes,
        check: false,
        checkpoint: None,
        checkpoint_every: 50,
        dump: None,
        record: 0,
        limits: Limits::default(),
        plan_hash: None,
    }
}

fn plan() -> Verified {
    one_f_one_b(2, 3, tiny(2, true))
}

fn kept(directory: &Path, steps: u64, every: u64) -> Notes {
    let mut notes = Notes::default();
    let settings =
        Settings { checkpoint: Some(directory.to_owned()), checkpoint_every: every, ..settings(steps) };
    train(&plan(), &settings, &mut notes).unwrap();
    notes
}

fn names(directory: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn a_resumed_run_repeats_the_unbroken_one_bit_for_bit() {
    let mut unbroken = Notes::default();
    train(&plan(), &settings(9), &mut unbroken).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let first = kept(directory.path(), 5, 2);
    let second = kept(directory.path(), 9, 2);
    assert_eq!(second.opening.unwrap().resumed.unwrap().1, 5);
    let joined: BTreeMap<u64, u64> = first.losses.into_iter().chain(second.losses).collect();
    assert_eq!(joined, unbroken.losses);
    assert_eq!(names(directory.path()), ["step-00000008", "step-00000009"], "the last two are kept");
}

#[test]
fn a_checkpoint_is_evaluated_by_a_forward_only_plan() {
    let directory = tempfile::tempdir().unwrap();
    let trained = kept(directory.path(), 4, 3);
    let before = names(directory.path());
    let mut notes = Notes::default();
    let settings = Settings {
        checkpoint: Some(directory.path().to_owned()),
        train: Train { lr: 0.5, ..Train::default() },
        plan_hash: Some("another plan".to_owned()),
        ..settings(2)
    };
    let twin = forward_only("1f1b", None, 2, 3, tiny(2, true));
    let ending = train(&twin, &settings, &mut notes).unwrap();
    assert_eq!(notes.losses.keys().copied().collect::<Vec<_>>(), [5, 6], "the batches that come next");
    assert_eq!(names(directory.path()), before, "nothing is written");
    let next = kept(directory.path(), 5, 50).losses[&5];
    assert_eq!(notes.losses[&5], next, "the loss before the update of the next step");
    let mean = notes.losses.values().map(|&bits| f64::from_bits(bits)).sum::<f64>() / 2.0;
    assert!((ending.mean.unwrap() - mean).abs() < 1e-12);
    assert!(notes.saved.is_empty() && trained.losses.len() == 4);
}

#[test]
fn a_run_that_has_ended_takes_no_step_more() {
    let directory = tempfile::tempdir().unwrap();
    kept(directory.path(), 3, 50);
    assert!(kept(directory.path(), 3, 50).losses.is_empty());
}

#[test]
fn torn_checkpoints_are_passed_over_and_cleared_away() {
    let directory = tempfile::tempdir().unwrap();
    kept(directory.path(), 4, 2);
    let torn = directory.path().join(".schedc-tmp-step-00000006");
    fs::create_dir(&torn).unwrap();
    fs::write(torn.join("rank-000.safetensors"), b"half a fi").unwrap();
    let lacking = directory.path().join("step-00000007");
    fs::create_dir(&lacking).unwrap();
    fs::copy(
        directory.path().join("step-00000004/rank-000.safetensors"),
        lacking.join("rank-000.safetensors"),
    )
    .unwrap();
    assert_eq!(Checkpoint::newest(directory.path()).unwrap().unwrap().step, 4);
    let notes = kept(directory.path(), 8, 50);
    let opening = notes.opening.unwrap();
    assert_eq!(opening.resumed.unwrap().1, 4);
    assert_eq!(opening.skipped[0].path, lacking);
    assert!(opening.skipped[0].reason.contains("another step"), "{}", opening.skipped[0].reason);
    assert!(names(directory.path()).iter().all(|name| !name.starts_with(".schedc-tmp-")));
}

/// `schedc run` of a small job with a checkpoint after every step.
fn command(directory: &Path, steps: u64) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_schedc"));
    command.args(["run", "1f1b", "--with", "vocab-2", "--ranks", "2", "--microbatches", "2"]);
    command.args(["--hidden", "16", "--seq", "8", "--checkpoint-every", "1"]);
    command.arg("--steps").arg(steps.to_string()).arg("--checkpoint").arg(directory);
    command.stdout(Stdio::piped()).stderr(Stdio::null());
    command
}

#[test]
fn a_killed_process_leaves_a_checkpoint_that_resumes() {
    let directory = tempfile::tempdir().unwrap();
    for round in 1..=3 {
        let before = Checkpoint::newest(directory.path()).unwrap().map_or(0, |newest| newest.step);
        let mut process = command(directory.path(), u64::MAX).spawn().unwrap();
        let lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let saved = lines.map_while(Result::ok).filter(|line| line.starts_with("saved")).take(2 + round);
        assert_eq!(saved.count(), 2 + round, "the process ended by itself");
        process.kill().unwrap();
        process.wait().unwrap();
        let newest = Checkpoint::newest(directory.path()).unwrap().unwrap();
        assert!(newest.step > before);
    }
    let newest = Checkpoint::newest(directory.path()).unwrap().unwrap().step;
    let output = command(directory.path(), newest + 2).output().unwrap();
    let output = String::from_utf8(output.stdout).unwrap();
    assert!(output.contains(&format!("after {newest} steps")), "{output}");
    assert!(output.contains("done      2 steps"), "{output}");
}

#[test]
fn a_checkpoint_of_another_model_is_refused_by_what_differs() {
    let directory = tempfile::tempdir().unwrap();
    kept(directory.path(), 2, 50);
    let refusal = |plan: &Verified, change: &dyn Fn(&mut Settings)| {
        let mut settings = Settings { checkpoint: Some(directory.path().to_owned()), ..settings(4) };
        change(&mut settings);
        match train(plan, &settings, &mut Notes::default()).unwrap_err() {
            ExecuteError::CheckpointDiffers { what, .. } => what,
            other => panic!("{other}"),
        }
    };
    let same = |_: &mut Settings| {};
    assert_eq!(refusal(&one_f_one_b(2, 3, tiny(2, false)), &same), "tied embeddings");
    assert_eq!(refusal(&one_f_one_b(2, 4, tiny(2, true)), &same), "microbatches");
    assert_eq!(refusal(&one_f_one_b(1, 3, tiny(2, true)), &same), "ranks");
    assert_eq!(refusal(&one_f_one_b(2, 3, tiny(3, true)), &same), "layers");
    assert_eq!(refusal(&plan(), &|settings| settings.train.seed = 1), "seed");
    assert_eq!(refusal(&plan(), &|settings| settings.train.lr = 0.5), "learning rate");
}

#[test]
fn what_the_user_keeps_beside_the_checkpoints_stays() {
    let directory = tempfile::tempdir().unwrap();
    let own = ["step-1", "step-002", "step-0000000002", ".tmp-notes", "step-00000003"];
    for name in own {
        fs::create_dir(directory.path().join(name)).unwrap();
        fs::write(directory.path().join(name).join("notes"), name).unwrap();
    }
    fs::remove_dir_all(directory.path().join("step-00000003")).unwrap();
    kept(directory.path(), 2, 1);
    fs::create_dir(directory.path().join("step-00000003")).unwrap();
    fs::write(directory.path().join("step-00000003/notes"), "step-00000003").unwrap();
    kept(directory.path(), 5, 1);
    let aside = "set-aside-1-step-00000003";
    let mut expected = vec![aside, "step-00000004", "step-00000005"];
    expected.extend(&own[..4]);
    expected.sort_unstable();
    assert_eq!(names(directory.path()), expected);
    assert_eq!(fs::read_to_string(directory.path().join(aside).join("notes")).unwrap(), own[4]);
}

#[test]
fn what_was_just_saved_is_kept_though_damaged_ones_have_higher_numbers() {
    let directory = tempfile::tempdir().unwrap();
    kept(directory.path(), 2, 1);
    for step in [7, 8, 9] {
        let lacking = directory.path().join(format!("step-{step:08}"));
        fs::create_dir(&lacking).unwrap();
        fs::write(lacking.join("rank-000.safetensors"), b"rubbish").unwrap();
    }
    let notes = kept(directory.path(), 3, 1);
    assert_eq!(notes.opening.unwrap().skipped.len(), 3);
    let newest = Checkpoint::newest(directory.path()).unwrap().unwrap();
    assert_eq!((newest.step, newest.skipped.len()), (3, 3));
    let steps = [2, 3, 7, 8, 9].map(|step| format!("step-{step:08}"));
    assert_eq!(names(directory.path()), steps);
}

#[test]
fn a_damaged_checkpoint_is_passed_over_and_with_none_before_it_refused() {
    let directory = tempfile::tempdir().unwrap();
    kept(directory.path(), 2, 1);
    let file = directory.path().join("step-00000002/rank-001.safetensors");
    let whole = fs::read(&file).unwrap();
    let longer = [&whole[..], b"x"].concat();
    let damages = [&[][..], b"rubbish", &whole[..whole.len() / 2], &[0xff; 64], &longer];
    let newest = || Checkpoint::newest(directory.path());
    for damaged in damages {
        fs::write(&file, damaged).unwrap();
        let found = newest().unwrap().unwrap();
        assert_eq!(found.step, 1);
        assert!(found.skipped[0].reason.contains("rank-001"), "{}", found.skipped[0].reason);
    }
    fs::remove_dir_all(directory.path().join("step-00000001")).unwrap();
    for damaged in damages {
        fs::write(&file, damaged).unwrap();
        let error = newest().unwrap_err();
        assert!(matches!(error, ExecuteError::NoCompleteCheckpoint { found: 1, .. }), "{error}");
    }
}

#[test]
fn the_dump_holds_whole_weights_gradients_tokens_and_the_loss() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("step.safetensors");
    let mut with = Notes::default();
    train(&plan(), &Settings { dump: Some(file.clone()), ..settings(3) }, &mut with).unwrap();
    let mut without = Notes::default();
    train(&plan(), &settings(3), &mut without).unwrap();
    assert_eq!(with.losses, without.losses, "looking at a step does not change it");

    let bytes = fs::read(file).unwrap();
    let dump = SafeTensors::deserialize(&bytes).unwrap();
    let dims = plan().header.model;
    let weights = dump.names().into_iter().filter(|name| name.starts_with("weight."));
    let elements: usize =
        weights.map(|name| dump.tensor(name).unwrap().shape().iter().product::<usize>()).sum();
    assert_eq!(elements as u64, parameters(&dims));
    for name in dump.names().into_iter().filter(|name| name.starts_with("gradient.")) {
        let gradient = dump.tensor(name).unwrap();
        let numbers = gradient.data().as_chunks::<4>().0.iter().map(|&bytes| f32::from_le_bytes(bytes));
        assert!(numbers.clone().all(f32::is_finite), "{name} has rows that no rank holds");
    }
    assert_eq!(dump.tensor("tokens").unwrap().shape(), [3, 2, 4]);
    let loss = dump.tensor("loss").unwrap().data().try_into().map(f64::from_le_bytes).unwrap();
    assert_eq!(loss.to_bits(), with.losses[&1]);
}

#[test]
fn training_on_a_repeated_text_brings_the_loss_below_its_unigram_entropy() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("text");
    fs::write(&file, "the quick brown fox jumps over the lazy dog. ".repeat(40)).unwrap();
    let model = Dims {
        layers: 2,
        hidden: 32,
        heads: 2,
        sequence: 16,
        batch: 2,
        vocab: 256,
        tied: false,
        precision: Precision::F32,
    };
    let mut settings = Settings { data: Some(file), check: true, ..settings(60) };
    settings.train.lr = 5e-3;
    let mut notes = Notes::default();
    let ending = train(&one_f_one_b(2, 4, model), &settings, &mut notes).unwrap();
    let (first, last) = ending.losses.unwrap();
    assert!(first > 5.0 && last < 0.8 * ending.entropy, "{first} -> {last}, entropy {}", ending.entropy);
    assert!(notes.checks[0].bits_equal());
}

#[test]
fn batches_depend_on_seed_step_microbatch_and_row_only() {
    let dims = tiny(1, false);
    let corpus = Corpus::new(&Text::own(), &Tokenizer::Bytes, dims.sequence).unwrap();
    let batch = corpus.batch(&dims, 1, 2, Microbatch(3));
    assert_eq!(batch, corpus.batch(&dims, 1, 2, Microbatch(3)));
    assert_eq!(batch, corpus.step(&dims, 1, 2, 5)[3]);
    assert_eq!(batch.inputs[1], batch.targets[0], "the target is the token that follows");
    for other in [(2, 2, 3), (1, 3, 3), (1, 2, 4)] {
        assert_ne!(batch, corpus.batch(&dims, other.0, other.1, Microbatch(other.2)), "{other:?}");
    }
    let (first, second) = batch.inputs.split_at(4);
    assert_ne!(first, second, "rows differ");
}

#[test]
fn a_text_of_one_window_is_enough_and_a_shorter_one_is_refused() {
    let text = |bytes: &[u8]| Text { name: "text".to_owned(), bytes: bytes.to_vec() };
    let corpus = Corpus::new(&text(b"abcde"), &Tokenizer::Bytes, 4).unwrap();
    assert_eq!(corpus.batch(&tiny(1, false), 0, 0, Microbatch(0)).targets, b"bcdebcde".map(u32::from));
    let error = Corpus::new(&text(b"abcd"), &Tokenizer::Bytes, 4).unwrap_err();
    assert!(matches!(error, ExecuteError::TextTooShort { tokens: 4, needed: 5, .. }), "{error}");
    assert!(matches!(Text::load(Some(Path::new("no/such/file"))), Err(ExecuteError::Read { .. })));
}

#[test]
fn the_entropy_of_two_even_tokens_is_the_logarithm_of_two() {
    let text = Text { name: "text".to_owned(), bytes: b"abab".to_vec() };
    let entropy = Corpus::new(&text, &Tokenizer::Bytes, 2).unwrap().unigram_entropy();
    assert!((entropy - std::f64::consts::LN_2).abs() < 1e-12);
}

#[test]
fn a_vocabulary_smaller_than_the_bytes_is_refused() {
    let error = Tokenizer::new(TokenizerKind::Bytes, b"", 255).unwrap_err();
    assert!(matches!(error, ExecuteError::VocabTooSmall { vocab: 255, ids: 256 }), "{error}");
    assert!(Tokenizer::new(TokenizerKind::Bytes, b"", 8192).is_ok());
}

#[cfg(not(feature = "bpe"))]
#[test]
fn byte_pairs_without_the_feature_say_how_to_build_it() {
    let error = Tokenizer::new(TokenizerKind::Bpe, b"", 512).unwrap_err();
    let help = miette::Diagnostic::help(&error).unwrap().to_string();
    assert!(help.contains("--features bpe"), "{help}");
}

#[cfg(feature = "bpe")]
#[test]
fn a_trained_byte_pair_vocabulary_survives_its_checkpoint() {
    let text = Text::own();
    let tokenizer = Tokenizer::new(TokenizerKind::Bpe, &text.bytes, 512).unwrap();
    let ids = tokenizer.encode(&text.bytes).unwrap();
    assert!(ids.len() < text.bytes.len() && ids.iter().all(|&id| id < 512));
    let again = Tokenizer::from_json(&tokenizer.to_json().unwrap().unwrap(), 512).unwrap();
    assert_eq!(again.encode(&text.bytes).unwrap(), ids);
}
