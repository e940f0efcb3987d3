//! What to compile: a library name, a `.sched` file or a plan file, and the numbers for it.

use std::fs;
use std::io::Read as _;
use std::path::Path;

use miette::Diagnostic;
use schedc::driver::{self, Input, Job};
use schedc::source::Sources;
use schedc::verify::Verified;
use thiserror::Error;

use super::Failure;
use super::model::ModelArgs;

/// The schedule and its shape.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct JobArgs {
    /// A schedule of the library (`schedc list`), a `.sched` file, or for `run` a plan file
    schedule: String,
    /// A transform to apply; again for more
    #[arg(long, value_name = "TRANSFORM")]
    with: Vec<String>,
    /// Pipeline ranks
    #[arg(long, short = 'p', value_name = "P")]
    ranks: Option<u32>,
    /// Microbatches in a step
    #[arg(long, short = 'm', value_name = "M")]
    microbatches: Option<u32>,
    /// A parameter of the schedule; again for more
    #[arg(long, value_name = "NAME=VALUE", value_parser = parameter)]
    set: Vec<(String, i64)>,
    /// Which schedule of a file that holds several
    #[arg(long, value_name = "NAME")]
    schedule_name: Option<String>,
}

fn parameter(text: &str) -> Result<(String, i64), String> {
    let (name, value) = text.split_once('=').ok_or("write NAME=VALUE, such as v=2")?;
    let value = value
        .trim()
        .parse()
        .map_err(|_| format!("`{value}` is not an integer; write NAME=VALUE, such as v=2"))?;
    Ok((name.trim().to_owned(), value))
}

/// A command line that can't be carried out.
#[derive(Debug, Error, Diagnostic)]
pub(crate) enum JobError {
    /// A number is missing.
    #[error("`{flag}` is missing")]
    #[diagnostic(
        code(schedc::cli::missing_flag),
        help("say for how many, for example `schedc {command} {schedule} --ranks 4 --microbatches 8`")
    )]
    MissingFlag {
        /// The flag.
        flag: &'static str,
        /// The command.
        command: &'static str,
        /// The schedule.
        schedule: String,
    },
    /// A file can't be read.
    #[error("can't read `{path}`: {reason}")]
    #[diagnostic(
        code(schedc::cli::unreadable),
        help("name a file that exists and may be read; `schedc list` has the schedules that need no file")
    )]
    Unreadable {
        /// The file.
        path: String,
        /// What the system says.
        reason: std::io::Error,
    },
    /// A file can't be written.
    #[error("can't write `{path}`: {reason}")]
    #[diagnostic(
        code(schedc::cli::unwritable),
        help("name a file in a folder that exists and may be written")
    )]
    Unwritable {
        /// The file.
        path: String,
        /// What the system says.
        reason: std::io::Error,
    },
    /// A plan where a schedule is asked for.
    #[error("`{path}` is a plan, which has been compiled already")]
    #[diagnostic(
        code(schedc::cli::already_a_plan),
        help(
            "check it with `schedc verify {path}`, train by it with `schedc run {path}`, or name a schedule"
        )
    )]
    AlreadyAPlan {
        /// The file.
        path: String,
    },
    /// A flag asks for another shape than a plan file has.
    #[error("`{flag} {asked}` contradicts the plan, which was compiled for {has}")]
    #[diagnostic(
        code(schedc::cli::contradiction),
        help("leave the flag out, or compile the schedule again with it")
    )]
    Contradiction {
        /// The flag.
        flag: String,
        /// Its value.
        asked: String,
        /// What the plan has.
        has: String,
    },
}

impl JobArgs {
    /// Compiles the schedule, or reads and verifies the plan.
    pub(crate) fn plan(&self, model: &ModelArgs) -> Result<Verified, Failure> {
        let path = Path::new(&self.schedule);
        if is_file_name(&self.schedule) && path.extension().is_none_or(|extension| extension != "sched") {
            let bytes = read(path, u64::MAX)?;
            if looks_like_a_plan(&bytes) {
                let plan =
                    super::verify::verified(&self.schedule, &bytes, &schedc::verify::Options::default())?;
                self.agree(&plan, model)?;
                return Ok(plan);
            }
        }
        self.compile("run", model)
    }

    /// Compiles the schedule.
    pub(crate) fn compile(&self, command: &'static str, model: &ModelArgs) -> Result<Verified, Failure> {
        let missing = |flag| {
            let schedule = self.schedule.clone();
            Failure::usage(JobError::MissingFlag { flag, command, schedule })
        };
        let text;
        let input = if is_file_name(&self.schedule) {
            text = read(Path::new(&self.schedule), schedc::syntax::MAX_BYTES + 1)?;
            if looks_like_a_plan(&text) {
                return Err(Failure::usage(JobError::AlreadyAPlan { path: self.schedule.clone() }));
            }
            Input::File { name: &self.schedule, bytes: &text, schedule: self.schedule_name.as_deref() }
        } else {
            Input::Library(&self.schedule)
        };
        let mut sources = Sources::default();
        let job = Job {
            input,
            with: &self.with,
            set: &self.set,
            ranks: self.ranks.ok_or_else(|| missing("--ranks"))?,
            microbatches: self.microbatches.ok_or_else(|| missing("--microbatches"))?,
            model: model.model(),
        };
        driver::compile(&job, &mut sources).map_err(Failure::all)
    }

    /// Refuses flags that say something else than a plan file.
    fn agree(&self, plan: &Verified, model: &ModelArgs) -> Result<(), Failure> {
        let header = &plan.plan().header;
        let numbers = [
            ("--ranks", self.ranks, header.ranks()),
            ("--microbatches", self.microbatches, header.microbatches),
        ];
        let number = numbers.into_iter().find_map(|(flag, asked, has)| {
            let asked = asked.filter(|&asked| asked != has)?;
            Some((flag.to_owned(), asked.to_string(), has.to_string()))
        });
        let dims = || {
            model
                .contradiction(&header.model)
                .map(|(flag, asked, has)| (flag.to_owned(), asked.to_string(), has.to_string()))
        };
        let with = || {
            let asked =
                (!self.with.is_empty() && self.with != header.transforms).then(|| self.with.join(", "))?;
            Some(("--with".to_owned(), asked, format!("transforms [{}]", header.transforms.join(", "))))
        };
        let set = || {
            let (name, value) = self.set.first()?;
            Some(("--set".to_owned(), format!("{name}={value}"), "fixed parameters".to_owned()))
        };
        match number.or_else(dims).or_else(with).or_else(set) {
            Some((flag, asked, has)) => Err(Failure::usage(JobError::Contradiction { flag, asked, has })),
            None => Ok(()),
        }
    }
}

/// Whether a word names a file rather than a schedule of the library.
fn is_file_name(word: &str) -> bool {
    Path::new(word).extension().is_some()
        || word.contains(std::path::MAIN_SEPARATOR)
        || Path::new(word).is_file()
}

fn looks_like_a_plan(bytes: &[u8]) -> bool {
    let start = bytes.trim_ascii_start();
    start.starts_with(b"schedc plan") || start.starts_with(b"{")
}

/// A file's bytes, `limit` of them at most.
pub(crate) fn read(path: &Path, limit: u64) -> Result<Vec<u8>, Failure> {
    let refuse = |reason| Failure::usage(JobError::Unreadable { path: path.display().to_string(), reason });
    let mut bytes = Vec::new();
    let file = fs::File::open(path).map_err(refuse)?;
    file.take(limit).read_to_end(&mut bytes).map_err(refuse)?;
    Ok(bytes)
}

/// Writes a file whole: beside its place first, then moved there.
pub(crate) fn write(
    path: &Path,
    write: impl FnOnce(&mut dyn std::io::Write) -> std::io::Result<()>,
) -> Result<(), Failure> {
    let refuse = |reason| Failure::usage(JobError::Unwritable { path: path.display().to_string(), reason });
    let mut beside = path.as_os_str().to_owned();
    beside.push(".part");
    let written = || -> std::io::Result<()> {
        let mut file = std::io::BufWriter::new(fs::File::create(&beside)?);
        write(&mut file)?;
        std::io::Write::flush(&mut file)?;
        fs::rename(&beside, path)
    };
    written().map_err(|reason| {
        let _ = fs::remove_file(&beside);
        refuse(reason)
    })
}
