//! What ranks do together: messages and collectives, on this device or between it and those of other processes.

use std::ops::Range;

use super::RunError;
use super::channels::{Channels, what};
use super::exchange::{Exchange, Member, message};
use super::ranks::RankState;
use super::script::{Place, Walk};
use crate::cuda::{Address, Move, Transfer};
use crate::execute::ExecuteError;
use crate::execute::prepare::{Action, Entry, Operand, Part};
use crate::ir::{Payload, Rank};
use crate::kernels::Stored;

impl Walk<'_> {
    /// Moves a buffer: on this device, or between it and another.
    pub(super) fn message(
        &mut self,
        mailbox: usize,
        (from, gives): (Place, &Range<usize>),
        (to, gets): (Place, &Range<usize>),
    ) {
        let place = |at: Place, range: &Range<usize>| {
            let own = self.own(at.0)?;
            Some((own.lanes[at.1], own.arena.plus(4 * range.start as u64)))
        };
        let words = gets.len() as u64;
        let ends = (place(from, gives), place(to, gets));
        let calls = &mut self.steps.calls;
        let channel = Channels::pair(mailbox);
        let transfer = |what, from, to| Transfer { channel, what, from, to, words, stored: Stored::F32 };
        match ends {
            (Some(from), Some(to)) => message(calls, from, to, 4 * words),
            (Some((lane, from)), None) => calls.transfer(lane.queue, transfer(Move::Send, Some(from), None)),
            (None, Some((lane, to))) => calls.transfer(lane.queue, transfer(Move::Receive, None, Some(to))),
            (None, None) => {}
        }
    }

    /// Issues a collective, if all its members have come to it; how many instructions these are.
    pub(super) fn collective(&mut self, part: &Part) -> Result<usize, RunError> {
        let places = self.boards.get(&part.board).cloned().unwrap_or_default();
        let mut parts: Vec<(Place, &Entry, &Part)> = Vec::new();
        for &at in &places {
            let Some(entry) = self.ready(at) else { return Ok(0) };
            let Action::Collective(other) = &entry.action else { return Ok(0) };
            if other.board != part.board || other.ordinal != part.ordinal || other.tag != part.tag {
                return Ok(0);
            }
            parts.push((at, entry, other));
        }
        let mut members = Vec::new();
        for &(at, entry, part) in &parts {
            self.wait(at, entry);
            if let (Some(lane), Some(rank)) = (self.queue(at), self.own(at.0)) {
                let [gives, gets] = [&part.gives, &part.gets].map(|operand| place_of(rank, operand.as_ref()));
                members.push(Member { lane, gives, gets });
            }
        }
        let stored = self.summed(part);
        match members[..] {
            [] => {}
            _ if members.len() == parts.len() => {
                let root = parts.iter().position(|(at, ..)| part.tag.root == Some(Rank::new(at.0)));
                let (op, elements, root) = (part.tag.op, part.tag.elements, root.unwrap_or(0));
                let (calls, hidden) = (&mut self.steps.calls, self.ranks[0].shape.hidden);
                Exchange { calls, members: &members, op, root, elements, stored, hidden }.run();
            }
            [member] => self.transfer(part, member, &places, stored),
            _ => {
                let reason = "some of its members are on one device, and others are not".to_owned();
                let (at, entry, _) = parts[0];
                let (rank, instr) = (Rank::new(at.0), entry.instr);
                return Err(ExecuteError::Malformed { rank, instr, reason }.into());
            }
        }
        for &at in &places {
            self.advance(at);
        }
        Ok(places.len())
    }

    /// The part of this process's only member in a collective with those of others.
    fn transfer(&mut self, part: &Part, member: Member, places: &[Place], stored: Stored) {
        let ranks: Vec<usize> = places.iter().map(|at| at.0).collect();
        let what = what(part, &ranks);
        let own = ranks.iter().copied().find(|rank| self.local.contains(rank)).map(Rank::new);
        let is_root = part.tag.root == own;
        let needs = !matches!(what, Move::Reduce { .. }) || is_root;
        let to = member.gets.or_else(|| needs.then_some(self.spill));
        let channel = self.channels.board(part.board);
        let words = part.tag.elements;
        let transfer = Transfer { channel, what, from: member.gives, to, words, stored };
        self.steps.calls.transfer(member.lane.queue, transfer);
    }

    /// What the contributions of a collective are: activations, but for statistics and the gradients of parameters.
    fn summed(&self, part: &Part) -> Stored {
        let Payload::Value { collective, .. } = part.tag.payload else { return Stored::F32 };
        let catalog = &self.header.catalog;
        let collective = catalog.collective(collective);
        let class = catalog.kind(collective.kind).gives.get(collective.port.index());
        let statistics = class.is_none_or(|&class| catalog.class(class).name == "stats");
        if statistics { Stored::F32 } else { self.ranks[0].shape.stored }
    }
}

/// Where an operand of a collective lies.
fn place_of(rank: &RankState, operand: Option<&Operand>) -> Option<Address> {
    match operand? {
        Operand::Arena(range) => Some(rank.arena.plus(4 * range.start as u64)),
        Operand::TiedGradient => rank.parameters.tied,
        Operand::StageGradient(stage) => rank.parameters.stage_gradient(*stage),
    }
}
