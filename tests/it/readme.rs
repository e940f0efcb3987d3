//! What the README shows is what schedc prints.

use schedc::emit::plan_text;
use schedc::ir::{Dims, Precision};

use crate::cli::schedc;
use crate::compiled::library;

#[test]
fn the_readme_shows_a_plan_as_it_is_compiled() {
    let readme = std::fs::read_to_string("README.md").unwrap();
    let section = readme.split("## How to read a plan").nth(1).unwrap();
    let shown = section.split("```").nth(1).unwrap();
    let model = Dims {
        layers: 2,
        hidden: 64,
        heads: 4,
        sequence: 64,
        batch: 1,
        vocab: 256,
        tied: false,
        precision: Precision::F32,
    };
    let plan = plan_text(&library("1f1b", Some("vocab-2"), 2, 2, model));
    let mut lines = plan.lines();
    for line in shown.lines().filter(|line| !line.is_empty() && *line != "…") {
        assert!(lines.any(|compiled| compiled == line), "not in the plan, or not in this order: {line}");
    }
}

#[test]
fn the_readme_shows_a_simulation_as_it_is_printed() {
    let readme = std::fs::read_to_string("README.md").unwrap();
    let section = readme.split("## Why it takes what it takes").nth(1).unwrap();
    let words = section.split('`').nth(1).unwrap().strip_prefix("schedc ").unwrap();
    let shown = section.split("```").nth(1).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let done = schedc(folder.path(), words);
    assert_eq!(done.out.trim(), shown.trim(), "{}", done.err);
}
