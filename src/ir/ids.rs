//! Dense typed ids. Each prints with its sigil, the same in dumps, errors and traces.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Defines a dense id: a `u32` that can only index what it names.
macro_rules! dense_id {
    ($(#[$doc:meta])* $name:ident, $sigil:literal) => {
        $(#[$doc])*
        #[derive(
            Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash,
            Serialize, Deserialize, schemars::JsonSchema,
        )]
        #[serde(transparent)]
        pub struct $name(pub u32);

        impl $name {
            /// The sigil that the id prints with.
            pub const SIGIL: &'static str = $sigil;

            /// The id of position `index`; positions fit because every table is limited to 2^32 entries.
            #[must_use]
            pub fn new(index: usize) -> Self {
                Self(u32::try_from(index).expect("tables hold less than 2^32 entries"))
            }

            /// The position that this id names.
            #[must_use]
            pub fn index(self) -> usize {
                self.0 as usize
            }

            /// The ids `0..count`.
            pub fn all(count: usize) -> impl DoubleEndedIterator<Item = Self> + ExactSizeIterator + Clone {
                (0..u32::try_from(count).expect("tables hold less than 2^32 entries")).map(Self)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($sigil, "{}"), self.0)
            }
        }
    };
}

dense_id!(/** A device of the pipeline group, `0..p`. */ Rank, "r");
dense_id!(/** A slice of the model in pipeline order, `0..p*v`, flow after flow. */ Stage, "s");
dense_id!(/** The position of a stage among those on its rank, `0..v`. */ Chunk, "c");
dense_id!(/** A copy of the pipeline: one, or two in opposite directions. */ Flow, "f");
dense_id!(/** A unit of the batch: a microbatch, `0..m`, or a slice of one. */ Microbatch, "m");
dense_id!(/** A kind of pass: F, B, W, S, T … */ KindId, "k");
dense_id!(/** A class of buffer: `act`, `logits`, `x` … */ ClassId, "a");
dense_id!(/** A declared collective: a part of a barrier, or a broadcast or reduce on an edge. */ CollectiveId, "q");
dense_id!(/** A set of ranks that issue collectives together. */ GroupId, "g");
dense_id!(/** A buffer of one rank. */ BufferId, "b");
dense_id!(/** A queue of one rank. */ LaneId, "l");
dense_id!(/** The position of an instruction in its rank's list. */ InstrId, "i");
dense_id!(/** The position of a value among those that a pass gives. */ Port, "o");
