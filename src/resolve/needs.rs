//! What a pass waits for: each written need -> passes and collectives of the catalog.

use super::catalog::Drafts;
use super::collectives;
use super::error::ResolveError;
use super::names::Declarations;
use crate::ir::{At, ClassId, CollectiveOp, KindId, Need, Port, Relation, Source, Span, Where};
use crate::syntax::ast::{self, AtSite, NeedForm, Word};

/// The passes that a need is written for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reader {
    /// Where they run.
    pub(super) at: At,
    /// At which of these sites the need applies.
    pub(super) on: Where,
}

/// Binds a list of needs.
pub(super) fn bind_all(
    needs: &[ast::Need],
    reader: Reader,
    declarations: &Declarations<'_>,
    drafts: &mut Drafts,
    errors: &mut Vec<ResolveError>,
) -> Vec<Need> {
    let mut bound = Vec::new();
    for need in needs {
        match bind(need, reader, declarations, drafts) {
            Ok(sources) => bound.extend(sources.into_iter().map(|from| Need {
                on: reader.on,
                from,
                span: Some(need.span),
            })),
            Err(error) => errors.push(error),
        }
    }
    bound
}

/// The sources of one need; a whole barrier has several.
fn bind(
    need: &ast::Need,
    reader: Reader,
    declarations: &Declarations<'_>,
    drafts: &mut Drafts,
) -> Result<Vec<Source>, ResolveError> {
    if need.form == NeedForm::Direct
        && let Some(barrier) = drafts.barriers.iter().position(|barrier| barrier.name == need.name.text)
    {
        return barrier_parts(need, barrier, drafts);
    }
    let kind = producer(&need.name, declarations, drafts)?;
    let source = match need.form {
        NeedForm::Direct => direct(need, kind, reader, declarations, drafts)?,
        NeedForm::Broadcast => broadcast(need, kind, reader, declarations, drafts)?,
        NeedForm::Reduce => reduce(need, kind, reader, declarations, drafts)?,
    };
    Ok(vec![source])
}

/// The kind of a name; it takes part in the schedule.
pub(super) fn producer(
    word: &Word,
    declarations: &Declarations<'_>,
    drafts: &Drafts,
) -> Result<KindId, ResolveError> {
    if let Some(kind) = drafts.kind_named(&word.text) {
        return Ok(kind);
    }
    if declarations.passes.iter().any(|pass| pass.name.text == word.text) {
        return Err(ResolveError::MissingPass { pass: word.text.clone(), at: word.span });
    }
    let names: Vec<&str> = drafts.kinds.iter().map(|kind| kind.name.as_str()).collect();
    let barriers = drafts.barriers.iter().map(|barrier| barrier.name.as_str());
    let names: Vec<&str> = names.into_iter().chain(barriers).collect();
    let help = super::error::suggest(&word.text, names.iter().copied());
    Err(ResolveError::UnknownPass { pass: word.text.clone(), help, at: word.span })
}

/// The port of a value of some class.
pub(super) fn port(
    kind: KindId,
    class: &Word,
    declarations: &Declarations<'_>,
    drafts: &Drafts,
) -> Result<Port, ResolveError> {
    let of = &drafts.kinds[kind.index()];
    let name = |class: &ClassId| declarations.classes[class.index()].name.text.as_str();
    if let Some(port) = of.gives.iter().position(|given| name(given) == class.text) {
        return Ok(Port::new(port));
    }
    Err(ResolveError::NoValue {
        pass: of.name.clone(),
        class: format!(" of class `{}`", class.text),
        help: super::error::suggest(&class.text, of.gives.iter().map(name)),
        at: class.span,
    })
}

/// The port that is named, or else the first.
fn named_or_first(
    need: &ast::Need,
    kind: KindId,
    declarations: &Declarations<'_>,
    drafts: &Drafts,
) -> Result<Port, ResolveError> {
    if let Some(class) = &need.port {
        return port(kind, class, declarations, drafts);
    }
    let of = &drafts.kinds[kind.index()];
    if of.gives.is_empty() {
        return Err(ResolveError::NoValue {
            pass: of.name.clone(),
            class: String::new(),
            help: format!("add `gives` with a class to the declaration of `{}`", of.name),
            at: need.span,
        });
    }
    Ok(Port(0))
}

fn barrier_parts(need: &ast::Need, barrier: usize, drafts: &Drafts) -> Result<Vec<Source>, ResolveError> {
    let barrier = &drafts.barriers[barrier];
    if let Some(at) = need.at {
        return Err(wrong_site(
            format!("barrier `{}` has no sites", barrier.name),
            "name a part of it, as in `C1.dx`, or nothing for all parts",
            at.span,
        ));
    }
    let parts = barrier.parts.iter();
    let Some(class) = &need.port else {
        return Ok(parts.map(|(_, part)| Source::Collective(*part)).collect());
    };
    parts
        .clone()
        .find(|(of, _)| *of == class.text)
        .map(|(_, part)| vec![Source::Collective(*part)])
        .ok_or_else(|| ResolveError::NoValue {
            pass: barrier.name.clone(),
            class: format!(" of class `{}`", class.text),
            help: super::error::suggest(&class.text, parts.map(|(of, _)| of.as_str())),
            at: class.span,
        })
}

fn wrong_site(problem: String, help: &str, at: Span) -> ResolveError {
    ResolveError::WrongSite { problem, help: help.to_owned(), at }
}

/// `F`, `F(prev)`, `F(last).x`.
fn direct(
    need: &ast::Need,
    kind: KindId,
    reader: Reader,
    declarations: &Declarations<'_>,
    drafts: &Drafts,
) -> Result<Source, ResolveError> {
    let of = &drafts.kinds[kind.index()];
    let Some(at) = need.at else {
        if of.at != reader.at {
            let (own, other) = (sites(reader.at), sites(of.at));
            return Err(wrong_site(
                format!("`{}` runs {other}, and the pass that needs it runs {own}", of.name),
                "say whose value is meant and how it gets there: `broadcast F(last)`, `reduce IF`, `F(first)` or a barrier",
                need.span,
            ));
        }
        let port = need.port.as_ref().map(|class| port(kind, class, declarations, drafts)).transpose()?;
        return Ok(Source::Pass { kind, at: Relation::Here, port });
    };
    let relation = match at.site {
        AtSite::Prev => Relation::Prev,
        AtSite::Next => Relation::Next,
        AtSite::First => Relation::First,
        AtSite::Last => Relation::Last,
        AtSite::Earlier => Relation::Earlier,
        AtSite::Later => Relation::Later,
    };
    if of.at != At::Stage {
        return Err(wrong_site(
            format!("`{}` runs at every rank and not at a stage", of.name),
            "leave the brackets out, or collect it with a barrier or `reduce`",
            at.span,
        ));
    }
    if reader.at != At::Stage && !matches!(relation, Relation::First | Relation::Last) {
        return Err(wrong_site(
            format!("a pass at every rank has no stage before or after it, so `{}` has none", at.site.word()),
            "write `first` or `last`",
            at.span,
        ));
    }
    if matches!(relation, Relation::Earlier | Relation::Later) {
        if let Some(class) = &need.port {
            return Err(wrong_site(
                format!("no value of class `{}` goes from slice to slice", class.text),
                "leave the class out: what earlier slices made is read where it lies",
                class.span,
            ));
        }
        return Ok(Source::Pass { kind, at: relation, port: None });
    }
    let port = named_or_first(need, kind, declarations, drafts)?;
    Ok(Source::Pass { kind, at: relation, port: Some(port) })
}

/// Where passes run, in words.
fn sites(at: At) -> &'static str {
    match at {
        At::Stage => "at a stage",
        At::EveryRank => "at every rank",
    }
}

/// The end of the pipeline that brackets name.
pub(super) fn end_of(at: Option<ast::At>) -> Option<Where> {
    match at.map(|at| at.site) {
        Some(AtSite::First) => Some(Where::First),
        Some(AtSite::Last) => Some(Where::Last),
        _ => None,
    }
}

/// `broadcast F(last)`: one collective, whoever reads it.
fn broadcast(
    need: &ast::Need,
    kind: KindId,
    reader: Reader,
    declarations: &Declarations<'_>,
    drafts: &mut Drafts,
) -> Result<Source, ResolveError> {
    let of = &drafts.kinds[kind.index()];
    let (Some(source), At::Stage) = (end_of(need.at), of.at) else {
        return Err(wrong_site(
            format!("`broadcast {}` does not say which end of the pipeline it comes from", of.name),
            "broadcast the value of a pass at a stage, from the `(first)` or the `(last)` one",
            need.span,
        ));
    };
    if reader.on != Where::All {
        return Err(ResolveError::WrongReader {
            problem: "a broadcast goes to every rank, and one stage reads it here".to_owned(),
            help: "leave `broadcast` out: one stage gets the value by a send".to_owned(),
            at: need.span,
        });
    }
    let port = named_or_first(need, kind, declarations, drafts)?;
    let readers = (source, Where::All);
    Ok(Source::Collective(collectives::shared(drafts, CollectiveOp::Broadcast, (kind, port), readers, need)))
}

/// `reduce IF`: the sum of all ranks' values, read by one end of the pipeline.
fn reduce(
    need: &ast::Need,
    kind: KindId,
    reader: Reader,
    declarations: &Declarations<'_>,
    drafts: &mut Drafts,
) -> Result<Source, ResolveError> {
    let of = &drafts.kinds[kind.index()];
    if let Some(at) = need.at.map(|at| at.span).or((of.at != At::EveryRank).then_some(need.span)) {
        return Err(wrong_site(
            format!(
                "a reduce sums the values of a pass of every rank, and `{}` is not meant so here",
                of.name
            ),
            "name a pass at every rank, without brackets",
            at,
        ));
    }
    if reader.on == Where::All {
        return Err(ResolveError::WrongReader {
            problem: "a reduce has one reader, and many passes read it here".to_owned(),
            help: "add it to one end, as in `F(first) needs reduce IF`, or collect the sum for all with a barrier"
                .to_owned(),
            at: need.span,
        });
    }
    let port = named_or_first(need, kind, declarations, drafts)?;
    let readers = (Where::All, reader.on);
    Ok(Source::Collective(collectives::shared(drafts, CollectiveOp::Reduce, (kind, port), readers, need)))
}
