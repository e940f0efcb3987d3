//! `schedc compare`: schedules side by side, each compiled, proven and simulated.

use std::collections::BTreeSet;
use std::path::Path;

use schedc::cost::{CostSpec, Rates};
use schedc::driver::{self, Input, Job};
use schedc::ir::Bytes;
use schedc::simulate::Figures;
use schedc::source::Sources;
use schedc::torch::{Channel, Sound};
use schedc::verify::Verified;
use serde::Serialize;

use super::files::{self, Contents, Wanted};
use super::job::{self, CostArg, JobError, ModeArg};
use super::model::ModelArgs;
use super::{Failure, print};

/// What `schedc compare` takes.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct CompareArgs {
    /// Schedules of the library or `.sched` files; NAME:v=2,group=4 sets parameters of one
    #[arg(required = true, value_name = "SCHEDULE")]
    schedules: Vec<String>,
    /// Pipeline ranks; several with commas
    #[arg(long, short = 'p', value_name = "P", value_delimiter = ',', required = true)]
    ranks: Vec<u32>,
    /// Microbatches in a step; several with commas
    #[arg(long, short = 'm', value_name = "M", value_delimiter = ',', required = true)]
    microbatches: Vec<u32>,
    /// A transform to apply to all; again for more
    #[arg(long, value_name = "TRANSFORM")]
    with: Vec<String>,
    /// A parameter of all schedules; again for more
    #[arg(long, value_name = "NAME=VALUE", value_parser = job::parameter)]
    set: Vec<(String, i64)>,
    #[command(flatten)]
    cost: CostArg,
    #[command(flatten)]
    mode: ModeArg,
    /// Print JSON: an object for each row
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    model: ModelArgs,
}

/// One schedule at one size.
#[derive(Clone, Debug, Serialize)]
struct Row {
    schedule: String,
    ranks: u32,
    microbatches: u32,
    #[serde(flatten)]
    figures: Figures,
    /// Model FLOPs utilisation, where a device says what could be reached.
    #[serde(skip_serializing_if = "Option::is_none")]
    mfu: Option<f64>,
    /// Bytes that the rank with most takes on the device, parameters and optimizer included.
    #[serde(skip_serializing_if = "Option::is_none")]
    device_bytes: Option<u64>,
}

/// What a word of the command line names.
pub(crate) struct Entry {
    word: String,
    /// The file's name or the library's.
    pub(crate) name: String,
    /// What the file says.
    file: Option<Described>,
    /// Its parameters.
    pub(crate) set: Vec<(String, i64)>,
}

/// What a file says.
enum Described {
    Schedule(Vec<u8>),
    Torch(Sound),
}

/// Compiles and simulates every schedule at every size, and prints a row for each.
pub(crate) fn compare(args: &CompareArgs) -> Result<(), Failure> {
    job::refuse_twice(&args.set)?;
    let spec = args.cost.spec()?;
    let lenient = spec.lenient();
    let entries = args.schedules.iter().map(|word| entry(word, &args.set));
    let entries = entries.collect::<Result<Vec<_>, _>>()?;
    let mut rows = Vec::new();
    let mut catalogs = Vec::new();
    for &ranks in &args.ranks {
        for &microbatches in &args.microbatches {
            for entry in &entries {
                let plan = compiled(args, entry, ranks, microbatches, &lenient)?;
                rows.push(row(entry, &plan, &lenient)?);
                if catalogs.len() < entries.len() {
                    catalogs.push(plan.header.catalog.clone());
                }
            }
        }
    }
    spec.refuse_unknown(catalogs.iter()).map_err(Failure::one)?;
    if args.json {
        let text = serde_json::to_string_pretty(&rows).expect("rows of names and numbers have a JSON form");
        print(&(text + "\n"));
    } else {
        print(&table(&rows));
        print(&over_memory(&rows, &lenient));
    }
    Ok(())
}

/// A word with its parameters, and what is in the file that it names.
fn entry(word: &str, common: &[(String, i64)]) -> Result<Entry, Failure> {
    let mut entry = named(word, common)?;
    if job::is_file_name(&entry.name) {
        let name = &entry.name;
        entry.file = Some(match files::read(Path::new(name), Wanted::Job)? {
            Contents::Plan(_) => return Err(Failure::usage(JobError::AlreadyAPlan { path: name.clone() })),
            Contents::Torch(bytes) => {
                Described::Torch(super::verify::sound(name, &bytes, Channel::Gloo, None)?)
            }
            Contents::Schedule(text) => Described::Schedule(text),
        });
    }
    Ok(entry)
}

/// Takes a word apart: a name, and after a colon its parameters. Reads no file.
pub(crate) fn named(word: &str, common: &[(String, i64)]) -> Result<Entry, Failure> {
    let (name, mut set) = job::named(word)?;
    // What is said of one schedule goes before what is said of all.
    let inherited: Vec<_> =
        common.iter().filter(|(name, _)| !set.iter().any(|(own, _)| own == name)).cloned().collect();
    set.extend(inherited);
    job::refuse_twice(&set)?;
    Ok(Entry { word: word.to_owned(), name, file: None, set })
}

fn compiled(
    args: &CompareArgs,
    entry: &Entry,
    ranks: u32,
    microbatches: u32,
    costs: &CostSpec,
) -> Result<Verified, Failure> {
    let input = match &entry.file {
        Some(Described::Schedule(bytes)) => Input::File { name: &entry.name, bytes, schedule: None },
        Some(Described::Torch(sound)) => {
            super::verify::agree(sound, Some(ranks), Some(microbatches))?;
            Input::Torch(sound)
        }
        None => Input::Library(&entry.name),
    };
    let model = args.model.model(&args.cost)?;
    let job = Job {
        input,
        with: &args.with,
        set: &entry.set,
        ranks,
        microbatches,
        model,
        costs,
        retime: args.cost.retime,
        mode: args.mode.mode(),
    };
    driver::compile(&job, &mut Sources::default()).map_err(Failure::all)
}

fn row(entry: &Entry, plan: &Verified, spec: &CostSpec) -> Result<Row, Failure> {
    let costs = spec.bind_plan(&plan.header).map_err(Failure::one)?;
    let figures = Figures::of(plan, &costs);
    let rates = spec.rates();
    Ok(Row {
        schedule: entry.word.clone(),
        ranks: plan.header.ranks(),
        microbatches: plan.header.microbatches,
        mfu: rates.and_then(|rates| rates.mfu(&plan.header, figures.makespan)),
        device_bytes: rates.map(|rates| rates.most_bytes(plan)),
        figures,
    })
}

/// Names the schedules that need more memory than the device has.
fn over_memory(rows: &[Row], spec: &CostSpec) -> String {
    let Some(has) = spec.rates().map(Rates::memory) else { return String::new() };
    let over = rows.iter().filter_map(|row| Some((row, row.device_bytes.filter(|&needs| needs > has.0)?)));
    let line = |(row, needs): (&Row, u64)| {
        let (name, needs, has) = (&row.schedule, Bytes(needs).short(), has.short());
        format!("{name} needs {needs}, and the device has {has}: a run would end for want of memory\n")
    };
    over.map(line).collect()
}

/// What a row says of a schedule: names to the left, numbers to the right. State beside activations has a column for each class.
fn table(rows: &[Row]) -> String {
    let classes: BTreeSet<&String> = rows.iter().flat_map(|row| row.figures.held.keys()).collect();
    let mut head = vec!["schedule", "p", "m", "makespan", "bubble", "span bubble", "peak", "least"];
    head.extend(classes.iter().map(|class| class.as_str()));
    head.extend(["peak bytes", "messages", "message bytes"]);
    if rows.iter().any(|row| row.mfu.is_some()) {
        head.extend(["MFU", "device GiB"]);
    }
    let cells = |row: &Row| {
        let Row { schedule, ranks, microbatches, figures, mfu, device_bytes } = row;
        let mut cells = vec![schedule.clone(), ranks.to_string(), microbatches.to_string()];
        cells.extend([number(figures.makespan), percent(figures.bubble), percent(figures.span_bubble)]);
        cells.extend([number(figures.peak_max), number(figures.peak_min)]);
        let state = |class: &&String| figures.held.get(*class).map_or("-".to_owned(), |&most| number(most));
        cells.extend(classes.iter().map(state));
        let rest = [figures.peak_bytes, figures.messages, figures.message_bytes];
        cells.extend(rest.map(|count| count.to_string()));
        cells.extend(mfu.map(percent));
        cells.extend(device_bytes.map(gigabytes));
        cells
    };
    let head = head.into_iter().map(str::to_owned).collect();
    columns(&std::iter::once(head).chain(rows.iter().map(cells)).collect::<Vec<_>>())
}

/// Columns as wide as their longest cell: the first to the left, the others to the right. Every line has as many cells as the first.
pub(crate) fn columns(lines: &[Vec<String>]) -> String {
    let count = lines.first().map_or(0, Vec::len);
    let width = |column: usize| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..count).map(width).collect();
    let line = |cells: &Vec<String>| {
        let numbers = cells.iter().zip(&widths).skip(1).map(|(cell, width)| format!("  {cell:>width$}"));
        let numbers: String = numbers.collect();
        format!("{:<width$}{numbers}\n", cells[0], width = widths[0])
    };
    lines.iter().map(line).collect()
}

/// Bytes as memory is sold.
#[allow(clippy::cast_precision_loss, reason = "shown with two digits")]
fn gigabytes(bytes: u64) -> String {
    format!("{:.2}", bytes as f64 / f64::from(1 << 30))
}

/// A part of a whole.
pub(crate) fn percent(part: f64) -> String {
    format!("{:.2} %", part * 100.0)
}

/// A number with the word for one or for several.
pub(crate) fn counted(count: usize, [one, several]: [&str; 2]) -> String {
    format!("{count} {}", if count == 1 { one } else { several })
}

pub(crate) const RANKS: [&str; 2] = ["rank", "ranks"];
pub(crate) const STAGES: [&str; 2] = ["stage", "stages"];
pub(crate) const MICROBATCHES: [&str; 2] = ["microbatch", "microbatches"];
pub(crate) const INSTRUCTIONS: [&str; 2] = ["instruction", "instructions"];

/// With at most three decimals, and no more than it needs.
pub(crate) fn number(value: f64) -> String {
    let text = format!("{value:.3}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}
