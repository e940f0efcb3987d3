//! `schedc list`, `show` and `fmt`: the library and the printer.

use std::path::PathBuf;

use schedc::driver;
use schedc::source::Sources;
use schedc::syntax;

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
pub(crate) fn list() -> Result<(), Failure> {
    let library = driver::library().map_err(Failure::all)?;
    let width = library.iter().map(|entry| entry.name.len()).max().unwrap_or(0);
    for (title, transform) in [("schedules", false), ("transforms", true)] {
        print(&format!("{title}\n"));
        for entry in library.iter().filter(|entry| entry.transform == transform) {
            print(&format!("  {:width$}  {}{}\n", entry.name, entry.params, entry.about));
        }
    }
    Ok(())
}

/// Prints a file of the library.
pub(crate) fn show(name: &str) -> Result<(), Failure> {
    let text = driver::show(name).map_err(|error| Failure::usage(*error))?;
    print(text);
    Ok(())
}

/// Prints a file in one form, in place.
pub(crate) fn fmt(args: &FmtArgs) -> Result<(), Failure> {
    let bytes = job::read(&args.file, syntax::MAX_BYTES as u64 + 1)?;
    let name = args.file.display().to_string();
    let mut sources = Sources::default();
    let formatted = driver::format(&name, &bytes, &mut sources).map_err(|error| Failure::one(*error))?;
    if formatted.as_bytes() == bytes {
        return Ok(());
    }
    if args.check {
        return Err(Failure::one(driver::Unformatted { name }));
    }
    job::write(&args.file, |file| file.write_all(formatted.as_bytes()))
}
