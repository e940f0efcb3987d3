//! When ranks run passes -> how much slower each is for the others: ranks on one machine share its cores, caches and memory.
//!
//! One number says how much: beside n - 1 others a rank goes on at a rate of `1 / (1 + c (n - 1))`, so that all together do at most `1 / c`
//! times what one does. 0: they do not feel each other, as on devices of their own. 1: they share what one could use alone.

/// How many ranks are at work over time.
#[derive(Clone, Debug)]
pub struct Load {
    /// Where the number changes.
    moments: Vec<f64>,
    /// From each moment to the next; at most as many as there are ranks.
    busy: Vec<u32>,
}

/// How much of what a rank would do alone it has done by each moment at which the load changes.
#[derive(Clone, Debug)]
pub struct Progress<'a> {
    load: &'a Load,
    rates: Vec<f64>,
    done: Vec<f64>,
}

impl Load {
    /// The load of passes, each from its start to its end, on so many ranks.
    #[must_use]
    pub fn of(passes: impl Iterator<Item = (f64, f64)>, ranks: u32) -> Self {
        let ends = passes.filter(|(from, to)| from < to).flat_map(|(from, to)| [(from, 1_i64), (to, -1)]);
        let mut ends: Vec<(f64, i64)> = ends.collect();
        ends.sort_unstable_by(|left, right| left.0.total_cmp(&right.0));
        let (mut moments, mut busy): (Vec<f64>, Vec<u32>) = (Vec::new(), Vec::new());
        let mut count = 0;
        for (moment, change) in ends {
            count += change;
            if moments.last() != Some(&moment) {
                moments.push(moment);
                busy.push(0);
            }
            if let Some(last) = busy.last_mut() {
                *last = u32::try_from(count).unwrap_or(0).min(ranks);
            }
        }
        Self { moments, busy }
    }

    /// What ranks get done under it.
    #[must_use]
    pub fn progress(&self, contention: f64) -> Progress<'_> {
        let rate = |&busy: &u32| 1.0 / (1.0 + contention * f64::from(busy.saturating_sub(1)));
        let rates: Vec<f64> = self.busy.iter().map(rate).collect();
        let mut done = Vec::with_capacity(rates.len());
        let mut sum = 0.0;
        for (at, rate) in rates.iter().enumerate() {
            done.push(sum);
            let next = self.moments.get(at + 1).copied().unwrap_or(self.moments[at]);
            sum += (next - self.moments[at]) * rate;
        }
        Progress { load: self, rates, done }
    }
}

impl Progress<'_> {
    /// What a rank gets done from one moment to another: how long it would take alone.
    #[must_use]
    pub fn between(&self, from: f64, to: f64) -> f64 {
        self.until(to) - self.until(from)
    }

    fn until(&self, moment: f64) -> f64 {
        let at = self.load.moments.partition_point(|&known| known <= moment);
        let Some(at) = at.checked_sub(1) else { return moment - self.load.moments.first().unwrap_or(&0.0) };
        self.done[at] + (moment - self.load.moments[at]) * self.rates[at]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_ranks_that_share_all_take_twice_as_long() {
        let load = Load::of([(0.0, 10.0), (4.0, 8.0)].into_iter(), 2);
        let close = |left: f64, right: f64| assert!((left - right).abs() < 1e-12, "{left} {right}");
        close(load.progress(0.0).between(0.0, 10.0), 10.0);
        close(load.progress(1.0).between(0.0, 10.0), 8.0);
        close(load.progress(1.0).between(4.0, 8.0), 2.0);
        close(load.progress(0.5).between(5.0, 9.0), 3.0);
    }
}
