//! The parser's list of expected tokens -> words that a user understands.

/// Groups of tokens that stand for one idea; the first whose tokens are all expected takes them off the list.
const IDEAS: &[(&[&str], &str)] = &[
    (
        &["schedule", "transform", "pass", "class"],
        "a declaration (`schedule`, `transform`, `pass` or `class`)",
    ),
    (
        &[
            "passes", "chunks", "slices", "place", "apply", "let", "stream", "order", "block", "greedy",
            "retime", "require",
        ],
        "an item of a schedule (`passes`, `chunks`, `slices`, `place`, `apply`, `let`, `stream`, `order`, `block`, `greedy`, `retime` or `require`)",
    ),
    (
        &["barrier", "limit", "deepen", "pass", "name"],
        "an item of a transform (`pass`, `barrier`, `limit`, `deepen` or an edge such as `B(last) needs C1.dx`)",
    ),
    (
        &["computes", "needs", "gives", "makes", "frees", "or"],
        "a clause of the pass (`computes`, `needs`, `gives`, `makes`, `frees` or `or fused into`)",
    ),
    (&["limit", "prefer"], "an item of a `greedy` (`limit` or `prefer`)"),
    (&["==", "!=", "<", "<=", ">", ">="], "a comparison"),
    (&["+", "-", "*", "/", "%"], "an operator"),
    (&["+", "-"], "`+` or `-`"),
    (&["number", "name", "chunks", "slices", "(", "-", "if"], "an expression"),
    (&["number", "name", "chunks", "slices", "("], "a number, a name or an expression in brackets"),
    (&["name", "(", "if", "for"], "a pass or a pattern in brackets"),
    (&["broadcast", "reduce", "name"], "a need such as `F(prev)`, `broadcast F(last)` or `reduce IF`"),
    (&["name", "every"], "`stage` or `every rank`"),
    (&["name"], "a name"),
    (&["number"], "a number"),
    (&["text"], "a name in quotes"),
];

/// One phrase for a list of expected tokens.
pub(super) fn in_words(expected: &[String]) -> String {
    let mut left: Vec<&str> = expected.iter().map(|token| token.trim_matches('"')).collect();
    let mut phrases: Vec<String> = Vec::new();
    for (tokens, idea) in IDEAS {
        if tokens.iter().all(|token| left.contains(token)) {
            left.retain(|token| !tokens.contains(token));
            phrases.push((*idea).to_owned());
        }
    }
    phrases.extend(left.iter().map(|token| format!("`{token}`")));
    match phrases.split_last() {
        None => "the end of the file".to_owned(),
        Some((last, [])) => last.clone(),
        Some((last, rest)) => format!("{} or {last}", rest.join(", ")),
    }
}
