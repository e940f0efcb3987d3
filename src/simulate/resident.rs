//! What a rank holds beside the plan's buffers, all the time: parameters, their gradients, the optimizer's state.

use crate::cost::held_parameters;
use crate::ir::{Header, Rank};

/// Bytes that a rank holds from the first step to the last.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, schemars::JsonSchema)]
pub struct Resident {
    /// The parameters.
    pub parameters: u64,
    /// A gradient for each.
    pub gradients: u64,
    /// What the optimizer keeps of each.
    pub optimizer: u64,
}

impl Resident {
    /// All of them.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.parameters.saturating_add(self.gradients).saturating_add(self.optimizer)
    }
}

/// What `schedc run` holds of a plan's model, by [`Rank`]: parameters, gradients and Adam's two moments in f32. A tied embedding that lies
/// whole on one rank has a second gradient, of its use as the output layer.
#[must_use]
pub fn resident(header: &Header) -> Vec<Resident> {
    Rank::all(header.ranks() as usize).map(|rank| of_rank(header, rank)).collect()
}

fn of_rank(header: &Header, rank: Rank) -> Resident {
    let (elements, second) = held_parameters(header, rank);
    Resident {
        parameters: elements.saturating_mul(4),
        gradients: elements.saturating_add(second).saturating_mul(4),
        optimizer: elements.saturating_mul(8),
    }
}
