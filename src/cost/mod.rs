//! Catalog -> Costs: how long each kind of pass takes, in ticks.

use crate::ir::{At, Catalog, CollectiveId, Compute, KindId, Queue, Ticks};

/// A stage's forward at unit costs.
const UNIT: u64 = 12;

/// Durations that steps place passes by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Costs {
    /// By [`KindId`].
    passes: Vec<Ticks>,
    /// By [`CollectiveId`].
    collectives: Vec<Ticks>,
    /// From the end of a send's producer to the moment that the other rank may read it.
    pub message: Ticks,
}

impl Costs {
    /// Unit costs: F, B and W of a stage take one unit each (a fused B two), a pass at every rank a quarter of a microbatch's forwards on a rank,
    /// messages and collectives nothing. `visits` stages of a rank take part in a microbatch.
    ///
    /// A quarter is the size of a vocabulary pass next to a stage's forward in the settings of Yeung et al. 2024, table 1, at 256k.
    #[must_use]
    pub fn unit(catalog: &Catalog, visits: u32) -> Self {
        let of = |kind: &crate::ir::Kind| match (kind.queue, kind.at, kind.computes) {
            (Queue::Group, ..) => 0,
            (_, At::EveryRank, _) => UNIT / 4 * u64::from(visits),
            (_, At::Stage, Some(Compute::StageBackward)) => 2 * UNIT,
            (_, At::Stage, _) => UNIT,
        };
        Self {
            passes: catalog.kinds.iter().map(|kind| Ticks(of(kind))).collect(),
            collectives: vec![Ticks(0); catalog.collectives.len()],
            message: Ticks(0),
        }
    }

    /// The duration of a kind of pass.
    #[must_use]
    pub fn pass(&self, kind: KindId) -> Ticks {
        self.passes[kind.index()]
    }

    /// The duration of two passes that run overlapped. Overlap hides nothing at unit costs: it takes as long as both.
    #[must_use]
    pub fn pair(&self, first: KindId, second: KindId) -> Ticks {
        self.pass(first) + self.pass(second)
    }

    /// The duration of a collective.
    #[must_use]
    pub fn collective(&self, collective: CollectiveId) -> Ticks {
        self.collectives[collective.index()]
    }
}
