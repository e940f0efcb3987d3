//! Bytes of the host -> pinned memory -> the device, and back.
//!
//! A write copies the caller's bytes into the next of a ring of pieces and returns; the host only waits where the device has not yet read
//! the piece that was written a whole ring ago.

use cudarc::driver::sys;

use super::super::CudaError;
use super::driver::Named as _;
use super::owned::{OwnedEvent, OwnedStream, Pinned};

/// Pieces of the ring.
const PIECES: usize = 8;
/// Bytes of a piece.
const PIECE: usize = 2 << 20;

/// A piece of pinned memory.
struct Piece {
    memory: Pinned,
    /// When the device has read it.
    over: OwnedEvent,
    /// Whether it was ever filled.
    used: bool,
}

/// What is on its way to the device and back.
pub(super) struct Staging {
    pieces: Vec<Piece>,
    next: usize,
    back: Pinned,
}

impl Staging {
    pub(super) fn new() -> Result<Self, CudaError> {
        let piece = || Ok(Piece { memory: Pinned::new(PIECE)?, over: OwnedEvent::new(false)?, used: false });
        let pieces = (0..PIECES).map(|_| piece()).collect::<Result<_, CudaError>>()?;
        Ok(Self { pieces, next: 0, back: Pinned::new(PIECE)? })
    }

    /// Writes to the device, on a stream.
    pub(super) fn write(&mut self, stream: &OwnedStream, to: u64, from: &[u8]) -> Result<(), CudaError> {
        let mut to = to;
        for part in from.chunks(PIECE) {
            let piece = &mut self.pieces[self.next];
            self.next = (self.next + 1) % PIECES;
            if piece.used {
                piece.over.finish()?;
            }
            piece.memory.fill(part);
            // SAFETY: the piece has so many bytes and is not written before the event that follows is over. That the place is memory of
            // this device, large enough, is the caller's promise.
            let queued =
                unsafe { sys::cuMemcpyHtoDAsync_v2(to, piece.memory.at().cast(), part.len(), stream.0) };
            queued.result().named("cuMemcpyHtoDAsync")?;
            piece.over.record(stream)?;
            piece.used = true;
            to += part.len() as u64;
        }
        Ok(())
    }

    /// Waits for a stream and reads from the device.
    pub(super) fn read(&self, stream: &OwnedStream, from: u64, into: &mut [u8]) -> Result<(), CudaError> {
        let mut from = from;
        for part in into.chunks_mut(self.back.bytes()) {
            // SAFETY: the piece has so many bytes, and nothing else uses it before the stream is done. That the place is memory of this
            // device, large enough, is the caller's promise.
            let queued =
                unsafe { sys::cuMemcpyDtoHAsync_v2(self.back.at().cast(), from, part.len(), stream.0) };
            queued.result().named("cuMemcpyDtoHAsync")?;
            stream.finish()?;
            self.back.empty(part);
            from += part.len() as u64;
        }
        Ok(())
    }
}
