//! One rank's circle of circumference T: what is placed on it, and whether the rest still finds room.

/// Steps after which a packing is taken for possible without being looked at to its end.
const PATIENCE: u32 = 4000;
/// Sums of passes that are tried as distances from the edge of a gap.
const DISTANCES: usize = 64;

/// What is placed, and what is not.
#[derive(Clone, Debug)]
pub(super) struct Circle {
    every: i64,
    /// Where passes start on the circle, and how long they take; ascending.
    placed: Vec<(i64, i64)>,
    /// Passes without a place: how long, and how many. Each length once, descending.
    left: Vec<(i64, u32)>,
}

impl Circle {
    /// An empty circle, and the durations of all its passes.
    pub(super) fn new(every: i64, mut durations: Vec<i64>) -> Self {
        durations.sort_unstable_by(|left, right| right.cmp(left));
        let mut left: Vec<(i64, u32)> = Vec::new();
        for duration in durations {
            match left.last_mut().filter(|(length, _)| *length == duration) {
                Some((_, count)) => *count += 1,
                None => left.push((duration, 1)),
            }
        }
        Self { every, placed: Vec::new(), left }
    }

    /// The earliest starts from `ready` on for a pass, each with the circle after it.
    pub(super) fn places(&self, ready: i64, duration: i64, most: usize) -> Vec<(i64, Self)> {
        let mut rest = self.left.clone();
        if let Some((_, count)) = rest.iter_mut().find(|(length, _)| *length == duration) {
            *count -= 1;
        }
        let mut starts = self.starts(ready, duration, &rest);
        starts.sort_unstable();
        starts.dedup();
        let mut places = Vec::with_capacity(most);
        for at in starts {
            let phase = at.rem_euclid(self.every);
            let mut circle = Self { left: rest.clone(), ..self.clone() };
            let position = circle.placed.partition_point(|&(other, _)| other < phase);
            circle.placed.insert(position, (phase, duration));
            if circle.holds_the_rest() {
                places.push((at, circle));
                if places.len() == most {
                    break;
                }
            }
        }
        places
    }

    /// Starts worth a try: at once, and where the gap before or behind could be filled to its edge.
    fn starts(&self, ready: i64, duration: i64, rest: &[(i64, u32)]) -> Vec<i64> {
        if self.placed.is_empty() {
            return vec![ready];
        }
        let distances = distances(rest);
        let mut starts = Vec::new();
        for (edge, length) in self.gaps() {
            let slack = length - duration;
            if slack < 0 {
                continue;
            }
            let next = |phase: i64| ready + (phase - ready).rem_euclid(self.every);
            if (ready - edge).rem_euclid(self.every) <= slack {
                starts.push(ready);
            }
            for distance in distances.iter().copied().take_while(|&distance| distance <= slack) {
                starts.push(next(edge + distance));
                starts.push(next(edge + slack - distance));
            }
        }
        starts
    }

    /// Where nothing is placed: where it begins, and how long it is.
    fn gaps(&self) -> impl Iterator<Item = (i64, i64)> + '_ {
        let count = self.placed.len();
        (0..count).filter_map(move |at| {
            let (start, duration) = self.placed[at];
            let next = if at + 1 < count { self.placed[at + 1].0 } else { self.placed[0].0 + self.every };
            let edge = start + duration;
            (next > edge).then_some((edge, next - edge))
        })
    }

    /// Whether what has no place still fits into the gaps, none of it cut.
    fn holds_the_rest(&self) -> bool {
        let mut gaps: Vec<i64> = self.gaps().map(|(_, length)| length).collect();
        gaps.sort_unstable();
        let mut left = self.left.clone();
        left.retain(|&(duration, count)| duration > 0 && count > 0);
        let needed: i64 = left.iter().map(|&(duration, count)| duration * i64::from(count)).sum();
        let mut patience = PATIENCE;
        pack(&gaps, gaps.iter().sum::<i64>() - needed, &mut left, &mut patience)
    }
}

/// Fills the first gap in every way that wastes no more than `spare`, then the others.
fn pack(gaps: &[i64], spare: i64, left: &mut [(i64, u32)], patience: &mut u32) -> bool {
    if spare < 0 {
        return false;
    }
    let Some((&gap, others)) = gaps.split_first() else { return left.iter().all(|&(_, count)| count == 0) };
    fill(gap, 0, others, spare, left, patience)
}

/// Puts passes of the lengths from `length` on into what is left of a gap.
fn fill(
    gap: i64,
    length: usize,
    others: &[i64],
    spare: i64,
    left: &mut [(i64, u32)],
    patience: &mut u32,
) -> bool {
    let Some(steps) = patience.checked_sub(1) else { return true };
    *patience = steps;
    let Some(&(duration, count)) = left.get(length) else { return pack(others, spare - gap, left, patience) };
    let most = u32::try_from(gap / duration).unwrap_or(u32::MAX).min(count);
    for taken in (0..=most).rev() {
        left[length].1 = count - taken;
        let rest = gap - i64::from(taken) * duration;
        if fill(rest, length + 1, others, spare, left, patience) {
            left[length].1 = count;
            return true;
        }
    }
    left[length].1 = count;
    false
}

/// The sums of some of the passes without a place, ascending; the smallest of many.
fn distances(left: &[(i64, u32)]) -> Vec<i64> {
    let mut sums = vec![0];
    for &(duration, count) in left {
        let before = sums.clone();
        for times in 1..=i64::from(count) {
            sums.extend(before.iter().map(|sum| sum + times * duration));
        }
        sums.sort_unstable();
        sums.dedup();
        sums.truncate(DISTANCES);
    }
    sums
}
