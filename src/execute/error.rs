//! What can go wrong when a plan is run.

use std::io;

use miette::Diagnostic;
use thiserror::Error;

use super::model::ModelError;
use super::watchdog::Report;
use crate::ir::{Bytes, InstrId, Rank};
use crate::launch::LaunchError;

/// Why a plan cannot be run, or its run ended.
#[derive(Debug, Error, Diagnostic)]
#[non_exhaustive]
pub enum ExecuteError {
    /// The model of the plan cannot be run.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Model(#[from] ModelError),
    /// Activations that the CPU does not compute with.
    #[error("the plan keeps activations in bf16, and the CPU computes in f32")]
    #[diagnostic(
        code(schedc::execute::bf16_on_cpu),
        help("compile it with `--precision f32`, or run it on a GPU with `--backend cuda`")
    )]
    Bf16OnCpu,
    /// A pass that only has a place in the schedule.
    #[error("pass `{kind}` has no `computes`, so nothing is known to run for it")]
    #[diagnostic(
        code(schedc::execute::no_compute),
        help(
            "declare what it computes (`schedc show vocab` has examples), or only compile, verify and draw the plan"
        )
    )]
    NoCompute {
        /// The kind of pass.
        kind: String,
    },
    /// A buffer that the model has no use for.
    #[error("pass `{kind}` touches a buffer of class `{class}`, which the model does not know")]
    #[diagnostic(
        code(schedc::execute::unknown_class),
        help("use the classes of the prelude: x, dx, stats, act, delta and logits")
    )]
    UnknownClass {
        /// The kind of pass.
        kind: String,
        /// The class.
        class: String,
    },
    /// Two buffers of one class and direction in one pass.
    #[error(
        "pass `{kind}` touches two buffers of class `{class}` in the same way, and only one has a meaning"
    )]
    #[diagnostic(
        code(schedc::execute::ambiguous_buffer),
        help("drop one of the needs that bring a `{class}`")
    )]
    AmbiguousBuffer {
        /// The kind of pass.
        kind: String,
        /// The class.
        class: String,
    },
    /// An instruction that no executor can make sense of.
    #[error("instruction `{instr}` of `{rank}` cannot be run: {reason}")]
    #[diagnostic(code(schedc::execute::malformed), help("compile the plan again"))]
    Malformed {
        /// The rank.
        rank: Rank,
        /// The instruction.
        instr: InstrId,
        /// What is wrong.
        reason: String,
    },
    /// Memory for the buffers is refused.
    #[error("`{rank}` cannot allocate {bytes} for its buffers")]
    #[diagnostic(code(schedc::execute::out_of_memory), help("choose a smaller model or more ranks"))]
    OutOfMemory {
        /// The rank.
        rank: Rank,
        /// What the plan states.
        bytes: Bytes,
    },
    /// More memory than the machine has.
    #[error("the run needs at least {needed} and the machine has {available} at hand")]
    #[diagnostic(
        code(schedc::execute::too_large),
        help("reduce --hidden, --layers, --vocab, --seq or --batch, or run on a larger machine")
    )]
    TooLarge {
        /// Arenas and parameters of all ranks.
        needed: Bytes,
        /// What the system says is available.
        available: Bytes,
    },
    /// More is to be recorded than is kept.
    #[error("a recording of {steps} steps takes {bytes}, more than is kept")]
    #[diagnostic(code(schedc::execute::recording_too_large), help("record fewer steps with `--trace-steps`"))]
    RecordingTooLarge {
        /// How many steps.
        steps: u32,
        /// What they take.
        bytes: Bytes,
    },
    /// A thread is refused.
    #[error("the thread of `{rank}` cannot be started")]
    #[diagnostic(code(schedc::execute::thread), help("run on fewer ranks"))]
    Thread {
        /// The rank.
        rank: Rank,
        /// Why.
        source: io::Error,
    },
    /// A drill for an instruction that does not exist.
    #[error("the drill is for instruction {instr} of rank {rank}, which the plan does not have")]
    #[diagnostic(code(schedc::execute::drill), help("name a rank below {ranks} and an instruction of it"))]
    Drill {
        /// The rank.
        rank: Rank,
        /// The instruction.
        instr: InstrId,
        /// Ranks of the plan.
        ranks: usize,
    },
    /// No rank made progress.
    #[error("no rank made progress for {seconds} s, so the run was ended")]
    #[diagnostic(
        code(schedc::execute::stalled),
        help("the table shows what each rank waits for; if one pass takes this long, raise --stall-timeout")
    )]
    Stalled {
        /// How long.
        seconds: f64,
        /// What every rank was doing.
        report: Box<Report>,
    },
    /// A rank failed.
    #[error("`{rank}` failed in step {step}: {reason}")]
    #[diagnostic(
        code(schedc::execute::rank_failed),
        help("the table shows what each rank was doing; resume from the last checkpoint with --checkpoint")
    )]
    RankFailed {
        /// The rank.
        rank: Rank,
        /// The step.
        step: u64,
        /// Why.
        reason: String,
        /// What every rank was doing.
        report: Box<Report>,
    },
    /// Several processes do not come together.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Launch(#[from] LaunchError),
    /// Another process failed.
    #[error("process {process} {reason}")]
    #[diagnostic(
        code(schedc::execute::process_failed),
        help(
            "see what it printed last; the table shows what each rank was doing; resume from the last checkpoint with --checkpoint"
        )
    )]
    ProcessFailed {
        /// The process.
        process: usize,
        /// What happened to it.
        reason: String,
        /// The step.
        step: u64,
        /// What every rank was doing.
        report: Box<Report>,
    },
    /// Something that only one process can do.
    #[error("`{flag}` is not for a run of several processes")]
    #[diagnostic(
        code(schedc::execute::one_process_only),
        help(
            "leave it out, or run the same plan in one process: `schedc run` without `launch` gives the same bits"
        )
    )]
    OneProcessOnly {
        /// The flag.
        flag: &'static str,
    },
    /// A run that failed before is stepped again.
    #[error("the run has ended with an error and takes no further step")]
    #[diagnostic(code(schedc::execute::ended), help("start it again"))]
    Ended,
    /// A file cannot be read.
    #[error("`{what}` cannot be read")]
    #[diagnostic(code(schedc::execute::read), help("name a file that exists and may be read"))]
    Read {
        /// The file.
        what: String,
        /// Why.
        source: io::Error,
    },
    /// A file cannot be written.
    #[error("`{what}` cannot be written")]
    #[diagnostic(code(schedc::execute::write), help("name a place that may be written and has room"))]
    Write {
        /// The file.
        what: String,
        /// Why.
        source: io::Error,
    },
    /// More text than is read.
    #[error("`{name}` is longer than {most} bytes")]
    #[diagnostic(code(schedc::execute::text_too_long), help("train on a part of it"))]
    TextTooLong {
        /// The text.
        name: String,
        /// The limit.
        most: u64,
    },
    /// Less text than one sequence.
    #[error("`{name}` has {tokens} tokens, but one sequence takes {needed}")]
    #[diagnostic(code(schedc::execute::text_too_short), help("give a longer text, or a smaller --seq"))]
    TextTooShort {
        /// The text.
        name: String,
        /// Its tokens.
        tokens: usize,
        /// Tokens of a sequence, with the one that follows.
        needed: usize,
    },
    /// Token ids that the embedding has no row for.
    #[error("a vocabulary of {vocab} is smaller than the tokenizer's {ids} ids")]
    #[diagnostic(code(schedc::execute::vocab_too_small), help("set --vocab {ids} or larger"))]
    VocabTooSmall {
        /// `--vocab`.
        vocab: u32,
        /// What the tokenizer gives.
        ids: u32,
    },
    /// The build has no byte-pair tokenizer.
    #[error("this build of schedc has no byte-pair tokenizer")]
    #[diagnostic(
        code(schedc::execute::no_bpe),
        help("build it with `cargo build --release --features bpe`, or use --tokenizer bytes")
    )]
    NoBpe,
    /// The byte-pair tokenizer fails.
    #[error("the byte-pair tokenizer failed: {reason}")]
    #[diagnostic(code(schedc::execute::tokenizer), help("use another text, or --tokenizer bytes"))]
    Tokenizer {
        /// Why.
        reason: String,
    },
    /// A checkpoint of another run.
    #[error("the checkpoint `{path}` was made with {what} {kept}, and this run has {now}")]
    #[diagnostic(
        code(schedc::execute::checkpoint_differs),
        help("run with the same {what}, or name another directory for --checkpoint")
    )]
    CheckpointDiffers {
        /// The checkpoint.
        path: String,
        /// What differs.
        what: &'static str,
        /// As the checkpoint has it.
        kept: String,
        /// As the run has it.
        now: String,
    },
    /// A checkpoint that does not hold what it should.
    #[error("the checkpoint file `{path}` is damaged: {reason}")]
    #[diagnostic(
        code(schedc::execute::checkpoint_damaged),
        help("move this step's directory away to resume from the one before")
    )]
    CheckpointDamaged {
        /// The file.
        path: String,
        /// What is wrong.
        reason: String,
    },
    /// Checkpoints, and none of them complete.
    #[error("`{directory}` has {found} checkpoints and none is complete; of the newest: {reason}")]
    #[diagnostic(
        code(schedc::execute::no_complete_checkpoint),
        help("to start anew, move them away or name another directory for --checkpoint")
    )]
    NoCompleteCheckpoint {
        /// Where they lie.
        directory: String,
        /// How many there are.
        found: usize,
        /// What is wrong with the newest.
        reason: String,
    },
    /// A file in the place of the checkpoints' directory.
    #[error("checkpoints lie in a directory, and at `{path}` there is a file")]
    #[diagnostic(
        code(schedc::execute::not_a_directory),
        help("name a directory for --checkpoint; it is made where it does not exist")
    )]
    NotADirectory {
        /// The file.
        path: String,
    },
    /// A dump of a step that is not taken.
    #[error("--dump writes the first step of a run, and this one takes none: {done} of {steps} are done")]
    #[diagnostic(
        code(schedc::execute::nothing_to_dump),
        help("raise --steps above {done}, or leave --checkpoint out to start from the first step")
    )]
    NothingToDump {
        /// Steps that had been taken.
        done: u64,
        /// Steps in all.
        steps: u64,
    },
    /// A dump of a plan that computes no gradient.
    #[error("a forward-only plan has no gradients to dump")]
    #[diagnostic(code(schedc::execute::no_gradients), help("leave --dump out, or --forward-only"))]
    NoGradients,
    /// Evaluation of what is not there.
    #[error("`{directory}` holds no complete checkpoint to evaluate")]
    #[diagnostic(
        code(schedc::execute::nothing_to_evaluate),
        help(
            "train one with `schedc run … --checkpoint {directory}`, or leave --checkpoint out to evaluate the model as it starts"
        )
    )]
    NothingToEvaluate {
        /// The directory.
        directory: String,
    },
    /// The loss is not a number any more.
    #[error("the loss of step {step} is {loss}: the training has diverged")]
    #[diagnostic(
        code(schedc::execute::diverged),
        help("start again with a lower --lr than {lr:e}; nothing of this step was saved")
    )]
    Diverged {
        /// The step.
        step: u64,
        /// Its loss.
        loss: f64,
        /// The learning rate.
        lr: f32,
    },
    /// The plan computes something else than the reference.
    #[error("`{what}` differs from the model without a schedule by {difference:e}, more than {tolerance:e}")]
    #[diagnostic(
        code(schedc::execute::check_failed),
        help(
            "the table lists the worst tensors; of a schedule of your own, look at what its passes compute, read and give; with the library's passes only, this is a bug in schedc"
        )
    )]
    CheckFailed {
        /// The tensor, or the loss.
        what: String,
        /// The relative difference.
        difference: f64,
        /// What is allowed.
        tolerance: f64,
    },
    /// The plan computes the same numbers, but not the same bits, where it should.
    #[error(
        "`{what}` differs from the model without a schedule in its last bits, and no transform explains it"
    )]
    #[diagnostic(
        code(schedc::execute::check_bits),
        help("a plan without a transform repeats the reference bit for bit; this is a bug in schedc")
    )]
    CheckBits {
        /// The tensor, or the loss.
        what: String,
    },
    /// The check was asked for, but nothing gives a loss.
    #[error("no rank of the plan gives a loss")]
    #[diagnostic(code(schedc::execute::no_loss), help("run a plan whose last stage computes the loss"))]
    NoLoss,
}
