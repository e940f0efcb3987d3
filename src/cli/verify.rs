//! `schedc verify`: a plan file against every rule.

use std::path::PathBuf;

use schedc::ir::Bytes;
use schedc::verify::{Channel, Fifo, Options, Sends, Verified};

use super::files::{self, Wanted};
use super::{Failure, print};

/// What `schedc verify` takes.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct VerifyArgs {
    /// The plan, in text or JSON form
    plan: PathBuf,
    /// How long a send lasts: `rendezvous`, or `buffered-K` for K messages in flight on each channel
    #[arg(long, value_name = "SENDS", default_value = "rendezvous", value_parser = sends)]
    channel: Sends,
    /// Which sends and receives of a rank run one after the other
    #[arg(long, value_enum, default_value_t = Queue::Pair)]
    fifo: Queue,
    /// Refuse a plan whose arena is larger on any rank: a number of bytes, or with KB, MB, GB
    #[arg(long, value_name = "BYTES", value_parser = bytes)]
    memory_limit: Option<Bytes>,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Queue {
    /// Those to one peer, and those from one peer.
    Direction,
    /// Those to and from one peer.
    Pair,
    /// All of a rank.
    Rank,
}

fn sends(text: &str) -> Result<Sends, String> {
    let buffered = || text.strip_prefix("buffered-")?.parse().ok().map(Sends::Buffered);
    let known = (text == "rendezvous").then_some(Sends::Rendezvous).or_else(buffered);
    known.ok_or_else(|| "write `rendezvous` or `buffered-1`".to_owned())
}

fn bytes(text: &str) -> Result<Bytes, String> {
    let units = [("KB", 1_000), ("MB", 1_000_000), ("GB", 1_000_000_000), ("B", 1), ("", 1)];
    let cut = |(unit, scale): (&str, u64)| Some((text.strip_suffix(unit)?, scale));
    let (number, scale) = units.into_iter().find_map(cut).unwrap_or((text, 1));
    let number: u64 =
        number.trim().parse().map_err(|_| "write a number of bytes, such as 1048576 or 80GB".to_owned())?;
    number.checked_mul(scale).map(Bytes).ok_or_else(|| "that is more bytes than there are".to_owned())
}

/// Verifies and says so.
pub(crate) fn verify(args: &VerifyArgs) -> Result<(), Failure> {
    let name = args.plan.display().to_string();
    let queue = match args.fifo {
        Queue::Direction => Fifo::PerDirection,
        Queue::Pair => Fifo::PerPair,
        Queue::Rank => Fifo::PerRank,
    };
    let options =
        Options { channel: Channel { sends: args.channel, queue }, memory_limit: args.memory_limit };
    let plan = verified(&name, &files::read(&args.plan, Wanted::Plan)?.into_bytes(), &options)?;
    let instrs: usize = plan.ranks.iter().map(|rank| rank.instrs.len()).sum();
    let peak = plan.ranks.iter().map(|rank| rank.peak.bytes).max().unwrap_or_default();
    let hash = schedc::emit::plan_hash(&plan);
    print(&format!(
        "{name}: sound; {} ranks, {instrs} instructions, peak {peak}\nplan {hash}\n",
        plan.ranks.len()
    ));
    Ok(())
}

/// Reads and verifies a plan.
pub(crate) fn verified(name: &str, bytes: &[u8], options: &Options) -> Result<Verified, Failure> {
    let (plan, source) = schedc::import::read_plan(name, bytes).map_err(Failure::one)?;
    schedc::verify::verify(plan, options).map_err(|refused| Failure::one(refused.labelled_in_plan(source)))
}
