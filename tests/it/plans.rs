//! Plans to try things on: those in `tests/plans`, written without the compiler.

use schedc::import::read_plan;
use schedc::ir::Plan;

/// Every plan with its name.
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
