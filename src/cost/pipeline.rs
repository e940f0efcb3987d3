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

    /// Elements of the parameters that a rank holds, where a transform shards the tables of the input and the output layer or not;
    /// and of a second gradient, of a tied embedding that lies whole on one rank.
    pub(super) fn held(&self, rank: Rank, sharded: [bool; 2]) -> (u64, u64) {
        let depth = self.depth().max(1);
        let held = |entry: &(usize, &Rank)| *entry.1 == rank;
        let places = self.stages.iter().enumerate().filter(held).map(|(stage, _)| stage as u32 % depth);
        let mut places: Vec<u32> = places.collect();
        places.sort_unstable();
        places.dedup();
        let layers = |place| self.partition.layers_of(Stage(place), depth, self.model).len();
        let own = places
            .iter()
            .map(|&place| self.model.stage_parameters(layers(place), Stage(place), depth, sharded));
        let (tables, second) =
            self.tables(rank, [places.contains(&0), places.contains(&(depth - 1))], sharded);
        (own.fold(tables, u64::saturating_add), second)
    }

    /// Elements of the vocabulary's tables that the stages do not count: shards, and a tied one; and those of a second gradient.
    fn tables(&self, rank: Rank, ends: [bool; 2], sharded: [bool; 2]) -> (u64, u64) {
        let hidden = u64::from(self.model.hidden);
        let shard = self.rows(rank).saturating_mul(hidden);
        let whole = u64::from(self.model.vocab).saturating_mul(hidden);
        if !self.model.tied {
            return (shard.saturating_mul(sharded.iter().map(|&sharded| u64::from(sharded)).sum()), 0);
        }
        match sharded {
            [true, _] | [_, true] => (shard, 0),
            [false, false] if ends == [true, true] => (whole, whole),
            [false, false] if ends[0] || ends[1] => (whole, 0),
            [false, false] => (0, 0),
        }
    }

    /// Rows of the vocabulary on a rank, where it is sharded.
    pub(super) fn rows(&self, rank: Rank) -> u64 {
        let (each, vocab) = (self.model.shard(self.ranks.max(1)), u64::from(self.model.vocab));
        let first = u64::from(rank.0).saturating_mul(each).min(vocab);
        first.saturating_add(each).min(vocab) - first
    }
}

/// Elements of the parameters that a rank of a plan holds, and of a second gradient, of a tied embedding that lies whole on it.
#[must_use]
pub fn held_parameters(header: &Header, rank: Rank) -> (u64, u64) {
    let sharded = [header.catalog.shards_input(), header.catalog.shards_output()];
    Pipeline::of_plan(header).held(rank, sharded)
}
