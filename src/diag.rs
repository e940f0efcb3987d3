//! The error that wraps each room's own and knows the text that its labels point into.

use std::fmt;
use std::sync::Arc;

use miette::{Diagnostic, LabeledSpan, NamedSource, Severity, SourceCode};
use thiserror::Error;

use crate::cost::CostError;
use crate::driver::Unsound;
use crate::forward::ForwardError;
use crate::ir::FileId;
use crate::lower::LowerError;
use crate::order::OrderError;
use crate::resolve::ResolveError;
use crate::simulate::SimulateError;
use crate::source::Sources;
use crate::syntax::SyntaxError;
use crate::torch;
use crate::transform::TransformError;

/// An error of a room that knows in which file its labels lie.
pub trait Located: Diagnostic {
    /// The file of all its labels; `None` where it has no label.
    fn file(&self) -> Option<FileId>;
}

/// One variant for each room whose errors are shown to users: `Room(RoomError)`, where `RoomError` is [`Located`].
macro_rules! rooms {
    ($($(#[$doc:meta])* $room:ident($error:ty),)*) => {
        /// What went wrong, by room.
        #[derive(Debug, Error, Diagnostic)]
        pub enum Cause {
            $($(#[$doc])* #[error(transparent)] #[diagnostic(transparent)] $room($error),)*
        }

        impl Located for Cause {
            fn file(&self) -> Option<FileId> {
                match self {
                    $(Self::$room(error) => Located::file(error),)*
                }
            }
        }

        $(impl From<$error> for Cause {
            fn from(error: $error) -> Self {
                Self::$room(error)
            }
        }

        impl From<Box<$error>> for Cause {
            fn from(error: Box<$error>) -> Self {
                Self::$room(*error)
            }
        })*
    };
}

rooms! {
    /// The text is not a `.sched` file.
    Syntax(SyntaxError),
    /// Names or numbers are wrong.
    Resolve(ResolveError),
    /// The costs do not fit the schedule.
    Cost(CostError),
    /// The pattern does not fit the passes.
    Order(OrderError),
    /// The transform does not fit the schedule.
    Transform(TransformError),
    /// Nothing of the schedule is left forward.
    Forward(ForwardError),
    /// The ranks' orders do not fit together.
    Lower(LowerError),
    /// The plan does not keep what its schedule requires.
    Simulate(SimulateError),
    /// A PyTorch schedule has no plan.
    Torch(torch::Unsupported),
    /// Lowering has a bug.
    Unsound(Unsound),
}

/// An error with the text that its labels point into.
#[derive(Debug)]
pub struct Error {
    cause: Box<Cause>,
    text: Option<NamedSource<Arc<str>>>,
}

impl Error {
    /// A room's error, with its text looked up in `sources`.
    pub fn new(cause: impl Into<Cause>, sources: &Sources) -> Self {
        let cause = Box::new(cause.into());
        let file = cause.file().filter(|file| shows(&cause, &sources.text(*file)));
        Self { text: file.map(|file| sources.named(file)), cause }
    }

    /// The room's error.
    #[must_use]
    pub fn cause(&self) -> &Cause {
        &self.cause
    }
}

/// Lines longer than this are no source text that a terminal should show.
const LONGEST_LINE: usize = 1000;

/// Whether the lines at an error's labels, and those above and below, are short enough to be shown.
fn shows(cause: &Cause, text: &str) -> bool {
    let short = |label: LabeledSpan| {
        let (before, after) = text.as_bytes().split_at(label.offset().min(text.len()));
        let newline = |byte: &u8| *byte == b'\n';
        let before = before.rsplit(newline).take(2);
        let after = after.split(newline).take(2);
        before.chain(after).all(|line| line.len() <= LONGEST_LINE)
    };
    cause.labels().into_iter().flatten().all(short)
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.cause.fmt(f)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        std::error::Error::source(&*self.cause)
    }
}

impl Diagnostic for Error {
    fn code<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        self.cause.code()
    }

    fn severity(&self) -> Option<Severity> {
        self.cause.severity()
    }

    fn help<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        self.cause.help()
    }

    fn url<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        self.cause.url()
    }

    fn source_code(&self) -> Option<&dyn SourceCode> {
        // A file of costs comes with its error: it is no text of the compilation.
        self.text.as_ref().map(|text| text as &dyn SourceCode).or_else(|| self.cause.source_code())
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        self.cause.labels()
    }

    fn related<'a>(&'a self) -> Option<Box<dyn Iterator<Item = &'a dyn Diagnostic> + 'a>> {
        self.cause.related()
    }
}

/// The candidate that a misspelt word most likely means.
pub fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let word = word.to_lowercase();
    let likeness = |candidate: &str| strsim::jaro_winkler(&word, &candidate.to_lowercase());
    candidates
        .into_iter()
        .map(|candidate| (likeness(candidate), candidate))
        .filter(|(likeness, _)| *likeness >= 0.75)
        .max_by(|(left, _), (right, _)| left.total_cmp(right))
        .map(|(_, candidate)| candidate)
}
