//! Each rank's program: its `let`s computed, its streams sorted, its order without expressions.

use super::catalog::Drafts;
use super::error::{ResolveError, suggest};
use super::expr::{self, Code, Scope, Type};
use super::members::OnRank;
use super::names::{self, Parts};
use super::streams::{self, Keys};
use super::{Head, block, greedy};
use crate::ir::{
    At, Chunk, KindId, Pattern, PatternKind, Rank, RankOrder, RankProgram, Repeat, Shape, Span, Stage,
};
use crate::syntax::ast::{self, OrderForm, PatternForm, Times, Word};

/// A pattern whose names are bound.
#[derive(Debug)]
struct Bound {
    form: BoundForm,
    span: Span,
}

#[derive(Debug)]
enum BoundForm {
    Pass { kind: KindId, chunk: Option<(Code, Span)> },
    Pair(Box<[Bound; 2]>),
    Sequence(Vec<Bound>),
    Repeat { body: Box<Bound>, times: Option<Code> },
    If { condition: Code, then: Box<Bound>, otherwise: Option<Box<Bound>> },
    For { slot: usize, from: Code, to: Code, body: Box<Bound> },
}

/// The program of every rank and the place of the order; `None` where an error was added.
pub(super) fn ranks(
    parts: &Parts<'_>,
    mut head: Head,
    shape: &Shape,
    drafts: &Drafts,
    errors: &mut Vec<ResolveError>,
) -> Option<(Vec<RankProgram>, Span)> {
    let before = errors.len();
    head.push("chunks", i64::from(shape.chunks));
    head.push("stages", i64::from(shape.depth()));
    head.push("slices", i64::from(shape.slices));
    let rank_slot = head.values.len();
    head.push("rank", 0);
    let mut scope = head.scope.at("on a rank");
    let mut lets = Vec::new();
    for (name, value) in &parts.lets {
        names::refuse_known(&scope, "variable", name, errors);
        let bound = expr::bind(value, &scope, errors);
        let of = bound.as_ref().map_or(Type::Number, |(_, of)| *of);
        lets.extend(bound.map(|(code, _)| code));
        scope.push(&name.text, of);
    }
    let mut streams = streams::bind(parts, &scope, drafts, errors);
    let (form, span) = parts.order?;
    let names = scope.len();
    let order = match form {
        OrderForm::Pattern(pattern) => bind(pattern, &mut scope, drafts, errors).map(Form::Pattern),
        OrderForm::Block(block) => {
            let parts = (parts, shape.chunks);
            block::bind((block, span), parts, &scope, drafts, errors).map(Form::Block)
        }
        OrderForm::Greedy(greedy) => greedy::bind((greedy, span), &scope, drafts, errors).map(Form::Greedy),
    };
    let order = order.filter(|_| errors.len() == before)?;
    let stages = shape.chunks_by_rank();
    let body = Body { lets, order, names, shape, drafts };
    let mut programs = Vec::with_capacity(stages.len());
    for (rank, held) in Rank::all(stages.len()).zip(&stages) {
        let mut values = head.values.clone();
        values[rank_slot] = i64::from(rank.0);
        match body.on(rank, values, &mut streams, held) {
            Ok(program) => programs.push(program),
            Err(error) => {
                errors.push(error);
                return None;
            }
        }
    }
    block::refuse_uneven(&programs).map_err(|error| errors.push(error)).ok()?;
    Some((programs, span))
}

/// What says the order, its names bound.
enum Form {
    Pattern(Bound),
    Block(block::Bound),
    Greedy(greedy::Bound),
}

/// What the ranks' programs are made from.
struct Body<'a> {
    lets: Vec<Code>,
    order: Form,
    /// How many names a rank has.
    names: usize,
    shape: &'a Shape,
    drafts: &'a Drafts,
}

impl Body<'_> {
    /// One rank's program; `values` end with the rank's number, to be followed by its `let`s.
    fn on(
        &self,
        rank: Rank,
        mut values: Vec<i64>,
        streams: &mut [Keys],
        held: &[Stage],
    ) -> Result<RankProgram, ResolveError> {
        let place = format!(" on rank {}", rank.0);
        for code in &self.lets {
            let value = code.eval(&values).map_err(|fault| fault.on(place.clone()))?;
            values.push(value);
        }
        debug_assert_eq!(values.len(), self.names, "every name of a rank has a value");
        let kinds = self.drafts.base_kinds();
        let (chunks, cut) = (self.shape.chunks, self.shape.cut());
        let mut sorted = vec![None; kinds.len()];
        for keys in streams {
            let stream = keys.sorted(&values, held, self.shape, &place)?;
            sorted[keys.kind.index()] = Some(stream);
        }
        if cut.slices > 1 {
            let back = streams::from_last_slice(self.drafts).into_iter().zip(kinds);
            for (stream, (back, kind)) in sorted.iter_mut().zip(back) {
                if back && kind.at == At::Stage && stream.is_none() {
                    *stream = Some(streams::last_slice_first(cut, held.len()));
                }
            }
        }
        let on = OnRank { values: &values, place: &place, chunks, kinds };
        let order = match &self.order {
            Form::Pattern(pattern) => RankOrder::Pattern(self.unfolded(pattern, rank, values, place)?),
            Form::Block(block) => RankOrder::Block(block.on(on)?),
            Form::Greedy(greedy) => RankOrder::Greedy(greedy.on(on)?),
        };
        Ok(RankProgram { streams: sorted, order })
    }

    fn unfolded(
        &self,
        pattern: &Bound,
        rank: Rank,
        values: Vec<i64>,
        place: String,
    ) -> Result<Pattern, ResolveError> {
        let (chunks, units) = (self.shape.chunks, self.shape.units());
        let visits = u64::from(self.shape.visits());
        let sites = |at: At| if at == At::Stage { visits } else { 1 };
        let kinds = self.drafts.base_kinds();
        let passes = kinds.iter().map(|kind| sites(kind.at)).sum::<u64>() * units as u64;
        let limit = 4 * passes + 4096;
        Unfolding { values, place, rank: rank.0, chunks, passes, limit, left: limit }.unfold(pattern)
    }
}

/// A kind of the base schedule, and whether it runs at a stage.
pub(super) fn own_kind(word: &Word, drafts: &Drafts) -> Result<(KindId, bool), ResolveError> {
    let kinds = drafts.base_kinds();
    if let Some(found) = kinds.iter().position(|kind| kind.name == word.text) {
        return Ok((KindId::new(found), kinds[found].at == At::Stage));
    }
    let names = kinds.iter().map(|kind| kind.name.as_str());
    if drafts.declared.contains(&word.text) {
        return Err(ResolveError::MissingPass { pass: word.text.clone(), at: word.span });
    }
    let help = if drafts.kind_named(&word.text).is_some() {
        format!("a transform places `{}` by itself; leave it out here", word.text)
    } else {
        format!("{}; `passes` lists what the schedule orders", suggest(&word.text, names))
    };
    Err(ResolveError::UnknownPass { pass: word.text.clone(), help, at: word.span })
}

/// Binds the names of a pattern; errors go to the list. Recursion is bounded by the nesting of parsed brackets.
fn bind(
    pattern: &ast::Pattern,
    scope: &mut Scope,
    drafts: &Drafts,
    errors: &mut Vec<ResolveError>,
) -> Option<Bound> {
    let form = match &pattern.form {
        PatternForm::Pass { pass, chunk } => {
            let (kind, chunk) = bind_pass(pass, chunk.as_ref(), scope, drafts, errors)?;
            BoundForm::Pass { kind, chunk }
        }
        PatternForm::Pair(sides) => {
            let [first, second] = &**sides;
            let first = bind(first, scope, drafts, errors);
            let second = bind(second, scope, drafts, errors);
            BoundForm::Pair(Box::new([first?, second?]))
        }
        PatternForm::Sequence(parts) => {
            let bound: Vec<_> = parts.iter().map(|part| bind(part, scope, drafts, errors)).collect();
            BoundForm::Sequence(bound.into_iter().collect::<Option<_>>()?)
        }
        PatternForm::Repeat { body, times } => {
            let body = bind(body, scope, drafts, errors);
            let times = match times {
                Times::UntilOut => None,
                Times::Count(times) => Some(expr::number(times, scope, errors)?),
            };
            BoundForm::Repeat { body: Box::new(body?), times }
        }
        PatternForm::If { condition, then, otherwise } => {
            let condition = expr::condition(condition, scope, errors);
            let then = bind(then, scope, drafts, errors);
            let otherwise = match otherwise {
                Some(otherwise) => Some(Box::new(bind(otherwise, scope, drafts, errors)?)),
                None => None,
            };
            BoundForm::If { condition: condition?, then: Box::new(then?), otherwise }
        }
        PatternForm::For { variable, from, to, body } => {
            let (from, to) = (expr::number(from, scope, errors), expr::number(to, scope, errors));
            names::refuse_known(scope, "variable", variable, errors);
            let slot = scope.push(&variable.text, Type::Number);
            let body = bind(body, scope, drafts, errors);
            scope.truncate(slot);
            BoundForm::For { slot, from: from?, to: to?, body: Box::new(body?) }
        }
    };
    Some(Bound { form, span: pattern.span })
}

/// Binds a kind and, where one is named, its chunk; errors go to the list.
pub(super) fn bind_pass(
    pass: &Word,
    chunk: Option<&ast::Expr>,
    scope: &Scope,
    drafts: &Drafts,
    errors: &mut Vec<ResolveError>,
) -> Option<(KindId, Option<(Code, Span)>)> {
    let found = own_kind(pass, drafts).map_err(|error| errors.push(error)).ok();
    let Some(expr) = chunk else { return found.map(|(kind, _)| (kind, None)) };
    let code = expr::number(expr, scope, errors);
    let (kind, at_stage) = found?;
    if !at_stage {
        errors.push(ResolveError::WrongSite {
            problem: format!("`{}` runs at every rank and has no chunks", pass.text),
            help: format!("write `{}`", pass.text),
            at: expr.span,
        });
        return None;
    }
    Some((kind, Some((code?, expr.span))))
}

/// Unfolds a pattern on one rank.
struct Unfolding {
    /// The rank's names, then the numbers of the `for`s around.
    values: Vec<i64>,
    place: String,
    rank: u32,
    chunks: u32,
    passes: u64,
    limit: u64,
    /// Steps until the limit.
    left: u64,
}

impl Unfolding {
    fn unfold(&mut self, bound: &Bound) -> Result<Pattern, ResolveError> {
        self.step(bound.span)?;
        let kind = match &bound.form {
            BoundForm::Pass { kind, chunk: None } => PatternKind::Pass { kind: *kind, chunk: None },
            BoundForm::Pass { kind, chunk: Some((code, span)) } => {
                let chunk = chunk(code, *span, &self.values, self.chunks, &self.place)?;
                PatternKind::Pass { kind: *kind, chunk: Some(chunk) }
            }
            BoundForm::Pair(sides) => {
                let [first, second] = &**sides;
                PatternKind::Pair(Box::new([self.unfold(first)?, self.unfold(second)?]))
            }
            BoundForm::Sequence(parts) => {
                PatternKind::Sequence(parts.iter().map(|part| self.unfold(part)).collect::<Result<_, _>>()?)
            }
            BoundForm::Repeat { body, times } => {
                let times = times.as_ref().map(|code| self.times(code, bound.span)).transpose()?;
                let times = times.map_or(Repeat::UntilOut, Repeat::Times);
                PatternKind::Repeat { body: Box::new(self.unfold(body)?), times }
            }
            BoundForm::If { condition, then, otherwise } => {
                let branch = if self.value(condition)? != 0 { Some(then) } else { otherwise.as_ref() };
                return branch.map_or(
                    Ok(Pattern { kind: PatternKind::Sequence(Vec::new()), span: bound.span }),
                    |branch| self.unfold(branch),
                );
            }
            BoundForm::For { slot, from, to, body } => {
                let (from, to) = (self.value(from)?, self.value(to)?);
                let mut parts = Vec::new();
                for number in from..to {
                    self.step(bound.span)?;
                    self.values.truncate(*slot);
                    self.values.push(number);
                    parts.push(self.unfold(body)?);
                }
                self.values.truncate(*slot);
                PatternKind::Sequence(parts)
            }
        };
        Ok(Pattern { kind, span: bound.span })
    }

    /// Counts a step of unfolding.
    fn step(&mut self, at: Span) -> Result<(), ResolveError> {
        let (rank, limit, passes) = (self.rank, self.limit, self.passes);
        self.left = self.left.checked_sub(1).ok_or(ResolveError::OrderTooLong { rank, limit, passes, at })?;
        Ok(())
    }

    fn value(&self, code: &Code) -> Result<i64, ResolveError> {
        code.eval(&self.values).map_err(|fault| fault.on(self.place.clone()))
    }

    fn times(&self, code: &Code, at: Span) -> Result<u64, ResolveError> {
        let times = self.value(code)?;
        let place = || self.place.clone();
        u64::try_from(times).map_err(|_| ResolveError::NegativeRepeat { times, place: place(), at })
    }
}

/// The chunk of a pass; ` on rank 3` is a place.
pub(super) fn chunk(
    code: &Code,
    at: Span,
    values: &[i64],
    chunks: u32,
    place: &str,
) -> Result<Chunk, ResolveError> {
    let value = code.eval(values).map_err(|fault| fault.on(place.to_owned()))?;
    u32::try_from(value).ok().filter(|&chunk| chunk < chunks).map(Chunk).ok_or_else(|| {
        ResolveError::OutOfRange {
            what: "the chunk".to_owned(),
            value,
            place: place.to_owned(),
            range: format!("from 0 to {}", chunks - 1),
            help: "chunks of a rank are numbered from 0; `chunks` says how many there are",
            at,
        }
    })
}
