//! What one rank holds of the model.

use std::ops::Range;

use crate::ir::{Cut, Dims, Header, Precision, Rank, Stage};

use super::{ModelError, Sizes, Spec, contract};

/// The share of the model that lies on one rank: stages, and whole or sharded vocabulary layers.
#[derive(Clone, Debug)]
pub struct Held {
    /// The model.
    pub dims: Dims,
    /// Its dimensions as lengths.
    pub sizes: Sizes,
    /// How the batch of a step is cut.
    pub cut: Cut,
    /// This rank.
    pub rank: Rank,
    /// Ranks.
    pub ranks: u32,
    /// The stages that lie here, in pipeline order.
    pub stages: Vec<HeldStage>,
    /// Whether the input layer is sharded over all ranks.
    pub sharded_input: bool,
    /// Whether the output layer is sharded over all ranks.
    pub sharded_output: bool,
    /// Whether a pass computes both gradients at once, and so needs a `delta` of its own.
    pub fused_backward: bool,
}

/// One stage of a rank.
#[derive(Clone, Debug)]
pub struct HeldStage {
    /// The stage.
    pub stage: Stage,
    /// Whether the pipeline starts with it.
    pub first: bool,
    /// Whether the pipeline ends with it.
    pub last: bool,
    /// Its layers, counted over the whole model.
    pub layers: Range<u32>,
    /// Its place in its flow: the stage of the model that it is.
    pub place: Stage,
    /// The position among the stages of the model that lie here. Where both flows' copies of one do, they share their parameters.
    pub parameters: usize,
}

impl Held {
    /// What a rank of a plan holds.
    ///
    /// # Errors
    /// The model cannot be run: see [`ModelError`].
    pub fn of(header: &Header, rank: Rank) -> Result<Self, ModelError> {
        let depth = header.depth();
        let mut stages: Vec<HeldStage> = Vec::new();
        for stage in Stage::all(header.stages.len()).filter(|stage| header.stages[stage.index()] == rank) {
            let place = Stage(stage.0 % depth);
            let next = stages.iter().map(|other| other.parameters + 1).max().unwrap_or(0);
            let copy = stages.iter().find(|other| other.place == place);
            stages.push(HeldStage {
                stage,
                first: place.0 == 0,
                last: place.0 + 1 == depth,
                layers: header.layers_of(place),
                place,
                parameters: copy.map_or(next, |copy| copy.parameters),
            });
        }
        let held = Self {
            dims: header.model,
            sizes: Sizes::of(&header.model, header.slices)?,
            cut: header.cut(),
            rank,
            ranks: header.stages.iter().max().map_or(1, |last| last.0 + 1),
            stages,
            sharded_input: header.catalog.shards_input(),
            sharded_output: header.catalog.shards_output(),
            fused_backward: contract::fuses_backward(&header.catalog),
        };
        if held.dims.tied && held.sharded_input != held.sharded_output {
            return Err(ModelError::HalfSharded);
        }
        contract::check(&held, header)?;
        Ok(held)
    }

    /// The whole model on one rank, without any schedule, in f32 whatever a plan keeps it in.
    ///
    /// # Errors
    /// A dimension is 0, or the heads do not divide the width.
    pub fn whole(dims: &Dims, microbatches: u32) -> Result<Self, ModelError> {
        let dims = &Dims { precision: Precision::F32, ..*dims };
        Ok(Self {
            dims: *dims,
            sizes: Sizes::of(dims, 1)?,
            cut: Cut { microbatches, slices: 1 },
            rank: Rank(0),
            ranks: 1,
            stages: vec![HeldStage {
                stage: Stage(0),
                first: true,
                last: true,
                layers: 0..dims.layers,
                place: Stage(0),
                parameters: 0,
            }],
            sharded_input: false,
            sharded_output: false,
            fused_backward: true,
        })
    }

    /// The stages of the model that lie here, each once, by [`HeldStage::parameters`].
    pub fn distinct(&self) -> impl Iterator<Item = &HeldStage> {
        let first = |(index, stage): &(usize, &HeldStage)| {
            self.stages[..*index].iter().all(|other| other.parameters != stage.parameters)
        };
        self.stages.iter().enumerate().filter(first).map(|(_, stage)| stage)
    }

    /// Whether the pipeline starts here.
    #[must_use]
    pub fn first(&self) -> bool {
        self.stages.iter().any(|stage| stage.first)
    }

    /// Whether the pipeline ends here.
    #[must_use]
    pub fn last(&self) -> bool {
        self.stages.iter().any(|stage| stage.last)
    }

    /// The rows of a sharded vocabulary that this rank owns: a shard's length from `rank * shard`, cut at the vocabulary's end.
    #[must_use]
    pub fn shard(&self) -> Range<u64> {
        let (each, vocab) = (self.dims.shard(self.ranks), u64::from(self.dims.vocab));
        let first = (u64::from(self.rank.0) * each).min(vocab);
        first..(first + each).min(vocab)
    }

    /// The input embedding's rows that lie here.
    #[must_use]
    pub fn input_table(&self) -> Option<Spec> {
        if self.sharded_input {
            return Some(Spec::tokens(&self.dims, self.shard()));
        }
        self.first().then(|| Spec::tokens(&self.dims, 0..self.dims.vocab.into()))
    }

    /// The output embedding's rows that lie here.
    #[must_use]
    pub fn output_table(&self) -> Option<Spec> {
        if self.sharded_output {
            return Some(Spec::head(&self.dims, self.shard()));
        }
        self.last().then(|| Spec::head(&self.dims, 0..self.dims.vocab.into()))
    }

    /// Bytes of parameters, gradients and moments, before any of it is allocated.
    #[must_use]
    pub fn parameter_bytes(&self) -> u64 {
        let (h, sequence) = (u128::from(self.dims.hidden), u128::from(self.dims.sequence));
        let layer = 12 * h * h + 13 * h;
        let layers: u128 = self.distinct().map(|stage| stage.layers.len() as u128 * layer).sum();
        let table = |spec: Option<Spec>| spec.map_or(0, |spec| u128::from(spec.elements()));
        let whole_pair = self.first() && self.last() && !self.sharded_output;
        let output = if self.dims.tied && (whole_pair || self.sharded_output) {
            0
        } else {
            table(self.output_table())
        };
        let ends = u128::from(self.first()) * sequence * h + u128::from(self.last()) * 2 * h;
        let mut bytes = 16 * (layers + table(self.input_table()) + output + ends);
        if self.dims.tied && whole_pair {
            bytes += 4 * table(self.output_table());
        }
        u64::try_from(bytes).unwrap_or(u64::MAX)
    }
}
