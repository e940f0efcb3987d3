//! Rejected programs: `tests/ui/<room>/<code>[@variant].sched`, each with the report that it must cause beside it.
//!
//! The first line may say for which numbers: `//@ ranks=4 microbatches=8 with=vocab-2 set=v=3`.
//! `//@ repeat=N` repeats the last line N times.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use schedc::cost::UNIT;
use schedc::driver::{self, Input, Job};
use schedc::resolve::Model;
use schedc::source::Sources;

use crate::support::{Options, code, rendered};

/// All rooms that a text passes through; the first that refuses it says why.
fn compile(name: &str, text: &[u8], options: &Options) -> Result<(), Vec<schedc::diag::Error>> {
    let job = Job {
        input: Input::File { name, bytes: text, schedule: options.schedule.as_deref() },
        with: &options.with,
        set: &options.set,
        ranks: options.ranks,
        microbatches: options.microbatches,
        model: Model {
            layers: Some(options.model.layers),
            dims: options.model,
            partition: options.partition.clone(),
        },
        costs: &UNIT,
        retime: None,
        mode: options.mode,
    };
    driver::compile(&job, &mut Sources::default()).map(|_| ())
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/ui")
}

/// Every case: room, name of the file without its ending, path.
fn cases() -> Vec<(String, String, PathBuf)> {
    let mut cases = Vec::new();
    for room in std::fs::read_dir(root()).unwrap().map(|entry| entry.unwrap()) {
        for file in std::fs::read_dir(room.path()).unwrap().map(|entry| entry.unwrap().path()) {
            if file.extension().is_some_and(|ending| ending == "sched") {
                let name = file.file_stem().unwrap().to_string_lossy().into_owned();
                cases.push((room.file_name().to_string_lossy().into_owned(), name, file));
            }
        }
    }
    cases.sort();
    cases
}

/// The text of a case, and the numbers that it is compiled for.
fn case(path: &Path) -> (Vec<u8>, Options) {
    let mut text = std::fs::read(path).unwrap();
    let first = text.split(|&byte| byte == b'\n').next().unwrap_or_default();
    let first = String::from_utf8_lossy(first).into_owned();
    let Some(words) = first.strip_prefix("//@") else { return (text, Options::default()) };
    let (repeats, words): (Vec<&str>, Vec<&str>) =
        words.split_whitespace().partition(|word| word.starts_with("repeat="));
    for repeat in repeats {
        let times: usize = repeat["repeat=".len()..].parse().unwrap();
        let end = text.len() - 1;
        let start = text[..end].iter().rposition(|&byte| byte == b'\n').unwrap() + 1;
        let last = text[start..end].to_vec();
        text.truncate(start);
        text.extend(last.repeat(times));
    }
    (text, Options::parse(&words.join(" ")))
}

#[test]
fn every_rejected_program_is_refused_with_the_code_of_its_path() {
    let mut wrong = Vec::new();
    for (room, name, path) in cases() {
        let (text, options) = case(&path);
        let shown = format!("{name}.sched");
        let Err(errors) = compile(&shown, &text, &options) else {
            wrong.push(format!("{room}/{name} is accepted"));
            continue;
        };
        let expected = format!("{room}::{}", name.split('@').next().unwrap_or_default());
        let codes: Vec<String> = errors.iter().map(code).collect();
        if !codes.contains(&expected) {
            wrong.push(format!("{room}/{name} causes {codes:?}"));
            continue;
        }
        let report: String = errors.iter().map(rendered).collect();
        insta::with_settings!({
            snapshot_path => path.parent().unwrap(),
            prepend_module_to_snapshot => false,
            omit_expression => true,
        }, {
            insta::assert_snapshot!(name, report);
        });
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// The codes in a room's sources.
pub(crate) fn codes(folder: &Path, found: &mut BTreeSet<String>) {
    for entry in std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
        if entry.is_dir() {
            codes(&entry, found);
        } else if entry.extension().is_some_and(|ending| ending == "rs") {
            let text = std::fs::read_to_string(&entry).unwrap();
            let after = text.split("code(schedc::").skip(1);
            found.extend(after.filter_map(|rest| rest.split_once(')')).map(|(code, _)| code.to_owned()));
        }
    }
}

/// Rooms whose errors come from a command line, a run or a bug: tests in `tests/it` hold their codes in an assertion.
const ROOMS_WITHOUT_FILES: [&str; 7] = ["cli", "cost", "cuda", "driver", "execute", "launch", "view"];

/// Codes of other rooms that a command line causes and no program does.
const CODES_WITHOUT_FILES: [&str; 1] = ["simulate::over_memory_limit"];

/// All Rust sources of the tests, end to end.
fn tests(folder: &Path) -> String {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let text =
        |path: PathBuf| if path.is_dir() { tests(&path) } else { std::fs::read_to_string(path).unwrap() };
    entries.map(text).collect()
}

#[test]
fn every_diagnostic_code_has_a_case() {
    let repository = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = BTreeSet::new();
    codes(&repository.join("src"), &mut found);
    assert!(found.len() > 120, "codes are read from the sources");
    let mut files = BTreeSet::new();
    for room in std::fs::read_dir(root()).unwrap().map(|entry| entry.unwrap()) {
        for file in std::fs::read_dir(room.path()).unwrap().map(|entry| entry.unwrap().path()) {
            if file
                .extension()
                .is_some_and(|ending| ["sched", "plan", "json", "csv"].iter().any(|case| ending == *case))
            {
                let name = file.file_stem().unwrap().to_string_lossy().into_owned();
                let code = name.split('@').next().unwrap_or_default();
                files.insert(format!("{}::{code}", room.file_name().to_string_lossy()));
            }
        }
    }
    let tests = tests(&repository.join("tests/it"));
    let has_case = |code: &&String| {
        let room = code.split(':').next().unwrap_or_default();
        // The closing quote: a longer code is another one.
        let asserted = || tests.contains(&format!("\"schedc::{code}\""));
        // What another format can't express is no matter of a file.
        let either = room == "torch" && asserted();
        let without = ROOMS_WITHOUT_FILES.contains(&room) || CODES_WITHOUT_FILES.contains(&code.as_str());
        if without { asserted() } else { files.contains(*code) || either }
    };
    let missing: Vec<_> = found.iter().filter(|code| !has_case(code)).collect();
    assert!(missing.is_empty(), "no tests/ui/<room>/<code> and no assertion for {missing:?}");
    let stale: Vec<_> = files.difference(&found).collect();
    assert!(stale.is_empty(), "no diagnostic has the code of {stale:?}");
}
