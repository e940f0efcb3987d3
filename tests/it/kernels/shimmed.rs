//! The stand-in for a device: what it must run, and what it must refuse.

use schedc::kernels::{Kernel, Launch, Stored};

use super::host::{Host, compiler, driver};
use super::{Arg, Buffer};

const KERNELS: [&str; 5] = ["half_a_barrier", "half_a_warp", "torn_warp", "no_barrier", "with_barrier"];

#[test]
fn the_shim_refuses_barriers_that_not_all_threads_reach_and_shows_races() {
    let Some(compiler) = compiler() else { return };
    let text = driver(std::iter::once("broken.cu"), KERNELS.into_iter());
    let host = Host::of(compiler, Stored::F32, 8, &text);
    let launch = Launch { kernel: Kernel::LayerNormForward, grid: [1, 1, 1], block: [64, 1, 1], shared: 256 };
    let run = |name: &str, descending: bool| {
        let out = Buffer::f32(&[0.0; 64]);
        host.once(name, launch, &[Arg::To(&out)], descending).map(|()| out.values())
    };
    let refused = |name: &str| [false, true].map(|descending| run(name, descending).unwrap_err());
    assert_eq!(refused("half_a_barrier"), ["not all threads of a block reach a barrier"; 2]);
    assert_eq!(refused("half_a_warp"), ["not all lanes of a warp reach a warp function"; 2]);
    assert_eq!(refused("torn_warp"), ["the lanes of a warp call different warp functions"; 2]);
    let [ascending, descending] = [false, true].map(|descending| run("no_barrier", descending).unwrap());
    assert!(ascending[0].is_nan() && descending[63].is_nan(), "shared memory starts as NaN");
    assert!(descending[0].to_bits() != ascending[0].to_bits(), "a race shows in the other order");
    for descending in [false, true] {
        let found = run("with_barrier", descending).unwrap();
        let expected = (0..64_u8).map(|i| f32::from((i + 1) % 64) + f32::from(i / 32 * 32 + 3));
        assert!(found.into_iter().zip(expected).all(|(found, expected)| found.total_cmp(&expected).is_eq()));
    }
}
