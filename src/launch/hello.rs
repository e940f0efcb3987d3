//! What a process says of itself: its number, where it listens, and the terms on which it takes part.

use serde::{Deserialize, Serialize};

/// What begins every connection, with the version of what follows.
pub(super) const MAGIC: [u8; 8] = *b"schedc\0\x01";

/// The longest introduction.
pub(super) const LONGEST: usize = 16 << 10;

/// What all processes of a run must have in common: names and values, in the order in which differences are told.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Terms(pub Vec<(String, String)>);

/// A process's introduction.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Hello {
    pub(super) process: usize,
    /// Where it listens for its peers.
    pub(super) port: u16,
    pub(super) terms: Terms,
}

/// How process 0 answers all who came.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) enum Verdict {
    /// All agree: a number for this run, and where the processes listen.
    Go { session: [u8; 32], peers: Vec<(std::net::IpAddr, u16)> },
    /// They do not.
    Differs { what: String, who: String },
    /// Somebody has not come.
    Missing { seconds: f64, missing: String, strangers: String },
    /// Two are the same.
    Taken { process: usize },
}

impl Terms {
    /// What differs among processes, and who has what; `None` where all agree.
    pub(super) fn differences(all: &[Option<&Self>]) -> Option<(String, String)> {
        let first = all.first().copied().flatten()?;
        let mut names: Vec<&str> = first.0.iter().map(|(name, _)| name.as_str()).collect();
        for (name, _) in all.iter().copied().flatten().flat_map(|terms| &terms.0) {
            if !names.contains(&name.as_str()) {
                names.push(name);
            }
        }
        let differs =
            |name: &&str| all.iter().copied().flatten().any(|terms| terms.value(name) != first.value(name));
        let what: Vec<&str> = names.into_iter().filter(differs).collect();
        let name = *what.first()?;
        let mut groups: Vec<(&str, Vec<usize>)> = Vec::new();
        for (process, terms) in all.iter().enumerate() {
            let Some(value) = terms.map(|terms| terms.value(name)) else { continue };
            match groups.iter_mut().find(|(other, _)| *other == value) {
                Some((_, who)) => who.push(process),
                None => groups.push((value, vec![process])),
            }
        }
        let who = groups.into_iter().take(8).map(|(value, who)| {
            let value: String = value.chars().take(64).collect();
            format!("{} {value}", processes(&who))
        });
        let name: Vec<String> = what.iter().take(8).map(|name| format!("`{name}`")).collect();
        Some((name.join(", "), who.collect::<Vec<_>>().join("; ")))
    }

    fn value(&self, name: &str) -> &str {
        self.0.iter().find(|(own, _)| own == name).map_or("nothing", |(_, value)| value)
    }
}

/// Processes by number: `process 1`, `processes 1, 3`.
pub(super) fn processes(list: &[usize]) -> String {
    let numbers: Vec<String> = list.iter().take(16).map(ToString::to_string).collect();
    let more = if list.len() > 16 { format!(" and {} more", list.len() - 16) } else { String::new() };
    let word = if list.len() == 1 { "process" } else { "processes" };
    format!("{word} {}{more}", numbers.join(", "))
}
