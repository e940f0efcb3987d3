//! Catalog -> which kinds stand on the backward side of a transform, and which of its passes others wait for.

use crate::ir::{Catalog, KindId, Source};

/// Which kinds come before and after a transform's passes.
#[derive(Debug)]
pub(super) struct Sides {
    /// By [`KindId`]: a kind of the base schedule that waits for a new pass that itself waits for the base schedule.
    backward: Vec<bool>,
    /// By [`KindId`]: a new kind that a kind of the base schedule waits for, however indirectly.
    urgent: Vec<bool>,
}

impl Sides {
    /// Follows the kinds' needs to a fixed point; kinds are few. Kinds from `base` on are the transform's.
    pub(super) fn of(catalog: &Catalog, base: usize) -> Self {
        let count = catalog.kinds.len();
        let needs: Vec<Vec<usize>> = catalog.kinds.iter().map(|kind| needed_kinds(catalog, kind)).collect();
        // New kinds behind a base kind; then base kinds behind one of those.
        let rooted = reach(&needs, |kind| kind < base, |kind| kind >= base);
        let backward = reach(&needs, |kind| kind >= base && rooted[kind], |_| true);
        let mut readers = vec![Vec::new(); count];
        for (kind, needed) in needs.iter().enumerate() {
            for &needed in needed {
                readers[needed].push(kind);
            }
        }
        let urgent = reach(&readers, |kind| kind < base, |kind| kind >= base);
        Self { backward: (0..count).map(|kind| kind < base && backward[kind]).collect(), urgent }
    }

    /// Whether any kind of the base schedule moves back.
    pub(super) fn moves_any(&self) -> bool {
        self.backward.contains(&true)
    }

    /// Whether a kind of the base schedule moves back.
    pub(super) fn is_backward(&self, kind: KindId) -> bool {
        self.backward[kind.index()]
    }

    /// Whether the base schedule waits for a new kind.
    pub(super) fn is_urgent(&self, kind: KindId) -> bool {
        self.urgent[kind.index()]
    }
}

fn needed_kinds(catalog: &Catalog, kind: &crate::ir::Kind) -> Vec<usize> {
    let of = |need: &crate::ir::Need| match need.from {
        Source::Pass { kind, .. } => kind.index(),
        Source::Collective(id) => catalog.collective(id).kind.index(),
    };
    kind.needs.iter().map(of).collect()
}

/// The kinds in `within` that lead over `edges`, through kinds in `within`, to a kind in `roots`.
fn reach(edges: &[Vec<usize>], roots: impl Fn(usize) -> bool, within: impl Fn(usize) -> bool) -> Vec<bool> {
    let mut reached = vec![false; edges.len()];
    loop {
        let mut grew = false;
        for kind in 0..edges.len() {
            if !reached[kind] && within(kind) && edges[kind].iter().any(|&next| roots(next) || reached[next])
            {
                reached[kind] = true;
                grew = true;
            }
        }
        if !grew {
            return reached;
        }
    }
}
