//! A pass at a site -> the parts of the model that it computes, and how many operations each takes.
//!
//! The parts are those of the interpreter's kernels (`execute/cpu`): what is computed here in one pass and there in two is two parts.

use crate::cost::model::Training;
use crate::cost::pipeline::Pipeline;
use crate::cost::work::{Size, Work};
use crate::ir::{At, Catalog, Compute, Kind, Rank, Stage};

/// How many parts there are.
pub(super) const PARTS: usize = 10;

/// Operations of each part, by [`Part`]; passes over memory count as the operations that would take as long.
pub(super) type Parts = [f64; PARTS];

/// Something that passes are made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// Layers forward.
    LayerForward,
    /// The gradient of the layers' input.
    LayerInput,
    /// That of their weights.
    LayerWeights,
    /// Logits and their exponentials.
    Logits,
    /// The gradient of the output layer's input.
    OutputInput,
    /// That of its weights.
    OutputWeights,
    /// Exponentials made the gradient of the logits.
    Quotient,
    /// The input layer forward.
    Lookup,
    /// The input layer's gradient.
    Scatter,
    /// What algorithm 2 does between the parts of its barrier.
    Rescale,
}

/// Parts that nearly all time goes to. Where one was not measured in any pass nothing is said of it; the others take what their operations
/// come to, beside those that were.
pub(super) const LARGE: [Part; 6] = [
    Part::LayerForward,
    Part::LayerInput,
    Part::LayerWeights,
    Part::Logits,
    Part::OutputInput,
    Part::OutputWeights,
];

/// Operations that a core does while it moves one byte to or from memory: 50 to 100 a nanosecond beside about 10 bytes. Weighs the small parts
/// against the large ones as long as no measurement does.
const OPERATIONS_A_BYTE: f64 = 8.0;

/// Bytes read and written for each logit by its maximum and its exponential in single precision, and by the quotient.
const EXPONENTIAL: f64 = 12.0;
const QUOTIENT: f64 = 8.0;
/// Activations that a rescale reads or writes, in units of `nh`.
const RESCALE: f64 = 3.0;
/// Activations that a scatter reads or writes, in units of `nh`: it touches the rows of its tokens.
const SCATTER: f64 = 3.0;

fn operations(work: Work) -> f64 {
    work.linear + work.attention + work.vocabulary + work.memory * OPERATIONS_A_BYTE
}

/// What the passes of a kind compute at each of their sites, and the rank of each; `None` where nothing says what they compute.
pub(super) fn sites(
    kind: &Kind,
    catalog: &Catalog,
    pipeline: &Pipeline<'_>,
) -> Option<(Compute, Vec<(Rank, Parts)>)> {
    let computes = kind.computes?;
    let sharded = [catalog.shards_input(), catalog.shards_output()];
    Some((computes, of_sites(computes, kind.at, sharded, pipeline)))
}

/// The same of a computation; `sharded`: whether the input and the output layer are on all ranks.
pub(super) fn of_sites(
    computes: Compute,
    at: At,
    sharded: [bool; 2],
    pipeline: &Pipeline<'_>,
) -> Vec<(Rank, Parts)> {
    let size = Size::of(pipeline, Training::default());
    match at {
        At::Stage => Stage::all(pipeline.stages.len())
            .zip(pipeline.stages)
            .map(|(stage, &rank)| (rank, at_stage(computes, stage, sharded, pipeline, size)))
            .collect(),
        At::EveryRank => Rank::all(pipeline.ranks as usize)
            .map(|rank| (rank, at_rank(computes, rank, pipeline, size)))
            .collect(),
    }
}

/// Puts parts beside each other.
struct Sum(Parts);

impl Sum {
    fn add(&mut self, part: Part, work: Work) {
        self.0[part as usize] += operations(work);
    }

    fn logits(&mut self, size: Size, rows: f64) {
        self.add(Part::Logits, size.output(rows, 1.0, EXPONENTIAL));
    }

    fn quotient(&mut self, size: Size, rows: f64) {
        self.add(Part::Quotient, size.output(rows, 0.0, QUOTIENT));
    }

    fn output_input(&mut self, size: Size, rows: f64) {
        self.add(Part::OutputInput, size.output(rows, 1.0, 0.0));
    }

    fn output_weights(&mut self, size: Size, rows: f64) {
        self.add(Part::OutputWeights, size.output(rows, 1.0, 0.0));
    }
}

/// A pass at a stage: the output layer's weight gradient comes with those of the layers, the input layer's with the input gradient.
fn at_stage(
    computes: Compute,
    stage: Stage,
    sharded: [bool; 2],
    pipeline: &Pipeline<'_>,
    size: Size,
) -> Parts {
    let layers = f64::from(pipeline.layers(stage) as u32);
    let input = pipeline.first(stage) && !sharded[0];
    let output = pipeline.last(stage) && !sharded[1];
    let mut sum = Sum([0.0; PARTS]);
    if computes == Compute::StageForward {
        sum.add(Part::LayerForward, size.layer_forward().times(layers));
        if input {
            sum.add(Part::Lookup, size.lookup());
        }
        if output {
            sum.logits(size, size.v);
            sum.quotient(size, size.v);
        }
    }
    if matches!(computes, Compute::StageInputGrad | Compute::StageBackward) {
        sum.add(Part::LayerInput, size.layer_input().times(layers));
        if input {
            sum.add(Part::Scatter, size.over_memory(SCATTER));
        }
        if output {
            sum.output_input(size, size.v);
        }
    }
    if matches!(computes, Compute::StageWeightGrad | Compute::StageBackward) {
        sum.add(Part::LayerWeights, size.layer_weights().times(layers));
        if output {
            sum.output_weights(size, size.v);
        }
    }
    sum.0
}

/// A pass at a rank, on its shard of the vocabulary.
#[allow(clippy::cast_precision_loss, reason = "a duration needs no more than 52 bits")]
fn at_rank(computes: Compute, rank: Rank, pipeline: &Pipeline<'_>, size: Size) -> Parts {
    let rows = pipeline.rows(rank) as f64;
    let mut sum = Sum([0.0; PARTS]);
    if matches!(computes, Compute::OutputSoftmax | Compute::OutputSoftmaxGrad) {
        sum.logits(size, rows);
    }
    if matches!(computes, Compute::OutputSoftmaxGrad | Compute::OutputGrad) {
        sum.output_input(size, rows);
    }
    if matches!(computes, Compute::OutputGrad | Compute::OutputWeightGrad) {
        sum.quotient(size, rows);
        sum.output_weights(size, rows);
    }
    match computes {
        Compute::OutputRescale => sum.add(Part::Rescale, size.over_memory(RESCALE)),
        Compute::InputLookup => sum.add(Part::Lookup, size.lookup()),
        Compute::InputScatter => sum.add(Part::Scatter, size.over_memory(SCATTER)),
        _ => {}
    }
    sum.0
}
