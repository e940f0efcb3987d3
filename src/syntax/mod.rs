//! Text -> tree, and back.
//!
//! In: the text of a `.sched` file, which may be hostile: it is refused when it is larger than [`MAX_BYTES`], not text, or
//! nested so deep that walking the tree would need an unbounded stack. Out: an [`ast::File`], with spans, comments and blank
//! lines. [`print()`] lays a tree out; printing what was parsed from a printed text changes nothing.

pub mod ast;
mod build;
mod error;
mod expected;
mod lexer;
mod printer;

use lalrpop_util::ParseError;

pub use self::error::SyntaxError;
use self::lexer::Token;
pub use self::printer::print;
use crate::ir::{FileId, Span};

#[allow(
    clippy::all,
    clippy::pedantic,
    clippy::unwrap_used,
    clippy::allow_attributes_without_reason,
    missing_docs,
    unreachable_pub,
    reason = "generated"
)]
mod grammar {
    include!(concat!(env!("OUT_DIR"), "/sched.rs"));
}

/// The most bytes that a `.sched` file may have. Whoever reads files looks at their size first.
pub const MAX_BYTES: u64 = 1 << 20;

/// The text of a file's bytes.
///
/// # Errors
/// When there are too many bytes, when they are not UTF-8, or when one of them is NUL.
pub fn decode(file: FileId, bytes: &[u8]) -> Result<&str, Box<SyntaxError>> {
    check_size(file, bytes.len() as u64)?;
    let refuse = |offset: usize| Box::new(SyntaxError::NotText { file, byte: bytes[offset], offset });
    let text = std::str::from_utf8(bytes).map_err(|error| refuse(error.valid_up_to()))?;
    bytes.iter().position(|&byte| byte == 0).map_or(Ok(text), |offset| Err(refuse(offset)))
}

/// Refuses a size that no `.sched` file has; to be asked before a file is read.
///
/// # Errors
/// When the size is over [`MAX_BYTES`].
pub fn check_size(file: FileId, bytes: u64) -> Result<(), Box<SyntaxError>> {
    if bytes > MAX_BYTES { Err(Box::new(SyntaxError::TooLarge { file, bytes })) } else { Ok(()) }
}

/// The tree of a text.
///
/// # Errors
/// The first thing that is not understood.
pub fn parse(file: FileId, text: &str) -> Result<ast::File, Box<SyntaxError>> {
    decode(file, text.as_bytes())?;
    let (tokens, trivia) = lexer::tokens(file, text)?;
    let items = grammar::FileParser::new()
        .parse(file, tokens.into_iter().map(Ok::<_, Box<SyntaxError>>))
        .map_err(|error| Box::new(explain(file, text, error)))?;
    Ok(ast::File { id: file, items, trivia })
}

/// The parser's complaint in the user's terms.
fn explain(file: FileId, text: &str, error: ParseError<u32, Token<'_>, Box<SyntaxError>>) -> SyntaxError {
    let slice = |start: u32, end: u32| &text[start as usize..end as usize];
    match error {
        ParseError::User { error } => *error,
        ParseError::UnrecognizedToken { token: (start, token, end), expected } => {
            let shown = slice(start, end);
            let reserved =
                !matches!(token, Token::Name(_)) && shown.starts_with(|c: char| c.is_ascii_alphabetic());
            SyntaxError::unexpected(shown, reserved, &expected, Span { file, start, end })
        }
        ParseError::ExtraToken { token: (start, _, end) } => {
            SyntaxError::unexpected(slice(start, end), false, &[], Span { file, start, end })
        }
        ParseError::UnrecognizedEof { location, expected } => SyntaxError::UnexpectedEnd {
            expected: expected::in_words(&expected),
            at: Span { file, start: location.saturating_sub(1), end: location },
        },
        ParseError::InvalidToken { location } => SyntaxError::UnknownCharacter {
            found: slice(location, location).to_owned(),
            at: Span { file, start: location, end: location },
        },
    }
}
