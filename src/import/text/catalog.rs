//! The header's declarations: classes, passes with what they need, collectives.

use super::super::Problem;
use super::super::words::{Word, Words, digits, small_digits};
use super::{Names, Reader, declare};
use crate::ir::{
    At, Catalog, Class, ClassId, Collective, CollectiveId, CollectiveOp, Compute, Kind, KindId, Need, Port,
    Queue, Relation, Source, Where,
};

/// What a need says, until all names are known.
struct Wanted<'text> {
    kind: usize,
    result: bool,
    word: Word<'text>,
    on: Where,
}

/// Reads the lines of classes, passes and collectives.
pub(super) fn read<'text>(reader: &mut Reader<'text>, names: &mut Names<'text>) -> Result<Catalog, Problem> {
    let mut catalog = Catalog::default();
    while let Some(mut words) = reader.maybe("class") {
        let name = words.identifier("a class's name")?;
        declare(&mut names.classes, &name, "class")?;
        catalog.classes.push(class(&name, &mut words)?);
    }
    let mut wanted = Vec::new();
    while let Some(mut words) = reader.maybe("pass") {
        let name = words.identifier("a pass's name")?;
        declare(&mut names.kinds, &name, "pass")?;
        let id = catalog.kinds.len();
        catalog.kinds.push(pass(&name, &mut words, names)?);
        while let Some(mut words) = reader.maybe("needs") {
            wanted.push(need(id, &mut words)?);
        }
    }
    let mut after = Vec::new();
    while let Some(mut words) = reader.maybe("collective") {
        let name = words.name("a collective's name")?;
        declare(&mut names.collectives, &name, "collective")?;
        let (collective, earlier) = collective(&name, &mut words, names)?;
        catalog.collectives.push(collective);
        after.push(earlier);
    }
    for (collective, word) in catalog.collectives.iter_mut().zip(after) {
        collective.after = word.map(|word| names.collective(&word).map(CollectiveId)).transpose()?;
    }
    for need in wanted {
        let from = if need.result {
            Source::Collective(CollectiveId(names.collective(&need.word)?))
        } else {
            pass_source(&need.word, names)?
        };
        catalog.kinds[need.kind].needs.push(Need { on: need.on, from, span: None });
    }
    Ok(catalog)
}

fn class(name: &Word<'_>, words: &mut Words<'_>) -> Result<Class, Problem> {
    words.keyword("stages")?;
    let mut at_stage = Vec::new();
    while !words.maybe("rank")? {
        at_stage.push(shape(&words.word("a shape, like `[64,128]`, or `rank`")?)?);
    }
    let at_rank = shape(&words.word("a shape, like `[64,128]`")?)?;
    words.done()?;
    Ok(Class { name: name.text.to_owned(), at_stage, at_rank, span: None })
}

/// A shape: `[64,128]`.
pub(super) fn shape(word: &Word<'_>) -> Result<Vec<u64>, Problem> {
    let expected = "a shape, like `[64,128]`";
    let inside = word.text.strip_prefix('[').and_then(|text| text.strip_suffix(']'));
    let inside = inside.ok_or_else(|| word.not(expected))?;
    if inside.is_empty() {
        return Ok(Vec::new());
    }
    let sides = inside.split(',').map(digits).collect::<Option<Vec<_>>>();
    sides.ok_or_else(|| word.bad(expected, u64::MAX))
}

fn pass<'text>(name: &Word<'_>, words: &mut Words<'text>, names: &Names<'text>) -> Result<Kind, Problem> {
    words.keyword("at")?;
    let place = words.word("`stage` or `rank`")?;
    let at = match place.text {
        "stage" => At::Stage,
        "rank" => At::EveryRank,
        _ => return Err(place.not("`stage` or `rank`")),
    };
    let mut queue = Queue::Compute;
    if words.maybe("on")? {
        let word = words.word("`lockstep` or `group`")?;
        queue = match word.text {
            "lockstep" => Queue::Lockstep,
            "group" => Queue::Group,
            _ => return Err(word.not("`lockstep` or `group`")),
        };
    }
    let mut computes = None;
    if words.maybe("computes")? {
        let word = words.word("a computation")?;
        let found = Compute::WORDS.iter().find(|(_, name)| *name == word.text);
        let unknown = || word.none_of("computation", &mut Compute::WORDS.iter().map(|&(_, name)| name));
        computes = Some(found.ok_or_else(unknown)?.0);
    }
    let gives = class_list("gives", words, names)?;
    let makes = class_list("makes", words, names)?;
    let frees = class_list("frees", words, names)?;
    words.done()?;
    Ok(Kind {
        name: name.text.to_owned(),
        at,
        queue,
        computes,
        needs: Vec::new(),
        gives,
        makes,
        frees,
        span: None,
    })
}

fn class_list<'text>(
    title: &str,
    words: &mut Words<'text>,
    names: &Names<'text>,
) -> Result<Vec<ClassId>, Problem> {
    if !words.maybe(title)? {
        return Ok(Vec::new());
    }
    let list = words.word("classes, like `x,dx`")?;
    let mut at = list.at;
    let mut classes = Vec::new();
    for text in list.text.split(',') {
        classes.push(ClassId(names.class(&Word { text, at, quoted: false })?));
        at += text.len() + 1;
    }
    Ok(classes)
}

fn need<'text>(kind: usize, words: &mut Words<'text>) -> Result<Wanted<'text>, Problem> {
    let result = words.maybe("result")?;
    let word =
        if result { words.name("a collective's name")? } else { words.word("a pass, like `F(prev).o0`")? };
    let on = if words.maybe("at")? {
        let word = words.word("`first` or `last`")?;
        match word.text {
            "first" => Where::First,
            "last" => Where::Last,
            _ => return Err(word.not("`first` or `last`")),
        }
    } else {
        Where::All
    };
    words.done()?;
    Ok(Wanted { kind, result, word, on })
}

/// `F(prev).o0`, or `F(here)` where only the order matters.
fn pass_source<'text>(word: &Word<'text>, names: &Names<'text>) -> Result<Source, Problem> {
    let expected = "a pass, like `F(prev).o0` or `F(here)`";
    let wrong = || word.not(expected);
    let (name, rest) = word.text.split_once('(').ok_or_else(wrong)?;
    let (relation, rest) = rest.split_once(')').ok_or_else(wrong)?;
    let at = match relation {
        "here" => Relation::Here,
        "prev" => Relation::Prev,
        "next" => Relation::Next,
        "first" => Relation::First,
        "last" => Relation::Last,
        "earlier" => Relation::Earlier,
        "later" => Relation::Later,
        _ => return Err(wrong()),
    };
    let port = match rest.strip_prefix(".o") {
        Some(port) => Some(Port(small_digits(port).ok_or_else(wrong)?)),
        None if rest.is_empty() => None,
        None => return Err(wrong()),
    };
    Ok(Source::Pass { kind: KindId(names.kind(name, word)?), at, port })
}

fn collective<'text>(
    name: &Word<'_>,
    words: &mut Words<'text>,
    names: &Names<'text>,
) -> Result<(Collective, Option<Word<'text>>), Problem> {
    let word = words.word("an operation, like `all_reduce`")?;
    let found = CollectiveOp::WORDS.iter().find(|(_, name)| *name == word.text);
    let unknown = || word.none_of("operation", &mut CollectiveOp::WORDS.iter().map(|&(_, name)| name));
    let op = found.ok_or_else(unknown)?.0;
    let word = words.word("a value, like `S.o0`")?;
    let wrong = || word.not("a value, like `S.o0`");
    let (kind, port) = word.text.split_once(".o").ok_or_else(wrong)?;
    let port = Port(small_digits(port).ok_or_else(wrong)?);
    let kind = KindId(names.kind(kind, &word)?);
    words.keyword("from")?;
    let source = place(words)?;
    words.keyword("to")?;
    let reader = place(words)?;
    let after = if words.maybe("after")? { Some(words.name("a collective's name")?) } else { None };
    let lockstep = words.maybe("lockstep")?;
    words.done()?;
    let name = name.text.to_owned();
    Ok((Collective { name, op, kind, port, source, reader, after: None, lockstep, span: None }, after))
}

fn place(words: &mut Words<'_>) -> Result<Where, Problem> {
    let word = words.word("`all`, `first` or `last`")?;
    match word.text {
        "all" => Ok(Where::All),
        "first" => Ok(Where::First),
        "last" => Ok(Where::Last),
        _ => Err(word.not("`all`, `first` or `last`")),
    }
}
