//! Why there is no picture.

use miette::Diagnostic;
use thiserror::Error;

/// What can't be drawn.
#[derive(Debug, Error, Diagnostic)]
pub enum ViewError {
    /// A file that looks like a trace is none.
    #[error("`{name}` is no trace: {reason}")]
    #[diagnostic(
        code(schedc::view::malformed_trace),
        help("name a trace that `schedc run --trace FILE` or `schedc view -o FILE.json` wrote")
    )]
    MalformedTrace {
        /// The file.
        name: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A trace without the step that is asked for.
    #[error("`{name}` has no step {step}: it has {}", listed(.has))]
    #[diagnostic(
        code(schedc::view::no_such_step),
        help("leave `--step` out for the last one; `schedc run --trace-steps N` records more")
    )]
    NoSuchStep {
        /// The file.
        name: String,
        /// The step.
        step: u64,
        /// What it has.
        has: Vec<u64>,
    },
    /// Nothing happens.
    #[error("`{name}` has no pass to draw")]
    #[diagnostic(code(schedc::view::nothing_to_draw), help("name a plan or a trace with passes"))]
    NothingToDraw {
        /// The schedule or the file.
        name: String,
    },
    /// A range of time with nothing in it.
    #[error("there is nothing to draw from {from} to {to}: the picture ends at {end}")]
    #[diagnostic(
        code(schedc::view::empty_range),
        help("give `--from` and `--to` moments of the axis, the first before the second")
    )]
    EmptyRange {
        /// Where it begins.
        from: String,
        /// Where it ends.
        to: String,
        /// The end of the axis.
        end: String,
    },
}

fn listed(steps: &[u64]) -> String {
    match steps {
        [] => "none".to_owned(),
        [one] => format!("step {one}"),
        [first, .., last] => format!("{} steps, from {first} to {last}", steps.len()),
    }
}
