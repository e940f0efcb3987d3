//! `schedc explain`: the page of a diagnostic's code, from `docs/errors/`.

use std::fmt::Write as _;

use miette::Diagnostic;
use thiserror::Error;

use super::{Failure, print};

macro_rules! pages {
    ($($room:literal),* $(,)?) => {
        /// The room's name and its page: a heading for each code, and under it what the code means.
        const PAGES: &[(&str, &str)] =
            &[$(($room, include_str!(concat!("../../docs/errors/", $room, ".md")))),*];
    };
}

pages![
    "syntax",
    "resolve",
    "cost",
    "order",
    "transform",
    "forward",
    "lower",
    "verify",
    "import",
    "torch",
    "simulate",
    "view",
    "execute",
    "launch",
    "cuda",
    "driver",
    "cli"
];

/// What begins every code.
const PREFIX: &str = "schedc::";

/// A code that can't be explained.
#[derive(Debug, Error, Diagnostic)]
enum ExplainError {
    /// Nothing has this code.
    #[error("no diagnostic has the code `{code}`")]
    #[diagnostic(code(schedc::cli::unknown_code), help("{help}"))]
    UnknownCode {
        /// As written.
        code: String,
        /// The nearest code, or where all are.
        help: String,
    },
}

/// One code: its room, its name, what it means.
#[derive(Clone, Copy, Debug)]
struct Entry {
    room: &'static str,
    name: &'static str,
    text: &'static str,
}

impl Entry {
    fn code(self) -> String {
        format!("{PREFIX}{}::{}", self.room, self.name)
    }
}

fn entries() -> impl Iterator<Item = Entry> {
    PAGES.iter().flat_map(|&(room, page)| {
        page.split("\n## ").skip(1).map(move |section| {
            let (name, text) = section.split_once('\n').unwrap_or((section, ""));
            Entry { room, name: name.trim(), text: text.trim() }
        })
    })
}

/// Prints what a code means; all codes where none is named.
pub(crate) fn explain(code: Option<&str>) -> Result<(), Failure> {
    let Some(code) = code else {
        print(&list());
        return Ok(());
    };
    let words = code.strip_prefix(PREFIX).unwrap_or(code);
    let found: Vec<Entry> = entries()
        .filter(|entry| entry.name == words || words.split_once("::") == Some((entry.room, entry.name)))
        .collect();
    if found.is_empty() {
        return Err(Failure::usage(unknown(code)));
    }
    let pages: Vec<String> =
        found.iter().map(|entry| format!("{}\n\n{}\n", entry.code(), entry.text)).collect();
    print(&pages.join("\n"));
    Ok(())
}

/// Every code with the first sentence of its text.
fn list() -> String {
    let mut text = String::new();
    for entry in entries() {
        let line = entry.text.lines().next().unwrap_or_default();
        let first = line.split_inclusive(". ").next().unwrap_or_default().trim();
        let _ = writeln!(text, "{:<42} {first}", entry.code());
    }
    text
}

fn unknown(code: &str) -> ExplainError {
    let codes: Vec<String> = entries().map(Entry::code).collect();
    let short: String = code.chars().take(80).collect();
    let nearest = schedc::diag::nearest(&short, codes.iter().map(String::as_str));
    let help = nearest
        .map_or("`schedc explain` lists all codes".to_owned(), |near| format!("did you mean `{near}`?"));
    ExplainError::UnknownCode { code: short, help }
}
