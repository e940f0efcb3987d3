//! One rank's part: its peak, its lanes, its buffers and its instructions.

use std::collections::HashMap;

use super::super::Problem;
use super::super::words::{Word, Words, clip, digits, small_digits};
use super::{MOST_PROBLEMS, Names, Reader, catalog};
use crate::ir::{
    Buffer, BufferId, Bytes, ClassId, CollectiveId, CollectiveOp, GroupId, Header, Instr, InstrId, KindId,
    Lane, LaneId, Microbatch, Op, Pass, Payload, Peak, Place, Port, Rank, RankPlan, Site, Stage, Value,
};

/// Reads a rank's part. Problems of single lines are added to `problems`.
///
/// # Errors
/// A problem after which the rest of the file cannot be understood.
pub(super) fn rank<'text>(
    reader: &mut Reader<'text>,
    header: &Header,
    names: &Names<'text>,
    rank: usize,
    problems: &mut Vec<Problem>,
) -> Result<RankPlan, Problem> {
    let mut words = reader.expect("rank")?;
    in_sequence(&words.word("a rank")?, Rank::SIGIL, rank)?;
    words.done()?;
    let peak = peak(&mut reader.expect("peak")?, header)?;
    let mut plan = RankPlan { peak, ..RankPlan::default() };
    let lanes = lanes(&mut reader.expect("lanes")?, &mut plan)?;
    while let Some(mut words) = reader.maybe("buffer") {
        let buffer = buffer(&mut words, names, plan.buffers.len())?;
        plan.buffers.push(buffer);
    }
    let mut position = 0;
    while let Some((line, base)) = reader.line {
        if !line.starts_with('i') {
            break;
        }
        reader.advance();
        let mut words = Words::new(line, base);
        if let Err(problem) = instr(&mut words, names, &lanes, position, &mut plan) {
            problems.push(problem);
            if problems.len() == MOST_PROBLEMS {
                return Ok(plan);
            }
        }
        position += 1;
    }
    if reader.line.is_some() && reader.first_word() != "rank" {
        return Err(reader.unexpected(&["buffer", "i0", "rank"]));
    }
    Ok(plan)
}

fn in_sequence(word: &Word<'_>, sigil: &str, position: usize) -> Result<(), Problem> {
    let number = word.text.strip_prefix(sigil).and_then(digits);
    if number == Some(position as u64) {
        return Ok(());
    }
    let expected = format!("{sigil}{position}");
    Err(Problem::OutOfSequence { expected, found: clip(word.text), at: word.span() })
}

fn peak(words: &mut Words<'_>, header: &Header) -> Result<Peak, Problem> {
    let bytes = Bytes(words.word("the bytes of the arena")?.number()?);
    words.keyword("B")?;
    let mut live = Vec::new();
    for class in &header.catalog.classes {
        let expected = format!("`{}=` and a number", class.name);
        let word = words.word(&expected)?;
        let number = word.text.strip_prefix(&*class.name).and_then(|rest| rest.strip_prefix('='));
        let number = number.ok_or_else(|| word.not(&expected))?;
        live.push(small_digits(number).ok_or_else(|| word.bad("a number of buffers", u64::from(u32::MAX)))?);
    }
    words.done()?;
    Ok(Peak { bytes, live })
}

fn lanes<'text>(
    words: &mut Words<'text>,
    plan: &mut RankPlan,
) -> Result<HashMap<&'text str, LaneId>, Problem> {
    let expected = "a lane: `compute`, `send-r1`, `recv-r1` or `g0`";
    let mut ids = HashMap::new();
    while let Some(word) = words.next()? {
        let after = |sigil| word.text.strip_prefix(sigil).and_then(small_digits);
        let lane = if word.text == "compute" {
            Lane::Compute
        } else if let Some(peer) = after("send-r") {
            Lane::Send(Rank(peer))
        } else if let Some(peer) = after("recv-r") {
            Lane::Recv(Rank(peer))
        } else if let Some(group) = after("g") {
            Lane::Group(GroupId(group))
        } else {
            return Err(word.not(expected));
        };
        if ids.insert(word.text, LaneId::new(plan.lanes.len())).is_some() {
            return Err(Problem::DuplicateName { what: "lane", name: clip(word.text), at: word.span() });
        }
        plan.lanes.push(lane);
    }
    Ok(ids)
}

fn buffer<'text>(words: &mut Words<'text>, names: &Names<'text>, position: usize) -> Result<Buffer, Problem> {
    in_sequence(&words.word("a buffer")?, BufferId::SIGIL, position)?;
    let class = ClassId(names.class(&words.word("a class")?)?);
    let shape = catalog::shape(&words.word("a shape, like `[64,128]`")?)?;
    let expected = "`at` and an offset, `tied-gradient`, or `stage-gradient` and a stage";
    let word = words.word(expected)?;
    let place = match word.text {
        "at" => Place::Arena(Bytes(words.word("an offset")?.number()?)),
        "tied-gradient" => Place::TiedGradient,
        "stage-gradient" => Place::StageGradient(stage(words)?),
        _ => return Err(word.not(expected)),
    };
    words.done()?;
    Ok(Buffer { class, shape, place })
}

fn stage(words: &mut Words<'_>) -> Result<Stage, Problem> {
    Ok(Stage(words.word("a stage")?.id(Stage::SIGIL, "a stage, like `s0`")?))
}

fn instr<'text>(
    words: &mut Words<'text>,
    names: &Names<'text>,
    lanes: &HashMap<&'text str, LaneId>,
    position: usize,
    plan: &mut RankPlan,
) -> Result<(), Problem> {
    let title = words.word("an instruction")?;
    in_sequence(&title, InstrId::SIGIL, position)?;
    let word = words.word("a lane")?;
    let lane = lanes.get(word.text).copied();
    let lane = lane.ok_or_else(|| {
        let mut known: Vec<_> = lanes.iter().map(|(name, id)| (*id, *name)).collect();
        known.sort_unstable();
        word.none_of("lane", &mut known.iter().map(|&(_, name)| name))
    })?;
    let overlaps = words.maybe("&")?;
    let op = op(words, names)?;
    let full = |_| Problem::TooManyOperands { at: title.span() };
    let start = u32::try_from(plan.pool.len()).map_err(full)?;
    let counts = operands(words, &mut plan.pool)?;
    let mut fitting = [0; 4];
    for (fitting, count) in fitting.iter_mut().zip(counts) {
        *fitting = u16::try_from(count).map_err(full)?;
    }
    plan.instrs.push(Instr { op, lane, start, counts: fitting, overlaps });
    Ok(())
}

/// The lists at the end of the line, each with its title, in one order; an empty one is left out.
fn operands(words: &mut Words<'_>, pool: &mut Vec<u32>) -> Result<[usize; 4], Problem> {
    const LISTS: [(&str, &str, &str); 4] = [
        ("reads", "b", "a buffer, like `b0`"),
        ("writes", "b", "a buffer, like `b0`"),
        ("frees", "b", "a buffer, like `b0`"),
        ("waits", "i", "an instruction, like `i0`"),
    ];
    let mut counts = [0; 4];
    let mut list = None;
    while let Some(word) = words.next()? {
        let next = list.map_or(0, |list| list + 1);
        let title = LISTS[next..].iter().position(|(title, _, _)| *title == word.text);
        match (title, list) {
            (Some(title), _) => {
                if list.is_some_and(|list| counts[list] == 0) {
                    return Err(word.not("an operand"));
                }
                list = Some(next + title);
            }
            (None, Some(list)) => {
                let (_, sigil, what) = LISTS[list];
                pool.push(word.id(sigil, what)?);
                counts[list] += 1;
            }
            (None, None) => return Err(word.not("`reads`, `writes`, `frees` or `waits`")),
        }
    }
    match list {
        Some(list) if counts[list] == 0 => {
            Err(Problem::MissingWord { expected: LISTS[list].2.to_owned(), at: words.end() })
        }
        _ => Ok(counts),
    }
}

fn op<'text>(words: &mut Words<'text>, names: &Names<'text>) -> Result<Op, Problem> {
    let expected = "a pass like `F.s0.m0`, `send`, `recv`, a collective or `step`";
    let word = words.word(expected)?;
    match word.text {
        "step" => return Ok(Op::Step),
        "send" => {
            let to = Rank(words.word("a rank")?.id(Rank::SIGIL, "a rank, like `r1`")?);
            return Ok(Op::Send { to, value: value(words, names)? });
        }
        "recv" => {
            let from = Rank(words.word("a rank")?.id(Rank::SIGIL, "a rank, like `r1`")?);
            return Ok(Op::Recv { from, value: value(words, names)? });
        }
        _ => {}
    }
    if let Some(&(op, _)) = CollectiveOp::WORDS.iter().find(|(_, name)| *name == word.text) {
        return collective(op, words, names);
    }
    if !word.text.contains('.') {
        return Err(word.not(expected));
    }
    let (pass, rest) = instance(&word, names)?;
    if rest.is_empty() { Ok(Op::Pass(pass)) } else { Err(word.not(expected)) }
}

/// A pass, `F.s0.m0`, and what follows it in the word.
fn instance<'text>(word: &Word<'text>, names: &Names<'text>) -> Result<(Pass, &'text str), Problem> {
    let wrong = || word.not("a pass, like `F.s0.m0`");
    let (name, rest) = word.text.split_once('.').ok_or_else(wrong)?;
    let (place, rest) = rest.split_once('.').ok_or_else(wrong)?;
    let (batch, rest) = unit_name(rest, names);
    let number = |text: &str, sigil| text.strip_prefix(sigil).and_then(small_digits);
    let site = match (number(place, Stage::SIGIL), number(place, Rank::SIGIL)) {
        (Some(stage), _) => Site::Stage(Stage(stage)),
        (None, Some(rank)) => Site::Rank(Rank(rank)),
        (None, None) => return Err(wrong()),
    };
    let microbatch = unit(batch, names).ok_or_else(wrong)?;
    Ok((Pass { kind: KindId(names.kind(name, word)?), site, microbatch }, rest))
}

/// The name of a unit, `m3` or, where sequences are sliced, `m3.1`; and what follows it after a dot.
fn unit_name<'text>(text: &'text str, names: &Names<'_>) -> (&'text str, &'text str) {
    let mut dots = text.match_indices('.').map(|(at, _)| at);
    let end = if names.slices > 1 { dots.nth(1) } else { dots.next() };
    end.map_or((text, ""), |end| (&text[..end], &text[end + 1..]))
}

/// The unit of a name.
fn unit(name: &str, names: &Names<'_>) -> Option<Microbatch> {
    let name = name.strip_prefix(Microbatch::SIGIL)?;
    if names.slices <= 1 {
        return small_digits(name).map(Microbatch);
    }
    let (microbatch, slice) = name.split_once('.')?;
    let slice = small_digits(slice).filter(|&slice| slice < names.slices)?;
    small_digits(microbatch)?.checked_mul(names.slices)?.checked_add(slice).map(Microbatch)
}

fn value<'text>(words: &mut Words<'text>, names: &Names<'text>) -> Result<Value, Problem> {
    let expected = "a value, like `F.s0.m0.o0`";
    let word = words.word(expected)?;
    let (pass, port) = instance(&word, names)?;
    let port = port.strip_prefix(Port::SIGIL).and_then(small_digits).ok_or_else(|| word.not(expected))?;
    Ok(Value { pass, port: Port(port) })
}

fn collective<'text>(
    op: CollectiveOp,
    words: &mut Words<'text>,
    names: &Names<'text>,
) -> Result<Op, Problem> {
    let name = words.name("a collective's name, `tied-gradient` or `stage-gradient`")?;
    let before = words.clone();
    let word = words.word("a microbatch")?;
    let payload = if name.text == "tied-gradient" && word.text == "on" {
        *words = before;
        Payload::TiedGradient
    } else if name.text == "stage-gradient" && word.text.starts_with(Stage::SIGIL) {
        Payload::StageGradient(Stage(word.id(Stage::SIGIL, "a stage, like `s0`")?))
    } else {
        let microbatch = if names.slices > 1 {
            unit(word.text, names).ok_or_else(|| word.not("a slice of a microbatch, like `m0.1`"))?
        } else {
            Microbatch(word.id(Microbatch::SIGIL, "a microbatch, like `m0`")?)
        };
        Payload::Value { collective: CollectiveId(names.collective(&name)?), microbatch }
    };
    words.keyword("on")?;
    let group = GroupId(words.word("a group")?.id(GroupId::SIGIL, "a group, like `g0`")?);
    let root = if words.maybe("root")? {
        Some(Rank(words.word("a rank")?.id(Rank::SIGIL, "a rank, like `r1`")?))
    } else {
        None
    };
    words.keyword("elements")?;
    let elements = words.word("a number of elements")?.number()?;
    Ok(Op::Collective { payload, op, group, root, elements })
}
