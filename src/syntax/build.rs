//! Nodes from what the grammar has recognized: words that only some places give a meaning, and limits.

use lalrpop_util::ParseError;

use super::ast::{
    At, AtSite, BarrierOp, Clause, ClauseForm, DeclaredSite, Expr, ExprForm, Function, Operator, PassDecl,
    Pattern, PatternForm, Placement, ScheduleForm, Site, Word,
};
use super::error::SyntaxError;
use super::lexer::{MAX_DEPTH, Token};
use crate::diag::nearest;
use crate::ir::{ByteUnit, FileId, Measure, Span};

/// What an action of the grammar returns.
type Built<'input, T> = Result<T, ParseError<u32, Token<'input>, Box<SyntaxError>>>;

pub(crate) fn span(file: FileId, start: u32, end: u32) -> Span {
    Span { file, start, end: end.max(start) }
}

pub(crate) fn word(file: FileId, start: u32, text: &str, end: u32) -> Word {
    Word { text: text.to_owned(), span: span(file, start, end) }
}

/// A word of a quoted name; its place leaves the quotes out.
pub(crate) fn quoted(file: FileId, start: u32, text: &str, end: u32) -> Word {
    word(file, start + 1, text, end - 1)
}

/// One of a few words, or an error that names them.
fn one_of<'input, T: Copy>(word: &Word, words: &[(T, &'static str)], what: &'static str) -> Built<'input, T> {
    if let Some((meaning, _)) = words.iter().find(|(_, spelling)| *spelling == word.text) {
        return Ok(*meaning);
    }
    let spellings = words.iter().map(|(_, spelling)| *spelling);
    let help = match nearest(&word.text, spellings.clone()) {
        Some(near) => format!("did you mean `{near}`?"),
        None => {
            format!(
                "write one of {}",
                spellings.map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", ")
            )
        }
    };
    Err(refused(SyntaxError::UnknownWord { found: word.text.clone(), what, help, at: word.span }))
}

fn refused<'input>(error: SyntaxError) -> ParseError<u32, Token<'input>, Box<SyntaxError>> {
    ParseError::User { error: Box::new(error) }
}

pub(crate) fn at_stage<'input>(stage: &Word) -> Built<'input, DeclaredSite> {
    one_of(stage, &[(DeclaredSite::Stage, "stage")], "a place where passes run, `stage` or `every rank`")
}

pub(crate) fn at_every_rank<'input>(rank: &Word, lockstep: Option<&Word>) -> Built<'input, DeclaredSite> {
    one_of(rank, &[((), "rank")], "`rank`, as in `at every rank`")?;
    if let Some(word) = lockstep {
        one_of(word, &[((), "lockstep")], "`lockstep`, as in `at every rank in lockstep`")?;
    }
    Ok(DeclaredSite::EveryRank { lockstep: lockstep.is_some() })
}

pub(crate) fn relation<'input>(word: &Word) -> Built<'input, At> {
    Ok(At { site: one_of(word, &AtSite::WORDS, "a site of a pass")?, span: word.span })
}

pub(crate) fn site<'input>(name: Word, at: Option<At>, span: Span) -> Built<'input, Site> {
    if let Some(at) = at.filter(|at| !matches!(at.site, AtSite::First | AtSite::Last)) {
        let found = at.site.word().to_owned();
        let help = "write `first` or `last`".to_owned();
        return Err(refused(SyntaxError::UnknownWord {
            found,
            what: "an end of the pipeline",
            help,
            at: at.span,
        }));
    }
    Ok(Site { name, at, span })
}

pub(crate) fn barrier_op<'input>(word: &Word) -> Built<'input, BarrierOp> {
    one_of(word, &BarrierOp::WORDS, "a collective of a barrier")
}

pub(crate) fn placement<'input>(word: &Word) -> Built<'input, Placement> {
    let words = [(0, "loop"), (1, "wave"), (2, "bidirectional")];
    Ok(match one_of(word, &words, "a placement")? {
        0 => Placement::Loop,
        1 => Placement::Wave,
        _ => Placement::Bidirectional,
    })
}

/// `peak` counts microbatches, or bytes where a unit of memory follows; `bubble` is in percent.
pub(crate) fn require<'input>(what: &Word, most: Expr, unit: Option<&Word>) -> Built<'input, ScheduleForm> {
    let words = [(true, "peak"), (false, "bubble")];
    let measure = match (one_of(what, &words, "what a schedule can require")?, unit) {
        (true, None) => Measure::Activations,
        (true, Some(unit)) => Measure::Bytes(one_of(unit, &ByteUnit::WORDS, "a unit of memory")?),
        (false, None) => Measure::Bubble,
        (false, Some(unit)) => one_of(unit, &[(Measure::Bubble, "percent")], "the unit of a bubble")?,
    };
    Ok(ScheduleForm::Require { measure, most })
}

/// `F & B`: exactly two, each a single pass.
pub(crate) fn pair<'input>(first: Pattern, others: Vec<Pattern>) -> Built<'input, PatternForm> {
    let odd = |side: &&Pattern| !matches!(side.form, PatternForm::Pass { .. });
    if let Some(side) = std::iter::once(&first).chain(&others).find(odd).or_else(|| others.get(1)) {
        return Err(refused(SyntaxError::NotAPair { at: side.span }));
    }
    let second = others.into_iter().next().expect("the grammar has at least one `&`");
    Ok(PatternForm::Pair(Box::new([first, second])))
}

pub(crate) fn call<'input>(function: &Word, args: Vec<Expr>) -> Built<'input, ExprForm> {
    Ok(ExprForm::Call { function: one_of(function, &Function::WORDS, "a function")?, args })
}

pub(crate) fn binary<'input>(op: Operator, left: Expr, right: Expr, span: Span) -> Built<'input, Expr> {
    expr(ExprForm::Binary { op, left: Box::new(left), right: Box::new(right) }, span)
}

/// An expression, unless its tree grows too high to be walked by recursion.
pub(crate) fn expr<'input>(form: ExprForm, span: Span) -> Built<'input, Expr> {
    let expr = Expr::new(form, span);
    if expr.height() > MAX_DEPTH {
        let at = Span { start: span.end.saturating_sub(1).max(span.start), ..span };
        return Err(refused(SyntaxError::TooDeep { at }));
    }
    limited(expr.nodes() as usize, MAX_NODES, "an expression", span)?;
    Ok(expr)
}

/// The most entries of a list, and the most items of a file, a schedule or a transform.
const MAX_ENTRIES: usize = 500;
/// The most keys of a stream; each is computed for every pass.
const MAX_KEYS: usize = 16;
/// The most numbers, names and operations of an expression.
const MAX_NODES: usize = 500;

/// A list that is not too long to be looked through for every entry.
pub(crate) fn list<'input, T>(entries: Vec<T>, at: Span) -> Built<'input, Vec<T>> {
    limited(entries.len(), MAX_ENTRIES, "a list", at)?;
    Ok(entries)
}

fn limited<'input>(count: usize, most: usize, what: &'static str, at: Span) -> Built<'input, ()> {
    // Only the beginning is shown.
    let at = Span { end: at.end.min(at.start + 1), ..at };
    if count > most { Err(refused(SyntaxError::TooLong { what, count, most, at })) } else { Ok(()) }
}

pub(crate) fn stream<'input>(pass: Word, keys: Vec<Expr>, at: Span) -> Built<'input, ScheduleForm> {
    limited(keys.len(), MAX_KEYS, "the list of sort keys", at)?;
    Ok(ScheduleForm::Stream { pass, keys })
}

pub(crate) fn pass<'input>(
    name: Word,
    site: DeclaredSite,
    clauses: Vec<Clause>,
    span: Span,
) -> Built<'input, PassDecl> {
    for (index, clause) in clauses.iter().enumerate() {
        let same =
            |other: &&Clause| std::mem::discriminant(&other.form) == std::mem::discriminant(&clause.form);
        if let Some(first) = clauses[..index].iter().find(same) {
            return Err(refused(SyntaxError::DuplicateClause {
                pass: name.text,
                clause: first_word(&clause.form),
                first: first.span,
                at: clause.span,
            }));
        }
    }
    Ok(PassDecl { name, site, clauses, span })
}

/// The word that a clause begins with.
fn first_word(form: &ClauseForm) -> &'static str {
    match form {
        ClauseForm::Computes(_) => "computes",
        ClauseForm::Needs(_) => "needs",
        ClauseForm::Gives(_) => "gives",
        ClauseForm::Makes(_) => "makes",
        ClauseForm::Frees(_) => "frees",
        ClauseForm::Fused { .. } => "or fused into",
    }
}
