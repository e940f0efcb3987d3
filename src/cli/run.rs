//! `schedc run`: trains a model by a verified plan and says how it goes.

use std::io::{self, IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use schedc::cuda::run::{Ended, RunError, Way, train_on};
use schedc::cuda::{CudaError, Gpu, probe as probe_cuda};
use schedc::execute::ExecuteError;
use schedc::execute::check::CheckReport;
use schedc::execute::dump::probe;
use schedc::execute::model::Train;
use schedc::execute::recording::Recording;
use schedc::execute::tokenizer::TokenizerKind;
use schedc::execute::train::{Ending, Listener, Opening, Settings, Taken, train_across};
use schedc::execute::watchdog::{Drill, Limits};
use schedc::ir::{Bytes, Dims, Header, Plan};
use schedc::launch::Place;
use schedc::view::{Scene, chrome, measured};

use super::{Failure, files, job, launch, model, view};

/// What `schedc run` takes.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct RunArgs {
    #[command(flatten)]
    job: job::JobArgs,
    #[command(flatten)]
    model: model::ModelArgs,
    /// What computes the passes
    #[arg(long, value_enum, value_name = "BACKEND", default_value_t = Backend::Cpu, help_heading = "Training")]
    backend: Backend,
    /// Folder of a CUDA installation, or of NVIDIA's Python packages [default: the usual places]
    #[arg(long, value_name = "DIR", help_heading = "Training")]
    cuda_path: Option<PathBuf>,
    /// Put each step on the GPU as one graph that was captured once
    #[arg(long, help_heading = "Training")]
    graph: bool,
    /// Steps in all, those before a resumed checkpoint included; forward only, the steps whose batches are evaluated
    #[arg(long, value_name = "N", default_value_t = 20, help_heading = "Training")]
    steps: u64,
    /// Learning rate of Adam
    #[arg(long, value_name = "RATE", default_value_t = 1e-3, value_parser = positive, help_heading = "Training")]
    lr: f32,
    /// Seed of the weights and the batches
    #[arg(long, value_name = "N", default_value_t = 0, help_heading = "Training")]
    seed: u64,
    /// Text to train on [default: the project's own documents]
    #[arg(long, value_name = "FILE", help_heading = "Training")]
    data: Option<PathBuf>,
    /// How the text is cut into tokens
    #[arg(long, value_enum, value_name = "KIND", default_value_t = TokenizerKind::Bytes, help_heading = "Training")]
    tokenizer: TokenizerKind,
    /// First hold one step against the same model on one rank without a schedule
    #[arg(long, help_heading = "Training")]
    check: bool,
    /// Directory of checkpoints; the run resumes from the newest complete one, or evaluates it
    #[arg(long, value_name = "DIR", help_heading = "Training")]
    checkpoint: Option<PathBuf>,
    /// Steps from one checkpoint to the next
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u64).range(1..), help_heading = "Training")]
    checkpoint_every: u64,
    /// Write the first step's weights, tokens, loss and gradients as safetensors
    #[arg(long, value_name = "FILE", help_heading = "Training")]
    dump: Option<PathBuf>,
    /// Write what each rank did in the last steps: FILE.json for Chrome, Perfetto and `schedc view`, or a picture, FILE.svg or FILE.html
    #[arg(long, value_name = "FILE", help_heading = "Training")]
    trace: Option<PathBuf>,
    /// How many of the last steps a trace has; a picture shows the last one
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..), requires = "trace", help_heading = "Training")]
    trace_steps: u32,
    /// End the run when no rank makes progress for so many seconds
    #[arg(long, value_name = "SECS", default_value_t = 60.0, value_parser = positive, help_heading = "Drills")]
    stall_timeout: f32,
    /// As process 0 of several, listen at this address of the machine [default: `MASTER_ADDR`, or 127.0.0.1]
    #[arg(long, value_name = "ADDR", help_heading = "Several processes")]
    listen: Option<String>,
    /// Wait so many seconds for the other processes
    #[arg(long, value_name = "SECS", default_value_t = 60.0, value_parser = positive, help_heading = "Several processes")]
    rendezvous_timeout: f32,
    /// Act out a failure: rank, instruction, and `stall` or `panic`, such as r1@20=stall
    #[arg(long, value_name = "DRILL", help_heading = "Drills")]
    inject: Option<Drill>,
}

/// What computes the passes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Backend {
    /// Threads of this machine
    Cpu,
    /// NVIDIA's GPUs
    Cuda,
}

impl Backend {
    /// Refuses what this machine or this build lacks.
    pub(crate) fn check(self, cuda_path: Option<&Path>, place: Option<&Place>) -> Result<(), Failure> {
        if self == Self::Cpu {
            return Ok(());
        }
        let mut missing = probe_cuda(cuda_path).missing;
        // Only several processes move buffers by it.
        missing.retain(|missing| place.is_some() || !matches!(missing, CudaError::NoNccl { .. }));
        if missing.is_empty() { Ok(()) } else { Err(Failure::all(missing)) }
    }
}

/// The largest rate and the largest number of seconds that are taken.
const LARGEST: f32 = 1e9;

fn positive(text: &str) -> Result<f32, String> {
    let number: f32 = text.parse().map_err(|_| "write a number".to_owned())?;
    if number.is_finite() && number > 0.0 && number <= LARGEST {
        Ok(number)
    } else {
        Err(format!("write a number larger than 0 and at most {LARGEST:e}"))
    }
}

impl RunArgs {
    fn settings(&self, plan_hash: String) -> Settings {
        Settings {
            steps: self.steps,
            train: Train { seed: self.seed, lr: self.lr, ..Train::default() },
            data: self.data.clone(),
            tokenizer: self.tokenizer,
            check: self.check,
            checkpoint: self.checkpoint.clone(),
            checkpoint_every: self.checkpoint_every,
            dump: self.dump.clone(),
            record: if self.trace.is_some() { self.trace_steps } else { 0 },
            limits: Limits { stall: Duration::from_secs_f32(self.stall_timeout), drill: self.inject },
            plan_hash: Some(plan_hash),
        }
    }
}

/// Compiles or reads the plan, and trains by it. Where ranks fail or stall, the table of what they were doing comes first.
pub(crate) fn run(args: &RunArgs) -> Result<(), Failure> {
    launch::on_a_leash();
    let patience = Duration::from_secs_f32(args.rendezvous_timeout);
    let place = Place::read(|name| std::env::var(name).ok(), args.listen.as_deref(), patience);
    let place = place.map_err(Failure::one)?;
    if args.graph && args.backend == Backend::Cpu {
        return Err(Failure::one(CudaError::GraphOnCpu));
    }
    if args.graph && place.is_some() && std::env::var_os(launch::IN_ORDER).is_none_or(|set| set != "1") {
        return Err(Failure::one(CudaError::GraphWithoutOrder { variable: launch::IN_ORDER }));
    }
    args.backend.check(args.cuda_path.as_deref(), place.as_ref())?;
    let plan = args.job.plan(&args.model)?;
    let hash = schedc::emit::plan_hash(&plan).to_string();
    let trains = plan.header.mode.is_training();
    let form = args.trace.as_deref().map(view::form).transpose()?;
    if let Some(path) = &args.trace {
        probe(path).map_err(Failure::one)?;
    }
    let leads = place.as_ref().is_none_or(|place| place.process == 0);
    let mut screen = Screen::new(args.steps, leads);
    screen.lines(&summary(&plan, &hash));
    let settings = args.settings(hash.clone());
    if args.backend == Backend::Cuda {
        let Dims { hidden, heads, .. } = plan.header.model;
        let local = place.as_ref().map_or(0, |place| place.local);
        let open = || Gpu::nth(local, hidden / heads.max(1), args.cuda_path.as_deref());
        let way = (Way { graph: args.graph }, place.as_ref());
        let result = train_on(&plan, &settings, way, open, &mut screen);
        screen.bar.finish_and_clear();
        let Ended { ending, issuing } = result.map_err(|error| {
            if let RunError::Plan(error) = &error {
                table(error);
            }
            Failure::one(error)
        })?;
        screen.lines(&if trains { ended(&ending) } else { evaluated(&ending) });
        screen.lines(&format!("host      {issuing:.0} ns an instruction"));
        return written(&plan, &hash, args, form, &mut screen);
    }
    let result = train_across(&plan, &settings, place.as_ref(), &mut screen);
    screen.bar.finish_and_clear();
    match result {
        Ok(ending) => {
            screen.lines(&if trains { ended(&ending) } else { evaluated(&ending) });
            written(&plan, &hash, args, form, &mut screen)
        }
        Err(error) => {
            table(&error);
            Err(Failure::one(error))
        }
    }
}

/// Shows what every rank was doing when a run ended badly.
fn table(error: &ExecuteError) {
    if let ExecuteError::Stalled { report, .. }
    | ExecuteError::RankFailed { report, .. }
    | ExecuteError::ProcessFailed { report, .. } = error
        && !report.rows.is_empty()
    {
        let _ = write!(io::stderr(), "{report}");
    }
}

/// Writes what happened, where that was asked for.
fn written(
    plan: &Plan,
    hash: &str,
    args: &RunArgs,
    form: Option<view::Form>,
    screen: &mut Screen,
) -> Result<(), Failure> {
    match (&args.trace, form, screen.recording.take()) {
        (Some(path), Some(form), Some(recording)) => traced(plan, hash, path, form, &recording, screen),
        _ => Ok(()),
    }
}

/// Writes what happened.
fn traced(
    plan: &Plan,
    hash: &str,
    path: &Path,
    form: view::Form,
    recording: &Recording,
    screen: &Screen,
) -> Result<(), Failure> {
    let steps = measured(plan, hash, recording);
    let Some(last) = steps.last().cloned() else {
        screen.lines("trace     no step was taken, so nothing is written");
        return Ok(());
    };
    match form {
        view::Form::Trace => files::write(path, |file| chrome::write(file, &[&steps[..]]))?,
        form => view::draw(path, form, &Scene::new(vec![last]))?,
    }
    screen.lines(&format!("trace     {} ({} steps)", path.display(), steps.len()));
    Ok(())
}

/// Where a run is shown: a bar on a terminal, lines elsewhere.
struct Screen {
    bar: ProgressBar,
    plain: bool,
    /// Whether it shows anything: of several processes the first does.
    leads: bool,
    /// What happened in the last steps.
    recording: Option<Recording>,
}

impl Screen {
    fn new(steps: u64, leads: bool) -> Self {
        let plain = !leads || !io::stderr().is_terminal();
        let bar = if plain { ProgressBar::hidden() } else { ProgressBar::new(steps) };
        if let Ok(style) = ProgressStyle::with_template("{bar:32} {pos}/{len}  {msg}  {eta} left") {
            bar.set_style(style);
        }
        Self { bar, plain, leads, recording: None }
    }

    /// Prints lines above the bar. A reader that has gone away is no reason to stop training.
    fn lines(&self, text: &str) {
        if !self.leads {
            return;
        }
        self.bar.suspend(|| {
            let _ = writeln!(io::stdout(), "{text}");
        });
    }
}

impl Listener for Screen {
    fn checked(&mut self, report: &CheckReport) {
        self.lines(&format!("check     {}", report.to_string().replace('\n', "\n          ")));
    }

    fn opened(&mut self, opening: &Opening) {
        self.lines(&opened(opening));
        if let Some((_, step)) = &opening.resumed {
            self.bar.set_position(*step);
        }
    }

    fn taken(&mut self, taken: &Taken) {
        let Taken { step, loss, tokens_per_second, gflops } = *taken;
        let rates = format!("{tokens_per_second:.0} tokens/s  {gflops:.1} GFLOP/s");
        if self.plain {
            self.lines(&format!("step {step:>5}  loss {loss:.4}  {rates}"));
        } else {
            self.bar.set_message(format!("loss {loss:.4}  {rates}"));
            self.bar.set_position(step);
        }
    }

    fn saved(&mut self, path: &Path) {
        self.lines(&format!("saved     {}", path.display()));
    }

    fn dumped(&mut self, path: &Path) {
        self.lines(&format!("dumped    {}", path.display()));
    }

    fn recorded(&mut self, recording: Recording) {
        self.recording = Some(recording);
    }
}

/// What the plan is.
fn summary(plan: &Plan, hash: &str) -> String {
    let Header { name, transforms, microbatches, slices, stages, model, .. } = &plan.header;
    let name = std::iter::once(name).chain(transforms).map(String::as_str).collect::<Vec<_>>().join(" + ");
    let only = if plan.header.mode.is_training() { "" } else { ", forward only" };
    let (ranks, stages) = (plan.ranks.len(), stages.len());
    let sliced = if *slices > 1 { format!(" of {slices} slices") } else { String::new() };
    let short = hash.get(..12).unwrap_or(hash);
    let Dims { layers, hidden, heads, sequence, batch, vocab, tied, precision } = model;
    let tied = if *tied { "tied" } else { "untied" };
    let stored = if precision.is_single() { String::new() } else { format!(", {}", precision.word()) };
    format!(
        "plan      {name}{only} · {ranks} ranks, {stages} stages, {microbatches} microbatches{sliced} · {short}\n\
         peak      {}\n\
         model     {layers} layers, hidden {hidden}, {heads} heads, {batch} x {sequence} tokens, \
         vocabulary {vocab} ({tied}){stored}",
        peaks(plan)
    )
}

/// The peak of each rank, or of the extremes where there are many.
fn peaks(plan: &Plan) -> String {
    let peaks: Vec<Bytes> = plan.ranks.iter().map(|rank| rank.peak.bytes).collect();
    if peaks.len() > 8 {
        let (least, most) = (peaks.iter().min(), peaks.iter().max());
        let [least, most] = [least, most].map(|bytes| size(bytes.copied().unwrap_or_default()));
        return format!("{least} to {most} on {} ranks", peaks.len());
    }
    let each = peaks.iter().enumerate().map(|(rank, &bytes)| format!("r{rank} {}", size(bytes)));
    each.collect::<Vec<_>>().join(" · ")
}

fn opened(opening: &Opening) -> String {
    let Opening { parameters, tokens, data, entropy, tokenizer: (tokenizer, ids), .. } = opening;
    let skipped = opening.skipped.iter().fold(String::new(), |lines, skipped| {
        lines + &format!("\nskipped   {}: {}", skipped.path.display(), skipped.reason)
    });
    let resumed = match &opening.resumed {
        Some((path, step)) => format!("\nresumed   {} after {step} steps", path.display()),
        None => String::new(),
    };
    let unused = if opening.vocab > *ids {
        format!("; the {} entries beyond them never occur", opening.vocab - ids)
    } else {
        String::new()
    };
    let done = match &opening.resumed {
        Some((_, step)) if *step >= opening.steps => "; nothing is left to do",
        _ => "",
    };
    format!(
        "memory    buffers {} (as the plan states) · parameters, gradients, Adam {} · workspace {}\n\
         train     {parameters} parameters · {data}: {tokens} tokens ({tokenizer}, {ids} ids{unused}) · \
         unigram entropy {entropy:.4} nats{skipped}{resumed}{done}",
        size(opening.arenas),
        size(opening.parameter_bytes),
        size(opening.workspace),
    )
}

fn ended(ending: &Ending) -> String {
    let Ending { steps, entropy, tokens_per_second, gflops, .. } = ending;
    let Some((first, last)) = ending.losses else {
        return "done      no step was taken".to_owned();
    };
    format!(
        "done      {steps} steps · loss {first:.4} -> {last:.4} nats, unigram entropy {entropy:.4} nats\n\
         speed     {tokens_per_second:.0} tokens/s · {gflops:.1} GFLOP/s, at 6 (12 L h² + V h) + 12 L s h operations a token"
    )
}

fn evaluated(ending: &Ending) -> String {
    let Ending { steps, entropy, tokens_per_second, gflops, .. } = ending;
    let Some(mean) = ending.mean else {
        return "done      nothing was evaluated".to_owned();
    };
    format!(
        "done      {steps} steps evaluated · mean loss {mean:.4} nats, unigram entropy {entropy:.4} nats\n\
         speed     {tokens_per_second:.0} tokens/s · {gflops:.1} GFLOP/s, at 2 (12 L h² + V h) + 4 L s h operations a token"
    )
}

/// Bytes as people read them; exact below one KiB.
#[allow(clippy::cast_precision_loss, reason = "one decimal is shown")]
fn size(bytes: Bytes) -> String {
    let units = ["KiB", "MiB", "GiB", "TiB"];
    let mut amount = bytes.0 as f64;
    let mut name = "B";
    for unit in units {
        if amount < 1024.0 {
            break;
        }
        (amount, name) = (amount / 1024.0, unit);
    }
    if name == "B" { format!("{amount} B") } else { format!("{amount:.1} {name}") }
}
