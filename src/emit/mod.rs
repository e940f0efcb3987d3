//! Plan -> a file format, one file each: the text form, the JSON form; and the hash that identifies a plan.
//!
//! Emitters decide nothing: what they write is in the plan, and `crate::import` reads an equal plan back.

pub mod hash;
pub mod json;
pub mod text;

pub use hash::{PlanHash, plan_hash};
pub use json::{plan_json, plan_schema, write_plan_json};
pub use text::{plan_text, write_plan};
