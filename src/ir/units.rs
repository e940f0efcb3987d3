//! Units: bytes of memory, ticks of predicted time.

use std::fmt;

use serde::{Deserialize, Serialize};

/// An amount of memory.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Serialize,
    Deserialize,
    schemars::JsonSchema,
)]
#[serde(transparent)]
pub struct Bytes(pub u64);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} B", self.0)
    }
}

/// A duration or a moment of a schedule whose unit the cost table fixes. Integral, so that output is reproducible.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticks(pub u64);

impl std::ops::Add for Ticks {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self(self.0 + other.0)
    }
}

impl Bytes {
    /// As people read it, with one decimal: `1.2 MiB`. Exact below one KiB.
    #[must_use]
    #[allow(clippy::cast_precision_loss, reason = "one decimal is shown")]
    pub fn short(self) -> String {
        let units = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"].into_iter().zip(1..);
        match units.take_while(|(_, step)| self.0 >> (10 * step) > 0).last() {
            None => self.to_string(),
            Some((unit, step)) => format!("{:.1} {unit}", self.0 as f64 / 1024_f64.powi(step)),
        }
    }
}

/// A unit that an amount of memory may be written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ByteUnit {
    /// A byte.
    One,
    /// 1000 bytes.
    Kilo,
    /// 1000² bytes.
    Mega,
    /// 1000³ bytes.
    Giga,
    /// 1000⁴ bytes.
    Tera,
    /// 1024 bytes.
    Kibi,
    /// 1024² bytes.
    Mebi,
    /// 1024³ bytes.
    Gibi,
    /// 1024⁴ bytes.
    Tebi,
}

impl ByteUnit {
    /// Every unit with its word. Of two words for one the first is written.
    pub const WORDS: [(Self, &'static str); 10] = [
        (Self::One, "B"),
        (Self::Kilo, "kB"),
        (Self::Kilo, "KB"),
        (Self::Mega, "MB"),
        (Self::Giga, "GB"),
        (Self::Tera, "TB"),
        (Self::Kibi, "KiB"),
        (Self::Mebi, "MiB"),
        (Self::Gibi, "GiB"),
        (Self::Tebi, "TiB"),
    ];

    /// Its word.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::One => "B",
            Self::Kilo => "kB",
            Self::Mega => "MB",
            Self::Giga => "GB",
            Self::Tera => "TB",
            Self::Kibi => "KiB",
            Self::Mebi => "MiB",
            Self::Gibi => "GiB",
            Self::Tebi => "TiB",
        }
    }

    /// How many bytes it is.
    #[must_use]
    pub fn bytes(self) -> u64 {
        match self {
            Self::One => 1,
            Self::Kilo => 1_000,
            Self::Mega => 1_000_000,
            Self::Giga => 1_000_000_000,
            Self::Tera => 1_000_000_000_000,
            Self::Kibi => 1 << 10,
            Self::Mebi => 1 << 20,
            Self::Gibi => 1 << 30,
            Self::Tebi => 1 << 40,
        }
    }
}
