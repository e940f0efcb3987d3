//! Tree -> program: every name bound, every number known.
//!
//! In: the trees of the library and of the file with the schedule, and the numbers of one compilation. Out: a [`Program`]
//! whose catalog is sound by itself (no need without a producer, no cycle of needs, no class without an end), whose stages are
//! spread evenly, and whose orders hold no expression any more. Nothing is said yet about whether the order can run.

mod block;
mod catalog;
mod check;
mod classes;
mod collectives;
mod error;
mod expr;
mod greedy;
mod members;
mod names;
mod needs;
mod order;
mod partition;
mod require;
mod shape;
mod streams;
mod transforms;

pub use self::error::ResolveError;
use self::expr::Scope;
use self::names::{Declarations, Parts};
pub use self::partition::Partitioning;
use crate::ir::{Dims, Program};
use crate::syntax::ast;

/// What is to be compiled, and for which numbers.
#[derive(Clone, Debug)]
pub struct Request<'tree> {
    /// The trees of the standard library; their classes, passes and transforms are visible everywhere.
    pub library: &'tree [ast::File],
    /// The file that holds the schedule; one of the library or the user's own.
    pub file: &'tree ast::File,
    /// Which schedule of the file; `None`: its only one.
    pub schedule: Option<&'tree str>,
    /// Transforms to apply after those that the schedule applies itself.
    pub with: &'tree [String],
    /// Values for parameters of the schedule.
    pub set: &'tree [(String, i64)],
    /// `p`.
    pub ranks: u32,
    /// `m`.
    pub microbatches: u32,
    /// The model that buffers are sized for.
    pub model: Model,
}

/// The dimensions of a model that may leave the number of its layers to the schedule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Model {
    /// Transformer layers; `None`: one for each stage.
    pub layers: Option<u32>,
    /// Everything else; its `layers` are not looked at.
    pub dims: Dims,
    /// How its layers are spread over the stages.
    pub partition: Partitioning,
}

impl Model {
    /// The model for a schedule with so many stages.
    #[must_use]
    pub fn for_stages(&self, stages: usize) -> Dims {
        let layers = self.layers.or(self.partition.layers()).unwrap_or(stages as u32);
        Dims { layers, ..self.dims }
    }
}

/// Binds a schedule's names and computes its numbers.
///
/// # Errors
/// Every error that can be seen without the ones before it mended, up to 20.
pub fn resolve(request: &Request<'_>) -> Result<Program, Vec<ResolveError>> {
    bind(request).map_err(|mut errors| {
        errors.truncate(MAX_ERRORS);
        errors
    })
}

/// More errors than this help nobody.
const MAX_ERRORS: usize = 20;

fn bind(request: &Request<'_>) -> Result<Program, Vec<ResolveError>> {
    let mut errors = Vec::new();
    shape::check_numbers(request, &mut errors);
    let declarations = Declarations::collect(request, &mut errors);
    let schedule = match names::choose(request) {
        Ok(schedule) => schedule,
        Err(error) => {
            errors.push(error);
            return Err(errors);
        }
    };
    let parts = Parts::of(schedule, &mut errors);
    let Some(head) = (if errors.is_empty() { head(request, schedule, &mut errors) } else { None }) else {
        return Err(errors);
    };
    let shape = shape::shape(request, &parts, &head, &mut errors);
    let drafts = catalog::draft(request, &declarations, &parts, &mut errors);
    let (Some(mut shape), Some(mut drafts)) = (shape, drafts) else { return Err(errors) };
    shape::check_size(&shape, &drafts, &mut errors);
    if !errors.is_empty() {
        return Err(errors);
    }
    if shape.slices == 1 {
        drafts.keep_sequences_whole();
    }
    let model = request.model.for_stages(shape.depth() as usize);
    match request.model.partition.spread(model.layers, &shape, drafts.sharded()) {
        Ok(partition) => shape.partition = partition,
        Err(error) => {
            errors.push(error);
            return Err(errors);
        }
    }
    drafts.classes = classes::sized(&model, &declarations, &shape, &drafts, &mut errors);
    check::catalog(&drafts, &shape, &mut errors);
    let requirements = require::requirements(&parts, &head, &shape, &mut errors);
    let ranks = order::ranks(&parts, head, &shape, &drafts, &mut errors);
    let (Some((ranks, order)), true) = (ranks, errors.is_empty()) else { return Err(errors) };
    let (catalog, transforms) = drafts.split();
    Ok(Program {
        name: schedule.name.text.clone(),
        span: schedule.name.span,
        shape,
        model,
        catalog,
        ranks,
        retime: parts.retime,
        order,
        transforms,
        requirements,
    })
}

/// What every expression of a schedule may use, with its values.
#[derive(Clone, Debug)]
struct Head {
    scope: Scope,
    values: Vec<i64>,
}

impl Head {
    fn push(&mut self, name: &str, value: i64) {
        self.scope.push(name, expr::Type::Number);
        self.values.push(value);
    }
}

/// Ranks, microbatches and parameters.
fn head(request: &Request<'_>, schedule: &ast::Schedule, errors: &mut Vec<ResolveError>) -> Option<Head> {
    let mut head = Head { scope: Scope::new("in the parameters of a schedule", &[]), values: Vec::new() };
    head.push("ranks", i64::from(request.ranks));
    head.push("microbatches", i64::from(request.microbatches));
    for (name, _) in request.set {
        if !schedule.params.iter().any(|param| param.name.text == *name) {
            let names = schedule.params.iter().map(|param| param.name.text.as_str());
            errors.push(ResolveError::UnknownParameter {
                parameter: name.clone(),
                schedule: schedule.name.text.clone(),
                help: error::suggest(name, names),
                at: schedule.name.span,
            });
        }
    }
    for param in &schedule.params {
        names::refuse_known(&head.scope, "parameter", &param.name, errors);
        let default = expr::number(&param.value, &head.scope, errors);
        let set =
            request.set.iter().rev().find(|(name, _)| *name == param.name.text).map(|&(_, value)| value);
        let value = match (set, default) {
            (Some(value), _) => value,
            (None, Some(code)) => code
                .eval(&head.values)
                .map_err(|fault| errors.push(fault.on(String::new())))
                .unwrap_or_default(),
            (None, None) => 0,
        };
        head.push(&param.name.text, value);
    }
    errors.is_empty().then_some(head)
}
