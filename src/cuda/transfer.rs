//! What moves between the devices of several processes, one rank each: channels, and a member's part in what is moved on one.
//!
//! A channel is a communicator: one for each directed pair of ranks that send, one for each lane of a group. All processes put what they
//! move on their devices in one order, that of a walk over the whole plan which each of them takes, so that no two of them wait for each
//! other however few of a device's queues really run side by side.

use std::sync::Arc;

use super::Address;
use super::nccl::UniqueId;
use crate::kernels::Stored;

/// A communicator of a plan, by its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Channel(pub u32);

/// What all members of a channel must know before they join it; one of them makes it.
pub type Meeting = UniqueId;

/// What is done with the members' buffers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Move {
    /// To member 1, from member 0 of a pair.
    Send,
    /// From member 0, by member 1 of a pair.
    Receive,
    /// What one member has goes to all.
    Broadcast {
        /// That member.
        root: u32,
    },
    /// The sum goes to one member.
    Reduce {
        /// That member.
        root: u32,
    },
    /// The sum goes to all members.
    AllReduce,
    /// What each member has goes to all, in the order of the members.
    AllGather,
    /// Each member gets its share of the sum, in the order of the members.
    ReduceScatter,
}

/// A member's part in something that is moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transfer {
    /// On which channel.
    pub channel: Channel,
    /// What.
    pub what: Move,
    /// What this member gives: [`Transfer::words`]. It may lie where the result goes.
    pub from: Option<Address>,
    /// Where its result goes, which all members but those that [`Move::Send`] and those beside the root of [`Move::Reduce`] have.
    pub to: Option<Address>,
    /// Words of four bytes that each member gives.
    pub words: u64,
    /// What sums take them for.
    pub stored: Stored,
}

/// Ends what a device has under way with others, from any thread: what waits for one that is gone.
pub type Ender = Arc<dyn Fn() + Send + Sync>;
