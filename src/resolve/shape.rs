//! The size of the pipeline: ranks, chunks, and which rank holds which stage.

use super::catalog::Drafts;
use super::error::ResolveError;
use super::expr;
use super::names::Parts;
use super::{Head, Request};
use crate::ir::{At, Cut, Dims, Partition, Queue, Rank, Shape, Span};
use crate::syntax::ast::{OrderForm, Placement};

/// The most passes of all ranks together.
const MAX_PASSES: u64 = 1 << 23;
/// The most stages.
const MAX_STAGES: u64 = 1 << 14;

/// Refuses numbers that no pipeline and no model has.
pub(super) fn check_numbers(request: &Request<'_>, errors: &mut Vec<ResolveError>) {
    if request.ranks == 0 {
        errors.push(ResolveError::NoRanks);
    }
    if request.microbatches == 0 {
        errors.push(ResolveError::NoMicrobatches);
    }
    let Dims { hidden, heads, sequence, batch, vocab, .. } = request.model.dims;
    let layers = request.model.layers.or(request.model.partition.layers()).unwrap_or(1);
    let dimensions = [
        ("layers", layers),
        ("hidden", hidden),
        ("heads", heads),
        ("seq", sequence),
        ("batch", batch),
        ("vocab", vocab),
    ];
    for (dimension, _) in dimensions.iter().filter(|(_, size)| *size == 0) {
        errors.push(ResolveError::EmptyModel { dimension });
    }
    if heads != 0 && hidden % heads != 0 {
        errors.push(ResolveError::UnevenHeads { heads, hidden });
    }
    let packed = request.model.dims.precision.packed();
    if !hidden.is_multiple_of(packed) {
        errors.push(ResolveError::OddWidth { hidden });
    }
}

/// Ranks, microbatches, slices, chunks, placement.
pub(super) fn shape(
    request: &Request<'_>,
    parts: &Parts<'_>,
    head: &Head,
    errors: &mut Vec<ResolveError>,
) -> Option<Shape> {
    let flows = flows(parts);
    let chunks = chunks(parts, head, errors)?;
    let slices = slices(request, parts, head, errors)?;
    check_flows(parts, slices, errors)?;
    let stages = u64::from(request.ranks) * u64::from(chunks);
    if stages > MAX_STAGES {
        errors.push(ResolveError::TooManyPasses {
            ranks: request.ranks,
            chunks,
            microbatches: request.microbatches,
            total: stages,
            what: "stages",
            most: MAX_STAGES,
        });
        return None;
    }
    let stages = match parts.place {
        None | Some((Placement::Loop, _)) => (0..stages as u32).map(|s| Rank(s % request.ranks)).collect(),
        // Flow 0 from the first rank to the last, flow 1 the other way.
        Some((Placement::Bidirectional, _)) => (0..stages as u32).map(|s| wave(s, request.ranks)).collect(),
        Some((Placement::Wave, _)) => (0..stages as u32).map(|s| wave(s, request.ranks)).collect(),
        Some((Placement::Of { stage, rank }, span)) => {
            let mut inner = head.clone();
            inner.push("chunks", i64::from(chunks));
            inner.push("stages", stages.cast_signed());
            inner.push("slices", i64::from(slices));
            super::names::refuse_known(&inner.scope, "variable", stage, errors);
            inner.push(&stage.text, 0);
            let placed = placed(rank, inner, stages as u32, request.ranks, errors)?;
            check_even(&placed, request.ranks, chunks, span, errors)?;
            placed
        }
    };
    let (ranks, microbatches) = (request.ranks, request.microbatches);
    Some(Shape { ranks, microbatches, slices, chunks, stages, flows, partition: Partition::default() })
}

/// Refuses what two flows do not go with: a block stands for all microbatches, and these take two ways; slices of a microbatch wait for
/// each other along one.
fn check_flows(parts: &Parts<'_>, slices: u32, errors: &mut Vec<ResolveError>) -> Option<()> {
    let Some((Placement::Bidirectional, place)) = parts.place else { return Some(()) };
    let before = errors.len();
    if let Some(slices) = parts.slices.filter(|_| slices > 1) {
        let help = "leave `slices` out, or choose `place loop`, `place wave` or `place s -> expr`";
        errors.push(ResolveError::NotInTwoFlows { what: "slices", help, place, at: slices.span });
    }
    if let Some((OrderForm::Block(_), at)) = parts.order {
        let help = "say the order as a pattern, `order F.0 F.1 …`, or as a `greedy` list";
        errors.push(ResolveError::NotInTwoFlows { what: "a block", help, place, at });
    }
    (errors.len() == before).then_some(())
}

/// The copies of the model.
fn flows(parts: &Parts<'_>) -> u32 {
    if matches!(parts.place, Some((Placement::Bidirectional, _))) { 2 } else { 1 }
}

/// The stages on a rank: at least 1; in two flows one of each.
fn chunks(parts: &Parts<'_>, head: &Head, errors: &mut Vec<ResolveError>) -> Option<u32> {
    let flows = flows(parts);
    let Some(expr) = parts.chunks else { return Some(flows) };
    let code = expr::number(expr, &head.scope.at("in the number of chunks"), errors)?;
    let value = code.eval(&head.values).map_err(|fault| errors.push(fault.on(String::new()))).ok()?;
    let chunks = u32::try_from(value).ok().filter(|&chunks| chunks >= 1);
    if flows == 2 && chunks.is_some_and(|chunks| chunks != 2) {
        errors.push(ResolveError::OutOfRange {
            what: "the number of chunks".to_owned(),
            value,
            place: " of a bidirectional placement".to_owned(),
            range: "2".to_owned(),
            help: "a rank holds one stage of each flow, `F.0` and `F.1`; leave `chunks` out",
            at: expr.span,
        });
        return None;
    }
    if chunks.is_none() {
        errors.push(ResolveError::OutOfRange {
            what: "the number of chunks".to_owned(),
            value,
            place: String::new(),
            range: "at least 1 and less than 2^32".to_owned(),
            help: "a rank holds one chunk for each of its stages; write `chunks 1` for one stage a rank",
            at: expr.span,
        });
    }
    chunks
}

/// The slices of each microbatch: at least 1, all alike.
fn slices(
    request: &Request<'_>,
    parts: &Parts<'_>,
    head: &Head,
    errors: &mut Vec<ResolveError>,
) -> Option<u32> {
    let Some(expr) = parts.slices else { return Some(1) };
    let code = expr::number(expr, &head.scope.at("in the number of slices"), errors)?;
    let value = code.eval(&head.values).map_err(|fault| errors.push(fault.on(String::new()))).ok()?;
    let sequence = request.model.dims.sequence;
    let slices = u32::try_from(value).ok().filter(|slices| (1..=Cut::MOST_SLICES).contains(slices));
    let Some(slices) = slices else {
        errors.push(ResolveError::OutOfRange {
            what: "the number of slices".to_owned(),
            value,
            place: String::new(),
            range: format!("from 1 to {}", Cut::MOST_SLICES),
            help: "a sequence is cut into so many slices; write `slices 1` for whole sequences",
            at: expr.span,
        });
        return None;
    };
    if !sequence.is_multiple_of(slices) {
        errors.push(ResolveError::UnevenSlices { sequence, slices, at: expr.span });
        return None;
    }
    Some(slices)
}

/// There and back again: 0 … p-1, p-1 … 0, and so on.
fn wave(stage: u32, ranks: u32) -> Rank {
    let (turn, step) = (stage / ranks, stage % ranks);
    Rank(if turn.is_multiple_of(2) { step } else { ranks - 1 - step })
}

/// The rank of each stage by an expression of the stage, whose value is the last of `head`.
fn placed(
    rank: &crate::syntax::ast::Expr,
    mut head: Head,
    stages: u32,
    ranks: u32,
    errors: &mut Vec<ResolveError>,
) -> Option<Vec<Rank>> {
    let code = expr::number(rank, &head.scope.at("in a placement"), errors)?;
    let last = head.values.len() - 1;
    let mut placed = Vec::with_capacity(stages as usize);
    for stage in 0..stages {
        head.values[last] = i64::from(stage);
        let place = format!(" for stage {stage}");
        match code.eval(&head.values) {
            Err(fault) => errors.push(fault.on(place)),
            Ok(value) => match u32::try_from(value).ok().filter(|&rank| rank < ranks) {
                Some(rank) => {
                    placed.push(Rank(rank));
                    continue;
                }
                None => errors.push(ResolveError::OutOfRange {
                    what: "the rank".to_owned(),
                    value,
                    place,
                    range: format!("from 0 to {}", ranks - 1),
                    help: "ranks are numbered from 0; `s % ranks` stays among them",
                    at: rank.span,
                }),
            },
        }
        return None;
    }
    Some(placed)
}

/// Refuses a placement that gives some rank more or less than its chunks.
fn check_even(
    placed: &[Rank],
    ranks: u32,
    chunks: u32,
    at: Span,
    errors: &mut Vec<ResolveError>,
) -> Option<()> {
    let mut held = vec![0_u64; ranks as usize];
    for rank in placed {
        held[rank.index()] += 1;
    }
    let Some((rank, &found)) = held.iter().enumerate().find(|(_, found)| **found != u64::from(chunks)) else {
        return Some(());
    };
    errors.push(ResolveError::BadPlacement { rank: format!("rank {rank}"), found, chunks, at });
    None
}

/// Refuses a compilation with more passes than memory is meant for.
pub(super) fn check_size(shape: &Shape, drafts: &Drafts, errors: &mut Vec<ResolveError>) {
    let (ranks, chunks) = (u64::from(shape.ranks), u64::from(shape.chunks));
    let visits = chunks / u64::from(shape.flows);
    let sites = |at: At| if at == At::Stage { ranks * visits } else { ranks };
    let kinds = drafts.kinds.iter().filter(|kind| kind.queue != Queue::Group);
    let units = u64::from(shape.microbatches) * u64::from(shape.slices);
    let total = kinds.map(|kind| sites(kind.at)).sum::<u64>().saturating_mul(units);
    if total > MAX_PASSES {
        errors.push(ResolveError::TooManyPasses {
            ranks: shape.ranks,
            chunks: shape.chunks,
            microbatches: shape.microbatches,
            total,
            what: "passes",
            most: MAX_PASSES,
        });
    }
}
