//! The environment -> which of how many processes this is, and where process 0 listens.

use std::time::Duration;

use super::error::LaunchError;
use super::secret::Secret;
use crate::ir::Rank;

/// The port where none is named.
const PORT: u16 = 29_511;

/// The place of a process in a run of several.
#[derive(Clone, Debug)]
pub struct Place {
    /// Which process this is.
    pub process: usize,
    /// How many there are, 2 at least.
    pub processes: usize,
    /// Which of those on its machine this is.
    pub local: u32,
    /// Where process 0 listens: a name or a number of a machine.
    pub host: String,
    /// The port there.
    pub port: u16,
    /// What all know.
    pub secret: Secret,
    /// How long the processes wait for each other.
    pub patience: Duration,
}

impl Place {
    /// The most processes of a run.
    pub const MOST: usize = 1024;

    /// How long the answer to one that came may take to be written.
    pub(super) const LONGEST_VISIT: Duration = Duration::from_hours(24);

    /// Reads the place from variables: `SCHEDC_PROCESS` and `SCHEDC_PROCESSES`, torchrun's `RANK` and `WORLD_SIZE`, or Slurm's
    /// `SLURM_PROCID` and `SLURM_NTASKS`, the first pair that is there; `None` where it is the only process. Torchrun's `LOCAL_RANK` and
    /// Slurm's `SLURM_LOCALID` say which of its machine's processes it is.
    ///
    /// # Errors
    /// A variable makes no sense, or is missing.
    pub fn read(
        get: impl Fn(&'static str) -> Option<String>,
        listen: Option<&str>,
        patience: Duration,
    ) -> Result<Option<Self>, LaunchError> {
        let pairs = [
            ("SCHEDC_PROCESS", "SCHEDC_PROCESSES"),
            ("RANK", "WORLD_SIZE"),
            ("SLURM_PROCID", "SLURM_NTASKS"),
        ];
        let Some((own, all)) = pairs.into_iter().find(|(_, all)| get(all).is_some()) else {
            return Ok(None);
        };
        let processes = number(&get, all, Self::MOST, "a number of processes from 1 to 1024")?.unwrap_or(1);
        if processes == 0 {
            let value = get(all).unwrap_or_default();
            return Err(LaunchError::BadVariable { name: all, value, expected: "a number from 1 on" });
        }
        if processes == 1 {
            return Ok(None);
        }
        let process =
            number(&get, own, processes - 1, "the number of a process, from 0 on and below their count")?
                .ok_or(LaunchError::MissingVariable {
                    name: own,
                    help: "which of the processes this is, from 0 on",
                })?;
        let one_node =
            get("SLURM_NNODES").or_else(|| get("SLURM_JOB_NUM_NODES")).is_some_and(|nodes| nodes == "1");
        let loopback = own.starts_with("SCHEDC") || one_node;
        let host = listen.map(str::to_owned).filter(|_| process == 0).or_else(|| get("MASTER_ADDR"));
        let host = host.or_else(|| loopback.then(|| "127.0.0.1".to_owned())).ok_or({
            LaunchError::MissingVariable { name: "MASTER_ADDR", help: "the machine of process 0" }
        })?;
        let most = Self::MOST - 1;
        let expected = "the number of a process on its machine, from 0 on";
        let local = match own {
            "RANK" => number(&get, "LOCAL_RANK", most, expected)?,
            "SLURM_PROCID" => number(&get, "SLURM_LOCALID", most, expected)?,
            // `schedc launch` starts all on one machine.
            _ => Some(process),
        };
        let local = local.unwrap_or(if one_node { process } else { 0 }) as u32;
        let ports = |name| number(&get, name, usize::from(u16::MAX), "a port");
        // The agent of torchrun may listen on MASTER_PORT itself.
        let next = ports("MASTER_PORT")?.map(|port| if port < 65_535 { port + 1 } else { port - 1 });
        let port = ports("SCHEDC_PORT")?.or(next).map_or(PORT, |port| port as u16);
        let secret = Secret::new(&get("SCHEDC_SECRET").unwrap_or_default());
        Ok(Some(Self { process, processes, local, host, port, secret, patience }))
    }

    /// The ranks of a process: neighbours, as many for each process.
    ///
    /// # Errors
    /// They cannot be dealt out evenly.
    pub fn ranks(&self, ranks: usize) -> Result<std::ops::Range<usize>, LaunchError> {
        if !ranks.is_multiple_of(self.processes) {
            return Err(LaunchError::Uneven { ranks, processes: self.processes });
        }
        let each = ranks / self.processes;
        Ok(self.process * each..(self.process + 1) * each)
    }

    /// The process that has a rank.
    #[must_use]
    pub fn home(rank: Rank, ranks: usize, processes: usize) -> usize {
        rank.index() / (ranks / processes.max(1)).max(1)
    }
}

fn number(
    get: &impl Fn(&'static str) -> Option<String>,
    name: &'static str,
    most: usize,
    expected: &'static str,
) -> Result<Option<usize>, LaunchError> {
    let Some(value) = get(name) else { return Ok(None) };
    match value.trim().parse::<usize>() {
        Ok(number) if number <= most => Ok(Some(number)),
        _ => Err(LaunchError::BadVariable { name, value: value.chars().take(80).collect(), expected }),
    }
}
