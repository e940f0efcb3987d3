//! Timeline -> the critical path: instructions of which each starts as soon as the one before lets it, from the beginning to the last pass.

use super::Timeline;
use super::causes::Causes;
use crate::ir::{InstrId, Lane, Op, Plan, Rank, Ticks};
use crate::verify::Verified;

/// An instruction of the critical path with its share of the time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link {
    /// Where it runs.
    pub rank: Rank,
    /// Which it is.
    pub instr: InstrId,
    /// The end of the share of the one before; 0 for the first.
    pub from: Ticks,
    /// The moment from which the next one may run.
    pub to: Ticks,
}

/// The instructions that the makespan follows from, first to last: if all others took no time at all, it would be as long.
///
/// A message is the send and its receive, a collective the instruction of the member that came last and that of the member whose later passes
/// read its result.
#[must_use]
pub fn critical_path(plan: &Verified, timeline: &Timeline) -> Vec<(Rank, InstrId)> {
    critical_links(plan, timeline).into_iter().map(|link| (link.rank, link.instr)).collect()
}

/// The critical path with each instruction's share. The shares lie end to end, from 0 to the end of the last pass.
#[must_use]
pub fn critical_links(plan: &Verified, timeline: &Timeline) -> Vec<Link> {
    let causes = Causes::of(plan.plan(), timeline);
    walk(plan.plan(), timeline, &causes)
}

pub(super) fn walk(plan: &Plan, timeline: &Timeline, causes: &Causes<'_>) -> Vec<Link> {
    let mut links = Vec::new();
    let Some(mut at) = last_pass(plan, timeline) else { return links };
    let mut to = timeline.ends[at];
    loop {
        let (cause, from) = causes.share(at, to);
        let (rank, instr) = causes.place(at);
        links.push(Link { rank, instr, from, to });
        let Some(cause) = cause else { break };
        (at, to) = (cause.instr(), from);
    }
    links.reverse();
    links
}

/// The pass that ends last; of several, one on a compute lane, of the lowest rank.
fn last_pass(plan: &Plan, timeline: &Timeline) -> Option<usize> {
    let mut best: Option<((Ticks, bool), usize)> = None;
    for (rank, &base) in plan.ranks.iter().zip(&timeline.bases) {
        for (instr, at) in rank.instrs.iter().zip(base..) {
            if let Op::Pass(_) = instr.op {
                let key = (timeline.ends[at], rank.lane(instr) == Lane::Compute);
                if best.is_none_or(|(most, _)| key > most) {
                    best = Some((key, at));
                }
            }
        }
    }
    best.map(|(_, at)| at)
}
