//! How long schedules take to make, and what each rank holds.

use super::measure::{Entry, generation, head, line, number};

const SIZES: [(u32, u32); 2] = [(32, 256), (64, 1024)];

/// The section of the page.
pub(crate) fn section(entries: &[Entry]) -> String {
    let mut table = head(&[
        "schedule",
        "p",
        "m",
        "peak of each rank",
        "seconds",
        "peak of each rank with vocab-2",
        "seconds with vocab-2",
    ]);
    for entry in entries {
        for size in SIZES {
            let mut cells = vec![entry.label.clone(), size.0.to_string(), size.1.to_string()];
            for with in [&[][..], &["vocab-2".to_owned()]] {
                match generation(entry, with, size) {
                    Ok((took, peaks)) => cells.extend([runs(&peaks), format!("{:.2}", took.as_secs_f64())]),
                    Err(reason) => cells.extend([reason, "–".to_owned()]),
                }
            }
            table += &line(&cells);
        }
    }
    format!(
        "\n## Large pipelines\n\nActivations of each rank, first to last, in microbatches of its share; and the time from text to every rank's \
         order, on the two cores of the machine that made this page.\n{table}"
    )
}

/// `32, 31 … 1` for a row of even steps, `16 × 4` for one of equal numbers.
fn runs(peaks: &[f64]) -> String {
    let mut parts = Vec::new();
    let mut rest = peaks;
    while let Some((&first, tail)) = rest.split_first() {
        let step = tail.first().map_or(0.0, |second| second - first);
        let even = |pair: &&[f64]| (pair[1] - pair[0] - step).abs() < 1e-9;
        let length = 1 + rest.windows(2).take_while(even).count();
        let (run, after) = rest.split_at(length);
        match *run {
            [first, second, .., last] if length > 2 && step != 0.0 => {
                parts.push(format!("{}, {} … {}", number(first), number(second), number(last)));
            }
            [first, _, ..] if step == 0.0 => parts.push(format!("{} × {length}", number(first))),
            _ => parts.extend(run.iter().map(|&peak| number(peak))),
        }
        rest = after;
    }
    parts.join(", ")
}
