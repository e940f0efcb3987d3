//! Durations in microseconds, of every pass at its site -> [`Costs`]: what a device's rates or a measurement come to.

use super::bind::LONGEST;
use super::error::CostError;
use super::{Costs, Hop, Messages, Scale};
use crate::ir::Ticks;

/// Ticks are nanoseconds.
const TICKS: u32 = 1000;

/// How long everything takes, in microseconds.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Durations {
    /// By kind, then by the index of the site: one microbatch's (or slice's) pass there. One entry where all sites take the same.
    pub passes: Vec<Vec<f64>>,
    /// By collective.
    pub collectives: Vec<f64>,
    /// By `from * ranks + to`: until a message is there.
    pub messages: Vec<f64>,
    /// By `from * ranks + to`: the part of it in which no other message goes the same way.
    pub transfers: Vec<f64>,
    /// By rank: the optimizer's step; empty where it is not known.
    pub steps: Vec<f64>,
    /// Where ranks are threads of one machine, how much those slow each other down that run passes at a time: [`super::Load`].
    pub threads: Option<f64>,
    /// `p`.
    pub ranks: u32,
}

impl Durations {
    /// The same in ticks of a nanosecond, for a pipeline of so many stages, and `units` microbatches or slices of them.
    ///
    /// Requires: a row for every kind and an entry for every collective of the catalog, `ranks * ranks` messages and transfers.
    ///
    /// # Errors
    /// A duration that is negative or no number; durations that add up to more than can be counted.
    pub fn bind(&self, stages: u32, units: u32) -> Result<Costs, CostError> {
        let row = |row: &[f64]| row.iter().map(|&time| ticks(time)).collect::<Result<Vec<_>, _>>();
        let passes = self.passes.iter().map(|sites| row(sites)).collect::<Result<Vec<_>, _>>()?;
        let collectives = row(&self.collectives)?;
        let steps = row(&self.steps)?;
        let (arrives, occupies) = (row(&self.messages)?, row(&self.transfers)?);
        let slowest = arrives.iter().max().copied().unwrap_or_default();
        let sites = passes.iter().flat_map(|sites| sites.iter().map(|time| (time, sites.len())));
        let all = u128::from(stages.max(self.ranks));
        let of_passes = sites.map(|(time, count)| {
            let instances = if count == 1 { all } else { 1 } * u128::from(units);
            (u128::from(time.0) + u128::from(slowest.0)) * instances
        });
        let of_collectives = collectives.iter().map(|time| u128::from(time.0) * u128::from(units));
        let of_steps = steps.iter().map(|time| u128::from(time.0));
        if of_passes.chain(of_collectives).chain(of_steps).fold(0, u128::saturating_add) > LONGEST {
            return Err(CostError::TooLong);
        }
        let hops = arrives.into_iter().zip(occupies).map(|(arrives, occupies)| Hop { arrives, occupies });
        let messages = Messages::ByPair { ranks: self.ranks, hops: hops.collect() };
        let threads =
            self.threads.map(|contention| ticks(contention * 1e3)).transpose()?.map(|Ticks(part)| part);
        Ok(Costs {
            passes,
            collectives,
            steps,
            threads,
            messages,
            scale: Scale { grain: 1, parts: u64::from(TICKS) },
        })
    }
}

#[allow(clippy::cast_sign_loss, reason = "refused before")]
fn ticks(time: f64) -> Result<Ticks, CostError> {
    if !time.is_finite() || time < 0.0 {
        return Err(CostError::Negative { entry: format!("{time} µs") });
    }
    // Saturates, and is refused with the sum.
    Ok(Ticks((time * f64::from(TICKS)).round() as u64))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ir::{KindId, Microbatch, Pass, Rank, Site, Stage};

    #[test]
    fn every_site_and_every_way_has_its_own_duration() {
        let durations = Durations {
            passes: vec![vec![1.5, 2.0], vec![3.0]],
            collectives: vec![0.25],
            messages: vec![9.0, 4.0, 5.0, 9.0],
            transfers: vec![9.0, 1.0, 2.0, 9.0],
            steps: vec![7.0],
            threads: None,
            ranks: 2,
        };
        let costs = durations.bind(2, 4).unwrap();
        let pass = |kind, stage| Pass {
            kind: KindId(kind),
            site: Site::Stage(Stage(stage)),
            microbatch: Microbatch(0),
        };
        assert_eq!(
            [(0, 0), (0, 1), (1, 1)].map(|(kind, stage)| costs.pass(pass(kind, stage)).0),
            [1500, 2000, 3000]
        );
        assert_eq!(costs.message(Rank(0), Rank(1)).0, 4000);
        assert_eq!(costs.message(Rank(1), Rank(0)).0, 5000);
        assert_eq!(costs.message(Rank(1), Rank(1)).0, 0);
        assert_eq!(costs.occupies(Rank(1), Rank(0)).0, 2000);
        assert_eq!([costs.step(Rank(0)).0, costs.step(Rank(1)).0], [7000, 0]);
        assert!((costs.in_units(Ticks(1500)) - 1.5).abs() < 1e-12);
    }

    #[test]
    fn what_is_no_duration_is_refused() {
        let with = |time| Durations { passes: vec![vec![time]], ranks: 1, ..Durations::default() }.bind(1, 2);
        for time in [-1.0, f64::NAN, f64::INFINITY] {
            assert!(matches!(with(time), Err(CostError::Negative { .. })), "{time}");
        }
        assert_eq!(with(1e30), Err(CostError::TooLong));
    }
}
