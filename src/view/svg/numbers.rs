//! Numbers and names as SVG has them.

#![allow(clippy::cast_precision_loss, reason = "hundredths of a pixel")]

/// Hundredths as a number.
pub(super) fn hundredths(value: i64) -> String {
    short(value as f64 / 100.0)
}

/// A number with at most two decimals and no needless characters.
pub(super) fn short(value: f64) -> String {
    let text = format!("{value:.2}");
    let text = text.trim_end_matches('0').trim_end_matches('.');
    match text.strip_prefix("0.") {
        Some(rest) => format!(".{rest}"),
        None if text == "-0" => "0".to_owned(),
        None => text.to_owned(),
    }
}

/// With one decimal.
pub(super) fn tenth(value: f64) -> String {
    short((value * 10.0).round() / 10.0)
}

/// Text for an element or an attribute. What XML forbids is left out.
pub(in crate::view) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            _ if character.is_control() => {}
            _ => escaped.push(character),
        }
    }
    escaped
}
