//! Plans on a device that is the host: losses, gradients and updates are those of the CPU, whatever the order of the queues.

use std::path::Path;

use safetensors::SafeTensors;
use safetensors::tensor::TensorView;
use schedc::cost::Profile;
use schedc::cuda::run::{Executor, Kept, Way, tolerance, train_on};
use schedc::execute::check::{CheckReport, Outcome, compare};
use schedc::execute::data::Tokens;
use schedc::execute::interpreter::Finish;
use schedc::execute::model::Train;
use schedc::execute::recording::Recording;
use schedc::execute::reference::Reference;
use schedc::execute::stored::{copies_of, gather_of};
use schedc::execute::tokenizer::TokenizerKind;
use schedc::execute::train::{Listener, Opening, Settings, Taken, train};
use schedc::execute::watchdog::Limits;
use schedc::ir::{Bytes, Dims, Microbatch, Precision};
use schedc::kernels::Stored;
use schedc::verify::Verified;
use schedc::view::{chrome, measured};

use super::device::HostDevice;
use super::host::Host;
use super::hosts;
use crate::compiled::{SCHEDULES, TRANSFORMS, forward_only, library};
use crate::execute::batches;

/// The f32 kernels for heads of 17, which no access of 16 bytes fits.
pub(super) fn host() -> Option<&'static Host> {
    hosts()?.iter().find(|host| host.stored == Stored::F32 && host.head == 17)
}

/// The bf16 kernels, for heads that tensor cores do not take.
pub(super) fn packed() -> Option<&'static Host> {
    hosts()?.iter().find(|host| host.stored == Stored::Bf16 && host.head == 8)
}

/// The bf16 kernels, for heads that they do.
fn tensor() -> Option<&'static Host> {
    hosts()?.iter().find(|host| host.stored == Stored::Bf16 && host.head == 16)
}

pub(super) fn small(layers: u32, tied: bool) -> Dims {
    Dims { layers, hidden: 34, heads: 2, sequence: 4, batch: 2, vocab: 261, tied, precision: Precision::F32 }
}

/// A plan that is ready for its first step, with NaN wherever a pass might read what nobody wrote.
fn ready(host: &'static Host, plan: &Verified, seed: u64) -> Executor<HostDevice> {
    let mut executor = Executor::new(plan, &Train::default(), HostDevice::new(host, seed)).unwrap();
    let peaks: Vec<Bytes> = plan.ranks.iter().map(|rank| rank.peak.bytes).collect();
    assert_eq!(executor.arena_bytes(), peaks);
    let device = executor.device();
    let allocated = device.allocations();
    for (rank, peak) in peaks.iter().enumerate() {
        // A rank's arena, parameters and scratch, in this order.
        assert_eq!(allocated[3 * rank], peak.0, "the arena is what the plan states");
        device.poison(3 * rank);
        device.poison(3 * rank + 2);
    }
    device.ready = true;
    executor
}

/// The loss and all that ranks hold after a step.
fn step(host: &'static Host, plan: &Verified, seed: u64) -> (f64, Vec<Kept>, Vec<Bytes>) {
    let mut executor = ready(host, plan, seed);
    let batches = batches(&plan.header.model, plan.header.microbatches);
    let loss = executor.step(&batches, Finish::Keep).unwrap().unwrap();
    (loss, executor.kept().unwrap(), executor.arena_bytes())
}

pub(super) fn bits(kept: &[Kept]) -> Vec<u32> {
    let numbers = kept.iter().flat_map(Kept::tensors);
    numbers
        .flat_map(|tensor| tensor.gradient.iter().map(|number| number.to_bits()).collect::<Vec<_>>())
        .collect()
}

/// Holds a step against the reference on the CPU, and against itself in another order.
fn agrees(host: &'static Host, name: &str, plan: &Verified) {
    let (loss, kept, arenas) = step(host, plan, 1);
    let tensors = || kept.iter().map(Kept::tensors);
    let outcome = Outcome { loss, found: gather_of(tensors()), copies: copies_of(tensors()), arenas };
    let batches = batches(&plan.header.model, plan.header.microbatches);
    let report =
        compare(plan, &Train::default(), &batches, &outcome, Some(tolerance(plan.header.model.precision)))
            .unwrap();
    report.verdict().unwrap_or_else(|error| panic!("{name}: {error}\n{report}"));
    let (again, others, _) = step(host, plan, 2);
    assert_eq!(again.to_bits(), loss.to_bits(), "{name}: the loss in another order");
    assert_eq!(bits(&others), bits(&kept), "{name}: gradients in another order");
}

/// Every schedule of some, under every transform, on so many ranks.
fn sweep(schedules: &[&str], transforms: &[Option<&str>], ranks: u32, microbatches: u32) {
    let Some(host) = host() else { return };
    sweep_on(host, schedules, transforms, ranks, microbatches);
}

/// The same on some kernels, with their type of activations.
fn sweep_on(
    host: &'static Host,
    schedules: &[&str],
    transforms: &[Option<&str>],
    ranks: u32,
    microbatches: u32,
) {
    let model = |tied| {
        let dims = Dims { hidden: 2 * host.head, ..small(2 * ranks, tied) };
        match host.stored {
            Stored::F32 => dims,
            // Sums over few numbers cancel, and then nothing is left of eight bits.
            Stored::Bf16 => {
                let hidden = 4 * host.head;
                Dims { hidden, heads: 4, sequence: 16, precision: Precision::Bf16, ..dims }
            }
        }
    };
    for (at, schedule) in schedules.iter().enumerate() {
        for (turn, with) in transforms.iter().enumerate() {
            // Tied and not take turns.
            let tied = (at + turn) % 2 == 1;
            let name = format!("{schedule} with {with:?} at p={ranks}, m={microbatches}, tied={tied}");
            agrees(host, &name, &library(schedule, *with, ranks, microbatches, model(tied)));
        }
    }
}

#[test]
fn one_rank_computes_what_the_cpu_computes() {
    sweep(&["1f1b", "zb-h1", "seq1f1b", "1f1b-v"], &TRANSFORMS, 1, 2);
}

#[test]
fn two_ranks_on_one_device_compute_what_the_cpu_computes() {
    sweep(&SCHEDULES, &[None], 2, 2);
    // Transforms take turns: each meets every third schedule.
    for (at, schedule) in SCHEDULES.iter().enumerate() {
        sweep(&[schedule], &[TRANSFORMS[1 + at % 3]], 2, 2);
    }
}

#[test]
fn four_ranks_on_one_device_compute_what_the_cpu_computes() {
    sweep(&["zb-h1", "seq1f1b", "dualpipe-v"], &[None, Some("vocab-1")], 4, 3);
    sweep(&["1f1b", "chimera"], &[Some("interlaced"), Some("vocab-2")], 4, 3);
}

#[test]
fn plans_in_bf16_compute_what_the_cpu_computes_in_f32_but_for_their_precision() {
    let Some(host) = packed() else { return };
    for (at, schedule) in SCHEDULES.iter().enumerate() {
        sweep_on(host, &[schedule], &[TRANSFORMS[at % 4]], 2, 2);
    }
    sweep_on(host, &["zb-h1", "dualpipe-v"], &[Some("vocab-2")], 4, 3);
    let Some(host) = tensor() else { return };
    sweep_on(host, &["1f1b", "zb-h1", "seq1f1b"], &[None, Some("vocab-1")], 2, 2);
}

#[test]
fn three_ranks_with_a_short_last_shard_and_stages_without_layers_work() {
    let Some(host) = host() else { return };
    let model = Dims { vocab: 256, ..small(2, false) };
    agrees(host, "p=3", &library("chimera", None, 3, 2, model));
    agrees(host, "p=3, sharded", &library("1f1b", Some("vocab-2"), 3, 2, model));
}

#[test]
fn forward_only_plans_give_the_loss() {
    let Some(host) = host() else { return };
    for with in [None, Some("vocab-1"), Some("vocab-2")] {
        agrees(host, "forward only", &forward_only("1f1b", with, 2, 2, small(2, false)));
    }
}

#[test]
fn steps_with_adam_have_the_losses_of_the_cpu_one_by_one_and_as_a_graph() {
    let Some(host) = host() else { return };
    for (schedule, with) in [("1f1b", None), ("zb-h1", Some("vocab-2")), ("chimera", None)] {
        let plan = library(schedule, with, 2, 2, small(2, true));
        let train = Train { lr: 1e-2, weight_decay: 0.1, ..Train::default() };
        let mut reference = Reference::new(&plan.header.model, &train, 2).unwrap();
        let order: Vec<Microbatch> = Microbatch::all(2).collect();
        let data = batches(&plan.header.model, 2);
        let views: Vec<_> = data.iter().map(Tokens::view).collect();
        let make = |seed| Executor::new(&plan, &train, HostDevice::new(host, seed)).unwrap();
        let (mut stepped, mut captured) = (make(1), make(2));
        captured.capture().unwrap();
        for count in 1..=3 {
            let expected = reference.accumulate(&views, &order);
            reference.step();
            let loss = stepped.step(&data, Finish::Update).unwrap().unwrap();
            let off = (loss - expected).abs() / expected;
            assert!(off < 1e-4, "{schedule}: step {count} has {loss}, and the CPU {expected}");
            let again = captured.step(&data, Finish::Update).unwrap().unwrap();
            assert_eq!(again.to_bits(), loss.to_bits(), "{schedule}: step {count} as a graph");
        }
        assert_eq!(stepped.taken(), 3);
    }
}

/// Without one wait the bits must change in some order of the queues; only waits that others make needless may be forgotten.
#[test]
fn a_forgotten_wait_shows() {
    let Some(host) = host() else { return };
    let plan = library("1f1b", None, 2, 2, small(2, false));
    let data = batches(&plan.header.model, 2);
    let run = |seed, forgotten| {
        let mut executor = ready(host, &plan, seed);
        let before = executor.device().waits();
        executor.device().forgotten = forgotten;
        let loss = executor.step(&data, Finish::Keep).unwrap().unwrap();
        let kept = executor.kept().unwrap();
        (loss.to_bits(), bits(&kept), before..executor.device().waits())
    };
    let (loss, gradients, waits) = run(1, None);
    let shows = |wait: usize| {
        (1..6).any(|seed| {
            let (other, others, _) = run(seed, Some(wait));
            other != loss || others != gradients
        })
    };
    let all = waits.len();
    let found = waits.filter(|&wait| shows(wait)).count();
    assert!(found * 4 >= all, "{found} of {all} waits are missed");
}

#[test]
fn lengths_that_no_kernel_takes_are_refused_by_name() {
    let Some(host) = host() else { return };
    let model = Dims { hidden: 70_000, heads: 70_000, vocab: 256, ..small(1, false) };
    let plan = library("1f1b", None, 1, 1, model);
    let error = Executor::new(&plan, &Train::default(), HostDevice::new(host, 0)).unwrap_err();
    let code = miette::Diagnostic::code(&error).unwrap().to_string();
    assert_eq!(code, "schedc::cuda::oversized_pass");
}

pub(super) fn settings(steps: u64) -> Settings {
    Settings {
        steps,
        train: Train::default(),
        data: None,
        tokenizer: TokenizerKind::Bytes,
        check: false,
        checkpoint: None,
        checkpoint_every: 1,
        dump: None,
        record: 0,
        limits: Limits::default(),
        plan_hash: None,
    }
}

#[derive(Default)]
pub(super) struct Losses {
    pub(super) taken: Vec<f64>,
    checks: usize,
    pub(super) resumed: Option<u64>,
    recording: Recording,
}

impl Listener for Losses {
    fn checked(&mut self, report: &CheckReport) {
        self.checks += usize::from(report.verdict().is_ok());
    }

    fn opened(&mut self, opening: &Opening) {
        self.resumed = opening.resumed.as_ref().map(|(_, step)| *step);
    }

    fn recorded(&mut self, recording: Recording) {
        self.recording = recording;
    }

    fn taken(&mut self, taken: &Taken) {
        self.taken.push(taken.loss);
    }

    fn saved(&mut self, _: &Path) {}

    fn dumped(&mut self, _: &Path) {}
}

#[test]
fn a_whole_run_on_a_device_is_checked_and_has_the_losses_of_the_cpu() {
    let Some(host) = host() else { return };
    let plan = library("1f1b", Some("vocab-1"), 2, 2, small(2, false));
    let settings = Settings { check: true, ..settings(3) };
    let (mut on_device, mut on_cpu) = (Losses::default(), Losses::default());
    let make = || Ok(HostDevice::new(host, 5));
    train_on(&plan, &settings, (Way::default(), None), make, &mut on_device).unwrap();
    train(&plan, &settings, &mut on_cpu).unwrap();
    assert_eq!([on_device.checks, on_device.taken.len()], [1, 3]);
    for (found, expected) in on_device.taken.iter().zip(&on_cpu.taken) {
        assert!((found - expected).abs() < 1e-4 * expected, "{found} instead of {expected}");
    }
    let refused = |settings: &Settings, way: Way| {
        let error = train_on(&plan, settings, (way, None), make, &mut Losses::default()).unwrap_err();
        miette::Diagnostic::code(&error).unwrap().to_string()
    };
    let drill = Limits { drill: Some("r0@1=stall".parse().unwrap()), ..Limits::default() };
    let drilled = Settings { limits: drill, ..settings.clone() };
    assert_eq!(refused(&drilled, Way { graph: true }), "schedc::cuda::graph_not_drilled");
    let recorded = Settings { record: 1, ..settings };
    assert_eq!(refused(&recorded, Way { graph: true }), "schedc::cuda::graph_not_timed");
}

#[test]
fn a_run_on_a_device_goes_on_from_its_checkpoint_with_the_same_bits_and_its_dump_is_that_of_the_cpu() {
    let Some(host) = packed() else { return };
    let folder = tempfile::tempdir().unwrap();
    let dims = Dims { hidden: 32, heads: 4, sequence: 16, precision: Precision::Bf16, ..small(2, false) };
    let plan = library("zb-h1", Some("vocab-2"), 2, 2, dims);
    let run = |settings: &Settings, way: Way| {
        let mut losses = Losses::default();
        train_on(&plan, settings, (way, None), || Ok(HostDevice::new(host, 7)), &mut losses).unwrap();
        losses
    };
    let whole = Settings { dump: Some(folder.path().join("whole")), ..settings(4) };
    let all = run(&whole, Way::default());
    let kept = Settings { checkpoint: Some(folder.path().join("kept")), ..settings(2) };
    let (first, rest) =
        (run(&kept, Way::default()), run(&Settings { steps: 4, ..kept }, Way { graph: true }));
    assert_eq!((first.resumed, rest.resumed), (None, Some(2)));
    assert_eq!([first.taken, rest.taken].concat(), all.taken);
    let single = library("zb-h1", Some("vocab-2"), 2, 2, Dims { precision: Precision::F32, ..dims });
    let on_cpu = Settings { dump: Some(folder.path().join("cpu")), ..settings(1) };
    train(&single, &on_cpu, &mut Losses::default()).unwrap();
    let read = |name: &str| std::fs::read(folder.path().join(name)).unwrap();
    let [found, expected] = [read("whole"), read("cpu")];
    let [found, expected] = [&found, &expected].map(|bytes| SafeTensors::deserialize(bytes).unwrap());
    assert_eq!(found.len(), expected.len());
    for (name, expected) in expected.tensors() {
        let numbers = |tensor: &TensorView<'_>| -> Vec<f64> {
            tensor.data().as_chunks().0.iter().map(|&bytes| f32::from_le_bytes(bytes).into()).collect()
        };
        let found = found.tensor(&name).unwrap();
        if !name.starts_with("gradient.") {
            // Weights are f32 in either case, and so are the texts.
            assert!(name == "loss" || found.data() == expected.data(), "{name}");
            continue;
        }
        let (found, expected) = (numbers(&found), numbers(&expected));
        let norm = |all: &mut dyn Iterator<Item = f64>| all.map(|x| x * x).sum::<f64>().sqrt();
        let apart = norm(&mut found.iter().zip(&expected).map(|(a, b)| a - b));
        assert!(apart <= 2e-2 * norm(&mut expected.iter().copied()), "{name}");
    }
}

#[test]
fn a_recorded_run_on_a_device_has_every_instruction_in_the_order_of_its_lane_and_predicts_others() {
    let Some(host) = host() else { return };
    for forward in [false, true] {
        let plan = library("zb-h1", Some("vocab-1"), 2, 3, small(2, false));
        let plan = if forward { forward_only("zb-h1", Some("vocab-1"), 2, 3, small(2, false)) } else { plan };
        let mut losses = Losses::default();
        let recorded = Settings { record: 2, ..settings(3) };
        let make = || Ok(HostDevice::new(host, 3));
        train_on(&plan, &recorded, (Way::default(), None), make, &mut losses).unwrap();
        let steps: Vec<u64> = losses.recording.steps.iter().map(|step| step.step).collect();
        assert_eq!(steps, [2, 3]);
        for step in &losses.recording.steps {
            for (rank, moments) in plan.ranks.iter().zip(&step.ranks) {
                let mut ends = vec![0; rank.lanes.len()];
                for (instr, [begin, end]) in rank.instrs.iter().zip(moments) {
                    let last = &mut ends[instr.lane.index()];
                    assert!(*last <= *begin && begin <= end, "{instr:?}: {begin} to {end} after {last}");
                    *last = *end;
                }
            }
        }
        let charts = measured(&plan, "hash", &losses.recording);
        let mut trace = Vec::new();
        chrome::write(&mut trace, &[&charts[..]]).unwrap();
        let trace = String::from_utf8(trace).unwrap();
        assert!(trace.contains("\"device\":true"));
        Profile::parse("trace", &trace).unwrap_or_else(|error| panic!("{error:?}"));
    }
}
