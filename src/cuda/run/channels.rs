//! The channels of a plan: one for each directed pair of ranks that send, one for each lane of a group.

use std::borrow::Borrow;

use crate::cuda::{Channel, Move};
use crate::execute::prepare::{Action, Part, Script};
use crate::ir::{CollectiveOp, Rank};

/// Who meets on which channel.
#[derive(Debug)]
pub(super) struct Channels {
    /// By channel, in rank order; of a pair the sender comes first.
    members: Vec<Vec<usize>>,
    pairs: usize,
}

impl Channels {
    /// Looks at every instruction once.
    pub(super) fn of(scripts: &[impl Borrow<Script>]) -> Self {
        let (mut pairs, mut boards): (Vec<[usize; 2]>, Vec<Vec<usize>>) = (Vec::new(), Vec::new());
        for (rank, script) in scripts.iter().enumerate() {
            for entry in script.borrow().lanes.iter().flatten() {
                match &entry.action {
                    Action::Send { mailbox, .. } => at(&mut pairs, *mailbox)[0] = rank,
                    Action::Recv { mailbox, .. } => at(&mut pairs, *mailbox)[1] = rank,
                    Action::Collective(part) => {
                        let members = at(&mut boards, part.board);
                        if members.last() != Some(&rank) {
                            members.push(rank);
                        }
                    }
                    Action::Pass { .. } | Action::Step => {}
                }
            }
        }
        let count = pairs.len();
        let members = pairs.into_iter().map(Vec::from).chain(boards).collect();
        Self { members, pairs: count }
    }

    /// The channel of messages.
    pub(super) fn pair(mailbox: usize) -> Channel {
        Channel(mailbox as u32)
    }

    /// The channel of collectives.
    pub(super) fn board(&self, board: usize) -> Channel {
        Channel((self.pairs + board) as u32)
    }

    /// Those with members in several processes of so many ranks each, with all their members, in the one order in which all processes
    /// join them.
    pub(super) fn across(&self, each: usize) -> impl Iterator<Item = (Channel, &[usize])> {
        let home = move |rank: &usize| rank / each.max(1);
        let across = move |members: &[usize]| members.iter().any(|rank| home(rank) != home(&members[0]));
        let all = self.members.iter().enumerate();
        all.filter(move |(_, members)| across(members))
            .map(|(at, members)| (Channel(at as u32), &members[..]))
    }
}

/// The element of a list that grows as needed.
fn at<T: Default>(list: &mut Vec<T>, index: usize) -> &mut T {
    if list.len() <= index {
        list.resize_with(index + 1, T::default);
    }
    &mut list[index]
}

/// What a collective is to its members.
pub(super) fn what(part: &Part, members: &[usize]) -> Move {
    let root = members.iter().position(|&rank| part.tag.root == Some(Rank::new(rank))).unwrap_or(0) as u32;
    match part.tag.op {
        CollectiveOp::Broadcast => Move::Broadcast { root },
        CollectiveOp::Reduce => Move::Reduce { root },
        CollectiveOp::AllReduce => Move::AllReduce,
        CollectiveOp::AllGather => Move::AllGather,
        CollectiveOp::ReduceScatter => Move::ReduceScatter,
    }
}

/// Words of a member's result.
pub(super) fn result_words(what: Move, words: u64, members: usize) -> u64 {
    match what {
        Move::AllGather => words * members as u64,
        Move::ReduceScatter => words / members as u64,
        _ => words,
    }
}
