//! Which rank runs which pass in which order: no communication, no memory yet.

use super::{Catalog, Chunk, Cut, Dims, Flow, Microbatch, Mode, Partition, Pass, Rank, Span, Stage};

/// The size of the pipeline and where its stages lie.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shape {
    /// `p`, at least 1.
    pub ranks: u32,
    /// `m`, at least 1.
    pub microbatches: u32,
    /// Slices that each microbatch's sequences are cut into, at least 1.
    pub slices: u32,
    /// `v`, stages a rank, at least 1.
    pub chunks: u32,
    /// The rank of each stage, by `Stage`, flow after flow; `p * v` of them, `v` on each rank.
    pub stages: Vec<Rank>,
    /// Copies of the model, 1 or 2, each with its own stages. Microbatch i belongs to flow `i % flows`.
    pub flows: u32,
    /// How the layers of the model are spread over the stages of a flow.
    pub partition: Partition,
}

impl Shape {
    /// How the batch is cut.
    #[must_use]
    pub fn cut(&self) -> Cut {
        Cut { microbatches: self.microbatches, slices: self.slices }
    }

    /// How many units each site works on: microbatches, or slices of them.
    #[must_use]
    pub fn units(&self) -> usize {
        self.cut().units() as usize
    }

    /// The rank that holds a stage.
    #[must_use]
    pub fn rank_of(&self, stage: Stage) -> Rank {
        self.stages[stage.index()]
    }

    /// The stages of each rank in pipeline order, by `Rank` and then `Chunk`.
    #[must_use]
    pub fn chunks_by_rank(&self) -> Vec<Vec<Stage>> {
        let mut held = vec![Vec::new(); self.ranks as usize];
        for (stage, rank) in self.stages.iter().enumerate() {
            held[rank.index()].push(Stage::new(stage));
        }
        held
    }

    /// The position of a stage among those on its rank.
    #[must_use]
    pub fn chunk_of(&self, stage: Stage) -> Chunk {
        let rank = self.rank_of(stage);
        Chunk::new(self.stages[..stage.index()].iter().filter(|&&other| other == rank).count())
    }

    /// The stages of one flow.
    #[must_use]
    pub fn depth(&self) -> u32 {
        self.stages.len() as u32 / self.flows
    }

    /// How many stages of a rank a microbatch passes through, over all ranks: the chunks of one flow.
    #[must_use]
    pub fn visits(&self) -> u32 {
        self.chunks / self.flows
    }

    /// The flow that a unit belongs to: that of its microbatch.
    #[must_use]
    pub fn flow_of(&self, unit: Microbatch) -> Flow {
        Flow(self.cut().microbatch(unit).0 % self.flows)
    }

    /// The flow that a stage belongs to.
    #[must_use]
    pub fn flow_at(&self, stage: Stage) -> Flow {
        Flow(stage.0 / self.depth())
    }

    /// The position of a stage in its flow.
    #[must_use]
    pub fn place_of(&self, stage: Stage) -> u32 {
        stage.0 % self.depth()
    }

    /// The first stage of a flow.
    #[must_use]
    pub fn first_of(&self, flow: Flow) -> Stage {
        Stage(flow.0 * self.depth())
    }

    /// The last stage of a flow.
    #[must_use]
    pub fn last_of(&self, flow: Flow) -> Stage {
        Stage((flow.0 + 1) * self.depth() - 1)
    }
}

/// Every rank's order of passes on the compute lane.
#[derive(Clone, Debug)]
pub struct Schedule {
    /// The schedule's name.
    pub name: String,
    /// The transforms that were applied.
    pub transforms: Vec<String>,
    /// What a step is for.
    pub mode: Mode,
    /// Ranks, microbatches, slices, chunks, placement.
    pub shape: Shape,
    /// The model that buffers are sized for.
    pub model: Dims,
    /// What the passes are.
    pub catalog: Catalog,
    /// Whether the orders were placed by time, from a block or a priority list, and not written down pass by pass.
    pub by_time: bool,
    /// The order of each rank, by `Rank`.
    pub orders: Vec<Vec<Placed>>,
    /// The places in the source that passes came from; [`Placed::origin`] indexes it.
    pub origins: Vec<Span>,
}

/// A pass in an order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Placed {
    /// The pass.
    pub pass: Pass,
    /// Index into [`Schedule::origins`].
    pub origin: u32,
    /// Whether it runs overlapped with the next pass of its rank: both start together, neither waits for the other.
    pub overlaps: bool,
}
