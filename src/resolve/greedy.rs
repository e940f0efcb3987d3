//! `greedy { … }`: each rank's limits and its priority list.

use super::catalog::Drafts;
use super::error::{ResolveError, suggest};
use super::expr::{self, Code, Scope};
use super::members::{Named, OnRank, Said, listed};
use super::names::twice;
use crate::ir::{Cap, ClassId, Greedy, Span};
use crate::syntax::ast::{self, Expr, GreedyForm, Word};

/// A priority list whose names are bound.
#[derive(Debug)]
pub(super) struct Bound {
    limits: Vec<Limit>,
    prefer: Vec<Named>,
    /// The list, or all of it where there is none.
    span: Span,
}

#[derive(Debug)]
struct Limit {
    class: ClassId,
    most: (Code, Span),
    span: Span,
}

/// Binds the names of a priority list; errors go to the list of errors.
pub(super) fn bind(
    (greedy, span): (&ast::Greedy, Span),
    scope: &Scope,
    drafts: &Drafts,
    errors: &mut Vec<ResolveError>,
) -> Option<Bound> {
    let before = errors.len();
    let mut bound = Bound { limits: Vec::new(), prefer: Vec::new(), span };
    let mut list: Option<Span> = None;
    for item in &greedy.items {
        match &item.form {
            GreedyForm::Limit { class, most } => {
                let Some(limit) = limit(class, most, item.span, scope, drafts, errors) else { continue };
                if let Some(first) = bound.limits.iter().find(|other| other.class == limit.class) {
                    errors.push(ResolveError::Duplicate {
                        what: "limit",
                        name: class.text.clone(),
                        help: "keep the tighter of the two".to_owned(),
                        first: Some(first.span),
                        at: Some(limit.span),
                    });
                }
                bound.limits.push(limit);
            }
            GreedyForm::Prefer(passes) => {
                if let Some(first) = list.replace(item.span) {
                    let word = Word { text: "prefer".to_owned(), span: item.span };
                    errors.push(twice("item", &word, Some(first)));
                }
                bound.span = item.span;
                bound
                    .prefer
                    .extend(passes.iter().filter_map(|pass| Named::bind(pass, scope, drafts, errors)));
            }
        }
    }
    (errors.len() == before).then_some(bound)
}

/// A limit on a class that a pass of the schedule makes.
fn limit(
    word: &Word,
    most: &Expr,
    span: Span,
    scope: &Scope,
    drafts: &Drafts,
    errors: &mut Vec<ResolveError>,
) -> Option<Limit> {
    let code = expr::number(most, scope, errors);
    let Some(class) = drafts.classes.iter().position(|class| class.name == word.text) else {
        let help = suggest(&word.text, drafts.classes.iter().map(|class| class.name.as_str()));
        errors.push(ResolveError::UnknownClass { class: word.text.clone(), help, at: word.span });
        return None;
    };
    let class = ClassId::new(class);
    let made = |class| drafts.base_kinds().iter().any(|kind| kind.makes.contains(&class));
    if !made(class) {
        let all = drafts.classes.iter().enumerate().filter(|(index, _)| made(ClassId::new(*index)));
        let names = all.map(|(_, class)| class.name.as_str());
        errors.push(ResolveError::UnmadeClass {
            class: word.text.clone(),
            help: format!("limit a class that stays on a rank; {}", suggest(&word.text, names)),
            at: word.span,
        });
        return None;
    }
    Some(Limit { class, most: (code?, most.span), span })
}

impl Bound {
    /// The priority list of one rank.
    pub(super) fn on(&self, on: OnRank<'_>) -> Result<Greedy, ResolveError> {
        let mut limits = Vec::with_capacity(self.limits.len());
        for limit in &self.limits {
            let says = ("the limit", "count the buffers of the class that may be live on a rank");
            let most = on.within(&limit.most, (0, i64::from(u32::MAX)), says)?;
            let most = u32::try_from(most).expect("the limit was just bounded");
            limits.push(Cap { class: limit.class, most, span: limit.span });
        }
        let mut said = Said::new(on);
        let mut prefer = Vec::new();
        for named in &self.prefer {
            prefer.extend(said.add(named)?);
        }
        match &said.missing()[..] {
            [] => Ok(Greedy { prefer, limits }),
            missing => Err(ResolveError::UnlistedPass {
                missing: listed(missing),
                place: "`prefer`",
                help: format!("add {}; what stands first runs first", listed(missing)),
                at: self.span,
            }),
        }
    }
}
