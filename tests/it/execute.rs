//! The interpreter: plans computed as without a schedule, memory as the plan states, failures that end in time with a table.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use schedc::cost::UNIT;
use schedc::execute::ExecuteError;
use schedc::execute::backend::{Backend, Batch, State, Tensor, Views};
use schedc::execute::check::check;
use schedc::execute::data::{Corpus, Text, Tokens};
use schedc::execute::interpreter::{Engine, Finish};
use schedc::execute::model::Train;
use schedc::execute::tokenizer::Tokenizer;
use schedc::execute::watchdog::{Drill, Limits, Report};
use schedc::ir::{Bytes, Compute, Dims, Pass};
use schedc::simulate::Known;
use schedc::verify::{Options, Verified, verify};

use crate::compiled::{SCHEDULES, TRANSFORMS, library, one_f_one_b, tiny};

/// Counts the allocations of threads named like ranks.
struct Counting;

static ON_RANKS: AtomicU64 = AtomicU64::new(0);

thread_local! {
    static COUNTED: Cell<bool> = const { Cell::new(false) };
}

#[allow(unsafe_code, reason = "an allocator that counts is the only way to see allocations")]
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if COUNTED.try_with(Cell::get).unwrap_or(false) {
            ON_RANKS.fetch_add(1, Ordering::Relaxed);
        }
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promises are passed on.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Computes nothing, so that what is counted is the interpreter's own. Where it counts, its thread's allocations are counted from the
/// first pass of each step to the optimizer's.
#[derive(Debug)]
pub(crate) struct Marking {
    counts: bool,
    tied: Vec<f32>,
}

pub(crate) const IDLE: Marking = Marking { counts: false, tied: Vec::new() };

impl Backend for Marking {
    fn pass(&mut self, _: Compute, _: Pass, _: Views<'_>, _: Batch<'_>) {
        COUNTED.set(self.counts);
    }

    fn tied_gradient(&mut self) -> &mut [f32] {
        &mut self.tied
    }

    fn step(&mut self) {
        // The step is the last instruction; what follows it is the thread's way back to the engine.
        COUNTED.set(false);
    }

    fn loss(&self) -> Option<f64> {
        Some(0.0)
    }

    fn tensors(&mut self) -> Vec<Tensor<'_>> {
        Vec::new()
    }

    fn load(&mut self, _: &str, _: State<'_>) -> bool {
        false
    }

    fn steps(&self) -> u64 {
        0
    }

    fn set_steps(&mut self, _: u64) {}

    fn workspace_bytes(&self) -> u64 {
        0
    }

    fn parameter_bytes(&self) -> u64 {
        0
    }
}

pub(crate) fn batches(dims: &Dims, microbatches: u32) -> Vec<Tokens> {
    let corpus = Corpus::new(&Text::own(), &Tokenizer::Bytes, dims.sequence).unwrap();
    corpus.step(dims, 7, 0, microbatches)
}

/// Checks plans against the reference: the loss and every gradient, and the memory that the plan states.
pub(crate) fn matrix(plans: impl IntoIterator<Item = (String, Verified)>) {
    for (name, plan) in plans {
        let batches = batches(&plan.header.model, plan.header.microbatches);
        let report = check(&plan, &Train::default(), &batches, &Limits::default());
        let report = report.unwrap_or_else(|error| panic!("{name}: {error}"));
        report.verdict().unwrap_or_else(|error| panic!("{name}: {error}\n{report}"));
        let whole = plan.header.transforms.is_empty() && plan.header.flows == 1 && plan.header.slices == 1;
        assert_eq!(report.bits_demanded, whole, "{name}: every stage adds up in one common order");
        let peaks: Vec<Bytes> = plan.ranks.iter().map(|rank| rank.peak.bytes).collect();
        assert_eq!(report.arenas, peaks, "{name}: the interpreter allocates what the plan states");
        let costs = UNIT.bind_plan(&plan.header).unwrap();
        let foretold = schedc::simulate::Report::of(&plan, &costs, &Known::default());
        let foretold: Vec<Bytes> = foretold.ranks.iter().map(|rank| Bytes(rank.memory.arena)).collect();
        assert_eq!(report.arenas, foretold, "{name}: the simulator foretells what is allocated");
    }
}

/// A library schedule under every transform, over p × m × tied.
fn sweep(schedule: &str) {
    for with in TRANSFORMS {
        for (ranks, microbatches) in [1, 2, 4].into_iter().flat_map(|p| [1, 2, 3, 8].map(|m| (p, m))) {
            for tied in [false, true] {
                // As many layers as the looped schedules have stages.
                let model = Dims { vocab: 256 + 5, ..tiny(2 * ranks, tied) };
                let name = format!("{schedule} with {with:?} at p={ranks}, m={microbatches}, tied={tied}");
                matrix([(name, library(schedule, with, ranks, microbatches, model))]);
            }
        }
    }
}

macro_rules! sweeps {
    ($($test:ident: $at:literal),* $(,)?) => {
        $(#[test]
        fn $test() {
            sweep(SCHEDULES[$at]);
        })*

        #[test]
        fn every_schedule_is_swept() {
            assert_eq!([$($at),*], std::array::from_fn::<usize, { SCHEDULES.len() }, _>(|at| at));
        }
    };
}

// One test for each schedule, so that they share the cores.
sweeps! {
    gpipe_repeats_the_model_without_a_schedule: 0,
    one_f_one_b_repeats_the_model_without_a_schedule: 1,
    eager_1f1b_repeats_the_model_without_a_schedule: 2,
    interleaved_repeats_the_model_without_a_schedule: 3,
    looped_bfs_repeats_the_model_without_a_schedule: 4,
    seq1f1b_agrees_with_the_model_without_a_schedule: 5,
    zb_h1_repeats_the_model_without_a_schedule: 6,
    zb_h2_repeats_the_model_without_a_schedule: 7,
    interleaved_zb_repeats_the_model_without_a_schedule: 8,
    zb_v_repeats_the_model_without_a_schedule: 9,
    hanayo_repeats_the_model_without_a_schedule: 10,
    v_half_repeats_the_model_without_a_schedule: 11,
    v_min_repeats_the_model_without_a_schedule: 12,
    one_f_one_b_v_repeats_the_model_without_a_schedule: 13,
    chimera_repeats_the_model_without_a_schedule: 14,
    dualpipe_repeats_the_model_without_a_schedule: 15,
    dualpipe_v_repeats_the_model_without_a_schedule: 16,
}

#[test]
fn more_ranks_than_the_vocabulary_fills_work() {
    let model = Dims { vocab: 257, ..tiny(32, true) };
    matrix([("p=32".to_owned(), library("1f1b", Some("vocab-1"), 32, 4, model))]);
}

#[test]
fn stages_without_layers_work() {
    matrix([("more ranks than layers".to_owned(), one_f_one_b(4, 2, tiny(2, false)))]);
}

#[test]
fn sixty_four_ranks_work() {
    matrix([("p=64".to_owned(), one_f_one_b(64, 8, tiny(4, true)))]);
}

/// The gradients that the check compares under another rank's name are those of second copies.
fn copies(plan: &Verified) -> usize {
    let batches = batches(&plan.header.model, plan.header.microbatches);
    let report = check(plan, &Train::default(), &batches, &Limits::default()).unwrap();
    report.verdict().unwrap();
    report.tensors.iter().filter(|tensor| tensor.name.contains(" on r")).count()
}

#[test]
fn every_gradient_of_both_flows_copies_is_checked() {
    let gradients = |schedule, p| {
        let plan = library(schedule, None, p, 4, tiny(4, false));
        let batches = batches(&plan.header.model, 4);
        check(&plan, &Train::default(), &batches, &Limits::default()).unwrap().tensors.len()
    };
    let whole = gradients("1f1b", 1);
    assert_eq!(copies(&library("chimera", None, 4, 4, tiny(4, false))), whole);
    // The middle rank holds both copies of its stage as one.
    assert_eq!(copies(&library("chimera", None, 1, 4, tiny(4, false))), 0);
    assert!(copies(&library("chimera", None, 3, 4, tiny(3, false))) < gradients("1f1b", 1));
}

/// Chimera trains: the copies stay equal from step to step, or the second step's loss would differ from the reference's.
#[test]
fn copies_of_the_model_stay_equal_over_steps() {
    use schedc::execute::cpu::CpuBackend;
    use schedc::execute::stored::{copies, gather};
    let plan = library("chimera", None, 4, 5, tiny(4, true));
    let make = |rank| Ok(CpuBackend::new(&plan.header, rank, &Train::default())?);
    let mut engine = Engine::new(&plan, make, &Limits::default()).unwrap();
    let data = batches(&plan.header.model, 5);
    let first = engine.step(1, data.clone(), Finish::Update).unwrap().unwrap();
    let second = engine.step(2, data.clone(), Finish::Update).unwrap().unwrap();
    assert!(second < first, "{second} after {first}");
    engine.step(3, data, Finish::Keep).unwrap();
    let whole = gather(engine.backends());
    for copy in copies(engine.backends()) {
        assert_eq!(copy.gradient, whole[&copy.name].gradient, "{} on {}", copy.name, copy.rank);
    }
}

#[test]
fn steps_allocate_nothing_on_the_ranks() {
    let model = tiny(4, true);
    let (ranks, steps) = (4, 40);
    for with in TRANSFORMS {
        let plan = library("1f1b", with, ranks, 8, model);
        let make = |_| Ok(Marking { counts: true, tied: vec![0.0; 256 * 8] });
        let mut engine = Engine::new(&plan, make, &Limits::default()).unwrap();
        engine.record(3).unwrap();
        let before = ON_RANKS.load(Ordering::Relaxed);
        for step in 0..steps {
            engine.step(step, batches(&model, 8), Finish::Update).unwrap();
        }
        // A thread's first wait allocates twice. It comes before the steps, but on a busy machine it may run out of time there.
        let allocated = ON_RANKS.load(Ordering::Relaxed) - before;
        assert!(allocated <= 2 * u64::from(ranks), "{with:?}: {allocated} allocations in {steps} steps");
    }
}

fn drilled(drill: &str, stall: Duration) -> (ExecuteError, Duration) {
    let plan = one_f_one_b(2, 4, tiny(2, false));
    let limits = Limits { stall, drill: Some(drill.parse::<Drill>().unwrap()) };
    let started = Instant::now();
    let error = check(&plan, &Train::default(), &batches(&plan.header.model, 4), &limits).unwrap_err();
    (error, started.elapsed())
}

fn row<'a>(report: &'a Report, rank: &str, lane: &str) -> &'a schedc::execute::watchdog::Row {
    let found = report.rows.iter().find(|row| row.rank.to_string() == rank && row.lane == lane);
    found.unwrap_or_else(|| panic!("no row for {rank} {lane}:\n{report}"))
}

#[test]
fn a_stalled_rank_ends_the_run_in_time_with_a_table() {
    let stall = Duration::from_millis(400);
    let (error, took) = drilled("r1@5=stall", stall);
    let ExecuteError::Stalled { report, .. } = &error else { panic!("{error}") };
    assert!(took < stall + Duration::from_secs(1), "took {took:?}");
    assert_eq!(row(report, "r0", "recv-r1").waits.split(':').next(), Some("r1"));
    assert!(report.rows.iter().any(|row| row.waits.contains("held by the drill")), "{report}");
}

#[test]
fn a_panicking_rank_ends_the_run_with_its_message() {
    let (error, took) = drilled("r0@3=panic", Duration::from_secs(30));
    let ExecuteError::RankFailed { rank, reason, report, .. } = &error else { panic!("{error}") };
    assert!(took < Duration::from_secs(2), "took {took:?}");
    assert_eq!(rank.to_string(), "r0");
    assert!(reason.contains("a drill asked for this panic"), "{reason}");
    assert!(!report.rows.is_empty());
}

#[test]
fn an_engine_that_failed_takes_no_further_step() {
    let plan = one_f_one_b(2, 2, tiny(2, false));
    let limits = Limits { stall: Duration::from_millis(200), drill: Some("r1@2=stall".parse().unwrap()) };
    let mut engine = Engine::new(&plan, |_| Ok(IDLE), &limits).unwrap();
    let step = |engine: &mut Engine<Marking>| {
        engine.step(0, batches(&plan.header.model, 2), Finish::Update).unwrap_err()
    };
    assert!(matches!(step(&mut engine), ExecuteError::Stalled { .. }));
    assert!(matches!(step(&mut engine), ExecuteError::Ended));
}

#[test]
fn a_pass_without_computes_is_refused_by_name() {
    let mut plan = one_f_one_b(2, 2, tiny(2, false)).into_plan();
    plan.header.catalog.kinds[1].computes = None;
    let error = Engine::new(&verify(plan, &Options::default()).unwrap(), |_| Ok(IDLE), &Limits::default())
        .unwrap_err();
    assert!(matches!(&error, ExecuteError::NoCompute { kind } if kind == "B"), "{error}");
}

#[test]
fn a_foreign_class_is_refused_by_name() {
    let mut plan = one_f_one_b(2, 2, tiny(2, false)).into_plan();
    "router".clone_into(&mut plan.header.catalog.classes[0].name);
    let error = Engine::new(&verify(plan, &Options::default()).unwrap(), |_| Ok(IDLE), &Limits::default())
        .unwrap_err();
    assert!(matches!(&error, ExecuteError::UnknownClass { class, .. } if class == "router"), "{error}");
}

#[test]
fn a_drill_for_an_instruction_that_the_plan_lacks_is_refused() {
    let plan = one_f_one_b(2, 2, tiny(2, false));
    for drill in ["r2@0=stall", "r0@1000=panic"] {
        let limits = Limits { drill: Some(drill.parse().unwrap()), ..Limits::default() };
        let error = Engine::new(&plan, |_| Ok(IDLE), &limits).unwrap_err();
        assert!(matches!(error, ExecuteError::Drill { .. }), "{error}");
    }
}

#[test]
fn a_drill_is_written_as_rank_instruction_and_failure() {
    assert!("r1@20=stall".parse::<Drill>().is_ok());
    for wrong in ["", "r1", "1@2=stall", "r1@2", "r1@2=", "r1@2=sleep", "r-1@2=panic", "r1@99999999999=stall"]
    {
        assert!(wrong.parse::<Drill>().is_err(), "{wrong}");
    }
}
