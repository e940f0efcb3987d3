//! What can go wrong before several processes are one run.

use std::io;

use miette::Diagnostic;
use thiserror::Error;

/// Why processes do not come together.
#[derive(Debug, Error, Diagnostic)]
#[non_exhaustive]
pub enum LaunchError {
    /// A variable of the environment that makes no sense.
    #[error("the environment has `{name}={value}`, which is not {expected}")]
    #[diagnostic(
        code(schedc::launch::bad_variable),
        help("set it right, or set SCHEDC_PROCESSES=1 to run in one process whatever else is set")
    )]
    BadVariable {
        /// The variable.
        name: &'static str,
        /// Its value.
        value: String,
        /// What it should be.
        expected: &'static str,
    },
    /// A variable of the environment that is not there.
    #[error("the environment makes this one of several processes, but `{name}` is not set")]
    #[diagnostic(
        code(schedc::launch::missing_variable),
        help("set it: {help}; or set SCHEDC_PROCESSES=1 to run in one process whatever else is set")
    )]
    MissingVariable {
        /// The variable.
        name: &'static str,
        /// What belongs there.
        help: &'static str,
    },
    /// Ranks that cannot be dealt out evenly.
    #[error("{ranks} ranks cannot be dealt out evenly to {processes} processes")]
    #[diagnostic(
        code(schedc::launch::uneven),
        help("start as many processes as the plan has ranks, or a number that divides it")
    )]
    Uneven {
        /// Ranks of the plan.
        ranks: usize,
        /// Processes.
        processes: usize,
    },
    /// An open address and no secret.
    #[error("`{address}` is not a loopback address, and there is no secret")]
    #[diagnostic(
        code(schedc::launch::no_secret),
        help("set SCHEDC_SECRET to one long random text for all processes; or use 127.0.0.1 on one machine")
    )]
    NoSecret {
        /// The address.
        address: String,
    },
    /// The address of process 0 cannot be used.
    #[error("process 0 cannot listen on `{address}`: {source}")]
    #[diagnostic(
        code(schedc::launch::cannot_listen),
        help("choose another port with SCHEDC_PORT, or the address of this machine with --listen")
    )]
    CannotListen {
        /// The address.
        address: String,
        /// Why.
        source: io::Error,
    },
    /// An address that no name leads to.
    #[error("`{address}` is not an address: {source}")]
    #[diagnostic(
        code(schedc::launch::no_address),
        help("MASTER_ADDR names the machine of process 0, by name or number")
    )]
    NoAddress {
        /// The address.
        address: String,
        /// Why.
        source: io::Error,
    },
    /// Nobody listens.
    #[error("process {process} found no process 0 of this run at `{address}` within {seconds} s: {reason}")]
    #[diagnostic(
        code(schedc::launch::nobody_listens),
        help("look how process 0 fares, and that MASTER_ADDR and the port are the same everywhere")
    )]
    NobodyListens {
        /// This process.
        process: usize,
        /// Where.
        address: String,
        /// How long.
        seconds: f64,
        /// What happened at the last try.
        reason: String,
    },
    /// Somebody has not come.
    #[error("after {seconds} s {missing} had not come{strangers}")]
    #[diagnostic(
        code(schedc::launch::missing_process),
        help(
            "look how it fares; all processes take the same SCHEDC_PROCESSES (or WORLD_SIZE, SLURM_NTASKS) and the same address; a slow start wants a longer --rendezvous-timeout"
        )
    )]
    MissingProcess {
        /// How long.
        seconds: f64,
        /// Who.
        missing: String,
        /// Who else came.
        strangers: String,
    },
    /// Another secret.
    #[error("process 0 at `{address}` and process {process} have different secrets")]
    #[diagnostic(
        code(schedc::launch::wrong_secret),
        help("set the same SCHEDC_SECRET for all processes; if it is, the port belongs to another run")
    )]
    WrongSecret {
        /// Where.
        address: String,
        /// This process.
        process: usize,
    },
    /// Two processes in one place.
    #[error("two processes are process {process}")]
    #[diagnostic(
        code(schedc::launch::place_taken),
        help("number the processes 0, 1, … in SCHEDC_PROCESS, RANK or SLURM_PROCID")
    )]
    PlaceTaken {
        /// The place.
        process: usize,
    },
    /// The processes are not of one mind.
    #[error("the processes do not mean the same run: {what} differs ({who})")]
    #[diagnostic(
        code(schedc::launch::differs),
        help("start all processes with the same schedc, the same plan and the same flags")
    )]
    Differs {
        /// What differs.
        what: String,
        /// Which process has what.
        who: String,
    },
    /// Processes do not reach each other.
    #[error("process {process} has no connection to {other}: {reason}")]
    #[diagnostic(
        code(schedc::launch::unreachable),
        help("every process connects to every other; let them reach each other at any port")
    )]
    Unreachable {
        /// This process.
        process: usize,
        /// The other one, or ones.
        other: String,
        /// Why.
        reason: String,
    },
}
