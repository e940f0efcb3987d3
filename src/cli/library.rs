//! `schedc list`, `show` and `fmt`: the library and the printer.

use std::path::PathBuf;

use miette::Diagnostic;
use schedc::driver;
use schedc::source::{Entry, Library, Sources};
use thiserror::Error;

use super::files::{self, Contents, Wanted};
use super::{Failure, job, print};

/// What `schedc fmt` takes.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct FmtArgs {
    /// The file
    file: PathBuf,
    /// Change nothing; exit 1 if the file is not in that form
    #[arg(long)]
    check: bool,
}

/// Lists schedules and transforms with their first sentence.
pub(crate) fn list() {
    let mut sources = Sources::default();
    let library = Library::load(&mut sources);
    let entries = || library.schedules().chain(library.transforms());
    let width = entries().map(|entry| entry.name.len()).max().unwrap_or(0);
    let line = |entry: Entry<'_>| format!("  {:width$}  {}\n", entry.name, entry.summary);
    let schedules: String = library.schedules().map(line).collect();
    let transforms: String = library.transforms().map(line).collect();
    print(&format!("schedules\n{schedules}\ntransforms (--with)\n{transforms}"));
}

/// Prints a file of the library.
pub(crate) fn show(name: &str) -> Result<(), Failure> {
    let mut sources = Sources::default();
    let library = Library::load(&mut sources);
    if let Some(text) = library.show(name) {
        print(text);
        return Ok(());
    }
    let entries = library.schedules().chain(library.transforms()).map(|entry| entry.name);
    let names: Vec<&str> = ["prelude", "vocab"].into_iter().chain(entries).collect();
    let help = schedc::diag::nearest(name, names.iter().copied())
        .map_or_else(|| format!("there are {}", names.join(", ")), |near| format!("did you mean `{near}`?"));
    Err(Failure::usage(Unknown { name: name.to_owned(), help }))
}

/// A name that the library does not have.
#[derive(Debug, Error, Diagnostic)]
#[error("the library has no `{name}`")]
#[diagnostic(code(schedc::cli::unknown_name), help("{help}"))]
struct Unknown {
    name: String,
    help: String,
}

/// A file that is not in the printer's form.
#[derive(Debug, Error, Diagnostic)]
#[error("`{name}` is not in the form that `schedc fmt` prints")]
#[diagnostic(code(schedc::cli::unformatted), help("run `schedc fmt {name}`"))]
struct Unformatted {
    name: String,
}

/// Prints a file in one form, in place.
pub(crate) fn fmt(args: &FmtArgs) -> Result<(), Failure> {
    let name = args.file.display().to_string();
    let bytes = match files::read(&args.file, Wanted::Schedule)? {
        Contents::Plan(_) => return Err(Failure::usage(job::JobError::AlreadyAPlan { path: name })),
        Contents::Schedule(text) => text,
    };
    let mut sources = Sources::default();
    let formatted = driver::format(&name, &bytes, &mut sources).map_err(Failure::all)?;
    if formatted.as_bytes() == bytes {
        return Ok(());
    }
    if args.check {
        return Err(Failure::one(Unformatted { name }));
    }
    files::write(&args.file, |file| file.write_all(formatted.as_bytes()))
}
