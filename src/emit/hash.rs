//! Plan -> the SHA-256 of its text form: two plans with one hash are one plan.

use std::fmt::{self, Write};

use sha2::{Digest, Sha256};

use super::text::write_plan;
use crate::ir::Plan;

/// The identity of a plan; prints as 64 hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PlanHash(pub [u8; 32]);

impl fmt::Display for PlanHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// Feeds text to the hash as it is written, so that a large plan is never held as text.
struct Hasher(Sha256);

impl Write for Hasher {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0.update(text.as_bytes());
        Ok(())
    }
}

/// Hashes the text form of a plan.
///
/// # Panics
/// Never: the hash takes whatever is written to it.
#[must_use]
pub fn plan_hash(plan: &Plan) -> PlanHash {
    let mut hasher = Hasher(Sha256::new());
    write_plan(plan, &mut hasher).expect("a hash takes all text");
    PlanHash(hasher.0.finalize().into())
}
