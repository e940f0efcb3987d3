//! What every rank is doing: counters that the ranks keep while they run, and the table that is made of them when a run ends badly.

use std::fmt;
use std::str::FromStr;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use super::prepare::{Action, Entry, Part, Script};
use super::wiring::Network;
use crate::ir::{Header, InstrId, Op, Pass, Payload, Plan, Rank, Value};

/// When a run is given up, and a drill for it.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// How long no rank may make progress.
    pub stall: Duration,
    /// A failure to act out.
    pub drill: Option<Drill>,
}

impl Default for Limits {
    fn default() -> Self {
        Self { stall: Duration::from_mins(1), drill: None }
    }
}

/// A failure that is acted out, to see how a run ends: `r1@20=stall`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Drill {
    /// The rank that fails.
    pub rank: Rank,
    /// The instruction before which it fails.
    pub instr: InstrId,
    /// How it fails.
    pub failure: Failure,
}

/// How a rank fails in a drill.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// It does nothing from then on.
    Stall,
    /// Its thread panics.
    Panic,
}

impl FromStr for Drill {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parse = || {
            let (place, failure) = text.split_once('=')?;
            let (rank, instr) = place.strip_prefix('r')?.split_once('@')?;
            let failure = match failure {
                "stall" => Failure::Stall,
                "panic" => Failure::Panic,
                _ => return None,
            };
            Some(Self { rank: Rank(rank.parse().ok()?), instr: InstrId(instr.parse().ok()?), failure })
        };
        parse().ok_or_else(|| {
            "write a rank, an instruction and a failure, such as `r1@20=stall` or `r0@3=panic`".into()
        })
    }
}

/// One rank's counters; the rank writes, anyone reads.
#[derive(Debug)]
pub(super) struct Status {
    /// The step that it is in.
    pub(super) step: AtomicU64,
    /// The count of steps before this one in this process.
    pub(super) turn: AtomicU64,
    /// Instructions ended since the run began.
    pub(super) progress: AtomicU64,
    /// For each lane, the instructions of this step that have ended.
    pub(super) heads: Box<[AtomicU32]>,
    /// Whether a drill holds it.
    pub(super) held: AtomicBool,
    /// Whether nothing is heard of its process.
    pub(super) silent: AtomicBool,
}

impl Status {
    /// Counters of a rank that has not begun.
    pub(super) fn new(lanes: usize) -> Self {
        Self {
            step: AtomicU64::new(0),
            turn: AtomicU64::new(0),
            progress: AtomicU64::new(0),
            heads: (0..lanes).map(|_| AtomicU32::new(0)).collect(),
            held: AtomicBool::new(false),
            silent: AtomicBool::new(false),
        }
    }

    /// Notes that the instruction at the head of a lane has ended.
    pub(super) fn ended(&self, lane: usize) {
        self.heads[lane].fetch_add(1, Ordering::Relaxed);
        self.progress.fetch_add(1, Ordering::Relaxed);
    }

    /// Notes how many instructions at a lane's head have ended.
    pub(super) fn reached(&self, lane: usize, head: u32) {
        let before = self.heads[lane].swap(head, Ordering::Relaxed);
        self.progress.fetch_add(head.saturating_sub(before).into(), Ordering::Relaxed);
    }

    /// Begins a step.
    pub(super) fn begin(&self, step: u64, turn: u64) {
        self.step.store(step, Ordering::Relaxed);
        self.turn.store(turn, Ordering::Relaxed);
        for head in &self.heads {
            head.store(0, Ordering::Relaxed);
        }
    }

    /// All of it as numbers, for other processes; always as many.
    pub(super) fn numbers(&self) -> impl Iterator<Item = u64> {
        let own = [&self.step, &self.turn, &self.progress].map(|number| number.load(Ordering::Relaxed));
        let held = u64::from(self.held.load(Ordering::Relaxed));
        let heads = self.heads.iter().map(|head| u64::from(head.load(Ordering::Relaxed)));
        own.into_iter().chain([held]).chain(heads)
    }

    /// Takes over what another process says; where numbers are missing the rest stays.
    pub(super) fn take_over(&self, numbers: &mut impl Iterator<Item = u64>) {
        for own in [&self.step, &self.turn, &self.progress] {
            numbers.next().inspect(|&number| own.store(number, Ordering::Relaxed));
        }
        numbers.next().inspect(|&held| self.held.store(held == 1, Ordering::Relaxed));
        for head in &self.heads {
            numbers.next().inspect(|&number| head.store(number as u32, Ordering::Relaxed));
        }
    }

    fn head(&self, lane: usize) -> usize {
        self.heads[lane].load(Ordering::Relaxed) as usize
    }
}

/// What every rank was doing when a run ended.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// One row for each lane that has not come to its end; ranks that have are left out.
    pub rows: Vec<Row>,
}

/// What one lane of a rank was doing.
#[derive(Clone, Debug)]
pub struct Row {
    /// The rank.
    pub rank: Rank,
    /// The step that it was in.
    pub step: u64,
    /// Instructions of the step that had ended, and all there are.
    pub done: (usize, usize),
    /// The lane.
    pub lane: String,
    /// The instruction at the lane's head.
    pub instr: InstrId,
    /// What it does.
    pub doing: String,
    /// What it waits for; `running` where it waits for nothing.
    pub waits: String,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let titles = ["rank", "step", "done", "lane", "instruction", "waits for"].map(str::to_owned);
        let cells = self.rows.iter().map(|row| {
            let done = format!("{}/{}", row.done.0, row.done.1);
            let doing = format!("{} {}", row.instr, row.doing);
            [row.rank.to_string(), row.step.to_string(), done, row.lane.clone(), doing, row.waits.clone()]
        });
        let lines: Vec<[String; 6]> = std::iter::once(titles).chain(cells).collect();
        let widths: [usize; 6] =
            std::array::from_fn(|column| lines.iter().map(|line| line[column].len()).max().unwrap_or(0));
        for line in &lines {
            let padded: Vec<String> =
                line.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}")).collect();
            writeln!(f, "{}", padded.join("  ").trim_end())?;
        }
        Ok(())
    }
}

/// All that a report is made of.
pub(super) struct Scene<'a> {
    pub(super) plan: &'a Plan,
    pub(super) scripts: &'a [std::sync::Arc<Script>],
    pub(super) network: &'a Network,
    pub(super) status: &'a [Status],
}

impl Scene<'_> {
    /// The table of every rank's busy lanes.
    pub(super) fn report(&self) -> Report {
        let ranks = Rank::all(self.scripts.len());
        Report { rows: ranks.flat_map(|rank| self.rank_rows(rank)).collect() }
    }

    fn rank_rows(&self, rank: Rank) -> Vec<Row> {
        let (script, status) = (&self.scripts[rank.index()], &self.status[rank.index()]);
        let done = (0..script.lanes.len()).map(|lane| status.head(lane)).sum();
        let heads = script.lanes.iter().enumerate().filter_map(|(lane, entries)| {
            let entry = entries.get(status.head(lane))?;
            let instr = &self.plan.ranks[rank.index()].instrs[entry.instr.index()];
            Some(Row {
                rank,
                step: status.step.load(Ordering::Relaxed),
                done: (done, script.total),
                lane: self.plan.ranks[rank.index()].lanes[lane].to_string(),
                instr: entry.instr,
                doing: describe(instr.op, &self.plan.header),
                waits: self.waits_of(rank, entry, status.head(lane)),
            })
        });
        heads.collect()
    }

    fn waits_of(&self, rank: Rank, entry: &Entry, position: usize) -> String {
        let status = &self.status[rank.index()];
        if status.held.load(Ordering::Relaxed) {
            return "nothing: held by the drill".to_owned();
        }
        if status.silent.load(Ordering::Relaxed) {
            return "nothing: its process gives no sign of life".to_owned();
        }
        let open =
            entry.waits.iter().filter(|wait| status.head(wait.lane as usize) <= wait.position as usize);
        let open: Vec<String> =
            open.map(|wait| self.named(rank, self.scripts[rank.index()].entry(*wait).instr)).collect();
        if !open.is_empty() {
            return open.join(", ");
        }
        match &entry.action {
            Action::Pass { .. } | Action::Step => "nothing: running".to_owned(),
            Action::Send { mailbox, .. } => {
                let reader = self.network.mailboxes[*mailbox].reader();
                format!("{reader} to take the message{}", if self.network.bare { "" } else { " before" })
            }
            Action::Recv { mailbox, .. } => {
                self.sender(rank, self.network.mailboxes[*mailbox].writer(), position)
            }
            Action::Collective(part) if self.network.bare => self.absent(rank, part),
            Action::Collective(part) => {
                let sequence = self.network.sequence(part, status.turn.load(Ordering::Relaxed));
                match self.network.boards[part.board].missing(sequence) {
                    Some(missing) if missing.is_empty() => "nothing: collecting".to_owned(),
                    Some(missing) => {
                        let names: Vec<String> = missing.iter().map(ToString::to_string).collect();
                        format!("the contribution of {}", names.join(", "))
                    }
                    None => "the collective before it to end on all members".to_owned(),
                }
            }
        }
    }

    /// The members of a collective on devices that have not come to it.
    fn absent(&self, own: Rank, part: &Part) -> String {
        let come = |&rank: &Rank| {
            let (script, status) = (&self.scripts[rank.index()], &self.status[rank.index()]);
            let same = |entry: &Entry| matches!(&entry.action, Action::Collective(other) if (other.board, other.ordinal) == (part.board, part.ordinal));
            script.lanes.iter().enumerate().any(|(lane, entries)| {
                let Some(position) = entries.iter().position(same) else { return false };
                let open = |entry: &Entry| {
                    entry.waits.iter().any(|wait| status.head(wait.lane as usize) <= wait.position as usize)
                };
                status.head(lane) > position || status.head(lane) == position && !open(&entries[position])
            })
        };
        let members = self.network.boards[part.board].members().iter();
        let absent: Vec<String> =
            members.filter(|&rank| *rank != own && !come(rank)).map(ToString::to_string).collect();
        if absent.is_empty() {
            return "nothing: all members have come".to_owned();
        }
        format!("the contribution of {}", absent.join(", "))
    }

    /// The send that a receive waits for, and how far its rank has come on that lane.
    fn sender(&self, reader: Rank, writer: Rank, position: usize) -> String {
        let lanes = &self.plan.ranks[writer.index()].lanes;
        let lane = lanes.iter().position(|&lane| lane == crate::ir::Lane::Send(reader));
        let send = lane.and_then(|lane| self.scripts[writer.index()].lanes[lane].get(position));
        match send {
            Some(entry) => format!("{writer}: {}", self.named(writer, entry.instr)),
            None => format!("{writer}, which sends nothing more"),
        }
    }

    fn named(&self, rank: Rank, instr: InstrId) -> String {
        let op = self.plan.ranks[rank.index()].instrs[instr.index()].op;
        format!("{instr} {}", describe(op, &self.plan.header))
    }
}

/// An instruction as a table names it: `F s0 m1`, `recv x of F s0 m1 from r0`.
pub(super) fn describe(op: Op, header: &Header) -> String {
    match op {
        Op::Pass(pass) => describe_pass(pass, header),
        Op::Send { to, value } => format!("send {} to {to}", describe_value(value, header)),
        Op::Recv { from, value } => format!("recv {} from {from}", describe_value(value, header)),
        Op::Collective { payload: Payload::TiedGradient, op, .. } => format!("{op} of the tied gradient"),
        Op::Collective { payload: Payload::StageGradient(stage), op, .. } => {
            format!("{op} of the gradient of {stage}")
        }
        Op::Collective { payload: Payload::Value { collective, microbatch }, .. } => {
            format!("{} {}", header.catalog.collective(collective).name, header.cut().name(microbatch))
        }
        Op::Step => "optimizer step".to_owned(),
    }
}

fn describe_pass(pass: Pass, header: &Header) -> String {
    let unit = header.cut().name(pass.microbatch);
    format!("{} {} {unit}", header.catalog.kind(pass.kind).name, pass.site)
}

/// A value as messages name it.
pub(super) fn describe_value(value: Value, header: &Header) -> String {
    let catalog = &header.catalog;
    let class = catalog.kind(value.pass.kind).gives.get(value.port.index());
    let class = class.map_or("value", |&class| catalog.class(class).name.as_str());
    format!("{class} of {}", describe_pass(value.pass, header))
}
