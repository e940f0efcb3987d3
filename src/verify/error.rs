//! What can be wrong with a plan: one variant for each way to break a rule.

use miette::Diagnostic;
use thiserror::Error;

use super::report::Place;
use crate::ir::{BufferId, Bytes, CollectiveOp, Flow, GroupId, InstrId, Rank, Stage};

/// A rule that a plan breaks.
#[derive(Clone, Debug, PartialEq, Eq, Error, Diagnostic)]
pub enum Rule {
    /// A header that makes no sense.
    #[error("the header makes no sense: {problem}")]
    #[diagnostic(
        code(schedc::verify::malformed_header),
        help("compile the schedule again, or correct the header")
    )]
    MalformedHeader {
        /// What is wrong.
        problem: String,
    },
    /// A declaration that makes no sense.
    #[error("the declaration of `{what}` makes no sense: {problem}")]
    #[diagnostic(code(schedc::verify::malformed_catalog), help("correct the declaration in the header"))]
    MalformedCatalog {
        /// The class, pass or collective.
        what: String,
        /// What is wrong.
        problem: String,
    },
    /// A group that makes no sense.
    #[error("group {group} makes no sense: {problem}")]
    #[diagnostic(
        code(schedc::verify::malformed_group),
        help("list the ranks of a group once each, in order")
    )]
    MalformedGroup {
        /// The group.
        group: GroupId,
        /// What is wrong.
        problem: String,
    },
    /// A rank's part that does not fit the header.
    #[error("the rank's part makes no sense: {problem}")]
    #[diagnostic(
        code(schedc::verify::malformed_rank),
        help("compile the schedule again, or correct the part")
    )]
    MalformedRank {
        /// What is wrong.
        problem: String,
    },
    /// A lane that does not exist, or that does not suit what runs on it.
    #[error("the lane is wrong: {problem}")]
    #[diagnostic(
        code(schedc::verify::malformed_lane),
        help(
            "run passes on `compute`, transfers on the lane of their peer, collectives on the lane of their group"
        )
    )]
    MalformedLane {
        /// What is wrong.
        problem: String,
    },
    /// A buffer that makes no sense.
    #[error("the buffer makes no sense: {problem}")]
    #[diagnostic(
        code(schedc::verify::malformed_buffer),
        help("place each buffer at a multiple of 64 bytes, with the shape of its class")
    )]
    MalformedBuffer {
        /// What is wrong.
        problem: String,
    },
    /// An instruction that names what the header does not have.
    #[error("the instruction makes no sense: {problem}")]
    #[diagnostic(
        code(schedc::verify::malformed_pass),
        help("name passes, stages, ranks, microbatches and groups that the header has")
    )]
    MalformedPass {
        /// What is wrong.
        problem: String,
    },
    /// A pass at a stage of the other flow.
    #[error("`{pass}` belongs to {flow}, and its stage to the other flow")]
    #[diagnostic(
        code(schedc::verify::foreign_flow),
        help("microbatch i belongs to flow i % flows: name a stage of that flow")
    )]
    ForeignFlow {
        /// The pass.
        pass: String,
        /// The flow of its microbatch.
        flow: Flow,
    },
    /// A mark of overlap where there are no two passes to overlap.
    #[error("it cannot run overlapped: {problem}")]
    #[diagnostic(
        code(schedc::verify::malformed_pair),
        help(
            "mark the first of two passes that follow each other on the compute lane, in lock step neither"
        )
    )]
    MalformedPair {
        /// What is wrong.
        problem: String,
    },
    /// The second pass of a pair that waits for the first, or for what comes after it.
    #[error("the second pass of a pair waits for {wait}, which comes with the first, {first}, or after it")]
    #[diagnostic(
        code(schedc::verify::pair_waits),
        help("both start when both may: let it wait only for what comes before {first}, or remove the mark")
    )]
    PairWaits {
        /// What it waits for.
        wait: InstrId,
        /// The first pass of the pair.
        first: InstrId,
    },
    /// An operand that the instruction cannot have.
    #[error("an operand is wrong: {problem}")]
    #[diagnostic(
        code(schedc::verify::malformed_operand),
        help("name buffers of the same rank that suit the instruction")
    )]
    MalformedOperand {
        /// What is wrong.
        problem: String,
    },
    /// A wait for something that does not come before.
    #[error("it waits for {wait}, which does not come before it")]
    #[diagnostic(
        code(schedc::verify::malformed_wait),
        help("wait for earlier instructions of the same rank only")
    )]
    MalformedWait {
        /// What it waits for.
        wait: InstrId,
    },
    /// A pass that never runs.
    #[error("`{pass}` never runs")]
    #[diagnostic(code(schedc::verify::missing_pass), help("run it once, on this rank"))]
    MissingPass {
        /// The pass.
        pass: String,
    },
    /// A pass that runs twice.
    #[error("`{pass}` runs again, after {first}")]
    #[diagnostic(code(schedc::verify::duplicate_pass), help("a pass runs once; remove one of the two"))]
    DuplicatePass {
        /// The pass.
        pass: String,
        /// Where it ran before.
        first: Place,
    },
    /// A pass on a rank that does not own its site.
    #[error("`{pass}` runs here, and its site belongs to {owner}")]
    #[diagnostic(code(schedc::verify::foreign_pass), help("move it to {owner}"))]
    ForeignPass {
        /// The pass.
        pass: String,
        /// The rank that it belongs to.
        owner: Rank,
    },
    /// A collective that a rank never issues.
    #[error("the rank never issues `{collective}`")]
    #[diagnostic(code(schedc::verify::missing_collective), help("issue it once on every rank"))]
    MissingCollective {
        /// The collective.
        collective: String,
    },
    /// A collective that a rank issues twice.
    #[error("`{collective}` is issued again, after {first}")]
    #[diagnostic(
        code(schedc::verify::duplicate_collective),
        help("a collective is issued once for each microbatch; remove one of the two")
    )]
    DuplicateCollective {
        /// The collective.
        collective: String,
        /// Where it was issued before.
        first: Place,
    },
    /// A collective that nobody needs.
    #[error("`{collective}` is issued where it has nothing to do")]
    #[diagnostic(
        code(schedc::verify::needless_collective),
        help(
            "remove it: one rank alone has nothing to collect, and only two copies of a tied embedding have a sum"
        )
    )]
    NeedlessCollective {
        /// The collective.
        collective: String,
    },
    /// A tied embedding whose two gradients are not summed.
    #[error("the rank has a copy of the tied embedding, and its gradient is never summed")]
    #[diagnostic(
        code(schedc::verify::missing_sum),
        help("add an all_reduce of the tied gradient before the step")
    )]
    MissingSum,
    /// A rank that does not sum the gradients of one of its stages with those of the other flow's copy.
    #[error("the gradients of the two copies of {stage} are never summed on this rank")]
    #[diagnostic(
        code(schedc::verify::missing_copy_sum),
        help("add an all_reduce of `stage-gradient {stage}` between the two ranks before the step")
    )]
    MissingCopySum {
        /// The stage of the model.
        stage: Stage,
    },
    /// A rank without an optimizer step.
    #[error("the rank has no optimizer step")]
    #[diagnostic(code(schedc::verify::missing_step), help("end the list with one"))]
    MissingStep,
    /// A rank with two optimizer steps.
    #[error("the optimizer step runs again, after {first}")]
    #[diagnostic(code(schedc::verify::duplicate_step), help("remove one of the two"))]
    DuplicateStep {
        /// Where it ran before.
        first: Place,
    },
    /// An optimizer step that something may follow.
    #[error("the optimizer step does not come after {other} `{what}`")]
    #[diagnostic(
        code(schedc::verify::early_step),
        help("put the step last, waiting for the last instruction of every lane")
    )]
    EarlyStep {
        /// What may still run.
        other: InstrId,
        /// What that does.
        what: String,
    },
    /// A buffer that is read before it is written.
    #[error("{buffer} is read as {wanted}, and nothing was written there")]
    #[diagnostic(
        code(schedc::verify::undefined_read),
        help("compute or receive the value before it is read")
    )]
    UndefinedRead {
        /// The buffer.
        buffer: BufferId,
        /// What should be there.
        wanted: String,
    },
    /// A buffer that holds something else.
    #[error("{buffer} is read as {wanted}, and holds {found}")]
    #[diagnostic(code(schedc::verify::wrong_value), help("read the buffer that holds {wanted}"))]
    WrongValue {
        /// The buffer.
        buffer: BufferId,
        /// What should be there.
        wanted: String,
        /// What is there.
        found: String,
    },
    /// A read that may come before its write.
    #[error("{buffer} is read as {wanted}, and {writer} may still be writing it")]
    #[diagnostic(code(schedc::verify::unordered_read), help("wait for {writer}"))]
    UnorderedRead {
        /// The buffer.
        buffer: BufferId,
        /// What should be there.
        wanted: String,
        /// Who writes it.
        writer: InstrId,
    },
    /// An instruction that does not touch what it must.
    #[error("the instruction must {verb} {what}, and does not")]
    #[diagnostic(code(schedc::verify::missing_operand), help("name the buffer, in the order of the catalog"))]
    MissingOperand {
        /// What is missing.
        what: String,
        /// Read or write.
        verb: &'static str,
    },
    /// An instruction that touches what it must not.
    #[error("the instruction {verb} {buffer}, which has no part in it")]
    #[diagnostic(code(schedc::verify::unexpected_operand), help("remove the operand"))]
    UnexpectedOperand {
        /// The buffer.
        buffer: BufferId,
        /// Reads or writes.
        verb: &'static str,
    },
    /// A result in a buffer of another class or shape.
    #[error("{what} is written to {buffer}, which is no `{class}` of shape {shape}")]
    #[diagnostic(
        code(schedc::verify::wrong_buffer),
        help("write it to a buffer of class `{class}` and shape {shape}")
    )]
    WrongBuffer {
        /// The buffer.
        buffer: BufferId,
        /// What is written.
        what: String,
        /// Its class.
        class: String,
        /// Its shape.
        shape: String,
    },
    /// Something that may run before what it needs.
    #[error("it needs `{needed}` before it, which may run later")]
    #[diagnostic(
        code(schedc::verify::unordered_need),
        help("wait for `{needed}` of {before}; an order without a value holds within one rank only")
    )]
    UnorderedNeed {
        /// What it needs.
        needed: String,
        /// Where that is.
        before: Place,
    },
    /// A sum of a gradient that comes too early.
    #[error("{gradient} is summed before {pass} has added to it")]
    #[diagnostic(code(schedc::verify::early_sum), help("wait for {pass}"))]
    EarlySum {
        /// Which gradient.
        gradient: String,
        /// What still adds to it.
        pass: InstrId,
    },
    /// A send that no receive meets.
    #[error("`{what}` is never received")]
    #[diagnostic(
        code(schedc::verify::unmatched_send),
        help("add the receive on the other rank, or remove the send")
    )]
    UnmatchedSend {
        /// The send.
        what: String,
    },
    /// A receive that no send meets.
    #[error("`{what}` is never sent")]
    #[diagnostic(
        code(schedc::verify::unmatched_recv),
        help("add the send on the other rank, or remove the receive")
    )]
    UnmatchedRecv {
        /// The receive.
        what: String,
    },
    /// A send that meets a receive of another value.
    #[error(
        "transfer {position} from {from} is `{send}` and meets `{receive}` ({sends} sends, {receives} receives)"
    )]
    #[diagnostic(code(schedc::verify::tag_mismatch), help("send and receive between two ranks in one order"))]
    TagMismatch {
        /// Which transfer of the channel.
        position: usize,
        /// The receive.
        receive: String,
        /// The send.
        send: String,
        /// The sender.
        from: Rank,
        /// Sends of the channel.
        sends: usize,
        /// Receives of the channel.
        receives: usize,
    },
    /// A send that meets a receive of another size.
    #[error("a value of shape {send} is received into shape {receive}")]
    #[diagnostic(code(schedc::verify::size_mismatch), help("give both buffers the shape of the value"))]
    SizeMismatch {
        /// The receiver's shape.
        receive: String,
        /// The sender's shape.
        send: String,
    },
    /// Members of a group that issue different collectives.
    #[error("collective {position} of {group} is `{found}` here and `{wanted}` on {leader}")]
    #[diagnostic(
        code(schedc::verify::group_order),
        help("issue the collectives of a group in one order on all its members")
    )]
    GroupOrder {
        /// The group.
        group: GroupId,
        /// Which one of the sequence.
        position: usize,
        /// What this rank issues.
        found: String,
        /// What the first member issues.
        wanted: String,
        /// The first member.
        leader: Rank,
    },
    /// A collective with another operation than declared.
    #[error("`{collective}` does {found}, and is declared {wanted}")]
    #[diagnostic(code(schedc::verify::group_op), help("write {wanted}"))]
    GroupOp {
        /// The collective.
        collective: String,
        /// What it does.
        found: CollectiveOp,
        /// What it should do.
        wanted: CollectiveOp,
    },
    /// A collective with another root than declared.
    #[error("the root of `{collective}` is {found}, and should be {wanted}")]
    #[diagnostic(code(schedc::verify::group_root), help("name {wanted} as the root"))]
    GroupRoot {
        /// The collective.
        collective: String,
        /// The root.
        found: String,
        /// The right root.
        wanted: String,
    },
    /// A collective of another size than declared.
    #[error("`{collective}` collects {found} elements from each rank, and should collect {wanted}")]
    #[diagnostic(code(schedc::verify::group_count), help("write {wanted} elements"))]
    GroupCount {
        /// The collective.
        collective: String,
        /// Elements.
        found: u64,
        /// The right number.
        wanted: u64,
    },
    /// A collective on another group than declared.
    #[error("`{collective}` runs on {group}, which are not the ranks that it collects from")]
    #[diagnostic(code(schedc::verify::wrong_group), help("run it on the group of these ranks"))]
    WrongGroup {
        /// The collective.
        collective: String,
        /// The group.
        group: GroupId,
    },
    /// A rank that issues a collective of a group that it is not in.
    #[error("`{collective}` runs on {group}, which this rank is not in")]
    #[diagnostic(
        code(schedc::verify::foreign_member),
        help("remove it from this rank, or name the right group")
    )]
    ForeignMember {
        /// The collective.
        collective: String,
        /// The group.
        group: GroupId,
    },
    /// A member that issues fewer or more collectives than the others.
    #[error("the rank issues {found} collectives of a sequence on {group}, and {leader} issues {wanted}")]
    #[diagnostic(
        code(schedc::verify::missing_member),
        help("issue every collective of a group on all its members")
    )]
    MissingMember {
        /// The group.
        group: GroupId,
        /// How many it issues.
        found: usize,
        /// The first member.
        leader: Rank,
        /// How many that issues.
        wanted: usize,
    },
    /// Ranks that wait for each other.
    #[error("{stuck} instructions can never run: a cycle of {edges} waits for itself")]
    #[diagnostic(
        code(schedc::verify::deadlock),
        help("break the cycle, or choose another channel semantics:\n{cycle}")
    )]
    Deadlock {
        /// Edges of the cycle.
        edges: usize,
        /// Instructions that never run.
        stuck: usize,
        /// The cycle, edge by edge.
        cycle: String,
    },
    /// A buffer that is read after it was freed.
    #[error("{buffer} is read, and {by} freed it")]
    #[diagnostic(code(schedc::verify::use_after_free), help("free it later"))]
    UseAfterFree {
        /// The buffer.
        buffer: BufferId,
        /// Who freed it.
        by: InstrId,
    },
    /// A buffer that is written over one that is still live.
    #[error("{buffer} is written over {old}, which holds what {writer} wrote")]
    #[diagnostic(code(schedc::verify::overwrite_live), help("free {old} before, or place the two apart"))]
    OverwriteLive {
        /// The buffer.
        buffer: BufferId,
        /// The live buffer.
        old: BufferId,
        /// Who wrote that.
        writer: InstrId,
    },
    /// A buffer that is written while the one before may still be in use.
    #[error("{buffer} is written over {old}, which {by} may still be using")]
    #[diagnostic(code(schedc::verify::overwrite_in_flight), help("wait for {by}"))]
    OverwriteInFlight {
        /// The buffer.
        buffer: BufferId,
        /// The buffer before.
        old: BufferId,
        /// Who frees that.
        by: InstrId,
    },
    /// A buffer that is freed while it may still be in use.
    #[error("{buffer} is freed, and {user} may still be using it")]
    #[diagnostic(code(schedc::verify::unordered_free), help("wait for {user}, or free it there"))]
    UnorderedFree {
        /// The buffer.
        buffer: BufferId,
        /// Who uses it.
        user: InstrId,
    },
    /// A buffer that is freed twice.
    #[error("{buffer} is freed again, after {by}")]
    #[diagnostic(code(schedc::verify::double_free), help("remove one of the two"))]
    DoubleFree {
        /// The buffer.
        buffer: BufferId,
        /// Who freed it before.
        by: InstrId,
    },
    /// A buffer that is freed and was never written.
    #[error("{buffer} is freed, and was never written")]
    #[diagnostic(code(schedc::verify::free_undefined), help("remove the free"))]
    FreeUndefined {
        /// The buffer.
        buffer: BufferId,
    },
    /// A buffer that is never freed.
    #[error("what is written to {buffer} is never freed")]
    #[diagnostic(code(schedc::verify::leak), help("free it with its last reader"))]
    Leak {
        /// The buffer.
        buffer: BufferId,
    },
    /// A stated peak that is not what the list comes to.
    #[error("the header says {stated} for {what}, and it comes to {found}")]
    #[diagnostic(code(schedc::verify::wrong_peak), help("write {found}"))]
    WrongPeak {
        /// What is stated.
        what: String,
        /// What the header says.
        stated: String,
        /// What it comes to.
        found: String,
    },
    /// A rank that needs more memory than allowed.
    #[error("the rank needs {needed}, and the limit is {limit}")]
    #[diagnostic(
        code(schedc::verify::over_limit),
        help("raise the limit, or choose a schedule that keeps fewer microbatches in flight")
    )]
    OverLimit {
        /// What it needs.
        needed: Bytes,
        /// What is allowed.
        limit: Bytes,
    },
}
