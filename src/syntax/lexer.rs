//! Text -> tokens with their places; comments and blank lines are kept aside for the printer.

use logos::Logos;

use super::ast::{Comment, Trivia};
use super::error::SyntaxError;
use crate::ir::{FileId, Span};

/// What is wrong with a piece of text that is no token.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Fault {
    /// No token starts with this character.
    #[default]
    Unknown,
    /// A number over 2^63 - 1.
    TooLarge,
    /// A number with a fraction.
    Fraction,
    /// A text without its closing quote.
    OpenText,
}

/// A token of `.sched` text.
#[derive(Logos, Clone, Copy, Debug, PartialEq, Eq)]
#[logos(error = Fault)]
#[logos(skip r"[ \t\r\n\u{feff}]+")]
pub(crate) enum Token<'input> {
    #[token("schedule")]
    Schedule,
    #[token("transform")]
    Transform,
    #[token("pass")]
    Pass,
    #[token("class")]
    Class,
    #[token("barrier")]
    Barrier,
    #[token("limit")]
    Limit,
    #[token("deepen")]
    Deepen,
    #[token("passes")]
    Passes,
    #[token("chunks")]
    Chunks,
    #[token("slices")]
    Slices,
    #[token("retime")]
    Retime,
    #[token("require")]
    Require,
    #[token("place")]
    Place,
    #[token("apply")]
    Apply,
    #[token("let")]
    Let,
    #[token("stream")]
    Stream,
    #[token("order")]
    Order,
    #[token("block")]
    Block,
    #[token("fill")]
    Fill,
    #[token("greedy")]
    Greedy,
    #[token("prefer")]
    Prefer,
    #[token("by")]
    By,
    #[token("if")]
    If,
    #[token("else")]
    Else,
    #[token("for")]
    For,
    #[token("in")]
    In,
    #[token("at")]
    At,
    #[token("every")]
    Every,
    #[token("computes")]
    Computes,
    #[token("needs")]
    Needs,
    #[token("gives")]
    Gives,
    #[token("makes")]
    Makes,
    #[token("frees")]
    Frees,
    #[token("or")]
    Or,
    #[token("fused")]
    Fused,
    #[token("into")]
    Into,
    #[token("ahead")]
    Ahead,
    #[token("of")]
    Of,
    #[token("broadcast")]
    Broadcast,
    #[token("reduce")]
    Reduce,
    #[regex("[A-Za-z_][A-Za-z0-9_]*")]
    Name(&'input str),
    #[regex("[0-9]+", |lex| lex.slice().parse().map_err(|_| Fault::TooLarge))]
    #[regex(r"[0-9]+\.[0-9]+", |_| Err(Fault::Fraction))]
    Number(i64),
    #[regex(r#""[^"\n]*""#, |lex| lex.slice().trim_matches('"'))]
    #[regex(r#""[^"\n]*"#, |_| Err(Fault::OpenText))]
    Text(&'input str),
    #[regex(r"//[^\n]*", allow_greedy = true)]
    Comment(&'input str),
    #[token("(")]
    Open,
    #[token(")")]
    Close,
    #[token("{")]
    OpenBrace,
    #[token("}")]
    CloseBrace,
    #[token("[")]
    OpenBracket,
    #[token("]")]
    CloseBracket,
    #[token(",")]
    Comma,
    #[token(".")]
    Dot,
    #[token("..")]
    DotDot,
    #[token("->")]
    Arrow,
    #[token("=")]
    Equals,
    #[token("^")]
    Caret,
    #[token("&")]
    And,
    #[token("+")]
    Plus,
    #[token("-")]
    Minus,
    #[token("*")]
    Star,
    #[token("/")]
    Slash,
    #[token("%")]
    Percent,
    #[token("==")]
    Equal,
    #[token("!=")]
    NotEqual,
    #[token("<")]
    Less,
    #[token("<=")]
    AtMost,
    #[token(">")]
    More,
    #[token(">=")]
    AtLeast,
}

/// A token between its first byte and the one past its last.
pub(crate) type Located<'input> = (u32, Token<'input>, u32);

/// Brackets, operators and branches may stand this deep in each other.
pub(crate) const MAX_DEPTH: u16 = 200;

/// The tokens of a text that is shorter than 4 GiB, and what the printer needs besides them.
pub(crate) fn tokens(file: FileId, text: &str) -> Result<(Vec<Located<'_>>, Trivia), Box<SyntaxError>> {
    let mut found = Vec::new();
    let mut trivia = Trivia { comments: Vec::new(), blanks: blank_lines(text) };
    let mut depth = 0;
    for (token, range) in Token::lexer(text).spanned() {
        let (start, end) = (range.start as u32, range.end as u32);
        let at = Span { file, start, end };
        let token = token.map_err(|fault| Box::new(refuse(fault, &text[range], at)))?;
        match token {
            Token::Comment(comment) => {
                let line = text[..at.start as usize].rfind('\n').map_or(0, |newline| newline + 1);
                let own_line = text[line..at.start as usize].trim().is_empty();
                trivia.comments.push(Comment { text: comment.trim_end().to_owned(), own_line, span: at });
                continue;
            }
            Token::Open | Token::OpenBrace | Token::OpenBracket => depth += 1,
            Token::Close | Token::CloseBrace | Token::CloseBracket => depth = u16::saturating_sub(depth, 1),
            _ => {}
        }
        if depth > MAX_DEPTH {
            return Err(Box::new(SyntaxError::TooDeep { at }));
        }
        found.push((start, token, end));
    }
    Ok((found, trivia))
}

/// The error for text that is no token.
fn refuse(fault: Fault, slice: &str, at: Span) -> SyntaxError {
    match fault {
        Fault::Unknown => SyntaxError::UnknownCharacter { found: slice.escape_debug().to_string(), at },
        Fault::TooLarge => SyntaxError::NumberTooLarge { at },
        Fault::Fraction => SyntaxError::NotAnInteger { found: slice.to_owned(), at },
        Fault::OpenText => SyntaxError::UnterminatedText { at },
    }
}

/// The first byte of each line that holds nothing.
fn blank_lines(text: &str) -> Vec<u32> {
    let mut blanks = Vec::new();
    let mut start = 0;
    for line in text.split_inclusive('\n') {
        if line.trim().is_empty() {
            blanks.push(start);
        }
        start += line.len() as u32;
    }
    blanks
}
