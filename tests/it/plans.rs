//! Small plans for tests of the interpreter: 1F1B over fused passes F and B, with and without vocabulary parallelism, built
//! without the language.

use schedc::cost::Costs;
use schedc::execute::Verified;
use schedc::ir::{
    At, Catalog, Class, ClassId, Collective, CollectiveId, CollectiveOp, Compute, Dims, FileId, Kind, KindId,
    Limit, Microbatch, Need, Pass, Placed, Port, Queue, Rank, Relation, Schedule, Shape, Site, Source, Span,
    Stage, Transform, Where,
};
use schedc::lower::lower;
use schedc::transform::{apply, extend};

/// A model that takes milliseconds.
pub(crate) fn tiny(layers: u32, tied: bool) -> Dims {
    Dims { layers, hidden: 8, heads: 2, sequence: 4, batch: 2, vocab: 256, tied }
}

/// How the vocabulary layers are spread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Vocabulary {
    /// On the end stages.
    Whole,
    /// Algorithm 1 of Yeung et al. 2024.
    One,
    /// Algorithm 2.
    Two,
    /// Algorithm 1 in lock step.
    Interlaced,
}

/// A verified 1F1B plan on `ranks` ranks, one stage each.
pub(crate) fn one_f_one_b(ranks: u32, microbatches: u32, model: Dims) -> Verified {
    spread(ranks, microbatches, model, Vocabulary::Whole)
}

/// The same with the vocabulary layers spread over all ranks.
pub(crate) fn spread(ranks: u32, microbatches: u32, model: Dims, vocabulary: Vocabulary) -> Verified {
    let shape = Shape { ranks, microbatches, chunks: 1, stages: Rank::all(ranks as usize).collect() };
    let catalog = catalog(&shape, &model, vocabulary != Vocabulary::Whole);
    let orders = Rank::all(ranks as usize).map(|rank| order(rank, ranks, microbatches)).collect();
    let schedule = Schedule {
        name: "1f1b".to_owned(),
        transforms: Vec::new(),
        shape,
        model,
        catalog,
        orders,
        origins: Vec::new(),
    };
    if vocabulary == Vocabulary::Whole {
        let costs = Costs::unit(&schedule.catalog, 1);
        return Verified(lower(&schedule, &costs).expect("1F1B does not deadlock"));
    }
    let transform = transform(vocabulary);
    let mut catalog = schedule.catalog.clone();
    extend(&mut catalog, &transform);
    let costs = Costs::unit(&catalog, 1);
    let schedule = apply(schedule, &transform, &costs).expect("the transform fits 1F1B");
    Verified(lower(&schedule, &costs).expect("the transform does not deadlock"))
}

fn order(rank: Rank, ranks: u32, microbatches: u32) -> Vec<Placed> {
    let place = |kind, microbatch| Placed {
        pass: Pass {
            kind: KindId(kind),
            site: Site::Stage(Stage(rank.0)),
            microbatch: Microbatch(microbatch),
        },
        origin: 0,
    };
    let warm = (ranks - rank.0 - 1).min(microbatches);
    let mut order: Vec<Placed> = (0..warm).map(|microbatch| place(0, microbatch)).collect();
    for microbatch in 0..microbatches {
        if warm + microbatch < microbatches {
            order.push(place(0, warm + microbatch));
        }
        order.push(place(1, microbatch));
    }
    order
}

fn catalog(shape: &Shape, model: &Dims, sharded: bool) -> Catalog {
    let tokens = model.tokens();
    let [hidden, heads, sequence, vocab] =
        [model.hidden, model.heads, model.sequence, model.vocab].map(u64::from);
    let stages = u32::try_from(shape.stages.len()).unwrap();
    let act = |stage: Stage| {
        let layers = model.layers_of(stage, stages).len() as u64;
        let last = u64::from(stage == shape.last());
        let whole = if sharded { 0 } else { hidden + vocab };
        vec![tokens, layers * (16 * hidden + heads * sequence + 4) + last * (hidden + 2 + whole)]
    };
    let class = |name: &str, shape_at: &dyn Fn(Stage) -> Vec<u64>| Class {
        name: name.to_owned(),
        at_stage: Stage::all(shape.stages.len()).map(shape_at).collect(),
        at_rank: match name {
            "stats" => vec![3, tokens],
            "logits" => vec![tokens, hidden + model.shard(shape.ranks)],
            _ => vec![tokens, hidden],
        },
        span: None,
    };
    let value = |kind, at| Need {
        on: Where::All,
        from: Source::Pass { kind: KindId(kind), at, port: Some(Port(0)) },
        span: None,
    };
    let here = Need {
        on: Where::All,
        from: Source::Pass { kind: KindId(0), at: Relation::Here, port: None },
        span: None,
    };
    let kind = |name: &str, computes, needs, gives, makes, frees| Kind {
        name: name.to_owned(),
        at: At::Stage,
        queue: Queue::Compute,
        computes: Some(computes),
        needs,
        gives,
        makes,
        frees,
        span: None,
    };
    let (x, dx, act_class) = (ClassId(0), ClassId(1), ClassId(2));
    Catalog {
        classes: vec![
            class("x", &|_| vec![tokens, hidden]),
            class("dx", &|_| vec![tokens, hidden]),
            class("act", &act),
            class("stats", &|_| vec![3, tokens]),
            class("logits", &|_| Vec::new()),
        ],
        kinds: vec![
            kind(
                "F",
                Compute::StageForward,
                vec![value(0, Relation::Prev)],
                vec![x],
                vec![act_class],
                vec![],
            ),
            kind(
                "B",
                Compute::StageBackward,
                vec![here, value(1, Relation::Next)],
                vec![dx],
                vec![],
                vec![act_class],
            ),
        ],
        collectives: Vec::new(),
    }
}

/// The vocabulary passes of `stdlib/vocab.sched`: S is kind 2, T 3, IF 4, IB 5 and the step of algorithm 2's barrier 6.
fn transform(vocabulary: Vocabulary) -> Transform {
    let two = vocabulary == Vocabulary::Two;
    let lockstep = vocabulary == Vocabulary::Interlaced;
    let span = Span { file: FileId(0), start: 0, end: 0 };
    let [x, dx, stats, logits] = [0, 1, 3, 4].map(ClassId);
    let queue = if lockstep { Queue::Lockstep } else { Queue::Compute };
    let result = |on, collective| Need { on, from: Source::Collective(CollectiveId(collective)), span: None };
    let kind = |name: &str, computes, needs, gives, makes, frees| Kind {
        name: name.to_owned(),
        at: At::EveryRank,
        queue,
        computes: Some(computes),
        needs,
        gives,
        makes,
        frees,
        span: None,
    };
    let all = |collective| vec![result(Where::All, collective)];
    let (softmax, grad) = if two {
        (Compute::OutputSoftmaxGrad, Compute::OutputWeightGrad)
    } else {
        (Compute::OutputSoftmax, Compute::OutputGrad)
    };
    let given = |also: bool, class| if also { vec![class] } else { Vec::new() };
    let mut kinds = vec![
        kind("S", softmax, all(0), [vec![stats], given(two, dx)].concat(), vec![logits], vec![]),
        kind("T", grad, all(1), given(!two, dx), vec![], vec![logits]),
        kind("IF", Compute::InputLookup, vec![], vec![x], vec![], vec![]),
        kind("IB", Compute::InputScatter, all(4), vec![], vec![], vec![]),
    ];
    if two {
        let unscaled = Source::Pass { kind: KindId(2), at: Relation::Here, port: Some(Port(1)) };
        let needs = vec![result(Where::All, 1), Need { on: Where::All, from: unscaled, span: None }];
        let rescale = kind("C1.step", Compute::OutputRescale, needs, vec![dx], vec![], vec![]);
        kinds.push(Kind { queue: Queue::Group, ..rescale });
    }
    let collective = |name: &str, op, kind, source, reader| Collective {
        name: name.to_owned(),
        op,
        kind: KindId(kind),
        port: Port(0),
        source,
        reader,
        after: None,
        lockstep,
        span: None,
    };
    let summed = if two { 6 } else { 3 };
    let collectives = vec![
        collective("broadcast F(last)", CollectiveOp::Broadcast, 0, Where::Last, Where::All),
        collective("C1.stats", CollectiveOp::AllGather, 2, Where::All, Where::All),
        Collective {
            after: two.then_some(CollectiveId(1)),
            ..collective("C2.dx", CollectiveOp::Reduce, summed, Where::All, Where::Last)
        },
        collective("reduce IF", CollectiveOp::Reduce, 4, Where::All, Where::First),
        collective("broadcast B(first)", CollectiveOp::Broadcast, 1, Where::First, Where::All),
    ];
    Transform {
        name: format!("{vocabulary:?}"),
        span,
        kinds,
        collectives,
        edges: vec![(KindId(1), result(Where::Last, 2)), (KindId(0), result(Where::First, 3))],
        limits: vec![Limit::Class { class: logits, most: 2, span }],
        deepen: if two { 1 } else { 2 },
    }
}
