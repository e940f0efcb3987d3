//! The text of a CSV file as diagnostics show it: of a row only the cells around the label, since a row holds a whole rank.

use std::sync::Arc;

use miette::{MietteError, MietteSpanContents, SourceCode, SourceSpan, SpanContents};

use super::error::Cell;

/// Bytes of a row that are shown on either side of a label.
const MARGIN: usize = 40;

/// The longest part of a row that one label covers, and the longest distance of two labels that are shown together.
const LONGEST: usize = 60;

/// A CSV file's name and text.
#[derive(Clone, Debug)]
pub struct CsvSource {
    name: Arc<str>,
    text: Arc<str>,
}

impl CsvSource {
    pub(super) fn new(name: &str, text: &str) -> Self {
        Self { name: Arc::from(name), text: Arc::from(text) }
    }

    /// What diagnostics call the file.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The text.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The cell with an action that begins somewhere, under a name.
    pub(super) fn cell(&self, at: usize, text: String, row: usize) -> Cell {
        let start = self.text[..at].rfind('\n').map_or(0, |newline| newline + 1);
        let column = self.text[start..at].matches(',').count() + 1;
        let pair = self.text[at..].starts_with('(');
        let within =
            |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'_' || pair && b"(;)".contains(byte);
        let length = self.text[at..].bytes().take(LONGEST).take_while(within).count();
        // Rubbish is labelled by its first character, however many bytes that takes.
        let first = self.text[at..].chars().next().map_or(0, char::len_utf8);
        Cell { text, row, column, span: (at, length.max(first)).into() }
    }
}

impl SourceCode for CsvSource {
    fn read_span<'a>(
        &'a self,
        span: &SourceSpan,
        _before: usize,
        _after: usize,
    ) -> Result<Box<dyn SpanContents<'a> + 'a>, MietteError> {
        let text = &*self.text;
        let end = span.offset().saturating_add(span.len());
        // Labels far apart are each shown by themselves.
        if end > text.len()
            || span.len() > LONGEST
            || text.as_bytes()[span.offset()..end].contains(&b'\n')
            || !text.is_char_boundary(span.offset())
            || !text.is_char_boundary(end)
        {
            return Err(MietteError::OutOfBounds);
        }
        let start = text[..span.offset()].rfind('\n').map_or(0, |newline| newline + 1);
        let stop = text[end..].find('\n').map_or(text.len(), |newline| end + newline);
        let mut from = text.ceil_char_boundary(start.max(span.offset().saturating_sub(MARGIN)));
        let mut to = text.floor_char_boundary(stop.min(end.saturating_add(MARGIN)));
        if from > start {
            from = text[from..span.offset()].find(',').map_or(from, |comma| from + comma + 1);
        }
        if to < stop {
            to = text[end..to].rfind(',').map_or(to, |comma| end + comma);
        }
        let shown = text[from..to].trim_end_matches('\r');
        let line = text[..from].matches('\n').count();
        Ok(Box::new(MietteSpanContents::new_named(
            self.name.to_string(),
            shown.as_bytes(),
            (from, shown.len()).into(),
            line,
            from - start,
            1,
        )))
    }
}
