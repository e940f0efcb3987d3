//! Rebuilds tables 5 and 6 of Yeung et al. 2024 (arXiv:2411.05288) beside the published figures: `docs/paper.md`.
//!
//! `cargo run --release --example paper > docs/paper.md` predicts with the constants of `stdlib/devices/a100-80g.toml`;
//! `cargo run --release --example paper -- --fit` fits the four of them that are fitted, and prints them.
#![allow(clippy::print_stdout, reason = "the page is the program's output")]

mod fit;
mod page;
mod predict;
mod published;
mod settings;

use settings::Case;

fn main() {
    let mut rates = settings::machines();
    if std::env::args().any(|argument| argument == "--fit") {
        rates = fit::fit(rates);
        for (name, value) in fit::values(&rates) {
            println!("{name} = {value:.4}");
        }
    }
    let known = std::env::args().any(|argument| argument == "--known");
    let cases: Vec<Case> =
        Case::all().into_iter().filter(|case| !known || published::published(case).is_some()).collect();
    let cells = predict::each(&cases, |case| predict::cell(&predict::plan(case, &rates), &rates));
    let cells: Vec<_> = cases.into_iter().zip(cells).collect();
    print!("{}", page::page(&rates, &cells));
}
