//! Plan -> calls: walks the lanes of all ranks in an order in which every record comes before the waits for it.
//!
//! A message or a collective is issued when all its members have come to it, which a plan that was proven free of deadlock under
//! rendezvous always allows. One instruction of each lane at a time, so that no rank gets far ahead.
//!
//! Where other processes have some of the ranks, each walks over all, and keeps the calls of its own: what they move between each other is
//! then issued in one order everywhere, whatever the channels.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use super::RunError;
use super::calls::Calls;
use super::channels::{Channels, result_words, what};
use super::passes::{Feed, Lists, PassRun};
use super::ranks::{LaneQueue, RankState};
use super::recorder::Marks;
use crate::cuda::{Address, Device, Event, Queue};
use crate::execute::ExecuteError;
use crate::execute::prepare::{Action, Entry, Script};
use crate::execute::watchdog::Drill;
use crate::ir::{Compute, Header, Rank};

/// A lane of a rank.
pub(super) type Place = (usize, usize);

/// The calls of a step, and where the losses come up.
#[derive(Debug)]
pub(super) struct Steps {
    pub(super) calls: Calls,
    pub(super) lists: Lists,
    /// By rank of this process, then by unit: whether a pass gives its loss.
    pub(super) losses: Vec<Vec<bool>>,
}

/// How many places the lists of earlier slices take.
pub(super) fn listed(scripts: &[Arc<Script>], ranks: &[RankState]) -> u64 {
    let most = |rank: &RankState| rank.held.stages.iter().map(|stage| stage.layers.len()).max().unwrap_or(0);
    let passes = |script: &Arc<Script>| -> usize {
        let entries = script.lanes.iter().flatten();
        entries
            .map(
                |entry| {
                    if let Action::Pass { places, .. } = &entry.action { places.earlier.len() } else { 0 }
                },
            )
            .sum()
    };
    scripts.iter().zip(ranks).map(|(script, rank)| (passes(script) * most(rank)) as u64).sum()
}

/// The most bytes that a member of a collective gets and does not keep.
pub(super) fn spilled(scripts: &[Arc<Script>]) -> u64 {
    let bytes = |entry: &Entry| match &entry.action {
        // There are no more members than ranks.
        Action::Collective(part) if part.gets.is_none() => {
            4 * result_words(what(part, &[]), part.tag.elements, scripts.len())
        }
        _ => 0,
    };
    scripts.iter().flat_map(|script| script.lanes.iter().flatten()).map(bytes).max().unwrap_or(0)
}

/// The walk over a plan.
pub(super) struct Walk<'a> {
    pub(super) header: &'a Header,
    scripts: &'a [Arc<Script>],
    /// Those of this process: neighbours.
    pub(super) ranks: &'a [RankState],
    pub(super) local: Range<usize>,
    pub(super) channels: &'a Channels,
    /// Where results go that nobody reads.
    pub(super) spill: Address,
    feed: Feed,
    drill: Option<Drill>,
    /// The event after each instruction that others wait for, by rank, lane and position.
    events: Vec<Vec<Vec<Option<Event>>>>,
    /// The next instruction of each lane, by rank.
    heads: Vec<Vec<usize>>,
    /// Who sends to each mailbox.
    senders: BTreeMap<usize, Place>,
    /// Who meets on each board, in rank order.
    pub(super) boards: BTreeMap<usize, Vec<Place>>,
    /// Events around every instruction, where a step is recorded.
    marks: Option<&'a Marks>,
    pub(super) steps: Steps,
}

impl<'a> Walk<'a> {
    /// Gets ready: an event for each instruction that others wait for.
    pub(super) fn new(
        header: &'a Header,
        scripts: &'a [Arc<Script>],
        (ranks, local): (&'a [RankState], Range<usize>),
        channels: &'a Channels,
        feed: Feed,
        lists: Address,
        device: &mut impl Device,
    ) -> Result<Self, RunError> {
        let units = header.cut().units() as usize;
        let steps = Steps {
            calls: Calls::default(),
            lists: Lists { start: lists, pointers: Vec::new() },
            losses: vec![vec![false; units]; ranks.len()],
        };
        let lanes = |script: &Arc<Script>| script.lanes.iter().map(|lane| vec![None; lane.len()]).collect();
        let heads = scripts.iter().map(|script| vec![0; script.lanes.len()]).collect();
        let mut walk = Self {
            header,
            scripts,
            ranks,
            local,
            channels,
            spill: Address::default(),
            feed,
            drill: None,
            events: scripts.iter().map(lanes).collect(),
            heads,
            senders: BTreeMap::new(),
            boards: BTreeMap::new(),
            marks: None,
            steps,
        };
        for (rank, script) in scripts.iter().enumerate() {
            for (lane, entries) in script.lanes.iter().enumerate() {
                for entry in entries {
                    walk.look_at(entry, (rank, lane), device)?;
                }
            }
        }
        Ok(walk)
    }

    /// Marks where every instruction begins and ends; the optimizer's steps come after the list.
    pub(super) fn marked(self, marks: Option<&'a Marks>) -> Self {
        Self { marks, ..self }
    }

    /// Acts out a failure.
    pub(super) fn drilled(self, drill: Option<Drill>) -> Self {
        Self { drill, ..self }
    }

    /// Has a place for results that nobody reads.
    pub(super) fn spilling(self, spill: Address) -> Self {
        Self { spill, ..self }
    }

    /// Notes who meets whom, and makes the events that an instruction waits for.
    fn look_at(&mut self, entry: &Entry, at: Place, device: &mut impl Device) -> Result<(), RunError> {
        match &entry.action {
            Action::Send { mailbox, .. } => {
                self.senders.insert(*mailbox, at);
            }
            Action::Collective(part) => {
                let members = self.boards.entry(part.board).or_default();
                if !members.contains(&at) {
                    members.push(at);
                }
            }
            _ => {}
        }
        if self.own(at.0).is_none() {
            return Ok(());
        }
        for wait in entry.waits.iter().filter(|wait| wait.lane as usize != at.1) {
            let event = &mut self.events[at.0][wait.lane as usize][wait.position as usize];
            if event.is_none() {
                *event = Some(device.event(false)?);
            }
        }
        Ok(())
    }

    fn head(&self, (rank, lane): Place) -> Option<&'a Entry> {
        self.scripts[rank].lanes[lane].get(self.heads[rank][lane])
    }

    /// A rank, if it is one of this process.
    pub(super) fn own(&self, rank: usize) -> Option<&'a RankState> {
        self.ranks.get(rank.checked_sub(self.local.start)?)
    }

    pub(super) fn queue(&self, (rank, lane): Place) -> Option<LaneQueue> {
        Some(self.own(rank)?.lanes[lane])
    }

    /// The head of a lane, if all that it waits for was issued.
    pub(super) fn ready(&self, at: Place) -> Option<&'a Entry> {
        let heads = &self.heads[at.0];
        self.head(at)
            .filter(|entry| entry.waits.iter().all(|wait| heads[wait.lane as usize] > wait.position as usize))
    }

    /// Lets a lane wait for what its head waits for on other lanes.
    pub(super) fn wait(&mut self, at: Place, entry: &Entry) {
        let Some(LaneQueue { queue, .. }) = self.queue(at) else { return };
        for wait in entry.waits.iter().filter(|wait| wait.lane as usize != at.1) {
            if let Some(event) = self.events[at.0][wait.lane as usize][wait.position as usize] {
                self.steps.calls.wait(queue, event);
            }
        }
        if let Some(drill) =
            self.drill.filter(|drill| (drill.rank.index(), drill.instr) == (at.0, entry.instr))
        {
            self.steps.calls.drill(queue, drill.failure);
        }
        self.mark(at, entry, 0);
    }

    /// Marks the begin of an instruction, or its end.
    fn mark(&mut self, at: Place, entry: &Entry, which: usize) {
        let Some(marks) = self.marks.filter(|_| !matches!(entry.action, Action::Step)) else { return };
        if let Some(lane) = self.queue(at) {
            self.steps.calls.record(marks.of(at.0, entry.instr)[which], lane.queue);
        }
    }

    /// Goes on to the next instruction of a lane, marks the end of this one, and lets the host know of it.
    pub(super) fn advance(&mut self, at: Place) {
        if let Some(entry) = self.head(at) {
            self.mark(at, entry, 1);
        }
        let head = &mut self.heads[at.0][at.1];
        let event = self.events[at.0][at.1][*head];
        *head += 1;
        let ended = *head;
        let Some(lane) = self.queue(at) else { return };
        if let Some(event) = event {
            self.steps.calls.record(event, lane.queue);
        }
        let before: usize = self.ranks[..at.0 - self.local.start].iter().map(|rank| rank.lanes.len()).sum();
        self.steps.calls.count(lane.queue, before + at.1, ended);
    }

    /// Issues everything, from a moment of `origin` to where it has waited for all lanes.
    ///
    /// # Errors
    /// The ranks cannot all meet without messages that are kept on the way.
    pub(super) fn run(mut self, origin: Queue, device: &mut impl Device) -> Result<Steps, RunError> {
        let ranks = self.ranks;
        let queues = || ranks.iter().flat_map(|rank| &rank.lanes).map(|lane| lane.queue);
        let begin = device.event(false)?;
        self.steps.calls.record(begin, origin);
        queues().for_each(|queue| self.steps.calls.wait(queue, begin));
        let total: usize = self.scripts.iter().map(|script| script.total).sum();
        let mut left = total;
        while left > 0 {
            let before = left;
            for rank in 0..self.scripts.len() {
                for lane in 0..self.scripts[rank].lanes.len() {
                    left -= self.issue((rank, lane))?;
                }
            }
            if left == before {
                return Err(self.stuck());
            }
        }
        for lane in ranks.iter().flat_map(|rank| &rank.lanes) {
            self.steps.calls.record(lane.done, lane.queue);
            self.steps.calls.wait(origin, lane.done);
        }
        Ok(self.steps)
    }

    fn stuck(&self) -> RunError {
        let lanes = |rank: usize| (0..self.heads[rank].len()).map(move |lane| (rank, lane));
        let first = (0..self.heads.len()).flat_map(lanes).find_map(|at| Some((at.0, self.head(at)?.instr)));
        let (rank, instr) = first.unwrap_or_default();
        let reason = "it waits for ranks that cannot come to it on one device".to_owned();
        ExecuteError::Malformed { rank: Rank::new(rank), instr, reason }.into()
    }

    /// Issues what stands at the head of a lane, with all that meet it there; how many instructions these are.
    fn issue(&mut self, at: Place) -> Result<usize, RunError> {
        let Some(entry) = self.ready(at) else { return Ok(0) };
        match &entry.action {
            // Is issued with its receive.
            Action::Send { .. } => Ok(0),
            Action::Recv { mailbox, into, .. } => {
                let from = self.senders.get(mailbox).copied();
                let Some((from, send)) = from.and_then(|from| Some((from, self.ready(from)?))) else {
                    return Ok(0);
                };
                let Action::Send { from: range, .. } = &send.action else { return Ok(0) };
                self.wait(from, send);
                self.wait(at, entry);
                self.message(*mailbox, (from, range), (at, into));
                self.advance(from);
                self.advance(at);
                Ok(2)
            }
            Action::Collective(part) => self.collective(part),
            Action::Pass { .. } => {
                self.wait(at, entry);
                self.pass(at, entry)?;
                self.advance(at);
                Ok(1)
            }
            Action::Step => {
                self.wait(at, entry);
                self.advance(at);
                Ok(1)
            }
        }
    }

    fn pass(&mut self, at: Place, entry: &Entry) -> Result<(), RunError> {
        let Action::Pass { compute, pass, places } = &entry.action else { return Ok(()) };
        let (Some(rank), Some(LaneQueue { queue, .. })) = (self.own(at.0), self.queue(at)) else {
            return Ok(());
        };
        let beside = matches!(compute, Compute::OutputRescale | Compute::OutputLoss | Compute::Release);
        if at.1 != 0 && !beside {
            let reason = format!("`{compute}` runs beside the compute lane, and shares its scratch");
            return Err(ExecuteError::Malformed { rank: Rank::new(at.0), instr: entry.instr, reason }.into());
        }
        let second = Compute::OutputSoftmaxGrad;
        let exponentials = self.header.catalog.kinds.iter().any(|kind| kind.computes == Some(second));
        let Steps { calls, lists, losses } = &mut self.steps;
        let mut run =
            PassRun { rank, pass: *pass, places, feed: self.feed, lists, exponentials, beside: at.1 != 0 };
        if run.run(*compute, queue, calls) {
            losses[at.0 - self.local.start][pass.microbatch.index()] = true;
        }
        Ok(())
    }
}
