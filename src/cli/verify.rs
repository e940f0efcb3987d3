//! `schedc verify`: a plan file against every rule.

use std::path::PathBuf;

use schedc::cost::UNIT;
use schedc::verify::{Channel, Fifo, Options, Sends, Verified};

use super::files::{self, Wanted};
use super::{Failure, limit, print};

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
    #[command(flatten)]
    limit: limit::LimitArg,
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

/// Verifies and says so.
pub(crate) fn verify(args: &VerifyArgs) -> Result<(), Failure> {
    let name = args.plan.display().to_string();
    let queue = match args.fifo {
        Queue::Direction => Fifo::PerDirection,
        Queue::Pair => Fifo::PerPair,
        Queue::Rank => Fifo::PerRank,
    };
    let options = Options { channel: Channel { sends: args.channel, queue }, memory_limit: None };
    let plan = verified(&name, &files::read(&args.plan, Wanted::Plan)?.into_bytes(), &options)?;
    args.limit.check(&plan, || UNIT.bind_plan(&plan.header).map_err(Failure::one))?;
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
