//! The CUDA kernels without a device: compiled for the host and held against the CPU backend, on fresh random inputs of odd sizes.
#![allow(unsafe_code, reason = "kernels are called through a C interface")]
#![allow(clippy::cast_possible_wrap, clippy::cast_precision_loss, reason = "sizes of tests are small")]

mod attention;
mod device;
mod elementwise;
mod embedding;
pub(crate) mod host;
mod hub;
mod norm;
mod ranks;
mod resume;
mod run;
mod shimmed;
mod vocabulary;

use std::hash::{BuildHasher as _, Hasher as _, RandomState};

use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use schedc::kernels::Stored;

use host::{Arg, Buffer, hosts, rounded};

/// Random numbers that are other ones in every run; the seed is printed where a test fails, and `SCHEDC_SEED` repeats it.
struct Draws(ChaCha8Rng);

impl Draws {
    #[allow(clippy::print_stdout, reason = "the seed repeats a failure")]
    fn new() -> Self {
        let said = std::env::var("SCHEDC_SEED").ok().and_then(|seed| seed.parse().ok());
        let seed = said.unwrap_or_else(|| RandomState::new().build_hasher().finish());
        println!("seed {seed}");
        Self(ChaCha8Rng::seed_from_u64(seed))
    }

    /// Numbers between -`most` and `most`, as the stored type holds them.
    fn numbers(&mut self, stored: Stored, count: usize, most: f32) -> Vec<f32> {
        let values: Vec<f32> = (0..count).map(|_| self.0.random_range(-most..most)).collect();
        rounded(stored, &values)
    }

    /// Ids below a bound.
    fn ids(&mut self, count: usize, bound: u32) -> Vec<u32> {
        (0..count).map(|_| self.0.random_range(0..bound)).collect()
    }
}

/// Numbers are those expected, up to `part` of the largest of them, and up to the rounding of the stored type.
#[track_caller]
fn close(what: &str, stored: Stored, found: &[f32], expected: &[f32], part: f32) {
    assert_eq!(found.len(), expected.len(), "{what}");
    let largest = expected
        .iter()
        .filter(|value| value.is_finite())
        .fold(1e-30_f32, |most, value| most.max(value.abs()));
    let grain = if stored == Stored::Bf16 { 1.0 / 128.0 } else { 1e-5 };
    for (i, (found, expected)) in found.iter().zip(expected).enumerate() {
        let off = (found - expected).abs();
        let fine = found.to_bits() == expected.to_bits() || off <= part * largest + grain * expected.abs();
        assert!(fine, "{what}: element {i} is {found}, not {expected} (the largest is {largest})");
    }
}
