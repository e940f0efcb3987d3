//! A plan against bounds on its memory and its idle time: those that its schedule requires, and the limit that the user sets.

use super::error::SimulateError;
use super::memory::{Owner, Peak, memory_peak};
use super::report::{Known, residents};
use super::{Timeline, activations, simulate};
use crate::cost::{Costs, Weights};
use crate::ir::{Bytes, Header, Measure, Microbatch, Rank, Requirement};
use crate::verify::Verified;

/// Groups of owners that a message names.
const SHOWN: usize = 4;

/// Checks what the schedule requires of its plan.
///
/// Requires: `costs` are bound to the plan's catalog.
///
/// # Errors
/// Every requirement that is not kept, with what was found instead.
pub fn check(plan: &Verified, costs: &Costs, required: &[Requirement]) -> Result<(), Vec<SimulateError>> {
    if required.is_empty() {
        return Ok(());
    }
    let timeline = simulate(plan, costs);
    let unmet: Vec<_> =
        required.iter().filter_map(|requirement| unmet(plan, costs, &timeline, requirement)).collect();
    if unmet.is_empty() { Ok(()) } else { Err(unmet) }
}

/// Checks that what every rank holds fits a limit: of a plan for `schedc run` its buffers, on a device all of it.
///
/// Requires: `costs` are bound to the plan's catalog.
///
/// # Errors
/// The rank that needs most, with the moment and the owners of its peak.
pub fn check_memory(
    plan: &Verified,
    costs: &Costs,
    known: &Known,
    limit: Bytes,
) -> Result<(), SimulateError> {
    let timeline = simulate(plan, costs);
    let weights = known.device.as_ref().map(|device| Weights::of(plan, &device.training));
    let peak = |rank: Rank| memory_peak(plan, &timeline, rank, weights.as_ref());
    let beside: Vec<u64> = match known.device {
        Some(device) => {
            let residents = residents(plan, known);
            residents.iter().map(|rank| rank.total().saturating_add(device.reserved.0)).collect()
        }
        None => vec![0; plan.ranks.len()],
    };
    let buffers = |rank: Rank| match weights {
        Some(_) => peak(rank).bytes.0,
        None => plan.ranks[rank.index()].peak.bytes.0,
    };
    let needs =
        Rank::all(plan.ranks.len()).map(|rank| (buffers(rank).saturating_add(beside[rank.index()]), rank));
    let most = needs.max_by_key(|&(bytes, rank)| (bytes, std::cmp::Reverse(rank)));
    let Some((needed, rank)) = most.filter(|&(bytes, _)| bytes > limit.0) else { return Ok(()) };
    let beside = match beside[rank.index()] {
        0 => String::new(),
        bytes => format!("parameters, gradients, optimizer and software take {}; ", Bytes(bytes).short()),
    };
    let advice = "take more ranks, a schedule that holds less (`schedc list`), or a smaller model";
    let help = format!("{beside}{}; {advice}", story(plan, rank, costs, &peak(rank)));
    Err(SimulateError::OverMemoryLimit { rank, needed: Bytes(needed), limit, help })
}

/// A requirement that is not kept.
fn unmet(
    plan: &Verified,
    costs: &Costs,
    timeline: &Timeline,
    requirement: &Requirement,
) -> Option<SimulateError> {
    let Requirement { measure, most, span } = *requirement;
    let peak_of = |rank: Rank| story(plan, rank, costs, &memory_peak(plan, timeline, rank, None));
    let (required, found, why) = match measure {
        Measure::Activations => {
            let held = activations(plan);
            let (rank, found) = largest(held)?;
            if found <= as_float(most) {
                return None;
            }
            let required = format!("a peak of at most {most} microbatches of activations");
            (required, format!("{rank} holds {}", shown(found)), peak_of(rank))
        }
        Measure::Bytes(unit) => {
            let limit = Bytes(most.saturating_mul(unit.bytes()));
            let needs = Rank::all(plan.ranks.len()).map(|rank| (plan.ranks[rank.index()].peak.bytes, rank));
            let (needed, rank) = needs.max_by_key(|&(bytes, rank)| (bytes, std::cmp::Reverse(rank)))?;
            if needed <= limit {
                return None;
            }
            let required = format!("a peak of at most {most} {}", unit.word());
            let exact = if needed.0 < 1024 { String::new() } else { format!(" ({needed})") };
            (required, format!("{rank} needs {}{exact}", needed.short()), peak_of(rank))
        }
        Measure::Bubble => {
            let bubble = timeline.bubble() * 100.0;
            if bubble <= as_float(most) + 1e-9 {
                return None;
            }
            let required = format!("a bubble of at most {most} percent");
            let cause = "under these costs; see `schedc simulate` for what it is made of".to_owned();
            (required, format!("the ranks idle {bubble:.2} percent of the makespan"), cause)
        }
    };
    let help = format!("{why}; change the order or raise what is required");
    Some(SimulateError::UnmetRequirement { required, found, help, at: span })
}

/// The rank with the most; the lowest of several.
fn largest(held: Vec<f64>) -> Option<(Rank, f64)> {
    let ranks = held.into_iter().enumerate().map(|(rank, held)| (Rank::new(rank), held));
    ranks.reduce(|best, next| if next.1 > best.1 { next } else { best })
}

#[allow(clippy::cast_precision_loss, reason = "no rank holds 2^52 microbatches")]
fn as_float(number: u64) -> f64 {
    number as f64
}

/// With at most three decimals.
fn shown(number: f64) -> String {
    let text = format!("{number:.3}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// `at 12 its live buffers take 1.2 MiB: 1.0 MiB act of F.s0 m0-m7, …`.
fn story(plan: &Verified, rank: Rank, costs: &Costs, peak: &Peak) -> String {
    let groups = groups(&plan.header, peak);
    let mut shares: Vec<String> = groups.iter().take(SHOWN).map(OwnerGroup::to_string).collect();
    let rest: u64 = groups.iter().skip(SHOWN).map(|group| group.bytes.0).sum();
    if rest > 0 {
        shares.push(format!("{} of others", Bytes(rest).short()));
    }
    let at = shown(costs.in_units(peak.at));
    let arena = plan.ranks[rank.index()].peak.bytes;
    // Slots of different size leave room between what is live.
    let of_arena =
        if arena > peak.bytes { format!(" of an arena of {}", arena.short()) } else { String::new() };
    format!("at {at} its live buffers take {}{of_arena}: {}", peak.bytes.short(), shares.join(", "))
}

/// Buffers of one class that one kind of pass made at one site, all live at a peak.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnerGroup {
    /// The class.
    pub class: String,
    /// The pass at its site, or the collective: `F.s0`.
    pub maker: String,
    /// For which microbatches, or slices of them: `m0-m3 m8`.
    pub units: String,
    /// Together.
    pub bytes: Bytes,
}

impl std::fmt::Display for OwnerGroup {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { class, maker, units, bytes } = self;
        write!(f, "{} `{class}` of {maker} {units}", bytes.short())
    }
}

/// The owners of a peak by class and maker, those with the most bytes first.
#[must_use]
pub fn groups(header: &Header, peak: &Peak) -> Vec<OwnerGroup> {
    type Key = (String, String);
    let mut found: Vec<(Key, Vec<Microbatch>, u64)> = Vec::new();
    let mut places = std::collections::BTreeMap::new();
    for owner in &peak.owners {
        let Owner { kind, site, class, .. } = owner;
        let maker = site.map_or_else(|| kind.clone(), |site| format!("{kind}.{site}"));
        let key = (class.clone(), maker);
        let at = *places.entry(key.clone()).or_insert(found.len());
        if at == found.len() {
            found.push((key, Vec::new(), 0));
        }
        found[at].1.extend(owner.microbatch);
        found[at].2 += owner.bytes.0;
    }
    let group = |((class, maker), mut units, bytes): (Key, Vec<Microbatch>, u64)| {
        units.sort_unstable();
        OwnerGroup { class, maker, units: ranges(header, &units), bytes: Bytes(bytes) }
    };
    let mut groups: Vec<OwnerGroup> = found.into_iter().map(group).collect();
    groups.sort_by_key(|group| std::cmp::Reverse(group.bytes));
    groups
}

/// `m0-m3 m8`.
fn ranges(header: &Header, units: &[Microbatch]) -> String {
    let name = |unit: Microbatch| header.cut().name(unit).to_string();
    let mut parts = Vec::new();
    for run in units.chunk_by(|left, right| left.0 + 1 == right.0) {
        parts.push(match run {
            [one] => name(*one),
            [first, .., last] => format!("{}-{}", name(*first), name(*last)),
            [] => continue,
        });
    }
    parts.join(" ")
}
