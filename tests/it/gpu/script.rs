//! `tests/gpu/run.sh` on a machine without a GPU: that it is a script, what it says there, and its table.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Output};

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/gpu/run.sh");
/// Rows of the table.
const ROWS: usize = 13;

/// Puts a program into a folder.
fn program(folder: &Path, name: &str, text: &str) {
    let path = folder.join(name);
    fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
}

/// Runs the script with the folder's programs before the machine's.
fn run(folder: &Path, schedc: &Path) -> (i32, String) {
    let path = format!("{}:{}", folder.display(), std::env::var("PATH").unwrap_or_default());
    let output = Command::new("bash").arg(SCRIPT).env("PATH", path).env("SCHEDC", schedc).output().unwrap();
    let Output { status, stdout, stderr } = output;
    let (out, err) = (String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
    (status.code().unwrap(), format!("{out}{err}"))
}

#[test]
fn the_script_is_a_script_and_its_peers_are_programs() {
    let checked = Command::new("bash").args(["-n", SCRIPT]).output().unwrap();
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
    let folder = Path::new(SCRIPT).parent().unwrap();
    for name in ["distance.py", "gpt.py", "vocabulary.py"] {
        let parsed = "import ast, sys; ast.parse(open(sys.argv[1]).read())";
        let checked = Command::new("python3").args(["-c", parsed]).arg(folder.join(name)).output();
        let Ok(checked) = checked else { return };
        assert!(checked.status.success(), "{name}: {}", String::from_utf8_lossy(&checked.stderr));
    }
}

#[test]
fn without_a_gpu_the_script_measures_nothing_and_says_so() {
    let folder = tempfile::tempdir().unwrap();
    program(folder.path(), "nvidia-smi", "exit 9");
    let (code, said) = run(folder.path(), Path::new("/nonexistent"));
    assert_eq!((code, said.as_str()), (2, "no GPU: nothing measured\n"));
}

#[test]
fn rows_fail_by_the_name_of_what_is_missing() {
    if schedc::cuda::load(schedc::cuda::Library::Driver, None).is_ok() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    program(folder.path(), "nvidia-smi", "echo Imagined");
    let (code, said) = run(folder.path(), Path::new(env!("CARGO_BIN_EXE_schedc")));
    assert_eq!(code, 1, "{said}");
    let failed = said.lines().filter(|line| line.contains("| schedc::cuda::no_driver ")).collect::<Vec<_>>();
    assert_eq!(failed.len(), ROWS, "{said}");
    assert!(failed.iter().all(|line| line.contains("| fail ")), "{said}");
}
