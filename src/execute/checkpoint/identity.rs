//! What a run must have in common with a checkpoint.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::execute::tokenizer::Tokenizer;
use crate::ir::{Header, Mode};

/// What a run must have in common with the checkpoint that it resumes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity(BTreeMap<String, String>);

/// The parts of an identity, in the order in which differences are reported.
const PARTS: [&str; 17] = [
    "schedule",
    "transforms",
    "ranks",
    "stages",
    "microbatches",
    "layers",
    "hidden",
    "heads",
    "sequence",
    "batch",
    "vocab",
    "tied embeddings",
    "seed",
    "tokenizer",
    "data",
    "learning rate",
    "plan",
];

/// How many of them, the last ones, matter to training only.
const TRAINING_ONLY: usize = 2;

/// The model's layers, and on which stages, where they are not spread evenly: a checkpoint's shares are those of its ranks.
fn layers(header: &Header) -> String {
    let all = header.model.layers.to_string();
    let Some(layers) = &header.partition.0 else { return all };
    let each: Vec<String> = layers.iter().map(ToString::to_string).collect();
    format!("{all} as {}", each.join(" "))
}

impl Identity {
    /// The identity of a run. `plan` is the plan's hash, where it is known.
    #[must_use]
    pub fn new(
        header: &Header,
        seed: u64,
        lr: f32,
        tokenizer: &Tokenizer,
        data: String,
        plan: Option<&str>,
    ) -> Self {
        let dims = &header.model;
        let stages: Vec<String> = header.stages.iter().map(ToString::to_string).collect();
        let or_none = |list: String| if list.is_empty() { "none".to_owned() } else { list };
        let values = [
            header.name.clone(),
            or_none(header.transforms.join(", ")),
            header.ranks().to_string(),
            stages.join(" ") + if header.flows == 2 { ", two flows" } else { "" },
            header.microbatches.to_string(),
            layers(header),
            dims.hidden.to_string(),
            dims.heads.to_string(),
            dims.sequence.to_string(),
            dims.batch.to_string(),
            dims.vocab.to_string(),
            dims.tied.to_string(),
            seed.to_string(),
            tokenizer.name().to_owned(),
            data,
            lr.to_string(),
            or_none(plan.unwrap_or_default().to_owned()),
        ];
        Self(PARTS.into_iter().map(str::to_owned).zip(values).collect())
    }

    /// The first part that differs: its name, this value and the other. Who only evaluates has another plan, and any learning rate.
    pub(super) fn difference(&self, other: &Self, mode: Mode) -> Option<(&'static str, String, String)> {
        let parts = if mode.is_training() { &PARTS[..] } else { &PARTS[..PARTS.len() - TRAINING_ONLY] };
        let value = |of: &Self, part: &str| of.0.get(part).cloned().unwrap_or_else(|| "none".to_owned());
        parts.iter().copied().find_map(|part| {
            let (mine, theirs) = (value(self, part), value(other, part));
            (mine != theirs).then_some((part, mine, theirs))
        })
    }
}
