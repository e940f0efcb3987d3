//! The built binary: what it prints, how it exits, and that nothing a user gives it makes it panic or hang.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use assert_cmd::assert::OutputAssertExt as _;

use crate::compiled::{SCHEDULES, TRANSFORMS};

/// Longer than any command here takes on a busy machine.
const SECONDS: Duration = Duration::from_secs(20);

/// A model that a step takes milliseconds for.
pub(crate) const SMALL: &str = "--layers 2 --hidden 16 --heads 2 --seq 8";

/// The end of a command.
pub(crate) struct Done {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Done {
    /// It exited so, and said each of these words on standard error.
    #[track_caller]
    pub(crate) fn refused(&self, code: i32, words: &[&str]) {
        assert_eq!(self.code, code, "{}{}", self.out, self.err);
        // The report is wrapped at the width of the terminal.
        let flat = self.err.split_whitespace().filter(|word| *word != "│").collect::<Vec<_>>().join(" ");
        for word in words {
            assert!(flat.contains(word), "no `{word}` in\n{}", self.err);
        }
    }
}

/// Runs `schedc` with words separated by blanks, in a folder.
#[track_caller]
pub(crate) fn schedc(folder: &Path, words: &str) -> Done {
    let started = Instant::now();
    let mut command = Command::new(env!("CARGO_BIN_EXE_schedc"));
    let Output { status, stdout, stderr } =
        command.args(words.split_whitespace()).current_dir(folder).output().expect("the binary was built");
    let (out, err) = (String::from_utf8(stdout).unwrap(), String::from_utf8_lossy(&stderr).into_owned());
    assert!(started.elapsed() < SECONDS, "`schedc {words}` took {:?}", started.elapsed());
    let code = status.code().unwrap_or_else(|| panic!("`schedc {words}` ended by a signal: {status}"));
    let drilled = words.contains("=panic");
    assert!(drilled || !err.contains("panicked"), "`schedc {words}` panicked:\n{err}");
    assert!([0, 1, 2].contains(&code), "`schedc {words}` exited {code}:\n{err}");
    Done { code, out, err }
}

#[track_caller]
fn fine(folder: &Path, words: &str) -> String {
    let done = schedc(folder, words);
    assert_eq!(done.code, 0, "{}", done.err);
    done.out
}

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

const OWN: &str = "schedule \"own\" {\n    order F^* B^*\n}\n";

#[test]
fn a_plan_goes_to_standard_output_or_a_file_in_both_forms_and_verifies() {
    let folder = folder();
    let path = folder.path();
    for form in ["text", "json"] {
        let job = format!("compile 1f1b --with vocab-2 --ranks 4 --microbatches 8 --emit {form}");
        let printed = fine(path, &job);
        fine(path, &format!("{job} -o plan.{form}"));
        assert_eq!(fs::read_to_string(path.join(format!("plan.{form}"))).unwrap(), printed);
    }
    let hash = |file: &str| {
        let said = fine(path, &format!("verify {file}"));
        assert!(said.contains("sound; 4 ranks"), "{said}");
        said.lines().last().unwrap().to_owned()
    };
    assert_eq!(hash("plan.text"), hash("plan.json"), "both forms are one plan");
}

#[test]
fn every_schedule_verifies_as_a_file_under_every_transform() {
    let folder = folder();
    for schedule in SCHEDULES {
        for with in TRANSFORMS {
            let with = with.map_or_else(String::new, |with| format!("--with {with}"));
            fine(folder.path(), &format!("compile {schedule} {with} -p 3 -m 4 -o plan"));
            fine(folder.path(), "verify plan");
        }
    }
}

#[test]
fn a_changed_plan_is_refused_with_exit_1() {
    let folder = folder();
    let plan = fine(folder.path(), "compile 1f1b -p 2 -m 4");
    let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
    write("peak", &plan.replacen("peak ", "peak 9", 1));
    schedc(folder.path(), "verify peak").refused(1, &["schedc::verify::wrong_peak"]);
    let send = plan.lines().find(|line| line.contains(" send r1 ")).unwrap();
    write("late", &plan.replacen(send, &send.replace(".m0", ".m3"), 1));
    schedc(folder.path(), "verify late").refused(1, &["schedc::verify::tag_mismatch"]);
    write("cut", &plan[..plan.len() / 2]);
    schedc(folder.path(), "verify cut").refused(1, &["schedc::"]);
    let json = fine(folder.path(), "compile 1f1b -p 2 -m 4 --emit json");
    write("json", &json.replacen("\"microbatches\":4", "\"microbatches\":5", 1));
    let changed = fs::read_to_string(folder.path().join("json")).unwrap();
    assert_ne!(changed, json);
    schedc(folder.path(), "verify json").refused(1, &["schedc::verify::missing_pass"]);
    schedc(folder.path(), "run json").refused(1, &["schedc::verify::missing_pass"]);
}

#[test]
fn a_missing_flag_is_answered_with_what_to_type() {
    let folder = folder();
    let said = ["schedc::cli::missing_flag", "schedc compile 1f1b --ranks 4 --microbatches 8"];
    schedc(folder.path(), "compile 1f1b").refused(2, &said);
    schedc(folder.path(), "compile 1f1b --ranks 4").refused(2, &["`--microbatches` is missing"]);
    schedc(folder.path(), "run 1f1b -m 4").refused(2, &["`--ranks` is missing", "schedc run 1f1b --ranks 4"]);
    schedc(folder.path(), "compile").refused(2, &["SCHEDULE"]);
    schedc(folder.path(), "compile 1f1b --rank 4 -m 2").refused(2, &["--ranks"]);
    schedc(folder.path(), "compile 1f1b -p four -m 2").refused(2, &["four"]);
    schedc(folder.path(), "compile 1f1b -p 2 -m 2 --set v").refused(2, &["NAME=VALUE"]);
    schedc(folder.path(), "complie 1f1b").refused(2, &["compile"]);
}

#[test]
fn an_unknown_name_is_answered_with_the_nearest() {
    let folder = folder();
    let path = folder.path();
    schedc(path, "compile 1f1 -p 2 -m 2").refused(1, &["1f1b", "schedc::resolve::unknown_schedule"]);
    schedc(path, "compile 1f1b --with vocab2 -p 2 -m 2").refused(1, &["vocab-2"]);
    schedc(path, "compile interleaved --set w=2 -p 2 -m 2").refused(1, &["`v`"]);
    schedc(path, "show interleave").refused(2, &["did you mean `interleaved`?", "schedc::cli::unknown_name"]);
    schedc(path, "show qqq").refused(2, &["prelude", "zb-h2"]);
}

#[test]
fn no_ranks_and_no_microbatches_are_refused() {
    let folder = folder();
    schedc(folder.path(), "compile 1f1b --ranks 0 --microbatches 4")
        .refused(1, &["schedc::resolve::no_ranks"]);
    schedc(folder.path(), "run 1f1b --ranks 4 --microbatches 0")
        .refused(1, &["schedc::resolve::no_microbatches"]);
}

#[test]
fn the_library_is_listed_and_shown() {
    let folder = folder();
    let list = fine(folder.path(), "list");
    for name in SCHEDULES.into_iter().chain(TRANSFORMS.into_iter().flatten()) {
        assert!(list.lines().any(|line| line.split_whitespace().next() == Some(name)), "{name} in\n{list}");
        assert!(fine(folder.path(), &format!("show {name}")).contains(&format!("\"{name}\"")));
    }
    assert!(fine(folder.path(), "show prelude").contains("pass F at stage"));
}

#[test]
fn the_list_shows_figures_at_a_size_and_says_what_cannot_be_had() {
    let folder = folder();
    let list = fine(folder.path(), "list -p 4 -m 8 --cost F=1,B=1,W=1");
    assert!(list.contains("at 4 ranks, 8 microbatches\n"), "{list}");
    let row = list.lines().find(|line| line.trim_start().starts_with("1f1b ")).unwrap();
    let words = ["27.27 %", " 4  1F1B", "Narayanan et al. 2021, arXiv:2104.04473"];
    assert!(words.into_iter().all(|word| row.contains(word)), "{row}");
    let with = fine(folder.path(), "list -p 4 -m 8 --with vocab-1");
    assert!(
        with.lines().any(|line| line.trim_start().starts_with("1f1b ") && line.contains(" 6  1F1B")),
        "{with}"
    );
    assert!(fine(folder.path(), "list -p 4 -m 0").contains("microbatches"), "the reason stands in the row");
    schedc(folder.path(), "list --with nope").refused(2, &["schedc::cli::unknown_name"]);
    schedc(folder.path(), "list --cost Q=1").refused(1, &["schedc::cost::unknown_name"]);
}

#[test]
fn a_forward_only_twin_is_compiled_verified_evaluated_and_compared() {
    let folder = folder();
    let path = folder.path();
    let job = format!("1f1b --with vocab-2 -p 2 -m 3 {SMALL}");
    fine(path, &format!("compile {job} --forward-only -o twin.plan"));
    assert!(fs::read_to_string(path.join("twin.plan")).unwrap().contains("\nforward only\n"));
    fine(path, "verify twin.plan");
    let loss = |said: &str| {
        let line = said.lines().find(|line| line.starts_with("step     1")).unwrap().to_owned();
        line.split_whitespace().nth(3).unwrap().to_owned()
    };
    let evaluated = fine(path, "run twin.plan --steps 2 --check");
    assert_eq!(loss(&evaluated), loss(&fine(path, &format!("run {job} --steps 1"))));
    assert!(
        evaluated.contains("forward only") && evaluated.contains("2 steps evaluated · mean loss"),
        "{evaluated}"
    );
    let compared = fine(path, "compare 1f1b --with vocab-2 -p 4 -m 8 --forward-only");
    assert!(compared.lines().next().unwrap().contains("logits"), "{compared}");
    fine(path, &format!("compile {job} -o whole.plan"));
    schedc(path, "run whole.plan --forward-only")
        .refused(2, &["schedc::cli::contradiction", "--forward-only"]);
}

#[test]
fn formatting_is_idempotent_and_can_be_checked() {
    let folder = folder();
    let file = folder.path().join("own.sched");
    fs::write(&file, "schedule   \"own\" {order F^*   B^* }").unwrap();
    schedc(folder.path(), "fmt --check own.sched")
        .refused(1, &["schedc::cli::unformatted", "run `schedc fmt own.sched`"]);
    fine(folder.path(), "fmt own.sched");
    let once = fs::read_to_string(&file).unwrap();
    assert_eq!(once, OWN);
    fine(folder.path(), "fmt --check own.sched");
    fine(folder.path(), "fmt own.sched");
    assert_eq!(fs::read_to_string(&file).unwrap(), once);
    fs::write(&file, "schedule {").unwrap();
    schedc(folder.path(), "fmt own.sched").refused(1, &["schedc::syntax::"]);
    assert_eq!(fs::read_to_string(&file).unwrap(), "schedule {", "a file that is refused is left alone");
}

#[test]
fn a_library_schedule_a_file_and_a_plan_are_run() {
    let folder = folder();
    fs::write(folder.path().join("own.sched"), OWN).unwrap();
    fine(folder.path(), &format!("compile own.sched --with vocab-1 -p 2 -m 3 {SMALL} -o own.plan"));
    fine(folder.path(), &format!("compile own.sched -p 2 -m 3 {SMALL} --emit json -o own.json"));
    for job in [
        &format!("zb-h1 --with vocab-2 -p 2 -m 3 {SMALL}"),
        &format!("own.sched -p 2 -m 3 {SMALL}"),
        "own.plan",
        "own.json",
        "own.plan --ranks 2 --microbatches 3 --hidden 16",
    ] {
        let said = fine(folder.path(), &format!("run {job} --steps 2 --check"));
        assert!(said.contains("gradients compared"), "{job}: {said}");
        assert!(said.contains("step     2  loss"), "{job}: {said}");
        assert!(said.contains("done      2 steps"), "{job}: {said}");
    }
}

#[test]
fn flags_that_contradict_a_plan_are_refused() {
    let folder = folder();
    fine(folder.path(), &format!("compile 1f1b --with vocab-2 -p 2 -m 3 {SMALL} -o a.plan"));
    for flag in ["--ranks 3", "--microbatches 4", "--hidden 32", "--tied", "--with vocab-1", "--set v=2"] {
        let words = ["schedc::cli::contradiction", flag.split(' ').next().unwrap()];
        schedc(folder.path(), &format!("run a.plan {flag}")).refused(2, &words);
    }
    let words = ["`--ranks 3` contradicts the plan, which was compiled for 2"];
    schedc(folder.path(), "run a.plan --ranks 3").refused(2, &words);
    let words = ["`--tied` contradicts the plan, whose embeddings are untied"];
    schedc(folder.path(), "run a.plan --tied").refused(2, &words);
}

#[test]
fn a_choice_without_a_choice_and_a_parameter_set_twice_are_refused() {
    let folder = folder();
    let path = folder.path();
    fs::write(path.join("two.sched"), OWN.to_owned() + &OWN.replace("own", "other")).unwrap();
    let words = ["schedc::resolve::which_schedule", "--schedule-name", "`own`, `other`"];
    schedc(path, "compile two.sched -p 2 -m 3").refused(1, &words);
    fine(path, "compile two.sched -p 2 -m 3 --schedule-name own -o a.plan");
    for (job, what) in [("compile 1f1b -p 2 -m 3", "a name of the library"), ("run a.plan", "a plan")] {
        let words = ["schedc::cli::nothing_to_choose", what, "leave `--schedule-name` out"];
        schedc(path, &format!("{job} --schedule-name own")).refused(2, &words);
    }
    let words = ["schedc::cli::set_twice", "`--set v` is given twice"];
    schedc(path, "compile interleaved -p 2 -m 4 --set v=2 --set v=2").refused(2, &words);
}

#[test]
fn a_file_does_not_shadow_the_library_unless_its_folder_is_named() {
    let folder = folder();
    fs::write(folder.path().join("1f1b"), OWN).unwrap();
    fs::write(folder.path().join("mine"), OWN).unwrap();
    let name = |job: &str| {
        fine(folder.path(), &format!("compile {job} -p 2 -m 3")).lines().nth(1).unwrap().to_owned()
    };
    assert!(name("1f1b").contains("1f1b"));
    assert!(name("./1f1b").contains("own"));
    assert!(name("mine").contains("own"));
}

#[test]
fn files_are_told_apart_before_flags_are_asked_for() {
    let folder = folder();
    let path = folder.path();
    let write = |name: &str, bytes: &[u8]| fs::write(path.join(name), bytes).unwrap();
    write("nothing", b" \n");
    write("nothing.plan", b"");
    write("rubbish.plan", b"\x00\xff\xfe rubbish");
    for command in ["run", "verify", "compile"] {
        for (file, what) in [
            ("./nothing", "it is empty"),
            ("nothing.plan", "it is empty"),
            ("rubbish.plan", "it is not text"),
        ] {
            let words = ["schedc::cli::neither", "neither a plan nor a `.sched` file", what];
            schedc(path, &format!("{command} {file}")).refused(1, &words);
        }
    }
    for form in ["text", "json"] {
        let plan = fine(path, &format!("compile 1f1b -p 2 -m 3 {SMALL} --emit {form}"));
        for (mark, name) in [("", "a.plan"), ("\u{feff}", "marked.plan"), ("\n ", "blank.plan")] {
            write(name, format!("{mark}{plan}").as_bytes());
            for command in ["compile", "fmt"] {
                let words = ["schedc::cli::already_a_plan", "schedc verify", "schedc run"];
                schedc(path, &format!("{command} {name}")).refused(2, &words);
            }
        }
        fine(path, "verify marked.plan");
        fine(path, "run marked.plan --steps 1");
    }
    write("marked.sched", format!("\u{feff}{OWN}").as_bytes());
    fine(path, "compile marked.sched -p 2 -m 3");
    let missing = schedc(path, "verify missing.plan");
    missing.refused(2, &["schedc::cli::unreadable", "name a plan file"]);
    assert!(!missing.err.contains("schedc list"), "{}", missing.err);
}

#[test]
fn a_plan_without_end_is_refused_before_it_is_read() {
    let folder = folder();
    let file = fs::File::create(folder.path().join("long.plan")).unwrap();
    (&file).write_all(b"schedc plan 1\n").unwrap();
    file.set_len((4 << 30) + 1).unwrap();
    for command in ["verify", "run", "compile"] {
        schedc(folder.path(), &format!("{command} long.plan")).refused(1, &["schedc::cli::plan_too_large"]);
    }
    if cfg!(unix) {
        for command in ["verify", "run", "fmt"] {
            schedc(folder.path(), &format!("{command} /dev/zero"))
                .refused(2, &["schedc::cli::unreadable", "neither a file nor a pipe"]);
        }
    }
}

#[test]
fn of_a_long_line_only_the_part_around_a_label_is_shown() {
    let folder = folder();
    fs::write(folder.path().join("deep.json"), "[".repeat(1_000_000).replacen('[', "{\"version\":", 1))
        .unwrap();
    let plan = fine(folder.path(), "compile 1f1b -p 4 -m 8 --emit json");
    fs::write(folder.path().join("odd.json"), plan.replacen("\"instructions\"", "\"instructiøns\"", 2))
        .unwrap();
    for file in ["deep.json", "odd.json"] {
        let done = schedc(folder.path(), &format!("verify {file}"));
        done.refused(1, &["schedc::import::malformed_json"]);
        let longest = done.err.lines().map(|line| line.chars().count()).max();
        assert!(longest.is_some_and(|longest| longest <= 130), "{}", done.err);
    }
}

#[cfg(unix)]
#[test]
fn a_plan_is_written_through_links_and_pipes_and_beside_nobodys_file() {
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    let folder = folder();
    let path = folder.path();
    let plan = fine(path, "compile 1f1b -p 2 -m 3");
    let write = |to: &str| fine(path, &format!("compile 1f1b -p 2 -m 3 -o {to}"));
    let read = |name: &str| fs::read_to_string(path.join(name)).unwrap();
    fs::create_dir(path.join("real")).unwrap();
    fs::write(path.join("real/a"), "old").unwrap();
    fs::write(path.join("real/a.part"), "mine").unwrap();
    fs::set_permissions(path.join("real/a"), fs::Permissions::from_mode(0o640)).unwrap();
    symlink("real/a", path.join("link")).unwrap();
    symlink("real/b", path.join("dangling")).unwrap();
    for (name, file) in [("link", "real/a"), ("dangling", "real/b")] {
        write(name);
        assert!(fs::symlink_metadata(path.join(name)).unwrap().is_symlink());
        assert_eq!(read(file), plan);
    }
    assert_eq!(fs::metadata(path.join("real/a")).unwrap().permissions().mode() & 0o777, 0o640);
    assert_eq!(read("real/a.part"), "mine");
    assert_eq!(fs::read_dir(path.join("real")).unwrap().count(), 3, "nothing is left behind");
    write("/dev/null");
    assert!(!fs::metadata("/dev/null").unwrap().is_file());
    assert!(Command::new("mkfifo").arg(path.join("pipe")).status().unwrap().success());
    let pipe = path.join("pipe");
    let reader = std::thread::spawn(move || fs::read_to_string(pipe).unwrap());
    write("pipe");
    assert_eq!(reader.join().unwrap(), plan);
    fs::write(path.join("own.sched"), "schedule \"own\" {order F^* B^*}").unwrap();
    symlink("own.sched", path.join("named.sched")).unwrap();
    fine(path, "fmt named.sched");
    assert!(fs::symlink_metadata(path.join("named.sched")).unwrap().is_symlink());
    assert_eq!(read("own.sched"), OWN);
}

#[test]
fn a_plan_is_not_compiled_again() {
    let folder = folder();
    fine(folder.path(), "compile 1f1b -p 2 -m 3 -o a.plan");
    let words = ["schedc::cli::already_a_plan", "schedc verify a.plan", "schedc run a.plan"];
    schedc(folder.path(), "compile a.plan -p 2 -m 3").refused(2, &words);
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let mut child = Command::new(env!("CARGO_BIN_EXE_schedc"))
        .args("compile 1f1b -p 16 -m 256".split(' '))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    // Dropping the reader closes the pipe long before the plan is through.
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "schedc plan 1\n");
    let mut err = String::new();
    child.stderr.take().unwrap().read_to_string(&mut err).unwrap();
    assert!(child.wait().unwrap().success() && err.is_empty(), "{err}");
}

/// Files that are no schedules and no plans, by name.
fn hostile(folder: &Path) -> Vec<&'static str> {
    let write = |name: &str, bytes: &[u8]| fs::write(folder.join(name), bytes).unwrap();
    let nested =
        |depth: usize| format!("schedule \"deep\" {{ order {}F{} }}", "(".repeat(depth), ")".repeat(depth));
    write("nested.sched", nested(10_000_000).as_bytes());
    write("deep.sched", nested(400_000).as_bytes());
    write("brackets.json", "[".repeat(10_000_000).as_bytes());
    write("objects.json", format!("{{\"header\":{}", "{\"a\":".repeat(1_000_000)).as_bytes());
    let mut seed = 1_u64;
    let mut rubbish = || {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 56) as u8
    };
    let rubbish: Vec<u8> = (0..200_000).map(|_| rubbish()).collect();
    write("rubbish.sched", &rubbish);
    write("rubbish.plan", &rubbish);
    write("rubbish-inside.plan", &[b"schedc plan 1\n", &rubbish[..]].concat());
    write("empty.sched", b"");
    write("empty.plan", b"");
    write("zero.sched", b"schedule \"z\" { order F^\0 }");
    fs::create_dir(folder.join("folder.sched")).unwrap();
    for large in ["large.sched", "large.plan"] {
        fs::File::create(folder.join(large)).unwrap().set_len(100 << 20).unwrap();
    }
    vec![
        "nested.sched",
        "deep.sched",
        "brackets.json",
        "objects.json",
        "rubbish.sched",
        "rubbish.plan",
        "rubbish-inside.plan",
        "empty.sched",
        "empty.plan",
        "zero.sched",
        "folder.sched",
        "large.sched",
        "large.plan",
        "missing.sched",
        "missing.plan",
        ".",
        "..",
    ]
}

#[test]
fn hostile_files_are_refused_by_every_command() {
    let folder = folder();
    for name in hostile(folder.path()) {
        for command in
            ["compile FILE -p 2 -m 2", "run FILE -p 2 -m 2", "verify FILE", "fmt FILE", "fmt --check FILE"]
        {
            let words = command.replace("FILE", name);
            let done = schedc(folder.path(), &words);
            let formats = command.starts_with("fmt") && name.starts_with("empty");
            assert!(done.code != 0 || formats, "`{words}` is accepted");
            assert!(done.code == 0 || done.err.contains("schedc::"), "`{words}` says\n{}", done.err);
            assert!(done.err.len() < 20_000, "`{words}` says {} bytes", done.err.len());
        }
    }
    let refused = |words: &str, code| schedc(folder.path(), words).refused(1, &[code]);
    refused("compile nested.sched -p 2 -m 2", "schedc::syntax::too_large");
    refused("compile deep.sched -p 2 -m 2", "schedc::syntax::too_deep");
    refused("compile large.sched -p 2 -m 2", "schedc::syntax::too_large");
    refused("verify large.plan", "schedc::cli::neither");
    schedc(folder.path(), "compile folder.sched -p 2 -m 2").refused(2, &["schedc::cli::unreadable"]);
    schedc(folder.path(), "verify missing.plan").refused(2, &["schedc::cli::unreadable", "missing.plan"]);
}

#[test]
fn sizes_at_the_edge_are_compiled_or_refused_with_a_reason() {
    let folder = folder();
    for with in ["", "--with vocab-1", "--with vocab-2", "--with interlaced"] {
        fine(folder.path(), &format!("compile 1f1b {with} -p 64 -m 1"));
        for (p, m) in
            [("1000000", "1000000"), ("1000000", "1"), ("1", "1000000000"), ("4294967295", "4294967295")]
        {
            let words = format!("compile zb-h2 {with} -p {p} -m {m}");
            schedc(folder.path(), &words).refused(1, &["schedc::resolve::too_many_passes"]);
        }
    }
    schedc(folder.path(), "compile 1f1b -p 99999999999 -m 1").refused(2, &["99999999999"]);
    schedc(folder.path(), "compile 1f1b -p -4 -m 1").refused(2, &["-4"]);
    let huge = "--layers 4294967295 --hidden 4294967295 --heads 1 --seq 4294967295 --batch 4294967295 --vocab 4294967295";
    let done = schedc(folder.path(), &format!("run 1f1b -p 2 -m 2 {huge}"));
    done.refused(1, &["schedc::resolve::overflow"]);
    assert!(!done.err.contains("has no elements"), "{}", done.err);
}

#[test]
fn a_place_that_cannot_be_written_is_refused() {
    let folder = folder();
    let words = "compile 1f1b -p 2 -m 2 -o no/such/folder/plan";
    schedc(folder.path(), words).refused(2, &["schedc::cli::unwritable", "no/such/folder/plan"]);
    fs::create_dir(folder.path().join("taken")).unwrap();
    schedc(folder.path(), "compile 1f1b -p 2 -m 2 -o taken").refused(2, &["schedc::cli::unwritable"]);
    let left: Vec<_> = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["taken"], "nothing half written is left behind");
}

/// Every file of a checkpoint with its bytes.
fn files(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut files: Vec<_> = fs::read_dir(folder)
        .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
        .map(|entry| entry.unwrap().path())
        .map(|path| (PathBuf::from(path.file_name().unwrap()), fs::read(&path).unwrap()))
        .collect();
    files.sort();
    files
}

#[test]
fn a_resumed_run_ends_with_the_bytes_of_an_unbroken_one() {
    let folder = folder();
    let job = format!("run zb-h1 --with vocab-2 -p 2 -m 3 {SMALL} --tied");
    let unbroken = fine(folder.path(), &format!("{job} --steps 6 --checkpoint whole"));
    fine(folder.path(), &format!("{job} --steps 3 --checkpoint parts"));
    let resumed = fine(folder.path(), &format!("{job} --steps 6 --checkpoint parts"));
    assert!(resumed.contains("after 3 steps"), "{resumed}");
    let losses = |said: &str| -> Vec<String> {
        let steps = said.lines().filter(|line| line.starts_with("step "));
        steps.map(|line| line.split_whitespace().take(4).collect::<Vec<_>>().join(" ")).collect()
    };
    assert_eq!(losses(&resumed), losses(&unbroken)[3..]);
    let last = |name: &str| files(&folder.path().join(name).join("step-00000006"));
    assert!(last("whole").len() >= 2);
    assert!(last("whole") == last("parts"), "the last checkpoints differ");
}

#[test]
fn a_drill_ends_the_run_in_time_with_the_table() {
    let folder = folder();
    let job = format!("run 1f1b --with vocab-2 -p 3 -m 4 {SMALL} --layers 3").replace("--layers 2 ", "");
    let started = Instant::now();
    let stalled = schedc(folder.path(), &format!("{job} --inject r1@9=stall --stall-timeout 1"));
    assert!(started.elapsed() < Duration::from_secs(8), "took {:?}", started.elapsed());
    stalled.refused(1, &["schedc::execute::stalled", "held by the drill", "r0", "r2", "waits"]);
    let failed = schedc(folder.path(), &format!("{job} --inject r2@3=panic"));
    failed.refused(1, &["schedc::execute::rank_failed", "a drill asked for this panic"]);
    schedc(folder.path(), &format!("{job} --inject r7@3=panic")).refused(1, &["schedc::execute::drill"]);
    schedc(folder.path(), &format!("{job} --inject sleep")).refused(2, &["r1@20=stall"]);
}

#[test]
fn help_and_version_are_printed() {
    let binary = || Command::new(env!("CARGO_BIN_EXE_schedc"));
    for words in ["--help", "--version", "compile --help", "run --help", "verify --help"] {
        binary().args(words.split(' ')).assert().success();
    }
    binary().assert().code(2);
}

#[test]
fn flags_that_say_something_else_than_a_plan_are_refused_wherever_a_plan_is_read() {
    let folder = folder();
    fine(folder.path(), "compile 1f1b -p 2 -m 4 -o one.plan");
    for flags in
        ["-p 3", "-m 5", "--with vocab-1", "--hidden 128", "--set v=3", "--retime=2", "--forward-only"]
    {
        for command in ["view", "simulate", "run"] {
            let words = format!("{command} one.plan {flags}");
            schedc(folder.path(), &words).refused(2, &["schedc::cli::contradiction"]);
        }
    }
    fine(folder.path(), "view one.plan -p 2 -m 4");
    let far = fine(folder.path(), "diff one.plan one.plan --context 18446744073709551615");
    assert!(!far.contains("then"), "{far}");
    let other = schedc(folder.path(), "diff 1f1b gpipe -p 4 -m 8 --context 18446744073709551615");
    assert!(other.code == 1 && other.out.contains("[B s0 m0]"), "{}", other.out);
    schedc(folder.path(), "run interleaved:v=4 -p 2 -m 4").refused(1, &["interleaved --set v=4"]);
}
