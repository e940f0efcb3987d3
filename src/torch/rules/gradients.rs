//! Gradients reduced once they are complete; parameters there while a stage computes.

use super::super::action::{Action, Op};
use super::super::error::{Problem, Report};
use super::{Facts, NONE};

/// Checks reductions, and FSDP's gathering where there is any.
pub(super) fn check(facts: &Facts<'_>, report: &mut Report) {
    reduced(facts, report);
    for rank in 0..facts.rows.ranks() {
        one_at_a_time(facts, rank, report);
    }
    gathered(facts, report);
}

/// Each stage's gradients are reduced once, behind its last pass, and waited for.
fn reduced(facts: &Facts<'_>, report: &mut Report) {
    let rows = facts.rows;
    let starts = places(facts, Op::ReduceGrad, report);
    let waits = places(facts, Op::WaitReduceGrad, report);
    for stage in 0..facts.stages {
        let slots = facts.slot(stage, 0)..facts.slot(stage + 1, 0);
        let last = facts.weight[slots].iter().map(|&pass| facts.done(pass)).max().unwrap_or_default();
        let (reduce, wait) = (starts[stage], waits[stage]);
        if reduce == NONE {
            report.add(|| Problem::Unreduced { stage, last: rows.cell(last) });
        } else if reduce < last {
            report.add(|| Problem::ReducedEarly { reduce: rows.cell(reduce), last: rows.cell(last) });
        }
        if reduce != NONE && (wait == NONE || wait < reduce) {
            report.add(|| Problem::UnwaitedReduction { reduce: rows.cell(reduce), stage: stage as u32 });
        } else if reduce == NONE && wait != NONE {
            let started = format!("{stage}{}", Op::ReduceGrad);
            report.add(|| Problem::WaitForNothing { wait: rows.cell(wait), started });
        }
    }
}

/// Where an operation stands, by stage.
fn places(facts: &Facts<'_>, op: Op, report: &mut Report) -> Vec<u32> {
    let rows = facts.rows;
    let mut places = vec![NONE; facts.stages];
    for (index, action) in rows.actions.iter().enumerate().filter(|(_, action)| action.op == op) {
        let place = &mut places[action.stage as usize];
        if *place == NONE {
            *place = index as u32;
        } else {
            let first = *place;
            report.add(|| Problem::Duplicate { first: rows.cell(first), second: rows.cell(index as u32) });
        }
    }
    places
}

/// A rank has one reduction pending at most.
fn one_at_a_time(facts: &Facts<'_>, rank: usize, report: &mut Report) {
    let rows = facts.rows;
    let mut pending: Option<u32> = None;
    for position in rows.positions(rank) {
        match rows.actions[position].op {
            Op::ReduceGrad => {
                let second = position as u32;
                if let Some(first) = pending.replace(second) {
                    report.add(|| Problem::TwoReductions {
                        first: rows.cell(first),
                        second: rows.cell(second),
                    });
                }
            }
            Op::WaitReduceGrad => pending = None,
            _ => {}
        }
    }
}

/// A stage that is gathered at all is so while it computes.
fn gathered(facts: &Facts<'_>, report: &mut Report) {
    let rows = facts.rows;
    // By stage: whether it is ever gathered, whether it is now.
    let mut ever = vec![false; facts.stages];
    let of_op = |op: Op| rows.actions.iter().filter(move |action| action.op == op);
    of_op(Op::Unshard).for_each(|action| ever[action.stage as usize] = true);
    let mut now = vec![false; facts.stages];
    for (index, action) in rows.actions.iter().enumerate() {
        let Action { op, stage, .. } = *action;
        let gathered = &mut now[stage as usize];
        let state = match op {
            Op::Unshard if *gathered => "gathered already",
            Op::Reshard if !*gathered => "sharded already",
            op if op.computes() && ever[stage as usize] && !*gathered => "sharded",
            _ => {
                *gathered = (*gathered || op == Op::Unshard) && op != Op::Reshard;
                continue;
            }
        };
        report.add(|| Problem::Sharded { cell: rows.cell(index as u32), state });
    }
}
