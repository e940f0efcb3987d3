//! How the layers of the model are spread over the stages of a flow.

use std::ops::Range;

use serde::{Deserialize, Serialize};

use super::{Dims, Precision, Stage};

/// The layers of each stage of a flow, by its place there; `None`: as many on each, the first stages take the remainder.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(transparent)]
pub struct Partition(pub Option<Vec<u32>>);

impl Partition {
    /// The partition with so many layers on each stage, in the one form that it has.
    #[must_use]
    pub fn of(layers: Vec<u32>) -> Self {
        let all = Dims { layers: layers.iter().fold(0, |sum, &count| sum.saturating_add(count)), ..EMPTY };
        let depth = layers.len() as u32;
        let uniform = Stage::all(layers.len())
            .zip(&layers)
            .all(|(place, &count)| all.layers_of(place, depth).len() == count as usize);
        Self((!uniform).then_some(layers))
    }

    /// Whether nothing is said, so that every stage has as many.
    #[must_use]
    pub fn is_uniform(&self) -> bool {
        self.0.is_none()
    }

    /// The layers of a stage of a model, by its place among the `depth` of a flow.
    #[must_use]
    pub fn layers_of(&self, place: Stage, depth: u32, model: &Dims) -> Range<u32> {
        let Some(layers) = &self.0 else { return model.layers_of(place, depth) };
        let first = layers.iter().take(place.index()).fold(0_u32, |sum, &count| sum.saturating_add(count));
        first..first.saturating_add(layers.get(place.index()).copied().unwrap_or(0))
    }
}

/// A model of nothing.
const EMPTY: Dims = Dims {
    layers: 0,
    hidden: 0,
    heads: 0,
    sequence: 0,
    batch: 0,
    vocab: 0,
    tied: false,
    precision: Precision::F32,
};
