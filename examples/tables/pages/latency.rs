//! What messages cost each schedule, and what memory hides of it.

use super::measure::{Entry, each, head, line, measure, number, retimed};

const COSTS: &str = "F=10,B=10,W=10,p2p=1";

const SAID: &str = "
## Latency

`interval` is the time from one microbatch to the next in steady state, at F=10, B=10, W=10, p2p=1 (the makespan of 64p microbatches less that
of 32p), of which 30 are work. `--retime N` moves passes into idle time and may hold N microbatches more on every rank; beside each interval stands the
peak, in microbatches of a rank's share of the model. An order takes no more of it than it uses.
Schedules with a W of its own can put it where a message is awaited, which takes no memory of `act`; schedules with a fused backward cannot.
";

const FUSED: &str = "
1F1B waits for two messages a stage in every p microbatches. N = p − 1 hides all of it, and with a fused backward nothing less does, however small c is: if no rank loses time in steady state, each holds at
least two microbatches more than the rank behind it, so that the first one holds 2p − 1, which is what `eager-1f1b` holds. Let rank r + 1 hold its most, M microbatches, from the start of some F on, which ends at t. Its next pass is a B, of one of the M, from t to t + b: another F
would make more. On rank r all M have had their F by t − f − c, and none of them has its B before t + b + c. So for f + b + 2c, rank r runs only
passes of other microbatches. One F and one B take f + b; it runs a part of two F or of two B. Of two F: neither can come to rank r + 1 before
t + b, so that neither has its B on rank r in that time, and at the start of the second rank r holds M + 2. Of two B: their F came before, as
just seen, so that at t − f − c rank r holds both and the M. This asks nothing of how orders repeat.
";

/// Microbatches more that are tried on every schedule.
const MORE: [Option<u32>; 4] = [None, Some(1), Some(2), Some(3)];

/// The section of the page.
pub(crate) fn section(entries: &[Entry], ranks: &[u32]) -> String {
    let small = || ranks.iter().copied().filter(|&p| p <= 8);
    let mut all = head(&["schedule", "p", "as it is", "`--retime 1`", "`--retime 2`", "`--retime 3`"]);
    all += &each(entries, |entry| small().map(|p| across(entry, p)).collect::<String>()).concat();
    let of = |name: &str| Entry { label: name.to_owned(), name: name.to_owned(), set: Vec::new() };
    let mut fused = head(&["schedule", "p", "N", "interval", "peak"]);
    for p in small() {
        for more in 0..p {
            let extra = Some(more).filter(|&more| more > 0);
            fused += &row(&of("1f1b"), (p, extra));
        }
        fused += &row(&of("eager-1f1b"), (p, None));
    }
    format!("{SAID}{all}{FUSED}{fused}")
}

/// One schedule with more and more room.
fn across(entry: &Entry, p: u32) -> String {
    let cell = |extra: Option<u32>| match steady(entry, (p, extra)) {
        Ok((interval, peak)) => format!("{}, {}", number(interval), number(peak)),
        Err(reason) => reason,
    };
    let cells = [entry.label.clone(), p.to_string()].into_iter().chain(MORE.map(cell));
    line(&cells.collect::<Vec<_>>())
}

/// The interval in steady state, and the peak.
fn steady(entry: &Entry, (p, extra): (u32, Option<u32>)) -> Result<(f64, f64), String> {
    let of = |m: u32| match extra {
        Some(extra) => retimed(entry, (p, m), COSTS, extra),
        None => measure(entry, &[], (p, m), COSTS),
    };
    let (short, long) = (of(32 * p)?, of(64 * p)?);
    Ok(((long.makespan - short.makespan) / f64::from(32 * p), long.peak_max))
}

fn row(entry: &Entry, (p, extra): (u32, Option<u32>)) -> String {
    let mut cells =
        vec![entry.label.clone(), p.to_string(), extra.map_or("–".to_owned(), |more| more.to_string())];
    match steady(entry, (p, extra)) {
        Ok((interval, peak)) => cells.extend([number(interval), number(peak)]),
        Err(reason) => cells.push(reason),
    }
    line(&cells)
}
