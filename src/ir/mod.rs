//! Data that every room reads: ids, units, the model's dimensions, the catalog of passes, [`Program`], [`Schedule`], [`Plan`].
//!
//! Nothing here computes an order, a lifetime or a proof. Types, accessors and `Display` only.

mod catalog;
mod cut;
mod dims;
mod ids;
mod partition;
mod plan;
mod program;
mod schedule;
mod span;
mod units;

pub use catalog::{
    At, Catalog, Class, Collective, CollectiveOp, Compute, Kind, Need, Queue, Relation, Source, Where,
};
pub use cut::{Cut, UnitName};
pub use dims::{Dims, Precision};
pub use ids::{
    BufferId, Chunk, ClassId, CollectiveId, Flow, GroupId, InstrId, KindId, LaneId, Microbatch, Port, Rank,
    Stage,
};
pub use partition::Partition;
pub use plan::{
    Buffer, Group, Header, Instr, Lane, Mode, Op, Operands, Pass, Payload, Peak, Place, Plan, RankPlan, Site,
    Value,
};
pub use program::{
    Block, Cap, Greedy, Limit, Measure, Member, Pattern, PatternKind, Program, RankOrder, RankProgram,
    Repeat, Requirement, Slot, Transform,
};
pub use schedule::{Placed, Schedule, Shape};
pub use span::{FileId, Span};
pub use units::{ByteUnit, Bytes, Ticks};
