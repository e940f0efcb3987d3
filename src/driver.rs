//! The rooms, called in order: the table of contents.

use miette::Diagnostic;
use thiserror::Error as ThisError;

use crate::cost::{CostError, CostSpec, Costs};
use crate::diag::{Cause, Error, Located};
use crate::ir::{FileId, Limit, Mode, Program, Requirement, Schedule};
use crate::resolve::{Model, Request, ResolveError};
use crate::source::{Library, Sources};
use crate::syntax::{self, ast};
use crate::verify::{Options, Refused, Verified, Violation};
use crate::{forward, lower, order, resolve, simulate, timing, torch, transform, verify};

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
    /// Whether idle time is filled, and how many microbatches more a rank may hold for it.
    pub retime: Option<u32>,
    /// The model that buffers are sized for.
    pub model: Model,
    /// How long passes, messages and collectives take; [`crate::cost::UNIT`] where nothing is said.
    pub costs: &'a CostSpec,
    /// What a step is for: all of it, or the loss only.
    pub mode: Mode,
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
    /// A schedule of PyTorch's, which knows its own ranks and microbatches.
    Torch(&'a torch::Sound),
}

/// Text to verified plan.
///
/// # Errors
/// What the first room that is not content has to say. A plan that lowering made and the verifier refuses is a bug in schedc, and
/// reported as such.
pub fn compile(job: &Job<'_>, sources: &mut Sources) -> Result<Verified, Vec<Error>> {
    let (schedule, costs, requirements) = timed(job, sources)?;
    let plan = lower::lower(&schedule, &costs).map_err(|error| vec![Error::new(error, sources)])?;
    let plan = verify::verify(plan, &Options::default())
        .map_err(|refused| vec![Error::new(Unsound::from(refused), sources)])?;
    simulate::check(&plan, &costs, &requirements).map_err(|errors| all(errors, sources))?;
    Ok(plan)
}

/// Text to every rank's order, transforms applied; the backward side left out where the job is forward only.
///
/// # Errors
/// What the first room that is not content has to say.
pub fn schedule(job: &Job<'_>, sources: &mut Sources) -> Result<Schedule, Vec<Error>> {
    timed(job, sources).map(|(schedule, ..)| schedule)
}

/// The schedule, the costs that it was made for, and what its plan must keep: of a forward-only twin nothing.
fn timed(job: &Job<'_>, sources: &mut Sources) -> Result<(Schedule, Costs, Vec<Requirement>), Vec<Error>> {
    let library = Library::load(sources);
    let own;
    let (file, name) = match job.input {
        Input::Library(name) => {
            let names = library.schedules().map(|entry| entry.name);
            let unknown = || vec![Error::new(ResolveError::unknown_schedule(name, names.clone()), sources)];
            (library.schedule(name).ok_or_else(unknown)?, Some(name))
        }
        Input::File { name, bytes, schedule } => {
            own = parse(name, bytes, sources)?;
            (&own, schedule)
        }
        Input::Torch(sound) => {
            let text = torch::program_text(sound).map_err(|error| vec![Error::new(error, sources)])?;
            own = parse("torch.sched", text.as_bytes(), sources)?;
            (&own, None)
        }
    };
    let request = Request {
        library: library.files(),
        file,
        schedule: name,
        with: job.with,
        set: job.set,
        ranks: job.ranks,
        microbatches: job.microbatches,
        model: job.model.clone(),
    };
    let program = resolve::resolve(&request).map_err(|errors| all(errors, sources))?;
    let costs = bind(job.costs, &program).map_err(|error| vec![Error::new(error, sources)])?;
    let mut schedule = match job.input {
        Input::Torch(sound) => {
            let file = sources.add(sound.rows().name(), sound.rows().text());
            torch::schedule(sound, &program, file)
        }
        _ => order::order(&program, &costs).map_err(|errors| all(errors, sources))?,
    };
    for transform in &program.transforms {
        schedule = transform::apply(schedule, transform, &costs)
            .map_err(|error| vec![Error::new(error, sources)])?;
    }
    // What was placed by time before a transform is placed by time after it.
    let anew = schedule.by_time && !schedule.transforms.is_empty();
    if let Some(extra) = job.retime.or(anew.then_some(0)) {
        let limits: Vec<Limit> =
            program.transforms.iter().flat_map(|transform| transform.limits.iter().copied()).collect();
        timing::retime(&mut schedule, &limits, &costs, extra);
    }
    match job.mode {
        Mode::Training => Ok((schedule, costs, program.requirements)),
        Mode::ForwardOnly => twin(schedule, job.costs)
            .map(|(schedule, costs)| (schedule, costs, Vec::new()))
            .map_err(|error| vec![Error::new(error, sources)]),
    }
}

/// The forward-only twin, and the costs of what is left.
fn twin(schedule: Schedule, costs: &CostSpec) -> Result<(Schedule, Costs), Cause> {
    let schedule = forward::twin(schedule)?;
    let costs = costs.lenient().bind(&schedule.catalog, &schedule.shape, &schedule.model)?;
    Ok((schedule, costs))
}

/// The costs of all that the schedule and its transforms have. A transform's ids continue those before it, so they serve every room.
fn bind(costs: &CostSpec, program: &Program) -> Result<Costs, CostError> {
    let mut catalog = program.catalog.clone();
    for transform in &program.transforms {
        transform::extend(&mut catalog, transform);
    }
    costs.bind(&catalog, &program.shape, &program.model)
}

fn all<E>(errors: Vec<E>, sources: &Sources) -> Vec<Error>
where
    crate::diag::Cause: From<E>,
{
    errors.into_iter().map(|error| Error::new(error, sources)).collect()
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
#[error("the compiled plan is not sound, which is a bug in schedc: {refused}")]
#[diagnostic(
    code(schedc::driver::unsound),
    help("please report it with the schedule and the command line; the plan was not written")
)]
pub struct Unsound {
    refused: Box<Refused>,
    /// What is wrong with the plan.
    #[related]
    violations: Vec<Violation>,
}

impl From<Box<Refused>> for Unsound {
    fn from(mut refused: Box<Refused>) -> Self {
        let violations = std::mem::take(&mut refused.violations);
        Self { refused, violations }
    }
}

impl Located for Unsound {
    fn file(&self) -> Option<FileId> {
        None
    }
}
