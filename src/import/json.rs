//! The JSON form of a plan -> Plan.

use serde::Deserialize;

use super::Problem;
use crate::emit::json::{JsonInstr, JsonPlan, JsonRank, VERSION};
use crate::ir::{Buffer, Instr, Plan, RankPlan};

/// Only the version: it is looked at before the rest, which another version may spell differently.
#[derive(Deserialize)]
struct Versioned {
    version: serde_json::Value,
}

/// Reads the JSON form.
///
/// # Errors
/// The one problem at which the reader stopped.
pub fn parse(text: &str) -> Result<Plan, Vec<Problem>> {
    let malformed = |error: &serde_json::Error| vec![malformed(text, error)];
    let versioned: Versioned = serde_json::from_str(text).map_err(|error| malformed(&error))?;
    if versioned.version != VERSION {
        let at = text.find("\"version\"").unwrap_or(0);
        let length = "\"version\"".len().min(text.len() - at);
        return Err(vec![Problem::UnsupportedVersion {
            found: super::words::clip(&versioned.version.to_string()),
            at: (at, length).into(),
        }]);
    }
    let plan: JsonPlan = serde_json::from_str(text).map_err(|error| malformed(&error))?;
    let ranks = plan.ranks.into_iter().map(rank).collect::<Option<_>>();
    let ranks = ranks.ok_or_else(|| vec![Problem::TooManyOperands { at: (0, 1).into() }])?;
    Ok(Plan { header: plan.header, ranks })
}

/// `None` where an instruction has more operands than a plan can hold.
fn rank(rank: JsonRank<'_>) -> Option<RankPlan> {
    let buffers = rank.buffers.into_iter().map(|buffer| Buffer {
        class: buffer.class,
        shape: buffer.shape.into_owned(),
        place: buffer.place,
    });
    let mut plan = RankPlan {
        peak: rank.peak.into_owned(),
        buffers: buffers.collect(),
        lanes: rank.lanes.into_owned(),
        instrs: Vec::with_capacity(rank.instructions.len()),
        pool: Vec::new(),
    };
    for instr in &rank.instructions {
        push(&mut plan, instr)?;
    }
    Some(plan)
}

fn push(plan: &mut RankPlan, instr: &JsonInstr<'_>) -> Option<()> {
    let start = u32::try_from(plan.pool.len()).ok()?;
    let mut counts = [0; 4];
    for (count, list) in counts.iter_mut().zip([&instr.reads, &instr.writes, &instr.frees, &instr.waits]) {
        *count = u16::try_from(list.len()).ok()?;
        plan.pool.extend_from_slice(list);
    }
    plan.instrs.push(Instr { op: instr.op, lane: instr.lane, start, counts, overlaps: instr.overlaps });
    Some(())
}

/// Turns the reader's line and column into a label, and its message into one without them.
fn malformed(text: &str, error: &serde_json::Error) -> Problem {
    let line_start =
        text.split_inclusive('\n').take(error.line().saturating_sub(1)).map(str::len).sum::<usize>();
    let at = text.floor_char_boundary((line_start + error.column().saturating_sub(1)).min(text.len()));
    let message = error.to_string();
    let message = message.split(" at line ").next().unwrap_or_default();
    let length = text[at..].chars().next().map_or(0, char::len_utf8);
    Problem::MalformedJson { message: super::words::clip(message), at: (at, length).into() }
}
