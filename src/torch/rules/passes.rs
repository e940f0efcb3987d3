//! Every pass once, on one rank, behind what it needs there.

use super::super::Placement;
use super::super::action::{Action, Op, Rows};
use super::super::error::{Problem, Report};
use super::{Facts, NONE};

/// How many stages and microbatches there are. `None` where numbers are left out, so that tables would outgrow the file.
pub(super) fn extent(rows: &Rows, report: &mut Report) -> Option<(usize, usize)> {
    let actions = &rows.actions;
    let (highest, last) = actions.iter().enumerate().max_by_key(|(_, action)| action.stage)?;
    let stages = last.stage as usize + 1;
    let mut seen = vec![false; stages.min(actions.len() + 1)];
    for action in actions {
        if let Some(seen) = seen.get_mut(action.stage as usize) {
            *seen = true;
        }
    }
    if let Some(stage) = seen.iter().position(|seen| !seen) {
        report.add(|| Problem::MissingStage { stage, cell: rows.cell(highest as u32) });
        return None;
    }
    let microbatches = actions.iter().map(|action| action.microbatch as usize + 1).max()?;
    let forwards = actions.iter().filter(|action| action.op == Op::F).count();
    // Fewer forwards than there are to be: one is missing, and it is told before any table is made.
    if stages.checked_mul(microbatches).is_none_or(|passes| passes > forwards) {
        first_missing(rows, stages, microbatches, report);
        return None;
    }
    Some((stages, microbatches))
}

/// The first forward that is missing, in memory for the stages and the forwards of one of them.
fn first_missing(rows: &Rows, stages: usize, microbatches: usize, report: &mut Report) {
    let forwards = || rows.actions.iter().filter(|action| action.op == Op::F);
    let mut counts = vec![0_usize; stages];
    forwards().for_each(|action| counts[action.stage as usize] += 1);
    let Some(stage) = counts.iter().position(|&count| count < microbatches) else { return };
    let mut seen = vec![false; counts[stage] + 1];
    for action in forwards().filter(|action| action.stage as usize == stage) {
        if let Some(seen) = seen.get_mut(action.microbatch as usize) {
            *seen = true;
        }
    }
    let microbatch = seen.iter().position(|seen| !seen).unwrap_or(counts[stage]);
    let near = rows.actions.iter().position(|action| action.stage as usize == stage).unwrap_or_default();
    report
        .add(|| Problem::MissingPass { pass: format!("{stage}F{microbatch}"), near: rows.cell(near as u32) });
}

/// The rank of each stage; `None` where one has two.
pub(super) fn ranks(rows: &Rows, stages: usize, report: &mut Report) -> Option<Vec<u32>> {
    let mut rank_of = vec![NONE; stages];
    let before = report.count();
    for rank in 0..rows.ranks() {
        let mut told = false;
        for position in rows.positions(rank) {
            let Action { stage, .. } = rows.actions[position];
            let held = &mut rank_of[stage as usize];
            if *held == NONE {
                *held = rank as u32;
            } else if *held != rank as u32 && !told {
                told = true;
                report.add(|| {
                    let first = rows.actions.iter().position(|action| action.stage == stage);
                    Problem::StageOnTwoRanks {
                        first: rows.cell(first.unwrap_or_default() as u32),
                        second: rows.cell(position as u32),
                    }
                });
            }
        }
    }
    (report.count() == before).then_some(rank_of)
}

/// Everything that a rank's passes must keep by themselves.
pub(super) fn check(facts: &Facts<'_>, placement: Option<Placement>, report: &mut Report) {
    if let Some(placement) = placement {
        placed(facts, placement, report);
    }
    if report.is_empty() {
        complete(facts, report);
    }
    if report.is_empty() {
        ordered(facts, report);
        forwards(facts, report);
    }
}

fn placed(facts: &Facts<'_>, placement: Placement, report: &mut Report) {
    let rows = facts.rows;
    for stage in 0..facts.stages {
        let expected = placement.rank_of(stage, rows.ranks());
        if facts.rank(stage) != expected {
            let first = rows.actions.iter().position(|action| action.stage as usize == stage);
            let cell = rows.cell(first.unwrap_or_default() as u32);
            report.add(|| Problem::Misplaced { cell, placement: placement.to_string(), expected });
            return;
        }
    }
}

fn complete(facts: &Facts<'_>, report: &mut Report) {
    let rows = facts.rows;
    for stage in 0..facts.stages {
        for microbatch in 0..facts.microbatches {
            let slot = facts.slot(stage, microbatch);
            let [forward, backward, weight] =
                [&facts.forward, &facts.backward, &facts.weight].map(|table| table[slot]);
            let missing = match (forward, backward, weight) {
                (NONE, ..) => Op::F,
                (_, NONE, NONE) => Op::B,
                (_, NONE, _) => Op::I,
                (_, _, NONE) => Op::W,
                _ => continue,
            };
            let known = [forward, backward, weight].into_iter().find(|&known| known != NONE);
            let near = || {
                rows.actions.iter().position(|action| action.stage as usize == stage).unwrap_or_default()
                    as u32
            };
            report.add(|| Problem::MissingPass {
                pass: format!("{stage}{missing}{microbatch}"),
                near: rows.cell(known.unwrap_or_else(near)),
            });
        }
    }
}

/// F before I or B, I before W; between stages of one rank the producer before the consumer.
fn ordered(facts: &Facts<'_>, report: &mut Report) {
    let rows = facts.rows;
    let mut behind = |late: u32, early: u32| {
        if early < late {
            report.add(|| Problem::TooEarly { early: rows.cell(early), late: rows.cell(late) });
        }
    };
    for stage in 0..facts.stages {
        let local = stage + 1 < facts.stages && facts.rank(stage) == facts.rank(stage + 1);
        for microbatch in 0..facts.microbatches {
            let slot = facts.slot(stage, microbatch);
            behind(facts.forward[slot], facts.backward[slot]);
            behind(facts.backward[slot], facts.weight[slot]);
            if local {
                let next = slot + facts.microbatches;
                behind(facts.forward[slot], facts.forward[next]);
                behind(facts.backward[next], facts.backward[slot]);
            }
        }
    }
}

/// The last stage's forwards come by microbatch: the losses are kept in the order in which they come.
fn forwards(facts: &Facts<'_>, report: &mut Report) {
    let rows = facts.rows;
    let start = facts.slot(facts.stages - 1, 0);
    for pair in facts.forward[start..].windows(2) {
        if pair[1] < pair[0] {
            report.add(|| Problem::ForwardOrder { earlier: rows.cell(pair[1]), later: rows.cell(pair[0]) });
        }
    }
}
