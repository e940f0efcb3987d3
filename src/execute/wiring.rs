//! Plan -> channels: which ranks send to each other, which groups meet, and how large their messages get.

use std::collections::BTreeMap;

use super::prepare::Part;
use super::remote::{Outgoing, Remote};
use super::transport::{Board, Doorbells, Mailbox, Mismatch, Seat};
use crate::ir::{CollectiveOp, GroupId, Lane, Op, Plan, Rank, Value};

/// The channels of all ranks.
#[derive(Debug)]
pub(super) struct Network {
    pub(super) bells: Doorbells,
    pub(super) mailboxes: Vec<Mailbox>,
    pub(super) boards: Vec<Board>,
    /// How many collectives a step has on each board.
    per_step: Vec<u64>,
    /// The other processes, where there are any.
    pub(super) remote: Option<Remote>,
    /// Whether buffers move on devices, and none here.
    pub(super) bare: bool,
}

impl Network {
    /// The number of a collective on its board, over all steps.
    pub(super) fn sequence(&self, part: &Part, turn: u64) -> u64 {
        turn * self.per_step[part.board] + part.ordinal
    }

    /// Sends, if the message before has been read.
    pub(super) fn send(&self, place: usize, value: Value, data: &[f32]) -> bool {
        let mailbox = &self.mailboxes[place];
        let sent = mailbox.try_send(value, data, &self.bells);
        if let (true, Some(remote)) = (sent, &self.remote)
            && remote.is_away(mailbox.reader())
        {
            remote.post(remote.home(mailbox.reader()), Outgoing::Mail(place));
        }
        sent
    }

    /// Reads a message, if one has come.
    pub(super) fn receive(&self, place: usize, value: Value, into: &mut [f32]) -> Result<bool, Mismatch> {
        let mailbox = &self.mailboxes[place];
        let read = mailbox.try_receive(value, into, &self.bells)?;
        if let (true, Some(remote)) = (read, &self.remote)
            && remote.is_away(mailbox.writer())
        {
            remote.post(remote.home(mailbox.writer()), Outgoing::Credit(place));
        }
        Ok(read)
    }

    /// Takes part in a collective, with a contribution where this member has one.
    pub(super) fn deposit(&self, part: &Part, seat: Seat, gives: Option<&[f32]>) -> Result<bool, Mismatch> {
        let board = &self.boards[part.board];
        let deposited = board.deposit(seat, part.tag, gives, &self.bells)?;
        if let (true, Some(remote)) = (deposited, &self.remote) {
            let out = Outgoing::Given { board: part.board, seat };
            match (part.tag.op, part.tag.root) {
                (CollectiveOp::Reduce, Some(root)) => remote.post_members(&[root], &out),
                (CollectiveOp::Broadcast, Some(root)) if board.members().get(seat.member) != Some(&root) => {}
                _ => remote.post_members(board.members(), &out),
            }
        }
        Ok(deposited)
    }

    /// Ends a member's part in a collective, once all that it reads is there.
    pub(super) fn collect(
        &self,
        part: &Part,
        seat: Seat,
        into: Option<&mut [f32]>,
    ) -> Result<bool, Mismatch> {
        let board = &self.boards[part.board];
        let collected = board.collect(seat, into, &self.bells)?;
        if let (true, Some(remote)) = (collected, &self.remote) {
            remote.post_members(
                board.members(),
                &Outgoing::Taken { board: part.board, sequence: seat.sequence },
            );
        }
        Ok(collected)
    }

    /// The most that can be on the way to one process, and the largest number of elements of a message.
    pub(super) fn extent(&self) -> (usize, usize) {
        let members: usize = self.boards.iter().map(|board| board.members().len()).sum();
        let mail = self.mailboxes.iter().map(|mailbox| mailbox.bytes() / 4);
        let boards = self.boards.iter().map(|board| board.bytes() / 4);
        let largest = mail.chain(boards).max().unwrap_or(0) as usize;
        (2 * self.mailboxes.len() + 8 * members + 16, largest)
    }

    /// Bytes of the channels' storage.
    pub(super) fn bytes(&self) -> u64 {
        let mail: u64 = self.mailboxes.iter().map(Mailbox::bytes).sum();
        mail + self.boards.iter().map(Board::bytes).sum::<u64>()
    }
}

/// Collectives of a group from the lane of the group, and those from the compute lanes, meet on boards of their own: their order is
/// fixed within each kind of lane only.
pub(super) type BoardKey = (GroupId, bool);

/// Which channels there are and how large their messages get.
pub(super) struct Wiring {
    mailboxes: BTreeMap<(Rank, Rank), usize>,
    boards: BTreeMap<BoardKey, BoardPlan>,
}

#[derive(Default)]
struct BoardPlan {
    contributions: Vec<usize>,
    sum: usize,
    per_step: u64,
}

impl Wiring {
    /// Looks at every instruction once; allocates no channel.
    pub(super) fn of(plan: &Plan) -> Self {
        let mut wiring = Self { mailboxes: BTreeMap::new(), boards: BTreeMap::new() };
        for (rank, rank_plan) in plan.ranks.iter().enumerate() {
            let rank = Rank::new(rank);
            let mut counts: BTreeMap<BoardKey, u64> = BTreeMap::new();
            for instr in &rank_plan.instrs {
                match instr.op {
                    Op::Send { to, .. } => {
                        let first = rank_plan.operands(instr).reads().next();
                        let elements = first.and_then(|id| rank_plan.buffers.get(id.index()));
                        let elements = elements.map_or(0, |buffer| buffer.elements() as usize);
                        let largest = wiring.mailboxes.entry((rank, to)).or_default();
                        *largest = elements.max(*largest);
                    }
                    Op::Recv { from, .. } => {
                        wiring.mailboxes.entry((from, rank)).or_default();
                    }
                    Op::Collective { op, group, elements, .. } => {
                        let key = (group, rank_plan.lane(instr) == Lane::Compute);
                        let members = plan.header.groups.get(group.index()).map_or(&[][..], |group| &group.0);
                        let board = wiring.boards.entry(key).or_default();
                        board.contributions.resize(members.len(), 0);
                        let gives = !rank_plan.operands(instr).reads.is_empty();
                        if let Some(member) = members.iter().position(|&other| other == rank)
                            && gives
                        {
                            let largest = &mut board.contributions[member];
                            *largest = (elements as usize).max(*largest);
                        }
                        if op == CollectiveOp::AllReduce {
                            board.sum = board.sum.max(elements as usize);
                        }
                        *counts.entry(key).or_default() += 1;
                    }
                    Op::Pass(_) | Op::Step => {}
                }
            }
            for (key, count) in counts {
                let board = wiring.boards.entry(key).or_default();
                board.per_step = board.per_step.max(count);
            }
        }
        wiring
    }

    /// Allocates the channels; without storage, where buffers move on devices. Every group that collectives name exists.
    pub(super) fn build(&self, plan: &Plan, bare: bool) -> Network {
        let room = |elements: usize| if bare { 0 } else { elements };
        let mailbox =
            |(&(from, to), &elements): (&(Rank, Rank), &usize)| Mailbox::new(from, to, room(elements));
        let mailboxes = self.mailboxes.iter().map(mailbox).collect();
        let boards = self.boards.iter().map(|((group, _), board)| {
            let members = plan.header.groups[group.index()].0.clone();
            let contributions: Vec<usize> =
                board.contributions.iter().map(|&elements| room(elements)).collect();
            Board::new(members, &contributions, room(board.sum))
        });
        Network {
            bells: Doorbells::new(plan.ranks.len()),
            mailboxes,
            boards: boards.collect(),
            per_step: self.boards.values().map(|board| board.per_step).collect(),
            remote: None,
            bare,
        }
    }

    /// The position of a mailbox.
    pub(super) fn mailbox(&self, from: Rank, to: Rank) -> Option<usize> {
        self.mailboxes.keys().position(|&key| key == (from, to))
    }

    /// The position of a board.
    pub(super) fn board(&self, key: BoardKey) -> Option<usize> {
        self.boards.keys().position(|&other| other == key)
    }
}
