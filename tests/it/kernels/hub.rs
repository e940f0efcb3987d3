//! What lies between devices that are the host: members of a channel meet in their k-th transfer, and none goes on before all have come.

use std::collections::HashMap;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use schedc::cuda::{Channel, Move, Transfer};
use schedc::kernels::Stored;

use super::host::bf16_bits;

/// What the members of one transfer gave, and how many have gone on.
#[derive(Debug)]
struct Round {
    what: Vec<Option<Move>>,
    given: Vec<Option<Vec<u8>>>,
    left: usize,
}

#[derive(Debug, Default)]
struct State {
    rounds: HashMap<(Channel, u64), Round>,
    joined: HashMap<Channel, u32>,
    ended: bool,
}

/// The network of some devices.
#[derive(Debug, Default)]
pub(crate) struct Hub {
    state: Mutex<State>,
    bell: Condvar,
}

impl Hub {
    pub(crate) fn new() -> Arc<Self> {
        Arc::default()
    }

    fn with<T>(&self, body: impl FnOnce(&mut State) -> T) -> T {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let result = body(&mut state);
        self.bell.notify_all();
        result
    }

    /// Waits until something happens.
    pub(crate) fn nap(&self) {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        drop(self.bell.wait_timeout(state, Duration::from_millis(2)));
    }

    pub(crate) fn end(&self) {
        self.with(|state| state.ended = true);
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.with(|state| state.ended)
    }

    /// Joins a channel; says whether all members have.
    pub(crate) fn join(&self, channel: Channel) {
        self.with(|state| *state.joined.entry(channel).or_default() += 1);
    }

    pub(crate) fn all_joined(&self, channel: Channel, members: u32) -> bool {
        self.with(|state| state.joined[&channel] >= members)
    }

    /// Gives a member's part.
    pub(crate) fn give(
        &self,
        transfer: &Transfer,
        sequence: u64,
        (members, member): (u32, u32),
        data: Option<Vec<u8>>,
    ) {
        self.with(|state| {
            let all = members as usize;
            let round = state.rounds.entry((transfer.channel, sequence)).or_insert_with(|| Round {
                what: vec![None; all],
                given: vec![None; all],
                left: all,
            });
            assert!(round.what[member as usize].replace(transfer.what).is_none(), "a member comes twice");
            round.given[member as usize] = data;
        });
    }

    /// Takes a member's result, if all members have come; empty where it has none.
    pub(crate) fn take(&self, transfer: &Transfer, sequence: u64, member: u32) -> Option<Vec<u8>> {
        self.with(|state| {
            let round = state.rounds.get_mut(&(transfer.channel, sequence))?;
            if round.what.iter().any(Option::is_none) {
                return None;
            }
            let result = result(round, transfer, member as usize);
            round.left -= 1;
            if round.left == 0 {
                state.rounds.remove(&(transfer.channel, sequence));
            }
            Some(result)
        })
    }

    /// Whether nothing is left under way.
    pub(crate) fn is_idle(&self) -> bool {
        self.with(|state| state.rounds.is_empty())
    }
}

fn result(round: &Round, transfer: &Transfer, member: usize) -> Vec<u8> {
    let given = |of: usize| round.given[of].clone().expect("the member gave something");
    let same = || assert!(round.what.iter().all(|&what| what == Some(transfer.what)), "{:?}", round.what);
    match transfer.what {
        Move::Send => Vec::new(),
        Move::Receive => {
            assert_eq!(round.what, [Some(Move::Send), Some(Move::Receive)]);
            given(0)
        }
        Move::Broadcast { root } => {
            same();
            given(root as usize)
        }
        Move::Reduce { root } => {
            same();
            if root as usize == member { sum(round, transfer.stored) } else { Vec::new() }
        }
        Move::AllReduce => {
            same();
            sum(round, transfer.stored)
        }
        Move::AllGather => {
            same();
            (0..round.given.len()).flat_map(given).collect()
        }
        Move::ReduceScatter => {
            same();
            let sum = sum(round, transfer.stored);
            let each = sum.len() / round.given.len();
            sum[member * each..(member + 1) * each].to_vec()
        }
    }
}

/// The sum in the order of the members.
fn sum(round: &Round, stored: Stored) -> Vec<u8> {
    let numbers = |bytes: &[u8]| -> Vec<f32> {
        match stored {
            Stored::F32 => bytes.as_chunks().0.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect(),
            Stored::Bf16 => {
                let bits = bytes.as_chunks().0.iter().map(|&bytes| u16::from_le_bytes(bytes));
                bits.map(|bits| f32::from_bits(u32::from(bits) << 16)).collect()
            }
        }
    };
    let mut all = round.given.iter().map(|given| numbers(given.as_ref().expect("every member gave")));
    let mut total = all.next().unwrap_or_default();
    for part in all {
        assert_eq!(part.len(), total.len(), "contributions differ in length");
        for (total, part) in total.iter_mut().zip(part) {
            // Each sum is stored, as one device does it.
            *total = match stored {
                Stored::F32 => *total + part,
                Stored::Bf16 => f32::from_bits(u32::from(bf16_bits(*total + part)) << 16),
            };
        }
    }
    match stored {
        Stored::F32 => total.iter().flat_map(|number| number.to_le_bytes()).collect(),
        Stored::Bf16 => total.iter().flat_map(|&number| bf16_bits(number).to_le_bytes()).collect(),
    }
}
