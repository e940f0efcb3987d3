//! Plan -> PyTorch's CSV, in either form. What the target has no word for is refused, never dropped.
//!
//! A plan's lists are shares of one line of events, so their passes, sends and receives taken one after the other are safe even where every
//! message had to be handed over in person; the cells keep that order. Where nothing else is said the waits stand as late as they may: that
//! for an activation behind the backward that it comes back in, those for gradients at the end of the row.

mod around;

use std::fmt::Write as _;

use super::action::{Form, Op};
use super::error::{TorchError, Unsupported};
use super::{Channel, check, read};
use crate::ir::{
    Catalog, Compute, Header, Instr, Mode, Op as Instruction, Pass, Payload, Rank, RankPlan, Relation, Site,
    Source, Stage,
};
use crate::verify::Verified;

/// The version that a file is written for; they read different actions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Target {
    /// With `WAIT_SEND` and `REDUCE_GRAD`.
    #[default]
    Torch2_15,
}

/// Why a plan is not written.
#[derive(Debug)]
pub enum WriteError {
    /// The target has no words for it.
    Unsupported(Vec<Unsupported>),
    /// The target would not run it: what the file would be, and what is wrong with it.
    Unsound(Box<TorchError>),
}

/// The plan's orders as a CSV file, checked by the rules of this room.
///
/// # Errors
/// The target can't express the plan, or its rules forbid it.
pub fn write(plan: &Verified, target: Target, form: Form) -> Result<String, WriteError> {
    let Target::Torch2_15 = target;
    let words = words(plan).map_err(WriteError::Unsupported)?;
    let mut text = String::new();
    for (rank, list) in plan.ranks.iter().enumerate() {
        let cells = cells(list, &words);
        match form {
            Form::Compute => {
                let passes = cells.iter().filter(|cell| matches!(cell, Cell::Pass(_) | Cell::Pair(..)));
                row(&mut text, passes);
            }
            Form::Comms => row(&mut text, around::around(&plan.header, Rank::new(rank), cells).iter()),
        }
    }
    let name = format!("{}.csv", plan.header.name);
    let sound = read(&name, text.as_bytes()).and_then(|rows| check(rows, Channel::Rendezvous, None));
    sound.map(|_| text).map_err(WriteError::Unsound)
}

/// An action, as it is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Word {
    op: Op,
    stage: u32,
    microbatch: u32,
}

/// A cell of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cell {
    Pass(Word),
    Pair(Word, Word),
    Other(Word),
}

fn row<'a>(text: &mut String, cells: impl Iterator<Item = &'a Cell>) {
    for (position, cell) in cells.enumerate() {
        if position > 0 {
            text.push(',');
        }
        match cell {
            Cell::Pass(one) | Cell::Other(one) => word(text, *one),
            Cell::Pair(first, second) => {
                text.push('(');
                word(text, *first);
                text.push(';');
                word(text, *second);
                text.push_str(")OVERLAP_F_B");
            }
        }
    }
    text.push('\n');
}

fn word(text: &mut String, Word { op, stage, microbatch }: Word) {
    // A string takes all text.
    let _ = write!(text, "{stage}{op}");
    if op.of_microbatch() {
        let _ = write!(text, "{microbatch}");
    }
}

/// The target's word for each kind, by [`KindId`]; or all that it has no word for.
fn words(plan: &Verified) -> Result<Vec<Op>, Vec<Unsupported>> {
    let Header { name, transforms, catalog, .. } = &plan.header;
    let mut reasons = Vec::new();
    let words: Vec<Option<Op>> = catalog.kinds.iter().map(|kind| of_compute(kind.computes?)).collect();
    let missing = catalog.kinds.iter().zip(&words).filter(|(_, word)| word.is_none());
    let missing: Vec<String> = missing.map(|(kind, _)| format!("`{}`", kind.name)).collect();
    if missing.is_empty() {
        reasons.extend(needs(catalog, &words));
    } else {
        let brought =
            if transforms.is_empty() { String::new() } else { format!(" of {}", transforms.join(" and ")) };
        reasons.push(Unsupported::NoSuchPass { passes: missing.join(", ") + &brought });
    }
    if plan.header.flows > 1 {
        reasons.push(Unsupported::TwoCopies { schedule: name.clone() });
    }
    if plan.header.slices > 1 {
        reasons.push(Unsupported::Sliced { schedule: name.clone(), slices: plan.header.slices });
    }
    if plan.header.mode == Mode::ForwardOnly {
        reasons.push(Unsupported::ForwardOnly);
    }
    let instrs = plan.ranks.iter().flat_map(|rank| &rank.instrs);
    let tied =
        |instr: &Instr| matches!(instr.op, Instruction::Collective { payload: Payload::TiedGradient, .. });
    if missing.is_empty() && instrs.into_iter().any(tied) {
        reasons.push(Unsupported::NoCollective { collective: "the sum of a tied embedding's two gradients" });
    }
    if reasons.is_empty() { Ok(words.into_iter().flatten().collect()) } else { Err(reasons) }
}

fn of_compute(compute: Compute) -> Option<Op> {
    match compute {
        Compute::StageForward => Some(Op::F),
        Compute::StageBackward => Some(Op::B),
        Compute::StageInputGrad => Some(Op::I),
        Compute::StageWeightGrad => Some(Op::W),
        _ => None,
    }
}

/// Needs other than those that the runtime meets by itself.
fn needs(catalog: &Catalog, words: &[Option<Op>]) -> Vec<Unsupported> {
    let mut reasons = Vec::new();
    for (kind, word) in catalog.kinds.iter().zip(words) {
        for need in &kind.needs {
            let (from, met) = match need.from {
                Source::Pass { kind: from, at, .. } => {
                    let met = matches!(
                        (word, words[from.index()], at),
                        (_, _, Relation::Earlier | Relation::Later)
                            | (Some(_), Some(_), Relation::Here)
                            | (Some(Op::F), Some(Op::F), Relation::Prev)
                            | (Some(Op::I | Op::B), Some(Op::I | Op::B), Relation::Next)
                    );
                    (format!("`{}` of another stage", catalog.kind(from).name), met)
                }
                Source::Collective(id) => (format!("`{}`", catalog.collective(id).name), false),
            };
            if !met {
                reasons.push(Unsupported::NoSuchNeed { pass: kind.name.clone(), need: from });
            }
        }
    }
    reasons
}

/// A rank's passes and messages in list order, pairs in one cell.
fn cells(list: &RankPlan, words: &[Op]) -> Vec<Cell> {
    let mut cells: Vec<Cell> = Vec::with_capacity(list.instrs.len());
    // The cell of a pair whose second pass is still to come; that of a pair that has just closed.
    let (mut open, mut closed) = (None, None);
    for instr in &list.instrs {
        match instr.op {
            Instruction::Pass(pass) => {
                let Some(word) = named(pass, words) else { continue };
                if let Some(at) = open.take() {
                    if let Cell::Pass(first) = cells[at] {
                        cells[at] = Cell::Pair(first, word);
                    }
                    closed = Some(at);
                    continue;
                }
                // A weight gradient right behind the pair of its input gradient: together a full backward, as PyTorch writes it.
                if let Some(at) = closed.take()
                    && fused(&mut cells[at], word)
                {
                    continue;
                }
                open = instr.overlaps.then_some(cells.len());
                cells.push(Cell::Pass(word));
            }
            Instruction::Send { value, .. } => cells.extend(message(value.pass, words, true)),
            Instruction::Recv { value, .. } => cells.extend(message(value.pass, words, false)),
            Instruction::Collective { .. } | Instruction::Step => {}
        }
    }
    cells
}

fn named(pass: Pass, words: &[Op]) -> Option<Word> {
    let Site::Stage(Stage(stage)) = pass.site else { return None };
    Some(Word { op: words[pass.kind.index()], stage, microbatch: pass.microbatch.0 })
}

/// Makes a pair's input gradient a full backward where `word` is its weight gradient.
fn fused(cell: &mut Cell, word: Word) -> bool {
    let Cell::Pair(first, second) = cell else { return false };
    let of_it = |half: &&mut Word| {
        (half.op, half.stage, half.microbatch) == (Op::I, word.stage, word.microbatch) && word.op == Op::W
    };
    let half = [first, second].into_iter().find(of_it);
    half.map(|half| half.op = Op::B).is_some()
}

/// An end of the message with a pass's value, named for the stage on its own rank.
fn message(pass: Pass, words: &[Op], sends: bool) -> Option<Cell> {
    let Word { op, stage, microbatch } = named(pass, words)?;
    let (op, stage) = match (op, sends) {
        (Op::F, true) => (Op::SendF, stage),
        (Op::F, false) => (Op::RecvF, stage + 1),
        (_, true) => (Op::SendB, stage),
        (_, false) => (Op::RecvB, stage.saturating_sub(1)),
    };
    Some(Cell::Other(Word { op, stage, microbatch }))
}
