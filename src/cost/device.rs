//! The text of a device file -> [`Device`], and the files that are shipped.

use super::model::Precision;
use super::problem::{FileError, Problem};
use super::toml::{self, Table, Unit};
use super::topology::{LINK, Link, link};
use crate::source::Embedded;

/// The devices that are shipped: `stdlib/devices/`.
pub const DEVICES: &[Embedded] = &[
    Embedded { name: "a100-80g", text: include_str!("../../stdlib/devices/a100-80g.toml") },
    Embedded { name: "h100", text: include_str!("../../stdlib/devices/h100.toml") },
    Embedded { name: "h200", text: include_str!("../../stdlib/devices/h200.toml") },
];

/// What a device does, and how fast.
#[derive(Clone, Debug, PartialEq)]
pub struct Device {
    /// As its maker calls it.
    pub name: String,
    /// Bytes of its memory.
    pub memory: f64,
    /// What the driver and the communication library take of it before a model does, in bytes.
    pub reserved: f64,
    /// Bytes per second.
    pub bandwidth: f64,
    /// Floating-point operations per second, by [`Precision`].
    pub peak: [Option<f64>; Precision::WORDS.len()],
    /// What part of it is reached.
    pub efficiency: Efficiency,
    /// What every pass at every rank takes beside its work, in seconds: it is too short to hide the launches of its kernels.
    pub launch: f64,
    /// To another device of its node, where no topology says so.
    pub link: Link,
}

/// What part of a device's rates is reached.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Efficiency {
    /// Of the peak rate, by the products of linear layers.
    pub linear: f64,
    /// By attention's products with the sequence; the half that a causal mask leaves out counts as computed.
    pub attention: f64,
    /// By the products with the vocabulary.
    pub vocabulary: f64,
    /// Of the memory's bandwidth, by passes over memory.
    pub memory: f64,
    /// Of all rates, while collectives run beside the passes.
    pub overlap: f64,
}

const KEYS: [&str; 8] =
    ["name", "memory", "reserved", "memory-bandwidth", "launch", "peak", "efficiency", "link"];
const PRECISIONS: [&str; Precision::WORDS.len()] = ["fp32", "tf32", "bf16", "fp16", "fp8"];
const EFFICIENCY: [&str; 5] = ["linear", "attention", "vocabulary", "memory", "overlap"];

impl Device {
    /// A device that is shipped.
    #[must_use]
    pub fn shipped(name: &str) -> Option<&'static Embedded> {
        DEVICES.iter().find(|device| device.name == name)
    }

    /// Reads a device file; `name` is what diagnostics call it.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn parse(name: &str, text: &str) -> Result<Self, FileError> {
        read(text).map_err(|problem| FileError::new(problem, name, text))
    }
}

fn read(text: &str) -> Result<Device, Problem> {
    let parsed = toml::parse(text)?;
    let file = Table::root(&parsed, "a device file", &KEYS)?;
    let rates = file.required_table("peak", "`[peak]`", &PRECISIONS)?;
    let mut peak = [None; Precision::WORDS.len()];
    for (rate, key) in peak.iter_mut().zip(PRECISIONS) {
        *rate = rates.maybe_quantity(key, Unit::FlopsPerSecond)?;
    }
    let shares = file.required_table("efficiency", "`[efficiency]`", &EFFICIENCY)?;
    let needed = |key: &'static str| {
        let missing = Problem::MissingKey {
            key,
            table: "`[efficiency]`",
            example: "a number from 0 to 1",
            at: file.place("efficiency"),
        };
        shares.share(key)?.ok_or(missing)
    };
    let efficiency = Efficiency {
        linear: needed("linear")?,
        attention: needed("attention")?,
        vocabulary: needed("vocabulary")?,
        memory: needed("memory")?,
        overlap: shares.share("overlap")?.unwrap_or(1.0),
    };
    Ok(Device {
        name: file.text("name")?,
        memory: file.quantity("memory", Unit::Bytes)?,
        reserved: file.maybe_quantity("reserved", Unit::Bytes)?.unwrap_or(0.0),
        bandwidth: file.quantity("memory-bandwidth", Unit::BytesPerSecond)?,
        peak,
        efficiency,
        launch: file.maybe_quantity("launch", Unit::Time)?.unwrap_or(0.0),
        link: link(&file.required_table("link", "`[link]`", &LINK)?)?,
    })
}
