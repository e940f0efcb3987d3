//! Plans of the library's schedules, through the driver.

use schedc::cost::UNIT;
use schedc::driver::{Input, Job, compile};
use schedc::ir::{Dims, Mode, Precision};
use schedc::resolve::{Model, Partitioning};
use schedc::source::Sources;
use schedc::verify::Verified;

/// Every schedule of the library.
pub(crate) const SCHEDULES: [&str; 17] = [
    "gpipe",
    "1f1b",
    "eager-1f1b",
    "interleaved",
    "looped-bfs",
    "seq1f1b",
    "zb-h1",
    "zb-h2",
    "interleaved-zb",
    "zb-v",
    "hanayo",
    "v-half",
    "v-min",
    "1f1b-v",
    "chimera",
    "dualpipe",
    "dualpipe-v",
];

/// No transform, and every transform of the library.
pub(crate) const TRANSFORMS: [Option<&str>; 4] = [None, Some("vocab-1"), Some("vocab-2"), Some("interlaced")];

/// A model that takes milliseconds; as many layers as it is asked for.
pub(crate) fn tiny(layers: u32, tied: bool) -> Dims {
    Dims { layers, hidden: 8, heads: 2, sequence: 4, batch: 2, vocab: 256, tied, precision: Precision::F32 }
}

/// A schedule of the library, compiled and verified.
pub(crate) fn library(
    schedule: &str,
    with: Option<&str>,
    ranks: u32,
    microbatches: u32,
    model: Dims,
) -> Verified {
    library_set(schedule, &[], with, ranks, microbatches, model)
}

/// The forward-only twin of one.
pub(crate) fn forward_only(
    schedule: &str,
    with: Option<&str>,
    ranks: u32,
    microbatches: u32,
    model: Dims,
) -> Verified {
    in_mode(Mode::ForwardOnly, schedule, &[], with, ranks, microbatches, model)
}

/// A schedule with values for its parameters.
pub(crate) fn library_set(
    schedule: &str,
    set: &[(String, i64)],
    with: Option<&str>,
    ranks: u32,
    microbatches: u32,
    model: Dims,
) -> Verified {
    in_mode(Mode::Training, schedule, set, with, ranks, microbatches, model)
}

fn in_mode(
    mode: Mode,
    schedule: &str,
    set: &[(String, i64)],
    with: Option<&str>,
    ranks: u32,
    microbatches: u32,
    model: Dims,
) -> Verified {
    let with: Vec<String> = with.iter().map(ToString::to_string).collect();
    let model = Model { layers: Some(model.layers), dims: model, partition: Partitioning::Uniform };
    let job = Job {
        input: Input::Library(schedule),
        with: &with,
        set,
        ranks,
        microbatches,
        model,
        costs: &UNIT,
        retime: None,
        mode,
    };
    compile(&job, &mut Sources::default()).unwrap_or_else(|errors| {
        panic!(
            "{schedule} with {with:?} at p={ranks}, m={microbatches}: {:?}",
            miette::Report::new(errors.into_iter().next().unwrap())
        )
    })
}

/// 1F1B.
pub(crate) fn one_f_one_b(ranks: u32, microbatches: u32, model: Dims) -> Verified {
    library("1f1b", None, ranks, microbatches, model)
}
