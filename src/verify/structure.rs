//! The plan is well formed: its header makes sense, its parts fit it. The other rules index by what is checked here.

use super::error::Rule;
use super::report::{Place, Report};
use super::{catalog, streams};
use crate::ir::{At, Cut, Group, GroupId, Plan, Rank};

/// Reports every malformed part.
pub(super) fn check(plan: &Plan, report: &mut Report) {
    header(plan, report);
    groups(plan, report);
    if report.is_empty() {
        catalog::check(plan, report);
    }
    if report.is_empty() {
        counts(plan, report);
    }
    if report.is_empty() {
        streams::check(plan, report);
    }
}

fn header(plan: &Plan, report: &mut Report) {
    let header = &plan.header;
    let mut wrong = |problem: String| report.add(Place::Header, || Rule::MalformedHeader { problem });
    let ranks = plan.ranks.len();
    if ranks == 0 || u32::try_from(ranks).is_err() {
        return wrong(format!("it has {ranks} ranks"));
    }
    if header.microbatches == 0 {
        wrong("it has no microbatches".to_owned());
    }
    if !(1..=Cut::MOST_SLICES).contains(&header.slices) {
        wrong(format!("its sequences have {} slices, not 1 to {}", header.slices, Cut::MOST_SLICES));
    } else if header.microbatches.checked_mul(header.slices).is_none() {
        wrong("it has more slices than can be counted".to_owned());
    } else if !header.model.sequence.is_multiple_of(header.slices) {
        wrong(format!("{} slices do not divide a sequence of {}", header.slices, header.model.sequence));
    }
    for name in std::iter::once(&header.name).chain(&header.transforms) {
        if !catalog::is_name(name) {
            wrong(format!("`{}` cannot be a name", name.escape_debug()));
        }
    }
    let model = header.model;
    if [model.hidden, model.heads, model.sequence, model.batch, model.vocab].contains(&0) {
        wrong("its model has a dimension of 0".to_owned());
    } else if !model.hidden.is_multiple_of(model.heads) {
        wrong(format!("{} heads do not divide a width of {}", model.heads, model.hidden));
    }
    if let Some(layers) = &header.partition.0 {
        let sum: u64 = layers.iter().map(|&count| u64::from(count)).sum();
        if layers.len() != header.depth() as usize || sum != u64::from(model.layers) {
            wrong(format!(
                "its partition has {sum} layers on {} stages, not {} on {}",
                layers.len(),
                model.layers,
                header.depth()
            ));
        }
    }
    if header.stages.is_empty() || u32::try_from(header.stages.len()).is_err() {
        return wrong(format!("it has {} stages", header.stages.len()));
    }
    if !matches!(header.flows, 1 | 2) || !header.stages.len().is_multiple_of(header.flows as usize) {
        return wrong(format!("{} stages cannot be those of {} flows", header.stages.len(), header.flows));
    }
    let mut held = vec![0_usize; ranks];
    for (stage, rank) in header.stages.iter().enumerate() {
        match held.get_mut(rank.index()) {
            Some(held) => *held += 1,
            None => wrong(format!("stage {stage} lies on {rank}, and there are {ranks} ranks")),
        }
    }
    if let Some(rank) = held.iter().position(|&count| count != held[0]) {
        wrong(format!(
            "r{rank} holds {} stages and r0 {}: every rank must hold as many",
            held[rank], held[0]
        ));
    }
}

fn groups(plan: &Plan, report: &mut Report) {
    for (id, Group(ranks)) in plan.header.groups.iter().enumerate() {
        let id = GroupId::new(id);
        let ascending = ranks.windows(2).all(|pair| pair[0] < pair[1]);
        if ranks.is_empty() || !ascending || ranks.iter().any(|rank| rank.index() >= plan.ranks.len()) {
            let problem = "its ranks must exist and ascend".to_owned();
            report.add(Place::Header, || Rule::MalformedGroup { group: id, problem });
        }
    }
    let all = plan
        .header
        .groups
        .first()
        .is_some_and(|group| group.0.iter().copied().eq(Rank::all(plan.ranks.len())));
    if plan.ranks.len() > 1 && !plan.header.groups.is_empty() && !all {
        let problem = "the first group must be all ranks".to_owned();
        report.add(Place::Header, || Rule::MalformedGroup { group: GroupId(0), problem });
    }
}

/// A header that promises far more passes than there are instructions would make every table as large as it says.
fn counts(plan: &Plan, report: &mut Report) {
    let header = &plan.header;
    let mut sites = 0_u64;
    for kind in &header.catalog.kinds {
        sites = sites.saturating_add(match kind.at {
            At::Stage => u64::from(header.depth()),
            At::EveryRank => plan.ranks.len() as u64,
        });
    }
    if plan.ranks.len() > 1 {
        let collectives = header.catalog.collectives.len() as u64;
        sites = sites.saturating_add(collectives.saturating_mul(plan.ranks.len() as u64));
    }
    let promised = sites.saturating_mul(u64::from(header.microbatches) * u64::from(header.slices));
    let found: u64 = plan.ranks.iter().map(|rank| rank.instrs.len() as u64).sum();
    if promised > found.saturating_mul(4).saturating_add(1024) || u32::try_from(promised.max(found)).is_err()
    {
        let problem =
            format!("it promises {promised} passes and collectives, and there are {found} instructions");
        report.add(Place::Header, || Rule::MalformedHeader { problem });
    }
}
