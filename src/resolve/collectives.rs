//! The collectives between passes: those of barriers, and broadcasts and reductions on edges.

use super::catalog::Drafts;
use super::error::ResolveError;
use crate::ir::{At, Collective, CollectiveId, CollectiveOp, KindId, Port, Queue, Source, Where};
use crate::syntax::ast;

/// The collective of an edge; two edges that say the same share it.
pub(super) fn shared(
    drafts: &mut Drafts,
    op: CollectiveOp,
    (kind, port): (KindId, Port),
    (source, reader): (Where, Where),
    need: &ast::Need,
) -> CollectiveId {
    let same = |other: &Collective| {
        (other.op, other.kind, other.port, other.source, other.reader) == (op, kind, port, source, reader)
            && other.name.starts_with(op.word())
    };
    if let Some(found) = drafts.collectives.iter().position(same) {
        return CollectiveId::new(found);
    }
    let at = need.at.map_or(String::new(), |at| format!("({})", at.site.word()));
    let class = need.port.as_ref().map_or(String::new(), |class| format!(".{}", class.text));
    drafts.collectives.push(Collective {
        name: format!("{op} {}{at}{class}", need.name.text),
        op,
        kind,
        port,
        source,
        reader,
        after: None,
        lockstep: false,
        span: Some(need.span),
    });
    CollectiveId::new(drafts.collectives.len() - 1)
}

/// Decides, now that all readers are known, who gets each sum and which collectives block the compute lane.
pub(super) fn settle(drafts: &mut Drafts, errors: &mut Vec<ResolveError>) {
    let mut readers: Vec<Vec<(At, Where)>> = vec![Vec::new(); drafts.collectives.len()];
    let mut lockstep: Vec<bool> = drafts
        .collectives
        .iter()
        .map(|collective| drafts.kinds[collective.kind.index()].queue == Queue::Lockstep)
        .collect();
    for (kind, need) in drafts.all_needs() {
        if let Source::Collective(collective) = need.from {
            let reader = &drafts.kinds[kind.index()];
            readers[collective.index()].push((reader.at, need.on));
            let broadcast = drafts.collectives[collective.index()].op == CollectiveOp::Broadcast;
            lockstep[collective.index()] |= broadcast && reader.queue == Queue::Lockstep;
        }
    }
    for ((collective, readers), lockstep) in drafts.collectives.iter_mut().zip(readers).zip(lockstep) {
        collective.lockstep = lockstep;
        if let (true, Some(at)) = (readers.is_empty(), collective.span) {
            errors.push(ResolveError::UnreadBarrier { collective: collective.name.clone(), at });
        }
        let all_at = |end: Where| readers.iter().all(|&reader| reader == (At::Stage, end));
        if collective.op == CollectiveOp::AllReduce
            && let Some(end) = [Where::First, Where::Last].into_iter().find(|&end| all_at(end))
        {
            collective.op = CollectiveOp::Reduce;
            collective.reader = end;
        }
    }
}
