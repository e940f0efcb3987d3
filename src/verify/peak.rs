//! Rule 7: the memory that the header states is the memory that the lists come to.

use super::error::Rule;
use super::facts::Facts;
use super::report::{Place, Report};
use crate::ir::{Bytes, Place as Slot, Rank};

/// Reports a rank whose stated peak is wrong, or over the limit.
pub(super) fn check(facts: &Facts<'_>, rank: Rank, limit: Option<Bytes>, report: &mut Report) {
    let plan = &facts.plan.ranks[rank.index()];
    let mut extent = 0;
    for buffer in &plan.buffers {
        if let Slot::Arena(offset) = buffer.place {
            extent = extent.max(offset.0 + buffer.bytes().0);
        }
    }
    let stated = plan.peak.bytes;
    if stated != Bytes(extent) {
        report.add(Place::Rank(rank), || Rule::WrongPeak {
            what: "its arena".to_owned(),
            stated: stated.to_string(),
            found: Bytes(extent).to_string(),
        });
    }
    if let Some(limit) = limit.filter(|limit| extent > limit.0) {
        report.add(Place::Rank(rank), || Rule::OverLimit { needed: Bytes(extent), limit });
    }
    let counted = live(facts, rank);
    for ((class, &stated), &found) in facts.catalog.classes.iter().zip(&plan.peak.live).zip(&counted) {
        if stated != found {
            report.add(Place::Rank(rank), || Rule::WrongPeak {
                what: format!("the live buffers of class `{}`", class.name),
                stated: stated.to_string(),
                found: found.to_string(),
            });
        }
    }
}

/// The most live buffers of each class at one position of the list.
fn live(facts: &Facts<'_>, rank: Rank) -> Vec<u32> {
    let plan = &facts.plan.ranks[rank.index()];
    let mut now = vec![0_u32; facts.catalog.classes.len()];
    let mut most = now.clone();
    for instr in &plan.instrs {
        let operands = plan.operands(instr);
        for buffer in operands.writes().map(|id| &plan.buffers[id.index()]) {
            if matches!(buffer.place, Slot::Arena(_)) {
                let class = buffer.class.index();
                now[class] = now[class].saturating_add(1);
                most[class] = most[class].max(now[class]);
            }
        }
        for buffer in operands.frees().map(|id| &plan.buffers[id.index()]) {
            let class = buffer.class.index();
            now[class] = now[class].saturating_sub(1);
        }
    }
    most
}
