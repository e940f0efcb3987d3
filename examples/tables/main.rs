//! Prints `docs/schedules.md`: what every schedule of the library comes to, beside what was published.
//!
//! `cargo run --release --example tables > docs/schedules.md`; `-- --p 4,8` takes fewer ranks.

mod pages;

use std::io::{self, Write as _};
use std::process::ExitCode;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let ranks = match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => Some(pages::RANKS.to_vec()),
        ["--p", list] => list.split(',').map(|number| number.parse().ok()).collect(),
        _ => None,
    };
    let Some(ranks) = ranks else {
        let _ = writeln!(io::stderr(), "usage: tables [--p 4,8,…]");
        return ExitCode::from(2);
    };
    match io::stdout().write_all(pages::page(&ranks).as_bytes()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}
