//! Cases with their predictions -> `docs/paper.md`.

use std::fmt::Write as _;

use schedc::cost::Rates;

use super::fit;
use super::predict::Cell;
use super::published::published;
use super::settings::{Case, MICROBATCHES, SEQUENCES, SETTINGS, VOCABULARIES};

/// What stands above and below the tables.
const INTRODUCTION: &str = include_str!("introduction.md");
const DISCUSSION: &str = include_str!("discussion.md");

/// Published figures that differ by less than this part are taken for equal.
const EQUAL: f64 = 0.02;

/// The whole page.
pub(crate) fn page(rates: &Rates, cells: &[(Case, Cell)]) -> String {
    let mut text = INTRODUCTION.to_owned();
    text += "\n## Constants\n\n| constant | value |\n| --- | --- |\n";
    for (name, value) in fit::values(rates) {
        let value = match name {
            "reserved" => format!("{:.2} GiB", value / f64::from(1 << 30)),
            "between.bandwidth" => format!("{:.1} GB/s", value / 1e9),
            _ => format!("{value:.3}"),
        };
        let _ = writeln!(text, "| `{name}` | {value} |");
    }
    text += "\n## How near\n\n";
    text += &measures(cells);
    for setting in SETTINGS {
        for sequence in SEQUENCES {
            let schedule = if setting.table == 5 { "1F1B" } else { "V-Half" };
            let _ = writeln!(
                text,
                "\n## Table {}: {schedule}, {} devices, sequence {sequence}\n\n{} layers, {} heads, hidden {}, {MICROBATCHES} microbatches of \
                 one sequence. Each cell: predicted, then published and by how much the prediction is off, where published.\n",
                setting.table, setting.ranks, setting.layers, setting.heads, setting.hidden
            );
            let rows: Vec<_> = cells
                .iter()
                .filter(|(case, _)| case.setting == setting && case.sequence == sequence)
                .collect();
            text += &table("MFU %", &rows, |cell| cell.mfu);
            text.push('\n');
            text += &table("peak GB", &rows, |cell| cell.gb);
        }
    }
    text.push('\n');
    text + DISCUSSION
}

fn table(what: &str, rows: &[&(Case, Cell)], of: impl Fn(&Cell) -> f64) -> String {
    let mut text = format!("| {what} | 32k | 64k | 128k | 256k |\n| --- | --- | --- | --- | --- |\n");
    for line in rows.chunks(VOCABULARIES.len()) {
        let cells = line.iter().map(|(case, cell)| {
            let own = of(cell);
            published(case).map_or_else(
                || format!("{own:.2}"),
                |known| format!("{own:.2} / {:.2} ({:+.1} %)", of(&known), 100.0 * (own / of(&known) - 1.0)),
            )
        });
        let _ = writeln!(text, "| {} | {} |", line[0].0.method.name(), cells.collect::<Vec<_>>().join(" | "));
    }
    text
}

/// A figure by its name.
type Figure = (&'static str, fn(&Cell) -> f64);

/// Median and worst error, and whether the methods are in their order.
fn measures(cells: &[(Case, Cell)]) -> String {
    let mut text = "| | rows | median error | worst error | pairs of methods in the published order |\n\
                    | --- | --- | --- | --- | --- |\n"
        .to_owned();
    let kinds: [Figure; 2] = [("MFU", |cell| cell.mfu), ("peak GB", |cell| cell.gb)];
    let mut wrong = Vec::new();
    for (name, of) in kinds {
        let mut errors: Vec<f64> = cells
            .iter()
            .filter_map(|(case, cell)| Some((of(cell) / of(&published(case)?) - 1.0).abs()))
            .collect();
        errors.sort_by(f64::total_cmp);
        let (right, all) = order(cells, name, of, &mut wrong);
        let median = f64::midpoint(errors[(errors.len() - 1) / 2], errors[errors.len() / 2]);
        let worst = errors.last().copied().unwrap_or_default();
        let _ = writeln!(
            text,
            "| {name} | {} | {:.2} % | {:.2} % | {right} of {all} |",
            errors.len(),
            100.0 * median,
            100.0 * worst
        );
    }
    if !wrong.is_empty() {
        let _ = writeln!(text, "\nIn another order than published: {}.", wrong.join("; "));
    }
    text
}

/// Pairs of methods in the order of the published figures, where these differ, of all such pairs; those that are not.
fn order(
    cells: &[(Case, Cell)],
    name: &str,
    of: fn(&Cell) -> f64,
    wrong: &mut Vec<String>,
) -> (usize, usize) {
    let (mut right, mut all) = (0, 0);
    for (at, (case, cell)) in cells.iter().enumerate() {
        for (other, theirs) in &cells[at + 1..] {
            let same =
                case.setting == other.setting && case.sequence == other.sequence && case.vocab == other.vocab;
            let (true, Some(one), Some(two)) = (same, published(case), published(other)) else { continue };
            let ratio = of(&one) / of(&two);
            if (ratio - 1.0).abs() <= EQUAL {
                continue;
            }
            all += 1;
            if (ratio > 1.0) == (of(cell) > of(theirs)) {
                right += 1;
            } else {
                let (one, two) = (case.method.name(), other.method.name());
                wrong.push(format!(
                    "{name} of {one} and {two}, {} devices, {}k",
                    case.setting.ranks,
                    case.vocab / 1000
                ));
            }
        }
    }
    (right, all)
}
