//! Which rank holds which stage, by name.

use std::fmt;

/// A placement that PyTorch knows by a schedule's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Placement {
    /// Stage s on rank s mod p.
    Loop,
    /// Two stages a rank: from the first rank to the last, and back.
    V,
}

impl Placement {
    /// The rank of a stage among `ranks`.
    #[must_use]
    pub fn rank_of(self, stage: usize, ranks: usize) -> usize {
        let (turn, at) = (stage / ranks, stage % ranks);
        if self == Self::V && turn % 2 == 1 { ranks - 1 - at } else { at }
    }

    /// The name of where stages lie; `None` where it is neither.
    #[must_use]
    pub fn of(stages: &[u32], ranks: usize) -> Option<Self> {
        let all = |placement: &Self| {
            stages.iter().enumerate().all(|(stage, &rank)| placement.rank_of(stage, ranks) == rank as usize)
        };
        [Self::Loop, Self::V].into_iter().find(all)
    }
}

impl fmt::Display for Placement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Loop => "loop",
            Self::V => "v",
        })
    }
}
