//! Nodes from what the grammar has recognized: words that only some places give a meaning, and limits.

use lalrpop_util::ParseError;

use super::ast::{
    At, AtSite, BarrierOp, Clause, ClauseForm, DeclaredSite, Expr, ExprForm, Function, Operator, PassDecl,
    Pattern, PatternForm, Placement, Site, Word,
};
use super::error::SyntaxError;
use super::lexer::{MAX_DEPTH, Token};
use crate::diag::nearest;
use crate::ir::{FileId, Span};

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
    if let Some(at) = at.filter(|at| matches!(at.site, AtSite::Prev | AtSite::Next)) {
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
    let looped = one_of(word, &[(true, "loop"), (false, "wave")], "a placement")?;
    Ok(if looped { Placement::Loop } else { Placement::Wave })
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
    Ok(expr)
}

/// A pattern in brackets; brackets around one group mean no more than one pair.
pub(crate) fn group(inner: Pattern) -> PatternForm {
    match inner.form {
        PatternForm::Sequence(mut parts)
            if parts.len() == 1 && matches!(parts[0].form, PatternForm::Sequence(_)) =>
        {
            parts.remove(0).form
        }
        form => form,
    }
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
