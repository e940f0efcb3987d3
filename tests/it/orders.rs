//! The library's orders of passes and what they take when timed by a small simulation of their own, apart from `src/graph`.

use schedc::cost::UNIT;
use schedc::driver::{Input, Job, schedule};
use schedc::ir::{Mode, Schedule, Site};
use schedc::resolve::{Model, Partitioning};
use schedc::source::Sources;

use crate::compiled::tiny;

/// A pass of an order: the letter of its kind, its stage, its microbatch.
pub(crate) type Cell = (char, usize, usize);

/// The orders of all ranks for a library schedule without a transform.
#[derive(Debug)]
pub(crate) struct Orders {
    pub(crate) stages: usize,
    /// Slices of a microbatch; the third of a cell counts them all.
    pub(crate) slices: usize,
    pub(crate) ranks: Vec<Vec<Cell>>,
    /// The passes that run overlapped.
    pub(crate) pairs: Vec<Vec<(Cell, Cell)>>,
}

/// What an order takes. All times are in passes of one chunk (and slice); divide by the chunks of a rank (and the
/// slices of a microbatch) for passes of a whole stage.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Taken {
    pub(crate) makespan: u64,
    /// Activations of chunks at most held, by rank, from F to W or, where the two are fused, to B.
    pub(crate) peaks: Vec<usize>,
    /// The longest time from a rank's first pass to its last.
    pub(crate) span: u64,
}

pub(crate) fn library_schedule(name: &str, set: &[(String, i64)], ranks: u32, microbatches: u32) -> Schedule {
    let model = Model { layers: None, dims: tiny(1, false), partition: Partitioning::Uniform };
    let job = Job {
        input: Input::Library(name),
        with: &[],
        set,
        ranks,
        microbatches,
        model,
        costs: &UNIT,
        retime: None,
        mode: Mode::Training,
    };
    schedule(&job, &mut Sources::default()).unwrap_or_else(|errors| panic!("{name}: {errors:?}"))
}

impl Orders {
    pub(crate) fn of(name: &str, ranks: u32, microbatches: u32) -> Self {
        Self::with(name, &[], ranks, microbatches)
    }

    /// The same, with values for its parameters.
    pub(crate) fn with(name: &str, set: &[(String, i64)], ranks: u32, microbatches: u32) -> Self {
        let schedule = library_schedule(name, set, ranks, microbatches);
        let cell = |placed: &schedc::ir::Placed| {
            let Site::Stage(stage) = placed.pass.site else { panic!("{name} has passes at stages only") };
            let letter = schedule.catalog.kind(placed.pass.kind).name.chars().next().unwrap();
            (letter, stage.index(), placed.pass.microbatch.index())
        };
        let ranks = schedule.orders.iter().map(|order| order.iter().map(cell).collect()).collect();
        let pairs = schedule.orders.iter().map(|order| {
            let pairs = order.windows(2).filter(|pair| pair[0].overlaps);
            pairs.map(|pair| (cell(&pair[0]), cell(&pair[1]))).collect()
        });
        let (stages, slices) = (schedule.shape.stages.len(), schedule.shape.slices as usize);
        Self { stages, slices, ranks, pairs: pairs.collect() }
    }

    fn splits(&self) -> bool {
        self.ranks.iter().flatten().any(|cell| cell.0 == 'W')
    }

    /// Runs every rank in order, F and B and W of one unit each (B of two where it is fused with W), messages in no time.
    pub(crate) fn time(&self) -> Taken {
        let backward = if self.splits() { 1 } else { 2 };
        let mut ended = std::collections::HashMap::new();
        let mut next = vec![0; self.ranks.len()];
        let mut clocks = vec![0_u64; self.ranks.len()];
        let mut starts = vec![u64::MAX; self.ranks.len()];
        loop {
            let mut moved = false;
            for (rank, order) in self.ranks.iter().enumerate() {
                while let Some(&cell) = order.get(next[rank]) {
                    let Some(ready) = self.ready(cell, &ended) else { break };
                    let start = clocks[rank].max(ready);
                    starts[rank] = starts[rank].min(start);
                    clocks[rank] = start + if cell.0 == 'B' { backward } else { 1 };
                    ended.insert(cell, clocks[rank]);
                    next[rank] += 1;
                    moved = true;
                }
            }
            if !moved {
                break;
            }
        }
        let complete = self.ranks.iter().zip(&next).all(|(order, &next)| next == order.len());
        assert!(complete, "the order deadlocks at {next:?}");
        let spans = clocks.iter().zip(&starts).map(|(end, start)| end - start);
        Taken { makespan: *clocks.iter().max().unwrap(), span: spans.max().unwrap(), peaks: self.peaks() }
    }

    /// When everything that a pass needs has ended; `None` while something has not.
    fn ready(&self, cell: Cell, ended: &std::collections::HashMap<Cell, u64>) -> Option<u64> {
        let (kind, stage, microbatch) = cell;
        let needs = match kind {
            'F' => {
                let earlier = !microbatch.is_multiple_of(self.slices);
                let earlier = earlier.then(|| ('F', stage, microbatch - 1));
                vec![stage.checked_sub(1).map(|before| ('F', before, microbatch)), earlier]
            }
            'B' => {
                let after = (stage + 1 < self.stages).then_some(('B', stage + 1, microbatch));
                let later = !(microbatch + 1).is_multiple_of(self.slices);
                let later = later.then_some(('B', stage, microbatch + 1));
                vec![Some(('F', stage, microbatch)), after, later]
            }
            _ => vec![Some(('B', stage, microbatch))],
        };
        needs
            .into_iter()
            .flatten()
            .map(|need| ended.get(&need).copied())
            .try_fold(0, |latest, end| Some(latest.max(end?)))
    }

    fn peaks(&self) -> Vec<usize> {
        let frees = if self.splits() { 'W' } else { 'B' };
        let peak = |order: &Vec<Cell>| {
            let mut held = 0;
            let mut most = 0;
            for cell in order {
                held += usize::from(cell.0 == 'F');
                most = most.max(held);
                held -= usize::from(cell.0 == frees);
            }
            most
        };
        self.ranks.iter().map(peak).collect()
    }
}
