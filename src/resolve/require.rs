//! `require`: what a plan of the schedule must keep, with known numbers.

use super::error::ResolveError;
use super::names::Parts;
use super::{Head, expr};
use crate::ir::{Measure, Requirement, Shape};

/// The requirements of a schedule, in the order in which they were written.
pub(super) fn requirements(
    parts: &Parts<'_>,
    head: &Head,
    shape: &Shape,
    errors: &mut Vec<ResolveError>,
) -> Vec<Requirement> {
    let mut inner = head.clone();
    inner.push("chunks", i64::from(shape.chunks));
    inner.push("stages", (shape.stages.len() as u64).cast_signed());
    inner.push("slices", i64::from(shape.slices));
    let scope = inner.scope.at("in a requirement");
    let mut requirements = Vec::new();
    for &(measure, most, span) in &parts.requires {
        let Some(code) = expr::number(most, &scope, errors) else { continue };
        match code.eval(&inner.values) {
            Err(fault) => errors.push(fault.on(String::new())),
            Ok(value) => match u64::try_from(value) {
                Ok(bound) => requirements.push(Requirement { measure, most: bound, span }),
                Err(_) => errors.push(ResolveError::OutOfRange {
                    what: match measure {
                        Measure::Activations | Measure::Bytes(_) => "the required peak".to_owned(),
                        Measure::Bubble => "the required bubble".to_owned(),
                    },
                    value,
                    place: String::new(),
                    range: "at least 0".to_owned(),
                    help: "nothing is less than 0; write the most that is allowed",
                    at: most.span,
                }),
            },
        }
    }
    requirements
}
