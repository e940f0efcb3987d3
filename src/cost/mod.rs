//! `F=10,B=12,p2p=1` -> [`CostSpec`] -> [`Costs`]: how long passes, messages and collectives take.
//!
//! A [`CostSpec`] is what was written, in decimal numbers. [`CostSpec::bind`] gives it a catalog and a pipeline: a duration in ticks for every
//! kind and collective, where a tick is the longest time that divides all of them, so that nothing is rounded.
//!
//! The cost of a pass at a stage is that of one microbatch on one rank, the rank's whole share of the model: a chunk's pass takes `1/v` of it.
//! Passes at every rank are not divided. Where sequences are cut into s slices every pass is one slice's and takes `1/s` of it; messages and
//! collectives are not divided. A backward that does W's work too takes B's cost and W's.

mod balance;
mod bind;
mod contention;
mod device;
mod durations;
mod error;
mod footprint;
mod links;
mod model;
mod number;
mod pipeline;
mod problem;
mod profile;
mod rates;
mod spec;
mod toml;
mod topology;
mod work;

pub use balance::balance;
pub use contention::{Load, Progress};
pub use device::{DEVICES, Device, Efficiency};
pub use durations::Durations;
pub use error::CostError;
pub use footprint::{Footprint, Weights};
pub use model::{ModelFile, Optimizer, Precision, Recompute, Training};
pub use pipeline::held_parameters;
pub use problem::{FileError, Problem};
pub use profile::Profile;
pub use rates::{Rates, step_flops};
pub use spec::{CostSpec, UNIT};
pub use topology::{Link, Topology};

use crate::ir::{Catalog, CollectiveId, Pass, Rank, Site, Ticks};

/// Durations that steps place passes by and that the simulator runs a plan with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Costs {
    /// By [`crate::ir::KindId`], then by the site's index; one entry where all sites take the same.
    passes: Vec<Vec<Ticks>>,
    /// By [`CollectiveId`].
    collectives: Vec<Ticks>,
    /// The optimizer's step, by [`Rank`]; empty where it takes no time.
    steps: Vec<Ticks>,
    /// Where ranks are threads of one machine: how much they slow each other down, in millionths.
    threads: Option<u64>,
    messages: Messages,
    scale: Scale,
}

/// How ticks become the unit that costs were written in: `ticks * grain / parts`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Scale {
    grain: u64,
    parts: u64,
}

/// How long messages between two ranks take.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Messages {
    /// The same for any two.
    Alike(Hop),
    /// By `from * ranks + to`.
    ByPair { ranks: u32, hops: Vec<Hop> },
}

/// How long a message takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Hop {
    /// From the end of a send's producer to the moment that the other rank may read it.
    arrives: Ticks,
    /// The part of it in which no other message goes the same way.
    occupies: Ticks,
}

impl Costs {
    /// Nothing takes any time.
    #[must_use]
    pub fn free(catalog: &Catalog) -> Self {
        Self {
            passes: vec![vec![Ticks(0)]; catalog.kinds.len()],
            collectives: vec![Ticks(0); catalog.collectives.len()],
            steps: Vec::new(),
            threads: None,
            messages: Messages::Alike(Hop::default()),
            scale: Scale { grain: 1, parts: 1 },
        }
    }

    /// The duration of a pass: of its kind, at its site.
    #[must_use]
    pub fn pass(&self, pass: Pass) -> Ticks {
        let sites = &self.passes[pass.kind.index()];
        let site = match pass.site {
            Site::Stage(stage) => stage.index(),
            Site::Rank(rank) => rank.index(),
        };
        if sites.len() == 1 { sites[0] } else { sites[site] }
    }

    /// The duration of two passes that run overlapped. Overlap hides nothing at unit costs: it takes as long as both.
    #[must_use]
    pub fn pair(&self, first: Pass, second: Pass) -> Ticks {
        self.pass(first) + self.pass(second)
    }

    /// From the end of a send's producer to the moment that the other rank may read it. Nothing from a rank to itself.
    #[must_use]
    pub fn message(&self, from: Rank, to: Rank) -> Ticks {
        self.hop(from, to).arrives
    }

    /// The part of a message's time in which no other message goes from the one rank to the other: its bytes at the link's bandwidth.
    #[must_use]
    pub fn occupies(&self, from: Rank, to: Rank) -> Ticks {
        self.hop(from, to).occupies
    }

    fn hop(&self, from: Rank, to: Rank) -> Hop {
        if from == to {
            return Hop::default();
        }
        match &self.messages {
            Messages::Alike(hop) => *hop,
            Messages::ByPair { ranks, hops } => hops[(from.0 * ranks + to.0) as usize],
        }
    }

    /// The duration of a collective.
    #[must_use]
    pub fn collective(&self, collective: CollectiveId) -> Ticks {
        self.collectives[collective.index()]
    }

    /// The duration of the optimizer's step on a rank; 0 where nothing is known of it.
    #[must_use]
    pub fn step(&self, rank: Rank) -> Ticks {
        self.steps.get(rank.index()).copied().unwrap_or_default()
    }

    /// Where ranks are threads of one machine, how much those slow each other down that run passes at a time ([`Load`]). Durations are those
    /// of a rank alone.
    #[must_use]
    #[allow(clippy::cast_precision_loss, reason = "a few millions")]
    pub fn threads(&self) -> Option<f64> {
        self.threads.map(|contention| contention as f64 / 1e6)
    }

    /// Whether the unit is the microsecond: the costs come from [`Durations`].
    #[must_use]
    pub fn in_microseconds(&self) -> bool {
        matches!(self.messages, Messages::ByPair { .. })
    }

    /// A time in the unit that the costs were written in.
    #[must_use]
    #[allow(clippy::cast_precision_loss, reason = "shown with a few digits")]
    pub fn in_units(&self, time: Ticks) -> f64 {
        time.0 as f64 * self.scale.grain as f64 / self.scale.parts as f64
    }
}
