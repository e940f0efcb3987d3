//! The rooms, called in order: the table of contents.

use std::fmt::Write as _;

use miette::Diagnostic;
use thiserror::Error as ThisError;

use crate::cost::Costs;
use crate::diag::{Error, Located};
use crate::ir::{FileId, Schedule};
use crate::resolve::{Model, Request};
use crate::source::{STDLIB, Sources};
use crate::syntax::{self, ast};
use crate::verify::{Options, Refused, Verified};
use crate::{lower, order, resolve, transform, verify};

/// One compilation: what, and for which numbers.
#[derive(Clone, Debug)]
pub struct Job<'a> {
    /// The schedule.
    pub input: Input<'a>,
    /// Transforms to apply after those that the schedule applies itself.
    pub with: &'a [String],
    /// Values for parameters of the schedule.
    pub set: &'a [(String, i64)],
    /// `p`.
    pub ranks: u32,
    /// `m`.
    pub microbatches: u32,
    /// The model that buffers are sized for.
    pub model: Model,
}

/// Where a schedule comes from.
#[derive(Clone, Copy, Debug)]
pub enum Input<'a> {
    /// The library, by name.
    Library(&'a str),
    /// A file of the user's.
    File {
        /// What diagnostics call it.
        name: &'a str,
        /// What is in it.
        bytes: &'a [u8],
        /// Which schedule of several.
        schedule: Option<&'a str>,
    },
}

/// Text to verified plan.
///
/// # Errors
/// What the first room that is not content has to say. A plan that lowering made and the verifier refuses is a bug in schedc, and
/// reported as such.
pub fn compile(job: &Job<'_>, sources: &mut Sources) -> Result<Verified, Vec<Error>> {
    let schedule = schedule(job, sources)?;
    let costs = Costs::unit(&schedule.catalog, schedule.shape.chunks);
    let plan = lower::lower(&schedule, &costs).map_err(|error| vec![Error::new(error, sources)])?;
    verify::verify(plan, &Options::default()).map_err(|refused| vec![Error::new(Unsound { refused }, sources)])
}

/// Text to every rank's order, transforms applied.
///
/// # Errors
/// What the first room that is not content has to say.
pub fn schedule(job: &Job<'_>, sources: &mut Sources) -> Result<Schedule, Vec<Error>> {
    let library = parse_library(sources)?;
    let (file, name) = match job.input {
        Input::Library(name) => (None, Some(name)),
        Input::File { name, bytes, schedule } => (Some(parse(name, bytes, sources)?), schedule),
    };
    let request = Request {
        library: &library,
        file: file.as_ref(),
        schedule: name,
        with: job.with,
        set: job.set,
        ranks: job.ranks,
        microbatches: job.microbatches,
        model: job.model,
    };
    let program = resolve::resolve(&request).map_err(|errors| all(errors, sources))?;
    let mut schedule = order::order(&program).map_err(|errors| all(errors, sources))?;
    for transform in &program.transforms {
        let mut catalog = schedule.catalog.clone();
        transform::extend(&mut catalog, transform);
        let costs = Costs::unit(&catalog, schedule.shape.chunks);
        schedule =
            transform::apply(schedule, transform, &costs).map_err(|error| vec![Error::new(error, sources)])?;
    }
    Ok(schedule)
}

fn all<E>(errors: Vec<E>, sources: &Sources) -> Vec<Error>
where
    crate::diag::Cause: From<E>,
{
    errors.into_iter().map(|error| Error::new(error, sources)).collect()
}

fn parse_library(sources: &mut Sources) -> Result<Vec<ast::File>, Vec<Error>> {
    STDLIB.iter().map(|file| parse(&format!("stdlib/{}.sched", file.name), file.text.as_bytes(), sources)).collect()
}

fn parse(name: &str, bytes: &[u8], sources: &mut Sources) -> Result<ast::File, Vec<Error>> {
    let file = sources.add(name, String::from_utf8_lossy(bytes).into_owned());
    let tree = syntax::decode(file, bytes).and_then(|text| syntax::parse(file, text));
    tree.map_err(|error| vec![Error::new(error, sources)])
}

/// A `.sched` text in the printer's form.
///
/// # Errors
/// The text is not a `.sched` file.
pub fn format(name: &str, bytes: &[u8], sources: &mut Sources) -> Result<String, Vec<Error>> {
    parse(name, bytes, sources).map(|tree| syntax::print(&tree))
}

/// The plan that lowering made breaks a rule.
#[derive(Debug, ThisError, Diagnostic)]
#[error("the compiled plan is not sound; this is a bug in schedc")]
#[diagnostic(
    code(schedc::driver::unsound),
    help("please report it with the schedule and the command line; the plan was not written")
)]
pub struct Unsound {
    /// What is wrong with it.
    #[diagnostic_source]
    #[source]
    pub refused: Box<Refused>,
}

impl Located for Unsound {
    fn file(&self) -> Option<FileId> {
        None
    }
}

/// A schedule or a transform of the library, as `schedc list` shows it.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Its name.
    pub name: String,
    /// Whether it is a transform.
    pub transform: bool,
    /// Its parameters with their defaults, as written; empty where it has none.
    pub params: String,
    /// The first sentence of its description.
    pub about: String,
}

/// Everything that the library declares by a quoted name, in file order.
///
/// # Errors
/// None that a build which passes its tests can return: the library is embedded.
pub fn library() -> Result<Vec<Entry>, Vec<Error>> {
    let mut sources = Sources::default();
    let mut entries = Vec::new();
    for tree in parse_library(&mut sources)? {
        let text = sources.text(tree.id);
        for item in &tree.items {
            let (name, transform, params) = match item {
                ast::Item::Schedule(schedule) => (&schedule.name, false, params(schedule, &text)),
                ast::Item::Transform(transform) => (&transform.name, true, String::new()),
                ast::Item::Class(_) | ast::Item::Pass(_) => continue,
            };
            let about = sentence_before(&text, name.span.start as usize);
            entries.push(Entry { name: name.text.clone(), transform, params, about });
        }
    }
    Ok(entries)
}

fn params(schedule: &ast::Schedule, text: &str) -> String {
    let mut shown = String::new();
    for param in &schedule.params {
        let separator = if shown.is_empty() { "(" } else { ", " };
        let end = param.value.span.end as usize;
        let _ = write!(shown, "{separator}{}", &text[param.name.span.start as usize..end]);
    }
    if shown.is_empty() { shown } else { shown + ")" }
}

/// The first sentence of the `//!` lines right above a position.
fn sentence_before(text: &str, at: usize) -> String {
    let above = text[..at].lines().rev().skip(1);
    let mut lines: Vec<&str> = above.map_while(|line| line.trim().strip_prefix("//!")).map(str::trim).collect();
    lines.reverse();
    let joined = lines.join(" ");
    let end = joined.find(". ").map_or(joined.len(), |end| end + 1);
    joined[..end].trim_end().to_owned()
}
