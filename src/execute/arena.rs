//! A rank's memory: one allocation of exactly the bytes that the plan states, and disjoint views into it.

use std::ops::Range;

use super::error::ExecuteError;
use crate::ir::{Bytes, Rank};

/// The buffers of one rank.
#[derive(Debug)]
pub(super) struct Arena {
    storage: Vec<f32>,
}

impl Arena {
    /// Allocates a rank's peak.
    ///
    /// # Errors
    /// The machine refuses the memory, or the peak is not a whole number of elements.
    pub(super) fn new(rank: Rank, peak: Bytes) -> Result<Self, ExecuteError> {
        let refused = || ExecuteError::OutOfMemory { rank, bytes: peak };
        let elements = usize::try_from(peak.0 / 4).map_err(|_| refused())?;
        if !peak.0.is_multiple_of(4) {
            return Err(refused());
        }
        let mut storage = Vec::new();
        storage.try_reserve_exact(elements).map_err(|_| refused())?;
        storage.resize(elements, 0.0);
        Ok(Self { storage })
    }

    /// What was allocated.
    pub(super) fn bytes(&self) -> Bytes {
        Bytes(self.storage.capacity() as u64 * 4)
    }

    /// A buffer to read.
    pub(super) fn view(&self, range: &Range<usize>) -> &[f32] {
        &self.storage[range.clone()]
    }

    /// A buffer to write.
    pub(super) fn view_mut(&mut self, range: &Range<usize>) -> &mut [f32] {
        &mut self.storage[range.clone()]
    }

    /// Several buffers at once; the ranges are disjoint (an empty one is `0..0`), which preparation has checked.
    pub(super) fn views<const N: usize>(&mut self, ranges: [Range<usize>; N]) -> [&mut [f32]; N] {
        self.storage.get_disjoint_mut(ranges).expect("live buffers of a prepared plan do not overlap")
    }
}
