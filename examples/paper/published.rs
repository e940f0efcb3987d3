//! The figures of the paper that are at hand.

use super::predict::Cell;
use super::settings::{Case, VOCABULARIES};

/// `published.csv`: a line for each setting and method.
const TEXT: &str = include_str!("published.csv");

/// The published figures of a case; `None` where they are not at hand.
pub(crate) fn published(case: &Case) -> Option<Cell> {
    let column = VOCABULARIES.iter().position(|&vocab| vocab == case.vocab)?;
    let names = [
        case.setting.table.to_string(),
        case.setting.ranks.to_string(),
        case.sequence.to_string(),
        case.method.name().to_owned(),
    ];
    let lines = TEXT.lines().map(|line| line.split(',').collect::<Vec<_>>());
    let line = lines.into_iter().find(|line| line[..4] == names)?;
    let number = |at: usize| line[at].parse().expect("a figure is a number");
    Some(Cell { mfu: number(4 + column), gb: number(8 + column) })
}
