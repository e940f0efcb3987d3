//! Recorded passes -> how much the ranks slow each other down, and how long each pass would have taken alone.
//!
//! A pass of one kind at one site does the same every time. Some were run while other ranks idled, some beside them: the contention is that
//! under which all come out most alike.

use std::collections::BTreeMap;

use crate::cost::contention::Load;

/// A pass that was recorded.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sample {
    /// The kind's position in the head.
    pub(super) kind: usize,
    pub(super) site: usize,
    /// Microseconds.
    pub(super) start: f64,
    pub(super) duration: f64,
}

/// What passes took, by kind and site.
pub(super) type Groups = BTreeMap<(usize, usize), Vec<f64>>;

/// Contentions that are tried: hundredths, first tens of them.
const COARSE: u32 = 10;
/// Ranks that slow each other down by more than three times are no ranks of one machine.
const MOST: u32 = 200;
/// What the passes must come out more alike for a contention to be believed: less than that is noise.
const BETTER: f64 = 0.95;

/// The contention, and what passes take without it.
pub(super) fn alone(samples: &[Sample], load: &Load) -> (f64, Groups) {
    let weights = groups(samples, load, 0.0);
    let apart = |hundredths: u32| {
        let groups = groups(samples, load, f64::from(hundredths) / 100.0);
        groups.iter().map(|(key, found)| weights[key].iter().sum::<f64>() * spread(found)).sum::<f64>()
    };
    let best = |tried: &mut dyn Iterator<Item = u32>| {
        tried.map(|tried| (apart(tried), tried)).min_by(|left, right| left.0.total_cmp(&right.0))
    };
    let coarse = best(&mut (0..=MOST).step_by(COARSE as usize)).map_or(0, |(_, tried)| tried);
    let fine = best(&mut (coarse.saturating_sub(COARSE)..=coarse + COARSE));
    let (spread, hundredths) = fine.unwrap_or_default();
    let contention = if spread < BETTER * apart(0) { f64::from(hundredths) / 100.0 } else { 0.0 };
    (contention, groups(samples, load, contention))
}

fn groups(samples: &[Sample], load: &Load, contention: f64) -> Groups {
    let progress = load.progress(contention);
    let mut groups = Groups::new();
    for &Sample { kind, site, start, duration } in samples {
        let alone = progress.between(start, start + duration);
        groups.entry((kind, site)).or_default().push(alone.clamp(0.0, duration));
    }
    groups
}

/// How far passes are from their mean, as a part of it. Not squared, so that one that was held up does not decide.
#[allow(clippy::cast_precision_loss, reason = "samples are few")]
fn spread(found: &[f64]) -> f64 {
    let count = found.len() as f64;
    let mean = found.iter().sum::<f64>() / count;
    // As a part, so that a contention that makes all of them shorter does not look better for it.
    if mean > 0.0 { found.iter().map(|time| (time / mean - 1.0).abs()).sum::<f64>() / count } else { 0.0 }
}
