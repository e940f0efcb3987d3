//! Vocabulary parallelism on every schedule: makespan, what it holds more than without, logits in flight.

use schedc::simulate::Figures;

use super::PER_RANK;
use super::measure::{Entry, each, head, line, measure, number};
use super::published;

/// F, B, W, the vocabulary passes; messages and collectives for free.
pub(crate) const FREE: &str = "F=10,B=10,W=10,S=2,T=2,IF=.2,IB=.2,p2p=0";
/// The same with messages and collectives that take time.
pub(crate) const LATENCY: &str =
    "F=10,B=10,W=10,S=2,T=2,IF=.2,IB=.2,p2p=1,all_gather=.2,all_reduce=1,reduce=1,broadcast=1";

/// A rank's work of one microbatch.
const WORK: f64 = 30.0 + 2.0 + 2.0 + 0.2 + 0.2;
/// What the pipeline's ramp takes for each rank but one: a forward, and a backward of both gradients.
const RAMP: f64 = 30.0;

const TITLES: [&str; 12] = [
    "schedule",
    "with",
    "p",
    "m",
    "makespan, free",
    "bound",
    "published",
    "makespan, latency",
    "published",
    "peak",
    "plain + barriers",
    "logits",
];

/// Microbatches more in flight: one for each barrier between the last forward and its backward, half of p in lock step.
fn more(with: &str, p: u32) -> f64 {
    match with {
        "vocab-2" => 1.0,
        "interlaced" => f64::from(p / 2),
        _ => 2.0,
    }
}

/// One row; `None` where the schedule does not exist at this size.
pub(crate) fn row(entry: &Entry, with: &str, size: (u32, u32)) -> Option<String> {
    let (p, m) = size;
    let applied = [with.to_owned()];
    let plain = measure(entry, &[], size, FREE).ok()?;
    let mut cells = vec![entry.label.clone(), with.to_owned(), p.to_string(), m.to_string()];
    let [free, latency] = [FREE, LATENCY].map(|costs| measure(entry, &applied, size, costs));
    let (free, latency) = match (free, latency) {
        (Ok(free), Ok(latency)) => (free, latency),
        (Err(reason), _) | (_, Err(reason)) => {
            cells.push(reason);
            cells.resize(TITLES.len(), String::new());
            return Some(line(&cells));
        }
    };
    let bound = f64::from(m) * WORK + f64::from(p - 1) * RAMP;
    let over = |worse: bool| if worse { " **worse**" } else { "" };
    let beside = |ours: &Figures, latency: bool| {
        published::vocabulary(&entry.label, with, size, latency).map_or_else(
            || "–".to_owned(),
            |theirs| {
                let worse = ours.makespan > theirs.makespan + 1e-3
                    || theirs.peak.is_some_and(|peak| ours.peak_max > peak + 1e-3);
                let peak = theirs.peak.map_or_else(String::new, |peak| format!(", {}", number(peak)));
                format!("{}{peak}{}", number(theirs.makespan), over(worse))
            },
        )
    };
    let most = (plain.peak_max + more(with, p)).min(f64::from(m));
    let logits = free.held.get("logits").copied().unwrap_or_default();
    cells.push(number(free.makespan));
    cells.push(format!("{}{}", number(bound), over(free.makespan > bound + 1e-3)));
    cells.push(beside(&free, false));
    cells.push(number(latency.makespan));
    cells.push(beside(&latency, true));
    let peaks = if (free.peak_max - latency.peak_max).abs() < 1e-9 {
        number(free.peak_max)
    } else {
        format!("{}, {}", number(free.peak_max), number(latency.peak_max))
    };
    cells.push(peaks);
    cells.push(format!("{}{}", number(most), over(free.peak_max > most + 1e-3)));
    cells.push(format!("{}{}", number(logits), over(logits > 2.0)));
    Some(line(&cells))
}

/// Time from one microbatch to the next in the second half of a long step.
fn interval(entry: &Entry, with: &[String], p: u32, costs: &str) -> Option<f64> {
    let [half, whole] = [32 * p, 64 * p].map(|m| measure(entry, with, (p, m), costs).ok());
    Some((whole?.makespan - half?.makespan) / f64::from(32 * p))
}

/// The steady intervals of one schedule.
pub(crate) fn steady(entry: &Entry, p: u32) -> String {
    let mut cells = vec![entry.label.clone(), p.to_string()];
    for costs in [FREE, LATENCY] {
        for with in [None, Some("vocab-1"), Some("vocab-2")] {
            let with: Vec<String> = with.map(str::to_owned).into_iter().collect();
            let costs = if with.is_empty() { passes(costs) } else { costs.to_owned() };
            let interval = interval(entry, &with, p, &costs);
            cells.push(interval.map_or_else(|| "–".to_owned(), number));
        }
    }
    line(&cells)
}

/// The costs without those of vocabulary parallelism, which a schedule without it does not have.
fn passes(costs: &str) -> String {
    let plain = |cost: &&str| ["F=", "B=", "W=", "p2p="].iter().any(|name| cost.starts_with(name));
    costs.split(',').filter(plain).collect::<Vec<_>>().join(",")
}

/// Every row of one schedule.
fn rows(entry: &Entry, ranks: &[u32]) -> String {
    let whole = matches!(entry.label.as_str(), "1f1b" | "v-half");
    let transforms: &[&str] =
        if entry.label == "1f1b" { &["vocab-1", "vocab-2", "interlaced"] } else { &["vocab-1", "vocab-2"] };
    let per_rank: &[u32] = if whole { &PER_RANK } else { &[1, 4] };
    let sizes = || ranks.iter().flat_map(|&p| per_rank.iter().map(move |per_rank| (p, p * per_rank)));
    let of = |with: &&str| sizes().filter_map(|size| row(entry, with, size)).collect::<String>();
    transforms.iter().map(of).collect()
}

/// The section of the page.
pub(crate) fn section(entries: &[Entry], ranks: &[u32]) -> String {
    let table = head(&TITLES) + &each(entries, |entry| rows(entry, ranks)).concat();
    let mut intervals = head(&[
        "schedule",
        "p",
        "plain, free",
        "vocab-1, free",
        "vocab-2, free",
        "plain, latency",
        "vocab-1, latency",
        "vocab-2, latency",
    ]);
    let small = || ranks.iter().filter(|&&p| p <= 8);
    intervals += &each(entries, |entry| small().map(|&p| steady(entry, p)).collect::<String>()).concat();
    format!(
        "\n## Vocabulary parallelism\n\n\
         Costs: `{FREE}`; with latency `{LATENCY}`. The bound is that of 1F1B, m(f+b+w+S+T+IF+IB) + (p−1)(f+b+w): marked where a makespan \
         is above it, which a schedule with less memory may be. `plain + barriers` is the peak without the transform \
         and a microbatch for each barrier, or p/2 in lock step; where two peaks stand, the second is that under latency. `logits` are shards of the output layer in flight.\n\
         {table}\n\
         Steady interval: the makespan of 64p microbatches less that of 32p, for each microbatch. A rank's work of one microbatch is 30 without \
         and {} with vocabulary passes; what is above is bubble in steady state. Chimera has one of its own, and under latency those schedules that \
         hold too little to hide it (see below): with vocabulary passes, which run while messages are awaited, theirs are shorter, and no other is longer than 0.5 % of the work.\n{intervals}",
        number(WORK)
    )
}
