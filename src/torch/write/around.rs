//! A rank's passes and messages -> its whole row: waits, reductions, gathering.

use super::super::action::Op;
use super::{Cell, Word};
use crate::ir::{Header, Rank};

/// What has been written of a row, and what is still owed.
struct Row<'plan> {
    header: &'plan Header,
    rank: Rank,
    cells: Vec<Cell>,
    /// The rank's stages, ascending, each with the passes that still add to its gradients.
    left: Vec<(u32, u32)>,
    /// Stages whose gradients are complete.
    complete: Vec<u32>,
    /// The stage whose reduction is pending.
    pending: Option<u32>,
    /// Waits for the end of the row.
    tail: Vec<Cell>,
}

/// Puts around a rank's passes and messages what the runtime does beside them.
pub(super) fn around(header: &Header, rank: Rank, cells: Vec<Cell>) -> Vec<Cell> {
    let stages = header.stages.iter().enumerate().filter(|&(_, &holder)| holder == rank);
    let left: Vec<(u32, u32)> = stages.map(|(stage, _)| (stage as u32, header.microbatches)).collect();
    let gathered = left.iter().map(|&(stage, _)| of_stage(Op::Unshard, stage)).collect();
    let (complete, tail) = (Vec::new(), Vec::new());
    let mut row = Row { header, rank, cells: gathered, left, complete, pending: None, tail };
    row.cells.reserve(cells.len() * 2);
    for cell in cells {
        row.push(cell);
    }
    row.reduce();
    row.settle();
    row.cells.append(&mut row.tail);
    row.cells
}

fn of_stage(op: Op, stage: u32) -> Cell {
    Cell::Other(Word { op, stage, microbatch: 0 })
}

impl Row<'_> {
    fn push(&mut self, cell: Cell) {
        let halves = match cell {
            Cell::Other(word) => {
                // A value that is ready leaves before its stage's gradients are reduced.
                if !matches!(word.op, Op::SendF | Op::SendB) {
                    self.reduce();
                }
                self.cells.push(cell);
                if word.op == Op::SendB {
                    self.tail.push(Cell::Other(Word { op: Op::WaitSendB, ..word }));
                }
                return;
            }
            Cell::Pass(one) => [Some(one), None],
            Cell::Pair(first, second) => [Some(first), Some(second)],
        };
        self.reduce();
        self.cells.push(cell);
        // One pass has run beside the reduction before it is waited for.
        self.settle();
        halves.into_iter().flatten().for_each(|half| self.ran(half));
    }

    /// What follows from a pass that has run.
    fn ran(&mut self, pass: Word) {
        let next = self.header.stages.get(pass.stage as usize + 1);
        if matches!(pass.op, Op::I | Op::B) && next.is_some_and(|&next| next != self.rank) {
            self.cells.push(Cell::Other(Word { op: Op::WaitSendF, ..pass }));
        }
        if !matches!(pass.op, Op::W | Op::B) {
            return;
        }
        if let Some((stage, left)) = self.left.iter_mut().find(|(stage, _)| *stage == pass.stage) {
            *left = left.saturating_sub(1);
            if *left == 0 {
                self.complete.push(*stage);
            }
        }
    }

    /// Starts reducing the gradients that are complete, one stage at a time.
    fn reduce(&mut self) {
        for stage in std::mem::take(&mut self.complete) {
            self.settle();
            self.cells.push(of_stage(Op::ReduceGrad, stage));
            self.pending = Some(stage);
        }
    }

    /// Waits for the reduction that is pending.
    fn settle(&mut self) {
        if let Some(stage) = self.pending.take() {
            self.cells.extend([of_stage(Op::WaitReduceGrad, stage), of_stage(Op::Reshard, stage)]);
        }
    }
}
