//! The declarations in force, and the parts of the chosen schedule.

use super::Request;
use super::error::{ResolveError, suggest};
use super::expr::Scope;
use crate::ir::{FileId, Measure, Span};
use crate::syntax::ast::{
    ClassDecl, Expr, Item, OrderForm, PassDecl, Placement, Schedule, ScheduleForm, Transform, Word,
};

/// Everything that the library and the user's file declare, the library first.
#[derive(Debug, Default)]
pub(super) struct Declarations<'tree> {
    pub(super) classes: Vec<&'tree ClassDecl>,
    pub(super) passes: Vec<&'tree PassDecl>,
    pub(super) transforms: Vec<&'tree Transform>,
    schedules: Vec<(FileId, &'tree Schedule)>,
}

impl<'tree> Declarations<'tree> {
    /// Collects the declarations of all files, and refuses a name that is declared twice.
    pub(super) fn collect(request: &Request<'tree>, errors: &mut Vec<ResolveError>) -> Self {
        let mut all = Self::default();
        let known = request.library.iter().any(|file| file.id == request.file.id);
        let own = (!known).then_some(request.file);
        for file in request.library.iter().chain(own) {
            for item in &file.items {
                match item {
                    Item::Class(class) => {
                        let earlier = all.classes.iter().map(|other| &other.name);
                        refuse_twice("class", &class.name, earlier, errors);
                        all.classes.push(class);
                    }
                    Item::Pass(pass) => {
                        let earlier = all.passes.iter().map(|other| &other.name);
                        refuse_twice("pass", &pass.name, earlier, errors);
                        all.passes.push(pass);
                    }
                    Item::Transform(transform) => {
                        let earlier = all.transforms.iter().map(|other| &other.name);
                        refuse_twice("transform", &transform.name, earlier, errors);
                        all.transforms.push(transform);
                    }
                    Item::Schedule(schedule) => {
                        let here = all.schedules.iter().filter(|(id, _)| *id == file.id);
                        refuse_twice("schedule", &schedule.name, here.map(|(_, other)| &other.name), errors);
                        all.schedules.push((file.id, schedule));
                    }
                }
            }
        }
        all
    }

    pub(super) fn transform(&self, name: &str, at: Option<Span>) -> Result<&'tree Transform, ResolveError> {
        let names = self.transforms.iter().map(|transform| transform.name.text.as_str());
        let unknown =
            || ResolveError::UnknownTransform { transform: name.to_owned(), help: suggest(name, names), at };
        self.transforms.iter().find(|transform| transform.name.text == name).copied().ok_or_else(unknown)
    }

    pub(super) fn pass(&self, word: &Word) -> Result<&'tree PassDecl, ResolveError> {
        self.passes.iter().find(|pass| pass.name.text == word.text).copied().ok_or_else(|| {
            let names = self.passes.iter().map(|pass| pass.name.text.as_str());
            ResolveError::UnknownPass {
                pass: word.text.clone(),
                help: suggest(&word.text, names),
                at: word.span,
            }
        })
    }
}

/// Refuses a name that an earlier one has.
fn refuse_twice<'tree>(
    what: &'static str,
    name: &Word,
    mut earlier: impl Iterator<Item = &'tree Word>,
    errors: &mut Vec<ResolveError>,
) {
    if let Some(first) = earlier.find(|other| other.text == name.text) {
        errors.push(twice(what, name, Some(first.span)));
    }
}

/// The error for a name that an earlier one has.
pub(super) fn twice(what: &'static str, name: &Word, first: Option<Span>) -> ResolveError {
    let here = first.filter(|first| first.file == name.span.file);
    let help = match (first, here) {
        (_, Some(_)) => "keep one of the two, or give one another name".to_owned(),
        (Some(_), None) => format!("the library already has `{}`; choose another name", name.text),
        (None, None) => format!("the language already has `{}`; choose another name", name.text),
    };
    ResolveError::Duplicate { what, name: name.text.clone(), help, first: here, at: Some(name.span) }
}

/// Names that every schedule knows somewhere.
const BUILT_IN: [&str; 10] =
    ["ranks", "microbatches", "slices", "chunks", "stages", "rank", "microbatch", "slice", "chunk", "stage"];

/// Refuses a new variable whose name is taken.
pub(super) fn refuse_known(scope: &Scope, what: &'static str, name: &Word, errors: &mut Vec<ResolveError>) {
    if scope.slot(&name.text).is_some() || BUILT_IN.contains(&name.text.as_str()) {
        let mut error = twice(what, name, None);
        if let ResolveError::Duplicate { help, .. } = &mut error
            && !BUILT_IN.contains(&name.text.as_str())
        {
            *help = format!("`{}` has a value already; choose another name", name.text);
        }
        errors.push(error);
    }
}

/// The schedule that is asked for.
pub(super) fn choose<'tree>(request: &Request<'tree>) -> Result<&'tree Schedule, ResolveError> {
    let names = || request.file.schedules().map(|schedule| schedule.name.text.as_str());
    if let Some(name) = request.schedule {
        let found = request.file.schedules().find(|schedule| schedule.name.text == name);
        return found.ok_or_else(|| {
            let names: Vec<&str> = names().collect();
            ResolveError::unknown_schedule(name, names.iter().copied())
        });
    }
    let mut schedules = request.file.schedules();
    if let (Some(only), None) = (schedules.next(), schedules.next()) {
        return Ok(only);
    }
    let all: Vec<String> = names().map(|name| format!("`{name}`")).collect();
    let help = if all.is_empty() {
        "add one: `schedule \"mine\" { order F^* B^* }`".to_owned()
    } else {
        format!("choose with `--schedule-name` from {}, or keep one schedule in each file", all.join(", "))
    };
    Err(ResolveError::WhichSchedule { count: all.len(), help })
}

/// The items of a schedule, by what they say.
#[derive(Debug)]
pub(super) struct Parts<'tree> {
    pub(super) schedule: &'tree Schedule,
    /// `None`: F and B.
    pub(super) passes: Option<&'tree [Word]>,
    pub(super) chunks: Option<&'tree Expr>,
    pub(super) slices: Option<&'tree Expr>,
    pub(super) retime: bool,
    pub(super) requires: Vec<(Measure, &'tree Expr, Span)>,
    pub(super) place: Option<(&'tree Placement, Span)>,
    pub(super) applies: Vec<&'tree Word>,
    pub(super) lets: Vec<(&'tree Word, &'tree Expr)>,
    pub(super) streams: Vec<(&'tree Word, &'tree [Expr])>,
    pub(super) order: Option<(&'tree OrderForm, Span)>,
}

impl<'tree> Parts<'tree> {
    /// Sorts the items, and refuses a second one of what may be said once.
    pub(super) fn of(schedule: &'tree Schedule, errors: &mut Vec<ResolveError>) -> Self {
        let mut parts = Self {
            schedule,
            passes: None,
            chunks: None,
            slices: None,
            retime: false,
            requires: Vec::new(),
            place: None,
            applies: Vec::new(),
            lets: Vec::new(),
            streams: Vec::new(),
            order: None,
        };
        let mut once: Vec<(&'static str, Span)> = Vec::new();
        for item in &schedule.items {
            let word = match &item.form {
                ScheduleForm::Passes(passes) => {
                    for (index, pass) in passes.iter().enumerate() {
                        refuse_twice("pass", pass, passes[..index].iter(), errors);
                    }
                    parts.passes = Some(passes);
                    "passes"
                }
                ScheduleForm::Chunks(chunks) => {
                    parts.chunks = Some(chunks);
                    "chunks"
                }
                ScheduleForm::Retime => {
                    parts.retime = true;
                    "retime"
                }
                ScheduleForm::Slices(slices) => {
                    parts.slices = Some(slices);
                    "slices"
                }
                ScheduleForm::Place(place) => {
                    parts.place = Some((place, item.span));
                    "place"
                }
                ScheduleForm::Order(order) => {
                    parts.order = Some((order, item.span));
                    "order"
                }
                ScheduleForm::Apply(name) => {
                    parts.applies.push(name);
                    continue;
                }
                ScheduleForm::Require { measure, most } => {
                    parts.requires.push((*measure, most, item.span));
                    continue;
                }
                ScheduleForm::Let { name, value } => {
                    parts.lets.push((name, value));
                    continue;
                }
                ScheduleForm::Stream { pass, keys } => {
                    refuse_twice("stream", pass, parts.streams.iter().map(|(other, _)| *other), errors);
                    parts.streams.push((pass, keys));
                    continue;
                }
            };
            if let Some(&(_, first)) = once.iter().find(|(other, _)| *other == word) {
                let name = Word { text: word.to_owned(), span: item.span };
                errors.push(twice("item", &name, Some(first)));
                if let (ScheduleForm::Order(_), Some(ResolveError::Duplicate { help, .. })) =
                    (&item.form, errors.last_mut())
                {
                    "keep one of the two; an order is an `order`, a `block` or a `greedy`".clone_into(help);
                }
            }
            once.push((word, item.span));
        }
        if parts.order.is_none() {
            let name = &schedule.name;
            errors.push(ResolveError::MissingOrder { schedule: name.text.clone(), at: name.span });
        }
        parts
    }
}
