//! What a rank holds beside the plan's buffers, all the time: parameters, their gradients, the optimizer's state.

use crate::ir::{Dims, Header, Rank, Stage};

/// Bytes that a rank holds from the first step to the last.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, schemars::JsonSchema)]
pub struct Resident {
    /// The parameters.
    pub parameters: u64,
    /// A gradient for each.
    pub gradients: u64,
    /// What the optimizer keeps of each.
    pub optimizer: u64,
}

impl Resident {
    /// All of them.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.parameters.saturating_add(self.gradients).saturating_add(self.optimizer)
    }
}

/// What `schedc run` holds of a plan's model, by [`Rank`]: parameters, gradients and Adam's two moments in f32. A tied embedding that lies
/// whole on one rank has a second gradient, of its use as the output layer.
#[must_use]
pub fn resident(header: &Header) -> Vec<Resident> {
    Rank::all(header.ranks() as usize).map(|rank| of_rank(header, rank)).collect()
}

fn of_rank(header: &Header, rank: Rank) -> Resident {
    let dims = &header.model;
    let depth = header.depth().max(1);
    let sharded = [header.catalog.shards_input(), header.catalog.shards_output()];
    let held = |entry: &(usize, &Rank)| *entry.1 == rank;
    let places = header.stages.iter().enumerate().filter(held).map(|(stage, _)| stage as u32 % depth);
    let mut places: Vec<u32> = places.collect();
    places.sort_unstable();
    places.dedup();
    let layers = |place| header.partition.layers_of(Stage(place), depth, dims).len();
    let own = places.iter().map(|&place| dims.stage_parameters(layers(place), Stage(place), depth, sharded));
    let stages = own.fold(0, u64::saturating_add);
    let (tables, second) = tables(dims, header.ranks(), rank, &places, depth, sharded);
    let elements = stages.saturating_add(tables);
    Resident {
        parameters: elements.saturating_mul(4),
        gradients: elements.saturating_add(second).saturating_mul(4),
        optimizer: elements.saturating_mul(8),
    }
}

/// Elements of the vocabulary's tables that the stages do not count: shards, and a tied one; and those of a second gradient.
fn tables(dims: &Dims, ranks: u32, rank: Rank, places: &[u32], depth: u32, sharded: [bool; 2]) -> (u64, u64) {
    let (hidden, vocab) = (u64::from(dims.hidden), u64::from(dims.vocab));
    let each = dims.shard(ranks.max(1));
    let first = u64::from(rank.0).saturating_mul(each).min(vocab);
    let shard = first.saturating_add(each).min(vocab).saturating_sub(first).saturating_mul(hidden);
    let whole = vocab.saturating_mul(hidden);
    let ends = [places.contains(&0), places.contains(&(depth - 1))];
    if !dims.tied {
        return (shard.saturating_mul(sharded.iter().map(|&sharded| u64::from(sharded)).sum()), 0);
    }
    match sharded {
        [true, _] | [_, true] => (shard, 0),
        [false, false] if ends == [true, true] => (whole, whole),
        [false, false] if ends[0] || ends[1] => (whole, 0),
        [false, false] => (0, 0),
    }
}
