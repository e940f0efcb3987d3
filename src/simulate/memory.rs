//! Timeline -> what each rank holds when: bytes by class over time, the peak, its moment and its owners.
//!
//! A buffer is live from the start of the instruction that writes it to the end of the one that frees it. What of it is live at once fits the
//! arena that the plan states: a slot is written again only when the one who freed it has ended. Of what happens at one moment, first
//! those end that started before it, then the rest follows in the order of the list.

use super::Timeline;
use crate::ir::{Bytes, Header, InstrId, Microbatch, Op, Payload, Place, Rank, RankPlan, Site, Ticks};
use crate::verify::Verified;

/// What a rank holds when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RankMemory {
    /// The classes of buffer, as the catalog has them.
    pub classes: Vec<String>,
    /// When what is held changes, ascending. A moment comes twice where more is held for no time at all: first with it, then without.
    pub moments: Vec<Ticks>,
    /// What is held from each moment to the next, by moment, then by class: the plan's own buffers.
    pub bytes: Vec<Vec<u64>>,
    /// The moment of the most bytes.
    pub peak: Peak,
    /// What an executor allocates for the buffers: what the plan states. At least the peak: slots of different size do not always fit.
    pub arena: Bytes,
}

/// The moment at which a rank holds the most bytes; the first of several.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Peak {
    /// When.
    pub at: Ticks,
    /// How many.
    pub bytes: Bytes,
    /// Of each class.
    pub by_class: Vec<u64>,
    /// The buffers that are live then, in the order in which they were written.
    pub owners: Vec<Owner>,
}

/// Who wrote a buffer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    /// The pass that made the value, here or on the rank that sent it, or the collective: `F`, `C1.stats`.
    pub kind: String,
    /// Where the pass runs; `None` for a collective.
    pub site: Option<Site>,
    /// For which microbatch, or slice of one.
    pub microbatch: Option<Microbatch>,
    /// The class of the buffer.
    pub class: String,
    /// Its size.
    pub bytes: Bytes,
    /// The instruction that wrote it.
    pub instr: InstrId,
}

/// What every rank holds over time, by [`Rank`].
#[must_use]
pub fn memory(plan: &Verified, timeline: &Timeline) -> Vec<RankMemory> {
    let of_rank = |rank| {
        let mut series = Series::default();
        let peak = scan(plan, timeline, rank, Some(&mut series));
        let Series { moments, bytes } = series;
        let classes = plan.header.catalog.classes.iter().map(|class| class.name.clone()).collect();
        RankMemory { classes, moments, bytes, peak, arena: plan.ranks[rank.index()].peak.bytes }
    };
    Rank::all(plan.ranks.len()).map(of_rank).collect()
}

/// The peak of every rank, by [`Rank`], without what comes before and after.
#[must_use]
pub fn memory_peaks(plan: &Verified, timeline: &Timeline) -> Vec<Peak> {
    Rank::all(plan.ranks.len()).map(|rank| memory_peak(plan, timeline, rank)).collect()
}

/// The peak of one rank.
#[must_use]
pub fn memory_peak(plan: &Verified, timeline: &Timeline, rank: Rank) -> Peak {
    scan(plan, timeline, rank, None)
}

/// What is held over time, as it is found.
#[derive(Default)]
struct Series {
    moments: Vec<Ticks>,
    bytes: Vec<Vec<u64>>,
}

/// A buffer is written or freed. Ordered as things happen.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Event {
    at: Ticks,
    /// Whether it is a write, or a free by what starts at this moment: those come after what ends now and started before.
    late: bool,
    instr: u32,
    frees: bool,
    buffer: u32,
}

fn events(plan: &RankPlan, timeline: &Timeline, rank: Rank) -> Vec<Event> {
    let mut events = Vec::new();
    for (id, instr) in plan.instrs.iter().enumerate() {
        let id = InstrId::new(id);
        let (start, end) = (timeline.start(rank, id), timeline.end(rank, id));
        let operands = plan.operands(instr);
        // What lies beside the parameters is there all the time, and is none of the plan's buffers.
        let in_arena = |buffer: &&u32| matches!(plan.buffers[**buffer as usize].place, Place::Arena(_));
        events.extend(operands.writes.iter().filter(in_arena).map(|&buffer| Event {
            at: start,
            late: true,
            instr: id.0,
            frees: false,
            buffer,
        }));
        let late = end == start;
        events.extend(operands.frees.iter().filter(in_arena).map(|&buffer| Event {
            at: end,
            late,
            instr: id.0,
            frees: true,
            buffer,
        }));
    }
    events.sort_unstable();
    events
}

/// Runs through a rank's events for its peak, and keeps what is held after each moment.
fn scan(plan: &Verified, timeline: &Timeline, rank: Rank, mut series: Option<&mut Series>) -> Peak {
    let ours = &plan.ranks[rank.index()];
    let events = events(ours, timeline, rank);
    let sizes: Vec<u64> = ours.buffers.iter().map(|buffer| buffer.bytes().0).collect();
    let mut now = vec![0_u64; plan.header.catalog.classes.len()];
    let (mut sum, mut most, mut most_at) = (0_u64, 0_u64, None);
    // The most within the moment, which is shown where less is left after it.
    let mut spike: Option<(u64, Vec<u64>)> = None;
    for (number, event) in events.iter().enumerate() {
        let (size, class) = (sizes[event.buffer as usize], ours.buffers[event.buffer as usize].class.index());
        if event.frees {
            if series.is_some() && event.late && spike.as_ref().is_none_or(|(most, _)| sum > *most) {
                spike = Some((sum, now.clone()));
            }
            (now[class], sum) = (now[class] - size, sum - size);
        } else {
            (now[class], sum) = (now[class] + size, sum + size);
            if sum > most {
                (most, most_at) = (sum, Some(number));
            }
        }
        let over = events.get(number + 1).is_none_or(|next| next.at != event.at);
        if let Some(series) = series.as_deref_mut().filter(|_| over) {
            if let Some((_, held)) = spike.take().filter(|(most, _)| *most > sum) {
                series.moments.push(event.at);
                series.bytes.push(held);
            }
            series.moments.push(event.at);
            series.bytes.push(now.clone());
        }
    }
    let Some(number) = most_at else { return Peak { by_class: now, ..Peak::default() } };
    owners(&plan.header, ours, &events[..=number], Bytes(most))
}

/// The buffers that are live after some events.
fn owners(header: &Header, plan: &RankPlan, events: &[Event], bytes: Bytes) -> Peak {
    let mut live = std::collections::BTreeMap::new();
    for (number, event) in events.iter().enumerate() {
        if event.frees {
            live.remove(&event.buffer);
        } else {
            live.insert(event.buffer, number);
        }
    }
    let mut numbers: Vec<usize> = live.into_values().collect();
    numbers.sort_unstable();
    let mut by_class = vec![0; header.catalog.classes.len()];
    let owner = |number: usize| {
        let Event { buffer, instr, .. } = events[number];
        let buffer = &plan.buffers[buffer as usize];
        by_class[buffer.class.index()] += buffer.bytes().0;
        let (kind, site, microbatch) = origin(header, &plan.instrs[instr as usize].op);
        let class = header.catalog.class(buffer.class).name.clone();
        Owner { kind, site, microbatch, class, bytes: buffer.bytes(), instr: InstrId(instr) }
    };
    let owners = numbers.into_iter().map(owner).collect();
    Peak { at: events.last().map_or(Ticks(0), |event| event.at), bytes, by_class, owners }
}

/// What made the value that an instruction writes.
fn origin(header: &Header, op: &Op) -> (String, Option<Site>, Option<Microbatch>) {
    let pass = match op {
        Op::Pass(pass) => *pass,
        Op::Send { value, .. } | Op::Recv { value, .. } => value.pass,
        Op::Collective { payload: Payload::Value { collective, microbatch }, .. } => {
            return (header.catalog.collective(*collective).name.clone(), None, Some(*microbatch));
        }
        Op::Collective { .. } => return ("gradient sum".to_owned(), None, None),
        Op::Step => return ("step".to_owned(), None, None),
    };
    (header.catalog.kind(pass.kind).name.clone(), Some(pass.site), Some(pass.microbatch))
}
