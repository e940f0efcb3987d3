//! Published figures, as `docs/` holds them.

const SCHEDULES: &str = include_str!("../../../docs/published.csv");
const VOCABULARY: &str = include_str!("../../../docs/published-vocabulary.csv");

/// What a published generator reaches.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Published {
    pub(crate) makespan: f64,
    /// Where it is known.
    pub(crate) peak: Option<f64>,
}

/// The published figures of a row that begins with these cells; what was measured goes before a closed form.
fn find(table: &str, key: &[&str]) -> Option<Published> {
    let rows = table.lines().skip(1).map(|line| line.split(',').collect::<Vec<_>>());
    let mut rows: Vec<Vec<&str>> = rows.filter(|cells| cells.starts_with(key)).collect();
    rows.sort_by_key(|cells| cells.last() == Some(&"closed form"));
    let cells = rows.first()?;
    let figure = |at: usize| cells.get(at).and_then(|cell| cell.parse().ok());
    Some(Published { makespan: figure(key.len())?, peak: figure(key.len() + 1) })
}

/// Of a schedule under `f/b/w/c`.
pub(crate) fn schedule(label: &str, (p, m): (u32, u32), cost: &str) -> Option<Published> {
    find(SCHEDULES, &[label, &p.to_string(), &m.to_string(), cost])
}

/// Of a schedule with a transform; `latency`: whether messages and collectives take time.
pub(crate) fn vocabulary(label: &str, with: &str, (p, m): (u32, u32), latency: bool) -> Option<Published> {
    let cost = if latency { "latency" } else { "free" };
    find(VOCABULARY, &[label, with, &p.to_string(), &m.to_string(), cost])
}
