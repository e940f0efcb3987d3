//! The text form of a plan -> Plan: the lines in their order, the header's here and a rank's in [`instrs`].
//!
//! A line with a problem is left out and the next one is read, so that one look shows what else is wrong; after a problem in
//! the header the rest would only repeat it, and is not read.

mod catalog;
mod instrs;

use std::collections::HashMap;

use super::Problem;
use super::words::{Word, Words, clip, label, nearest};
use crate::ir::{Dims, Group, Header, Mode, Partition, Plan, Precision, Rank};

/// Problems after which reading stops.
const MOST_PROBLEMS: usize = 20;

/// Names to ids, for the words of instructions.
#[derive(Default)]
struct Names<'text> {
    classes: HashMap<&'text str, u32>,
    kinds: HashMap<&'text str, u32>,
    collectives: HashMap<&'text str, u32>,
    /// The slices that a microbatch's name has a number for; there is none where sequences are whole.
    slices: u32,
}

/// The lines of the file; keeps the one that is looked at.
struct Reader<'text> {
    text: &'text str,
    /// Where the next line begins.
    at: usize,
    /// The line that is looked at, without its end, and where it begins.
    line: Option<(&'text str, usize)>,
}

impl<'text> Reader<'text> {
    fn new(text: &'text str) -> Self {
        let mut reader = Self { text, at: 0, line: None };
        reader.advance();
        reader
    }

    /// Goes to the next line; empty lines are no lines.
    fn advance(&mut self) {
        self.line = None;
        while self.at < self.text.len() {
            let rest = &self.text[self.at..];
            let length = rest.find('\n').unwrap_or(rest.len());
            let line = rest[..length].trim_end_matches(['\r', ' ']);
            let base = self.at;
            self.at += (length + 1).min(rest.len());
            if !line.is_empty() {
                self.line = Some((line, base));
                return;
            }
        }
    }

    fn first_word(&self) -> &'text str {
        let (line, _) = self.line.unwrap_or_default();
        line.trim_start_matches(' ').split(' ').next().unwrap_or_default()
    }

    /// The words of the line, if it begins with `title`; the title is consumed and the reader goes on.
    fn maybe(&mut self, title: &str) -> Option<Words<'text>> {
        let (line, base) = self.line?;
        if self.first_word() != title {
            return None;
        }
        let mut words = Words::new(line, base);
        // The first word was just seen to be there and to be plain.
        words.next().ok()?;
        self.advance();
        Some(words)
    }

    fn expect(&mut self, title: &'static str) -> Result<Words<'text>, Problem> {
        self.maybe(title).ok_or_else(|| self.unexpected(&[title]))
    }

    /// The complaint that the line is none of those that can stand here.
    fn unexpected(&self, titles: &[&'static str]) -> Problem {
        let expected = titles.iter().map(|title| format!("`{title}`")).collect::<Vec<_>>().join(" or ");
        let Some((line, base)) = self.line else {
            return Problem::MissingPart { missing: expected, at: (self.text.len(), 0).into() };
        };
        let word = self.first_word();
        let help = match nearest(word, &mut titles.iter().copied()) {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("write the line of {expected} here; docs/plan.md describes the text form"),
        };
        let indent = line.len() - line.trim_start_matches(' ').len();
        Problem::UnexpectedLine { found: clip(word), expected, help, at: label(base + indent, word, 0) }
    }
}

/// Reads the text form.
///
/// # Errors
/// What is wrong, line by line; the first few of many.
pub fn parse(text: &str) -> Result<Plan, Vec<Problem>> {
    let mut reader = Reader::new(text);
    let mut names = Names::default();
    let (header, ranks) = header(&mut reader, &mut names).map_err(|problem| vec![problem])?;
    let mut problems = Vec::new();
    let mut plans = Vec::new();
    while reader.line.is_some() && problems.len() < MOST_PROBLEMS {
        match instrs::rank(&mut reader, &header, &names, plans.len(), &mut problems) {
            Ok(plan) => plans.push(plan),
            Err(problem) => {
                problems.push(problem);
                break;
            }
        }
    }
    if problems.is_empty() && plans.len() != ranks as usize {
        let missing = if plans.len() < ranks as usize {
            Rank::new(plans.len()).to_string()
        } else {
            format!("stopping at {} of {ranks} ranks", plans.len())
        };
        problems.push(Problem::MissingPart { missing, at: (text.len(), 0).into() });
    }
    if problems.is_empty() { Ok(Plan { header, ranks: plans }) } else { Err(problems) }
}

fn header<'text>(reader: &mut Reader<'text>, names: &mut Names<'text>) -> Result<(Header, u32), Problem> {
    version(reader)?;
    let mut words = reader.expect("name")?;
    let name = words.name("the schedule's name")?.text.to_owned();
    words.done()?;
    let mut transforms = Vec::new();
    if let Some(mut words) = reader.maybe("with") {
        transforms.push(words.name("a transform's name")?.text.to_owned());
        while words.clone().next()?.is_some() {
            transforms.push(words.name("a transform's name")?.text.to_owned());
        }
    }
    let mut mode = Mode::default();
    if let Some(mut words) = reader.maybe("forward") {
        words.keyword("only")?;
        words.done()?;
        mode = Mode::ForwardOnly;
    }
    let ranks = number_line(reader, "ranks")?;
    let microbatches = number_line(reader, "microbatches")?;
    let slices = if reader.first_word() == "slices" { number_line(reader, "slices")? } else { 1 };
    names.slices = slices;
    let stages = rank_list(&mut reader.expect("stages")?)?;
    let flows = if reader.first_word() == "flows" { number_line(reader, "flows")? } else { 1 };
    let model = model(&mut reader.expect("model")?)?;
    let partition = Partition(reader.maybe("layers").map(|mut words| numbers(&mut words)).transpose()?);
    let catalog = catalog::read(reader, names)?;
    let groups = groups(reader)?;
    Ok((
        Header {
            name,
            transforms,
            mode,
            microbatches,
            slices,
            stages,
            flows,
            model,
            partition,
            catalog,
            groups,
        },
        ranks,
    ))
}

fn version(reader: &mut Reader<'_>) -> Result<(), Problem> {
    let mut words = reader.expect("schedc")?;
    words.keyword("plan")?;
    let version = words.word("the version")?;
    if version.text != crate::emit::text::VERSION.to_string() {
        return Err(Problem::UnsupportedVersion { found: clip(version.text), at: version.span() });
    }
    words.done()
}

fn number_line(reader: &mut Reader<'_>, title: &'static str) -> Result<u32, Problem> {
    let mut words = reader.expect(title)?;
    let number = words.word("a number")?.small()?;
    words.done()?;
    Ok(number)
}

fn rank_list(words: &mut Words<'_>) -> Result<Vec<Rank>, Problem> {
    let mut ranks = vec![Rank(words.word("a rank")?.id(Rank::SIGIL, "a rank, like `r0`")?)];
    while let Some(word) = words.next()? {
        ranks.push(Rank(word.id(Rank::SIGIL, "a rank, like `r0`")?));
    }
    Ok(ranks)
}

/// A list of numbers, at least one.
fn numbers(words: &mut Words<'_>) -> Result<Vec<u32>, Problem> {
    let mut numbers = vec![words.word("a number")?.small()?];
    while let Some(word) = words.next()? {
        numbers.push(word.small()?);
    }
    Ok(numbers)
}

fn model(words: &mut Words<'_>) -> Result<Dims, Problem> {
    let mut number = |sigil, what| words.word(what)?.id(sigil, what);
    let layers = number("layers=", "`layers=` and a number")?;
    let hidden = number("hidden=", "`hidden=` and a number")?;
    let heads = number("heads=", "`heads=` and a number")?;
    let sequence = number("sequence=", "`sequence=` and a number")?;
    let batch = number("batch=", "`batch=` and a number")?;
    let vocab = number("vocab=", "`vocab=` and a number")?;
    let expected = "`tied=true` or `tied=false`";
    let word = words.word(expected)?;
    let tied = match word.text {
        "tied=true" => true,
        "tied=false" => false,
        _ => return Err(word.not(expected)),
    };
    let precision = match words.next()? {
        None => Precision::F32,
        Some(word) if word.text == "precision=bf16" => Precision::Bf16,
        Some(word) => return Err(word.not("`precision=bf16`, or the end of the line")),
    };
    words.done()?;
    Ok(Dims { layers, hidden, heads, sequence, batch, vocab, tied, precision })
}

fn groups(reader: &mut Reader<'_>) -> Result<Vec<Group>, Problem> {
    let mut groups = Vec::new();
    while let Some(mut words) = reader.maybe("group") {
        let expected = format!("g{}", groups.len());
        let word = words.word(&expected)?;
        if word.text != expected {
            return Err(Problem::OutOfSequence { expected, found: clip(word.text), at: word.span() });
        }
        groups.push(Group(rank_list(&mut words)?));
    }
    if reader.line.is_some() && reader.first_word() != "rank" {
        return Err(reader.unexpected(&["class", "pass", "needs", "collective", "group", "rank"]));
    }
    Ok(groups)
}

impl<'text> Names<'text> {
    fn class(&self, word: &Word<'text>) -> Result<u32, Problem> {
        find(&self.classes, word, "class")
    }

    fn kind(&self, name: &'text str, word: &Word<'text>) -> Result<u32, Problem> {
        let part = Word { text: name, at: word.at, quoted: false };
        find(&self.kinds, &part, "pass")
    }

    fn collective(&self, word: &Word<'text>) -> Result<u32, Problem> {
        find(&self.collectives, word, "collective")
    }
}

fn find(names: &HashMap<&str, u32>, word: &Word<'_>, what: &'static str) -> Result<u32, Problem> {
    names.get(word.text).copied().ok_or_else(|| {
        let mut known: Vec<_> = names.iter().map(|(name, id)| (*id, *name)).collect();
        known.sort_unstable();
        word.none_of(what, &mut known.iter().map(|&(_, name)| name))
    })
}

/// Enters a declared name.
fn declare<'text>(
    names: &mut HashMap<&'text str, u32>,
    word: &Word<'text>,
    what: &'static str,
) -> Result<(), Problem> {
    let id = u32::try_from(names.len()).map_err(|_| word.bad("a name", u64::from(u32::MAX)))?;
    match names.insert(word.text, id) {
        Some(_) => Err(Problem::DuplicateName { what, name: clip(word.text), at: word.span() }),
        None => Ok(()),
    }
}
