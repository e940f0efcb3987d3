//! Plans to try things on: those in `tests/plans`, written without the compiler, and the library's, compiled.

use schedc::import::read_plan;
use schedc::ir::{Dims, Plan, Precision};

use crate::compiled::{SCHEDULES, TRANSFORMS, forward_only, library, library_set, tiny};

/// Every schedule of the library under every transform, with its name.
pub(crate) fn compiled() -> impl Iterator<Item = (String, Plan)> {
    let shapes = [(2, 3, true), (4, 4, false)];
    let finer = library_set("seq1f1b", &[("s".to_owned(), 4)], Some("vocab-2"), 2, 2, tiny(2, true));
    let finer = [("seq1f1b with four slices".to_owned(), finer.into_plan())];
    let packed = Dims { precision: Precision::Bf16, ..tiny(2, true) };
    let packed = library("seq1f1b", Some("vocab-1"), 2, 2, packed).into_plan();
    let finer = finer.into_iter().chain([("seq1f1b in bf16".to_owned(), packed)]);
    finer.chain(SCHEDULES.into_iter().flat_map(move |schedule| {
        TRANSFORMS.into_iter().flat_map(move |with| {
            shapes.into_iter().map(move |(ranks, microbatches, tied)| {
                let plan = library(schedule, with, ranks, microbatches, tiny(2 * ranks, tied)).into_plan();
                (format!("{schedule} with {with:?} at p={ranks}, m={microbatches}"), plan)
            })
        })
    }))
}

/// The forward-only twin of every schedule of the library under every transform, with its name.
pub(crate) fn forward_only_twins() -> impl Iterator<Item = (String, Plan)> {
    SCHEDULES.into_iter().flat_map(move |schedule| {
        TRANSFORMS.into_iter().map(move |with| {
            let plan = forward_only(schedule, with, 3, 4, tiny(6, true)).into_plan();
            (format!("{schedule} with {with:?}, forward only"), plan)
        })
    })
}

/// Every plan that was written without the compiler, with its name.
pub(crate) fn plans() -> Vec<(String, Plan)> {
    let mut plans: Vec<_> = std::fs::read_dir("tests/plans")
        .unwrap()
        .map(|entry| {
            let path = entry.unwrap().path();
            let name = path.file_stem().unwrap().to_string_lossy().into_owned();
            let (plan, _) =
                read_plan(&name, &std::fs::read(&path).unwrap()).map_err(miette::Report::new).unwrap();
            (name, plan)
        })
        .collect();
    plans.sort_by(|(one, _), (other, _)| one.cmp(other));
    plans
}
