//! One rank's order -> the same order with its backward side moved back.

use super::sides::Sides;
use crate::ir::Placed;

/// Moves every pass of the backward side behind `by` more passes of the forward side; where fewer are left, behind all of them.
///
/// Both sides keep their own order, so that only the distance between them, the number of microbatches (or slices) in flight, changes.
pub(super) fn deepen(order: &[Placed], sides: &Sides, by: usize) -> Vec<Placed> {
    if by == 0 {
        return order.to_vec();
    }
    let is_backward = |placed: &&Placed| sides.is_backward(placed.pass.kind);
    let mut forward = order.iter().filter(|placed| !is_backward(placed)).copied();
    let mut moved = Vec::with_capacity(order.len());
    let (mut before, mut taken) = (0, 0);
    for placed in order {
        if is_backward(&placed) {
            while taken < before + by
                && let Some(next) = forward.next()
            {
                moved.push(next);
                taken += 1;
            }
            moved.push(*placed);
        } else {
            before += 1;
        }
    }
    moved.extend(forward);
    moved
}
