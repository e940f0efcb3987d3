//! Text -> rows of actions, in one walk over the bytes.

use super::action::{Action, Form, Op, Rows};
use super::error::{Problem, Report, TorchError};
use super::source::CsvSource;

/// Reads a file in either form; `name` is what diagnostics call it.
///
/// Memory taken is proportional to the size of the file; numbers in it size nothing.
///
/// # Errors
/// Every cell that is no action, the first few of many.
pub fn read(name: &str, bytes: &[u8]) -> Result<Rows, Box<TorchError>> {
    let text = match std::str::from_utf8(bytes) {
        Ok(text) => text,
        Err(error) => {
            let mut report = Report::default();
            report.add(|| Problem::NotText { offset: error.valid_up_to() });
            return Err(report.finish(&CsvSource::new(name, "")).expect_err("a problem was added"));
        }
    };
    let source = CsvSource::new(name, text);
    let mut reader =
        Reader { text, source: &source, actions: Vec::new(), empty: None, report: Report::default() };
    // A cell takes five bytes or more with its comma.
    reader.actions.reserve(text.len() / 8);
    let mut starts = vec![0];
    let mut at = 0;
    let mut row = 0;
    while at < text.len() || row == 0 {
        let end = text[at..].find('\n').map_or(text.len(), |newline| at + newline);
        reader.row(row, at, end);
        starts.push(reader.actions.len() as u32);
        (at, row) = (end + 1, row + 1);
    }
    let Reader { actions, empty, mut report, .. } = reader;
    let form = if actions.iter().all(|action| action.op.computes()) { Form::Compute } else { Form::Comms };
    if let Some((row, at)) = empty.filter(|_| form == Form::Comms) {
        report.add(|| Problem::EmptyCell { cell: source.cell(at, String::new(), row) });
    }
    report.finish(&source)?;
    Ok(Rows { form, actions, starts, source })
}

struct Reader<'text> {
    text: &'text str,
    source: &'text CsvSource,
    actions: Vec<Action>,
    /// The first empty cell: its row and offset.
    empty: Option<(usize, usize)>,
    report: Report,
}

/// Why a cell is no action.
enum Fault {
    Bad(&'static str),
    /// Where the action ends.
    Trailing(usize),
    Pair(&'static str),
}

impl Reader<'_> {
    /// Reads a row that lies between two offsets.
    fn row(&mut self, row: usize, start: usize, end: usize) {
        let before = self.actions.len();
        let problems = self.report.count();
        let end = start + self.text[start..end].trim_end_matches('\r').len();
        let mut at = start;
        loop {
            let stop = self.text.as_bytes()[at..end].iter().position(|&byte| byte == b',');
            let stop = stop.map_or(end, |comma| at + comma);
            self.cell(row, at, stop);
            if stop == end {
                break;
            }
            at = stop + 1;
        }
        if self.actions.len() == before && problems == self.report.count() {
            let at = (start.min(self.text.len()), 0).into();
            self.report.add(|| Problem::EmptyRow { row, at });
        }
    }

    fn cell(&mut self, row: usize, at: usize, stop: usize) {
        let whole = &self.text[at..stop];
        let cell = whole.trim_ascii_end();
        let start = at + (cell.len() - cell.trim_ascii_start().len());
        let cell = cell.trim_ascii_start();
        if cell.is_empty() {
            self.empty.get_or_insert((row, at));
            return;
        }
        let read = if cell.starts_with('(') {
            pair(cell, start)
        } else {
            single(cell, start).map(|one| [Some(one), None])
        };
        let text = self.text;
        let source = self.source;
        let named = |length: usize| source.cell(start, shown(&text[start..start + length]), row);
        match read {
            Ok(actions) => self.actions.extend(actions.into_iter().flatten()),
            Err(Fault::Bad(why)) => self.report.add(|| Problem::BadCell { cell: named(cell.len()), why }),
            Err(Fault::Pair(why)) => self.report.add(|| Problem::BadPair { cell: named(cell.len()), why }),
            Err(Fault::Trailing(length)) => self
                .report
                .add(|| Problem::TrailingText { cell: named(length), trailing: shown(&cell[length..]) }),
        }
    }
}

/// Text of a file as a message shows it: short, and without what a terminal would obey.
fn shown(text: &str) -> String {
    let mut short: String = text.chars().take(40).flat_map(char::escape_debug).collect();
    if text.chars().nth(40).is_some() {
        short.push('…');
    }
    short
}

/// One action that fills a cell.
fn single(cell: &str, at: usize) -> Result<Action, Fault> {
    let (action, length) = action(cell.as_bytes(), at)?;
    if length < cell.len() { Err(Fault::Trailing(length)) } else { Ok(action) }
}

/// `(a;b)OVERLAP_F_B`.
fn pair(cell: &str, at: usize) -> Result<[Option<Action>; 2], Fault> {
    const WORD: &str = "OVERLAP_F_B";
    let bad = Fault::Bad("an overlap is written `(0F7;3B1)OVERLAP_F_B`");
    let Some((inner, word)) = cell[1..].split_once(')') else { return Err(bad) };
    let Some((first, second)) = inner.split_once(';') else { return Err(bad) };
    if !word.starts_with(WORD) {
        return Err(bad);
    }
    if word.len() > WORD.len() {
        return Err(Fault::Trailing(cell.len() - word.len() + WORD.len()));
    }
    let half = |text, begins: usize| {
        single(text, at + begins).map_err(|fault| match fault {
            Fault::Trailing(length) => Fault::Trailing(begins + length),
            other => other,
        })
    };
    let (mut first, second) = (half(first, 1)?, half(second, 2 + first.len())?);
    let backward = |op| matches!(op, Op::B | Op::I);
    match (first.op, second.op) {
        (Op::F, op) | (op, Op::F) if backward(op) => {}
        _ => return Err(Fault::Pair("not one forward and one backward")),
    }
    if (first.stage, first.microbatch) == (second.stage, second.microbatch) {
        return Err(Fault::Pair("the backward needs the forward"));
    }
    first.overlaps = true;
    Ok([Some(first), Some(second)])
}

/// The action that a text begins with, and its length.
fn action(text: &[u8], at: usize) -> Result<(Action, usize), Fault> {
    let (stage, digits) = number(text).ok_or(Fault::Bad("the stage is no number below 2^32"))?;
    let word = text[digits..].iter().take_while(|byte| byte.is_ascii_uppercase() || **byte == b'_').count();
    let op = op(&text[digits..digits + word]).ok_or(Fault::Bad("no operation is called so"))?;
    let mut length = digits + word;
    let mut microbatch = 0;
    if op.of_microbatch() {
        let (number, digits) =
            number(&text[length..]).ok_or(Fault::Bad("the microbatch is no number below 2^32"))?;
        microbatch = number;
        length += digits;
    }
    Ok((Action { op, overlaps: false, stage, microbatch, at: at as u64 }, length))
}

fn op(word: &[u8]) -> Option<Op> {
    Op::WORDS.iter().find(|(_, spelling)| spelling.as_bytes() == word).map(|&(op, _)| op)
}

/// The number that a text begins with, below 2^32 - 1 so that one more can be counted, and how many digits it has.
fn number(text: &[u8]) -> Option<(u32, usize)> {
    let digits = text.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let value = text[..digits]
        .iter()
        .try_fold(0_u32, |value, digit| value.checked_mul(10)?.checked_add(u32::from(digit - b'0')))?;
    (digits > 0 && value < u32::MAX).then_some((value, digits))
}
