//! Names of passes -> their colours, the same in every picture.
//!
//! One hue for each family of passes, after Okabe & Ito 2008, which readers with any common colour blindness can tell apart: F blue, B orange, W
//! green, the output layer's S and T purple, the input layer's IF and IB yellow. Chunks differ by lightness. A pass of the user's own gets one
//! of the other hues, by its name alone, so that it keeps it from plan to plan as long as no two names of a picture fall on one.

use std::collections::BTreeSet;
use std::fmt;

/// A colour of the screen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Colour(pub [u8; 3]);

/// Collectives, the steps between them, and messages.
pub const COMMUNICATION: Colour = Colour([0x6b, 0x75, 0x85]);

/// The optimizer's step.
pub const STEP: Colour = Colour([0x3a, 0x3f, 0x47]);

const WHITE: Colour = Colour([0xff; 3]);
const BLACK: Colour = Colour([0; 3]);

/// The passes of the library.
const KNOWN: [(&str, Colour); 7] = [
    ("F", Colour([0x00, 0x72, 0xb2])),
    ("B", Colour([0xe6, 0x9f, 0x00])),
    ("W", Colour([0x00, 0x9e, 0x73])),
    ("S", Colour([0xcc, 0x79, 0xa7])),
    ("T", Colour([0x8e, 0x3b, 0x7a])),
    ("IF", Colour([0xf0, 0xe4, 0x42])),
    ("IB", Colour([0xa8, 0x9b, 0x00])),
];

/// For all others.
const SPARE: [Colour; 8] = [
    Colour([0x56, 0xb4, 0xe9]),
    Colour([0xd5, 0x5e, 0x00]),
    Colour([0x8c, 0x56, 0x4b]),
    Colour([0x5d, 0x4f, 0xb0]),
    Colour([0xf5, 0xa3, 0xb5]),
    Colour([0x00, 0x4d, 0x57]),
    Colour([0xd2, 0xb4, 0x8c]),
    Colour([0x9a, 0xd0, 0x4f]),
];

/// Colours that Chrome's trace viewer has names for; it takes no others.
const CHROME: [(&str, Colour); 14] = [
    ("rail_response", Colour([67, 135, 253])),
    ("rail_idle", Colour([238, 142, 0])),
    ("rail_load", Colour([13, 168, 97])),
    ("rail_animation", Colour([244, 74, 63])),
    ("detailed_memory_dump", Colour([200, 0, 200])),
    ("thread_state_iowait", Colour([255, 140, 0])),
    ("thread_state_running", Colour([126, 200, 148])),
    ("thread_state_runnable", Colour([133, 160, 210])),
    ("background_memory_dump", Colour([0, 180, 180])),
    ("light_memory_dump", Colour([0, 0, 180])),
    ("yellow", Colour([255, 255, 0])),
    ("olive", Colour([100, 100, 0])),
    ("generic_work", Colour([125, 125, 125])),
    ("black", Colour([0, 0, 0])),
];

/// The colour of each name, in their order; depends on the set of names only.
#[must_use]
pub fn colours(names: &[&str]) -> Vec<Colour> {
    let known = |name: &str| KNOWN.iter().find(|(known, _)| *known == name).map(|&(_, colour)| colour);
    let own: BTreeSet<&str> = names.iter().copied().filter(|name| known(name).is_none()).collect();
    let mut taken = [false; SPARE.len()];
    let mut chosen = Vec::with_capacity(own.len());
    for name in own {
        let first = hash(name) % SPARE.len();
        let free = (0..SPARE.len()).map(|step| (first + step) % SPARE.len()).find(|&at| !taken[at]);
        let at = free.unwrap_or(first);
        taken[at] = true;
        chosen.push((name, SPARE[at]));
    }
    let spare = |name: &str| {
        let found = chosen.binary_search_by_key(&name, |&(name, _)| name);
        found.map_or(COMMUNICATION, |at| chosen[at].1)
    };
    names.iter().map(|name| known(name).unwrap_or_else(|| spare(name))).collect()
}

/// FNV-1a: the same on every machine.
fn hash(name: &str) -> usize {
    let mixed =
        name.bytes().fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    mixed as usize
}

impl Colour {
    /// The colour of a chunk's pass: the first chunk's is the deepest.
    #[must_use]
    pub fn of_chunk(self, chunk: u32, chunks: u32) -> Self {
        if chunks < 2 {
            return self;
        }
        let chunk = chunk.min(chunks - 1);
        self.mix(WHITE, (u64::from(chunk) * 55 / u64::from(chunks - 1)) as u32)
    }

    /// This colour with so many hundredths of another.
    #[must_use]
    pub fn mix(self, other: Self, hundredths: u32) -> Self {
        let part = |at: usize| {
            let (own, new) = (u32::from(self.0[at]), u32::from(other.0[at]));
            ((own * (100 - hundredths) + new * hundredths) / 100) as u8
        };
        Self([part(0), part(1), part(2)])
    }

    /// Black or white: what can be read on it.
    #[must_use]
    pub fn ink(self) -> Self {
        if self.has_dark_ink() { BLACK } else { WHITE }
    }

    /// Whether [`Colour::ink`] is black.
    #[must_use]
    pub fn has_dark_ink(self) -> bool {
        let [red, green, blue] = self.0.map(u32::from);
        red * 299 + green * 587 + blue * 114 > 118_000
    }

    /// The nearest of the 256 colours that every terminal has.
    #[must_use]
    pub fn ansi(self) -> u8 {
        let level = |value: u8| match value {
            0..48 => 0,
            48..115 => 1,
            _ => (u32::from(value) - 35) / 40,
        };
        let [red, green, blue] = self.0.map(level);
        (16 + 36 * red + 6 * green + blue) as u8
    }

    /// The nearest colour of Chrome's trace viewer, by its name there.
    #[must_use]
    pub fn chrome(self) -> &'static str {
        let far = |other: Self| {
            let apart = |at: usize| i32::from(self.0[at]).abs_diff(i32::from(other.0[at])).pow(2);
            apart(0) + apart(1) + apart(2)
        };
        CHROME.iter().min_by_key(|(_, colour)| far(*colour)).map_or("generic_work", |(name, _)| name)
    }
}

impl fmt::Display for Colour {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [red, green, blue] = self.0;
        write!(f, "#{red:02x}{green:02x}{blue:02x}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pass_keeps_its_colour_whatever_comes_with_it() {
        assert_eq!(colours(&["F", "B"])[0], colours(&["W", "R", "F"])[2]);
        assert_eq!(colours(&["R", "F"])[0], colours(&["B", "R"])[1]);
        assert_eq!(colours(&["Q", "R"])[0], colours(&["R", "Q"])[1], "their order says nothing");
        let many = ["A", "C", "D", "E", "G", "H", "K", "L"];
        assert_eq!(colours(&many).into_iter().collect::<BTreeSet<_>>().len(), many.len());
    }

    #[test]
    fn chunks_differ_by_lightness_and_stay_legible() {
        let blue = colours(&["F"])[0];
        assert_eq!(blue.of_chunk(0, 1), blue);
        assert!(!blue.has_dark_ink() && blue.of_chunk(1, 2).has_dark_ink());
        assert_eq!((blue.to_string(), Colour([0xff; 3]).ansi()), ("#0072b2".to_owned(), 231));
    }
}
