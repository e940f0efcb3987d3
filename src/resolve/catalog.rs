//! The kinds of pass that take part: those that the schedule lists, with the work of those that it does not list fused in.

use super::error::{ResolveError, suggest};
use super::names::{Declarations, Parts, twice};
use super::needs::{self, Reader};
use super::{Request, collectives, transforms};
use crate::ir::{
    At, Catalog, Class, ClassId, Collective, CollectiveId, Compute, Kind, KindId, Limit, Need, Queue,
    Relation, Source, Span, Transform, Where,
};
use crate::syntax::ast::{ClauseForm, DeclaredSite, PassDecl, Word};

/// Kinds and collectives of the base schedule and of all transforms, one after the other.
#[derive(Debug, Default)]
pub(super) struct Drafts {
    pub(super) classes: Vec<Class>,
    pub(super) kinds: Vec<Kind>,
    /// Where each kind is listed or declared, for errors about its taking part.
    pub(super) named_at: Vec<Span>,
    pub(super) collectives: Vec<Collective>,
    pub(super) barriers: Vec<BarrierDraft>,
    pub(super) transforms: Vec<TransformDraft>,
    /// Passes that are declared, whether they take part or not.
    pub(super) declared: Vec<String>,
    base: Extent,
}

/// How many kinds and collectives there are after a step.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Extent {
    pub(super) kinds: usize,
    collectives: usize,
}

/// A barrier and its parts, each with the class that it collects.
#[derive(Debug)]
pub(super) struct BarrierDraft {
    pub(super) name: String,
    pub(super) parts: Vec<(String, CollectiveId)>,
}

/// A transform whose kinds and collectives stand in the common tables.
#[derive(Debug)]
pub(super) struct TransformDraft {
    pub(super) name: String,
    pub(super) span: Span,
    pub(super) edges: Vec<(KindId, Need)>,
    pub(super) limits: Vec<Limit>,
    pub(super) deepen: u32,
    pub(super) end: Extent,
}

impl Drafts {
    pub(super) fn kind_named(&self, name: &str) -> Option<KindId> {
        self.kinds.iter().position(|kind| kind.name == name).map(KindId::new)
    }

    /// The kinds of the base schedule.
    pub(super) fn base_kinds(&self) -> &[Kind] {
        &self.kinds[..self.base.kinds]
    }

    /// The transform that brought a kind; `None` for the base schedule.
    pub(super) fn transform_of(&self, kind: KindId) -> Option<&TransformDraft> {
        let own = kind.index() < self.base.kinds;
        self.transforms.iter().find(|transform| !own && kind.index() < transform.end.kinds)
    }

    pub(super) fn extent(&self) -> Extent {
        Extent { kinds: self.kinds.len(), collectives: self.collectives.len() }
    }

    /// Every need of every kind, with the kind; edges of transforms included.
    pub(super) fn all_needs(&self) -> impl Iterator<Item = (KindId, &Need)> {
        let own = self.kinds.iter().enumerate();
        let own = own.flat_map(|(kind, of)| of.needs.iter().map(move |need| (KindId::new(kind), need)));
        let edges = self.transforms.iter().flat_map(|transform| &transform.edges);
        own.chain(edges.map(|(kind, need)| (*kind, need)))
    }

    /// Whether the input and the output layer are sharded over all ranks.
    pub(super) fn sharded(&self) -> [bool; 2] {
        [Compute::shards_input, Compute::shards_output]
            .map(|test| self.kinds.iter().any(|kind| kind.computes.is_some_and(test)))
    }

    /// Leaves out the needs that lead to other slices: where sequences are whole they apply nowhere.
    pub(super) fn keep_sequences_whole(&mut self) {
        let stays =
            |need: &Need| !matches!(need.from, Source::Pass { at: Relation::Earlier | Relation::Later, .. });
        self.kinds.iter_mut().for_each(|kind| kind.needs.retain(stays));
        self.transforms.iter_mut().for_each(|transform| transform.edges.retain(|(_, need)| stays(need)));
    }

    /// The catalog of the base schedule, and the transforms with their own kinds and collectives.
    pub(super) fn split(mut self) -> (Catalog, Vec<Transform>) {
        let mut transforms = Vec::new();
        let begins = std::iter::once(self.base).chain(self.transforms.iter().map(|draft| draft.end));
        let begins: Vec<Extent> = begins.take(self.transforms.len()).collect();
        for (draft, begin) in self.transforms.into_iter().zip(begins).rev() {
            transforms.push(Transform {
                name: draft.name,
                span: draft.span,
                kinds: self.kinds.split_off(begin.kinds),
                collectives: self.collectives.split_off(begin.collectives),
                edges: draft.edges,
                limits: draft.limits,
                deepen: draft.deepen,
            });
        }
        transforms.reverse();
        let catalog = Catalog { classes: self.classes, kinds: self.kinds, collectives: self.collectives };
        (catalog, transforms)
    }
}

/// Chooses the kinds, binds their needs, applies the transforms. `None` where an error was added.
pub(super) fn draft(
    request: &Request<'_>,
    declarations: &Declarations<'_>,
    parts: &Parts<'_>,
    errors: &mut Vec<ResolveError>,
) -> Option<Drafts> {
    let before = errors.len();
    let at = parts.schedule.name.span;
    let default = ["F", "B"].map(|name| Word { text: name.to_owned(), span: at });
    let declared = declarations.passes.iter().map(|pass| pass.name.text.clone()).collect();
    let mut drafts = Drafts { declared, ..Drafts::default() };
    let mut chosen = Vec::new();
    for word in parts.passes.unwrap_or(&default) {
        match declarations.pass(word) {
            Ok(decl) => {
                drafts.kinds.push(kind(decl, declarations, errors));
                drafts.named_at.push(word.span);
                chosen.push(decl);
            }
            Err(error) => errors.push(error),
        }
    }
    fuse(declarations, &mut drafts, errors);
    for (id, decl) in chosen.into_iter().enumerate() {
        let reader = Reader { at: drafts.kinds[id].at, on: Where::All };
        let bound = needs::bind_all(needs_of(decl), reader, declarations, &mut drafts, errors);
        drafts.kinds[id].needs = bound;
    }
    drafts.base = drafts.extent();
    transforms::apply_all(request, declarations, parts, &mut drafts, errors);
    if errors.len() == before {
        collectives::settle(&mut drafts, errors);
    }
    (errors.len() == before).then_some(drafts)
}

/// The needs that a declaration writes.
pub(super) fn needs_of(decl: &PassDecl) -> &[crate::syntax::ast::Need] {
    let needs = decl.clauses.iter().find_map(|clause| match &clause.form {
        ClauseForm::Needs(needs) => Some(&needs[..]),
        _ => None,
    });
    needs.unwrap_or_default()
}

/// A kind without its needs.
pub(super) fn kind(decl: &PassDecl, declarations: &Declarations<'_>, errors: &mut Vec<ResolveError>) -> Kind {
    let (at, queue) = match decl.site {
        DeclaredSite::Stage => (At::Stage, Queue::Compute),
        DeclaredSite::EveryRank { lockstep: false } => (At::EveryRank, Queue::Compute),
        DeclaredSite::EveryRank { lockstep: true } => (At::EveryRank, Queue::Lockstep),
    };
    let mut kind = Kind {
        name: decl.name.text.clone(),
        at,
        queue,
        computes: None,
        needs: Vec::new(),
        gives: Vec::new(),
        makes: Vec::new(),
        frees: Vec::new(),
        span: Some(decl.name.span),
    };
    for clause in &decl.clauses {
        match &clause.form {
            ClauseForm::Computes(word) => kind.computes = computation(word, errors),
            ClauseForm::Gives(words) => kind.gives = classes(words, declarations, errors),
            ClauseForm::Makes(words) => kind.makes = classes(words, declarations, errors),
            ClauseForm::Frees(words) => kind.frees = classes(words, declarations, errors),
            ClauseForm::Needs(_) | ClauseForm::Fused { .. } => {}
        }
    }
    kind
}

/// What an interpreter runs for a word.
pub(super) fn computation(word: &Word, errors: &mut Vec<ResolveError>) -> Option<Compute> {
    let found =
        Compute::WORDS.iter().find(|(_, spelling)| *spelling == word.text).map(|(meaning, _)| *meaning);
    if found.is_none() {
        let help = suggest(&word.text, Compute::WORDS.iter().map(|(_, spelling)| *spelling));
        errors.push(ResolveError::UnknownComputation { word: word.text.clone(), help, at: word.span });
    }
    found
}

/// The class of a name.
pub(super) fn class(
    word: &Word,
    declarations: &Declarations<'_>,
    errors: &mut Vec<ResolveError>,
) -> Option<ClassId> {
    let found = declarations.classes.iter().position(|class| class.name.text == word.text).map(ClassId::new);
    if found.is_none() {
        let names = declarations.classes.iter().map(|class| class.name.text.as_str());
        let help = suggest(&word.text, names);
        errors.push(ResolveError::UnknownClass { class: word.text.clone(), help, at: word.span });
    }
    found
}

fn classes(words: &[Word], declarations: &Declarations<'_>, errors: &mut Vec<ResolveError>) -> Vec<ClassId> {
    for (index, word) in words.iter().enumerate() {
        if let Some(first) = words[..index].iter().find(|other| other.text == word.text) {
            errors.push(twice("class", word, Some(first.span)));
        }
    }
    words.iter().filter_map(|word| class(word, declarations, errors)).collect()
}

/// Gives the work of passes that the schedule does not list to those that they are fused into.
fn fuse(declarations: &Declarations<'_>, drafts: &mut Drafts, errors: &mut Vec<ResolveError>) {
    let mut taken: Vec<(KindId, &PassDecl)> = Vec::new();
    for decl in &declarations.passes {
        if drafts.kind_named(&decl.name.text).is_some() {
            continue;
        }
        for clause in &decl.clauses {
            let ClauseForm::Fused { into, computes } = &clause.form else { continue };
            let Some(host) = drafts.kind_named(&into.text) else {
                errors.extend(declarations.pass(into).err());
                continue;
            };
            if let Some((_, first)) = taken.iter().find(|(other, _)| *other == host) {
                errors.push(ResolveError::FusedTwice {
                    first: first.name.text.clone(),
                    second: decl.name.text.clone(),
                    into: into.text.clone(),
                    at: clause.span,
                });
                continue;
            }
            taken.push((host, decl));
            let guest = kind(decl, declarations, errors);
            let computes = computation(computes, errors);
            let host = &mut drafts.kinds[host.index()];
            host.computes = computes;
            // What only passed from the one to the other never leaves the fused pass.
            let (within, beyond): (Vec<_>, Vec<_>) =
                guest.frees.iter().partition(|class| host.makes.contains(class));
            host.makes.retain(|class| !within.contains(class));
            host.frees.extend(beyond);
        }
    }
}
