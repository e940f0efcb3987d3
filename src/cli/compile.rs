//! `schedc compile`: a schedule into a verified plan.

use std::path::PathBuf;

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
}

/// Compiles and writes the plan.
pub(crate) fn compile(args: &CompileArgs) -> Result<(), Failure> {
    let plan = args.job.compile(&args.model)?;
    args.limit.check(&plan, || args.job.costs_of(&plan.header))?;
    let text = match args.emit {
        Form::Text => schedc::emit::plan_text(&plan),
        Form::Json => schedc::emit::plan_json(&plan) + "\n",
    };
    if let Some(path) = &args.output {
        return files::write(path, |file| file.write_all(text.as_bytes()));
    }
    print(&text);
    Ok(())
}
