//! `stream F by …`: the order in which the passes of a kind come on a rank.

use super::error::ResolveError;
use super::expr::{self, Code, Scope, Type};
use super::names::Parts;
use crate::ir::{Chunk, Cut, KindId, Microbatch, Relation, Shape, Source, Stage};

use super::catalog::Drafts;

/// The sort keys of a kind's stream.
#[derive(Debug)]
pub(super) struct Keys {
    pub(super) kind: KindId,
    codes: Vec<Code>,
    /// The slot of `microbatch`; `chunk`, `stage` and `slice` follow.
    first: usize,
    last: Option<Sorted>,
}

/// A stream and the keys, folded for a rank, that it was sorted by.
type Sorted = (Vec<Code>, Vec<(Chunk, Microbatch)>);

/// Binds the keys of all streams; `scope` has every name of a rank.
pub(super) fn bind(
    parts: &Parts<'_>,
    scope: &Scope,
    drafts: &Drafts,
    errors: &mut Vec<ResolveError>,
) -> Vec<Keys> {
    let mut scope = scope.at("in a stream");
    let first = scope.push("microbatch", Type::Number);
    scope.push("chunk", Type::Number);
    scope.push("stage", Type::Number);
    scope.push("slice", Type::Number);
    let mut streams = Vec::new();
    for (pass, keys) in &parts.streams {
        let codes: Vec<Code> = keys.iter().filter_map(|key| expr::number(key, &scope, errors)).collect();
        match super::order::own_kind(pass, drafts) {
            Ok((kind, true)) => streams.push(Keys { kind, codes, first, last: None }),
            Ok((_, false)) => errors.push(ResolveError::WrongSite {
                problem: format!("`{}` runs at every rank, and comes by microbatch", pass.text),
                help: "remove the stream; only passes at a stage come in an order of their own".to_owned(),
                at: pass.span,
            }),
            Err(error) => errors.push(error),
        }
    }
    streams
}

/// For each base kind, whether its passes come from the last slice to the first where no stream says otherwise: it needs a pass of a later
/// slice, or follows one at its stage that does.
pub(super) fn from_last_slice(drafts: &Drafts) -> Vec<bool> {
    let kinds = drafts.base_kinds();
    let mut found = vec![false; kinds.len()];
    // A chain of kinds is no longer than there are kinds.
    for _ in 0..kinds.len() {
        for (at, kind) in kinds.iter().enumerate() {
            found[at] |= kind.needs.iter().any(|need| match need.from {
                Source::Pass { at: Relation::Later, .. } => true,
                Source::Pass { kind, at: Relation::Here, .. } => found.get(kind.index()) == Some(&true),
                _ => false,
            });
        }
    }
    found
}

/// The stream of a rank with `chunks` stages by microbatch, slice from the last on, then chunk.
pub(super) fn last_slice_first(cut: Cut, chunks: usize) -> Vec<(Chunk, Microbatch)> {
    let microbatches = (0..cut.microbatches).map(Microbatch);
    let units = microbatches.flat_map(|mb| (0..cut.slices).rev().map(move |slice| cut.unit(mb, slice)));
    units.flat_map(|unit| Chunk::all(chunks).map(move |chunk| (chunk, unit))).collect()
}

impl Keys {
    /// The stream of a rank that holds `held`; `values` are those of the rank's names.
    pub(super) fn sorted(
        &mut self,
        values: &[i64],
        held: &[Stage],
        shape: &Shape,
        place: &str,
    ) -> Result<Vec<(Chunk, Microbatch)>, ResolveError> {
        let codes: Vec<Code> = self.codes.iter().map(|code| code.fold(values)).collect();
        // Ranks differ in their stages; where no key looks at them, the stream of the rank before is this one's too.
        if let Some((earlier, stream)) = &self.last
            && *earlier == codes
            && !codes.iter().any(|code| code.uses(self.first + 2))
        {
            return Ok(stream.clone());
        }
        let mut slots = values.to_vec();
        let cut = shape.cut();
        slots.resize(self.first + 4, 0);
        let mut passes = Vec::with_capacity(shape.visits() as usize * shape.units());
        let mut keys = Vec::with_capacity(passes.capacity() * codes.len());
        for unit in (0..cut.units()).map(Microbatch) {
            let flow = shape.flow_of(unit);
            let own = |(_, stage): &(Chunk, &Stage)| shape.flow_at(**stage) == flow;
            slots[self.first] = i64::from(cut.microbatch(unit).0);
            slots[self.first + 3] = i64::from(cut.slice(unit));
            for (chunk, stage) in Chunk::all(held.len()).zip(held).filter(own) {
                passes.push((chunk, unit));
                slots[self.first + 1] = i64::from(chunk.0);
                slots[self.first + 2] = i64::from(stage.0);
                for code in &codes {
                    keys.push(code.eval(&slots).map_err(|fault| fault.on(place.to_owned()))?);
                }
            }
        }
        let key = |&index: &u32| &keys[index as usize * codes.len()..][..codes.len()];
        let mut indices: Vec<u32> = (0..passes.len() as u32).collect();
        indices.sort_by(|left, right| key(left).cmp(key(right)));
        let stream: Vec<_> = indices.into_iter().map(|index| passes[index as usize]).collect();
        self.last = Some((codes, stream.clone()));
        Ok(stream)
    }
}
