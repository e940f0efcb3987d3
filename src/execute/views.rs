//! The buffers of a pass -> the views that a backend computes with: one place for each class and direction, checked before the start.

use std::ops::Range;

use super::error::ExecuteError;
use crate::ir::Kind;

/// The places of [`super::backend::Views`], in the order of [`Places::ranges`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
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
pub(crate) const PLACES: usize = 9;

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
pub(crate) struct Places {
    /// By [`Place`]; `0..0` where the buffer is empty or absent.
    pub(crate) ranges: [Range<usize>; PLACES],
    present: [bool; PLACES],
    /// `act` of the earlier slices of the microbatch, first to last.
    pub(crate) earlier: Vec<Range<usize>>,
}

impl Places {
    /// Finds the place of each buffer: its class, its range, whether it is written; reads come first. A pass's own `act` is the one that
    /// it writes, or else the first that it reads; the others are those of earlier slices.
    ///
    /// # Errors
    /// A class is unknown to the model, or two buffers take one place.
    pub(crate) fn new<'a>(
        kind: &Kind,
        buffers: impl Iterator<Item = (&'a str, Range<usize>, bool)>,
    ) -> Result<Self, ExecuteError> {
        let ranges = std::array::from_fn(|_| 0..0);
        let mut places = Self { ranges, present: [false; PLACES], earlier: Vec::new() };
        for (class, range, written) in buffers {
            let Some(place) = Place::of(class, written) else {
                return Err(ExecuteError::UnknownClass { kind: kind.name.clone(), class: class.to_owned() });
            };
            if place == Place::Act && places.has(place) {
                if written {
                    // What looked like its own so far is the first slice's.
                    let first = std::mem::replace(&mut places.ranges[place as usize], range);
                    places.earlier.insert(0, first);
                } else {
                    places.earlier.push(range);
                }
                continue;
            }
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
    pub(crate) fn has(&self, place: Place) -> bool {
        self.present[place as usize]
    }

    /// Whether two of the buffers share a byte.
    pub(crate) fn overlap(&self) -> bool {
        let all: Vec<&Range<usize>> = self.ranges.iter().chain(&self.earlier).collect();
        let meet = |a: &Range<usize>, b: &Range<usize>| a.start < b.end && b.start < a.end;
        all.iter().enumerate().any(|(at, a)| all[..at].iter().any(|b| meet(a, b)))
    }
}
