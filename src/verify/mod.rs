//! Plan -> Verified: the proof that a plan does what its catalog says, on the plan alone.
//!
//! Shares nothing with the rooms that made the plan but `ir`. A plan from a file is untrusted: before anything else, ids,
//! ranges and counts are checked (`structure`, `catalog`, `streams`), so that the rules below can index freely.
//!
//! The rules, one file each; every violation is reported, each with its own code:
//!
//! 1. `coverage`: every pass of every kind, site and microbatch runs exactly once, on the rank that owns its site; every
//!    collective once for each microbatch on every rank; the sum of a gradient of which several ranks hold copies (a tied
//!    embedding, the stages of two flows) where it is needed; one step, last.
//! 2. `values`: every instruction reads exactly the values and states that the catalog says, in that order, writes what it
//!    gives and makes into buffers of that class and shape, and each read is ordered after its write, each need after
//!    what it needs, along the lanes and waits of the rank. Where sequences are sliced that includes the states of
//!    earlier slices, and the order of a need of the slice before or after.
//! 3. `channels`: the k-th send from one rank to another meets the k-th receive, with the same value and size.
//! 4. `groups`: the members of a group issue the same collectives in the same order, with the op, root and number of
//!    elements that the catalog says.
//! 5. `deadlock`: the ranks can all run to their end under the chosen [`Channel`] semantics; else the shortest cycle found.
//! 6. `buffers`: no buffer is read or freed after free, overwritten while live, freed or reused before those who use it have
//!    ended, or leaked; overlapping ranges of the arena count as one.
//!    The two passes of a pair are taken to run at the same time.
//! 7. `peak`: the header's peak of bytes and of live buffers is what the lists come to, and within a limit.
//!
//! Not checked: what a pass computes and whether its declared shapes suit the model; whether a declared need is sensible;
//! time; an order without a value across ranks (a plan with one is refused); batched groups of sends and receives (they are
//! held to one FIFO, which is stricter). Collectives in lock step and those on a group's own lane are taken for two
//! communicators of the group. Which passes add to a tied
//! gradient, or to a stage's, is taken from what they compute: the backward passes of the end stages, and passes that name no computation.

mod buffers;
mod catalog;
mod channels;
mod clocks;
mod coverage;
mod cycle;
mod deadlock;
pub mod error;
mod facts;
mod groups;
mod names;
mod peak;
mod report;
mod streams;
mod structure;
mod values;

use std::ops::Deref;

pub use error::Rule;
pub use report::{Place, Refused, Violation};

use crate::ir::{Bytes, Plan, Rank};

use clocks::Clocks;
use facts::Facts;
use report::Report;

/// A plan that broke no rule. Only [`verify`] makes one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified(Plan);

impl Verified {
    /// The plan.
    #[must_use]
    pub fn plan(&self) -> &Plan {
        &self.0
    }

    /// Gives the plan back; it must be verified again to be used.
    #[must_use]
    pub fn into_plan(self) -> Plan {
        self.0
    }
}

impl Deref for Verified {
    type Target = Plan;

    fn deref(&self) -> &Plan {
        &self.0
    }
}

/// How long a send lasts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sends {
    /// Until it has met its receive.
    #[default]
    Rendezvous,
    /// Until its value is in a buffer of the channel, which holds this many; 0 is a rendezvous.
    Buffered(u32),
}

/// Which sends and receives of a rank run one after the other, in list order, beside the plan's own lanes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Fifo {
    /// Those to one peer, and those from one peer.
    PerDirection,
    /// Those to and from one peer.
    #[default]
    PerPair,
    /// All.
    PerRank,
}

/// What a transport promises; a plan that is safe on one may hang on another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Channel {
    /// How long a send lasts.
    pub sends: Sends,
    /// What runs one after the other.
    pub queue: Fifo,
}

/// Under what a plan must hold. The default is a rendezvous and one FIFO for each pair of ranks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// What the transport promises.
    pub channel: Channel,
    /// The most bytes that a rank's arena may have.
    pub memory_limit: Option<Bytes>,
}

/// Checks a plan against every rule.
///
/// # Errors
/// The plan and all that is wrong with it. Where ids, ranges or counts are wrong, only those are reported; where the ranks'
/// sends and collectives do not fit together, deadlock is not looked for.
pub fn verify(plan: Plan, options: &Options) -> Result<Verified, Box<Refused>> {
    let mut report = Report::default();
    structure::check(&plan, &mut report);
    if report.is_empty() {
        rules(&plan, options, &mut report);
    }
    if report.is_empty() { Ok(Verified(plan)) } else { Err(Box::new(report.refuse(plan))) }
}

fn rules(plan: &Plan, options: &Options, report: &mut Report) {
    let facts = Facts::of(plan);
    let placed = coverage::check(&facts, report);
    let mut clocks = Clocks::default();
    let mut values = values::Values::new(&facts, &placed);
    let mut buffers = buffers::Slots::default();
    for rank in Rank::all(plan.ranks.len()) {
        clocks.fill(&plan.ranks[rank.index()]);
        coverage::check_end(&facts, rank, &clocks, report);
        values.check(rank, &clocks, report);
        buffers.check(&facts, rank, &clocks, report);
        peak::check(&facts, rank, options.memory_limit, report);
    }
    let mut meetings = channels::Meetings::new(plan);
    let matched =
        channels::check(&facts, &mut meetings, report) & groups::check(&facts, &mut meetings, report);
    if matched {
        deadlock::check(&facts, &meetings, options.channel, report);
    }
}
