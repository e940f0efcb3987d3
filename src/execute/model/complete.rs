//! Whether the computations of a plan make up one whole model: each that is needed once, and none that belongs to another way.

use crate::ir::{Catalog, Compute, Header, Kind, Mode};

use super::ModelError;

/// The ways to compute a stage.
const STAGE: [&[Compute]; 2] = [
    &[Compute::StageForward, Compute::StageBackward],
    &[Compute::StageForward, Compute::StageInputGrad, Compute::StageWeightGrad],
];

/// The ways to compute a sharded output layer.
const OUTPUT: [&[Compute]; 2] = [
    &[Compute::OutputSoftmax, Compute::OutputGrad],
    &[Compute::OutputSoftmaxGrad, Compute::OutputRescale, Compute::OutputWeightGrad],
];

/// The way to compute a sharded input layer.
const INPUT: [&[Compute]; 1] = [&[Compute::InputLookup, Compute::InputScatter]];

/// What evaluation leaves of each: nothing that computes a gradient, and the loss by itself.
const STAGE_FORWARD: [&[Compute]; 1] = [&[Compute::StageForward]];
const OUTPUT_FORWARD: [&[Compute]; 2] =
    [&[Compute::OutputSoftmax, Compute::OutputLoss], &[Compute::OutputSoftmaxGrad, Compute::OutputLoss]];
const INPUT_FORWARD: [&[Compute]; 1] = [&[Compute::InputLookup]];

/// Fails unless exactly one way of each part is declared, and all of it once. A pass that computes nothing is refused elsewhere.
pub(super) fn check(header: &Header) -> Result<(), ModelError> {
    let catalog = &header.catalog;
    if catalog.kinds.iter().any(|kind| kind.computes.is_none()) {
        return Ok(());
    }
    for (computes, word) in Compute::WORDS {
        let mut kinds = catalog.kinds.iter().filter(|kind| kind.computes == Some(computes));
        if let (Some(first), Some(second)) = (kinds.next(), kinds.next()) {
            let [first, second] = [first, second].map(|kind| kind.name.clone());
            return Err(ModelError::ComputedTwice { computes: word, first, second });
        }
    }
    if header.mode == Mode::ForwardOnly {
        one_way(catalog, &STAGE_FORWARD, true)?;
        one_way(catalog, &OUTPUT_FORWARD, false)?;
        return one_way(catalog, &INPUT_FORWARD, false);
    }
    one_way(catalog, &STAGE, true)?;
    one_way(catalog, &OUTPUT, false)?;
    one_way(catalog, &INPUT, false)
}

/// Compares what is declared of a part with the way that it is nearest to.
fn one_way(catalog: &Catalog, ways: &[&[Compute]], required: bool) -> Result<(), ModelError> {
    let declared = |computes: Compute| catalog.kinds.iter().find(|kind| kind.computes == Some(computes));
    let count = |way: &&&[Compute]| way.iter().filter(|&&computes| declared(computes).is_some()).count();
    // Of equals the last is taken: the first way counts as the nearer one.
    let Some(&way) = ways.iter().rev().max_by_key(count) else { return Ok(()) };
    let present = way.iter().find_map(|&computes| declared(computes));
    if present.is_none() && !required {
        return Ok(());
    }
    let foreign = |computes: &&Compute| !way.contains(computes);
    let foreign =
        ways.iter().flat_map(|way| way.iter()).filter(foreign).find_map(|&computes| declared(computes));
    let word = |kind: &Kind| kind.computes.map_or("nothing", Compute::word);
    if let (Some(kind), Some(other)) = (present, foreign) {
        return Err(ModelError::MixedWays {
            pass: kind.name.clone(),
            computes: word(kind),
            other: other.name.clone(),
            mixed: word(other),
        });
    }
    match way.iter().find(|&&computes| declared(computes).is_none()) {
        Some(missing) => Err(ModelError::LacksComputation {
            lacks: missing.word(),
            way: way.iter().map(|computes| computes.word()).collect::<Vec<_>>().join(", "),
        }),
        None => Ok(()),
    }
}
