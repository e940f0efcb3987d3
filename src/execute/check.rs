//! A step of the plan against a step of the same model on one rank without any schedule: the loss and every gradient.

use std::collections::BTreeMap;
use std::fmt;

use super::backend::Batch;
use super::cpu::CpuBackend;
use super::data::Tokens;
use super::error::ExecuteError;
use super::interpreter::{Engine, Finish};
use super::model::Train;
use super::reference::Reference;
use super::stored::{Copied, Whole, copies, gather};
use super::watchdog::Limits;
use crate::ir::{Bytes, Compute, Microbatch, Op, Plan, Site, Stage};
use crate::verify::Verified;

/// The largest relative difference that passes.
pub const TOLERANCE: f64 = 1e-5;

/// How many tensors the table lists.
const LISTED: usize = 8;

/// How a plan's step differs from the reference.
#[derive(Clone, Debug)]
pub struct CheckReport {
    /// The loss of the plan's step.
    pub loss: f64,
    /// The loss of the reference.
    pub reference_loss: f64,
    /// The gradients, by name of the tensor.
    pub tensors: Vec<Difference>,
    /// The order of microbatches, where the plan must repeat the reference bit for bit.
    pub bits_demanded: bool,
    /// What the interpreter allocated for the plan's buffers, by rank.
    pub arenas: Vec<Bytes>,
    /// The largest relative difference that passes.
    pub tolerance: f64,
}

/// What a step of a plan came to.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The mean loss.
    pub loss: f64,
    /// Every parameter with its gradient, by name.
    pub found: BTreeMap<String, Whole>,
    /// The gradients of second copies of parameters.
    pub copies: Vec<Copied>,
    /// What was allocated for the plan's buffers, by rank.
    pub arenas: Vec<Bytes>,
}

/// How one gradient differs.
#[derive(Clone, Debug)]
pub struct Difference {
    /// The tensor.
    pub name: String,
    /// The norm of the difference over the norm of the reference.
    pub relative: f64,
    /// Whether every bit is the same.
    pub bits_equal: bool,
}

impl CheckReport {
    /// The relative difference of the losses.
    #[must_use]
    pub fn loss_difference(&self) -> f64 {
        (self.loss - self.reference_loss).abs() / self.reference_loss.abs().max(f64::MIN_POSITIVE)
    }

    /// Whether the loss and every gradient have the reference's bits.
    #[must_use]
    pub fn bits_equal(&self) -> bool {
        self.loss.to_bits() == self.reference_loss.to_bits()
            && self.tensors.iter().all(|tensor| tensor.bits_equal)
    }

    /// Says whether the plan passes.
    ///
    /// # Errors
    /// A difference is larger than [`CheckReport::tolerance`], or bits differ where they must not.
    pub fn verdict(&self) -> Result<(), ExecuteError> {
        let loss = Difference {
            name: "loss".to_owned(),
            relative: self.loss_difference(),
            bits_equal: self.loss.to_bits() == self.reference_loss.to_bits(),
        };
        let all = || std::iter::once(&loss).chain(&self.tensors);
        // Not "greater than": a difference that is not a number fails, too.
        let passes = |found: &Difference| found.relative <= self.tolerance;
        if let Some(worst) = all().find(|found| !passes(found)) {
            return Err(ExecuteError::CheckFailed {
                what: worst.name.clone(),
                difference: worst.relative,
                tolerance: self.tolerance,
            });
        }
        match all().find(|found| self.bits_demanded && !found.bits_equal) {
            Some(found) => Err(ExecuteError::CheckBits { what: found.name.clone() }),
            None => Ok(()),
        }
    }
}

impl fmt::Display for CheckReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bits = |equal: bool| if equal { "bits equal" } else { "bits differ" };
        writeln!(f, "loss {:.9} · reference {:.9}", self.loss, self.reference_loss)?;
        let mut worst: Vec<&Difference> = self.tensors.iter().collect();
        worst.sort_by(|a, b| b.relative.total_cmp(&a.relative).then_with(|| a.name.cmp(&b.name)));
        let width = worst.iter().take(LISTED).map(|tensor| tensor.name.len()).max().unwrap_or(0);
        for tensor in worst.iter().take(LISTED) {
            writeln!(f, "{:width$}  {:9.2e}  {}", tensor.name, tensor.relative, bits(tensor.bits_equal))?;
        }
        let relative = format!("relative, by norm, {:e}", self.tolerance);
        let rule = if self.bits_demanded { "bit for bit" } else { &relative };
        let (count, all) = (self.tensors.len(), bits(self.bits_equal()));
        write!(f, "{count} gradients compared ({rule}): {all}")
    }
}

/// Runs one step of a plan and of the reference with the same weights and tokens; `batches` by microbatch.
///
/// # Errors
/// The plan cannot be run, or its run fails. A difference is no error here: see [`CheckReport::verdict`].
pub fn check(
    plan: &Verified,
    train: &Train,
    batches: &[Tokens],
    limits: &Limits,
) -> Result<CheckReport, ExecuteError> {
    let make = |rank| Ok(CpuBackend::new(&plan.header, rank, train)?);
    let mut engine = Engine::new(plan, make, limits)?;
    let arenas = engine.arena_bytes();
    let loss = engine.step(1, batches.to_vec(), Finish::Keep)?.ok_or(ExecuteError::NoLoss)?;
    let (found, copies) = (gather(engine.backends()), copies(engine.backends()));
    compare(plan, train, batches, &Outcome { loss, found, copies, arenas }, None)
}

/// Compares what a step of a plan came to with a step of the reference. With a tolerance bits may differ; without one they may where
/// a plan sums in another order.
///
/// # Errors
/// The model cannot be run.
pub fn compare(
    plan: &Plan,
    train: &Train,
    batches: &[Tokens],
    outcome: &Outcome,
    tolerance: Option<f64>,
) -> Result<CheckReport, ExecuteError> {
    let Outcome { loss, ref found, ref copies, ref arenas } = *outcome;
    let (exact, tolerance, arenas) = (tolerance.is_none(), tolerance.unwrap_or(TOLERANCE), arenas.clone());
    // Sums over slices are not taken in the order of sums over sequences.
    let order = common_order(plan).filter(|_| plan.header.slices == 1);
    // Two flows add up in two orders, and then the two sums.
    let bits_demanded =
        exact && plan.header.transforms.is_empty() && plan.header.flows == 1 && order.is_some();
    let microbatches = plan.header.microbatches;
    let order = order.unwrap_or_else(|| Microbatch::all(microbatches as usize).collect());
    let mut reference = Reference::new(&plan.header.model, train, microbatches)?;
    let batches: Vec<Batch<'_>> = batches.iter().map(Tokens::view).collect();
    let reference_loss = reference.accumulate(&batches, &order);

    let mut rest: BTreeMap<&str, &[f32]> =
        found.iter().map(|(name, whole)| (name.as_str(), whole.gradient.as_slice())).collect();
    if !plan.header.mode.is_training() {
        let bits_demanded = exact && plan.header.transforms.is_empty() && plan.header.slices == 1;
        let tensors = Vec::new();
        return Ok(CheckReport { loss, reference_loss, tensors, bits_demanded, arenas, tolerance });
    }
    let tensors = reference.tensors();
    let mut tensors: Vec<Difference> = tensors
        .iter()
        .map(|tensor| difference(tensor.name, rest.remove(tensor.name).unwrap_or(&[]), tensor.gradient))
        .collect();
    let whole: BTreeMap<String, Vec<f32>> =
        reference.tensors().iter().map(|tensor| (tensor.name.to_owned(), tensor.gradient.to_vec())).collect();
    tensors.extend(copies.iter().map(|copy| {
        let expected = whole.get(&copy.name).map_or(&[][..], Vec::as_slice);
        difference(&format!("{} on {}", copy.name, copy.rank), &copy.gradient, expected)
    }));
    tensors.extend(rest.into_iter().map(|(name, found)| difference(name, found, &[])));
    Ok(CheckReport { loss, reference_loss, tensors, bits_demanded, arenas, tolerance })
}

/// Compares a gradient with the reference's; another size is an infinite difference.
fn difference(name: &str, found: &[f32], expected: &[f32]) -> Difference {
    let name = name.to_owned();
    if found.len() != expected.len() {
        return Difference { name, relative: f64::INFINITY, bits_equal: false };
    }
    let square = |sum: f64, number: f64| number.mul_add(number, sum);
    let norm = expected.iter().map(|&number| f64::from(number)).fold(0.0, square).sqrt();
    let apart =
        found.iter().zip(expected).map(|(a, b)| f64::from(*a) - f64::from(*b)).fold(0.0, square).sqrt();
    let relative = if apart == 0.0 { 0.0 } else { apart / norm };
    let bits_equal = found.iter().zip(expected).all(|(a, b)| a.to_bits() == b.to_bits());
    Difference { name, relative, bits_equal }
}

/// The order in which weight gradients of microbatches are added up, if it is the same on every stage.
fn common_order(plan: &Plan) -> Option<Vec<Microbatch>> {
    let mut orders: BTreeMap<Stage, Vec<Microbatch>> = BTreeMap::new();
    for instr in plan.ranks.iter().flat_map(|rank| &rank.instrs) {
        let Op::Pass(pass) = instr.op else { continue };
        let computes = plan.header.catalog.kind(pass.kind).computes;
        let adds = matches!(computes, Some(Compute::StageBackward | Compute::StageWeightGrad));
        if let (true, Site::Stage(stage)) = (adds, pass.site) {
            orders.entry(stage).or_default().push(pass.microbatch);
        }
    }
    let mut orders = orders.into_values();
    let first = orders.next()?;
    orders.all(|order| order == first).then_some(first)
}
