//! A schedule at a size, under costs and transforms -> its figures.

use std::num::NonZero;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use schedc::cost::CostSpec;
use schedc::driver::{self, Input, Job};
use schedc::ir::{At, Dims, Mode, Placed, Precision, Schedule};
use schedc::resolve::{Model, Partitioning};
use schedc::simulate::Figures;
use schedc::source::{Library, Sources};

/// A schedule of the library with its parameters.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    /// As `schedc compare` takes it: `interleaved:v=4`.
    pub(crate) label: String,
    pub(crate) name: String,
    pub(crate) set: Vec<(String, i64)>,
}

/// What is measured beside every schedule with its own parameters.
const WITH_PARAMETERS: [(&str, &str, i64); 3] =
    [("interleaved", "v", 4), ("interleaved-zb", "v", 4), ("seq1f1b", "s", 4)];

/// Every schedule of the library, and some with other parameters.
pub(crate) fn entries() -> Vec<Entry> {
    let mut sources = Sources::default();
    let library = Library::load(&mut sources);
    let of = |name: &str| {
        let plain = Entry { label: name.to_owned(), name: name.to_owned(), set: Vec::new() };
        let others = WITH_PARAMETERS.into_iter().filter(|(known, ..)| *known == name);
        let others = others.map(|(name, parameter, value)| Entry {
            label: format!("{name}:{parameter}={value}"),
            name: name.to_owned(),
            set: vec![(parameter.to_owned(), value)],
        });
        std::iter::once(plain).chain(others.collect::<Vec<_>>()).collect::<Vec<_>>()
    };
    library.schedules().flat_map(|entry| of(entry.name)).collect()
}

fn job<'a>(
    entry: &'a Entry,
    with: &'a [String],
    (ranks, microbatches): (u32, u32),
    costs: &'a CostSpec,
) -> Job<'a> {
    // Figures do not depend on the model; a small one keeps plans small.
    let dims = Dims {
        layers: 0,
        hidden: 16,
        heads: 2,
        sequence: 8,
        batch: 1,
        vocab: 256,
        tied: false,
        precision: Precision::F32,
    };
    Job {
        input: Input::Library(&entry.name),
        with,
        set: &entry.set,
        ranks,
        microbatches,
        retime: None,
        model: Model { layers: None, dims, partition: Partitioning::Uniform },
        costs,
        mode: Mode::Training,
    }
}

/// The figures, or in a few words why there are none.
pub(crate) fn measure(
    entry: &Entry,
    with: &[String],
    size: (u32, u32),
    costs: &str,
) -> Result<Figures, String> {
    figures(&job(entry, with, size, &spec(costs)?))
}

/// The figures with idle time filled, where ranks may hold some microbatches more.
pub(crate) fn retimed(entry: &Entry, size: (u32, u32), costs: &str, extra: u32) -> Result<Figures, String> {
    figures(&Job { retime: Some(extra), ..job(entry, &[], size, &spec(costs)?) })
}

fn spec(costs: &str) -> Result<CostSpec, String> {
    Ok(CostSpec::parse(costs).map_err(|error| error.to_string())?.lenient())
}

fn figures(job: &Job<'_>) -> Result<Figures, String> {
    let first =
        |errors: Vec<schedc::diag::Error>| errors.first().map_or_else(String::new, ToString::to_string);
    let plan = driver::compile(job, &mut Sources::default()).map_err(first)?;
    let bound = job.costs.bind_plan(&plan.header).map_err(|error| error.to_string())?;
    Ok(Figures::of(&plan, &bound))
}

/// How long it takes to order a schedule and to apply its transforms, from text; and the activations of each rank.
pub(crate) fn generation(
    entry: &Entry,
    with: &[String],
    size: (u32, u32),
) -> Result<(Duration, Vec<f64>), String> {
    let started = Instant::now();
    let made = driver::schedule(&job(entry, with, size, &schedc::cost::UNIT), &mut Sources::default());
    let took = started.elapsed();
    let schedule = made.map_err(|errors| errors.first().map_or_else(String::new, ToString::to_string))?;
    Ok((took, peaks(&schedule)))
}

/// What each rank's order holds at most of what the pass that begins a microbatch makes, in microbatches of its share of the model.
fn peaks(schedule: &Schedule) -> Vec<f64> {
    let kinds = &schedule.catalog.kinds;
    let class = kinds.iter().find(|kind| kind.at == At::Stage).and_then(|kind| kind.makes.first().copied());
    let share = f64::from(schedule.shape.chunks * schedule.shape.slices);
    let peak = |order: &Vec<Placed>| {
        let (mut held, mut most) = (0_u32, 0);
        for kind in order.iter().map(|placed| schedule.catalog.kind(placed.pass.kind)) {
            held += u32::from(kind.makes.iter().any(|&made| Some(made) == class));
            most = most.max(held);
            held -= u32::from(kind.frees.iter().any(|&freed| Some(freed) == class));
        }
        f64::from(most) / share
    };
    schedule.orders.iter().map(peak).collect()
}

/// What `of` says of every entry, in their order, on all cores.
pub(crate) fn each<T: Send>(entries: &[Entry], of: impl Fn(&Entry) -> T + Sync) -> Vec<T> {
    let cores = thread::available_parallelism().map_or(1, NonZero::get);
    let next = AtomicUsize::new(0);
    let work = || {
        let mut done = Vec::new();
        while let Some((at, entry)) =
            Some(next.fetch_add(1, Ordering::Relaxed)).and_then(|at| Some((at, entries.get(at)?)))
        {
            done.push((at, of(entry)));
        }
        done
    };
    let mut all: Vec<(usize, T)> = thread::scope(|scope| {
        let threads: Vec<_> = (0..cores).map(|_| scope.spawn(work)).collect();
        threads
            .into_iter()
            .flat_map(|thread| thread.join().expect("a panic has been shown already"))
            .collect()
    });
    all.sort_by_key(|(at, _)| *at);
    all.into_iter().map(|(_, said)| said).collect()
}

/// With at most three decimals, and no more than it needs.
pub(crate) fn number(value: f64) -> String {
    let text = format!("{value:.3}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// A part of a whole.
pub(crate) fn percent(part: f64) -> String {
    format!("{:.2} %", part * 100.0)
}

/// A line of a table.
pub(crate) fn line(cells: &[String]) -> String {
    format!("| {} |\n", cells.join(" | "))
}

/// The two lines that a table begins with.
pub(crate) fn head(titles: &[&str]) -> String {
    let titles: Vec<String> = titles.iter().map(ToString::to_string).collect();
    let rule: Vec<String> = titles.iter().map(|_| "---".to_owned()).collect();
    format!("\n{}{}", line(&titles), line(&rule))
}
