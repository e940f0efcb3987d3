//! A table of times, or the trace of a run -> [`Profile`]: how long passes took, and what follows for those of another schedule.

mod fit;
mod parts;
mod recorded;
mod sharing;
mod table;

use std::sync::Arc;

use miette::{NamedSource, SourceSpan};

use self::recorded::Recorded;
use self::table::{Missing, Table};
use super::Durations;
use super::error::CostError;
use super::pipeline::Pipeline;
use super::problem::FileError;
use crate::ir::{Catalog, Kind, Rank};

/// Times of passes.
#[derive(Clone, Debug, PartialEq)]
pub struct Profile {
    source: Source,
    text: Arc<NamedSource<Arc<str>>>,
}

/// What the times come from.
#[derive(Clone, Debug, PartialEq)]
enum Source {
    /// A table: passes by name.
    Table(Table),
    /// The trace of a run, which says what each pass computed.
    Recorded(Box<Recorded>),
}

/// More ranks or stages than any pipeline has.
const MOST_ROWS: usize = 1 << 14;
/// The longest time, in microseconds: a month.
const LONGEST: f64 = 2.6e12;
/// The pass whose work a fused backward does as well.
const WEIGHT: &str = "W";

impl Profile {
    /// Reads a profile; `name` is what diagnostics call it. A text that begins with a brace is a trace.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn parse(name: &str, text: &str) -> Result<Self, FileError> {
        let read = if text.trim_start().starts_with('{') {
            recorded::read(text).map(|recorded| Source::Recorded(Box::new(recorded)))
        } else {
            table::read(text).map(Source::Table)
        };
        let source = read.map_err(|problem| FileError::new(problem, name, text))?;
        Ok(Self { source, text: Arc::new(NamedSource::new(name, Arc::from(text))) })
    }

    /// How long everything takes: passes and the optimizer's step by what was measured, messages and collectives nothing.
    ///
    /// # Errors
    /// A pass of which the profile says nothing; a model that the profile cannot speak for.
    pub(super) fn durations(
        &self,
        catalog: &Catalog,
        pipeline: &Pipeline<'_>,
        known: impl Fn(&str) -> bool,
    ) -> Result<Durations, CostError> {
        let (steps, threads) = match &self.source {
            Source::Table(_) => (Vec::new(), None),
            Source::Recorded(recorded) => {
                self.refuse_other(recorded, pipeline)?;
                let sharded = [catalog.shards_input(), catalog.shards_output()];
                let step = |rank: Rank| recorded.step(pipeline.held(rank, sharded).0, rank);
                let steps = Rank::all(pipeline.ranks as usize).map_while(step).collect();
                (steps, recorded.contention())
            }
        };
        let passes = catalog.kinds.iter().map(|kind| {
            if known(&kind.name) {
                return Ok(vec![0.0]);
            }
            self.sites(kind, catalog, pipeline).map_err(|missing| self.missing(missing))
        });
        let passes = passes.collect::<Result<Vec<_>, _>>()?;
        let ways = vec![0.0; (pipeline.ranks * pipeline.ranks) as usize];
        Ok(Durations {
            passes,
            collectives: vec![0.0; catalog.collectives.len()],
            messages: ways.clone(),
            transfers: ways,
            steps,
            threads,
            ranks: pipeline.ranks,
        })
    }

    fn sites(&self, kind: &Kind, catalog: &Catalog, pipeline: &Pipeline<'_>) -> Result<Vec<f64>, Missing> {
        match &self.source {
            Source::Table(table) => table.sites(kind, pipeline),
            Source::Recorded(recorded) => recorded.sites(kind, catalog, pipeline),
        }
    }

    fn missing(&self, Missing { pass, place }: Missing) -> CostError {
        CostError::MissingPass { pass, place, text: self.text.clone(), at: self.at() }
    }

    /// Where the text begins to say something.
    fn at(&self) -> SourceSpan {
        match &self.source {
            Source::Table(table) => table.at(),
            Source::Recorded(_) => (0, 1).into(),
        }
    }

    /// Refuses a model whose products have another form: how fast they are cannot be told from the number of operations.
    fn refuse_other(&self, recorded: &Recorded, pipeline: &Pipeline<'_>) -> Result<(), CostError> {
        let (was, is) = (recorded.model(), pipeline.model);
        let same = [
            ("hidden", was.hidden, is.hidden),
            ("heads", was.heads, is.heads),
            ("seq", was.sequence, is.sequence),
        ];
        let Some(&(what, measured, asked)) = same.iter().find(|(_, was, is)| was != is) else {
            return Ok(());
        };
        let text = self.text.clone();
        Err(CostError::OtherModel { what, measured, asked, text, at: self.at() })
    }
}
