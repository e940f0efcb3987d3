//! Schedule -> Schedule: the forward-only twin, which computes the loss and nothing else.
//!
//! In: any schedule, its transforms applied. Out: the same orders without the passes that the loss does not follow from. An order of
//! which passes are left out keeps every need of those that stay, so the twin is as sound as what it came from.
//!
//! Which passes stay follows from the catalog, not from names. The loss comes from the passes that compute `stage_forward`, or
//! where the output layer is sharded from those that compute `output_grad` or `output_weight_grad`: what they do besides is left
//! out, and they become steps of their barrier that combine its statistics. A kind stays if one of these needs it, directly or by
//! way of others; a collective if a kind that stays reads it. So a pass of a user's own goes with the backward side unless the
//! loss waits for it.
//!
//! State that no pass that stays reads is scratch of the pass that makes it. What later slices of a sequence read (keys and values) lives
//! until the last of them has: the pass that freed it stays and does nothing else.

mod error;
mod reach;
mod release;

pub use error::ForwardError;

use reach::Kept;

use crate::ir::{
    At, Catalog, ClassId, Compute, Kind, KindId, Mode, Need, Pass, Placed, Queue, Relation, Schedule, Source,
};

/// The forward-only twin of a schedule.
///
/// Ensures: the passes that stay keep their order; no pass computes a gradient that the loss does not wait for.
///
/// # Errors
/// Nothing of the schedule says that it computes the loss.
pub fn twin(mut schedule: Schedule) -> Result<Schedule, ForwardError> {
    let mut catalog = schedule.catalog;
    let ends = ends(&schedule.name, &mut catalog)?;
    let mut stay = ends.clone();
    if schedule.shape.slices > 1 {
        let kept = Kept::of(&catalog, &ends);
        stay.extend(release::cut_down(&mut catalog, &kept));
    }
    let kept = Kept::of(&catalog, &stay);
    for order in &mut schedule.orders {
        let stays = |placed: &Placed| {
            let kind = kept.kind(placed.pass.kind)?;
            (catalog.kind(placed.pass.kind).queue != Queue::Group).then_some(kind)
        };
        let place = |(at, placed): (usize, &Placed)| {
            let kind = stays(placed)?;
            // A pass overlaps with the next one only as long as both stay.
            let overlaps = placed.overlaps && order.get(at + 1).is_some_and(|next| stays(next).is_some());
            Some(Placed { pass: Pass { kind, ..placed.pass }, overlaps, ..*placed })
        };
        *order = order.iter().enumerate().filter_map(place).collect();
    }
    schedule.catalog = kept.catalog(catalog);
    for release in stay[ends.len()..].iter().filter_map(|&id| kept.kind(id)) {
        release::at_once(&mut schedule, release);
    }
    settle_states(&mut schedule.catalog);
    schedule.mode = Mode::ForwardOnly;
    Ok(schedule)
}

/// The kinds that the loss comes from; those that do more are cut down to it.
fn ends(schedule: &str, catalog: &mut Catalog) -> Result<Vec<KindId>, ForwardError> {
    let softmax = catalog.kinds.iter().position(|kind| kind.computes.is_some_and(Compute::shards_output));
    let gives_loss = |kind: &Kind| match kind.computes {
        Some(Compute::OutputGrad | Compute::OutputWeightGrad | Compute::OutputLoss) => softmax.is_some(),
        Some(Compute::StageForward) => softmax.is_none(),
        _ => false,
    };
    let ends: Vec<KindId> =
        KindId::all(catalog.kinds.len()).filter(|&id| gives_loss(catalog.kind(id))).collect();
    if ends.is_empty() {
        let (wanted, at) = match softmax {
            Some(kind) => (
                "a pass `at every rank computes output_grad` or `output_weight_grad`, which has the loss",
                catalog.kinds[kind].span,
            ),
            None => ("the forward pass with `computes stage_forward`", None),
        };
        return Err(ForwardError::NoLoss { schedule: schedule.to_owned(), wanted, at });
    }
    if softmax.is_some() {
        for &end in &ends {
            only_loss(catalog, end);
        }
    }
    Ok(ends)
}

/// Leaves of a pass of the output layer what combines the statistics: a step of their barrier, like its rescale step.
fn only_loss(catalog: &mut Catalog, id: KindId) {
    let of_softmax = |need: &Need| {
        let kind = match need.from {
            Source::Pass { kind, port: Some(_), .. } => kind,
            Source::Pass { port: None, .. } => return false,
            Source::Collective(collective) => catalog.collective(collective).kind,
        };
        catalog.kind(kind).computes.is_some_and(Compute::shards_output)
    };
    let needs = catalog.kind(id).needs.iter().filter(|need| of_softmax(need)).cloned().collect();
    let name = free_name(catalog, &format!("{}-loss", catalog.kind(id).name));
    let kind = &mut catalog.kinds[id.index()];
    kind.name = name;
    kind.queue = if kind.at == At::EveryRank { Queue::Group } else { kind.queue };
    kind.computes = Some(Compute::OutputLoss);
    kind.needs = needs;
    for list in [&mut kind.gives, &mut kind.makes, &mut kind.frees] {
        list.clear();
    }
}

/// A name that no kind has: this one, or with a number behind it.
fn free_name(catalog: &Catalog, plain: &str) -> String {
    let numbered = (2..).map(|number| format!("{plain}-{number}"));
    let mut names = std::iter::once(plain.to_owned()).chain(numbered);
    names.find(|name| catalog.kind_named(name).is_none()).unwrap_or_else(|| plain.to_owned())
}

/// Every class is made and freed by one kind again: by the last declared of those that read it, else by the one that makes it.
fn settle_states(catalog: &mut Catalog) {
    for class in ClassId::all(catalog.classes.len()) {
        for at in [At::Stage, At::EveryRank] {
            let having = |list: fn(&Kind) -> &[ClassId]| {
                catalog.kinds.iter().position(|kind| kind.at == at && list(kind).contains(&class))
            };
            let (made, freed) = (having(|kind| &kind.makes), having(|kind| &kind.frees));
            match (made, freed) {
                (Some(maker), None) => {
                    let reads = |need: &Need| {
                        let here = Source::Pass { kind: KindId::new(maker), at: Relation::Here, port: None };
                        need.from == here
                    };
                    let reader = catalog.kinds.iter().rposition(|kind| kind.needs.iter().any(reads));
                    catalog.kinds[reader.unwrap_or(maker)].frees.push(class);
                }
                (None, Some(kind)) => catalog.kinds[kind].frees.retain(|&other| other != class),
                _ => {}
            }
        }
    }
}
