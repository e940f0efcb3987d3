//! `schedc list`, `show` and `fmt`: the library and the printer.

use std::fmt::Write as _;
use std::path::PathBuf;

use miette::Diagnostic;
use schedc::cost::{CostSpec, DEVICES, Device};
use schedc::driver::{self, Input, Job};
use schedc::ir::{Catalog, Dims, Precision};
use schedc::resolve::{Model, Partitioning};
use schedc::simulate::Figures;
use schedc::source::{Embedded, Entry, Library, Sources};
use thiserror::Error;

use super::compare::{MICROBATCHES, RANKS, counted};
use super::files::{self, Contents, Wanted};
use super::job::{CostArg, ModeArg};
use super::{Failure, compare, job, print};

/// What `schedc fmt` takes.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct FmtArgs {
    /// The file
    file: PathBuf,
    /// Change nothing; exit 1 if the file is not in that form
    #[arg(long)]
    check: bool,
}

/// What `schedc list` takes.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct ListArgs {
    /// Pipeline ranks that bubbles and peaks are shown for
    #[arg(long, short = 'p', value_name = "P", default_value_t = 8)]
    ranks: u32,
    /// Microbatches in a step
    #[arg(long, short = 'm', value_name = "M", default_value_t = 32)]
    microbatches: u32,
    /// A transform to apply to all; again for more
    #[arg(long, value_name = "TRANSFORM")]
    with: Vec<String>,
    #[command(flatten)]
    cost: CostArg,
    #[command(flatten)]
    mode: ModeArg,
}

/// Neither bubbles nor counts of activations depend on it.
const SMALL: Model = Model {
    layers: None,
    dims: Dims {
        layers: 0,
        hidden: 16,
        heads: 2,
        sequence: 8,
        batch: 1,
        vocab: 256,
        tied: false,
        precision: Precision::F32,
    },
    partition: Partitioning::Uniform,
};

/// Lists schedules with their bubble, their peak, their first sentence and their source, and transforms.
pub(crate) fn list(args: &ListArgs) -> Result<(), Failure> {
    let mut sources = Sources::default();
    let library = Library::load(&mut sources);
    let spec = args.cost.spec()?;
    let lenient = spec.lenient();
    let entries: Vec<Entry<'_>> = library.schedules().chain(library.transforms()).collect();
    let width = entries.iter().map(|entry| entry.name.len()).max().unwrap_or(0);
    refuse_unknown_transforms(&library, &args.with)?;
    let mut catalogs = Vec::new();
    let mut schedules = String::new();
    for entry in library.schedules() {
        let figures = match measured(args, entry.name, &lenient) {
            Ok((figures, catalog)) => {
                catalogs.push(catalog);
                let held = compare::number(figures.peak_max);
                format!("{:>8}  {held:>6}", compare::percent(figures.bubble))
            }
            Err(reason) => format!("{:>16}  ({reason})", "-"),
        };
        let what = [entry.summary, entry.source].join(" ");
        let _ = writeln!(schedules, "  {:width$}  {figures}  {}", entry.name, what.trim_end());
    }
    if !catalogs.is_empty() {
        spec.refuse_unknown(catalogs.iter()).map_err(Failure::one)?;
    }
    let applied = args.with.iter().fold(String::new(), |text, name| format!("{text} with {name}"));
    let size = format!(
        "{}, {}{applied}",
        counted(args.ranks as usize, RANKS),
        counted(args.microbatches as usize, MICROBATCHES)
    );
    let line = |entry: Entry<'_>| format!("  {:width$}  {}\n", entry.name, entry.summary);
    let transforms: String = library.transforms().map(line).collect();
    print(&format!(
        "schedules: bubble, and most activations on a rank in microbatches, at {size}\n{schedules}\n\
         transforms (--with)\n{transforms}\n\
         devices (--device)\n{}",
        devices()
    ));
    Ok(())
}

/// The devices that are shipped.
fn devices() -> String {
    let line = |device: &Embedded| format!("  {:<10}  {}", device.name, about(device.text));
    DEVICES.iter().map(line).collect::<Vec<_>>().join("\n") + "\n"
}

/// What the first line of a device file says.
fn about(text: &str) -> &str {
    text.lines().next().unwrap_or_default().trim_start_matches(['#', ' '])
}

/// A schedule's figures and its catalog, or the reason why it cannot be had.
fn measured(args: &ListArgs, name: &str, costs: &CostSpec) -> Result<(Figures, Catalog), String> {
    let job = Job {
        input: Input::Library(name),
        with: &args.with,
        set: &[],
        ranks: args.ranks,
        microbatches: args.microbatches,
        retime: args.cost.retime,
        model: SMALL,
        costs,
        mode: args.mode.mode(),
    };
    let plan = driver::compile(&job, &mut Sources::default())
        .map_err(|errors| errors.first().map_or_else(String::new, ToString::to_string))?;
    let bound = costs.bind_plan(&plan.header).map_err(|error| error.to_string())?;
    Ok((Figures::of(&plan, &bound), plan.header.catalog.clone()))
}

/// A transform that the library lacks is the command line's fault, not every schedule's.
fn refuse_unknown_transforms(library: &Library, with: &[String]) -> Result<(), Failure> {
    let known = |name: &&String| library.transforms().any(|entry| entry.name == name.as_str());
    match with.iter().find(|name| !known(name)) {
        Some(name) => {
            let names: Vec<&str> = library.transforms().map(|entry| entry.name).collect();
            Err(unknown(name, &names))
        }
        None => Ok(()),
    }
}

/// Prints a file of the library.
pub(crate) fn show(name: &str) -> Result<(), Failure> {
    let mut sources = Sources::default();
    let library = Library::load(&mut sources);
    if let Some(device) = Device::shipped(name) {
        print(device.text);
        return Ok(());
    }
    if let Some(text) = library.show(name) {
        print(text);
        return Ok(());
    }
    let entries = library.schedules().chain(library.transforms()).map(|entry| entry.name);
    let devices = DEVICES.iter().map(|device| device.name);
    let names: Vec<&str> = ["prelude", "vocab"].into_iter().chain(entries).chain(devices).collect();
    Err(unknown(name, &names))
}

fn unknown(name: &str, names: &[&str]) -> Failure {
    let help = schedc::diag::nearest(name, names.iter().copied())
        .map_or_else(|| format!("there are {}", names.join(", ")), |near| format!("did you mean `{near}`?"));
    Failure::usage(Unknown { name: name.to_owned(), help })
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
        contents => contents.into_bytes(),
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
