//! What was found: each violation with its place, and all of them with the plan that was refused.

use std::fmt;

use miette::{Diagnostic, LabeledSpan, Severity, SourceCode, SourceSpan};

use super::error::Rule;
use crate::import::{Lines, PlanSource};
use crate::ir::{BufferId, InstrId, Plan, Rank};

/// Violations that are kept; of the rest only the number.
const MOST: usize = 1000;

/// Violations that a report shows; [`Refused::violations`] has more.
const SHOWN: usize = 20;

/// A place in a plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// What holds for all ranks.
    Header,
    /// One rank's part.
    Rank(Rank),
    /// A buffer.
    Buffer(Rank, BufferId),
    /// An instruction.
    Instr(Rank, InstrId),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Header => f.write_str("header"),
            Self::Rank(rank) => rank.fmt(f),
            Self::Buffer(rank, buffer) => write!(f, "{rank} {buffer}"),
            Self::Instr(rank, instr) => write!(f, "{rank} {instr}"),
        }
    }
}

/// A rule that a plan breaks, and where.
#[derive(Debug)]
pub struct Violation {
    /// What is broken.
    pub rule: Rule,
    /// Where.
    pub place: Place,
    /// Other places that have a part in it, each with its part.
    pub others: Vec<(Place, String)>,
    labels: Vec<LabeledSpan>,
}

impl Violation {
    /// The code of the rule: `schedc::verify::leak`.
    #[must_use]
    pub fn name(&self) -> String {
        self.rule.code().map(|code| code.to_string()).unwrap_or_default()
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.rule)
    }
}

impl std::error::Error for Violation {}

impl Diagnostic for Violation {
    fn code<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        self.rule.code()
    }

    fn help<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        self.rule.help()
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        (!self.labels.is_empty()).then(|| Box::new(self.labels.iter().cloned()) as Box<_>)
    }
}

/// A plan that breaks rules.
#[derive(Debug)]
pub struct Refused {
    /// The plan.
    pub plan: Plan,
    /// The rules that it breaks, the first thousand.
    pub violations: Vec<Violation>,
    /// How many more there are.
    pub more: usize,
    source: Option<Source>,
}

impl Refused {
    /// Labels every violation in the text that the plan came from. Places that `span` does not know get no label.
    #[must_use]
    pub fn labelled(
        mut self,
        source: impl SourceCode + 'static,
        span: impl Fn(Place) -> Option<SourceSpan>,
    ) -> Self {
        for violation in self.violations.iter_mut().take(SHOWN) {
            let main = (violation.place, "here".to_owned());
            let others = std::mem::take(&mut violation.others);
            for (place, text) in std::iter::once(&main).chain(&others) {
                if let Some(span) = span(*place) {
                    violation.labels.push(LabeledSpan::new_with_span(Some(text.clone()), span));
                }
            }
            violation.others = others;
        }
        self.source = Some(Source(Box::new(source)));
        self
    }

    /// Labels every violation in the plan's own text form, as `crate::import` read it.
    #[must_use]
    pub fn labelled_in_plan(self, source: PlanSource) -> Self {
        let lines = Lines::of(source.text());
        self.labelled(source, |place| match place {
            Place::Header => None,
            Place::Rank(rank) => lines.rank(rank),
            Place::Buffer(rank, buffer) => lines.buffer(rank, buffer),
            Place::Instr(rank, instr) => lines.instr(rank, instr),
        })
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = self.violations.len() + self.more;
        let shown = count.min(SHOWN);
        write!(f, "the plan breaks {count} {}", if count == 1 { "rule" } else { "rules" })?;
        if shown < count { write!(f, ", of which the first {shown} are shown") } else { Ok(()) }
    }
}

impl std::error::Error for Refused {}

impl Diagnostic for Refused {
    fn severity(&self) -> Option<Severity> {
        Some(Severity::Error)
    }

    fn source_code(&self) -> Option<&dyn SourceCode> {
        self.source.as_ref().map(|source| &*source.0 as &dyn SourceCode)
    }

    fn related<'a>(&'a self) -> Option<Box<dyn Iterator<Item = &'a dyn Diagnostic> + 'a>> {
        Some(Box::new(self.violations.iter().take(SHOWN).map(|violation| violation as &dyn Diagnostic)))
    }
}

/// The text that a plan came from.
struct Source(Box<dyn SourceCode>);

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Source")
    }
}

/// Violations as they are found.
#[derive(Debug, Default)]
pub(super) struct Report {
    violations: Vec<Violation>,
    more: usize,
}

impl Report {
    pub(super) fn is_empty(&self) -> bool {
        self.violations.is_empty()
    }

    /// Adds a violation; its message is only made if it is kept.
    pub(super) fn add(&mut self, place: Place, rule: impl FnOnce() -> Rule) {
        self.add_with(place, rule, Vec::new);
    }

    /// As [`Report::add`], with the other places that have a part in it.
    pub(super) fn add_with(
        &mut self,
        place: Place,
        rule: impl FnOnce() -> Rule,
        others: impl FnOnce() -> Vec<(Place, String)>,
    ) {
        if self.violations.len() < MOST {
            self.violations.push(Violation { rule: rule(), place, others: others(), labels: Vec::new() });
        } else {
            self.more += 1;
        }
    }

    pub(super) fn refuse(self, plan: Plan) -> Refused {
        Refused { plan, violations: self.violations, more: self.more, source: None }
    }
}
