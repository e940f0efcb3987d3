//! Transforms: their passes, barriers and edges, bound to the schedule that they are applied to.

use super::Request;
use super::catalog::{self, BarrierDraft, Drafts, TransformDraft};
use super::error::ResolveError;
use super::expr::{self, Scope};
use super::names::{Declarations, Parts, twice};
use super::needs::{self, Reader, end_of, port, producer};
use crate::ir::{
    At, Collective, CollectiveId, CollectiveOp, Kind, KindId, Limit, Need, Port, Queue, Relation, Source,
    Span, Where,
};
use crate::syntax::ast::{self, BarrierOp, TransformForm, Word};

/// Adds the transforms that the schedule applies, then those of the request.
pub(super) fn apply_all(
    request: &Request<'_>,
    declarations: &Declarations<'_>,
    parts: &Parts<'_>,
    drafts: &mut Drafts,
    errors: &mut Vec<ResolveError>,
) {
    let applied = parts.applies.iter().map(|word| (word.text.as_str(), Some(word.span)));
    let with = request.with.iter().map(|name| (name.as_str(), None));
    let mut names: Vec<(&str, Option<Span>)> = Vec::new();
    for (name, at) in applied.chain(with) {
        if let Some(&(_, first)) = names.iter().find(|(other, _)| *other == name) {
            errors.push(ResolveError::Duplicate {
                what: "transform",
                name: name.to_owned(),
                help: "apply it once: with `apply` in the schedule, or with `--with`".to_owned(),
                first: first.filter(|_| at.is_some()),
                at: at.or(first),
            });
            continue;
        }
        names.push((name, at));
        match declarations.transform(name, at) {
            Ok(transform) => apply(request, declarations, transform, drafts, errors),
            Err(error) => errors.push(error),
        }
    }
}

/// Adds one transform: first its kinds and barriers, so that needs may name what comes later, then its needs.
fn apply(
    request: &Request<'_>,
    declarations: &Declarations<'_>,
    transform: &ast::Transform,
    drafts: &mut Drafts,
    errors: &mut Vec<ResolveError>,
) {
    if let Some(conflict) = conflict(transform, drafts) {
        errors.push(conflict);
        return;
    }
    let before = drafts.extent();
    let mut draft = TransformDraft {
        name: transform.name.text.clone(),
        span: transform.name.span,
        edges: Vec::new(),
        limits: Vec::new(),
        deepen: 0,
        end: before,
    };
    for item in &transform.items {
        add_kinds(&item.form, declarations, drafts, errors);
    }
    for item in &transform.items {
        if let TransformForm::Barrier(barrier) = &item.form {
            add_barrier(barrier, declarations, drafts, errors);
        }
    }
    let mut deepened = None;
    for item in &transform.items {
        match &item.form {
            TransformForm::Barrier(_) => {}
            TransformForm::Pass(decl) => {
                // A name that is taken leads to the pass that took it, and was refused above.
                let Some(id) = drafts.kind_named(&decl.name.text) else { continue };
                let reader = Reader { at: drafts.kinds[id.index()].at, on: Where::All };
                let bound = needs::bind_all(catalog::needs_of(decl), reader, declarations, drafts, errors);
                drafts.kinds[id.index()].needs.extend(bound);
            }
            TransformForm::Edge(edge) => {
                let bound = add_edge(edge, declarations, drafts, errors);
                let (own, others): (Vec<_>, Vec<_>) =
                    bound.into_iter().partition(|(kind, _)| kind.index() >= before.kinds);
                for (kind, need) in own {
                    drafts.kinds[kind.index()].needs.push(need);
                }
                draft.edges.extend(others);
            }
            TransformForm::Limit(limit) => {
                draft.limits.extend(self::limit(limit, request, declarations, drafts, errors));
            }
            TransformForm::Deepen(by) => {
                if let Some(first) = deepened.replace(item.span) {
                    let name = Word { text: "deepen".to_owned(), span: item.span };
                    errors.push(twice("item", &name, Some(first)));
                }
                draft.deepen = count(by, "the depth that a transform adds", 0, request, errors).unwrap_or(0);
            }
        }
    }
    draft.end = drafts.extent();
    drafts.transforms.push(draft);
}

/// The error for a name that an earlier transform brought already.
fn conflict(transform: &ast::Transform, drafts: &Drafts) -> Option<ResolveError> {
    transform.items.iter().find_map(|item| {
        let name = match &item.form {
            TransformForm::Pass(decl) => &decl.name,
            TransformForm::Barrier(barrier) => &barrier.name,
            TransformForm::Edge(_) | TransformForm::Limit(_) | TransformForm::Deepen(_) => return None,
        };
        let first = drafts.transform_of(drafts.kind_named(&name.text)?)?;
        Some(ResolveError::ConflictingTransforms {
            first: first.name.clone(),
            second: transform.name.text.clone(),
            name: name.text.clone(),
            at: name.span,
        })
    })
}

/// Adds the kinds of a pass or of a barrier's steps.
fn add_kinds(
    form: &TransformForm,
    declarations: &Declarations<'_>,
    drafts: &mut Drafts,
    errors: &mut Vec<ResolveError>,
) {
    let mut add = |name: &Word, kind: Kind, errors: &mut Vec<ResolveError>| {
        if let Some(other) = drafts.kind_named(&name.text) {
            errors.push(twice("pass", name, drafts.kinds[other.index()].span));
        }
        drafts.kinds.push(kind);
        drafts.named_at.push(name.span);
    };
    match form {
        TransformForm::Pass(decl) => {
            let kind = catalog::kind(decl, declarations, errors);
            add(&decl.name, kind, errors);
        }
        TransformForm::Barrier(barrier) => {
            for part in &barrier.parts {
                let Some(word) = &part.by else { continue };
                let kind = Kind {
                    name: barrier.name.text.clone(),
                    at: At::EveryRank,
                    queue: Queue::Group,
                    computes: catalog::computation(word, errors),
                    needs: Vec::new(),
                    gives: catalog::class(&part.port, declarations, errors).into_iter().collect(),
                    makes: Vec::new(),
                    frees: Vec::new(),
                    span: Some(part.span),
                };
                add(&barrier.name, kind, errors);
            }
        }
        TransformForm::Edge(_) | TransformForm::Limit(_) | TransformForm::Deepen(_) => {}
    }
}

/// Adds the collectives of a barrier, each after the one before.
fn add_barrier(
    barrier: &ast::Barrier,
    declarations: &Declarations<'_>,
    drafts: &mut Drafts,
    errors: &mut Vec<ResolveError>,
) {
    if drafts.barriers.iter().any(|other| other.name == barrier.name.text) {
        errors.push(twice("barrier", &barrier.name, None));
    } else if let Some(pass) = drafts.kind_named(&barrier.name.text)
        && drafts.kinds[pass.index()].queue != Queue::Group
    {
        errors.push(twice("pass", &barrier.name, drafts.kinds[pass.index()].span));
    }
    let mut parts: Vec<(String, CollectiveId)> = Vec::new();
    for part in &barrier.parts {
        match barrier_part(barrier, part, &parts, declarations, drafts) {
            Ok(id) => parts.push((part.port.text.clone(), id)),
            Err(error) => errors.push(error),
        }
    }
    drafts.barriers.push(BarrierDraft { name: barrier.name.text.clone(), parts });
}

/// Adds one collective, and gives its step, where it has one, what it needs.
fn barrier_part(
    barrier: &ast::Barrier,
    part: &ast::BarrierPart,
    earlier: &[(String, CollectiveId)],
    declarations: &Declarations<'_>,
    drafts: &mut Drafts,
) -> Result<CollectiveId, ResolveError> {
    let pass = producer(&part.pass, declarations, drafts)?;
    if drafts.kinds[pass.index()].at != At::EveryRank {
        return Err(ResolveError::WrongSite {
            problem: format!(
                "a barrier collects the values of every rank, and `{}` runs at a stage",
                part.pass.text
            ),
            help: "name a pass at every rank".to_owned(),
            at: part.pass.span,
        });
    }
    let collected = port(pass, &part.port, declarations, drafts)?;
    if earlier.iter().any(|(class, _)| *class == part.port.text) {
        return Err(twice("part", &part.port, None));
    }
    let mut source = (pass, collected);
    if part.by.is_some()
        && let Some(step) = drafts.kind_named(&barrier.name.text)
    {
        let here = Source::Pass { kind: pass, at: Relation::Here, port: Some(collected) };
        let earlier = earlier.iter().map(|(_, collective)| Source::Collective(*collective));
        let needs = std::iter::once(here).chain(earlier);
        drafts.kinds[step.index()].needs =
            needs.map(|from| Need { on: Where::All, from, span: Some(part.span) }).collect();
        source = (step, Port(0));
    }
    drafts.collectives.push(Collective {
        name: format!("{}.{}", barrier.name.text, part.port.text),
        op: match part.op {
            BarrierOp::AllReduce => CollectiveOp::AllReduce,
            BarrierOp::AllGather => CollectiveOp::AllGather,
        },
        kind: source.0,
        port: source.1,
        source: Where::All,
        reader: Where::All,
        after: earlier.last().map(|(_, collective)| *collective),
        lockstep: false,
        span: Some(part.span),
    });
    Ok(CollectiveId::new(drafts.collectives.len() - 1))
}

/// The needs of an edge, with the kind that has them.
fn add_edge(
    edge: &ast::Edge,
    declarations: &Declarations<'_>,
    drafts: &mut Drafts,
    errors: &mut Vec<ResolveError>,
) -> Vec<(KindId, Need)> {
    let (kind, on) = match end(&edge.to, declarations, drafts) {
        Ok(end) => end,
        Err(error) => {
            errors.push(error);
            return Vec::new();
        }
    };
    let reader = Reader { at: drafts.kinds[kind.index()].at, on };
    let bound = needs::bind_all(&edge.needs, reader, declarations, drafts, errors);
    bound.into_iter().map(|need| (kind, need)).collect()
}

/// A pass, at one end of the pipeline or everywhere.
fn end(
    site: &ast::Site,
    declarations: &Declarations<'_>,
    drafts: &Drafts,
) -> Result<(KindId, Where), ResolveError> {
    let kind = producer(&site.name, declarations, drafts)?;
    let on = end_of(site.at).unwrap_or(Where::All);
    match site.at {
        Some(at) if drafts.kinds[kind.index()].at == At::EveryRank => Err(ResolveError::WrongSite {
            problem: format!("`{}` runs at every rank and not at a stage", site.name.text),
            help: "leave the brackets out".to_owned(),
            at: at.span,
        }),
        _ => Ok((kind, on)),
    }
}

/// `limit logits <= 2`, `limit IF <= 2 ahead of F(first)`.
fn limit(
    limit: &ast::Limit,
    request: &Request<'_>,
    declarations: &Declarations<'_>,
    drafts: &Drafts,
    errors: &mut Vec<ResolveError>,
) -> Option<Limit> {
    let most = count(&limit.most, "a limit", 1, request, errors);
    let span = limit.what.span.to(limit.ahead.as_ref().map_or(limit.most.span, |ahead| ahead.span));
    let Some(ahead) = &limit.ahead else {
        if let Some(at) = limit.what.at {
            errors.push(ResolveError::WrongSite {
                problem: "a limit of a class holds on every rank".to_owned(),
                help: "leave the brackets out, or say what the pass runs ahead of: `ahead of F(first)`"
                    .to_owned(),
                at: at.span,
            });
            return None;
        }
        let class = catalog::class(&limit.what.name, declarations, errors)?;
        return Some(Limit::Class { class, most: most?, span });
    };
    let mut ends = [&limit.what, ahead].map(|site| end(site, declarations, drafts)).into_iter();
    let mut next = || ends.next()?.map_err(|error| errors.push(error)).ok();
    let (pass, of) = (next(), next());
    Some(Limit::Ahead { pass: pass?, of: of?, most: most?, span })
}

/// A number of ranks and microbatches that counts something.
fn count(
    expr: &ast::Expr,
    what: &str,
    least: u32,
    request: &Request<'_>,
    errors: &mut Vec<ResolveError>,
) -> Option<u32> {
    let scope = Scope::new("in a transform", &["ranks", "microbatches"]);
    let code = expr::number(expr, &scope, errors)?;
    let value = code.eval(&[i64::from(request.ranks), i64::from(request.microbatches)]);
    let value = value.map_err(|fault| errors.push(fault.on(String::new()))).ok()?;
    let counted = u32::try_from(value).ok().filter(|&counted| counted >= least);
    if counted.is_none() {
        errors.push(ResolveError::OutOfRange {
            what: what.to_owned(),
            value,
            place: String::new(),
            range: format!("at least {least} and less than 2^32"),
            help: "count buffers or microbatches",
            at: expr.span,
        });
    }
    counted
}
