//! `schedc compile`: a schedule into a verified plan.

use std::path::PathBuf;

use schedc::torch::{self, WriteError};
use schedc::verify::Verified;

use super::{Failure, files, job, limit, model, print};

/// What `schedc compile` takes.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct CompileArgs {
    #[command(flatten)]
    job: job::JobArgs,
    #[command(flatten)]
    model: model::ModelArgs,
    #[command(flatten)]
    limit: limit::LimitArg,
    /// The form that the plan is written in
    #[arg(long, value_enum, default_value_t = Form::Text)]
    emit: Form,
    /// The PyTorch that a CSV file is for
    #[arg(long, value_enum, default_value_t = Target::Torch2_15)]
    target: Target,
    /// Where to write it [default: standard output]
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

/// The forms of a plan.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Form {
    /// For people and snapshots; parses back.
    Text,
    /// For other programs; docs/plan.schema.json.
    Json,
    /// For PyTorch: passes only (`compute_only`); its runtime adds the messages.
    #[value(name = "torch-csv", alias = "torch-csv=compute")]
    TorchCompute,
    /// For PyTorch: all that its runtime does (`compute_comms`).
    #[value(name = "torch-csv=comms")]
    TorchComms,
}

/// What a CSV file is for.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Target {
    /// The `_PipelineScheduleRuntime` of torch 2.15.
    #[value(name = "torch-2.15")]
    Torch2_15,
}

/// Compiles and writes the plan.
pub(crate) fn compile(args: &CompileArgs) -> Result<(), Failure> {
    let plan = args.job.compile(&args.model)?;
    args.limit.check(&plan, || Ok((args.job.costs_of(&plan.header)?, args.job.known(&plan)?)))?;
    let text = match args.emit {
        Form::Text => schedc::emit::plan_text(&plan),
        Form::Json => schedc::emit::plan_json(&plan) + "\n",
        Form::TorchCompute => exported(&plan, args.target, torch::Form::Compute)?,
        Form::TorchComms => exported(&plan, args.target, torch::Form::Comms)?,
    };
    if let Some(path) = &args.output {
        return files::write(path, |file| file.write_all(text.as_bytes()));
    }
    print(&text);
    Ok(())
}

/// The plan as a PyTorch schedule.
fn exported(plan: &Verified, target: Target, form: torch::Form) -> Result<String, Failure> {
    let target = match target {
        Target::Torch2_15 => torch::Target::Torch2_15,
    };
    torch::write(plan, target, form).map_err(|error| match error {
        WriteError::Unsupported(reasons) => Failure::all(reasons),
        WriteError::Unsound(error) => Failure::one(*error),
    })
}
