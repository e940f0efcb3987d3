//! Ranks that slow each other down: what runs when follows from how long passes take, and how long they take from what runs at a time.
//!
//! So the plan is run again with what the passes take in the run before, until its end does not move any more.

use super::queues::Queues;
use super::run::run;
use super::timeline::Moments;
use crate::cost::{Costs, Load};
use crate::ir::{Lane, Op, Plan, RankPlan, Ticks};

/// Runs at most.
const ROUNDS: usize = 30;
/// Where the end moves by less than this part of the whole it has settled.
const SETTLED: f64 = 1e-4;

/// The run in which passes take what they do beside each other.
pub(super) fn settle(plan: &Plan, costs: &Costs, queues: &Queues, alone: Moments) -> Moments {
    let contention = costs.contention();
    if contention <= 0.0 || plan.ranks.len() < 2 {
        return alone;
    }
    let mut moments = alone;
    let mut slowness = vec![1.0; moments.ends.len()];
    let mut end = last(&moments);
    for _ in 0..ROUNDS {
        let durations = slow(plan, costs, queues, &moments, &mut slowness);
        moments = run(plan, costs, queues, Some(&durations));
        let moved = (last(&moments) - end).abs();
        end = last(&moments);
        if moved <= SETTLED * end {
            break;
        }
    }
    moments
}

fn last(moments: &Moments) -> f64 {
    moment(moments.ends.iter().max().copied().unwrap_or_default())
}

#[allow(clippy::cast_precision_loss, reason = "a duration needs no more than 52 bits")]
fn moment(ticks: Ticks) -> f64 {
    ticks.0 as f64
}

/// What each pass takes beside what ran at its time. `slowness`: by how much longer that is than alone; goes half of the way, so that two passes do
/// not make way for each other by turns.
#[allow(clippy::cast_sign_loss, reason = "durations are not negative")]
fn slow(plan: &Plan, costs: &Costs, queues: &Queues, moments: &Moments, slowness: &mut [f64]) -> Vec<Ticks> {
    let between = |at: usize| (moment(moments.starts[at]), moment(moments.ends[at]));
    let ranks = || plan.ranks.iter().zip(&queues.bases);
    let busy = ranks().flat_map(|(rank, &base)| works(rank).map(move |at| between(base + at)));
    let load = Load::of(busy, plan.ranks.len() as u32);
    let progress = load.progress(costs.contention());
    let mut durations = vec![Ticks(0); slowness.len()];
    for (rank, &base) in ranks() {
        for (instr, at) in rank.instrs.iter().zip(base..) {
            let Op::Pass(pass) = instr.op else { continue };
            let alone = costs.pass(pass);
            let (from, to) = between(at);
            let done = progress.between(from, to);
            if rank.lane(instr) == Lane::Compute && done > 0.0 {
                slowness[at] = f64::midpoint(slowness[at], (to - from) / done);
            }
            durations[at] = Ticks((moment(alone) * slowness[at]).round() as u64);
        }
    }
    durations
}

/// The instructions that keep a rank's compute lane at work. Two that overlap are there as one.
fn works(rank: &RankPlan) -> impl Iterator<Item = usize> {
    let mut second = false;
    let works = move |&at: &usize| {
        let instr = &rank.instrs[at];
        if !matches!(instr.op, Op::Pass(_) | Op::Step) || rank.lane(instr) != Lane::Compute {
            return false;
        }
        !std::mem::replace(&mut second, instr.overlaps)
    };
    (0..rank.instrs.len()).filter(works)
}
