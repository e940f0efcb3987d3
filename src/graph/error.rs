//! An order in which ranks wait for each other in a circle.

use miette::{Diagnostic, LabeledSpan};
use thiserror::Error;

use crate::ir::{FileId, Rank, Span};

/// One rank of a circle.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waiting {
    /// The rank that waits.
    pub rank: Rank,
    /// The pass that it can't start.
    pub pass: String,
    /// The pass that this one needs.
    pub needs: String,
    /// Where the waiting pass was written.
    pub span: Option<Span>,
    /// The pass that keeps the needed one from starting: the next rank's.
    pub behind: String,
    /// The rank that should run the needed pass.
    pub on: Rank,
}

/// The order can't run to its end.
#[derive(Clone, Debug, Error)]
#[error("the order deadlocks: {}", circle(.cycle))]
pub struct Deadlock {
    /// The shortest circle, in the order of waiting.
    pub cycle: Vec<Waiting>,
}

fn circle(cycle: &[Waiting]) -> String {
    match cycle {
        [] => "a pass that is needed never runs".into(),
        [own] => format!("{} has {} before {}, which it needs", own.rank, own.pass, own.needs),
        [first, rest @ ..] => {
            let rest = rest.iter().chain([first]).map(|waiting| waiting.rank.to_string());
            format!("{} waits for {}", first.rank, rest.collect::<Vec<_>>().join(", which waits for "))
        }
    }
}

impl Deadlock {
    /// The file that the labels point into.
    #[must_use]
    pub fn file(&self) -> Option<FileId> {
        self.cycle.iter().find_map(|waiting| waiting.span).map(|span| span.file)
    }
}

impl Diagnostic for Deadlock {
    fn code<'a>(&'a self) -> Option<Box<dyn std::fmt::Display + 'a>> {
        // The diagnostic is written by hand because its labels are a list: code(schedc::order::deadlock)
        Some(Box::new("schedc::order::deadlock"))
    }

    fn help<'a>(&'a self) -> Option<Box<dyn std::fmt::Display + 'a>> {
        Some(Box::new(match &self.cycle[..] {
            [own] => format!("order {} before {} on {}", own.needs, own.pass, own.rank),
            _ => "move one of the needed passes before the one that holds it up; a stage that feeds another needs \
                  at least as many warm-up forwards as that one"
                .to_owned(),
        }))
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        let file = self.file()?;
        let here =
            self.cycle.iter().filter(move |waiting| waiting.span.is_some_and(|span| span.file == file));
        Some(Box::new(here.filter_map(|waiting| {
            let Waiting { rank, pass, needs, on, behind, .. } = waiting;
            let text = if on == rank {
                format!("{rank} waits here with {pass} for {needs}, which comes later in its own order")
            } else if behind == needs {
                format!("{rank} waits here with {pass} for {needs} of {on}")
            } else {
                format!("{rank} waits here with {pass} for {needs}, which {on} has behind {behind}")
            };
            Some(LabeledSpan::new_with_span(Some(text), waiting.span?))
        })))
    }
}
