//! [`CostSpec`] and a catalog -> [`Costs`]: every kind and collective has a duration in ticks that divide all of them.

use super::error::CostError;
use super::number::ONE;
use super::pipeline::Pipeline;
use super::spec::{Basis, CostSpec};
use super::{Costs, Durations, Hop, Messages, Scale};
use crate::diag::nearest;
use crate::ir::{At, Catalog, Collective, CollectiveOp, Compute, Dims, Header, Kind, Queue, Shape, Ticks};

/// The pass whose cost is the unit of what is not named.
const FORWARD: &str = "F";
/// The pass whose work a fused backward does as well.
const WEIGHT: &str = "W";
/// The latency of a message between two ranks.
const MESSAGE: &str = "p2p";
/// The steps of barriers, between their collectives.
const RESCALE: &str = "rescale";

/// A pass at every rank, beside the forward of a rank: so many of them take as long as it.
const SMALL: u64 = 4;

/// No sum of durations is larger, so that no moment overflows.
pub(super) const LONGEST: u128 = 1 << 62;

/// What divides the cost of a pass, and how many there are of everything.
struct Sizes {
    ranks: u64,
    stages: u64,
    /// Microbatches, or slices of them.
    units: u64,
    /// Passes of a kind at a stage that a rank runs for one unit.
    chunks: u64,
    /// Units of a microbatch.
    slices: u64,
}

impl Sizes {
    fn of(pipeline: &Pipeline<'_>) -> Self {
        let (ranks, stages) = (u64::from(pipeline.ranks), u64::from(pipeline.depth()));
        let (units, slices) = (u64::from(pipeline.units), u64::from(pipeline.slices));
        Self { ranks, stages, units, chunks: stages.div_ceil(ranks.max(1)).max(1), slices }
    }
}

impl CostSpec {
    /// The duration of everything in a catalog.
    ///
    /// # Errors
    /// A name that nothing in the catalog has; costs so large that the passes' sum overflows; what a device or a profile lacks.
    pub fn bind(&self, catalog: &Catalog, shape: &Shape, model: &Dims) -> Result<Costs, CostError> {
        self.bind_to(catalog, &Pipeline::of_shape(shape, model))
    }

    /// The duration of everything in a plan.
    ///
    /// # Errors
    /// As [`CostSpec::bind`].
    pub fn bind_plan(&self, header: &Header) -> Result<Costs, CostError> {
        self.bind_to(&header.catalog, &Pipeline::of_plan(header))
    }

    fn bind_to(&self, catalog: &Catalog, pipeline: &Pipeline<'_>) -> Result<Costs, CostError> {
        if !self.lenient {
            self.refuse_unknown(std::iter::once(catalog))?;
        }
        let known = |name: &str| self.of(name).is_some();
        let mut durations = match &self.basis {
            Basis::Units => return self.bind_sizes(catalog, &Sizes::of(pipeline)),
            Basis::Rates(rates) => rates.durations(catalog, pipeline, known)?,
            Basis::Profile(profile) => profile.durations(catalog, pipeline, known)?,
        };
        self.name_over(catalog, &mut durations);
        durations.bind(pipeline.stages.len() as u32, pipeline.units)
    }

    /// What is named takes what it is named with, in microseconds.
    #[allow(clippy::cast_precision_loss, reason = "durations are kept to a nanosecond")]
    fn name_over(&self, catalog: &Catalog, durations: &mut Durations) {
        let cost = |name: &str| self.of(name).map(|cost| cost as f64 / ONE as f64);
        for (kind, sites) in catalog.kinds.iter().zip(&mut durations.passes) {
            let rescale = if kind.queue == Queue::Group { cost(RESCALE) } else { None };
            if let Some(own) = cost(&kind.name).or(rescale) {
                *sites = vec![own];
            }
        }
        for (collective, time) in catalog.collectives.iter().zip(&mut durations.collectives) {
            *time = cost(collective.op.word()).unwrap_or(*time);
        }
        if let Some(latency) = cost(MESSAGE) {
            durations.messages.fill(latency);
            durations.transfers.fill(0.0);
        }
    }

    /// Refuses a name that no catalog of several has.
    ///
    /// # Errors
    /// The first such name.
    pub fn refuse_unknown<'a>(
        &self,
        catalogs: impl Iterator<Item = &'a Catalog> + Clone,
    ) -> Result<(), CostError> {
        let kinds = catalogs.flat_map(|catalog| &catalog.kinds).map(|kind| kind.name.as_str());
        let words = CollectiveOp::WORDS.iter().map(|&(_, word)| word).chain([MESSAGE, RESCALE, WEIGHT]);
        let known = kinds.chain(words);
        let Some(name) = self.names().find(|name| !known.clone().any(|known| known == *name)) else {
            return Ok(());
        };
        let mut all: Vec<&str> = Vec::new();
        for word in known {
            if !all.contains(&word) {
                all.push(word);
            }
        }
        let help = nearest(name, all.iter().copied()).map_or_else(
            || format!("leave it out; there are {}", all.join(", ")),
            |near| format!("did you mean `{near}`?"),
        );
        Err(CostError::UnknownName { name: name.to_owned(), help })
    }

    fn bind_sizes(&self, catalog: &Catalog, sizes: &Sizes) -> Result<Costs, CostError> {
        // In millionths of the unit, cut into parts that every division below leaves whole.
        let cut = u128::from(SMALL * sizes.chunks * sizes.slices);
        let passes: Vec<u128> = catalog.kinds.iter().map(|kind| self.pass(kind, cut, sizes)).collect();
        let collectives: Vec<u128> =
            catalog.collectives.iter().map(|collective| self.collective(collective, cut)).collect();
        let message = u128::from(self.of(MESSAGE).unwrap_or(0)) * cut;
        let all = passes.iter().chain(&collectives).chain([&message]);
        let grain = all.fold(0, |divisor, &cost| common_divisor(divisor, cost)).max(1);
        let ticks = |cost: u128| cost / grain;
        let places = |kind: &Kind| if kind.at == At::Stage { sizes.stages } else { sizes.ranks };
        let of_kinds = catalog.kinds.iter().zip(&passes).map(|(kind, &cost)| {
            let instances = u128::from(places(kind)) * u128::from(sizes.units);
            (ticks(cost) + ticks(message)).saturating_mul(instances)
        });
        let of_collectives =
            collectives.iter().map(|&cost| ticks(cost).saturating_mul(u128::from(sizes.units)));
        let longest = of_kinds.chain(of_collectives).fold(0_u128, u128::saturating_add);
        let narrow = |cost: u128| u64::try_from(cost).map_err(|_| CostError::TooLong);
        if longest > LONGEST {
            return Err(CostError::TooLong);
        }
        let narrow_all = |costs: &[u128]| {
            let narrowed: Result<Vec<_>, _> =
                costs.iter().map(|&cost| narrow(ticks(cost)).map(Ticks)).collect();
            narrowed
        };
        let scale = Scale { grain: narrow(grain)?, parts: narrow(cut * u128::from(ONE))? };
        let arrives = Ticks(narrow(ticks(message))?);
        let passes = narrow_all(&passes)?.into_iter().map(|ticks| vec![ticks]).collect();
        let messages = Messages::Alike(Hop { arrives, occupies: Ticks(0) });
        Ok(Costs {
            passes,
            collectives: narrow_all(&collectives)?,
            steps: Vec::new(),
            threads: None,
            messages,
            scale,
        })
    }

    /// The cost of a kind's pass in millionths, cut.
    fn pass(&self, kind: &Kind, cut: u128, sizes: &Sizes) -> u128 {
        let unit = self.of(FORWARD).unwrap_or(ONE);
        let own = self.of(&kind.name);
        let of_slice = cut / u128::from(sizes.slices);
        let at_stage = |cost: u64| u128::from(cost) * (of_slice / u128::from(sizes.chunks));
        if kind.computes == Some(Compute::Release) {
            return 0;
        }
        match (kind.queue, kind.at) {
            (Queue::Group, _) => u128::from(own.or(self.of(RESCALE)).unwrap_or(0)) * of_slice,
            (_, At::EveryRank) => own
                .map_or(u128::from(unit) * (of_slice / u128::from(SMALL)), |own| u128::from(own) * of_slice),
            (_, At::Stage) => {
                let fused = kind.computes == Some(Compute::StageBackward);
                let rest = if fused { at_stage(self.of(WEIGHT).unwrap_or(unit)) } else { 0 };
                at_stage(own.unwrap_or(unit)) + rest
            }
        }
    }

    /// The cost of a collective in millionths, cut.
    fn collective(&self, collective: &Collective, cut: u128) -> u128 {
        u128::from(self.of(collective.op.word()).unwrap_or(0)) * cut
    }
}

fn common_divisor(left: u128, right: u128) -> u128 {
    let (mut left, mut right) = (left, right);
    while right != 0 {
        (left, right) = (right, left % right);
    }
    left
}
