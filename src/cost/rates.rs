//! [`Training`], [`Device`], [`Topology`] -> how long each pass takes at its site.
//!
//! Work is counted as in Yeung et al. 2024, table 4, for n tokens: a transformer layer has linear products of `24nh²` and attention's of
//! `4nsh` operations forward, and twice as much backward, half of it for the inputs and half for the weights; attention has no
//! weights. The output layer has `2nhV` forward and `4nhV` backward, both its gradients in B: its logits do not wait for W. Beside the products there are passes over memory: what norms,
//! activations and residuals read and write, the statistics of the softmax, the input layer. The optimizer is not part of the pipeline.

use super::device::Device;
use super::error::CostError;
use super::links::Links;
use super::model::Training;
use super::pipeline::Pipeline;
use super::topology::Topology;
use super::work::{SOFTMAX, SOFTMAX_BACKWARD, Size, Work};
use super::{Durations, Footprint};
use crate::ir::{At, Catalog, Compute, Kind, Queue, Stage};

/// What predicts durations: how the model is trained, and on what.
#[derive(Clone, Debug, PartialEq)]
pub struct Rates {
    /// Number formats, recomputation, tensor parallelism.
    pub training: Training,
    /// The device of every rank.
    pub device: Device,
    /// Where the devices lie; all in one node where nothing is said.
    pub topology: Option<Topology>,
}

impl Rates {
    /// How long everything takes.
    ///
    /// # Errors
    /// More devices than there are; no rate for a number format; a pass of which nothing is known.
    pub(super) fn durations(
        &self,
        catalog: &Catalog,
        pipeline: &Pipeline<'_>,
        known: impl Fn(&str) -> bool,
    ) -> Result<Durations, CostError> {
        let links = Links::of(self, pipeline)?;
        let training = self.training.of(pipeline.model);
        let format = training.precision;
        let peak = self.device.peak[format as usize].ok_or_else(|| CostError::NoPeak {
            device: self.device.name.clone(),
            precision: format.word(),
        })?;
        let beside = catalog.collectives.iter().any(|collective| !collective.lockstep) && pipeline.ranks > 1;
        let clock = Clock { rates: self, peak, beside };
        let size = Size::of(pipeline, training);
        let mut passes = Vec::with_capacity(catalog.kinds.len());
        for kind in &catalog.kinds {
            let Some(computes) = kind.computes else {
                if !known(&kind.name) {
                    return Err(CostError::NoRate { pass: kind.name.clone() });
                }
                passes.push(vec![0.0]);
                continue;
            };
            passes.push(clock.sites(kind, computes, catalog, pipeline, size));
        }
        let collectives = catalog.collectives.iter();
        let collectives =
            collectives.map(|one| links.collective(one, catalog, pipeline, size.bytes)).collect();
        let value = size.n * size.h * size.bytes / f64::from(self.training.tensor_parallel);
        let (messages, transfers) = links.messages(pipeline.ranks, value);
        Ok(Durations {
            passes,
            collectives,
            messages,
            transfers,
            steps: Vec::new(),
            threads: None,
            ranks: pipeline.ranks,
        })
    }
}

/// Turns work into microseconds.
struct Clock<'a> {
    rates: &'a Rates,
    peak: f64,
    /// Whether collectives run beside the passes.
    beside: bool,
}

impl Clock<'_> {
    /// The durations of a kind at each of its sites; one where all are alike.
    fn sites(
        &self,
        kind: &Kind,
        computes: Compute,
        catalog: &Catalog,
        pipeline: &Pipeline<'_>,
        size: Size,
    ) -> Vec<f64> {
        if kind.at == At::EveryRank {
            let work = every_rank(computes, size);
            let launch = match (kind.queue, computes) {
                (_, Compute::Release | Compute::OutputLoss) | (Queue::Group, _) => 0.0,
                _ => self.rates.device.launch * 1e6,
            };
            return vec![self.time(work) + launch];
        }
        let of = |stage: Stage| self.time(at_stage(computes, stage, catalog, pipeline, size));
        Stage::all(pipeline.stages.len()).map(of).collect()
    }

    fn time(&self, work: Work) -> f64 {
        let Device { efficiency, bandwidth, .. } = &self.rates.device;
        let products = work.linear / efficiency.linear
            + work.attention / efficiency.attention
            + work.vocabulary / efficiency.vocabulary;
        let seconds = products / self.peak + work.memory / (efficiency.memory * bandwidth);
        let slowed = if self.beside { efficiency.overlap } else { 1.0 };
        1e6 * seconds / (slowed * f64::from(self.rates.training.tensor_parallel))
    }
}

/// What a pass at every rank does, on its shard of the vocabulary.
fn every_rank(computes: Compute, size: Size) -> Work {
    let rows = size.shard;
    match computes {
        Compute::OutputSoftmax => size.output(rows, 1.0, SOFTMAX),
        Compute::OutputSoftmaxGrad => size.output(rows, 2.0, SOFTMAX),
        Compute::OutputGrad => size.output(rows, 2.0, SOFTMAX_BACKWARD),
        Compute::OutputWeightGrad => size.output(rows, 1.0, SOFTMAX_BACKWARD),
        Compute::OutputRescale => size.over_memory(3.0),
        Compute::InputLookup => size.lookup(),
        Compute::InputScatter => size.scatter(rows),
        _ => Work::default(),
    }
}

/// What a pass at a stage does: its layers, and at the ends the vocabulary layers that no transform shards.
fn at_stage(computes: Compute, stage: Stage, catalog: &Catalog, pipeline: &Pipeline<'_>, size: Size) -> Work {
    let layers = f64::from(pipeline.layers(stage) as u32);
    let input = pipeline.first(stage) && !catalog.shards_input();
    let output = pipeline.last(stage) && !catalog.shards_output();
    let when = |there: bool, work: Work| if there { work } else { Work::default() };
    let input_gradient = || {
        let ends = when(output, size.output(size.v, 2.0, SOFTMAX_BACKWARD));
        size.layer_input().times(layers).plus(ends)
    };
    let weight_gradient = || size.layer_weights().times(layers).plus(when(input, size.scatter(size.v)));
    match computes {
        Compute::StageForward => {
            let ends = when(output, size.output(size.v, 1.0, SOFTMAX)).plus(when(input, size.lookup()));
            size.layer_forward().times(layers).plus(ends)
        }
        Compute::StageInputGrad => input_gradient(),
        Compute::StageWeightGrad => weight_gradient(),
        Compute::StageBackward => input_gradient().plus(weight_gradient()),
        _ => Work::default(),
    }
}

/// Floating-point operations of the model in one step, those that a recomputation repeats not counted.
#[must_use]
#[allow(clippy::cast_precision_loss, reason = "a share needs no more than 52 bits")]
pub fn step_flops(model: &crate::ir::Dims, microbatches: u32) -> f64 {
    let [layers, h, s, v] = [model.layers, model.hidden, model.sequence, model.vocab].map(f64::from);
    let tokens = model.tokens() as f64 * f64::from(microbatches);
    tokens * h * (layers * (72.0 * h + 12.0 * s) + 6.0 * v)
}

impl Rates {
    /// Model FLOPs utilisation of a step that takes so many microseconds: the operations of the model over what the devices could do.
    #[must_use]
    pub fn mfu(&self, header: &crate::ir::Header, microseconds: f64) -> Option<f64> {
        let rate = self.rate(&header.model)? * f64::from(header.ranks());
        let flops = step_flops(&header.model, header.microbatches);
        (microseconds > 0.0).then(|| flops / (microseconds * 1e-6 * rate))
    }

    /// Floating-point operations a second that the devices of one rank could do.
    #[must_use]
    pub fn rate(&self, model: &crate::ir::Dims) -> Option<f64> {
        let peak = self.device.peak[self.training.of(model).precision as usize]?;
        Some(peak * f64::from(self.training.tensor_parallel))
    }

    /// The bytes that the rank with most takes on the device, with what is reserved there.
    #[must_use]
    pub fn most_bytes(&self, plan: &crate::ir::Plan) -> u64 {
        let most = Footprint::of(plan, &self.training).iter().map(Footprint::total).max().unwrap_or(0);
        most.saturating_add(self.reserved().0)
    }

    /// What a device has.
    #[must_use]
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a device has less than 2^63 bytes"
    )]
    pub fn memory(&self) -> crate::ir::Bytes {
        crate::ir::Bytes(self.device.memory as u64)
    }

    /// What the software of the device takes.
    #[must_use]
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a device has less than 2^63 bytes"
    )]
    pub fn reserved(&self) -> crate::ir::Bytes {
        crate::ir::Bytes(self.device.reserved as u64)
    }
}
