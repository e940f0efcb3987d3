//! The paper's tables: a part of them predicted anew, and the page that has all.

#[allow(dead_code, reason = "the example needs all of it")]
#[path = "../../examples/paper/predict.rs"]
mod predict;
#[allow(dead_code, reason = "the example needs all of it")]
#[path = "../../examples/paper/published.rs"]
mod published;
#[allow(dead_code, reason = "the example needs all of it")]
#[path = "../../examples/paper/settings.rs"]
mod settings;

use settings::{Case, Method, SETTINGS};

/// On 8 devices, where a run takes seconds: every method, at the ends of the vocabularies.
#[test]
fn predictions_are_near_the_published_figures() {
    let rates = settings::machines();
    for method in Method::ALL {
        for vocab in [32_000, 256_000] {
            let case = Case { setting: SETTINGS[0], sequence: 2048, vocab, method };
            let got = predict::cell(&predict::plan(&case, &rates), &rates);
            let wanted = published::published(&case).unwrap();
            for (what, got, wanted) in [("MFU", got.mfu, wanted.mfu), ("GB", got.gb, wanted.gb)] {
                let off = got / wanted - 1.0;
                assert!(off.abs() < 0.05, "{what} of {case:?}: {got:.2}, published {wanted}");
            }
        }
    }
}

/// Medians of at most 5 %, no cell off by more than 15 %, methods in their order.
#[test]
fn the_page_says_how_near_it_is() {
    let page = std::fs::read_to_string("docs/paper.md").unwrap();
    for figure in ["MFU", "peak GB"] {
        let line = page.lines().find(|line| line.starts_with(&format!("| {figure} | 48 |"))).unwrap();
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let percent = |at: usize| cells[at].trim_end_matches(" %").parse::<f64>().unwrap();
        assert!(percent(3) <= 5.0 && percent(4) <= 15.0, "{line}");
        let (right, all) = cells[5].split_once(" of ").unwrap();
        assert_eq!(right, all, "{line}");
    }
    let rates = settings::machines();
    for (name, value) in
        [("linear", rates.device.efficiency.linear), ("attention", rates.device.efficiency.attention)]
    {
        assert!(
            page.contains(&format!("| `efficiency.{name}` | {value:.3} |")),
            "made with other constants: {name}"
        );
    }
}
