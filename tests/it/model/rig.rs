//! Headers, data and buffers to drive backends by hand, as an interpreter would.

use schedc::execute::backend::{Backend, Batch, InOut, Views};
use schedc::execute::cpu::CpuBackend;
use schedc::execute::model::{Held, Train};
use schedc::ir::{
    At, Catalog, Class, ClassId, Collective, CollectiveId, CollectiveOp, Compute, Dims, Header, Kind, KindId,
    Microbatch, Mode, Need, Partition, Pass, Port, Precision, Queue, Rank, Relation, Site, Source, Stage,
    Where,
};

/// A model small enough for exhaustive checks, with odd sides.
pub(super) fn tiny(tied: bool) -> Dims {
    Dims {
        layers: 3,
        hidden: 12,
        heads: 2,
        sequence: 5,
        batch: 2,
        vocab: 11,
        tied,
        precision: Precision::F32,
    }
}

/// What the tests train with: weights large enough for every path to matter come from the data, not from here.
pub(super) fn train() -> Train {
    Train { seed: 7, lr: 1e-2, ..Train::default() }
}

/// Token ids and targets of `m` microbatches.
pub(super) struct Data {
    tokens: Vec<Vec<u32>>,
    targets: Vec<Vec<u32>>,
}

impl Data {
    /// Ids without a pattern that a model could mistake for one.
    pub(super) fn new(dims: &Dims, m: u32) -> Self {
        let n = dims.tokens() as u32;
        let ids = |salt: u32| {
            let id = move |j: u32, t: u32| {
                ((j * 7919 + t * 104_729 + salt).wrapping_mul(2_654_435_761) >> 9) % dims.vocab
            };
            (0..m).map(|j| (0..n).map(|t| id(j, t)).collect()).collect()
        };
        Self { tokens: ids(1), targets: ids(2) }
    }

    /// The batches, by microbatch.
    pub(super) fn batches(&self) -> Vec<Batch<'_>> {
        let pairs = self.tokens.iter().zip(&self.targets);
        pairs.map(|(tokens, targets)| Batch { tokens, targets }).collect()
    }
}

/// Microbatches 0..m.
pub(super) fn ascending(m: u32) -> Vec<Microbatch> {
    (0..m).map(Microbatch).collect()
}

/// The classes of the standard library, by position: x, dx, stats, act, delta, logits.
fn classes(dims: &Dims, stages: u32, ranks: u32, sharded: bool) -> Vec<Class> {
    let (n, h, v) = (dims.tokens(), u64::from(dims.hidden), u64::from(dims.vocab));
    let layer = 16 * h + u64::from(dims.heads) * u64::from(dims.sequence) + 4;
    let class = |name: &str, at_stage: &dyn Fn(u64, bool) -> u64, at_rank: u64| Class {
        name: name.to_owned(),
        at_stage: (0..stages)
            .map(|stage| {
                let layers = dims.layers_of(Stage(stage), stages).len() as u64;
                vec![n, at_stage(layers, stage + 1 == stages)]
            })
            .collect(),
        at_rank: vec![n, at_rank],
        span: None,
    };
    let output = if sharded { h + 2 } else { h + 2 + h + v };
    vec![
        class("x", &|_, _| h, h),
        class("dx", &|_, _| h, h),
        class("stats", &|_, _| 3, 3),
        class("act", &|layers, last| layers * layer + if last { output } else { 0 }, 0),
        class("delta", &|layers, _| layers * 9 * h, 0),
        class("logits", &|_, _| 0, h + dims.shard(ranks)),
    ]
}

fn need(on: Where, kind: u32, at: Relation, port: Option<u32>) -> Need {
    Need { on, from: Source::Pass { kind: KindId(kind), at, port: port.map(Port) }, span: None }
}

fn kind(name: &str, at: At, computes: Compute, needs: Vec<Need>, buffers: [&[u32]; 3]) -> Kind {
    let [gives, makes, frees] = buffers.map(|ids| ids.iter().copied().map(ClassId).collect());
    let name = name.to_owned();
    Kind { name, at, queue: Queue::Compute, computes: Some(computes), needs, gives, makes, frees, span: None }
}

/// How the stages run backward.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Backward {
    Fused,
    Split,
}

/// Which algorithm shards the vocabulary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Vocabulary {
    Whole,
    One,
    Two,
}

/// A header whose stage `s` lies on rank `places[s]`.
pub(super) fn header(
    dims: &Dims,
    places: &[u32],
    m: u32,
    backward: Backward,
    vocabulary: Vocabulary,
) -> Header {
    let ranks = places.iter().max().map_or(1, |rank| rank + 1);
    let sharded = vocabulary != Vocabulary::Whole;
    let (here, next, last) = (Relation::Here, Relation::Next, Where::Last);
    let mut forward = kind("F", At::Stage, Compute::StageForward, vec![], [&[0], &[3], &[]]);
    forward.needs.push(need(Where::All, 0, Relation::Prev, Some(0)));
    let mut back = match backward {
        Backward::Fused => kind("B", At::Stage, Compute::StageBackward, vec![], [&[1], &[], &[3]]),
        Backward::Split => kind("B", At::Stage, Compute::StageInputGrad, vec![], [&[1], &[4], &[]]),
    };
    back.needs = vec![need(Where::All, 0, here, None), need(Where::All, 1, next, Some(0))];
    let wait = vec![need(Where::All, 1, here, None), need(Where::All, 0, here, None)];
    let mut weights = kind("W", At::Stage, Compute::StageWeightGrad, wait, [&[], &[], &[3, 4]]);
    if backward == Backward::Fused {
        // It keeps its place, so that the other kinds keep theirs.
        weights.computes = None;
    }
    let mut kinds = vec![forward, back, weights];
    if sharded {
        let every = |name, computes, needs, buffers| kind(name, At::EveryRank, computes, needs, buffers);
        let result = |on, id| Need { on, from: Source::Collective(CollectiveId(id)), span: None };
        kinds[0].needs.push(result(Where::First, 1));
        kinds[1].needs.push(result(last, 2));
        let from_last = vec![need(Where::All, 0, Relation::Last, Some(0))];
        let gathered = Source::Collective(CollectiveId(0));
        let stats = || vec![Need { on: Where::All, from: gathered, span: None }];
        let (s, t) = if vocabulary == Vocabulary::One {
            let s = every("S", Compute::OutputSoftmax, from_last, [&[2], &[5], &[]]);
            (s, every("T", Compute::OutputGrad, stats(), [&[1], &[], &[5]]))
        } else {
            let s = every("S", Compute::OutputSoftmaxGrad, from_last, [&[1, 2], &[5], &[]]);
            (s, every("T", Compute::OutputWeightGrad, stats(), [&[], &[], &[5]]))
        };
        let lookup = every("IF", Compute::InputLookup, vec![], [&[0], &[], &[]]);
        let first = vec![need(Where::All, 1, Relation::First, Some(0))];
        let scatter = every("IB", Compute::InputScatter, first, [&[], &[], &[]]);
        kinds.extend([s, t, lookup, scatter]);
        if vocabulary == Vocabulary::Two {
            let mut needs = stats();
            needs.push(need(Where::All, 3, here, Some(0)));
            kinds.push(every("R", Compute::OutputRescale, needs, [&[1], &[], &[]]));
        }
    }
    let collective = |name: &str, op, kind, port, reader| Collective {
        name: name.to_owned(),
        op,
        kind: KindId(kind),
        port: Port(port),
        source: Where::All,
        reader,
        after: None,
        lockstep: false,
        span: None,
    };
    let two = vocabulary == Vocabulary::Two;
    let collectives = [
        collective("C1.stats", CollectiveOp::AllGather, 3, u32::from(two), Where::All),
        collective("reduce IF", CollectiveOp::Reduce, 5, 0, Where::First),
        collective("dx", CollectiveOp::AllReduce, if two { 7 } else { 4 }, 0, Where::All),
    ];
    Header {
        name: "by hand".to_owned(),
        transforms: vec![],
        mode: Mode::default(),
        microbatches: m,
        slices: 1,
        stages: places.iter().copied().map(Rank).collect(),
        flows: 1,
        model: *dims,
        partition: Partition::default(),
        catalog: Catalog {
            classes: classes(dims, places.len() as u32, ranks, sharded),
            kinds,
            collectives: collectives.into_iter().filter(|_| sharded).collect(),
        },
        groups: vec![],
    }
}

/// The backends of all ranks of a header.
pub(super) fn backends(header: &Header) -> Vec<CpuBackend> {
    let ranks = header.stages.iter().max().map_or(1, |rank| rank.0 + 1);
    let new = |rank| {
        let backend = CpuBackend::new(header, Rank(rank), &train()).expect("the header runs");
        let announced = Held::of(header, Rank(rank)).map(|held| held.parameter_bytes());
        assert_eq!(announced, Ok(backend.parameter_bytes()), "what is announced is what is allocated");
        backend
    };
    (0..ranks).map(new).collect()
}

/// Elements of a buffer of class `class` at a stage.
pub(super) fn at_stage(header: &Header, class: usize, stage: usize) -> Vec<f32> {
    vec![f32::NAN; header.catalog.classes[class].at_stage[stage].iter().product::<u64>() as usize]
}

/// A pass at a stage.
pub(super) fn stage_pass(stage: usize, microbatch: Microbatch) -> Pass {
    Pass { kind: KindId(0), site: Site::Stage(Stage::new(stage)), microbatch }
}

/// A pass at a rank.
pub(super) fn rank_pass(rank: usize, microbatch: Microbatch) -> Pass {
    Pass { kind: KindId(0), site: Site::Rank(Rank::new(rank)), microbatch }
}

/// Forward of one microbatch through all stages: the last stage's x, and each stage's act. Buffers start as NaN, so that a part
/// that is read before it is written shows.
pub(super) fn forward(
    header: &Header,
    backends: &mut [CpuBackend],
    input: Option<&[f32]>,
    j: Microbatch,
    batch: Batch<'_>,
) -> (Vec<f32>, Vec<Vec<f32>>) {
    let count = header.stages.len();
    let (mut x, mut acts) = (input.map(<[f32]>::to_vec), Vec::new());
    for stage in 0..count {
        let (mut act, mut out) = (at_stage(header, 3, stage), at_stage(header, 0, stage));
        let give = stage + 1 < count || header.catalog.shards_output();
        let views = Views {
            x: InOut { read: x.as_deref(), write: give.then_some(&mut out[..]) },
            act: Some(&mut act),
            ..Views::default()
        };
        let backend = &mut backends[header.stages[stage].index()];
        backend.pass(Compute::StageForward, stage_pass(stage, j), views, batch);
        x = Some(out);
        acts.push(act);
    }
    (x.unwrap_or_default(), acts)
}

/// Backward of one microbatch through all stages, from the last stage's `dx` if its output layer is sharded; the first stage's
/// dx where its input layer is.
pub(super) fn backward(
    header: &Header,
    backends: &mut [CpuBackend],
    acts: &mut [Vec<f32>],
    output: Option<&[f32]>,
    j: Microbatch,
    batch: Batch<'_>,
) -> Option<Vec<f32>> {
    let mut dx = output.map(<[f32]>::to_vec);
    let computes = header.catalog.kinds[1].computes.expect("B computes");
    let mut deltas = Vec::new();
    for stage in (0..header.stages.len()).rev() {
        let (mut out, mut delta) = (at_stage(header, 1, stage), at_stage(header, 4, stage));
        let give = stage > 0 || header.catalog.shards_input();
        let split = computes == Compute::StageInputGrad;
        let views = Views {
            dx: InOut { read: dx.as_deref(), write: give.then_some(&mut out[..]) },
            act: Some(&mut acts[stage]),
            delta: split.then_some(&mut delta[..]),
            ..Views::default()
        };
        let backend = &mut backends[header.stages[stage].index()];
        backend.pass(computes, stage_pass(stage, j), views, batch);
        dx = give.then_some(out);
        deltas.push((stage, delta));
    }
    if computes == Compute::StageInputGrad {
        for (stage, mut delta) in deltas {
            let views =
                Views { act: Some(&mut acts[stage]), delta: Some(&mut delta[..]), ..Views::default() };
            let backend = &mut backends[header.stages[stage].index()];
            backend.pass(Compute::StageWeightGrad, stage_pass(stage, j), views, batch);
        }
    }
    dx
}

/// `|a - b| / |b|` over two tensors.
pub(super) fn relative(a: &[f32], b: &[f32]) -> f64 {
    assert_eq!(a.len(), b.len());
    let square = |x: f64| x * x;
    let off: f64 = a.iter().zip(b).map(|(&a, &b)| square(f64::from(a) - f64::from(b))).sum();
    let norm: f64 = b.iter().map(|&b| square(f64::from(b))).sum();
    (off / norm.max(1e-30)).sqrt()
}
