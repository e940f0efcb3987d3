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
    if let [only] = cycle {
        return format!("{} runs a pass before one that it needs", only.rank);
    }
    let ranks: Vec<_> = cycle.iter().chain(cycle.first()).map(|waiting| waiting.rank.to_string()).collect();
    if cycle.is_empty() { "a pass that is needed never runs".into() } else { ranks.join(" waits for ") }
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
        Some(Box::new(
            "move one of these passes before the one that it waits behind: usually a longer warm-up on the later ranks' side, or backward passes later",
        ))
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        let file = self.file()?;
        let here =
            self.cycle.iter().filter(move |waiting| waiting.span.is_some_and(|span| span.file == file));
        Some(Box::new(here.filter_map(|waiting| {
            let Waiting { rank, pass, needs, on, behind, .. } = waiting;
            let text = if on == rank {
                format!("{rank} has {pass} here, before {needs}, which it needs")
            } else if behind == needs {
                format!("{rank} waits here with {pass} for {needs} of {on}")
            } else {
                format!("{rank} waits here with {pass} for {needs}, which {on} has behind {behind}")
            };
            Some(LabeledSpan::new_with_span(Some(text), waiting.span?))
        })))
    }
}
