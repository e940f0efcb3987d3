//! When everything happened, and what that comes to.

use crate::ir::{Bytes, InstrId, Lane, LaneId, Op, Plan, Rank, Ticks};

/// When each instruction of a plan starts and ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Timeline {
    /// Where each rank's instructions begin in `starts` and `ends`, by [`Rank`], and the end of the last.
    pub(super) bases: Vec<usize>,
    /// The moment that each instruction had all it waited for on its own rank, all ranks end to end.
    pub(super) starts: Vec<Ticks>,
    /// The moment after it, all ranks end to end.
    pub(super) ends: Vec<Ticks>,
    /// Whether messages and collectives wait for the pass that their rank is in.
    pub(super) threads: bool,
    /// What each rank did, by [`Rank`].
    pub ranks: Vec<RankTime>,
    /// What was sent.
    pub messages: Messages,
}

/// What one rank did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RankTime {
    /// The start of its first pass.
    pub first: Ticks,
    /// The end of its last pass.
    pub last: Ticks,
    /// Time in passes on the compute lane.
    pub busy: Ticks,
}

/// What was sent from rank to rank, collectives apart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Messages {
    /// How many.
    pub count: u64,
    /// All together.
    pub bytes: Bytes,
}

/// Start and end of every instruction, all ranks end to end.
pub(super) struct Moments {
    pub(super) starts: Vec<Ticks>,
    pub(super) ends: Vec<Ticks>,
    /// Whether messages and collectives wait for the pass that their rank is in.
    pub(super) threads: bool,
}

impl Timeline {
    /// The moment that an instruction starts: the one before it on its lane and all that it waits for have ended. A receive or
    /// a collective may wait for other ranks from then on.
    #[must_use]
    pub fn start(&self, rank: Rank, instr: InstrId) -> Ticks {
        self.starts[self.bases[rank.index()] + instr.index()]
    }

    /// The moment that an instruction ends.
    #[must_use]
    pub fn end(&self, rank: Rank, instr: InstrId) -> Ticks {
        self.ends[self.bases[rank.index()] + instr.index()]
    }

    /// From the start of the first pass to the end of the last, over all ranks.
    #[must_use]
    pub fn makespan(&self) -> Ticks {
        let first = self.ranks.iter().map(|rank| rank.first).min().unwrap_or_default();
        let last = self.ranks.iter().map(|rank| rank.last).max().unwrap_or_default();
        Ticks(last.0 - first.0)
    }

    /// The part of the makespan in which ranks idle: `1 - busy / makespan`, with the mean of what the ranks are busy. 0 where nothing takes time.
    #[must_use]
    pub fn bubble(&self) -> f64 {
        let busy: u128 = self.ranks.iter().map(|rank| u128::from(rank.busy.0)).sum();
        idle(busy, u128::from(self.makespan().0) * self.ranks.len() as u128)
    }

    /// The bubble of the rank with the longest time from its first pass to its last: the one that the zero-bubble papers quote.
    #[must_use]
    pub fn span_bubble(&self) -> f64 {
        let longest = self.ranks.iter().max_by_key(|rank| (rank.span(), std::cmp::Reverse(rank.busy)));
        longest.map_or(0.0, |rank| idle(u128::from(rank.busy.0), u128::from(rank.span().0)))
    }
}

impl RankTime {
    /// From the start of its first pass to the end of its last.
    #[must_use]
    pub fn span(&self) -> Ticks {
        Ticks(self.last.0 - self.first.0)
    }
}

/// The part of a time that is not busy.
#[allow(clippy::cast_precision_loss, reason = "a ratio is shown with a few digits")]
fn idle(busy: u128, time: u128) -> f64 {
    if time == 0 { 0.0 } else { (time - busy) as f64 / time as f64 }
}

/// Sums up what each rank did.
pub(super) fn measure(plan: &Plan, bases: Vec<usize>, moments: Moments) -> Timeline {
    let Moments { starts, ends, threads } = moments;
    let mut messages = Messages::default();
    let mut ranks = Vec::with_capacity(plan.ranks.len());
    for (rank, &base) in plan.ranks.iter().zip(&bases) {
        let mut time: Option<RankTime> = None;
        // Two that overlap are one event: it counts with the first.
        let mut second = false;
        for (instr, at) in rank.instrs.iter().zip(base..) {
            match instr.op {
                Op::Pass(_) => {
                    let on_compute = rank.lanes[LaneId::index(instr.lane)] == Lane::Compute;
                    let (start, end) = (starts[at], ends[at]);
                    let busy = if on_compute && !second { Ticks(end.0 - start.0) } else { Ticks(0) };
                    if on_compute {
                        second = instr.overlaps;
                    }
                    time = Some(time.map_or(RankTime { first: start, last: end, busy }, |time| RankTime {
                        first: time.first.min(start),
                        last: time.last.max(end),
                        busy: time.busy + busy,
                    }));
                }
                Op::Send { .. } => {
                    let sent = rank.operands(instr).reads().map(|id| rank.buffers[id.index()].bytes().0);
                    messages.count += 1;
                    messages.bytes.0 = sent.fold(messages.bytes.0, u64::saturating_add);
                }
                Op::Recv { .. } | Op::Collective { .. } | Op::Step => {}
            }
        }
        ranks.push(time.unwrap_or_default());
    }
    Timeline { bases, starts, ends, threads, ranks, messages }
}
