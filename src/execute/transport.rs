//! What moves between ranks of one process: a mailbox for each directed pair, a board for each group, a doorbell for each rank.
//!
//! Everything is allocated before the first step. A mailbox holds one message: its storage travels to the reader and comes back, so a
//! send ends when the one before it has been read. On a board the members of a group deposit and collect in their k-th collective;
//! two rounds are open at once. Sums are taken in rank order, so that they repeat bit for bit.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded};

use crate::ir::{CollectiveOp, Payload, Rank, Value};

/// Wakes ranks that wait for something to be delivered to them.
#[derive(Debug)]
pub(super) struct Doorbells(Vec<(Sender<()>, Receiver<()>)>);

impl Doorbells {
    /// One doorbell for each rank.
    pub(super) fn new(ranks: usize) -> Self {
        Self((0..ranks).map(|_| bounded(1)).collect())
    }

    /// Wakes a rank; a bell that rings already stays rung.
    pub(super) fn ring(&self, rank: Rank) {
        let _ = self.0[rank.index()].0.try_send(());
    }

    /// Wakes every rank.
    pub(super) fn ring_all(&self) {
        for (bell, _) in &self.0 {
            let _ = bell.try_send(());
        }
    }

    /// Sleeps until the rank's bell rings, at most `longest`.
    pub(super) fn wait(&self, rank: Rank, longest: Duration) {
        let _ = self.0[rank.index()].1.recv_timeout(longest);
    }
}

/// A message that does not carry what its reader expects.
#[derive(Debug)]
pub(super) struct Mismatch {
    /// What was expected.
    pub(super) expected: String,
    /// What came.
    pub(super) found: String,
}

/// A one-message channel from one rank to another.
#[derive(Debug)]
pub(super) struct Mailbox {
    from: Rank,
    to: Rank,
    full: (Sender<Message>, Receiver<Message>),
    empty: (Sender<Vec<f32>>, Receiver<Vec<f32>>),
    elements: usize,
    /// The storage of a message that another process has not read yet.
    parked: Mutex<Option<Vec<f32>>>,
}

#[derive(Debug)]
struct Message {
    value: Value,
    data: Vec<f32>,
}

impl Mailbox {
    /// A mailbox for messages of at most `elements` numbers.
    pub(super) fn new(from: Rank, to: Rank, elements: usize) -> Self {
        let empty = bounded(1);
        let _ = empty.0.try_send(Vec::with_capacity(elements));
        Self { from, to, full: bounded(1), empty, elements, parked: Mutex::new(None) }
    }

    /// Bytes of storage.
    pub(super) fn bytes(&self) -> u64 {
        self.elements as u64 * 4
    }

    /// Hands the message on to another process; its storage rests until that has read it.
    pub(super) fn forward(&self, send: impl FnOnce(Value, &[f32])) {
        let Ok(message) = self.full.1.try_recv() else { return };
        send(message.value, &message.data);
        *self.parked.lock().unwrap_or_else(PoisonError::into_inner) = Some(message.data);
    }

    /// The message that was handed on has been read. `false`: there is none.
    pub(super) fn was_read(&self, bells: &Doorbells) -> bool {
        let parked = self.parked.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(storage) = parked else { return false };
        let _ = self.empty.0.try_send(storage);
        bells.ring(self.from);
        true
    }

    /// Puts a message of another process in. `false`: it is too long, or the one before has not been read.
    pub(super) fn arrive(
        &self,
        value: Value,
        data: impl ExactSizeIterator<Item = f32>,
        bells: &Doorbells,
    ) -> bool {
        if data.len() > self.elements {
            return false;
        }
        let Ok(mut storage) = self.empty.1.try_recv() else { return false };
        storage.clear();
        storage.extend(data);
        let arrived = self.full.0.try_send(Message { value, data: storage }).is_ok();
        bells.ring(self.to);
        arrived
    }

    /// Who writes to it.
    pub(super) fn writer(&self) -> Rank {
        self.from
    }

    /// Who reads from it.
    pub(super) fn reader(&self) -> Rank {
        self.to
    }

    /// Sends, if the message before has been read.
    pub(super) fn try_send(&self, value: Value, data: &[f32], bells: &Doorbells) -> bool {
        let Ok(mut storage) = self.empty.1.try_recv() else {
            return false;
        };
        storage.clear();
        storage.extend_from_slice(data);
        let sent = self.full.0.try_send(Message { value, data: storage }).is_ok();
        debug_assert!(sent, "the only storage was at hand, so no message lies in the box");
        bells.ring(self.to);
        sent
    }

    /// Reads a message into `into`, if one has come.
    ///
    /// # Errors
    /// The message is another value than the one expected, or of another size.
    pub(super) fn try_receive(
        &self,
        value: Value,
        into: &mut [f32],
        bells: &Doorbells,
    ) -> Result<bool, Mismatch> {
        let Ok(message) = self.full.1.try_recv() else {
            return Ok(false);
        };
        if message.value != value || message.data.len() != into.len() {
            return Err(Mismatch {
                expected: format!("{value:?} of {} elements", into.len()),
                found: format!("{:?} of {} elements", message.value, message.data.len()),
            });
        }
        into.copy_from_slice(&message.data);
        let _ = self.empty.0.try_send(message.data);
        bells.ring(self.from);
        Ok(true)
    }
}

/// What the members of a group must agree on in one collective.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Tag {
    /// What is collected.
    pub(crate) payload: Payload,
    /// What is done with it.
    pub(crate) op: CollectiveOp,
    /// Who gives or gets.
    pub(crate) root: Option<Rank>,
    /// Elements of each contribution.
    pub(crate) elements: u64,
}

/// Where the members of a group meet.
#[derive(Debug)]
pub(super) struct Board {
    members: Vec<Rank>,
    rounds: [Mutex<Round>; 2],
    bytes: u64,
}

#[derive(Debug)]
struct Round {
    sequence: u64,
    tag: Option<Tag>,
    given: Vec<bool>,
    taken: usize,
    /// Who has given, and how many have collected, for the round after this one in the same place: other processes may be ahead. The
    /// storage is free for them by then, since they wait until all members here have collected.
    early: Vec<bool>,
    early_taken: usize,
    contributions: Vec<Vec<f32>>,
    sum: Vec<f32>,
    summed: bool,
}

/// A member's place in one collective of a board.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seat {
    /// The position among the group's members.
    pub(super) member: usize,
    /// The count of this member's collectives on this board before this one.
    pub(super) sequence: u64,
}

impl Board {
    /// A board with storage for each member's largest contribution and the largest sum that is shared.
    pub(super) fn new(members: Vec<Rank>, contributions: &[usize], sum: usize) -> Self {
        let round = |sequence| {
            Mutex::new(Round {
                sequence,
                tag: None,
                given: vec![false; members.len()],
                taken: 0,
                early: vec![false; members.len()],
                early_taken: 0,
                contributions: contributions.iter().map(|&elements| Vec::with_capacity(elements)).collect(),
                sum: Vec::with_capacity(sum),
                summed: false,
            })
        };
        let rounds = [round(0), round(1)];
        let bytes = (contributions.iter().sum::<usize>() + sum) as u64 * 8;
        Self { members, rounds, bytes }
    }

    /// Bytes of storage.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    fn round(&self, sequence: u64) -> MutexGuard<'_, Round> {
        self.rounds[usize::from(sequence % 2 == 1)].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes part in a collective, with a contribution where this member has one. `false`: its round is still in use.
    ///
    /// # Errors
    /// Another member takes part in another collective at this place.
    pub(super) fn deposit(
        &self,
        seat: Seat,
        tag: Tag,
        contribution: Option<&[f32]>,
        bells: &Doorbells,
    ) -> Result<bool, Mismatch> {
        let mut round = self.round(seat.sequence);
        if round.sequence != seat.sequence {
            return Ok(false);
        }
        match round.tag {
            None => round.tag = Some(tag),
            Some(first) if first == tag => {}
            Some(first) => {
                return Err(Mismatch { expected: format!("{tag:?}"), found: format!("{first:?}") });
            }
        }
        if let Some(data) = contribution {
            let storage = &mut round.contributions[seat.member];
            storage.clear();
            storage.extend_from_slice(data);
        }
        round.given[seat.member] = true;
        let ready = round.ready(&self.members);
        drop(round);
        if ready {
            self.ring_others(seat.member, bells);
        }
        Ok(true)
    }

    /// Ends this member's part: writes the result where it reads one. `false`: contributions are missing.
    ///
    /// # Errors
    /// A contribution has another length than the members agreed.
    pub(super) fn collect(
        &self,
        seat: Seat,
        into: Option<&mut [f32]>,
        bells: &Doorbells,
    ) -> Result<bool, Mismatch> {
        let mut round = self.round(seat.sequence);
        if let Some(into) = into {
            if !round.ready(&self.members) {
                return Ok(false);
            }
            if !round.fits(&self.members) {
                let expected = format!("contributions to {:?}", round.tag);
                return Err(Mismatch { expected, found: "another length".to_owned() });
            }
            round.write(&self.members, seat.member, into);
        }
        round.taken += 1;
        if round.end(self.members.len()) {
            drop(round);
            self.ring_others(seat.member, bells);
        }
        Ok(true)
    }

    /// The members.
    pub(super) fn members(&self) -> &[Rank] {
        &self.members
    }

    /// Shows a member's contribution to whoever sends it to another process.
    pub(super) fn forward(&self, seat: Seat, send: impl FnOnce(&[f32])) {
        let round = self.round(seat.sequence);
        debug_assert_eq!(round.sequence, seat.sequence, "a round stays until all processes have collected");
        send(&round.contributions[seat.member]);
    }

    /// Takes the contribution of a member in another process. `false`: it is too long, or out of turn.
    pub(super) fn arrive(
        &self,
        seat: Seat,
        data: impl ExactSizeIterator<Item = f32>,
        bells: &Doorbells,
    ) -> bool {
        let mut round = self.round(seat.sequence);
        let early = round.sequence.checked_add(2) == Some(seat.sequence);
        if !early && round.sequence != seat.sequence {
            return false;
        }
        let given = if early { &mut round.early } else { &mut round.given };
        if std::mem::replace(&mut given[seat.member], true) {
            return false;
        }
        let storage = &mut round.contributions[seat.member];
        if data.len() > storage.capacity() {
            return false;
        }
        storage.clear();
        storage.extend(data);
        drop(round);
        self.members.iter().for_each(|&rank| bells.ring(rank));
        true
    }

    /// A member in another process has collected. `false`: it is out of turn.
    pub(super) fn was_taken(&self, sequence: u64, bells: &Doorbells) -> bool {
        let mut round = self.round(sequence);
        if round.sequence == sequence {
            round.taken += 1;
            if round.end(self.members.len()) {
                drop(round);
                self.members.iter().for_each(|&rank| bells.ring(rank));
            }
            return true;
        }
        let early = round.sequence.checked_add(2) == Some(sequence);
        round.early_taken += usize::from(early);
        early
    }

    /// The members that have not come to a collective; `None` where an earlier one is not over or the board is in use.
    pub(super) fn missing(&self, sequence: u64) -> Option<Vec<Rank>> {
        let round = self.rounds[usize::from(sequence % 2 == 1)].try_lock().ok()?;
        (round.sequence == sequence).then(|| {
            // Only the root's contribution travels to other processes.
            let root = round.tag.filter(|tag| tag.op == CollectiveOp::Broadcast).and_then(|tag| tag.root);
            let needed = |rank: Rank| root.is_none_or(|root| root == rank);
            let members = self.members.iter().zip(&round.given);
            let absent = members.filter(|(rank, given)| !**given && needed(**rank));
            absent.map(|(rank, _)| *rank).collect()
        })
    }

    fn ring_others(&self, member: usize, bells: &Doorbells) {
        for (position, &rank) in self.members.iter().enumerate() {
            if position != member {
                bells.ring(rank);
            }
        }
    }
}

impl Round {
    /// Whether every contribution that a reader needs is there.
    fn ready(&self, members: &[Rank]) -> bool {
        let root_gave = self.tag.and_then(|tag| {
            let root = tag.root.filter(|_| tag.op == CollectiveOp::Broadcast)?;
            members.iter().position(|&rank| rank == root).map(|member| self.given[member])
        });
        root_gave.unwrap_or_else(|| self.given.iter().all(|&given| given))
    }

    /// Opens the next round in this place once all members have collected. `false`: some have not.
    fn end(&mut self, members: usize) -> bool {
        if self.taken != members {
            return false;
        }
        self.sequence += 2;
        self.tag = None;
        std::mem::swap(&mut self.given, &mut self.early);
        self.early.fill(false);
        self.taken = std::mem::take(&mut self.early_taken);
        self.summed = false;
        true
    }

    /// Whether the contributions are as long as all members agreed.
    fn fits(&self, members: &[Rank]) -> bool {
        let Some(tag) = self.tag else { return false };
        let gives = |rank: Rank| tag.op != CollectiveOp::Broadcast || tag.root == Some(rank);
        let long = |data: &Vec<f32>| data.len() as u64 == tag.elements;
        members.iter().zip(&self.contributions).all(|(&rank, data)| !gives(rank) || long(data))
    }

    fn write(&mut self, members: &[Rank], member: usize, into: &mut [f32]) {
        let Some(tag) = self.tag else { return };
        match tag.op {
            CollectiveOp::Broadcast => {
                let root = members.iter().position(|&rank| Some(rank) == tag.root).unwrap_or(0);
                into.copy_from_slice(&self.contributions[root]);
            }
            CollectiveOp::AllGather => {
                for (slice, data) in
                    into.chunks_exact_mut(tag.elements.max(1) as usize).zip(&self.contributions)
                {
                    slice.copy_from_slice(data);
                }
            }
            CollectiveOp::Reduce => sum_into(&self.contributions, 0, into),
            CollectiveOp::ReduceScatter => sum_into(&self.contributions, member * into.len(), into),
            CollectiveOp::AllReduce => {
                if !self.summed {
                    self.sum.resize(tag.elements as usize, 0.0);
                    sum_into(&self.contributions, 0, &mut self.sum);
                    self.summed = true;
                }
                into.copy_from_slice(&self.sum);
            }
        }
    }
}

/// The sum of the contributions' elements from `offset` on, in rank order.
fn sum_into(contributions: &[Vec<f32>], offset: usize, into: &mut [f32]) {
    let length = into.len();
    for (position, data) in contributions.iter().enumerate() {
        let data = &data[offset..offset + length];
        if position == 0 {
            into.copy_from_slice(data);
        } else {
            for (total, term) in into.iter_mut().zip(data) {
                *total += term;
            }
        }
    }
}
