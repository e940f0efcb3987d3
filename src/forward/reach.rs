//! Catalog -> the kinds and collectives that some of its kinds need, with new numbers.

use crate::ir::{Catalog, CollectiveId, KindId, Need, Source};

/// What stays of a catalog.
#[derive(Debug)]
pub(super) struct Kept {
    /// The new number of each kind that stays, by [`KindId`].
    kinds: Vec<Option<KindId>>,
    /// The same of collectives, by [`CollectiveId`].
    collectives: Vec<Option<CollectiveId>>,
}

impl Kept {
    /// The kinds `ends` and all that they need, directly or by way of others.
    pub(super) fn of(catalog: &Catalog, ends: &[KindId]) -> Self {
        let mut kinds = vec![false; catalog.kinds.len()];
        let mut collectives = vec![false; catalog.collectives.len()];
        let mut open = ends.to_vec();
        while let Some(id) = open.pop() {
            if std::mem::replace(&mut kinds[id.index()], true) {
                continue;
            }
            for need in &catalog.kind(id).needs {
                match need.from {
                    Source::Pass { kind, .. } => open.push(kind),
                    Source::Collective(collective) => {
                        collectives[collective.index()] = true;
                        open.push(catalog.collective(collective).kind);
                    }
                }
            }
        }
        Self { kinds: numbers(&kinds, KindId::new), collectives: numbers(&collectives, CollectiveId::new) }
    }

    /// The new number of a kind, if it stays.
    pub(super) fn kind(&self, id: KindId) -> Option<KindId> {
        self.kinds[id.index()]
    }

    /// The catalog of what stays.
    pub(super) fn catalog(&self, from: Catalog) -> Catalog {
        let need = |mut need: Need| {
            need.from = match need.from {
                Source::Pass { kind, at, port } => Source::Pass { kind: self.kind(kind)?, at, port },
                Source::Collective(id) => Source::Collective(self.collectives[id.index()]?),
            };
            Some(need)
        };
        let kinds = from.kinds.into_iter().zip(&self.kinds).filter_map(|(mut kind, stays)| {
            let _ = (*stays)?;
            kind.needs = kind.needs.into_iter().filter_map(need).collect();
            Some(kind)
        });
        let kinds = kinds.collect();
        let collectives = from.collectives.into_iter().zip(&self.collectives);
        let collectives = collectives.filter_map(|(mut collective, stays)| {
            let _ = (*stays)?;
            collective.kind = self.kind(collective.kind)?;
            collective.after = collective.after.and_then(|after| self.collectives[after.index()]);
            Some(collective)
        });
        Catalog { classes: from.classes, kinds, collectives: collectives.collect() }
    }
}

/// Numbers what stays from 0.
fn numbers<Id: Copy>(stays: &[bool], new: impl Fn(usize) -> Id) -> Vec<Option<Id>> {
    let mut next = 0;
    let mut number = |stays: &bool| {
        stays.then(|| {
            next += 1;
            new(next - 1)
        })
    };
    stays.iter().map(&mut number).collect()
}
