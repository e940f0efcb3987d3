//! State that later slices of a sequence read: freed by what is left of the pass that freed it, when the last slice has run.

use std::collections::BTreeMap;

use super::free_name;
use super::reach::Kept;
use crate::ir::{
    Catalog, ClassId, Compute, Kind, KindId, Microbatch, Need, Placed, Relation, Schedule, Site, Source,
    Where,
};

/// Cuts passes that do not stay down to freeing what slices after theirs read of what stays; these are the kinds that do.
pub(super) fn cut_down(catalog: &mut Catalog, kept: &Kept) -> Vec<KindId> {
    let ids = || KindId::all(catalog.kinds.len());
    // Makers that stay, with those that read them from a later slice.
    let mut read: Vec<(KindId, KindId)> = Vec::new();
    for reader in ids().filter(|&id| kept.kind(id).is_some()) {
        for need in &catalog.kind(reader).needs {
            if let Source::Pass { kind, at: Relation::Earlier, .. } = need.from {
                read.push((kind, reader));
            }
        }
    }
    let mut freeing = Vec::new();
    for id in ids().filter(|&id| kept.kind(id).is_none()) {
        let kind = catalog.kind(id);
        let (mut frees, mut needs) = (Vec::new(), Vec::new());
        for &(maker, reader) in &read {
            let made = catalog.kind(maker);
            let shared = made.makes.iter().copied().filter(|class| kind.frees.contains(class));
            let shared: Vec<ClassId> = shared.filter(|_| made.at == kind.at).collect();
            if !shared.is_empty() {
                frees.extend(shared.into_iter().filter(|class| !frees.contains(class)).collect::<Vec<_>>());
                for (kind, at) in [(maker, Relation::Here), (reader, Relation::Here), (id, Relation::Later)] {
                    let from = Source::Pass { kind, at, port: None };
                    if !needs.iter().any(|need: &Need| need.from == from) {
                        needs.push(Need { on: Where::All, from, span: made.span });
                    }
                }
            }
        }
        if !frees.is_empty() {
            freeing.push((id, frees, needs));
        }
    }
    let cut_down = |(id, frees, needs): (KindId, Vec<ClassId>, Vec<Need>)| {
        let name = free_name(catalog, &format!("{}-frees", catalog.kind(id).name));
        let kind = &mut catalog.kinds[id.index()];
        *kind = Kind { name, computes: Some(Compute::Release), needs, frees, ..kind.clone() };
        kind.gives.clear();
        kind.makes.clear();
        id
    };
    freeing.into_iter().map(cut_down).collect()
}

/// Moves the passes of a kind that only frees: those of a microbatch behind the last slice of what they need here, last slice first.
pub(super) fn at_once(schedule: &mut Schedule, release: KindId) {
    let cut = schedule.shape.cut();
    let here = |need: &Need| match need.from {
        Source::Pass { kind, at: Relation::Here, .. } => Some(kind),
        _ => None,
    };
    let needed: Vec<KindId> = schedule.catalog.kind(release).needs.iter().filter_map(here).collect();
    let whole = needed.len() * cut.slices as usize;
    let key = |placed: &Placed| {
        let unit = placed.pass.microbatch;
        (placed.pass.site, Microbatch(unit.0 - cut.slice(unit)))
    };
    for order in &mut schedule.orders {
        let (freeing, rest): (Vec<Placed>, Vec<Placed>) =
            order.iter().partition(|placed| placed.pass.kind == release);
        let mut waiting: BTreeMap<(Site, Microbatch), Vec<Placed>> = BTreeMap::new();
        for placed in freeing {
            waiting.entry(key(&placed)).or_default().push(placed);
        }
        let mut seen: BTreeMap<(Site, Microbatch), usize> = BTreeMap::new();
        order.clear();
        for placed in rest {
            order.push(placed);
            if !needed.contains(&placed.pass.kind) {
                continue;
            }
            let count = seen.entry(key(&placed)).or_default();
            *count += 1;
            if *count == whole {
                let mut free = waiting.remove(&key(&placed)).unwrap_or_default();
                free.sort_by_key(|placed| std::cmp::Reverse(placed.pass.microbatch));
                order.append(&mut free);
            }
        }
        debug_assert!(waiting.is_empty(), "every slice of what is needed is in the order of its rank");
    }
}
