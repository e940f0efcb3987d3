//! Channels to the devices of other processes -> communicators of NCCL.

use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{sleep, spawn};
use std::time::{Duration, Instant};

use super::super::{
    Aborter, Address, Channel, Communicator, CudaError, Element, Ender, Meeting, Move, Nccl, Reduction,
    Transfer,
};
use super::Stream;
use crate::kernels::Stored;

/// The channels of a device.
pub(super) struct Network {
    /// Where NCCL may be.
    path: Option<PathBuf>,
    nccl: Option<Nccl>,
    /// By channel; none where this device is no member.
    channels: Vec<Option<(Communicator, u32)>>,
    /// What ends them, for other threads.
    aborters: Arc<Mutex<Vec<Aborter>>>,
}

impl Network {
    /// No channel yet.
    pub(super) fn new(path: Option<PathBuf>) -> Self {
        Self { path, nccl: None, channels: Vec::new(), aborters: Arc::default() }
    }

    fn nccl(&mut self) -> Result<&Nccl, CudaError> {
        let Self { nccl, path, .. } = self;
        match nccl {
            Some(nccl) => Ok(nccl),
            None => Ok(nccl.insert(Nccl::open(path.as_deref())?)),
        }
    }

    /// What the members of a new channel must know.
    pub(super) fn meeting(&mut self) -> Result<Meeting, CudaError> {
        self.nccl()?.unique_id()
    }

    /// Joins a channel with the device that is current on this thread.
    pub(super) fn join(
        &mut self,
        channel: Channel,
        meeting: &Meeting,
        (members, member): (u32, u32),
        patience: Duration,
    ) -> Result<(), CudaError> {
        let joined = self.nccl()?.join(meeting, members, member, patience)?;
        self.aborters.lock().unwrap_or_else(PoisonError::into_inner).push(joined.aborter());
        let at = channel.0 as usize;
        if self.channels.len() <= at {
            self.channels.resize_with(at + 1, || None);
        }
        self.channels[at] = Some((joined, members));
        Ok(())
    }

    /// Takes part in what is moved.
    pub(super) fn transfer(&mut self, stream: Stream, transfer: &Transfer) -> Result<(), CudaError> {
        let Transfer { channel, what, from, to, words, stored } = *transfer;
        let lacks = || CudaError::NotPrepared { what: format!("channel {}", channel.0) };
        let (communicator, members) =
            self.channels.get_mut(channel.0 as usize).and_then(Option::as_mut).ok_or_else(lacks)?;
        let (bytes, sums) = ((Element::Byte, 4 * words), elements(stored, words));
        let needed = |at: Option<Address>| at.ok_or_else(lacks);
        match what {
            Move::Send => communicator.send(stream, 1, needed(from)?, bytes.0, bytes.1),
            Move::Receive => communicator.receive(stream, 0, needed(to)?, bytes.0, bytes.1),
            Move::Broadcast { root } => {
                let to = needed(to)?;
                communicator.broadcast(stream, (from.unwrap_or(to), to), bytes, root)
            }
            Move::Reduce { root } => {
                let from = needed(from)?;
                communicator.reduce(stream, (from, to.unwrap_or(from)), sums, Reduction::Sum, root)
            }
            Move::AllReduce => {
                communicator.all_reduce(stream, (needed(from)?, needed(to)?), sums, Reduction::Sum)
            }
            Move::AllGather => communicator.all_gather(stream, (needed(from)?, needed(to)?), bytes),
            Move::ReduceScatter => {
                let share = elements(stored, words / u64::from(*members));
                communicator.reduce_scatter(stream, (needed(from)?, needed(to)?), share, Reduction::Sum)
            }
        }
    }

    /// Whether all channels are well.
    pub(super) fn check(&mut self) -> Result<(), CudaError> {
        self.channels.iter_mut().flatten().try_for_each(|(communicator, _)| communicator.check())
    }

    /// Leaves all channels, in the order in which they were joined.
    pub(super) fn leave(&mut self) -> Result<(), CudaError> {
        let left = self.channels.drain(..).flatten().try_for_each(|(communicator, _)| communicator.finish());
        self.aborters.lock().unwrap_or_else(PoisonError::into_inner).clear();
        left
    }

    /// Ends all channels: what waits on the device for others is over then. False where they did not end in time; nothing that they use
    /// may be given back then.
    pub(super) fn end(&mut self, patience: Duration) -> bool {
        let ended = end_all(&self.aborters);
        let until = Instant::now() + patience;
        while ended.load(Ordering::SeqCst) > 0 {
            if Instant::now() > until {
                return false;
            }
            sleep(Duration::from_millis(1));
        }
        self.channels.clear();
        true
    }

    /// The same from any thread, without waiting.
    pub(super) fn ender(&self) -> Ender {
        let aborters = Arc::clone(&self.aborters);
        Arc::new(move || drop(end_all(&aborters)))
    }
}

/// Ends communicators, each on a thread of its own: one may only be done when the work of the others on the device is over. How many are not
/// done yet.
fn end_all(aborters: &Mutex<Vec<Aborter>>) -> Arc<AtomicUsize> {
    let all = std::mem::take(&mut *aborters.lock().unwrap_or_else(PoisonError::into_inner));
    let left = Arc::new(AtomicUsize::new(all.len()));
    for aborter in all {
        let left = Arc::clone(&left);
        spawn(move || {
            aborter.abort();
            left.fetch_sub(1, Ordering::SeqCst);
        });
    }
    left
}

/// What a sum of so many words takes them for.
fn elements(stored: Stored, words: u64) -> (Element, u64) {
    match stored {
        Stored::F32 => (Element::F32, words),
        Stored::Bf16 => (Element::Bf16, 2 * words),
    }
}
