//! Plan -> its JSON form, version 1; `docs/plan.schema.json` is its schema.
//!
//! The mirror types here are the format: the plan's own layout (a pool of operands) may change without it.

use std::borrow::Cow;
use std::io;

use serde::ser::SerializeStruct;
use serde::{Deserialize, Serialize, Serializer};

use crate::ir::{ClassId, Header, LaneId, Op, Peak, Place, Plan, RankPlan};

/// The version of the JSON form.
pub const VERSION: u32 = 1;

/// A plan as JSON.
#[derive(Debug, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "schedc plan, version 1")]
pub struct JsonPlan {
    /// The version of this format: 1.
    #[schemars(extend("const" = 1))]
    pub version: u32,
    /// What holds for all ranks.
    pub header: Header,
    /// Each rank's buffers and instructions, by rank.
    pub ranks: Vec<JsonRank<'static>>,
}

/// One rank's share of the plan.
#[derive(Debug, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct JsonRank<'plan> {
    /// The memory that its buffers take, and how many of each class are live at once.
    pub peak: Cow<'plan, Peak>,
    /// Its lanes; the first is the compute lane.
    pub lanes: Cow<'plan, [crate::ir::Lane]>,
    /// Its buffers.
    pub buffers: Vec<JsonBuffer<'plan>>,
    /// Its instructions.
    pub instructions: Vec<JsonInstr<'plan>>,
}

/// A range of a rank's arena under the name of a class.
#[derive(Debug, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct JsonBuffer<'plan> {
    /// Its class, as a position in `header.catalog.classes`.
    pub class: ClassId,
    /// Its shape; f32 elements.
    pub shape: Cow<'plan, [u64]>,
    /// Where it lies.
    pub place: Place,
}

/// One instruction; operands that it does not have are left out.
#[derive(Debug, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct JsonInstr<'plan> {
    /// The lane that it runs on, as a position in `lanes`.
    pub lane: LaneId,
    /// What it does.
    pub op: Op,
    /// Whether it runs overlapped with the next instruction of its lane.
    #[serde(default, skip_serializing_if = "is_false")]
    pub overlaps: bool,
    /// Buffers read, as positions in `buffers`.
    #[serde(default, skip_serializing_if = "is_empty")]
    pub reads: Cow<'plan, [u32]>,
    /// Buffers written, as positions in `buffers`.
    #[serde(default, skip_serializing_if = "is_empty")]
    pub writes: Cow<'plan, [u32]>,
    /// Buffers freed when it has ended, as positions in `buffers`.
    #[serde(default, skip_serializing_if = "is_empty")]
    pub frees: Cow<'plan, [u32]>,
    /// Earlier instructions that must have ended before it starts, as positions in `instructions`.
    #[serde(default, skip_serializing_if = "is_empty")]
    pub waits: Cow<'plan, [u32]>,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "what serde calls it with")]
fn is_false(flag: &bool) -> bool {
    !flag
}

fn is_empty(list: &[u32]) -> bool {
    list.is_empty()
}

impl<'plan> JsonRank<'plan> {
    fn of(plan: &'plan RankPlan) -> Self {
        let buffers = plan.buffers.iter().map(|buffer| JsonBuffer {
            class: buffer.class,
            shape: Cow::Borrowed(&buffer.shape),
            place: buffer.place,
        });
        let instructions = plan.instrs.iter().map(|instr| {
            let operands = plan.operands(instr);
            JsonInstr {
                lane: instr.lane,
                op: instr.op,
                overlaps: instr.overlaps,
                reads: Cow::Borrowed(operands.reads),
                writes: Cow::Borrowed(operands.writes),
                frees: Cow::Borrowed(operands.frees),
                waits: Cow::Borrowed(operands.waits),
            }
        });
        Self {
            peak: Cow::Borrowed(&plan.peak),
            lanes: Cow::Borrowed(&plan.lanes),
            buffers: buffers.collect(),
            instructions: instructions.collect(),
        }
    }
}

/// Serializes a plan rank by rank: only one rank's mirror is held at a time.
struct Streamed<'plan>(&'plan Plan);
struct Ranks<'plan>(&'plan [RankPlan]);

impl Serialize for Streamed<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut plan = serializer.serialize_struct("Plan", 3)?;
        plan.serialize_field("version", &VERSION)?;
        plan.serialize_field("header", &self.0.header)?;
        plan.serialize_field("ranks", &Ranks(&self.0.ranks))?;
        plan.end()
    }
}

impl Serialize for Ranks<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.iter().map(JsonRank::of))
    }
}

/// Writes the JSON form of a plan, one line of text. The plan's operands lie in its pools: it was verified or imported.
///
/// # Errors
/// Those of `out`.
pub fn write_plan_json(plan: &Plan, out: impl io::Write) -> io::Result<()> {
    serde_json::to_writer(out, &Streamed(plan)).map_err(io::Error::from)
}

/// The JSON form of a plan.
///
/// # Panics
/// Never: every field has a JSON form, and a string takes all of them.
#[must_use]
pub fn plan_json(plan: &Plan) -> String {
    serde_json::to_string(&Streamed(plan)).expect("every field of a plan has a JSON form")
}

/// The JSON schema of the JSON form, as `docs/plan.schema.json` holds it.
///
/// # Panics
/// Never: a schema is JSON.
#[must_use]
pub fn plan_schema() -> String {
    let schema = schemars::schema_for!(JsonPlan);
    let mut text = serde_json::to_string_pretty(&schema).expect("a schema is JSON");
    text.push('\n');
    text
}
