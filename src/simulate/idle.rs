//! Timeline -> what each rank's idle time is made of.
//!
//! A rank idles where no pass runs on its compute lane, from the first pass of any rank to the last. Before its first pass at a stage that is
//! warm-up, after its last one cool-down. In between, every gap is followed back from the pass that ends it, as a critical path is: through the
//! messages and collectives that were under way in the gap, and the passes of other ranks in between, which are dependencies.
//!
//! A rank with less work than the busiest idles at least for the difference, whatever the order: so much is imbalance, and is taken off
//! the waiting for dependencies, then off collectives, messages, cool-down and warm-up.

use super::Timeline;
use super::causes::Causes;
use crate::ir::{At, Instr, Op, Plan, Rank, Ticks};
use crate::verify::Verified;

/// The parts of a rank's idle time; they add up to all of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Idle {
    /// Before its first pass at a stage.
    pub warm_up: Ticks,
    /// Passes of other ranks ran, on which the next one depended.
    pub dependency: Ticks,
    /// A message was under way, or queued for its link.
    pub message: Ticks,
    /// A collective was under way, or a step between two of them.
    pub collective: Ticks,
    /// The busiest rank's work beyond this rank's: no order of the passes fills it.
    pub imbalance: Ticks,
    /// After its last pass at a stage.
    pub cool_down: Ticks,
}

impl Idle {
    /// All of it.
    #[must_use]
    pub fn total(&self) -> Ticks {
        let Self { warm_up, dependency, message, collective, imbalance, cool_down } = *self;
        warm_up + dependency + message + collective + imbalance + cool_down
    }

    /// Names a part of what was found as imbalance.
    fn balance(&mut self, mut surplus: Ticks) {
        let Self { warm_up, dependency, message, collective, imbalance, cool_down } = self;
        for part in [dependency, collective, message, cool_down, warm_up] {
            let taken = surplus.0.min(part.0);
            part.0 -= taken;
            imbalance.0 += taken;
            surplus.0 -= taken;
        }
    }
}

/// What the idle time of every rank is made of, by [`Rank`].
#[must_use]
pub fn idle(plan: &Verified, timeline: &Timeline) -> Vec<Idle> {
    parts(plan.plan(), timeline, &Causes::of(plan.plan(), timeline))
}

pub(super) fn parts(plan: &Plan, timeline: &Timeline, causes: &Causes<'_>) -> Vec<Idle> {
    let begin = timeline.ranks.iter().map(|rank| rank.first).min().unwrap_or_default();
    let end = timeline.ranks.iter().map(|rank| rank.last).max().unwrap_or_default();
    let busiest = timeline.ranks.iter().map(|rank| rank.busy).max().unwrap_or_default();
    let of_rank = |rank: Rank| {
        let mut idle = Gaps { plan, timeline, causes, idle: Idle::default() }.of_rank(rank, begin, end);
        idle.balance(Ticks(busiest.0 - timeline.ranks[rank.index()].busy.0));
        idle
    };
    Rank::all(plan.ranks.len()).map(of_rank).collect()
}

/// The gaps of one rank, part by part.
struct Gaps<'a> {
    plan: &'a Plan,
    timeline: &'a Timeline,
    causes: &'a Causes<'a>,
    idle: Idle,
}

impl Gaps<'_> {
    fn of_rank(mut self, rank: Rank, begin: Ticks, end: Ticks) -> Idle {
        let base = self.timeline.bases[rank.index()];
        let (first, last) = self.at_stages(rank).unwrap_or((begin, end));
        let mut busy_until = begin;
        for (instr, at) in self.plan.ranks[rank.index()].instrs.iter().zip(base..) {
            if instr.lane.index() != 0 {
                continue;
            }
            let (start, ended) = (self.timeline.starts[at], self.timeline.ends[at]);
            // A collective on the compute lane is idle time itself.
            let (gap_end, cause) = match instr.op {
                Op::Pass(_) => (start, self.causes.of_instr(at).map(super::causes::Cause::instr)),
                Op::Collective { .. } => (ended, Some(at)),
                Op::Send { .. } | Op::Recv { .. } | Op::Step => continue,
            };
            let gap_end = gap_end.min(end);
            if gap_end > busy_until {
                let length = Ticks(gap_end.0 - busy_until.0);
                if gap_end <= first {
                    self.idle.warm_up = self.idle.warm_up + length;
                } else if busy_until >= last {
                    self.idle.cool_down = self.idle.cool_down + length;
                } else {
                    self.follow(cause, busy_until, gap_end);
                }
            }
            busy_until = busy_until.max(ended);
        }
        self.idle.cool_down.0 += end.0.saturating_sub(busy_until.0);
        self.idle
    }

    /// From the start of a rank's first pass at a stage to the end of its last.
    fn at_stages(&self, rank: Rank) -> Option<(Ticks, Ticks)> {
        let base = self.timeline.bases[rank.index()];
        let catalog = &self.plan.header.catalog;
        let instrs = self.plan.ranks[rank.index()].instrs.iter().zip(base..);
        let at_stage = |(instr, at): (&Instr, usize)| {
            matches!(instr.op, Op::Pass(pass) if catalog.kind(pass.kind).at == At::Stage).then_some(at)
        };
        let (starts, ends) = (&self.timeline.starts, &self.timeline.ends);
        instrs.filter_map(at_stage).fold(None, |range: Option<(Ticks, Ticks)>, at| {
            let (first, last) = range.unwrap_or((starts[at], ends[at]));
            Some((first.min(starts[at]), last.max(ends[at])))
        })
    }

    /// Follows a gap back from its end, to what the ranks did in it.
    fn follow(&mut self, cause: Option<usize>, from: Ticks, mut to: Ticks) {
        let mut next = cause;
        while let Some(at) = next.filter(|_| to > from) {
            let (rank, id) = self.causes.place(at);
            let instr = &self.plan.ranks[rank.index()].instrs[id.index()];
            let part = match instr.op {
                Op::Pass(_) if instr.lane.index() == 0 => &mut self.idle.dependency,
                Op::Pass(_) | Op::Collective { .. } => &mut self.idle.collective,
                Op::Send { .. } | Op::Recv { .. } => &mut self.idle.message,
                // Nothing comes after the step.
                Op::Step => break,
            };
            let (cause, began) = self.causes.share(at, to);
            let began = began.max(from);
            part.0 += to.0 - began.0;
            to = began;
            next = cause.map(super::causes::Cause::instr);
        }
        self.idle.dependency.0 += to.0 - from.0;
    }
}
