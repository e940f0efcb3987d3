//! Several processes as one run: the same bits as one process, refusals by name, and how all end when one does.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use miette::Diagnostic as _;
use schedc::launch::{LaunchError, Place};

use crate::cli::{Done, SMALL, schedc};

/// A run of two ranks.
const RUN: &str = "run 1f1b --with vocab-2 -p 2 -m 4 --layers 2 --hidden 16 --heads 2 --seq 8";

/// The step lines without their speeds, which differ from run to run.
fn losses(out: &str) -> Vec<String> {
    let steps = out.lines().filter(|line| line.starts_with("step"));
    steps.map(|line| line.split_whitespace().take(4).collect::<Vec<_>>().join(" ")).collect()
}

/// The files of the newest checkpoint, by rank.
fn shards(folder: &Path, step: u64, ranks: usize) -> Vec<Vec<u8>> {
    let folder = folder.join(format!("step-{step:08}"));
    (0..ranks).map(|rank| fs::read(folder.join(format!("rank-{rank:03}.safetensors"))).unwrap()).collect()
}

/// One process of a run by hand.
fn process(folder: &Path, words: &str, variables: &[(&str, String)]) -> Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_schedc"));
    command.args(words.split_whitespace()).current_dir(folder);
    command.envs(variables.iter().map(|(name, value)| (name, value)));
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

/// The variables of a process.
fn place(process: usize, processes: usize, port: u16, secret: &str) -> Vec<(&'static str, String)> {
    vec![
        ("SCHEDC_PROCESS", process.to_string()),
        ("SCHEDC_PROCESSES", processes.to_string()),
        ("SCHEDC_PORT", port.to_string()),
        ("SCHEDC_SECRET", secret.to_owned()),
    ]
}

fn done(child: Child) -> Done {
    let output = child.wait_with_output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Done { code: output.status.code().unwrap_or(-1), out: text(&output.stdout), err: text(&output.stderr) }
}

fn free_port() -> u16 {
    TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port()
}

#[test]
fn processes_repeat_one_process_bit_for_bit() {
    let folder = tempfile::tempdir().unwrap();
    let runs = [
        (2, 2, "run 1f1b --with vocab-1 -p 2 -m 4"),
        (4, 4, "run 1f1b --with vocab-2 -p 4 -m 4 --tied"),
        (2, 4, "run dualpipe -p 4 -m 8"),
        (2, 2, "run interleaved --with interlaced -p 2 -m 4"),
    ];
    for (case, (processes, ranks, run)) in runs.into_iter().enumerate() {
        let layers = if case == 0 { "2" } else { "8" };
        let run = format!("{run} {} --steps 3", SMALL.replace("--layers 2", &format!("--layers {layers}")));
        let one = schedc(folder.path(), &format!("{run} --checkpoint one-{case}"));
        let several =
            schedc(folder.path(), &format!("launch -n {processes} -- {run} --checkpoint several-{case}"));
        assert_eq!((one.code, several.code), (0, 0), "{run}\n{}{}", one.err, several.err);
        assert_eq!(losses(&one.out), losses(&several.out), "{run}");
        assert_eq!(losses(&one.out).len(), 3);
        let at = |name: &str| shards(&folder.path().join(format!("{name}-{case}")), 3, ranks);
        assert!(at("one") == at("several"), "{run}: other weights");
    }
}

#[test]
fn a_run_of_several_processes_resumes_from_a_checkpoint() {
    let folder = tempfile::tempdir().unwrap();
    let run = |steps, name: &str| format!("launch -n 2 -- {RUN} --steps {steps} --checkpoint {name}");
    assert_eq!(schedc(folder.path(), &run(4, "whole")).code, 0);
    assert_eq!(schedc(folder.path(), &run(2, "parts")).code, 0);
    let resumed = schedc(folder.path(), &run(4, "parts"));
    assert!(resumed.out.contains("resumed"), "{}{}", resumed.out, resumed.err);
    let at = |name: &str| shards(&folder.path().join(name), 4, 2);
    assert!(at("whole") == at("parts"));
}

/// Starts two processes by hand, waits for the first step, and acts on the second.
fn after_the_first_step(act: &str) -> (Done, Duration) {
    let folder = tempfile::tempdir().unwrap();
    let port = free_port();
    let words = format!("{RUN} --steps 100000000 --stall-timeout 1");
    let mut first = process(folder.path(), &words, &place(0, 2, port, "s"));
    let mut second = process(folder.path(), &words, &place(1, 2, port, "s"));
    let mut lines = BufReader::new(first.stdout.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap().starts_with("step")), "no step was taken");
    let reader = std::thread::spawn(move || lines.for_each(drop));
    let kill = |signal: &str| {
        let sent = Command::new("kill").args([signal, &second.id().to_string()]).status();
        assert!(sent.unwrap().success());
    };
    kill(act);
    let started = Instant::now();
    let ended = done(first);
    let took = started.elapsed();
    reader.join().unwrap();
    let _ = second.kill();
    let _ = second.wait();
    (ended, took)
}

#[test]
fn a_killed_process_ends_the_others_with_the_table() {
    let (ended, took) = after_the_first_step("-KILL");
    ended.refused(1, &["schedc::execute::process_failed", "process 1 is gone", "waits for"]);
    assert!(took < Duration::from_secs(2), "{took:?}");
}

#[test]
fn a_stopped_process_ends_the_others_within_the_stall_timeout() {
    let (ended, took) = after_the_first_step("-STOP");
    ended.refused(1, &["schedc::execute::stalled", "its process gives no sign of life", "waits for"]);
    assert!(took < Duration::from_secs(4), "{took:?}");
}

#[test]
fn a_rank_that_panics_ends_all_processes() {
    let folder = tempfile::tempdir().unwrap();
    let failed = schedc(folder.path(), &format!("launch -n 2 -- {RUN} --inject r1@20=panic"));
    failed.refused(1, &["schedc::execute::rank_failed", "schedc::execute::process_failed", "waits for"]);
    failed.refused(1, &["schedc::cli::process_ended"]);
}

#[test]
fn a_killed_launch_takes_its_processes_with_it() {
    let folder = tempfile::tempdir().unwrap();
    let words = format!("launch -n 2 -- {RUN} --steps 100000000");
    let mut launch = process(folder.path(), &words, &[]);
    let mut lines = BufReader::new(launch.stdout.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap().starts_with("step")), "no step was taken");
    launch.kill().unwrap();
    launch.wait().unwrap();
    // The processes write to the same pipe, so it ends when all of them have.
    let (sender, ended) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        lines.for_each(drop);
        let _ = sender.send(());
    });
    ended.recv_timeout(Duration::from_secs(20)).expect("a process outlives the launch");
}

/// Both processes of a run, with what each adds.
fn pair(first: (&str, &str), second: (&str, &str)) -> [Done; 2] {
    let folder = tempfile::tempdir().unwrap();
    let port = free_port();
    let start = |number, (words, secret): (&str, &str)| {
        let words = format!("{RUN} --rendezvous-timeout 3 {words}");
        process(folder.path(), &words, &place(number, 2, port, secret))
    };
    let (first, second) = (start(0, first), start(1, second));
    [done(first), done(second)]
}

#[test]
fn another_plan_is_refused_by_name_on_every_process() {
    for ended in pair(("", "s"), ("--vocab 300 --seed 7", "s")) {
        ended.refused(1, &["schedc::launch::differs", "`plan`, `seed`", "process 0", "process 1"]);
    }
}

#[test]
fn another_secret_is_refused_and_does_not_reach_the_run() {
    let [first, second] = pair(("", "right"), ("", "wrong"));
    second.refused(1, &["schedc::launch::wrong_secret"]);
    first.refused(1, &["schedc::launch::missing_process", "process 1", "was turned away"]);
}

#[test]
fn what_one_process_can_do_only_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    for flag in ["--check", "--dump d", "--trace t.json"] {
        let refused = schedc(folder.path(), &format!("launch -n 2 -- {RUN} {flag}"));
        refused.refused(1, &["schedc::execute::one_process_only", flag.split(' ').next().unwrap()]);
    }
    schedc(folder.path(), &format!("launch -n 3 -- {RUN}")).refused(1, &["schedc::launch::uneven"]);
    schedc(folder.path(), "launch -n 2 -- list").refused(2, &["schedc::cli::launch_runs"]);
}

#[test]
fn a_port_that_is_taken_and_a_missing_process_are_told() {
    let folder = tempfile::tempdir().unwrap();
    let taken = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = taken.local_addr().unwrap().port();
    let words = format!("{RUN} --rendezvous-timeout 1");
    let ended = done(process(folder.path(), &words, &place(0, 2, port, "s")));
    ended.refused(1, &["schedc::launch::cannot_listen"]);
    drop(taken);
    let ended = done(process(folder.path(), &words, &place(1, 2, port, "s")));
    ended.refused(1, &["schedc::launch::nobody_listens"]);
}

#[test]
fn strangers_do_not_harm_the_rendezvous() {
    let folder = tempfile::tempdir().unwrap();
    let port = free_port();
    let words = format!("{RUN} --steps 1 --rendezvous-timeout 10");
    let first = process(folder.path(), &words, &place(0, 2, port, "s"));
    let mut strangers = Vec::new();
    while strangers.len() < 4 {
        if let Ok(mut stream) = TcpStream::connect(("127.0.0.1", port)) {
            if strangers.len() > 1 {
                stream.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
            }
            strangers.push(stream);
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    let second = done(process(folder.path(), &words, &place(1, 2, port, "s")));
    let first = done(first);
    assert_eq!((first.code, second.code), (0, 0), "{}{}", first.err, second.err);
}

#[test]
fn the_variables_of_torchrun_and_slurm_are_understood() {
    let read = |variables: &[(&str, &str)]| {
        let get = |name: &'static str| {
            variables.iter().find(|(own, _)| *own == name).map(|(_, value)| (*value).to_owned())
        };
        Place::read(get, None, Duration::from_secs(1))
    };
    let torch = [("RANK", "1"), ("WORLD_SIZE", "4"), ("MASTER_ADDR", "node7"), ("MASTER_PORT", "29500")];
    let found = read(&torch).unwrap().unwrap();
    assert_eq!((found.process, found.processes, found.host.as_str(), found.port), (1, 4, "node7", 29501));
    let slurm = [("SLURM_PROCID", "3"), ("SLURM_NTASKS", "4"), ("SLURM_NNODES", "1")];
    let found = read(&slurm).unwrap().unwrap();
    assert_eq!((found.process, found.processes, found.host.as_str()), (3, 4, "127.0.0.1"));
    let missing = read(&slurm[..2]);
    assert!(matches!(missing, Err(LaunchError::MissingVariable { name: "MASTER_ADDR", .. })), "{missing:?}");
    let wrong = read(&[("RANK", "4"), ("WORLD_SIZE", "4")]);
    assert!(matches!(wrong, Err(LaunchError::BadVariable { name: "RANK", .. })), "{wrong:?}");
    assert!(read(&[("WORLD_SIZE", "1")]).unwrap().is_none() && read(&[]).unwrap().is_none());
    assert!(read(&[("SCHEDC_PROCESSES", "1"), ("RANK", "1"), ("WORLD_SIZE", "2")]).unwrap().is_none());
}

/// Codes that only broken networks and other machines cause; the rendezvous itself says what they are.
#[test]
fn an_open_address_wants_a_secret_and_a_place_is_taken_once() {
    let folder = tempfile::tempdir().unwrap();
    let mut open = place(1, 2, 1, "");
    open.push(("MASTER_ADDR", "192.0.2.1".to_owned()));
    done(process(folder.path(), RUN, &open)).refused(1, &["schedc::launch::no_secret"]);
    let mut nowhere = place(1, 2, 1, "s");
    nowhere.push(("MASTER_ADDR", "no such machine".to_owned()));
    done(process(folder.path(), RUN, &nowhere)).refused(1, &["schedc::launch::no_address"]);
    let bad = [("SCHEDC_PROCESSES", "many".to_owned())];
    done(process(folder.path(), RUN, &bad)).refused(1, &["schedc::launch::bad_variable"]);
    let bad = [("SCHEDC_PROCESSES", "2".to_owned())];
    done(process(folder.path(), RUN, &bad)).refused(1, &["schedc::launch::missing_variable"]);
    let port = free_port();
    let words = "run 1f1b -p 3 -m 4 --layers 3 --hidden 16 --heads 2 --seq 8 --rendezvous-timeout 5";
    let all = [0, 1, 1].map(|number| process(folder.path(), words, &place(number, 3, port, "s"))).map(done);
    for ended in &all {
        ended.refused(1, &["schedc::launch::"]);
    }
    all[0].refused(1, &["schedc::launch::place_taken", "two processes are process 1"]);
    let apart =
        LaunchError::Unreachable { process: 1, other: "process 2".into(), reason: "timed out".into() };
    assert_eq!(apart.code().unwrap().to_string(), "schedc::launch::unreachable");
}
