//! A case -> its plan -> utilisation and memory.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use schedc::cost::{CostSpec, Rates};
use schedc::driver::{Input, Job, compile};
use schedc::ir::Mode;
use schedc::resolve::Model;
use schedc::simulate::simulate;
use schedc::source::Sources;
use schedc::verify::Verified;

use super::settings::{Case, MICROBATCHES};

/// Model FLOPs utilisation in percent, and the peak of the rank that has most in GiB, which the paper calls GB.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Cell {
    pub(crate) mfu: f64,
    pub(crate) gb: f64,
}

/// Compiles a case for its machines.
pub(crate) fn plan(case: &Case, rates: &Rates) -> Verified {
    let costs = CostSpec::default().with_rates(rates.clone());
    let with: Vec<String> = case.method.transform().map(str::to_owned).into_iter().collect();
    let dims = case.dims();
    let job = Job {
        input: Input::Library(case.schedule()),
        with: &with,
        set: &[],
        ranks: case.setting.ranks,
        microbatches: MICROBATCHES,
        model: Model { layers: Some(dims.layers), dims, partition: case.partition() },
        costs: &costs,
        retime: None,
        mode: Mode::Training,
    };
    compile(&job, &mut Sources::default()).unwrap_or_else(|errors| {
        panic!("{case:?}: {}", errors.first().map(ToString::to_string).unwrap_or_default())
    })
}

/// What a plan comes to.
#[allow(clippy::cast_precision_loss, reason = "shown with four digits")]
pub(crate) fn cell(plan: &Verified, rates: &Rates) -> Cell {
    let costs = CostSpec::default().with_rates(rates.clone());
    let bound = costs.bind_plan(&plan.header).expect("the machines have what the plans need");
    let time = bound.in_units(simulate(plan, &bound).makespan());
    let mfu = rates.mfu(&plan.header, time).expect("a step takes time");
    Cell { mfu: 100.0 * mfu, gb: rates.most_bytes(plan) as f64 / f64::from(1 << 30) }
}

/// Does something for every one of a list, on all cores.
pub(crate) fn each<T: Sync, R: Send>(items: &[T], work: impl Fn(&T) -> R + Sync) -> Vec<R> {
    let next = AtomicUsize::new(0);
    let done: Mutex<Vec<(usize, R)>> = Mutex::new(Vec::new());
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    let Some(item) = items.get(at) else { break };
                    let result = work(item);
                    done.lock().expect("no worker has panicked").push((at, result));
                }
            });
        }
    });
    let mut done = done.into_inner().expect("no worker has panicked");
    done.sort_by_key(|(at, _)| *at);
    done.into_iter().map(|(_, result)| result).collect()
}
