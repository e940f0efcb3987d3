//! A schedule or a plan, as far as durations depend on it.

use crate::ir::{Dims, Header, Partition, Rank, Shape, Stage};

/// The pipeline that costs are bound to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pipeline<'a> {
    pub(super) ranks: u32,
    /// The rank of each stage, flow after flow.
    pub(super) stages: &'a [Rank],
    pub(super) flows: u32,
    /// Microbatches, or slices of them.
    pub(super) units: u32,
    /// Units of a microbatch.
    pub(super) slices: u32,
    pub(super) model: &'a Dims,
    pub(super) partition: &'a Partition,
}

impl<'a> Pipeline<'a> {
    pub(super) fn of_shape(shape: &'a Shape, model: &'a Dims) -> Self {
        Self {
            ranks: shape.ranks,
            stages: &shape.stages,
            flows: shape.flows,
            units: shape.cut().units(),
            slices: shape.slices,
            model,
            partition: &shape.partition,
        }
    }

    pub(super) fn of_plan(header: &'a Header) -> Self {
        Self {
            ranks: header.ranks(),
            stages: &header.stages,
            flows: header.flows.max(1),
            units: header.cut().units(),
            slices: header.slices.max(1),
            model: &header.model,
            partition: &header.partition,
        }
    }

    /// The stages of one flow.
    pub(super) fn depth(&self) -> u32 {
        self.stages.len() as u32 / self.flows
    }

    /// The place of a stage in its flow.
    pub(super) fn place(&self, stage: Stage) -> Stage {
        Stage(stage.0 % self.depth().max(1))
    }

    /// How many layers a stage has.
    pub(super) fn layers(&self, stage: Stage) -> usize {
        self.partition.layers_of(self.place(stage), self.depth(), self.model).len()
    }

    pub(super) fn first(&self, stage: Stage) -> bool {
        self.place(stage).0 == 0
    }

    pub(super) fn last(&self, stage: Stage) -> bool {
        self.place(stage).0 + 1 == self.depth()
    }
}
