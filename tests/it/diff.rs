//! `schedc diff` and the commands that take a PyTorch schedule, through the binary.

use std::fs;

use crate::cli::{SMALL, schedc};

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

const PLAIN: &str = "0F0,0F1,0B0,0B1\n1F0,1B0,1F1,1B1\n";

#[test]
fn the_first_difference_of_each_rank_is_shown() {
    let folder = folder();
    let done = schedc(folder.path(), "diff 1f1b gpipe -p 3 -m 4");
    assert_eq!(done.code, 1, "{}", done.err);
    assert!(done.err.is_empty());
    let expected = "\
r0  the first 3 are the same, then `B s0 m0` in 1f1b and `F s0 m3` in gpipe
    1f1b    F s0 m0  F s0 m1  F s0 m2  [B s0 m0]  F s0 m3  B s0 m1  B s0 m2
    gpipe   F s0 m0  F s0 m1  F s0 m2  [F s0 m3]  B s0 m0  B s0 m1  B s0 m2
";
    assert!(done.out.starts_with(expected), "{}", done.out);
    assert_eq!(done.out.lines().filter(|line| line.starts_with('r')).count(), 3);
}

#[test]
fn equal_schedules_exit_0_and_numbers_come_from_the_file_that_has_them() {
    let folder = folder();
    let path = folder.path();
    fs::write(path.join("mine.csv"), PLAIN).unwrap();
    for words in
        ["diff mine.csv mine.csv", "diff mine.csv 1f1b", "diff 1f1b mine.csv", "diff 1f1b 1f1b -p 2 -m 2"]
    {
        let done = schedc(path, words);
        assert_eq!(done.code, 0, "{words}: {}{}", done.out, done.err);
        assert!(done.out.contains("the same"), "{}", done.out);
    }
    let done = schedc(path, "diff mine.csv interleaved:v=2");
    assert_eq!(done.code, 1);
    schedc(path, "diff 1f1b gpipe").refused(2, &["schedc::cli::missing_flag", "schedc diff"]);
    schedc(path, "diff mine.csv gpipe -m 8").refused(2, &["schedc::cli::contradicts_torch"]);
}

#[test]
fn plans_are_compared_line_by_line() {
    let folder = folder();
    let path = folder.path();
    assert_eq!(schedc(path, "compile 1f1b -p 2 -m 2 -o one.plan").code, 0);
    assert_eq!(schedc(path, "compile 1f1b --with vocab-2 -p 2 -m 2 -o other.plan").code, 0);
    assert_eq!(schedc(path, "diff one.plan one.plan").code, 0);
    let done = schedc(path, "diff one.plan other.plan");
    assert_eq!(done.code, 1, "{}", done.err);
    assert!(done.out.starts_with("header  the first "), "{}", done.out);
    assert!(done.out.contains("    - ") && done.out.contains("    + "), "{}", done.out);
    // A plan's orders against a schedule's; whole plans where that is asked for.
    assert_eq!(schedc(path, "diff one.plan 1f1b").code, 0);
    assert_eq!(schedc(path, "diff one.plan 1f1b --plans").code, 0);
    assert_eq!(schedc(path, "diff one.plan 1f1b --plans --hidden 32").code, 2);
    let ranks = schedc(path, "diff one.plan gpipe:x=1");
    assert_eq!(ranks.code, 1);
    assert!(ranks.err.contains("schedc::resolve::unknown_parameter"), "{}", ranks.err);
}

#[test]
fn a_pytorch_schedule_is_verified_with_exit_codes_and_flags() {
    let folder = folder();
    let path = folder.path();
    fs::write(path.join("mine.csv"), PLAIN).unwrap();
    let done = schedc(path, "verify mine.csv");
    let sound = "mine.csv: sound on nccl; compute_only, 2 ranks, 2 stages (placement loop), 2 microbatches, 8 actions\n";
    assert_eq!((done.code, done.out.as_str()), (0, sound), "{}", done.err);
    for flags in ["--channel gloo", "--channel rendezvous", "--placement loop -p 2 -m 2"] {
        assert_eq!(schedc(path, &format!("verify mine.csv {flags}")).code, 0, "{flags}");
    }
    for (flags, code) in [
        ("--channel buffered-2", "schedc::cli::wrong_flag"),
        ("--fifo pair", "schedc::cli::wrong_flag"),
        ("--memory-limit 1GB", "schedc::cli::wrong_flag"),
        ("-p 3", "schedc::cli::contradicts_torch"),
        ("-m 3", "schedc::cli::contradicts_torch"),
    ] {
        schedc(path, &format!("verify mine.csv {flags}")).refused(2, &[code]);
    }
    assert_eq!(schedc(path, "compile 1f1b -p 2 -m 2 -o one.plan").code, 0);
    for flags in ["--channel gloo", "--placement v", "-p 2", "-m 2"] {
        schedc(path, &format!("verify one.plan {flags}")).refused(2, &["schedc::cli::wrong_flag"]);
    }
    fs::write(path.join("broken.csv"), PLAIN.replace("1B1", "1B1xyz")).unwrap();
    schedc(path, "verify broken.csv")
        .refused(1, &["schedc::torch::trailing_text", "`xyz` stands behind `1B1` at row 2, cell 4 (rank 1)"]);
    schedc(path, "run broken.csv").refused(1, &["schedc::torch::trailing_text"]);
    fs::write(path.join("empty.csv"), "").unwrap();
    schedc(path, "verify empty.csv").refused(1, &["schedc::cli::neither"]);
}

#[test]
fn a_pytorch_schedule_compiles_compares_and_trains() {
    let folder = folder();
    let path = folder.path();
    for (schedule, p, m) in [("1f1b", 2, 4), ("zb-v", 2, 4), ("dualpipe-v", 2, 4)] {
        for form in ["compute", "comms"] {
            let words = format!(
                "compile {schedule} -p {p} -m {m} --emit torch-csv={form} --target torch-2.15 -o it.csv"
            );
            assert_eq!(schedc(path, &words).code, 0);
            assert_eq!(schedc(path, "verify it.csv --channel rendezvous").code, 0);
            assert_eq!(schedc(path, "compile it.csv -o it.plan").code, 0);
            assert_eq!(schedc(path, "verify it.plan").code, 0);
            assert_eq!(schedc(path, &format!("diff it.csv {schedule}")).code, 0);
            let again = schedc(path, &format!("compile it.csv --emit torch-csv={form}"));
            assert_eq!(again.code, 0);
            assert_eq!(again.out, fs::read_to_string(path.join("it.csv")).unwrap(), "{schedule} as {form}");
            assert_eq!(schedc(path, &format!("compare it.csv {schedule} -p {p} -m {m}")).code, 0);
            let size = SMALL.replace("--layers 2", "--layers 4");
            let done = schedc(path, &format!("run it.csv --steps 1 --check {size}"));
            assert_eq!(done.code, 0, "{}", done.err);
            assert!(done.out.contains("check"), "{}", done.out);
        }
    }
    schedc(path, "compare it.csv -p 3 -m 4").refused(2, &["schedc::cli::contradicts_torch"]);
    schedc(path, "run it.csv --set v=2").refused(2, &["schedc::cli::contradicts_torch"]);
    schedc(path, "run it.csv --schedule-name x").refused(2, &["schedc::cli::nothing_to_choose"]);
    schedc(path, "compile 1f1b --with vocab-2 -p 2 -m 4 --emit torch-csv")
        .refused(1, &["schedc::torch::no_such_pass", "`S`, `C1`, `T`"]);
    schedc(path, "compile 1f1b -p 2 -m 4 --emit torch-csv --target torch-2.0").refused(2, &["torch-2.15"]);
}
