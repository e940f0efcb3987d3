//! A device for each rank: what moves between them, in one order on all, gives the bits of one device; what ends one ends all.

use std::net::TcpListener;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use schedc::cuda::run::{Executor, Kept, RunError, Scope, Way, train_on};
use schedc::cuda::{CudaError, Device as _};
use schedc::execute::ExecuteError;
use schedc::execute::interpreter::Finish;
use schedc::execute::model::Train;
use schedc::execute::train::Settings;
use schedc::execute::watchdog::{Limits, Report};
use schedc::ir::{Dims, Precision};
use schedc::launch::{Place, Secret};
use schedc::verify::Verified;

use super::device::HostDevice;
use super::host::Host;
use super::hub::Hub;
use super::run::{Losses, bits, host, packed, settings, small};
use crate::compiled::{SCHEDULES, TRANSFORMS, library};
use crate::execute::batches;

/// How the devices of a run are.
#[derive(Clone, Copy, Debug, Default)]
struct Manner {
    serial: bool,
    graph: bool,
}

/// The loss and the gradients of one step, with all ranks on one device.
fn together(host: &'static Host, plan: &Verified) -> (f64, Vec<u32>) {
    let mut executor = Executor::new(plan, &Train::default(), HostDevice::new(host, 1)).unwrap();
    let data = batches(&plan.header.model, plan.header.microbatches);
    let loss = executor.step(&data, Finish::Keep).unwrap().unwrap();
    (loss, bits(&executor.kept().unwrap()))
}

/// The same with each rank on a device of its own, and a thread that runs it.
fn apart(host: &'static Host, plan: &Verified, seed: u64, manner: Manner) -> (f64, Vec<u32>) {
    let (hub, ranks) = (Hub::new(), plan.ranks.len());
    let make = |rank: usize| {
        let mut device = HostDevice::on(&hub, host, seed + rank as u64);
        device.serial = manner.serial;
        Executor::part(plan, &Train::default(), device, Scope::of(plan, rank..rank + 1)).unwrap()
    };
    let mut executors: Vec<_> = (0..ranks).map(make).collect();
    let meetings: Vec<_> = executors.iter_mut().map(|executor| executor.meetings().unwrap()).collect();
    let data = &batches(&plan.header.model, plan.header.microbatches);
    let work = |mut executor: Executor<HostDevice>| {
        let mut left: Vec<_> = meetings.iter().map(|of| of.iter().copied()).collect();
        executor.join(|rank| left[rank.index()].next(), Duration::from_mins(1)).unwrap();
        assert!(left.iter_mut().all(|left| left.next().is_none()), "every meeting is of a channel");
        if manner.graph {
            executor.capture().unwrap();
        }
        executor.step(data, Finish::Keep).unwrap();
        executor.device().finish().unwrap();
        (executor.losses(), executor.kept().unwrap())
    };
    let done: Vec<(Vec<Option<f64>>, Vec<Kept>)> = thread::scope(|scope| {
        let threads: Vec<_> = executors.into_iter().map(|executor| scope.spawn(|| work(executor))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert!(hub.is_idle(), "nothing is left under way");
    let units = plan.header.cut().units();
    let loss = |unit: usize| {
        let mut all = done.iter().filter_map(|(losses, _)| losses[unit]);
        let loss = all.next().expect("a rank has the loss");
        assert!(all.next().is_none(), "two ranks have the loss of one unit");
        loss
    };
    let total: f64 = (0..units as usize).map(loss).sum();
    let kept = done.iter().flat_map(|(_, kept)| bits(kept)).collect();
    (total / f64::from(units), kept)
}

#[track_caller]
fn same(name: &str, plan: &Verified, host: &'static Host, manner: Manner) {
    let (loss, gradients) = together(host, plan);
    let (other, others) = apart(host, plan, 3, manner);
    assert_eq!(other.to_bits(), loss.to_bits(), "{name}: the loss");
    assert_eq!(others, gradients, "{name}: gradients");
}

#[test]
fn ranks_on_devices_of_their_own_have_the_bits_of_one_device() {
    let Some(host) = host() else { return };
    for (at, schedule) in SCHEDULES.iter().enumerate() {
        for turn in [0, 1] {
            // Tied and not, and the transforms, take turns.
            let with = TRANSFORMS[(at + turn * 2) % 4];
            let manner = Manner { serial: (at + turn) % 2 == 0, graph: at % 3 == 0 };
            let plan = library(schedule, with, 2, 2, small(4, (at + turn) % 2 == 1));
            same(&format!("{schedule} with {with:?} at p=2, {manner:?}"), &plan, host, manner);
        }
    }
    for (at, schedule) in ["zb-h1", "seq1f1b", "dualpipe-v", "chimera", "interleaved"].iter().enumerate() {
        for serial in [false, true] {
            let with = TRANSFORMS[(at + usize::from(serial)) % 4];
            let plan = library(schedule, with, 4, 4, small(8, serial));
            let manner = Manner { serial, graph: false };
            same(&format!("{schedule} with {with:?} at p=4, {manner:?}"), &plan, host, manner);
        }
    }
}

#[test]
fn ranks_in_bf16_on_devices_of_their_own_have_the_bits_of_one_device() {
    let Some(host) = packed() else { return };
    let dims = Dims { hidden: 32, heads: 4, sequence: 16, precision: Precision::Bf16, ..small(4, true) };
    for with in TRANSFORMS {
        let plan = library("1f1b", with, 2, 3, dims);
        same(&format!("1f1b with {with:?}"), &plan, host, Manner::default());
    }
}

/// A run of several processes, each a thread with a device: how each of them ends.
fn launched(
    host: &'static Host,
    plan: &Verified,
    settings: &[Settings],
    way: Way,
    identity: impl Fn(usize) -> Option<[u64; 2]> + Sync,
) -> Vec<(Losses, Result<(), RunError>)> {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let (hub, identity) = (Hub::new(), &identity);
    let process = |process: usize, settings: &Settings| {
        let place = Place {
            process,
            processes: plan.ranks.len(),
            local: process as u32,
            host: "127.0.0.1".to_owned(),
            port,
            secret: Secret::new("a test"),
            patience: Duration::from_mins(1),
        };
        let mut losses = Losses::default();
        let make = || {
            let mut device = HostDevice::on(&hub, host, process as u64);
            device.identity = identity(process);
            Ok(device)
        };
        let ended = train_on(plan, settings, (way, Some(&place)), make, &mut losses);
        (losses, ended.map(drop))
    };
    thread::scope(|scope| {
        let process = &process;
        let threads: Vec<_> = settings
            .iter()
            .enumerate()
            .map(|(at, settings)| scope.spawn(move || process(at, settings)))
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}

fn code(error: &RunError) -> String {
    miette::Diagnostic::code(error).unwrap().to_string()
}

#[test]
fn processes_with_a_device_each_train_resume_and_have_the_losses_of_one() {
    let Some(host) = host() else { return };
    for (schedule, with, graph) in
        [("1f1b", Some("vocab-2"), false), ("zb-h1", None, true), ("chimera", None, false)]
    {
        let plan = library(schedule, with, 2, 2, small(4, true));
        let folder = tempfile::tempdir().unwrap();
        let mut alone = Losses::default();
        let make = || Ok(HostDevice::new(host, 5));
        train_on(&plan, &settings(4), (Way::default(), None), make, &mut alone).unwrap();
        let kept = Settings { checkpoint: Some(folder.path().to_path_buf()), ..settings(2) };
        let longer = Settings { steps: 4, ..kept.clone() };
        let first = launched(host, &plan, &[kept.clone(), kept], Way { graph }, |at| Some([7, at as u64]));
        let rest = launched(host, &plan, &[longer.clone(), longer], Way { graph }, |_| None);
        for ((first, done), (rest, resumed)) in first.into_iter().zip(rest) {
            done.unwrap();
            resumed.unwrap();
            assert_eq!((first.resumed, rest.resumed), (None, Some(2)));
            assert_eq!([first.taken, rest.taken].concat(), alone.taken, "{schedule}");
        }
    }
}

#[test]
fn what_cannot_be_shared_among_devices_is_refused_by_name() {
    let Some(host) = host() else { return };
    let plan = library("1f1b", None, 2, 2, small(2, false));
    let one = |_| Some([1, 2]);
    for (_, ended) in launched(host, &plan, &[settings(1), settings(1)], Way::default(), one) {
        assert_eq!(code(&ended.unwrap_err()), "schedc::cuda::shared_device");
    }
    let other = Settings { train: Train { seed: 8, ..Train::default() }, ..settings(1) };
    for (_, ended) in launched(host, &plan, &[settings(1), other], Way::default(), |_| None) {
        assert_eq!(code(&ended.unwrap_err()), "schedc::launch::differs");
    }
    let place = Place {
        process: 0,
        processes: 2,
        local: 0,
        host: "127.0.0.1".to_owned(),
        port: 1,
        secret: Secret::new("a test"),
        patience: Duration::from_secs(1),
    };
    let four = library("1f1b", None, 4, 2, small(4, false));
    let make = || -> Result<HostDevice, CudaError> { panic!("no device is opened") };
    let error = train_on(&four, &settings(1), (Way::default(), Some(&place)), make, &mut Losses::default());
    assert_eq!(code(&error.unwrap_err()), "schedc::cuda::one_rank_a_process");
    for refused in [Settings { check: true, ..settings(1) }, Settings { record: 1, ..settings(1) }] {
        let make = || -> Result<HostDevice, CudaError> { panic!("no device is opened") };
        let way = (Way::default(), Some(&place));
        let error = train_on(&plan, &refused, way, make, &mut Losses::default()).unwrap_err();
        assert_eq!(code(&error), "schedc::execute::one_process_only");
    }
}

fn drilled(drill: &str) -> Settings {
    let limits = Limits { stall: Duration::from_millis(800), drill: Some(drill.parse().unwrap()) };
    Settings { limits, ..settings(2) }
}

/// The table of an error.
#[track_caller]
fn report(error: &RunError) -> &Report {
    match error {
        RunError::Plan(
            ExecuteError::Stalled { report, .. }
            | ExecuteError::RankFailed { report, .. }
            | ExecuteError::ProcessFailed { report, .. },
        ) => report,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_device_that_stalls_ends_the_run_with_a_table() {
    let Some(host) = host() else { return };
    let plan = library("1f1b", Some("vocab-2"), 2, 3, small(2, false));
    let started = Instant::now();
    let make = || Ok(HostDevice::new(host, 5));
    let way = (Way::default(), None);
    let error = train_on(&plan, &drilled("r1@9=stall"), way, make, &mut Losses::default()).unwrap_err();
    assert!(started.elapsed() < Duration::from_secs(20));
    assert_eq!(code(&error), "schedc::execute::stalled");
    let rows = &report(&error).rows;
    let held = rows.iter().find(|row| row.rank.0 == 1).unwrap();
    assert!(held.waits.contains("held by the drill"), "{rows:?}");
    assert!(rows.iter().any(|row| row.rank.0 == 0 && row.waits.contains("r1")), "{rows:?}");
    assert!(rows.iter().any(|row| row.done.0 > 0), "{rows:?}");
    let error = train_on(&plan, &drilled("r0@4=panic"), way, make, &mut Losses::default()).unwrap_err();
    assert_eq!(code(&error), "schedc::execute::rank_failed");
    assert!(error.to_string().contains("a drill asked for this panic"), "{error}");
}

#[test]
fn a_process_that_stalls_or_ends_ends_all_with_one_table() {
    let Some(host) = host() else { return };
    let plan = library("zb-h1", Some("vocab-1"), 2, 3, small(2, false));
    for (drill, codes) in [
        ("r1@9=stall", ["schedc::execute::stalled", "schedc::execute::process_failed"]),
        ("r1@9=panic", ["schedc::execute::rank_failed", "schedc::execute::process_failed"]),
    ] {
        let started = Instant::now();
        let both = [drilled(drill), drilled(drill)];
        let ended = launched(host, &plan, &both, Way::default(), |_| None);
        assert!(started.elapsed() < Duration::from_secs(30), "{drill}");
        let errors: Vec<RunError> = ended.into_iter().map(|(_, ended)| ended.unwrap_err()).collect();
        for error in &errors {
            assert!(codes.contains(&code(error).as_str()), "{drill}: {error}");
        }
        let tables = errors.iter().filter(|error| !report(error).rows.is_empty()).count();
        assert_eq!(tables, 1, "{drill}: {errors:?}");
        let text: String = errors.iter().map(|error| report(error).to_string()).collect();
        assert!(text.contains("r0") && text.contains("r1"), "{text}");
    }
}

#[test]
fn an_executor_that_was_given_up_says_so() {
    let Some(host) = host() else { return };
    let plan = library("1f1b", None, 1, 1, small(1, false));
    let drill = Some("r0@0=stall".parse().unwrap());
    let scope = Scope { drill, ..Scope::of(&plan, 0..1) };
    let abort = Arc::clone(&scope.signals.abort);
    let mut executor = Executor::part(&plan, &Train::default(), HostDevice::new(host, 0), scope).unwrap();
    abort.store(true, std::sync::atomic::Ordering::SeqCst);
    let error = executor.step(&batches(&plan.header.model, 1), Finish::Keep).unwrap_err();
    assert_eq!(code(&error), "schedc::cuda::ended");
}
