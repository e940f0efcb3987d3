//! `F=10,B=12,p2p=1` -> [`CostSpec`] -> [`Costs`]: how long passes, messages and collectives take.
//!
//! A [`CostSpec`] is what was written, in decimal numbers. [`CostSpec::bind`] gives it a catalog and a pipeline: a duration in ticks for every
//! kind and collective, where a tick is the longest time that divides all of them, so that nothing is rounded.
//!
//! The cost of a pass at a stage is that of one microbatch on one rank, the rank's whole share of the model: a chunk's pass takes `1/v` of it.
//! Passes at every rank are not divided. Where sequences are cut into s slices every pass is one slice's and takes `1/s` of it; messages and
//! collectives are not divided. A backward that does W's work too takes B's cost and W's.

mod bind;
mod error;
mod number;
mod spec;

pub use error::CostError;
pub use spec::{CostSpec, UNIT};

use crate::ir::{Catalog, CollectiveId, KindId, Ticks};

/// Durations that steps place passes by and that the simulator runs a plan with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Costs {
    /// By [`KindId`].
    passes: Vec<Ticks>,
    /// By [`CollectiveId`].
    collectives: Vec<Ticks>,
    /// From the end of a send's producer to the moment that the other rank may read it.
    pub message: Ticks,
    scale: Scale,
}

/// How ticks become the unit that costs were written in: `ticks * grain / parts`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Scale {
    grain: u64,
    parts: u64,
}

impl Costs {
    /// Nothing takes any time.
    #[must_use]
    pub fn free(catalog: &Catalog) -> Self {
        Self {
            passes: vec![Ticks(0); catalog.kinds.len()],
            collectives: vec![Ticks(0); catalog.collectives.len()],
            message: Ticks(0),
            scale: Scale { grain: 1, parts: 1 },
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

    /// A time in the unit that the costs were written in.
    #[must_use]
    #[allow(clippy::cast_precision_loss, reason = "shown with a few digits")]
    pub fn in_units(&self, time: Ticks) -> f64 {
        time.0 as f64 * self.scale.grain as f64 / self.scale.parts as f64
    }
}
