//! What can be wrong with the spelling of a `.sched` file.

use miette::Diagnostic;
use thiserror::Error;

use super::lexer::MAX_DEPTH;
use super::{MAX_BYTES, expected};
use crate::diag::Located;
use crate::ir::{FileId, Span};

/// A text that is no `.sched` file.
#[derive(Clone, Debug, Error, Diagnostic)]
pub enum SyntaxError {
    /// A token that cannot stand where it stands.
    #[error("{found} cannot stand here; expected {expected}")]
    #[diagnostic(code(schedc::syntax::unexpected_token), help("{help}"))]
    UnexpectedToken {
        /// The token, in words.
        found: String,
        /// What can stand there, in words.
        expected: String,
        /// What to do.
        help: String,
        /// The token.
        #[label("not understood from here")]
        at: Span,
    },

    /// The text ends too early.
    #[error("the file ends in the middle of a declaration; expected {expected}")]
    #[diagnostic(
        code(schedc::syntax::unexpected_end),
        help("complete the last declaration; a missing `}}` or `)` is the usual reason")
    )]
    UnexpectedEnd {
        /// What can stand there, in words.
        expected: String,
        /// The end.
        #[label("the file ends here")]
        at: Span,
    },

    /// No token starts with this character.
    #[error("the character `{found}` has no meaning in a schedule")]
    #[diagnostic(
        code(schedc::syntax::unknown_character),
        help("remove it; names are ASCII letters, digits and `_`, and comments start with `//`")
    )]
    UnknownCharacter {
        /// Escaped where it cannot be seen.
        found: String,
        /// Where.
        #[label("this character")]
        at: Span,
    },

    /// A quoted name without its end.
    #[error("a quoted name is not closed on its line")]
    #[diagnostic(code(schedc::syntax::unterminated_text), help("add the closing `\"`"))]
    UnterminatedText {
        /// From the opening quote.
        #[label("opened here")]
        at: Span,
    },

    /// Too many digits.
    #[error("a number is larger than {}", i64::MAX)]
    #[diagnostic(code(schedc::syntax::number_too_large), help("numbers have 64 bits; write a smaller one"))]
    NumberTooLarge {
        /// The number.
        #[label("does not fit in 64 bits")]
        at: Span,
    },

    /// A fraction.
    #[error("`{found}` is not an integer")]
    #[diagnostic(
        code(schedc::syntax::not_an_integer),
        help("the language knows integers only; multiply first and divide last, as in `3 * ranks / 2`")
    )]
    NotAnInteger {
        /// As written.
        found: String,
        /// The number.
        #[label("a fraction")]
        at: Span,
    },

    /// Deep nesting.
    #[error("brackets or operators are nested deeper than {MAX_DEPTH} levels")]
    #[diagnostic(
        code(schedc::syntax::too_deep),
        help("name a part of it with `let`, or say it as a repetition `^n`")
    )]
    TooDeep {
        /// The level that is one too many.
        #[label("one level too many")]
        at: Span,
    },

    /// A list or an expression that is too long.
    #[error("{what} has {count} parts, and at most {most} are read")]
    #[diagnostic(
        code(schedc::syntax::too_long),
        help("say it shorter: name parts with `let`, or write a pattern instead of single passes")
    )]
    TooLong {
        /// What is too long, with its article.
        what: &'static str,
        /// How many parts it has so far.
        count: usize,
        /// How many it may have.
        most: usize,
        /// Its beginning.
        #[label("begins here")]
        at: Span,
    },

    /// More or less than two passes overlapped.
    #[error("only two single passes run overlapped")]
    #[diagnostic(
        code(schedc::syntax::not_a_pair),
        help(
            "write `F & B` or `F.0 & B.1`, one pass on each side, and what comes after it behind: `F & B W`"
        )
    )]
    NotAPair {
        /// What is too much.
        #[label("this is no single pass, or one too many")]
        at: Span,
    },

    /// A word where one of a few words must stand.
    #[error("`{found}` is not {what}")]
    #[diagnostic(code(schedc::syntax::unknown_word), help("{help}"))]
    UnknownWord {
        /// As written.
        found: String,
        /// What it should be, with its article.
        what: &'static str,
        /// The words that can stand there.
        help: String,
        /// Where.
        #[label("not {what}")]
        at: Span,
    },

    /// A clause that a pass declaration already has.
    #[error("pass `{pass}` has two `{clause}` clauses")]
    #[diagnostic(
        code(schedc::syntax::duplicate_clause),
        help("write one `{clause}` clause, its entries separated by commas")
    )]
    DuplicateClause {
        /// The pass.
        pass: String,
        /// The first word of the clause.
        clause: &'static str,
        /// The first one.
        #[label("the first one")]
        first: Span,
        /// The second one.
        #[label("the second one")]
        at: Span,
    },

    /// A file that is too large to be a schedule.
    #[error("a `.sched` file has at most {MAX_BYTES} bytes, and this one has {bytes} or more")]
    #[diagnostic(
        code(schedc::syntax::too_large),
        help(
            "check that this is the file you meant; a schedule says its order as a pattern, not pass by pass"
        )
    )]
    TooLarge {
        /// Which file.
        file: FileId,
        /// Its size, as far as it was read.
        bytes: u64,
    },

    /// A file that is not text.
    #[error("the file is not text: byte {byte:#04x} at offset {offset}")]
    #[diagnostic(
        code(schedc::syntax::not_text),
        help("check that this is the file you meant; a `.sched` file is UTF-8 text without NUL bytes")
    )]
    NotText {
        /// Which file.
        file: FileId,
        /// The byte.
        byte: u8,
        /// Its position in the file.
        offset: usize,
    },
}

impl Located for SyntaxError {
    fn file(&self) -> Option<FileId> {
        match self {
            Self::UnexpectedToken { at, .. }
            | Self::UnexpectedEnd { at, .. }
            | Self::UnknownCharacter { at, .. }
            | Self::UnterminatedText { at }
            | Self::NumberTooLarge { at }
            | Self::NotAnInteger { at, .. }
            | Self::TooDeep { at }
            | Self::NotAPair { at }
            | Self::TooLong { at, .. }
            | Self::UnknownWord { at, .. }
            | Self::DuplicateClause { at, .. } => Some(at.file),
            Self::TooLarge { file, .. } | Self::NotText { file, .. } => Some(*file),
        }
    }
}

impl SyntaxError {
    /// The error for a token that the grammar refuses.
    pub(super) fn unexpected(token: &str, reserved: bool, expected: &[String], at: Span) -> Self {
        let help = if reserved && expected.iter().any(|word| word == "\"name\"") {
            format!("`{token}` is a word of the language and cannot be a name; choose another one")
        } else {
            format!("replace or remove `{token}`, or complete what stands before it")
        };
        Self::UnexpectedToken {
            found: format!("`{token}`"),
            expected: expected::in_words(expected),
            help,
            at,
        }
    }
}
