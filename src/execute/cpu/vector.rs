//! Loops compiled for the vector units that the machine has, and the functions that such loops call.
//!
//! What is called in a vectorised loop must be inlined into it, or it would be compiled for the oldest machine.
#![allow(clippy::inline_always, reason = "a function that is not inlined loses the loop's instruction set")]

/// Accumulators of a reduction: enough to hide the latency of an addition.
const LANES: usize = 32;

/// Makes a closure that consumes it callable once only. A closure that could be called again is called once through a shim, which
/// is not inlined.
pub(super) struct Once;

/// Runs a closure with the machine's vector instructions: `vectorised!(|| ...)`. A macro, because the closure must be inlined into
/// the function that has those instructions.
macro_rules! vectorised {
    (|| $body:expr) => {{
        let once = crate::execute::cpu::vector::Once;
        pulp::Arch::new().dispatch(
            #[inline(always)]
            || {
                let _consumed = once;
                $body
            },
        )
    }};
}
pub(super) use vectorised;

/// e^x, within 2 units in the last place where the result is a normal number; at least 1.1e-38. NaN stays NaN.
///
/// Cody and Waite's reduction to |r| <= ln 2 / 2 and the polynomial of Cephes' `expf`.
#[inline(always)]
pub(super) fn exp(x: f32) -> f32 {
    const LOWEST: f32 = -87.336_54;
    const HIGHEST: f32 = 88.376_26;
    // Adding it leaves the nearest integer in the low bits.
    const ROUNDER: f32 = 12_582_912.0;
    const LN2_HIGH: f32 = 0.693_359_4;
    const LN2_LOW: f32 = -2.121_944_4e-4;
    let x = if x < LOWEST { LOWEST } else { x };
    let x = if x > HIGHEST { HIGHEST } else { x };
    let shifted = x.mul_add(std::f32::consts::LOG2_E, ROUNDER);
    let power = shifted - ROUNDER;
    let r = power.mul_add(-LN2_LOW, power.mul_add(-LN2_HIGH, x));
    let mut polynomial = 1.987_569_1e-4_f32;
    for coefficient in [1.398_199_9e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 0.5] {
        polynomial = polynomial.mul_add(r, coefficient);
    }
    let fraction = polynomial.mul_add(r * r, r) + 1.0;
    let scale = f32::from_bits((shifted.to_bits() << 23).wrapping_add(1.0_f32.to_bits()));
    fraction * scale
}

/// 1 / (1 + e^-x).
#[inline(always)]
pub(super) fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp(-x))
}

/// The sum of a row.
#[inline(always)]
pub(super) fn sum(row: &[f32]) -> f32 {
    let (blocks, rest) = row.as_chunks::<LANES>();
    let mut lanes = [0.0; LANES];
    for block in blocks {
        for (lane, value) in lanes.iter_mut().zip(block) {
            *lane += value;
        }
    }
    fold(lanes, |a, b| a + b) + rest.iter().sum::<f32>()
}

/// The scalar product of two rows.
#[inline(always)]
pub(super) fn dot(left: &[f32], right: &[f32]) -> f32 {
    let (left, left_rest) = left.as_chunks::<LANES>();
    let (right, right_rest) = right.as_chunks::<LANES>();
    let mut lanes = [0.0_f32; LANES];
    for (left, right) in left.iter().zip(right) {
        for lane in 0..LANES {
            lanes[lane] = left[lane].mul_add(right[lane], lanes[lane]);
        }
    }
    let rest: f32 = left_rest.iter().zip(right_rest).map(|(left, right)| left * right).sum();
    fold(lanes, |a, b| a + b) + rest
}

/// The largest value of a row; negative infinity for an empty one.
#[inline(always)]
pub(super) fn max(row: &[f32]) -> f32 {
    let larger = |a: f32, b: f32| if a < b { b } else { a };
    let (blocks, rest) = row.as_chunks::<LANES>();
    let mut lanes = [f32::NEG_INFINITY; LANES];
    for block in blocks {
        for (lane, &value) in lanes.iter_mut().zip(block) {
            *lane = larger(*lane, value);
        }
    }
    rest.iter().fold(fold(lanes, larger), |most, &value| larger(most, value))
}

/// Replaces a row by e^((row - shift) * factor) and returns its sum.
#[inline(always)]
pub(super) fn exponentiate(row: &mut [f32], shift: f32, factor: f32) -> f32 {
    // Block by block, so that the sum finds its values in the nearest cache.
    let mut total = 0.0;
    for block in row.chunks_mut(1024) {
        for value in block.iter_mut() {
            *value = exp((*value - shift) * factor);
        }
        total += sum(block);
    }
    total
}

/// `row += other`.
#[inline(always)]
pub(super) fn add(row: &mut [f32], other: &[f32]) {
    for (value, other) in row.iter_mut().zip(other) {
        *value += other;
    }
}

/// `row += factor * other`.
#[inline(always)]
pub(super) fn add_scaled(row: &mut [f32], factor: f32, other: &[f32]) {
    for (value, other) in row.iter_mut().zip(other) {
        *value = factor.mul_add(*other, *value);
    }
}

/// `row *= factor`.
#[inline(always)]
pub(super) fn scale(row: &mut [f32], factor: f32) {
    for value in row {
        *value *= factor;
    }
}

/// Folds the lanes, halves onto halves.
#[inline(always)]
fn fold(mut lanes: [f32; LANES], combine: impl Fn(f32, f32) -> f32) -> f32 {
    let mut width = LANES;
    while width > 1 {
        width /= 2;
        for lane in 0..width {
            lanes[lane] = combine(lanes[lane], lanes[lane + width]);
        }
    }
    lanes[0]
}

#[cfg(test)]
mod tests {
    use super::{dot, exp, exponentiate, max, sigmoid, sum};

    /// Distance in units of the last place of the exact value.
    fn ulps(found: f32, exact: f64) -> f64 {
        let unit = f64::from(f32::from_bits((exact as f32).to_bits() + 1)) - f64::from(exact as f32);
        (f64::from(found) - exact).abs() / unit
    }

    #[test]
    fn exp_is_within_two_units_of_the_last_place() {
        let points: Vec<f32> = (-87_000..88_000).map(|i| i as f32 / 1000.0 + 1.3e-4).collect();
        let found: Vec<f32> = vectorised!(|| points.iter().map(|&x| exp(x)).collect());
        for (&x, &found) in points.iter().zip(&found) {
            let off = ulps(found, f64::from(x).exp());
            assert!(off <= 2.0, "exp({x}) = {found} is {off} units off");
        }
    }

    #[test]
    fn exp_saturates_and_keeps_nan() {
        assert!(exp(f32::NAN).is_nan());
        assert!(exp(f32::NEG_INFINITY) < 1.2e-38);
        assert!(exp(1e9) > 2.3e38 && exp(1e9).is_finite());
    }

    #[test]
    fn sigmoid_is_within_three_units_of_the_last_place() {
        for i in -8000..8000_i16 {
            let x = f32::from(i) / 400.0;
            let off = ulps(sigmoid(x), 1.0 / (1.0 + f64::from(-x).exp()));
            assert!(off <= 3.0, "sigmoid({x}) is {off} units off");
        }
    }

    #[test]
    fn reductions_of_any_length_agree_with_plain_loops() {
        for length in [0, 1, 31, 32, 33, 100, 2050] {
            let row: Vec<f32> = (0..length).map(|i| ((i * 37 % 101) as f32) / 50.0 - 1.0).collect();
            let exact: f64 = row.iter().map(|&x| f64::from(x)).sum();
            assert!((f64::from(sum(&row)) - exact).abs() < 1e-3);
            let exact: f64 = row.iter().map(|&x| f64::from(x).powi(2)).sum();
            assert!((f64::from(dot(&row, &row)) - exact).abs() < 1e-3);
            let most = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            assert!(max(&row).total_cmp(&most).is_eq());
            let exact: f64 = row.iter().map(|&x| f64::from(x - most).exp()).sum();
            assert!((f64::from(exponentiate(&mut row.clone(), most, 1.0)) - exact).abs() < 1e-3);
        }
    }
}
