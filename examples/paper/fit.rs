//! The four constants that are fitted, and how: least squares of the relative errors over the rows at hand, one constant after the other.

use schedc::cost::Rates;

use super::predict::{Cell, cell, each, plan};
use super::published::published;
use super::settings::Case;

/// A constant that may be fitted.
struct Constant {
    name: &'static str,
    of: fn(&mut Rates) -> &mut f64,
    step: f64,
}

/// What RoCE brings, each way.
fn between(rates: &mut Rates) -> &mut f64 {
    &mut rates.topology.as_mut().expect("the paper's machines are four nodes").between.bandwidth
}

/// One gigabyte.
const GB: f64 = 1e9;
/// One gibibyte.
const GIB: f64 = 1_073_741_824.0;

const CONSTANTS: [Constant; 4] = [
    Constant { name: "efficiency.linear", of: |rates| &mut rates.device.efficiency.linear, step: 0.04 },
    Constant { name: "efficiency.attention", of: |rates| &mut rates.device.efficiency.attention, step: 0.04 },
    Constant { name: "between.bandwidth", of: between, step: 5.0 * GB },
    Constant { name: "reserved", of: |rates| &mut rates.device.reserved, step: 0.2 * GIB },
];

/// The constants and their values.
pub(crate) fn values(rates: &Rates) -> Vec<(&'static str, f64)> {
    let mut rates = rates.clone();
    CONSTANTS.iter().map(|constant| (constant.name, *(constant.of)(&mut rates))).collect()
}

/// The machines with the constants that come nearest to the published figures.
pub(crate) fn fit(mut rates: Rates) -> Rates {
    let cases: Vec<Case> = Case::all().into_iter().filter(|case| published(case).is_some()).collect();
    let plans = each(&cases, |case| plan(case, &rates));
    let wanted: Vec<Cell> = cases.iter().filter_map(published).collect();
    let pairs: Vec<_> = plans.iter().zip(wanted).collect();
    let error = |rates: &Rates| {
        let of = each(&pairs, |(plan, wanted)| {
            let got = cell(plan, rates);
            (got.mfu / wanted.mfu).ln().powi(2) + (got.gb / wanted.gb).ln().powi(2)
        });
        of.iter().sum::<f64>()
    };
    let mut best = error(&rates);
    let mut steps = CONSTANTS.each_ref().map(|constant| constant.step);
    for _ in 0..6 {
        for (constant, step) in CONSTANTS.iter().zip(&mut steps) {
            for way in [1.0, -1.0] {
                loop {
                    let mut other = rates.clone();
                    let value = (constant.of)(&mut other);
                    *value = (*value + way * *step).max(0.0);
                    let most = if constant.step < 1.0 { 1.0 } else { 100.0 * GIB };
                    if *value > most || *value <= 0.0 {
                        break;
                    }
                    let found = error(&other);
                    if found >= best {
                        break;
                    }
                    (best, rates) = (found, other);
                }
            }
            *step /= 2.0;
        }
    }
    rates
}
