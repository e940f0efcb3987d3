//! How the batch of a step is cut into the units that passes work on.

use std::fmt;

use super::Microbatch;

/// Microbatches, and the slices that each microbatch's sequences are cut into.
///
/// A [`Microbatch`] in a [`super::Pass`] counts units: `microbatch * slices + slice`, so that ids stay dense. Where sequences are whole
/// (1 slice) a unit is a microbatch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cut {
    /// `m`, at least 1.
    pub microbatches: u32,
    /// Slices of each microbatch, at least 1.
    pub slices: u32,
}

impl Cut {
    /// The most slices of a microbatch: a pass reads a buffer of each earlier one.
    pub const MOST_SLICES: u32 = 64;

    /// How many units there are.
    #[must_use]
    pub fn units(self) -> u32 {
        self.microbatches.saturating_mul(self.slices)
    }

    /// The microbatch that a unit is part of.
    #[must_use]
    pub fn microbatch(self, unit: Microbatch) -> Microbatch {
        Microbatch(unit.0 / self.slices)
    }

    /// The position of a unit among the slices of its microbatch.
    #[must_use]
    pub fn slice(self, unit: Microbatch) -> u32 {
        unit.0 % self.slices
    }

    /// The unit of a slice of a microbatch.
    #[must_use]
    pub fn unit(self, microbatch: Microbatch, slice: u32) -> Microbatch {
        Microbatch(microbatch.0 * self.slices + slice)
    }

    /// The slice before, of the same microbatch.
    #[must_use]
    pub fn earlier(self, unit: Microbatch) -> Option<Microbatch> {
        (self.slice(unit) > 0).then(|| Microbatch(unit.0 - 1))
    }

    /// The slice after, of the same microbatch.
    #[must_use]
    pub fn later(self, unit: Microbatch) -> Option<Microbatch> {
        (self.slice(unit) + 1 < self.slices).then(|| Microbatch(unit.0 + 1))
    }

    /// The slices of the same microbatch that come before a unit, first to last.
    pub fn all_earlier(self, unit: Microbatch) -> impl Iterator<Item = Microbatch> {
        (unit.0 - self.slice(unit)..unit.0).map(Microbatch)
    }

    /// A unit as dumps and errors name it: `m3`, or `m3.1` where sequences are sliced.
    #[must_use]
    pub fn name(self, unit: Microbatch) -> UnitName {
        UnitName { cut: self, unit }
    }
}

/// The name of a unit; made by [`Cut::name`].
#[derive(Clone, Copy, Debug)]
pub struct UnitName {
    cut: Cut,
    unit: Microbatch,
}

impl fmt::Display for UnitName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { cut, unit } = *self;
        if cut.slices == 1 {
            return unit.fmt(f);
        }
        write!(f, "{}.{}", cut.microbatch(unit), cut.slice(unit))
    }
}
