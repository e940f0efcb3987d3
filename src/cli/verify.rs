//! `schedc verify`: a plan file, or a PyTorch schedule, against every rule.

use std::path::PathBuf;

use miette::Diagnostic;
use schedc::cost::UNIT;
use schedc::simulate::Known;
use schedc::torch;
use schedc::verify::{Channel, Fifo, Options, Sends, Verified};
use thiserror::Error;

use super::compare::{INSTRUCTIONS, MICROBATCHES, RANKS, STAGES, counted};
use super::files::{self, Contents, Wanted};
use super::job::JobError;
use super::{Failure, limit, print};

/// What `schedc verify` takes.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct VerifyArgs {
    /// The plan, in text or JSON form, or a PyTorch schedule `.csv`
    plan: PathBuf,
    /// How messages travel: for a plan `rendezvous` [default] or `buffered-K` (K messages in flight on each channel); for a PyTorch
    /// schedule `gloo`, `nccl` [default] or `rendezvous`
    #[arg(long, value_name = "CHANNEL", value_parser = transport)]
    channel: Option<Transport>,
    /// Which sends and receives of a rank run one after the other [default: pair]
    #[arg(long, value_enum)]
    fifo: Option<Queue>,
    #[command(flatten)]
    limit: limit::LimitArg,
    #[command(flatten)]
    torch: TorchArgs,
}

/// What a PyTorch schedule is held to beside the rules.
#[derive(Clone, Copy, Debug, clap::Args)]
#[command(next_help_heading = "PyTorch schedules")]
struct TorchArgs {
    /// Where the stages must lie [default: where the rows have them]
    #[arg(long, value_enum)]
    placement: Option<Place>,
    /// Ranks that the schedule must be for [default: its rows]
    #[arg(long, short = 'p', value_name = "P")]
    ranks: Option<u32>,
    /// Microbatches that it must have [default: those that its actions name]
    #[arg(long, short = 'm', value_name = "M")]
    microbatches: Option<u32>,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Place {
    /// Stage s on rank s mod p.
    Loop,
    /// Two stages a rank, there and back.
    V,
}

/// A word for a channel.
#[derive(Clone, Copy, Debug)]
enum Transport {
    Rendezvous,
    Buffered(u32),
    Gloo,
    Nccl,
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

/// A flag that does not suit the file.
#[derive(Debug, Error, Diagnostic)]
enum VerifyError {
    /// A flag for the other sort of file.
    #[error("`{flag}` says nothing about {what}")]
    #[diagnostic(code(schedc::cli::wrong_flag), help("{help}"))]
    WrongFlag {
        /// The flag and its value.
        flag: String,
        /// What the file is.
        what: &'static str,
        /// What to write instead.
        help: &'static str,
    },
}

fn transport(text: &str) -> Result<Transport, String> {
    let buffered = || text.strip_prefix("buffered-")?.parse().ok().map(Transport::Buffered);
    let words = [("rendezvous", Transport::Rendezvous), ("gloo", Transport::Gloo), ("nccl", Transport::Nccl)];
    let known = words.into_iter().find(|(word, _)| *word == text).map(|(_, transport)| transport);
    known.or_else(buffered).ok_or_else(|| {
        "write `rendezvous` or `buffered-1`, for a PyTorch schedule also `gloo` or `nccl`".to_owned()
    })
}

/// Verifies and says so.
pub(crate) fn verify(args: &VerifyArgs) -> Result<(), Failure> {
    let name = args.plan.display().to_string();
    match files::read(&args.plan, Wanted::Plan)? {
        Contents::Torch(bytes) => foreign(&name, &bytes, args),
        contents => plan(&name, &contents.into_bytes(), args),
    }
}

fn wrong(flag: String, what: &'static str, help: &'static str) -> Failure {
    Failure::usage(VerifyError::WrongFlag { flag, what, help })
}

fn plan(name: &str, bytes: &[u8], args: &VerifyArgs) -> Result<(), Failure> {
    let sends = match args.channel {
        None | Some(Transport::Rendezvous) => Sends::Rendezvous,
        Some(Transport::Buffered(messages)) => Sends::Buffered(messages),
        Some(Transport::Gloo | Transport::Nccl) => {
            let help = "write `rendezvous` or `buffered-K`, with `--fifo` for what runs one after the other";
            return Err(wrong("--channel gloo|nccl".to_owned(), "a plan", help));
        }
    };
    let TorchArgs { placement, ranks, microbatches } = args.torch;
    let number = |flag: &str, value: Option<u32>| value.map(|value| format!("{flag} {value}"));
    let given = placement.map(|_| "--placement".to_owned());
    let given = given.or_else(|| number("--ranks", ranks)).or_else(|| number("--microbatches", microbatches));
    if let Some(flag) = given {
        return Err(wrong(
            flag,
            "a plan",
            "leave it out: a plan states its placement, ranks and microbatches",
        ));
    }
    let queue = match args.fifo.unwrap_or(Queue::Pair) {
        Queue::Direction => Fifo::PerDirection,
        Queue::Pair => Fifo::PerPair,
        Queue::Rank => Fifo::PerRank,
    };
    let options = Options { channel: Channel { sends, queue }, memory_limit: None };
    let plan = verified(name, bytes, &options)?;
    let unit = || Ok((UNIT.bind_plan(&plan.header).map_err(Failure::one)?, Known::default()));
    args.limit.check(&plan, unit)?;
    let instrs: usize = plan.ranks.iter().map(|rank| rank.instrs.len()).sum();
    let peak = plan.ranks.iter().map(|rank| rank.peak.bytes).max().unwrap_or_default();
    let hash = schedc::emit::plan_hash(&plan);
    print(&format!(
        "{name}: sound; {}, {}, peak {peak}\nplan {hash}\n",
        counted(plan.ranks.len(), RANKS),
        counted(instrs, INSTRUCTIONS)
    ));
    Ok(())
}

/// A PyTorch schedule, by its actions alone.
fn foreign(name: &str, bytes: &[u8], args: &VerifyArgs) -> Result<(), Failure> {
    const WHAT: &str = "a PyTorch schedule";
    let channel = match args.channel {
        None | Some(Transport::Nccl) => torch::Channel::Nccl,
        Some(Transport::Gloo) => torch::Channel::Gloo,
        Some(Transport::Rendezvous) => torch::Channel::Rendezvous,
        Some(Transport::Buffered(messages)) => {
            let help = "write `gloo`, `nccl` or `rendezvous`";
            return Err(wrong(format!("--channel buffered-{messages}"), WHAT, help));
        }
    };
    if args.fifo.is_some() {
        return Err(wrong(
            "--fifo".to_owned(),
            WHAT,
            "leave it out: the channel says what runs one after the other",
        ));
    }
    if args.limit.is_given() {
        let help = "leave it out: a file of actions states no memory";
        return Err(wrong("--memory-limit".to_owned(), WHAT, help));
    }
    let placement = args.torch.placement.map(|place| match place {
        Place::Loop => torch::Placement::Loop,
        Place::V => torch::Placement::V,
    });
    let sound = sound(name, bytes, channel, placement)?;
    agree(&sound, args.torch.ranks, args.torch.microbatches)?;
    let rows = sound.rows();
    let placed = sound.placement().map_or("its own".to_owned(), |placement| placement.to_string());
    print(&format!(
        "{name}: sound on {channel}; {}, {}, {} (placement {placed}), {}, {}\n",
        rows.form,
        counted(rows.ranks(), RANKS),
        counted(sound.stages().len(), STAGES),
        counted(sound.microbatches() as usize, MICROBATCHES),
        counted(rows.actions.len(), ["action", "actions"]),
    ));
    Ok(())
}

/// Refuses numbers that are not those of a PyTorch schedule.
pub(crate) fn agree(
    sound: &torch::Sound,
    ranks: Option<u32>,
    microbatches: Option<u32>,
) -> Result<(), Failure> {
    let numbers = [
        ("--ranks", ranks, sound.rows().ranks() as u32),
        ("--microbatches", microbatches, sound.microbatches()),
    ];
    match numbers.into_iter().find(|(_, asked, has)| asked.is_some_and(|asked| asked != *has)) {
        None => Ok(()),
        Some((flag, asked, has)) => {
            let asked = format!("{flag} {}", asked.unwrap_or_default());
            Err(Failure::usage(JobError::ContradictsTorch { asked, has: has.to_string() }))
        }
    }
}

/// Reads and checks a PyTorch schedule.
pub(crate) fn sound(
    name: &str,
    bytes: &[u8],
    channel: torch::Channel,
    placement: Option<torch::Placement>,
) -> Result<torch::Sound, Failure> {
    let checked = torch::read(name, bytes).and_then(|rows| torch::check(rows, channel, placement));
    checked.map_err(|error| Failure::one(*error))
}

/// Reads and verifies a plan.
pub(crate) fn verified(name: &str, bytes: &[u8], options: &Options) -> Result<Verified, Failure> {
    let (plan, source) = schedc::import::read_plan(name, bytes).map_err(Failure::one)?;
    schedc::verify::verify(plan, options).map_err(|refused| Failure::one(refused.labelled_in_plan(source)))
}
