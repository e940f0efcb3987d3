//! A schedule at a size, under costs and transforms -> its figures.

use std::time::{Duration, Instant};

use schedc::cost::CostSpec;
use schedc::driver::{self, Input, Job};
use schedc::ir::{Dims, Mode};
use schedc::resolve::Model;
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
    let dims = Dims { layers: 0, hidden: 16, heads: 2, sequence: 8, batch: 1, vocab: 256, tied: false };
    Job {
        input: Input::Library(&entry.name),
        with,
        set: &entry.set,
        ranks,
        microbatches,
        retime: None,
        model: Model { layers: None, dims },
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
    let spec = CostSpec::parse(costs).map_err(|error| error.to_string())?.lenient();
    let first =
        |errors: Vec<schedc::diag::Error>| errors.first().map_or_else(String::new, ToString::to_string);
    let plan = driver::compile(&job(entry, with, size, &spec), &mut Sources::default()).map_err(first)?;
    let bound = spec.bind_plan(&plan.header).map_err(|error| error.to_string())?;
    Ok(Figures::of(&plan, &bound))
}

/// How long it takes to order a schedule and to apply its transforms, from text.
pub(crate) fn generation(entry: &Entry, with: &[String], size: (u32, u32)) -> Option<Duration> {
    let started = Instant::now();
    let made = driver::schedule(&job(entry, with, size, &schedc::cost::UNIT), &mut Sources::default());
    let took = started.elapsed();
    made.is_ok().then_some(took)
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
