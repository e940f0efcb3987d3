//! How long messages and collectives take between the devices of a topology.
//!
//! A message takes the latency of the way and its bytes over the bandwidth. A collective runs in a ring for its bytes
//! (Patarasuk & Yuan 2009: an all-reduce moves each byte `2(p-1)/p` times), past its narrowest way, and in a tree for its latency.

use super::error::CostError;
use super::pipeline::Pipeline;
use super::rates::Rates;
use super::topology::Link;
use crate::ir::{At, Catalog, Collective, CollectiveOp, Compute, Rank};

/// The ways between ranks.
pub(super) struct Links<'a> {
    rates: &'a Rates,
    /// The narrowest way between two neighbours of a ring of all ranks.
    narrowest: Link,
}

/// Bytes of a word: of statistics, which are kept in single precision whatever the activations are, and of all shapes of a plan in bf16.
const WORD: f64 = 4.0;

impl<'a> Links<'a> {
    /// The ways between the ranks of a pipeline.
    pub(super) fn of(rates: &'a Rates, pipeline: &Pipeline<'_>) -> Result<Self, CostError> {
        let each = u64::from(rates.training.tensor_parallel);
        let needed = u64::from(pipeline.ranks) * each;
        let Some(topology) = &rates.topology else { return Ok(Self { rates, narrowest: rates.device.link }) };
        let devices = u64::from(topology.nodes) * u64::from(topology.devices);
        if needed > devices {
            return Err(CostError::TooFewDevices {
                needed,
                devices,
                text: topology.text.clone(),
                at: topology.at,
            });
        }
        let one_node = needed <= u64::from(topology.devices);
        Ok(Self { rates, narrowest: if one_node { topology.inside } else { topology.between } })
    }

    fn way(&self, from: Rank, to: Rank) -> Link {
        let Some(topology) = &self.rates.topology else { return self.rates.device.link };
        let node = |rank| topology.node(rank, self.rates.training.tensor_parallel);
        if node(from) == node(to) { topology.inside } else { topology.between }
    }

    /// By `from * ranks + to`, in microseconds: until a message of so many bytes is there, and the part of it that holds up the next.
    pub(super) fn messages(&self, ranks: u32, bytes: f64) -> (Vec<f64>, Vec<f64>) {
        let pairs = || {
            let all = Rank::all(ranks as usize);
            all.clone().flat_map(move |from| all.clone().map(move |to| (from, to)))
        };
        let transfer = |link: Link| 1e6 * bytes / link.bandwidth;
        let arrives = |(from, to)| {
            let link = self.way(from, to);
            1e6 * link.latency + transfer(link)
        };
        (pairs().map(arrives).collect(), pairs().map(|(from, to)| transfer(self.way(from, to))).collect())
    }

    /// Microseconds from the last contribution to the result.
    #[allow(clippy::cast_precision_loss, reason = "a duration needs no more than 52 bits")]
    pub(super) fn collective(
        &self,
        collective: &Collective,
        catalog: &Catalog,
        pipeline: &Pipeline<'_>,
        activation: f64,
    ) -> f64 {
        let kind = catalog.kind(collective.kind);
        let p = f64::from(pipeline.ranks);
        let Some(&class) = kind.gives.get(collective.port.index()).filter(|_| pipeline.ranks > 1) else {
            return 0.0;
        };
        let class = catalog.class(class);
        let shape = match kind.at {
            At::EveryRank => &class.at_rank,
            At::Stage => class.at_stage.first().unwrap_or(&class.at_rank),
        };
        let elements = shape.iter().fold(1.0, |product, &side| product * side as f64);
        let statistics =
            collective.op == CollectiveOp::AllGather && kind.computes.is_some_and(Compute::shards_output);
        let packed = !pipeline.model.precision.is_single();
        let bytes = elements * if statistics || packed { WORD } else { activation };
        let moved = match collective.op {
            CollectiveOp::AllReduce => 2.0 * (p - 1.0) / p,
            CollectiveOp::AllGather => p - 1.0,
            CollectiveOp::ReduceScatter => (p - 1.0) / p,
            CollectiveOp::Broadcast | CollectiveOp::Reduce => 1.0,
        };
        let hops = match collective.op {
            CollectiveOp::AllReduce => 2.0 * p.log2().ceil(),
            _ => p.log2().ceil(),
        };
        1e6 * (hops * self.narrowest.latency + moved * bytes / self.narrowest.bandwidth)
    }
}
