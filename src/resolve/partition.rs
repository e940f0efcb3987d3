//! What is asked of the layers -> how many lie on each stage.

use super::error::ResolveError;
use crate::ir::{Partition, Rank, Shape, Stage};

/// How the layers of the model are to be spread over the stages of a flow.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Partitioning {
    /// As many on each; the first stages take the remainder.
    #[default]
    Uniform,
    /// So many on each, by the stage's place in its flow.
    Given(Vec<u32>),
    /// So that the rank with most to do has as little as may be; vocabulary layers lie on the end stages, unless a transform shards
    /// them. In thousandths of what a transformer layer costs.
    Balanced {
        /// The input layer.
        input: u64,
        /// The output layer.
        output: u64,
    },
}

/// What a layer costs, in the unit of [`Partitioning::Balanced`].
const LAYER: u64 = 1000;

impl Partitioning {
    /// The layers of a model that says nothing of them; `None` where it has one for each stage.
    pub(super) fn layers(&self) -> Option<u32> {
        let Self::Given(layers) = self else { return None };
        Some(layers.iter().fold(0, |sum, &count| sum.saturating_add(count)))
    }

    /// The layers of every stage. `sharded`: whether transforms shard the input and the output layer.
    pub(super) fn spread(
        &self,
        layers: u32,
        shape: &Shape,
        sharded: [bool; 2],
    ) -> Result<Partition, ResolveError> {
        match self {
            Self::Uniform => Ok(Partition::default()),
            Self::Given(given) => {
                let (stages, sum) = (given.len(), given.iter().map(|&count| u64::from(count)).sum::<u64>());
                if stages != shape.depth() as usize {
                    return Err(ResolveError::PartitionStages { stages, needed: shape.depth() });
                }
                if sum != u64::from(layers) {
                    return Err(ResolveError::PartitionLayers { sum, layers });
                }
                Ok(Partition::of(given.clone()))
            }
            Self::Balanced { input, output } => {
                let cost = |sharded: bool, cost: u64| if sharded { 0 } else { cost };
                let [input, output] = [cost(sharded[0], *input), cost(sharded[1], *output)];
                Ok(Partition::of(balanced(layers, shape, input, output)))
            }
        }
    }
}

/// The layers of each stage of a flow, so that the rank with most to do has as little as may be.
fn balanced(layers: u32, shape: &Shape, input: u64, output: u64) -> Vec<u32> {
    let depth = shape.depth() as usize;
    let mut loads = vec![0_u64; depth];
    loads[0] = input;
    loads[depth - 1] = loads[depth - 1].saturating_add(output);
    // Of two flows, each rank holds one end of either: a stage is as good a measure as a rank.
    let group = |place: usize| if shape.flows == 1 { shape.stages[place] } else { Rank::new(place) };
    let mut groups: Vec<(Rank, Vec<usize>)> = Vec::new();
    for place in Stage::all(depth).map(Stage::index) {
        match groups.iter_mut().find(|(rank, _)| *rank == group(place)) {
            Some((_, places)) => places.push(place),
            None => groups.push((group(place), vec![place])),
        }
    }
    let sum = |places: &Vec<usize>| places.iter().fold(0_u64, |sum, &at| sum.saturating_add(loads[at]));
    let shares = deal(layers, &groups.iter().map(|(_, places)| sum(places)).collect::<Vec<_>>());
    let mut dealt = vec![0; depth];
    for ((_, places), share) in groups.iter().zip(shares) {
        let own: Vec<u64> = places.iter().map(|&at| loads[at]).collect();
        places.iter().zip(deal(share, &own)).for_each(|(&at, count)| dealt[at] = count);
    }
    dealt
}

/// Deals layers to hands that have something already, so that the fullest is as empty as may be. Of equals, later ones get more: they
/// hold fewer activations at a time.
fn deal(layers: u32, loads: &[u64]) -> Vec<u32> {
    let room = |load: u64, level: u64| level.saturating_sub(load) / LAYER;
    let all = |level: u64| loads.iter().fold(0_u64, |sum, &load| sum.saturating_add(room(load, level)));
    let (mut low, mut high) = (0, u64::MAX / 2);
    while low < high {
        let middle = low + (high - low) / 2;
        if all(middle) >= u64::from(layers) { high = middle } else { low = middle + 1 }
    }
    let mut excess = all(low) - u64::from(layers);
    let deal = |&load: &u64| {
        let full = room(load, low);
        // At the level below, these and only these would hold one less.
        let over = excess > 0 && full > 0 && load + full * LAYER == low;
        excess -= u64::from(over);
        u32::try_from(full - u64::from(over)).unwrap_or(u32::MAX)
    };
    loads.iter().map(deal).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_go_where_the_least_is_to_do() {
        assert_eq!(deal(32, &[0, 0, 0, 0, 0, 0, 0, 6250]), [4, 4, 4, 5, 5, 5, 5, 0]);
        assert_eq!(deal(32, &[0, 0, 0, 0, 0, 0, 0, 2000]), [4, 4, 4, 4, 4, 4, 5, 3]);
        assert_eq!(deal(0, &[0, 500]), [0, 0]);
        assert_eq!(deal(3, &[u64::MAX / 2, 0]), [0, 3]);
        assert_eq!(deal(u32::MAX, &[0]), [u32::MAX]);
    }
}
