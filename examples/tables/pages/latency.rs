//! What a message costs 1F1B, and what memory hides of it.

use super::measure::{Entry, head, line, measure, number, retimed};

const COSTS: &str = "F=10,B=10,W=10,p2p=1";

const SAID: &str = "
## Latency

1F1B waits for two messages a stage in every p microbatches. `--retime N` moves passes into idle time and may hold N microbatches more on every
rank; `interval` is the time from one microbatch to the next in steady state, at F=10, B=10, W=10, p2p=1 (the makespan of 64p microbatches
less that of 32p), of which 30 are work.

N = p − 1 hides all of it, and with a fused backward nothing less does, however small c is: if no rank loses time in steady state, each holds at
least two microbatches more than the rank behind it, so that the first one holds 2p − 1, which is what `eager-1f1b` holds. Let rank r + 1 hold its most, M microbatches, from the start of some F on, which ends at t. Its next pass is a B, of one of the M, from t to t + b: another F
would make more. On rank r all M have had their F by t − f − c, and none of them has its B before t + b + c. So for f + b + 2c, rank r runs only
passes of other microbatches. One F and one B take f + b; it runs a part of two F or of two B. Of two F: neither can come to rank r + 1 before
t + b, so that neither has its B on rank r in that time, and at the start of the second rank r holds M + 2. Of two B: their F came before, as
just seen, so that at t − f − c rank r holds both and the M. This asks nothing of how orders repeat. Schedules with
a W of its own can put it there instead, which takes no memory of `act`.
";

/// The section of the page.
pub(crate) fn section(ranks: &[u32]) -> String {
    let of = |name: &str| Entry { label: name.to_owned(), name: name.to_owned(), set: Vec::new() };
    let mut table = head(&["schedule", "p", "N", "interval", "peak"]);
    for &p in ranks.iter().filter(|&&p| p <= 8) {
        for more in 0..p {
            let extra = Some(more).filter(|&more| more > 0);
            table += &row(&of("1f1b"), (p, extra));
        }
        table += &row(&of("eager-1f1b"), (p, None));
    }
    format!("{SAID}{table}")
}

fn row(entry: &Entry, (p, extra): (u32, Option<u32>)) -> String {
    let of = |m: u32| match extra {
        Some(extra) => retimed(entry, (p, m), COSTS, extra),
        None => measure(entry, &[], (p, m), COSTS),
    };
    let mut cells =
        vec![entry.label.clone(), p.to_string(), extra.map_or("–".to_owned(), |more| more.to_string())];
    match (of(32 * p), of(64 * p)) {
        (Ok(short), Ok(long)) => {
            let interval = (long.makespan - short.makespan) / f64::from(32 * p);
            cells.extend([number(interval), number(long.peak_max)]);
        }
        (Err(reason), _) | (_, Err(reason)) => cells.push(reason),
    }
    line(&cells)
}
