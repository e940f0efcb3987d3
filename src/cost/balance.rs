//! Dimensions -> what the vocabulary layers cost beside a transformer layer, for a partition that takes them into account.

use crate::ir::Dims;
use crate::resolve::Partitioning;

/// A partition that makes up for vocabulary layers on the end stages by fewer transformer layers there, by their operations: of n tokens
/// a transformer layer takes `nh(72h + 12s)` forward and backward, the input layer `3nh`, the output layer `6nhV`
/// (Yeung et al. 2024, arXiv:2411.05288, table 4).
#[must_use]
pub fn balance(model: &Dims) -> Partitioning {
    let [hidden, sequence, vocab] = [model.hidden, model.sequence, model.vocab].map(u128::from);
    let layer = (72 * hidden + 12 * sequence).max(1);
    let thousandths = |cost: u128| u64::try_from((1000 * cost + layer / 2) / layer).unwrap_or(u64::MAX / 4);
    Partitioning::Balanced { input: thousandths(3), output: thousandths(6 * vocab) }
}
