//! What can be wrong with a plan file.

use miette::{Diagnostic, SourceSpan};
use thiserror::Error;

use super::PlanSource;

/// A file that is not a plan, and why.
#[derive(Debug, Error, Diagnostic)]
#[error("`{}` is not a plan", .source_code.name())]
pub struct ImportError {
    #[source_code]
    source_code: PlanSource,
    /// What is wrong; at least one.
    #[related]
    pub problems: Vec<Problem>,
}

impl ImportError {
    pub(super) fn new(source_code: PlanSource, problems: Vec<Problem>) -> Self {
        Self { source_code, problems }
    }
}

/// One thing that is wrong with a plan file.
#[derive(Clone, Debug, PartialEq, Eq, Error, Diagnostic)]
pub enum Problem {
    /// The file is not text.
    #[error("the file is not UTF-8 text: byte {offset} does not belong to any character")]
    #[diagnostic(
        code(schedc::import::not_text),
        help("give a plan that `schedc compile --emit text` or `--emit json` wrote")
    )]
    NotText {
        /// The first such byte.
        offset: usize,
    },
    /// A version of the format that this program does not know.
    #[error("version `{found}` of the plan format is not known here")]
    #[diagnostic(
        code(schedc::import::unsupported_version),
        help("this schedc reads version 1; compile the schedule again with it")
    )]
    UnsupportedVersion {
        /// The version, as written.
        found: String,
        /// Where.
        #[label("this version")]
        at: SourceSpan,
    },
    /// A line that cannot stand here.
    #[error("a line begins with `{found}` where {expected} should stand")]
    #[diagnostic(code(schedc::import::unexpected_line), help("{help}"))]
    UnexpectedLine {
        /// Its first word.
        found: String,
        /// What could stand here.
        expected: String,
        /// What to do.
        help: String,
        /// Where.
        #[label("not {expected}")]
        at: SourceSpan,
    },
    /// A word that cannot stand here.
    #[error("`{found}` stands where {expected} should")]
    #[diagnostic(code(schedc::import::unexpected_word), help("{help}"))]
    UnexpectedWord {
        /// The word.
        found: String,
        /// What could stand here.
        expected: String,
        /// What to do.
        help: String,
        /// Where.
        #[label("not {expected}")]
        at: SourceSpan,
    },
    /// A line that ends too early.
    #[error("the line ends where {expected} should stand")]
    #[diagnostic(code(schedc::import::missing_word), help("write {expected} here"))]
    MissingWord {
        /// What is missing.
        expected: String,
        /// Where.
        #[label("ends here")]
        at: SourceSpan,
    },
    /// Something that is no number, or too large a one.
    #[error("`{found}` is not {expected}")]
    #[diagnostic(code(schedc::import::bad_number), help("write digits only, at most {most}"))]
    BadNumber {
        /// What was written.
        found: String,
        /// What was expected.
        expected: &'static str,
        /// The largest number that fits.
        most: u64,
        /// Where.
        #[label("not {expected}")]
        at: SourceSpan,
    },
    /// A name that nothing has.
    #[error("no {what} is called `{name}`")]
    #[diagnostic(code(schedc::import::unknown_name), help("{help}"))]
    UnknownName {
        /// What was named: a class, a pass, a collective, a computation.
        what: &'static str,
        /// The name.
        name: String,
        /// The nearest one that exists.
        help: String,
        /// Where.
        #[label("unknown")]
        at: SourceSpan,
    },
    /// A name that two declarations have.
    #[error("two declarations of a {what} are called `{name}`")]
    #[diagnostic(code(schedc::import::duplicate_name), help("give one of them another name"))]
    DuplicateName {
        /// What was declared.
        what: &'static str,
        /// The name.
        name: String,
        /// The second one.
        #[label("declared again here")]
        at: SourceSpan,
    },
    /// A name that cannot be written.
    #[error("`{name}` cannot be a name")]
    #[diagnostic(
        code(schedc::import::bad_name),
        help(
            "classes and passes are named with letters, digits, `_` and `-`; other names may stand in double quotes, on one line"
        )
    )]
    BadName {
        /// The name.
        name: String,
        /// Where.
        #[label("not a name")]
        at: SourceSpan,
    },
    /// Numbered lines that skip or repeat a number.
    #[error("`{found}` follows where `{expected}` should")]
    #[diagnostic(
        code(schedc::import::out_of_sequence),
        help("ranks, groups, buffers and instructions are numbered from 0, one after the other")
    )]
    OutOfSequence {
        /// The id that should stand here.
        expected: String,
        /// The id that stands here.
        found: String,
        /// Where.
        #[label("should be `{expected}`")]
        at: SourceSpan,
    },
    /// An instruction with more operands than the format holds.
    #[error("an instruction has more than 65535 operands of one sort")]
    #[diagnostic(code(schedc::import::too_many_operands), help("split the instruction"))]
    TooManyOperands {
        /// Where.
        #[label("this instruction")]
        at: SourceSpan,
    },
    /// A part of the plan that is not there.
    #[error("the plan ends without {missing}")]
    #[diagnostic(code(schedc::import::missing_part), help("the file may have been cut off: write it again"))]
    MissingPart {
        /// What is missing.
        missing: String,
        /// The end.
        #[label("the plan ends here")]
        at: SourceSpan,
    },
    /// JSON that does not parse or does not follow the schema.
    #[error("the JSON does not follow the plan schema: {message}")]
    #[diagnostic(
        code(schedc::import::malformed_json),
        help("docs/plan.schema.json describes the format; compare the file with it")
    )]
    MalformedJson {
        /// What the parser says.
        message: String,
        /// Where.
        #[label("here")]
        at: SourceSpan,
    },
}
