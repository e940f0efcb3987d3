//! A plan file -> Plan: the text form or the JSON form, told apart by the first character.
//!
//! What comes out has the shape of a plan and nothing more: it is untrusted until `crate::verify` has passed it. Memory taken
//! is proportional to the size of the file; numbers in a file never size an allocation.

pub mod error;
pub mod json;
pub mod lines;
pub mod source;
pub mod text;
mod words;

use std::sync::Arc;

pub use error::{ImportError, Problem};
pub use lines::Lines;
pub use source::PlanSource;

use crate::ir::Plan;

/// Reads a plan from the bytes of a file; `name` is what diagnostics call it.
///
/// # Errors
/// What is wrong with the file, line by line; the first few of many.
pub fn read_plan(name: &str, bytes: &[u8]) -> Result<(Plan, PlanSource), ImportError> {
    let text = match std::str::from_utf8(bytes) {
        Ok(text) => text,
        Err(error) => {
            let problem = Problem::NotText { offset: error.valid_up_to() };
            return Err(ImportError::new(PlanSource::new(name, ""), vec![problem]));
        }
    };
    let source = PlanSource::new(name, Arc::from(text));
    let plan = if text.trim_start().starts_with('{') { json::parse(text) } else { text::parse(text) };
    match plan {
        Ok(plan) => Ok((plan, source)),
        Err(problems) => Err(ImportError::new(source, problems)),
    }
}
