//! The library at every size -> a page of tables; `tests/it/tables.rs` holds its rows against a new computation.

pub(crate) mod grid;
pub(crate) mod latency;
pub(crate) mod measure;
pub(crate) mod published;
pub(crate) mod speed;
pub(crate) mod vocabulary;

/// The ranks of the tables.
pub(crate) const RANKS: [u32; 4] = [4, 8, 16, 32];

/// Microbatches for each rank.
pub(crate) const PER_RANK: [u32; 4] = [1, 2, 4, 8];

const HEAD: &str = "\
# The schedules, measured

Made by `cargo run --release --example tables > docs/schedules.md`. Every plan is compiled, proven and simulated; nothing of it is typed in
but the published figures, which are data of their own: [published.csv](published.csv) and
[published-vocabulary.csv](published-vocabulary.csv).

Published figures come from the generators that go with the papers (sail-sg zero-bubble at 39f2c186 and its v-half-vocab branch), run
as they are and simulated: each rank in order, messages beside the passes. `closed form` there marks what was
computed from the excess over m(f+b+w) that these generators reach, or that a paper states, at unit costs.

Costs are f/b/w/c: forward, input gradient, weight gradient of a rank's whole share of the model, and the latency of a message. `makespan` is
from the first pass of any rank to the last, `bubble` 1 − busy / makespan, `peak` the most activations on a rank, in microbatches of
its share of the model.
";

/// The whole page.
pub(crate) fn page(ranks: &[u32]) -> String {
    let entries = measure::entries();
    let mut page = HEAD.to_owned();
    page += &grid::section(&entries, ranks);
    page += &vocabulary::section(&entries, ranks);
    page += &latency::section(&entries, ranks);
    page += &speed::section(&entries);
    page
}
