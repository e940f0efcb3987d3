//! The text of a plan file as diagnostics show it: a few lines, and of a long line only the part around the label.

use std::sync::Arc;

use miette::{MietteError, MietteSpanContents, SourceCode, SourceSpan, SpanContents};

/// Lines up to this are shown whole; a hostile line, or a plan in JSON, may be as long as the file.
const LONGEST_LINE: usize = 400;

/// Bytes of a longer line that are shown on either side of a label.
const MARGIN: usize = 40;

/// A plan file's name and text.
#[derive(Clone, Debug)]
pub struct PlanSource {
    name: Arc<str>,
    text: Arc<str>,
}

impl PlanSource {
    /// A source under the name that diagnostics show.
    #[must_use]
    pub fn new(name: &str, text: impl Into<Arc<str>>) -> Self {
        Self { name: Arc::from(name), text: text.into() }
    }

    /// The name that diagnostics show.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The text.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }
}

impl SourceCode for PlanSource {
    fn read_span<'a>(
        &'a self,
        span: &SourceSpan,
        before: usize,
        after: usize,
    ) -> Result<Box<dyn SpanContents<'a> + 'a>, MietteError> {
        let text = &*self.text;
        let end = span.offset().saturating_add(span.len());
        if end > text.len() || !text.is_char_boundary(span.offset()) || !text.is_char_boundary(end) {
            return Err(MietteError::OutOfBounds);
        }
        let (mut from, mut to) = (span.offset(), end);
        for line in 0..=before {
            from = text[..from].rfind('\n').map_or(0, |newline| newline + usize::from(line == before));
        }
        for line in 0..=after {
            to = text[to..].find('\n').map_or(text.len(), |newline| to + newline + usize::from(line < after));
        }
        if text[from..to].split('\n').any(|line| line.len() > LONGEST_LINE) {
            let start = text[..span.offset()].rfind('\n').map_or(0, |newline| newline + 1);
            let stop = text[end..].find('\n').map_or(text.len(), |newline| end + newline);
            from = text.ceil_char_boundary(start.max(span.offset().saturating_sub(MARGIN)));
            to = text.floor_char_boundary(stop.min(end.saturating_add(MARGIN)));
        }
        let line = text[..from].matches('\n').count();
        let column = from - text[..from].rfind('\n').map_or(0, |newline| newline + 1);
        let lines = text[from..to].split('\n').count();
        Ok(Box::new(MietteSpanContents::new_named(
            self.name.to_string(),
            &text.as_bytes()[from..to],
            (from, to - from).into(),
            line,
            column,
            lines,
        )))
    }
}
