//! The text of a TOML file -> its tables and values, each known by the place where it was written.

use std::ops::Range;

use miette::SourceSpan;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::problem::Problem;
use crate::diag::nearest;

/// A table with the keys that it may have.
pub(super) struct Table<'t> {
    entries: &'t DeTable<'t>,
    name: &'static str,
    at: SourceSpan,
}

/// What a number counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unit {
    Bytes,
    BytesPerSecond,
    FlopsPerSecond,
    /// Told in seconds.
    Time,
}

/// Prefixes of bytes, and what they mean.
const BYTES: [(&str, f64); 9] = [
    ("B", 1.0),
    ("KB", 1e3),
    ("MB", 1e6),
    ("GB", 1e9),
    ("TB", 1e12),
    ("KiB", 1024.0),
    ("MiB", 1_048_576.0),
    ("GiB", 1_073_741_824.0),
    ("TiB", 1_099_511_627_776.0),
];
const FLOPS: [(&str, f64); 4] = [("FLOP/s", 1.0), ("GFLOP/s", 1e9), ("TFLOP/s", 1e12), ("PFLOP/s", 1e15)];
const TIMES: [(&str, f64); 5] = [("s", 1.0), ("ms", 1e-3), ("us", 1e-6), ("µs", 1e-6), ("ns", 1e-9)];

impl Unit {
    fn scale(self, word: &str) -> Option<f64> {
        let find = |table: &[(&str, f64)], word: &str| {
            table.iter().find(|(name, _)| *name == word).map(|&(_, scale)| scale)
        };
        match self {
            Self::Bytes => find(&BYTES, word),
            Self::BytesPerSecond => find(&BYTES, word.strip_suffix("/s")?),
            Self::FlopsPerSecond => find(&FLOPS, word),
            Self::Time => find(&TIMES, word),
        }
    }

    fn example(self) -> &'static str {
        match self {
            Self::Bytes => "\"80 GiB\"",
            Self::BytesPerSecond => "\"300 GB/s\"",
            Self::FlopsPerSecond => "\"312 TFLOP/s\"",
            Self::Time => "\"5 us\"",
        }
    }
}

fn span(range: Range<usize>) -> SourceSpan {
    range.into()
}

/// Reads a text as one table.
pub(super) fn parse(text: &str) -> Result<Spanned<DeTable<'_>>, Problem> {
    DeTable::parse(text).map_err(|error| {
        let at = span(error.span().unwrap_or(0..0));
        Problem::NotToml { reason: error.message().trim().replace('\n', ", "), at }
    })
}

impl<'t> Table<'t> {
    /// The whole file; `name` is what errors call it. Any other key than `keys` is refused.
    pub(super) fn root(
        table: &'t Spanned<DeTable<'t>>,
        name: &'static str,
        keys: &[&'static str],
    ) -> Result<Self, Problem> {
        Self::checked(table.get_ref(), name, span(0..0), keys)
    }

    fn checked(
        entries: &'t DeTable<'t>,
        name: &'static str,
        at: SourceSpan,
        keys: &[&'static str],
    ) -> Result<Self, Problem> {
        let unknown = entries.keys().find(|key| !keys.contains(&key.get_ref().as_ref()));
        let Some(key) = unknown else { return Ok(Self { entries, name, at }) };
        let word = key.get_ref().as_ref();
        let help = nearest(word, keys.iter().copied()).map_or_else(
            || format!("leave it out; there are {}", keys.join(", ")),
            |near| format!("did you mean `{near}`?"),
        );
        Err(Problem::UnknownKey { key: word.to_owned(), table: name, help, at: span(key.span()) })
    }

    fn get(&self, key: &str) -> Option<(&'t DeValue<'t>, SourceSpan)> {
        self.entries.get(key).map(|value| (value.get_ref(), span(value.span())))
    }

    fn missing(&self, key: &'static str, example: &'static str) -> Problem {
        Problem::MissingKey { key, table: self.name, example, at: self.at }
    }

    /// Where a value was written; the table where it was not.
    pub(super) fn place(&self, key: &str) -> SourceSpan {
        self.get(key).map_or(self.at, |(_, at)| at)
    }

    /// A table in the table.
    pub(super) fn table(
        &self,
        key: &'static str,
        name: &'static str,
        keys: &[&'static str],
    ) -> Result<Option<Table<'t>>, Problem> {
        match self.get(key) {
            None => Ok(None),
            Some((DeValue::Table(entries), at)) => Self::checked(entries, name, at, keys).map(Some),
            Some((_, at)) => Err(Problem::WrongType { key, expected: "a table", at }),
        }
    }

    /// The same, and it must be there.
    pub(super) fn required_table(
        &self,
        key: &'static str,
        name: &'static str,
        keys: &[&'static str],
    ) -> Result<Table<'t>, Problem> {
        self.table(key, name, keys)?.ok_or_else(|| self.missing(key, "a table of that name"))
    }

    /// A whole number from 1 up.
    pub(super) fn count(&self, key: &'static str) -> Result<u32, Problem> {
        self.maybe_count(key)?.ok_or_else(|| self.missing(key, "a whole number"))
    }

    /// The same, where it is written.
    pub(super) fn maybe_count(&self, key: &'static str) -> Result<Option<u32>, Problem> {
        let Some((value, at)) = self.get(key) else { return Ok(None) };
        let DeValue::Integer(number) = value else {
            return Err(Problem::WrongType { key, expected: "a whole number, without quotes", at });
        };
        let number = i128::from_str_radix(number.as_str(), number.radix()).ok();
        match number.and_then(|number| u32::try_from(number).ok()).filter(|&number| number > 0) {
            Some(number) => Ok(Some(number)),
            None => Err(Problem::OutOfRange { key, range: "1 to 4294967295", at }),
        }
    }

    /// `true` or `false`; `false` where nothing is written.
    pub(super) fn flag(&self, key: &'static str) -> Result<bool, Problem> {
        match self.get(key) {
            None => Ok(false),
            Some((DeValue::Boolean(value), _)) => Ok(*value),
            Some((_, at)) => Err(Problem::WrongType { key, expected: "`true` or `false`", at }),
        }
    }

    /// A text.
    pub(super) fn text(&self, key: &'static str) -> Result<String, Problem> {
        match self.get(key) {
            Some((DeValue::String(text), _)) => Ok(text.clone().into_owned()),
            None => Err(self.missing(key, "a text in quotes")),
            Some((_, at)) => Err(Problem::WrongType { key, expected: "a text in quotes", at }),
        }
    }

    /// One of several words, where it is written.
    pub(super) fn word<T: Copy>(
        &self,
        key: &'static str,
        words: &[(&'static str, T)],
    ) -> Result<Option<T>, Problem> {
        let Some((value, at)) = self.get(key) else { return Ok(None) };
        let DeValue::String(text) = value else {
            return Err(Problem::WrongType { key, expected: "a word in quotes", at });
        };
        if let Some((_, value)) = words.iter().find(|(word, _)| *word == text.as_ref()) {
            return Ok(Some(*value));
        }
        let names = words.iter().map(|(word, _)| *word);
        let help = nearest(text, names.clone()).map_or_else(
            || format!("write one of {}", names.collect::<Vec<_>>().join(", ")),
            |near| format!("did you mean `{near}`?"),
        );
        Err(Problem::UnknownWord { key, word: text.clone().into_owned(), help, at })
    }

    /// The same, and it must be there.
    pub(super) fn required_word<T: Copy>(
        &self,
        key: &'static str,
        words: &[(&'static str, T)],
        example: &'static str,
    ) -> Result<T, Problem> {
        self.word(key, words)?.ok_or_else(|| self.missing(key, example))
    }

    /// A number from 0 to 1, not 0; `None` where nothing is written.
    pub(super) fn share(&self, key: &'static str) -> Result<Option<f64>, Problem> {
        let Some((value, at)) = self.get(key) else { return Ok(None) };
        let number: Option<f64> = match value {
            DeValue::Float(number) => number.as_str().replace('_', "").parse().ok(),
            DeValue::Integer(number) => number.as_str().parse().ok(),
            _ => return Err(Problem::WrongType { key, expected: "a number from 0 to 1", at }),
        };
        match number.filter(|number| *number > 0.0 && *number <= 1.0) {
            Some(number) => Ok(Some(number)),
            None => Err(Problem::OutOfRange { key, range: "more than 0, at most 1", at }),
        }
    }

    /// A number with its unit, in bytes, FLOPs and seconds; not negative.
    pub(super) fn quantity(&self, key: &'static str, unit: Unit) -> Result<f64, Problem> {
        self.maybe_quantity(key, unit)?.ok_or_else(|| self.missing(key, unit.example()))
    }

    /// The same, where it is written.
    pub(super) fn maybe_quantity(&self, key: &'static str, unit: Unit) -> Result<Option<f64>, Problem> {
        let Some((value, at)) = self.get(key) else { return Ok(None) };
        let DeValue::String(text) = value else {
            return Err(Problem::WrongUnit { key, example: unit.example(), at });
        };
        let wrong = || Problem::WrongUnit { key, example: unit.example(), at };
        let text = text.trim();
        let cut = text.find(|c: char| !(c.is_ascii_digit() || matches!(c, '.' | '-'))).unwrap_or(text.len());
        let (number, word) = text.split_at(cut);
        let scale = unit.scale(word.trim()).ok_or_else(wrong)?;
        let number: f64 = number.parse().map_err(|_| wrong())?;
        let value = number * scale;
        let least = if unit == Unit::Time { value >= 0.0 } else { value > 0.0 };
        // Nothing that is measured has more: sums of such numbers stay numbers.
        if least && value <= 1e24 {
            return Ok(Some(value));
        }
        let range = if unit == Unit::Time { "0 or more" } else { "more than 0" };
        Err(Problem::OutOfRange { key, range, at })
    }
}
