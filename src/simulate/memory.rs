//! Timeline -> what each rank holds when: bytes by class over time, the peak, its moment and its owners.
//!
//! A buffer is live from the start of the instruction that writes it to the end of the one that frees it. What of it is live at once fits the
//! arena that the plan states: a slot is written again only when the one who freed it has ended. Of what happens at one moment, first
//! those end that started before it, then the rest follows in the order of the list.

use super::Timeline;
use crate::cost::Weights;
use crate::ir::{Bytes, Header, InstrId, Microbatch, Op, Payload, Place, Rank, RankPlan, Site, Ticks};
use crate::verify::Verified;

/// What a rank holds when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RankMemory {
    /// The classes of buffer, as the catalog has them; on a device also `workspace`, of the pass that runs.
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

/// What every rank holds over time, by [`Rank`]: the plan's own buffers, in f32.
#[must_use]
pub fn memory(plan: &Verified, timeline: &Timeline) -> Vec<RankMemory> {
    memory_on(plan, timeline, None)
}

/// The same as it would be on a device, where buffers take what they weigh there.
#[must_use]
pub fn memory_on(plan: &Verified, timeline: &Timeline, device: Option<&Weights<'_>>) -> Vec<RankMemory> {
    let of_rank = |rank| {
        let mut series = Series::default();
        let peak = Scan::of(plan, timeline, rank, device).run(Some(&mut series));
        let Series { moments, bytes } = series;
        let classes = class_names(&plan.header, device.is_some());
        RankMemory { classes, moments, bytes, peak, arena: plan.ranks[rank.index()].peak.bytes }
    };
    Rank::all(plan.ranks.len()).map(of_rank).collect()
}

/// The classes that memory is told apart by.
pub(super) fn class_names(header: &Header, on_device: bool) -> Vec<String> {
    let own = header.catalog.classes.iter().map(|class| class.name.clone());
    own.chain(on_device.then(|| WORKSPACE.to_owned())).collect()
}

/// The class of what a pass takes beside its buffers while it runs.
const WORKSPACE: &str = "workspace";

/// The buffer of an event that is a pass's workspace; a rank has fewer than 2^31 buffers.
const NO_BUFFER: u32 = u32::MAX;

/// The peak of every rank, by [`Rank`], without what comes before and after.
#[must_use]
pub fn memory_peaks(plan: &Verified, timeline: &Timeline) -> Vec<Peak> {
    Rank::all(plan.ranks.len()).map(|rank| memory_peak(plan, timeline, rank, None)).collect()
}

/// The peak of one rank, in the plan's own bytes or in those of a device.
#[must_use]
pub fn memory_peak(plan: &Verified, timeline: &Timeline, rank: Rank, device: Option<&Weights<'_>>) -> Peak {
    Scan::of(plan, timeline, rank, device).run(None)
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

/// A rank's events, and what each of its buffers weighs.
struct Scan<'a> {
    header: &'a Header,
    plan: &'a RankPlan,
    device: Option<&'a Weights<'a>>,
    events: Vec<Event>,
    /// What the last writer put into each buffer, in bytes.
    held: Vec<u64>,
}

/// What is live now.
struct Live {
    by_class: Vec<u64>,
    sum: u64,
}

impl<'a> Scan<'a> {
    fn of(plan: &'a Verified, timeline: &Timeline, rank: Rank, device: Option<&'a Weights<'a>>) -> Self {
        let ours = &plan.ranks[rank.index()];
        let mut events = Vec::new();
        for (id, instr) in ours.instrs.iter().enumerate() {
            let id = InstrId::new(id);
            let (start, end) = (timeline.start(rank, id), timeline.end(rank, id));
            let operands = ours.operands(instr);
            let works = device.is_some_and(|device| device.workspace(instr) > 0).then_some(&NO_BUFFER);
            // What lies beside the parameters is there all the time, and is none of the plan's buffers.
            let in_arena = |buffer: &&u32| matches!(ours.buffers[**buffer as usize].place, Place::Arena(_));
            let write = |&buffer: &u32| Event { at: start, late: true, instr: id.0, frees: false, buffer };
            events.extend(operands.writes.iter().filter(in_arena).chain(works).map(write));
            let late = end == start;
            let free = |&buffer: &u32| Event { at: end, late, instr: id.0, frees: true, buffer };
            events.extend(operands.frees.iter().filter(in_arena).chain(works).map(free));
        }
        events.sort_unstable();
        Self { header: &plan.header, plan: ours, device, events, held: vec![0; ours.buffers.len()] }
    }

    /// The class of an event, and what it adds or takes away.
    fn weigh(&mut self, event: Event) -> (usize, u64) {
        let instr = &self.plan.instrs[event.instr as usize];
        if event.buffer == NO_BUFFER {
            let bytes = self.device.map_or(0, |device| device.workspace(instr));
            return (self.header.catalog.classes.len(), bytes);
        }
        let buffer = &self.plan.buffers[event.buffer as usize];
        let held = &mut self.held[event.buffer as usize];
        if !event.frees {
            *held = self.device.map_or_else(|| buffer.bytes().0, |device| device.written(instr, buffer));
        }
        (buffer.class.index(), *held)
    }

    fn apply(&mut self, event: Event, live: &mut Live) {
        let (class, bytes) = self.weigh(event);
        if event.frees {
            live.by_class[class] -= bytes;
            live.sum -= bytes;
        } else {
            live.by_class[class] += bytes;
            live.sum += bytes;
        }
    }

    fn nothing(&self) -> Live {
        let classes = self.header.catalog.classes.len() + usize::from(self.device.is_some());
        Live { by_class: vec![0; classes], sum: 0 }
    }

    /// Runs through the events for the peak, and keeps what is held after each moment.
    fn run(mut self, mut series: Option<&mut Series>) -> Peak {
        let mut live = self.nothing();
        let mut most: Option<(u64, usize)> = None;
        // The most within the moment, which is shown where less is left after it.
        let mut spike: Option<(u64, Vec<u64>)> = None;
        for number in 0..self.events.len() {
            let event = self.events[number];
            let more = spike.as_ref().is_none_or(|(most, _)| live.sum > *most);
            if series.is_some() && event.frees && event.late && more {
                spike = Some((live.sum, live.by_class.clone()));
            }
            self.apply(event, &mut live);
            if most.is_none_or(|(most, _)| live.sum > most) {
                most = Some((live.sum, number));
            }
            let over = self.events.get(number + 1).is_none_or(|next| next.at != event.at);
            if let Some(series) = series.as_deref_mut().filter(|_| over) {
                if let Some((_, held)) = spike.take().filter(|(most, _)| *most > live.sum) {
                    series.moments.push(event.at);
                    series.bytes.push(held);
                }
                series.moments.push(event.at);
                series.bytes.push(live.by_class.clone());
            }
        }
        match most {
            Some((_, number)) => self.peak(number),
            None => Peak { by_class: live.by_class, ..Peak::default() },
        }
    }

    /// The peak after an event, and the buffers that are live then.
    fn peak(&mut self, number: usize) -> Peak {
        let mut live = self.nothing();
        let mut open = std::collections::BTreeMap::new();
        for at in 0..=number {
            let event = self.events[at];
            self.apply(event, &mut live);
            // Passes that run at once have a workspace each.
            let key = (event.buffer, if event.buffer == NO_BUFFER { event.instr } else { 0 });
            if event.frees {
                open.remove(&key);
            } else {
                open.insert(key, at);
            }
        }
        let mut writes: Vec<usize> = open.into_values().collect();
        writes.sort_unstable();
        let owners = writes.into_iter().map(|at| self.owner(self.events[at])).collect();
        Peak { at: self.events[number].at, bytes: Bytes(live.sum), by_class: live.by_class, owners }
    }

    fn owner(&self, event: Event) -> Owner {
        let instr = &self.plan.instrs[event.instr as usize];
        let (kind, site, microbatch) = origin(self.header, &instr.op);
        let (class, bytes) = match self.plan.buffers.get(event.buffer as usize) {
            Some(buffer) => {
                (self.header.catalog.class(buffer.class).name.clone(), self.held[event.buffer as usize])
            }
            None => (WORKSPACE.to_owned(), self.device.map_or(0, |device| device.workspace(instr))),
        };
        Owner { kind, site, microbatch, class, bytes: Bytes(bytes), instr: InstrId(event.instr) }
    }
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
