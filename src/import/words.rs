//! The words of one line of the text form, with their places: what the parser of the lines asks for, one by one.

use miette::SourceSpan;

use super::Problem;

/// One word of a line.
#[derive(Clone, Copy, Debug)]
pub(super) struct Word<'text> {
    /// Its text, without quotes.
    pub(super) text: &'text str,
    /// Where it stands in the file.
    pub(super) at: usize,
    /// Whether it stands in quotes.
    pub(super) quoted: bool,
}

impl Word<'_> {
    /// The place of the word, quotes included.
    pub(super) fn span(&self) -> SourceSpan {
        label(self.at, self.text, if self.quoted { 2 } else { 0 })
    }

    /// The complaint that the word is not what should stand here.
    pub(super) fn not(&self, expected: &str) -> Problem {
        Problem::UnexpectedWord {
            found: clip(self.text),
            expected: expected.to_owned(),
            help: format!("write {expected} here; docs/plan.md describes the text form"),
            at: self.span(),
        }
    }

    /// The complaint that the word is none of a few, with the nearest.
    pub(super) fn none_of(&self, what: &'static str, names: &mut dyn Iterator<Item = &str>) -> Problem {
        let help = match nearest(self.text, names) {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("declare the {what} before it is used, or use one that is declared"),
        };
        Problem::UnknownName { what, name: clip(self.text), help, at: self.span() }
    }

    /// A number written in digits only.
    pub(super) fn number(&self) -> Result<u64, Problem> {
        digits(self.text).ok_or_else(|| self.bad("a number", u64::MAX))
    }

    /// A number that fits 32 bits.
    pub(super) fn small(&self) -> Result<u32, Problem> {
        let number = digits(self.text).and_then(|number| u32::try_from(number).ok());
        number.ok_or_else(|| self.bad("a number", u64::from(u32::MAX)))
    }

    /// A number after a sigil: `r3`.
    pub(super) fn id(&self, sigil: &'static str, what: &'static str) -> Result<u32, Problem> {
        let rest = self.text.strip_prefix(sigil).ok_or_else(|| self.not(what))?;
        small_digits(rest).ok_or_else(|| self.bad(what, u64::from(u32::MAX)))
    }

    pub(super) fn bad(&self, expected: &'static str, most: u64) -> Problem {
        Problem::BadNumber { found: clip(self.text), expected, most, at: self.span() }
    }
}

/// The words of a line that are still to be read.
#[derive(Clone, Debug)]
pub(super) struct Words<'text> {
    line: &'text str,
    /// Where the line begins in the file.
    base: usize,
    /// Where the next word begins in the line, or spaces before it.
    at: usize,
}

impl<'text> Words<'text> {
    pub(super) fn new(line: &'text str, base: usize) -> Self {
        Self { line, base, at: 0 }
    }

    /// The place where the line ends.
    pub(super) fn end(&self) -> SourceSpan {
        (self.base + self.line.len(), 0).into()
    }

    /// The next word, if there is one.
    pub(super) fn next(&mut self) -> Result<Option<Word<'text>>, Problem> {
        let bytes = self.line.as_bytes();
        while bytes.get(self.at) == Some(&b' ') {
            self.at += 1;
        }
        let start = self.at;
        if start == bytes.len() {
            return Ok(None);
        }
        if bytes[start] == b'"' {
            let Some(length) = self.line[start + 1..].find('"') else {
                let at = label(self.base + start, &self.line[start..], 0);
                return Err(Problem::BadName { name: clip(&self.line[start..]), at });
            };
            self.at = start + length + 2;
            let text = &self.line[start + 1..=start + length];
            return Ok(Some(Word { text, at: self.base + start, quoted: true }));
        }
        while self.at < bytes.len() && bytes[self.at] != b' ' {
            self.at += 1;
        }
        Ok(Some(Word { text: &self.line[start..self.at], at: self.base + start, quoted: false }))
    }

    /// The next word, which must be there.
    pub(super) fn word(&mut self, expected: &str) -> Result<Word<'text>, Problem> {
        let end = self.end();
        self.next()?.ok_or_else(|| Problem::MissingWord { expected: expected.to_owned(), at: end })
    }

    /// The next word, which must be this one.
    pub(super) fn keyword(&mut self, keyword: &str) -> Result<(), Problem> {
        let quoted = format_args!("`{keyword}`").to_string();
        let word = self.word(&quoted)?;
        if word.text == keyword && !word.quoted { Ok(()) } else { Err(word.not(&quoted)) }
    }

    /// Consumes the next word if it is this one.
    pub(super) fn maybe(&mut self, keyword: &str) -> Result<bool, Problem> {
        let before = self.at;
        let found = self.next()?.is_some_and(|word| word.text == keyword && !word.quoted);
        if !found {
            self.at = before;
        }
        Ok(found)
    }

    /// The line must end here.
    pub(super) fn done(&mut self) -> Result<(), Problem> {
        match self.next()? {
            Some(word) => Err(word.not("the end of the line")),
            None => Ok(()),
        }
    }

    /// A name, plain or in quotes.
    pub(super) fn name(&mut self, expected: &str) -> Result<Word<'text>, Problem> {
        let word = self.word(expected)?;
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | '(' | ')');
        let fits = if word.quoted {
            word.text.chars().all(|c| !c.is_control() && c != '\\') && !word.text.chars().all(plain)
        } else {
            word.text.chars().all(plain)
        };
        if fits && !word.text.is_empty() { Ok(word) } else { Err(bad_name(&word)) }
    }

    /// The name of a class or a pass.
    pub(super) fn identifier(&mut self, expected: &str) -> Result<Word<'text>, Problem> {
        let word = self.word(expected)?;
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
        if !word.quoted && word.text.chars().all(plain) { Ok(word) } else { Err(bad_name(&word)) }
    }
}

fn bad_name(word: &Word<'_>) -> Problem {
    Problem::BadName { name: clip(word.text), at: word.span() }
}

/// A number written in digits only; no sign, no leading zeros, so that one number has one form.
pub(super) fn digits(text: &str) -> Option<u64> {
    let canonical = text == "0" || !text.starts_with('0');
    if canonical && !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        text.parse().ok()
    } else {
        None
    }
}

/// As [`digits`], for 32 bits.
pub(super) fn small_digits(text: &str) -> Option<u32> {
    digits(text).and_then(|number| u32::try_from(number).ok())
}

/// The name that looks most like one, if any looks like it at all. Looks at the first thousand.
pub(super) fn nearest<'name>(name: &str, names: &mut dyn Iterator<Item = &'name str>) -> Option<&'name str> {
    if name.len() > 64 {
        return None;
    }
    names
        .take(1000)
        .filter(|other| other.len() <= 64)
        .map(|other| (strsim::damerau_levenshtein(name, other), other))
        .filter(|&(distance, other)| distance <= 1 + other.len() / 3)
        .min_by_key(|&(distance, _)| distance)
        .map(|(_, other)| other)
}

/// The place of a text, or of its beginning: a hostile word may be as long as the file.
pub(super) fn label(at: usize, text: &str, quotes: usize) -> SourceSpan {
    (at, if text.len() <= 120 { text.len() + quotes } else { text.floor_char_boundary(120) }).into()
}

/// A text short enough for a message, without control characters.
pub(super) fn clip(text: &str) -> String {
    let mut clipped: String =
        text.chars().take(60).map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect();
    if text.chars().nth(60).is_some() {
        clipped.push('…');
    }
    clipped
}
