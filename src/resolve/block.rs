//! `block every 6 { … }`: each rank's slots.

use super::catalog::Drafts;
use super::error::ResolveError;
use super::expr::{self, Code, Scope};
use super::members::{Named, OnRank, Said, listed};
use super::names::Parts;
use crate::ir::{Block, RankOrder, RankProgram, Slot, Span};
use crate::syntax::ast;

/// The most slots from one microbatch to the next.
const MAX_EVERY: i64 = 1 << 31;
/// The farthest slot from the first one, before or after it.
const MAX_SLOT: i64 = 1 << 40;

/// A block whose names are bound.
#[derive(Debug)]
pub(super) struct Bound {
    every: (Code, Span),
    entries: Vec<(Named, Option<(Code, Span)>)>,
    span: Span,
}

/// Binds the names of a block; errors go to the list.
pub(super) fn bind(
    (block, span): (&ast::Block, Span),
    (parts, chunks): (&Parts<'_>, u32),
    scope: &Scope,
    drafts: &Drafts,
    errors: &mut Vec<ResolveError>,
) -> Option<Bound> {
    for (pass, _) in &parts.streams {
        errors.push(ResolveError::StreamInBlock { pass: pass.text.clone(), at: pass.span });
    }
    let every = expr::number(&block.every, scope, errors);
    let mut entries = Vec::with_capacity(block.entries.len());
    for entry in &block.entries {
        let named = Named::bind(&entry.pass, scope, drafts, errors);
        let at = entry.at.as_ref().map(|at| expr::number(at, scope, errors).map(|code| (code, at.span)));
        let Some(named) = named else { continue };
        match at {
            Some(None) => {}
            Some(Some(at)) => match named.refuse_several(drafts, chunks) {
                Ok(()) => entries.push((named, Some(at))),
                Err(error) => errors.push(error),
            },
            None => entries.push((named, None)),
        }
    }
    // What is left out is told of once everything that stands there has a meaning.
    (entries.len() == block.entries.len()).then_some(())?;
    Some(Bound { every: (every?, block.every.span), entries, span })
}

impl Bound {
    /// The block of one rank.
    pub(super) fn on(&self, on: OnRank<'_>) -> Result<Block, ResolveError> {
        let says = ("the interval", "count the slots of one microbatch's passes on a rank: `block every 6`");
        let every = on.within(&self.every, (1, MAX_EVERY), says)?;
        let every = u32::try_from(every).expect("the interval was just bounded");
        let mut block = Block { every, every_span: self.every.1, slots: Vec::new(), fills: Vec::new() };
        let mut said = Said::new(on);
        for (named, at) in &self.entries {
            let members = said.add(named)?;
            let Some(at) = at else {
                block.fills.extend(members);
                continue;
            };
            let says = ("the slot", "count slots from the start of microbatch 0 on");
            let at = on.within(at, (-MAX_SLOT, MAX_SLOT), says)?;
            block.slots.extend(members.into_iter().map(|pass| Slot { pass, at }));
        }
        match &said.missing()[..] {
            [] => Ok(block),
            missing => Err(ResolveError::UnlistedPass {
                missing: listed(missing),
                place: "the block",
                help: format!("add `{0} at …`, or `{0} fill` where it may take any idle slot", missing[0]),
                at: Span { end: self.every.1.end, ..self.span },
            }),
        }
    }
}

/// Refuses blocks that do not repeat alike on all ranks.
pub(super) fn refuse_uneven(ranks: &[RankProgram]) -> Result<(), ResolveError> {
    let mut first = None;
    for (rank, program) in ranks.iter().enumerate() {
        let RankOrder::Block(Block { every, every_span, .. }) = &program.order else { continue };
        let first = *first.get_or_insert(*every);
        if first != *every {
            return Err(ResolveError::UnevenInterval { first, other: *every, rank, at: *every_span });
        }
    }
    Ok(())
}
