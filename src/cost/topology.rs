//! The text of a topology file -> [`Topology`]: nodes, the devices in them, and what lies between two.

use std::sync::Arc;

use miette::{NamedSource, SourceSpan};

use super::problem::{FileError, Problem};
use super::toml::{self, Table, Unit};
use crate::ir::Rank;

/// Nodes of devices. Ranks fill one node after the other.
#[derive(Clone, Debug, PartialEq)]
pub struct Topology {
    /// Nodes.
    pub nodes: u32,
    /// Devices in each.
    pub devices: u32,
    /// Between two devices of a node, in each direction.
    pub inside: Link,
    /// Between two nodes, in each direction.
    pub between: Link,
    /// Where the number of nodes was written.
    pub(super) text: Arc<NamedSource<Arc<str>>>,
    pub(super) at: SourceSpan,
}

/// A way from one device to another.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Link {
    /// Seconds until the first byte is there.
    pub latency: f64,
    /// Bytes per second.
    pub bandwidth: f64,
}

const KEYS: [&str; 4] = ["nodes", "devices-per-node", "inside", "between"];
pub(super) const LINK: [&str; 2] = ["latency", "bandwidth"];

impl Topology {
    /// Reads a topology file; `name` is what diagnostics call it.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn parse(name: &str, text: &str) -> Result<Self, FileError> {
        read(name, text).map_err(|problem| FileError::new(problem, name, text))
    }

    /// The node of a rank of so many devices.
    pub(super) fn node(&self, rank: Rank, devices: u32) -> u64 {
        u64::from(rank.0) * u64::from(devices) / u64::from(self.devices)
    }
}

pub(super) fn link(table: &Table<'_>) -> Result<Link, Problem> {
    Ok(Link {
        latency: table.quantity("latency", Unit::Time)?,
        bandwidth: table.quantity("bandwidth", Unit::BytesPerSecond)?,
    })
}

fn read(name: &str, text: &str) -> Result<Topology, Problem> {
    let parsed = toml::parse(text)?;
    let file = Table::root(&parsed, "a topology file", &KEYS)?;
    Ok(Topology {
        nodes: file.count("nodes")?,
        devices: file.count("devices-per-node")?,
        inside: link(&file.required_table("inside", "`[inside]`", &LINK)?)?,
        between: link(&file.required_table("between", "`[between]`", &LINK)?)?,
        text: Arc::new(NamedSource::new(name, Arc::from(text))),
        at: file.place("nodes"),
    })
}
