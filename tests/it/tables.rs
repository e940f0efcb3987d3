//! `docs/schedules.md` names every schedule, and what it says of them is what they come to.

#[allow(
    dead_code,
    missing_docs,
    reason = "the pages are those of the example; only some of their rows are looked at here"
)]
#[path = "../../examples/tables/pages/mod.rs"]
mod pages;

use pages::{grid, measure, vocabulary};

fn page() -> String {
    std::fs::read_to_string("docs/schedules.md").unwrap()
}

const RENEW: &str = "run `cargo run --release --example tables > docs/schedules.md`";

#[test]
fn every_schedule_has_its_tables() {
    let page = page();
    for entry in measure::entries() {
        assert!(page.contains(&format!("\n### {}\n", entry.label)), "{} is missing: {RENEW}", entry.label);
    }
    for heading in page.lines().filter_map(|line| line.strip_prefix("### ")) {
        assert!(measure::entries().iter().any(|entry| entry.label == heading), "{heading} is gone: {RENEW}");
    }
}

#[test]
fn the_rows_of_four_ranks_are_current() {
    let page = page();
    for entry in measure::entries() {
        for m in [4, 16] {
            let row = grid::row(&entry, (4, m));
            assert!(page.contains(&row), "not in docs/schedules.md: {row}{RENEW}");
        }
        for with in ["vocab-1", "vocab-2"] {
            let row = vocabulary::row(&entry, with, (4, 16)).unwrap_or_default();
            assert!(page.contains(&row), "not in docs/schedules.md: {row}{RENEW}");
        }
    }
}
