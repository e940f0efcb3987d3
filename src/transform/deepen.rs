//! One rank's order -> the same order with its backward side moved back.

use std::collections::BTreeSet;

use super::sides::Sides;
use crate::ir::{KindId, Pass, Placed};

/// Moves every pass of the backward side behind `by` more passes of the forward side; where fewer are left, behind all of them.
///
/// Both sides keep their own order, so that only the distance between them, the number of microbatches (or slices) in flight, changes. A
/// pass of the backward side that ran overlapped with one of the forward side then does so with its new neighbour of the same kind, if any.
pub(super) fn deepen(order: &[Placed], sides: &Sides, by: usize) -> Vec<Placed> {
    if by == 0 {
        return order.to_vec();
    }
    let is_backward = |placed: &Placed| sides.is_backward(placed.pass.kind);
    let mut forward = order.iter().filter(|placed| !is_backward(placed)).copied();
    let mut moved = Vec::with_capacity(order.len());
    let mut wishes = Vec::new();
    let (mut before, mut taken) = (0, 0);
    for (index, placed) in order.iter().enumerate() {
        if is_backward(placed) {
            while taken < before + by
                && let Some(next) = forward.next()
            {
                moved.push(next);
                taken += 1;
            }
            wishes.extend(wish(order, index, moved.len()));
            moved.push(*placed);
        } else {
            before += 1;
        }
    }
    moved.extend(forward);
    pair_again(order, &mut moved, &wishes);
    moved
}

/// A pass that ran overlapped, by its position in the new order, and whose neighbour it wants.
struct Wish {
    at: usize,
    kind: KindId,
    /// Whether it comes first in the pair.
    leads: bool,
}

fn wish(order: &[Placed], index: usize, at: usize) -> Option<Wish> {
    if order[index].overlaps {
        return order.get(index + 1).map(|next| Wish { at, kind: next.pass.kind, leads: true });
    }
    let first = order[..index].last().filter(|first| first.overlaps)?;
    Some(Wish { at, kind: first.pass.kind, leads: false })
}

/// Marks the pairs of the new order: those that stayed together, and new neighbours of different microbatches.
fn pair_again(order: &[Placed], moved: &mut [Placed], wishes: &[Wish]) {
    let pairs = order.windows(2).filter(|pair| pair[0].overlaps).map(|pair| (pair[0].pass, pair[1].pass));
    let pairs: BTreeSet<(Pass, Pass)> = pairs.collect();
    let mut taken = vec![false; moved.len()];
    for first in 0..moved.len() {
        if moved[first].overlaps {
            let stays =
                moved.get(first + 1).is_some_and(|second| pairs.contains(&(moved[first].pass, second.pass)));
            moved[first].overlaps = stays;
            if stays {
                taken[first] = true;
                taken[first + 1] = true;
            }
        }
    }
    for wish in wishes {
        let first = if wish.leads { Some(wish.at) } else { wish.at.checked_sub(1) };
        let Some(first) = first.filter(|&first| first + 1 < moved.len()) else { continue };
        let other = if wish.leads { first + 1 } else { first };
        let suits = moved[other].pass.kind == wish.kind
            && moved[other].pass.microbatch != moved[wish.at].pass.microbatch;
        if suits && !taken[first] && !taken[first + 1] {
            moved[first].overlaps = true;
            taken[first] = true;
            taken[first + 1] = true;
        }
    }
}
