//! `schedc launch`: starts the processes of a run on this machine, passes on what they say, and ends them together.

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpListener;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use clap::Parser as _;
use miette::Diagnostic;
use schedc::launch::nonce;
use thiserror::Error;

use super::{Cli, Failure};

/// How long processes may take to end by themselves after one has failed.
const GRACE: Duration = Duration::from_secs(3);

/// Has NCCL keep the order in which a process issues on several communicators, in graphs too.
pub(super) const IN_ORDER: &str = "NCCL_LAUNCH_ORDER_IMPLICIT";

/// Says that standard input is held by a launch.
const LEASH: &str = "SCHEDC_LEASH";

/// The pause between two looks at the processes.
const NAP: Duration = Duration::from_millis(10);

/// What `schedc launch` takes.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct LaunchArgs {
    /// How many processes: the ranks of the plan, or a number that divides them
    #[arg(short = 'n', long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1024))]
    processes: u32,
    /// What each of them runs: `run` and its arguments
    #[arg(last = true, required = true, value_name = "run …")]
    command: Vec<String>,
}

/// Why a launch fails.
#[derive(Debug, Error, Diagnostic)]
enum LaunchFailure {
    /// Another command than `run`.
    #[error("`launch` starts `run`, not `{command}`")]
    #[diagnostic(
        code(schedc::cli::launch_runs),
        help("write `schedc launch -n 2 -- run 1f1b --ranks 2 --microbatches 4`")
    )]
    LaunchRuns {
        /// What was asked for.
        command: String,
    },
    /// A process failed.
    #[error("process {process} of {processes} {how}, so all were ended")]
    #[diagnostic(
        code(schedc::cli::process_ended),
        help("the lines above that begin with `{process}` are its own, the table says who waited for whom")
    )]
    ProcessEnded {
        /// Which.
        process: usize,
        /// Of how many.
        processes: usize,
        /// How it ended.
        how: String,
    },
}

/// Starts the processes and waits for them.
pub(crate) fn launch(args: &LaunchArgs) -> Result<(), Failure> {
    let first = args.command.first().map(String::as_str).unwrap_or_default();
    if first != "run" {
        return Err(Failure::usage(LaunchFailure::LaunchRuns { command: first.chars().take(80).collect() }));
    }
    let words = std::iter::once("schedc").chain(args.command.iter().map(String::as_str));
    if let Err(error) = Cli::try_parse_from(words) {
        error.exit();
    }
    let mut children = Children(Vec::new());
    let processes = args.processes as usize;
    let failed = |process| {
        move |error: io::Error| {
            let how = format!("cannot be started: {error}");
            Failure::one(LaunchFailure::ProcessEnded { process, processes, how })
        }
    };
    let port = free_port().map_err(failed(0))?;
    let secret = std::env::var("SCHEDC_SECRET").ok().filter(|secret| !secret.is_empty());
    let secret = secret
        .unwrap_or_else(|| nonce().iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}")));
    for process in 0..processes {
        let mut command = Command::new(std::env::current_exe().map_err(failed(process))?);
        command.args(&args.command).stdin(Stdio::piped()).stderr(Stdio::piped()).env(LEASH, "1");
        command
            .env("SCHEDC_PROCESS", process.to_string())
            .env("SCHEDC_PROCESSES", args.processes.to_string());
        command.env("SCHEDC_PORT", port.to_string()).env("SCHEDC_SECRET", &secret);
        command.env("MASTER_ADDR", "127.0.0.1");
        if std::env::var_os(IN_ORDER).is_none() {
            command.env(IN_ORDER, "1");
        }
        let mut child = command.spawn().map_err(failed(process))?;
        if let Some(said) = child.stderr.take() {
            thread::spawn(move || pass_on(process, said));
        }
        let leash = child.stdin.take();
        children.0.push(Started { child, ended: None, _leash: leash });
    }
    let Some((process, status)) = children.wait() else { return Ok(()) };
    let failure = LaunchFailure::ProcessEnded { process, processes, how: how(status) };
    // What the threads have not passed on yet.
    thread::sleep(NAP * 5);
    Err(if status.code() == Some(2) { Failure::usage(failure) } else { Failure::one(failure) })
}

/// A port of this machine that nobody listens at.
fn free_port() -> io::Result<u16> {
    TcpListener::bind(("127.0.0.1", 0))?.local_addr().map(|address| address.port())
}

/// Passes lines on with the number of the process before them.
fn pass_on(process: usize, said: impl io::Read) {
    let mut said = BufReader::new(said);
    let mut line = Vec::new();
    while said.read_until(b'\n', &mut line).is_ok_and(|count| count > 0) {
        let text = String::from_utf8_lossy(&line);
        let _ = writeln!(io::stderr(), "{process}: {}", text.trim_end_matches('\n'));
        line.clear();
    }
}

fn how(status: ExitStatus) -> String {
    match status.code() {
        Some(code) => format!("exited with {code}"),
        None => format!("was ended from outside ({status})"),
    }
}

/// One of the processes.
struct Started {
    child: Child,
    ended: Option<ExitStatus>,
    /// Closed when the launch ends, however it ends.
    _leash: Option<ChildStdin>,
}

/// Ends this process when the launch that started it is gone, even if that was killed: its end of standard input closes then.
pub(super) fn on_a_leash() {
    if std::env::var_os(LEASH).is_none() {
        return;
    }
    thread::spawn(|| {
        let mut bytes = [0; 64];
        while io::stdin().read(&mut bytes).is_ok_and(|count| count > 0) {}
        let _ = writeln!(io::stderr(), "schedc launch is gone, so this process ends");
        std::process::exit(1);
    });
}

/// The processes; none outlives the launch.
struct Children(Vec<Started>);

impl Children {
    /// Waits for all; the first that failed, if one did. A process ended from outside is to blame before those that followed it.
    fn wait(&mut self) -> Option<(usize, ExitStatus)> {
        let mut failed: Option<(usize, ExitStatus)> = None;
        let mut deadline = None;
        loop {
            for (process, Started { child, ended, .. }) in self.0.iter_mut().enumerate() {
                if ended.is_some() {
                    continue;
                }
                *ended = child.try_wait().unwrap_or_default();
                if let Some(status) = ended.filter(|status| !status.success()) {
                    let worse =
                        failed.is_none_or(|(_, other)| other.code().is_some() && status.code().is_none());
                    if worse {
                        failed = Some((process, status));
                    }
                    deadline.get_or_insert_with(|| Instant::now() + GRACE);
                }
            }
            let late = deadline.is_some_and(|deadline| Instant::now() >= deadline);
            if late || self.0.iter().all(|started| started.ended.is_some()) {
                return failed;
            }
            thread::sleep(NAP);
        }
    }
}

impl Drop for Children {
    fn drop(&mut self) {
        for Started { child, ended, .. } in &mut self.0 {
            if ended.is_none() {
                let _ = child.kill();
                let _ = child.wait();
            }
        }
    }
}
