//! `schedc profile`: takes a few steps by a plan, says how long each pass took, and writes what `simulate --profile` reads.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use schedc::cuda::Gpu;
use schedc::cuda::run::{Way, train_on};
use schedc::execute::check::CheckReport;
use schedc::execute::dump::probe;
use schedc::execute::model::Train;
use schedc::execute::recording::Recording;
use schedc::execute::tokenizer::TokenizerKind;
use schedc::execute::train::{Listener, Opening, Settings, Taken, train};
use schedc::execute::watchdog::Limits;
use schedc::ir::{Catalog, Compute, Dims, Instr, Op, Pass, Plan, RankPlan};
use schedc::view::{chrome, measured};
use serde::Serialize;

use super::run::Backend;
use super::{Failure, files, job, model};

/// What `schedc profile` takes.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct ProfileArgs {
    #[command(flatten)]
    job: job::JobArgs,
    #[command(flatten)]
    model: model::ModelArgs,
    /// What computes the passes
    #[arg(long, value_enum, value_name = "BACKEND", default_value_t = Backend::Cpu, help_heading = "Measuring")]
    backend: Backend,
    /// Folder of a CUDA installation, or of NVIDIA's Python packages [default: the usual places]
    #[arg(long, value_name = "DIR", help_heading = "Measuring")]
    cuda_path: Option<PathBuf>,
    /// Steps that are measured, after one that is not
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=10_000), help_heading = "Measuring")]
    steps: u32,
    /// The file to write: the trace of these steps
    #[arg(long, short, value_name = "FILE", help_heading = "Measuring")]
    output: PathBuf,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// What was measured.
#[derive(Serialize)]
struct Profiled<'a> {
    /// Where the profile lies.
    profile: &'a Path,
    /// Steps that were measured.
    steps: usize,
    /// By kind of pass.
    passes: BTreeMap<&'a str, Times>,
    /// Bytes of all buffers of the vocabulary pass that has most; 0 without such passes.
    vocabulary_bytes: u64,
}

/// How long passes of a kind took, in microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
struct Times {
    /// How many there were.
    count: usize,
    mean: f64,
    median: f64,
}

/// Keeps what happened.
#[derive(Default)]
struct Keeper(Recording);

impl Listener for Keeper {
    fn checked(&mut self, _: &CheckReport) {}

    fn opened(&mut self, _: &Opening) {}

    fn taken(&mut self, _: &Taken) {}

    fn saved(&mut self, _: &Path) {}

    fn dumped(&mut self, _: &Path) {}

    fn recorded(&mut self, recording: Recording) {
        self.0 = recording;
    }
}

/// Measures the passes of a plan.
pub(crate) fn profile(args: &ProfileArgs) -> Result<(), Failure> {
    args.backend.check(args.cuda_path.as_deref(), None)?;
    let plan = args.job.plan(&args.model)?;
    probe(&args.output).map_err(Failure::one)?;
    let hash = schedc::emit::plan_hash(&plan).to_string();
    let settings = Settings {
        steps: u64::from(args.steps) + 1,
        train: Train::default(),
        data: None,
        tokenizer: TokenizerKind::Bytes,
        check: false,
        checkpoint: None,
        checkpoint_every: 1,
        dump: None,
        record: args.steps,
        limits: Limits::default(),
        plan_hash: Some(hash.clone()),
    };
    let mut keeper = Keeper::default();
    match args.backend {
        Backend::Cpu => {
            train(&plan, &settings, &mut keeper).map_err(Failure::one)?;
        }
        Backend::Cuda => {
            let Dims { hidden, heads, .. } = plan.header.model;
            let open = || Gpu::open(0, hidden / heads.max(1), args.cuda_path.as_deref());
            train_on(&plan, &settings, (Way::default(), None), open, &mut keeper).map_err(Failure::one)?;
        }
    }
    let steps = measured(&plan, &hash, &keeper.0);
    files::write(&args.output, |file| chrome::write(file, &[&steps[..]]))?;
    let profiled = Profiled {
        profile: &args.output,
        steps: steps.len(),
        passes: times(&plan, &keeper.0),
        vocabulary_bytes: plan
            .ranks
            .iter()
            .map(|rank| vocabulary(&plan.header.catalog, rank))
            .max()
            .unwrap_or(0),
    };
    let text = if args.json {
        serde_json::to_string(&profiled).unwrap_or_default() + "\n"
    } else {
        shown(&profiled)
    };
    super::print(&text);
    Ok(())
}

/// How long the passes of each kind took.
#[allow(clippy::cast_precision_loss, reason = "a time needs no more than 52 bits")]
fn times<'a>(plan: &'a Plan, recording: &Recording) -> BTreeMap<&'a str, Times> {
    let mut all: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
    for step in &recording.steps {
        for (rank, moments) in plan.ranks.iter().zip(&step.ranks) {
            for (instr, [begin, end]) in rank.instrs.iter().zip(moments) {
                let Op::Pass(Pass { kind, .. }) = instr.op else { continue };
                let name = plan.header.catalog.kind(kind).name.as_str();
                all.entry(name).or_default().push(end.saturating_sub(*begin) as f64 / 1e3);
            }
        }
    }
    let of = |mut times: Vec<f64>| {
        times.sort_by(f64::total_cmp);
        let mean = times.iter().sum::<f64>() / times.len().max(1) as f64;
        Times { count: times.len(), mean, median: times.get(times.len() / 2).copied().unwrap_or_default() }
    };
    all.into_iter().map(|(name, times)| (name, of(times))).collect()
}

/// The bytes of all buffers that a pass of a sharded output layer reads and writes, of the pass that has most.
fn vocabulary(catalog: &Catalog, rank: &RankPlan) -> u64 {
    let bytes = |instr: &Instr| {
        let Op::Pass(Pass { kind, .. }) = instr.op else { return 0 };
        let output = [
            Compute::OutputSoftmax,
            Compute::OutputSoftmaxGrad,
            Compute::OutputGrad,
            Compute::OutputWeightGrad,
        ];
        if !catalog.kind(kind).computes.is_some_and(|computes| output.contains(&computes)) {
            return 0;
        }
        let operands = rank.operands(instr);
        let touched = operands.reads().chain(operands.writes());
        touched.map(|id| rank.buffers[id.index()].bytes().0).sum()
    };
    rank.instrs.iter().map(bytes).max().unwrap_or(0)
}

fn shown(profiled: &Profiled<'_>) -> String {
    let mut text = String::new();
    for (name, Times { count, mean, median }) in &profiled.passes {
        // A string takes all text.
        let _ = writeln!(text, "{name:<9} mean {mean:.1} us, median {median:.1} us, of {count}");
    }
    let _ = writeln!(text, "profile   {} ({} steps)", profiled.profile.display(), profiled.steps);
    text
}
