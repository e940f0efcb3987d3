//! The buffers of a pass -> the views that a backend computes with: one place for each class and direction, checked before the start.

use std::ops::Range;

use super::error::ExecuteError;
use crate::ir::Kind;

/// The places of [`super::backend::Views`], in the order of [`Places::ranges`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// `x` that is read.
    XRead,
    /// `x` that is written.
    XWrite,
    /// `dx` that is read.
    DxRead,
    /// `dx` that is written.
    DxWrite,
    /// `stats` that are read.
    StatsRead,
    /// `stats` that are written.
    StatsWrite,
    /// State for backward.
    Act,
    /// State for the weight gradient.
    Delta,
    /// State of the output layer.
    Logits,
}

/// How many places there are.
pub(super) const PLACES: usize = 9;

impl Place {
    /// The place of a class and a direction.
    fn of(class: &str, written: bool) -> Option<Self> {
        Some(match (class, written) {
            ("x", false) => Self::XRead,
            ("x", true) => Self::XWrite,
            ("dx", false) => Self::DxRead,
            ("dx", true) => Self::DxWrite,
            ("stats", false) => Self::StatsRead,
            ("stats", true) => Self::StatsWrite,
            ("act", _) => Self::Act,
            ("delta", _) => Self::Delta,
            ("logits", _) => Self::Logits,
            _ => return None,
        })
    }
}

/// Where in the arena each view of a pass lies.
#[derive(Clone, Debug)]
pub(super) struct Places {
    /// By [`Place`]; `0..0` where the buffer is empty or absent.
    pub(super) ranges: [Range<usize>; PLACES],
    present: [bool; PLACES],
}

impl Places {
    /// Finds the place of each buffer: its class, its range, whether it is written.
    ///
    /// # Errors
    /// A class is unknown to the model, or two buffers take one place.
    pub(super) fn new<'a>(
        kind: &Kind,
        buffers: impl Iterator<Item = (&'a str, Range<usize>, bool)>,
    ) -> Result<Self, ExecuteError> {
        let mut places = Self { ranges: std::array::from_fn(|_| 0..0), present: [false; PLACES] };
        for (class, range, written) in buffers {
            let Some(place) = Place::of(class, written) else {
                return Err(ExecuteError::UnknownClass { kind: kind.name.clone(), class: class.to_owned() });
            };
            if places.has(place) {
                return Err(ExecuteError::AmbiguousBuffer {
                    kind: kind.name.clone(),
                    class: class.to_owned(),
                });
            }
            places.present[place as usize] = true;
            places.ranges[place as usize] = range;
        }
        Ok(places)
    }

    /// Whether the pass has a buffer there.
    pub(super) fn has(&self, place: Place) -> bool {
        self.present[place as usize]
    }

    /// Whether two of the buffers share a byte.
    pub(super) fn overlap(&self) -> bool {
        (0..PLACES).any(|a| {
            (0..a).any(|b| {
                self.ranges[a].start < self.ranges[b].end && self.ranges[b].start < self.ranges[a].end
            })
        })
    }
}
