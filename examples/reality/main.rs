//! Prints a table of predicted and measured step times: passes are measured under one schedule, and the steps of the others predicted from that.
//!
//! `cargo run --release --example reality`, on a machine with a core for each rank and nothing else to do; `-- --steps 12` takes more steps of
//! each schedule, `-- 1f1b v-half+vocab-1` only these.
//!
//! A machine is not as fast in one minute as in the next. So both run by turns, a step of the one, a step of the other: each step is held
//! against its prediction from the two steps of the profiled schedule before and after it, and the median of the ratios counts.

use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use schedc::cost::{CostSpec, Profile};
use schedc::driver::{Input, Job, compile};
use schedc::emit::plan_hash;
use schedc::execute::cpu::CpuBackend;
use schedc::execute::data::{Corpus, Text};
use schedc::execute::interpreter::{Engine, Finish};
use schedc::execute::model::Train;
use schedc::execute::tokenizer::{Tokenizer, TokenizerKind};
use schedc::execute::watchdog::Limits;
use schedc::ir::{Dims, Mode, Precision};
use schedc::resolve::{Model, Partitioning};
use schedc::simulate::{Known, Report};
use schedc::source::Sources;
use schedc::verify::Verified;
use schedc::view::{chrome, measured};

/// The schedule whose passes are measured. It has each part of the model in a pass of its own, or nearly: both gradients of the layers, the
/// output layer apart from them.
const PROFILED: &str = "zb-h1+vocab-1";

/// The schedules that are predicted.
const PREDICTED: [&str; 24] = [
    "gpipe",
    "1f1b",
    "eager-1f1b",
    "zb-h1",
    "zb-h2",
    "interleaved",
    "looped-bfs",
    "interleaved-zb",
    "zb-v",
    "v-half",
    "v-min",
    "hanayo",
    "1f1b-v",
    "seq1f1b",
    "chimera",
    "dualpipe-v",
    "gpipe+vocab-1",
    "1f1b+vocab-1",
    "1f1b+vocab-2",
    "zb-h1+vocab-1",
    "zb-h1+vocab-2",
    "v-half+vocab-1",
    "zb-v+vocab-2",
    "1f1b+interlaced",
];

const DIMS: Dims = Dims {
    layers: 8,
    hidden: 256,
    heads: 8,
    sequence: 256,
    batch: 1,
    vocab: 4096,
    tied: false,
    precision: Precision::F32,
};
const RANKS: u32 = 2;
const MICROBATCHES: u32 = 8;
/// Measured steps of each schedule, where nothing else is said.
const STEPS: u64 = 8;

/// Whatever went wrong, in words.
type Outcome<T> = Result<T, String>;

fn said(error: impl std::fmt::Display) -> String {
    error.to_string()
}

fn main() -> ExitCode {
    let (steps, schedules) = match arguments(std::env::args().skip(1)) {
        Ok(arguments) => arguments,
        Err(usage) => {
            let _ = writeln!(io::stderr(), "{usage}");
            return ExitCode::from(2);
        }
    };
    match table(steps, &schedules) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(io::stderr(), "{error}");
            ExitCode::FAILURE
        }
    }
}

/// How many steps are measured, of which schedules.
fn arguments(words: impl Iterator<Item = String>) -> Outcome<(u64, Vec<String>)> {
    let usage = || "usage: reality [--steps N] [SCHEDULE[+TRANSFORM] …]".to_owned();
    let (mut steps, mut schedules) = (STEPS, Vec::new());
    let mut words = words;
    while let Some(word) = words.next() {
        if word == "--steps" {
            let number = words.next().and_then(|number| number.parse().ok()).filter(|&number| number > 0);
            steps = number.ok_or_else(usage)?;
        } else if word.starts_with('-') {
            return Err(usage());
        } else {
            schedules.push(word);
        }
    }
    if schedules.is_empty() {
        schedules = PREDICTED.map(str::to_owned).to_vec();
    }
    Ok((steps, schedules))
}

/// A schedule that is being trained by.
struct Run {
    plan: Verified,
    engine: Engine<CpuBackend>,
    /// Steps that were taken.
    taken: u64,
}

impl Run {
    /// Compiles a schedule, with a transform after a plus sign, and starts its ranks.
    fn new(word: &str) -> Outcome<Self> {
        let (schedule, with) = word.split_once('+').map_or((word, None), |(name, with)| (name, Some(with)));
        let with: Vec<String> = with.map(str::to_owned).into_iter().collect();
        let job = Job {
            input: Input::Library(schedule),
            with: &with,
            set: &[],
            ranks: RANKS,
            microbatches: MICROBATCHES,
            model: Model { layers: Some(DIMS.layers), dims: DIMS, partition: Partitioning::Uniform },
            costs: &CostSpec::default(),
            retime: None,
            mode: Mode::Training,
        };
        let refused =
            |errors: Vec<schedc::diag::Error>| errors.iter().map(said).collect::<Vec<_>>().join("\n");
        let plan = compile(&job, &mut Sources::default()).map_err(refused)?;
        let make = |rank| Ok(CpuBackend::new(&plan.header, rank, &Train::default())?);
        let engine = Engine::new(&plan, make, &Limits::default()).map_err(said)?;
        Ok(Self { plan, engine, taken: 0 })
    }

    /// Takes a step, and says how long it took.
    fn step(&mut self, corpus: &Corpus) -> Outcome<Duration> {
        let batches = corpus.step(&DIMS, 0, self.taken, MICROBATCHES);
        self.taken += 1;
        let begun = Instant::now();
        self.engine.step(self.taken, batches, Finish::Update).map_err(said)?;
        Ok(begun.elapsed())
    }

    /// The times of its last recorded steps, by the way that a file of them takes.
    fn profile(&self) -> Outcome<CostSpec> {
        let charts = measured(&self.plan, &plan_hash(&self.plan).to_string(), &self.engine.recording());
        let mut trace = Vec::new();
        chrome::write(&mut trace, &[&charts[..]]).map_err(said)?;
        let trace = String::from_utf8(trace).map_err(said)?;
        Ok(CostSpec::default().with_profile(Profile::parse("the trace", &trace).map_err(said)?))
    }

    /// How long its step takes by a profile, in microseconds.
    fn predicted(&self, profile: &CostSpec) -> Outcome<f64> {
        let costs = profile.bind_plan(&self.plan.header).map_err(said)?;
        Ok(Report::of(&self.plan, &costs, &Known::default()).step)
    }
}

/// Prints the table, row by row.
fn table(steps: u64, schedules: &[String]) -> Outcome<()> {
    let text = Text::own();
    let tokenizer = Tokenizer::new(TokenizerKind::Bytes, &text.bytes, DIMS.vocab).map_err(said)?;
    let corpus = Corpus::new(&text, &tokenizer, DIMS.sequence).map_err(said)?;
    let mut profiled = Run::new(PROFILED)?;
    profiled.engine.record(2).map_err(said)?;
    profiled.step(&corpus)?;
    let mut out = io::stdout();
    let mut put = |line: String| writeln!(out, "{line}").and_then(|()| out.flush()).map_err(said);
    put(format!(
        "p = {RANKS}, m = {MICROBATCHES}, {} layers, hidden {}, {} heads, {} tokens, vocabulary {}; passes measured under {PROFILED}, {steps} steps each\n\n\
         | schedule | predicted ms | measured ms | off | the middle half of the steps |\n| --- | ---: | ---: | ---: | --- |",
        DIMS.layers, DIMS.hidden, DIMS.heads, DIMS.sequence, DIMS.vocab
    ))?;
    let mut offs = Vec::new();
    for schedule in schedules {
        let mut run = Run::new(schedule)?;
        // The first touches its memory for the first time.
        run.step(&corpus)?;
        profiled.step(&corpus)?;
        let (mut predicted, mut taken, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..steps {
            let time = run.step(&corpus)?.as_secs_f64() * 1e3;
            profiled.step(&corpus)?;
            let expected = run.predicted(&profiled.profile()?)? / 1e3;
            predicted.push(expected);
            taken.push(time);
            ratios.push(100.0 * (expected / time - 1.0));
        }
        let off = quantile(&mut ratios, 0.5);
        offs.push(off.abs());
        let mut row = format!("| {schedule} | {:.0} ", quantile(&mut predicted, 0.5));
        let _ = write!(row, "| {:.0} | {off:+.1} % ", quantile(&mut taken, 0.5));
        let _ =
            write!(row, "| {:+.1} to {:+.1} % |", quantile(&mut ratios, 0.25), quantile(&mut ratios, 0.75));
        put(row)?;
    }
    let (median, worst) = (quantile(&mut offs, 0.5), quantile(&mut offs, 1.0));
    put(format!("\nOff by {median:.1} % in the median, by {worst:.1} % at worst."))
}

/// The value below which so great a part of the others lies, between two of them where it falls there.
#[allow(clippy::cast_precision_loss, clippy::cast_sign_loss, reason = "a few steps")]
fn quantile(values: &mut [f64], part: f64) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    let at = part * (values.len().max(1) - 1) as f64;
    let (low, high) = (at.floor() as usize, at.ceil() as usize);
    let of = |at: usize| values.get(at).copied().unwrap_or_default();
    of(low) + (at - at.floor()) * (of(high) - of(low))
}
