//! What is wrong with a file of costs, and where.

use std::fmt;
use std::sync::Arc;

use miette::{Diagnostic, LabeledSpan, NamedSource, Severity, SourceCode, SourceSpan};
use thiserror::Error;

/// What is wrong with a model, device or topology file, or with a profile.
#[derive(Clone, Debug, PartialEq, Eq, Error, Diagnostic)]
pub enum Problem {
    /// Not TOML at all.
    #[error("the file is not TOML: {reason}")]
    #[diagnostic(
        code(schedc::cost::not_toml),
        help(
            "write `key = value` lines under `[table]` headings, texts in quotes; `schedc show a100-80g` prints one"
        )
    )]
    NotToml {
        /// What the parser says.
        reason: String,
        /// Where.
        #[label("here")]
        at: SourceSpan,
    },
    /// A key that the table does not have.
    #[error("{table} has no key `{key}`")]
    #[diagnostic(code(schedc::cost::unknown_key), help("{help}"))]
    UnknownKey {
        /// The key.
        key: String,
        /// What it was written in.
        table: &'static str,
        /// What it may mean.
        help: String,
        /// The key.
        #[label("unknown")]
        at: SourceSpan,
    },
    /// A key that must be there.
    #[error("{table} lacks `{key}`")]
    #[diagnostic(code(schedc::cost::missing_key), help("add `{key} = …`: {example}"))]
    MissingKey {
        /// The key.
        key: &'static str,
        /// What lacks it.
        table: &'static str,
        /// How a value looks.
        example: &'static str,
        /// The table.
        #[label("in here")]
        at: SourceSpan,
    },
    /// A value of another form.
    #[error("`{key}` is not {expected}")]
    #[diagnostic(code(schedc::cost::wrong_type), help("write {expected}"))]
    WrongType {
        /// The key.
        key: &'static str,
        /// What it should be.
        expected: &'static str,
        /// The value.
        #[label("not {expected}")]
        at: SourceSpan,
    },
    /// A number without its unit, or with one of something else.
    #[error("`{key}` has no number with a unit that fits")]
    #[diagnostic(
        code(schedc::cost::wrong_unit),
        help("write a number and a unit in quotes, such as {example}")
    )]
    WrongUnit {
        /// The key.
        key: &'static str,
        /// How one looks.
        example: &'static str,
        /// The value.
        #[label("should look like {example}")]
        at: SourceSpan,
    },
    /// A number that cannot be.
    #[error("`{key}` is out of range")]
    #[diagnostic(code(schedc::cost::out_of_range), help("write a number in its range: {range}"))]
    OutOfRange {
        /// The key.
        key: &'static str,
        /// What can be.
        range: &'static str,
        /// The value.
        #[label("must be {range}")]
        at: SourceSpan,
    },
    /// A word that means nothing here.
    #[error("`{word}` is no value of `{key}`")]
    #[diagnostic(code(schedc::cost::unknown_word), help("{help}"))]
    UnknownWord {
        /// The key.
        key: &'static str,
        /// The word.
        word: String,
        /// What it may mean.
        help: String,
        /// The value.
        #[label("unknown")]
        at: SourceSpan,
    },
    /// Heads that do not divide the width.
    #[error("{heads} heads do not divide a hidden width of {hidden}")]
    #[diagnostic(code(schedc::cost::uneven_heads), help("choose `hidden` as a multiple of `heads`"))]
    UnevenHeads {
        /// Attention heads.
        heads: u32,
        /// Width.
        hidden: u32,
        /// The heads.
        #[label("does not divide {hidden}")]
        at: SourceSpan,
    },
    /// Heads that cannot be dealt out to the devices of a rank.
    #[error("{heads} heads cannot be dealt out evenly to {devices} devices of a rank")]
    #[diagnostic(
        code(schedc::cost::uneven_tensors),
        help("choose `tensor-parallel` as a divisor of `heads`")
    )]
    UnevenTensors {
        /// Attention heads.
        heads: u32,
        /// Devices that share a rank's products.
        devices: u32,
        /// The devices.
        #[label("does not divide {heads}")]
        at: SourceSpan,
    },
    /// A table of times without a head.
    #[error("the profile does not begin with the names of its columns")]
    #[diagnostic(
        code(schedc::cost::bad_heading),
        help(
            "begin with `rank` or `site` and a pass for each column, such as `rank,F,B,S,T`; times are in microseconds"
        )
    )]
    BadHeading {
        /// The first line.
        #[label("expected `rank,…` or `site,…`")]
        at: SourceSpan,
    },
    /// A line of no rank and no stage.
    #[error("`{cell}` is no rank and no stage")]
    #[diagnostic(
        code(schedc::cost::bad_row),
        help("begin each line with the number of a rank or a site, such as `0` or `r0`")
    )]
    BadRow {
        /// What is there.
        cell: String,
        /// Where.
        #[label("a number from 0 to 16383 belongs here")]
        at: SourceSpan,
    },
    /// A cell that is no time.
    #[error("`{cell}` is not a time")]
    #[diagnostic(
        code(schedc::cost::bad_cell),
        help("write microseconds, 0 or more, or leave the cell empty where the pass does not run")
    )]
    BadCell {
        /// What is there.
        cell: String,
        /// The cell.
        #[label("microseconds belong here")]
        at: SourceSpan,
    },
    /// A line with more or fewer cells than the first.
    #[error("the line has {found} cells, and the first line names {expected} columns")]
    #[diagnostic(
        code(schedc::cost::uneven_line),
        help("give each line a cell for each column, with a comma between two")
    )]
    UnevenLine {
        /// Its cells.
        found: usize,
        /// The columns.
        expected: usize,
        /// The line.
        #[label("{found} cells")]
        at: SourceSpan,
    },
    /// One pass at one site twice, or a column twice.
    #[error("`{what}` comes twice")]
    #[diagnostic(code(schedc::cost::profiled_twice), help("keep one of the two"))]
    ProfiledTwice {
        /// What.
        what: String,
        /// The second.
        #[label("again")]
        at: SourceSpan,
    },
    /// A JSON file that is no recorded run.
    #[error("the file is no trace of a run: {reason}")]
    #[diagnostic(
        code(schedc::cost::not_a_trace),
        help("record one with `schedc run … --trace FILE`, or write a table of times")
    )]
    NotATrace {
        /// Why.
        reason: String,
        /// Where.
        #[label("here")]
        at: SourceSpan,
    },
}

/// A problem with the file that it is in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileError {
    problem: Problem,
    text: Box<NamedSource<Arc<str>>>,
}

impl FileError {
    /// A problem in a text.
    #[must_use]
    pub fn new(problem: Problem, name: &str, text: &str) -> Self {
        Self { problem, text: Box::new(NamedSource::new(name, Arc::from(text))) }
    }

    /// What is wrong.
    #[must_use]
    pub fn problem(&self) -> &Problem {
        &self.problem
    }
}

impl fmt::Display for FileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.problem.fmt(f)
    }
}

impl std::error::Error for FileError {}

impl Diagnostic for FileError {
    fn code<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        self.problem.code()
    }

    fn severity(&self) -> Option<Severity> {
        self.problem.severity()
    }

    fn help<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        self.problem.help()
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        self.problem.labels()
    }

    fn source_code(&self) -> Option<&dyn SourceCode> {
        Some(&*self.text)
    }
}
