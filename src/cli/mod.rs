//! Arguments, files, exit codes. No compilation logic.

mod compare;
mod compile;
mod diff;
mod explain;
mod files;
mod job;
mod launch;
mod library;
mod limit;
mod model;
mod profile;
mod run;
mod simulate;
mod verify;
mod view;

use std::io::{self, Write as _};
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use miette::{Diagnostic, GraphicalReportHandler, GraphicalTheme};

/// A compiler of pipeline-parallel training schedules.
#[derive(Debug, Parser)]
#[command(name = "schedc", version, max_term_width = 110, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Compile a schedule into a verified plan
    Compile(Box<compile::CompileArgs>),
    /// Prove a plan right, or name every rule that it breaks (exit 0: sound, 1: refused, 2: usage)
    Verify(verify::VerifyArgs),
    /// What a schedule or a plan takes in time and memory, and why: idle time, critical path, peaks
    Simulate(Box<simulate::SimulateArgs>),
    /// Schedules side by side: makespan, bubble, memory, messages
    Compare(Box<compare::CompareArgs>),
    /// Where two schedules or plans begin to differ, rank by rank (exit 0: equal, 1: different, 2: usage)
    Diff(Box<diff::DiffArgs>),
    /// Draw schedules, plans and recorded runs: in the terminal, as SVG, as a page, as a Chrome trace
    View(Box<view::ViewArgs>),
    /// Train a GPT by a schedule or a plan, a thread for each rank
    Run(Box<run::RunArgs>),
    /// Measure each pass of a plan, for `simulate --profile`
    Profile(Box<profile::ProfileArgs>),
    /// Train with several processes on this machine: `schedc launch -n 2 -- run 1f1b --ranks 2 --microbatches 4`
    Launch(launch::LaunchArgs),
    /// List the library's schedules, with bubble and peak, and its transforms
    List(Box<library::ListArgs>),
    /// Print a file of the library: a schedule, `prelude` or `vocab`
    Show {
        /// Its name, as `schedc list` has it
        name: String,
    },
    /// What the code of a diagnostic means: the rule, why, what to do
    Explain {
        /// The code, such as `schedc::torch::receive_order` or its last words; without one, all codes
        code: Option<String>,
    },
    /// Print a `.sched` file in one form, in place
    Fmt(library::FmtArgs),
}

/// How a command ends when it does not succeed.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The input is wrong: these diagnostics say how. Exit 1.
    Refused(Vec<Box<dyn Diagnostic + Send + Sync>>),
    /// The command line is wrong: one diagnostic. Exit 2.
    Usage(Box<dyn Diagnostic + Send + Sync>),
}

impl Failure {
    /// Refuses for one reason.
    pub(crate) fn one(reason: impl Diagnostic + Send + Sync + 'static) -> Self {
        Self::Refused(vec![Box::new(reason)])
    }

    /// Refuses for several reasons.
    pub(crate) fn all<E: Diagnostic + Send + Sync + 'static>(reasons: Vec<E>) -> Self {
        Self::Refused(reasons.into_iter().map(|reason| Box::new(reason) as _).collect())
    }

    /// Refuses the command line.
    pub(crate) fn usage(reason: impl Diagnostic + Send + Sync + 'static) -> Self {
        Self::Usage(Box::new(reason))
    }
}

/// Reads the command line and does what it says.
pub(crate) fn main() -> ExitCode {
    let cli = Cli::parse();
    let done = match cli.command {
        Command::Compile(args) => compile::compile(&args),
        Command::Verify(args) => verify::verify(&args),
        Command::Simulate(args) => simulate::simulate(&args),
        Command::Compare(args) => compare::compare(&args),
        Command::Diff(args) => diff::diff(&args),
        Command::Explain { code } => explain::explain(code.as_deref()),
        Command::View(args) => view::view(&args),
        Command::Run(args) => run::run(&args),
        Command::Profile(args) => profile::profile(&args),
        Command::Launch(args) => launch::launch(&args),
        Command::List(args) => library::list(&args),
        Command::Show { name } => library::show(&name),
        Command::Fmt(args) => library::fmt(&args),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure::Refused(reasons)) => {
            for reason in &reasons {
                report(&**reason);
            }
            ExitCode::from(1)
        }
        Err(Failure::Usage(reason)) => {
            report(&*reason);
            ExitCode::from(2)
        }
    }
}

/// Prints a diagnostic with its source. A reader that has gone away is not told.
fn report(reason: &dyn Diagnostic) {
    let theme = if io::IsTerminal::is_terminal(&io::stderr()) {
        GraphicalTheme::unicode()
    } else {
        GraphicalTheme::unicode_nocolor()
    };
    let mut text = String::new();
    let handler = GraphicalReportHandler::new_themed(theme).with_width(110);
    if handler.render_report(&mut text, reason).is_err() {
        text = format!("{reason}\n");
    }
    let _ = io::stderr().write_all(text.as_bytes());
}

/// Writes to standard output. A reader that has gone away (`schedc … | head`) ends the command quietly.
pub(crate) fn print(text: &str) {
    if io::stdout().write_all(text.as_bytes()).is_err() {
        std::process::exit(0);
    }
}
