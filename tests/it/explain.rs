//! `schedc explain`: every code has its page, and every page its code.

use std::collections::BTreeSet;
use std::path::Path;

use crate::cli::schedc;
use crate::ui::codes;

/// The headings of `docs/errors/`, as codes without `schedc::`, with their text.
fn pages() -> Vec<(String, String)> {
    let mut pages = Vec::new();
    for file in std::fs::read_dir("docs/errors").unwrap().map(|entry| entry.unwrap().path()) {
        let room = file.file_stem().unwrap().to_string_lossy().into_owned();
        let text = std::fs::read_to_string(&file).unwrap();
        for section in text.split("\n## ").skip(1) {
            let (name, text) = section.split_once('\n').unwrap();
            pages.push((format!("{room}::{name}"), text.trim().to_owned()));
        }
    }
    pages.sort();
    pages
}

#[test]
fn every_code_is_explained_once_and_every_explanation_has_a_code() {
    let mut found = BTreeSet::new();
    codes(Path::new("src"), &mut found);
    let pages = pages();
    let explained: Vec<&String> = pages.iter().map(|(code, _)| code).collect();
    let distinct: BTreeSet<String> = explained.iter().map(|&code| code.clone()).collect();
    let missing: Vec<_> = found.difference(&distinct).collect();
    assert!(missing.is_empty(), "no `## <code>` in docs/errors/<room>.md for {missing:?}");
    let stale: Vec<_> = distinct.difference(&found).collect();
    assert!(stale.is_empty(), "no diagnostic has the code of {stale:?}");
    assert_eq!(explained.len(), distinct.len(), "a code is explained twice");
}

#[test]
fn an_explanation_says_what_and_what_to_do() {
    for (code, text) in pages() {
        assert!(text.matches(['.', '?']).count() >= 2 && text.len() > 60, "{code} is explained by `{text}`");
    }
}

#[test]
fn the_command_prints_the_page_of_a_code() {
    let folder = tempfile::tempdir().unwrap();
    let said = |words: &str| {
        let done = schedc(folder.path(), words);
        assert_eq!(done.code, 0, "{}", done.err);
        done.out
    };
    let whole = said("explain schedc::torch::receive_order");
    assert!(whole.starts_with("schedc::torch::receive_order\n\n") && whole.contains("no tags"), "{whole}");
    assert_eq!(said("explain torch::receive_order"), whole);
    assert_eq!(said("explain receive_order"), whole);
    let both = said("explain deadlock");
    assert!(
        ["order", "torch", "verify"].iter().all(|room| both.contains(&format!("schedc::{room}::deadlock\n")))
    );
    assert_eq!(said("explain").lines().count(), pages().len());
    schedc(folder.path(), "explain torch::recieve_order")
        .refused(2, &["schedc::cli::unknown_code", "did you mean `schedc::torch::receive_order`?"]);
    assert!(pages().iter().any(|(code, _)| format!("schedc::{code}") == "schedc::cli::unknown_code"));
}
