//! A sound schedule of PyTorch's -> [`Schedule`]: the same passes in the same orders, under the library's declarations.

use super::action::{Action, Op};
use super::error::Unsupported;
use super::rules::Sound;
use crate::ir::{FileId, KindId, Microbatch, Mode, Pass, Placed, Program, Rank, Schedule, Site, Span, Stage};

/// The `.sched` text whose program has the passes and the size of a file. Its order stands for no file's; [`schedule`] replaces it.
///
/// # Errors
/// Ranks hold different numbers of stages.
pub fn program_text(sound: &Sound) -> Result<String, Unsupported> {
    let mut held = vec![0_u32; sound.rows().ranks()];
    sound.stages().iter().for_each(|&rank| held[rank as usize] += 1);
    if let Some(rank) = held.iter().position(|&found| found != held[0]) {
        return Err(Unsupported::UnevenStages { rank, found: held[rank], expected: held[0] });
    }
    let (passes, order) = if splits(sound) { ("F, B, W", "F^* B^* W^*") } else { ("F, B", "F^* B^*") };
    Ok(format!("schedule \"torch\" {{\n    chunks {}\n    passes {passes}\n    order {order}\n}}\n", held[0]))
}

/// Whether weight gradients come by themselves.
fn splits(sound: &Sound) -> bool {
    sound.rows().actions.iter().any(|action| action.op == Op::I)
}

/// The file's orders. A full backward beside split ones is an input gradient and, right behind it, the weight gradient.
///
/// Requires: the program is that of [`program_text`]; `file` is the file's text.
#[must_use]
pub fn schedule(sound: &Sound, program: &Program, file: FileId) -> Schedule {
    let rows = sound.rows();
    let kind = |name| program.catalog.kind_named(name).unwrap_or_default();
    let kinds = Kinds { forward: kind("F"), backward: kind("B"), weight: splits(sound).then(|| kind("W")) };
    let mut shape = program.shape.clone();
    shape.stages = sound.stages().iter().map(|&rank| Rank(rank)).collect();
    let orders = (0..rows.ranks()).map(|rank| order(rows.positions(rank), &rows.actions, kinds)).collect();
    let origin = |action: &Action| {
        let start = u32::try_from(action.at).unwrap_or_default();
        Span { file, start, end: start + action.to_string().len() as u32 }
    };
    Schedule {
        name: stem(rows.name()),
        transforms: Vec::new(),
        mode: Mode::Training,
        shape,
        model: program.model,
        catalog: program.catalog.clone(),
        by_time: false,
        orders,
        origins: rows.actions.iter().map(origin).collect(),
    }
}

#[derive(Clone, Copy)]
struct Kinds {
    forward: KindId,
    backward: KindId,
    weight: Option<KindId>,
}

fn order(positions: std::ops::Range<usize>, actions: &[Action], kinds: Kinds) -> Vec<Placed> {
    let mut order = Vec::with_capacity(positions.len());
    // The weight gradient that a full backward brings; behind the pair where it is the first of one.
    let mut owed = None;
    for position in positions {
        let Action { op, overlaps, stage, microbatch, .. } = actions[position];
        let kind = match op {
            Op::F => kinds.forward,
            Op::I | Op::B => kinds.backward,
            Op::W => kinds.weight.unwrap_or(kinds.backward),
            _ => continue,
        };
        let placed = |kind, overlaps| Placed {
            pass: Pass { kind, site: Site::Stage(Stage(stage)), microbatch: Microbatch(microbatch) },
            origin: position as u32,
            overlaps,
        };
        order.push(placed(kind, overlaps));
        if let Some(weight) = kinds.weight.filter(|_| op == Op::B) {
            owed = Some(placed(weight, false));
        }
        if !overlaps {
            order.extend(owed.take());
        }
    }
    order
}

/// The file's name without folder and ending: what the schedule is called.
fn stem(name: &str) -> String {
    let stem = std::path::Path::new(name).file_stem().map(|stem| stem.to_string_lossy().into_owned());
    let plain = |letter: char| letter.is_ascii_alphanumeric() || "-_.+".contains(letter);
    let name: String = stem.unwrap_or_default().chars().filter(|&letter| plain(letter)).take(60).collect();
    if name.is_empty() { "torch".to_owned() } else { name }
}
