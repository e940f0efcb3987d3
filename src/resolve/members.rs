//! The passes of blocks and priority lists: names bound, chunks known, each said once.

use super::catalog::Drafts;
use super::error::ResolveError;
use super::expr::{Code, Scope};
use super::order;
use crate::ir::{At, Chunk, Kind, KindId, Member, Span};
use crate::syntax::ast;

/// A pass whose name is bound.
#[derive(Debug)]
pub(super) struct Named {
    kind: KindId,
    /// `None`: every chunk.
    chunk: Option<(Code, Span)>,
    span: Span,
}

impl Named {
    /// Binds the names of a pass; errors go to the list.
    pub(super) fn bind(
        member: &ast::Member,
        scope: &Scope,
        drafts: &Drafts,
        errors: &mut Vec<ResolveError>,
    ) -> Option<Self> {
        let (kind, chunk) = order::bind_pass(&member.pass, member.chunk.as_ref(), scope, drafts, errors)?;
        Some(Self { kind, chunk, span: member.span })
    }

    /// Refuses a pass without a chunk where it stands for one pass and the rank has several.
    pub(super) fn refuse_several(&self, drafts: &Drafts, chunks: u32) -> Result<(), ResolveError> {
        let kind = &drafts.base_kinds()[self.kind.index()];
        if self.chunk.is_some() || sites(kind, chunks) == 1 {
            return Ok(());
        }
        let name = &kind.name;
        let rest = if chunks == 2 {
            format!("`{name}.1 at …`")
        } else {
            "the same for each other chunk".to_owned()
        };
        Err(ResolveError::WhichChunk {
            pass: name.clone(),
            chunks,
            help: format!("name the chunk: `{name}.0 at …`, and {rest}"),
            at: self.span,
        })
    }
}

/// One rank: what its expressions are computed with.
#[derive(Clone, Copy, Debug)]
pub(super) struct OnRank<'a> {
    /// The values of all names of the rank.
    pub(super) values: &'a [i64],
    /// ` on rank 3`.
    pub(super) place: &'a str,
    pub(super) chunks: u32,
    /// The schedule's own.
    pub(super) kinds: &'a [Kind],
}

impl OnRank<'_> {
    /// A number that lies within bounds; `says` are what it is, and what to do where it does not.
    pub(super) fn within(
        &self,
        (code, at): &(Code, Span),
        (least, most): (i64, i64),
        says: (&str, &'static str),
    ) -> Result<i64, ResolveError> {
        let value = code.eval(self.values).map_err(|fault| fault.on(self.place.to_owned()))?;
        if (least..=most).contains(&value) {
            return Ok(value);
        }
        Err(ResolveError::OutOfRange {
            what: says.0.to_owned(),
            value,
            place: self.place.to_owned(),
            range: format!("from {least} to {most}"),
            help: says.1,
            at: *at,
        })
    }
}

/// What of a rank's passes has been said.
#[derive(Debug)]
pub(super) struct Said<'a> {
    on: OnRank<'a>,
    /// By kind and chunk.
    spans: Vec<Vec<Option<Span>>>,
}

impl<'a> Said<'a> {
    /// Nothing yet.
    pub(super) fn new(on: OnRank<'a>) -> Self {
        let spans = on.kinds.iter().map(|kind| vec![None; sites(kind, on.chunks)]).collect();
        Self { on, spans }
    }

    /// The passes that a name stands for: one, or that of every chunk.
    pub(super) fn add(&mut self, named: &Named) -> Result<Vec<Member>, ResolveError> {
        let spans = &mut self.spans[named.kind.index()];
        let chunks = match &named.chunk {
            Some((code, at)) => {
                let chunk = order::chunk(code, *at, self.on.values, self.on.chunks, self.on.place)?;
                chunk.index()..chunk.index() + 1
            }
            None => 0..spans.len(),
        };
        let mut members = Vec::with_capacity(chunks.len());
        for index in chunks {
            if let Some(first) = spans[index].replace(named.span) {
                return Err(ResolveError::Duplicate {
                    what: "pass",
                    name: shown(&self.on.kinds[named.kind.index()], index, spans.len()),
                    help: "keep one of the two; each pass stands once, and one without a chunk is that of every chunk"
                        .to_owned(),
                    first: Some(first),
                    at: Some(named.span),
                });
            }
            members.push(Member { kind: named.kind, chunk: Chunk::new(index), span: named.span });
        }
        Ok(members)
    }

    /// The passes that nobody has named, as one would write them.
    pub(super) fn missing(&self) -> Vec<String> {
        let of = |(kind, spans): (&Kind, &Vec<Option<Span>>)| {
            let missing = spans.iter().enumerate().filter(|(_, span)| span.is_none());
            let chunks: Vec<usize> = missing.map(|(chunk, _)| chunk).collect();
            if chunks.len() == spans.len() {
                return vec![kind.name.clone()];
            }
            chunks.into_iter().map(|chunk| shown(kind, chunk, spans.len())).collect::<Vec<_>>()
        };
        self.on.kinds.iter().zip(&self.spans).flat_map(of).collect()
    }
}

/// How many passes of a kind a rank has for each microbatch.
fn sites(kind: &Kind, chunks: u32) -> usize {
    if kind.at == At::Stage { chunks as usize } else { 1 }
}

/// A pass as one would write it: `F`, or `F.1` where there are several.
fn shown(kind: &Kind, chunk: usize, of: usize) -> String {
    if of == 1 { kind.name.clone() } else { format!("{}.{chunk}", kind.name) }
}

/// Names in backticks, at most the first eight.
pub(super) fn listed(names: &[String]) -> String {
    let shown: Vec<String> = names.iter().take(8).map(|name| format!("`{name}`")).collect();
    let more = names.len().saturating_sub(8);
    if more == 0 { shown.join(", ") } else { format!("{} and {more} more", shown.join(", ")) }
}
