//! Small plans for tests of the interpreter: 1F1B over fused passes F and B, built without the language.

use schedc::cost::Costs;
use schedc::execute::Verified;
use schedc::ir::{
    At, Catalog, Class, ClassId, Compute, Dims, Kind, KindId, Microbatch, Need, Pass, Placed, Port, Queue,
    Rank, Relation, Schedule, Shape, Site, Source, Stage, Where,
};
use schedc::lower::lower;

/// A model that takes milliseconds.
pub(crate) fn tiny(layers: u32, tied: bool) -> Dims {
    Dims { layers, hidden: 8, heads: 2, sequence: 4, batch: 2, vocab: 256, tied }
}

/// A verified 1F1B plan on `ranks` ranks, one stage each.
pub(crate) fn one_f_one_b(ranks: u32, microbatches: u32, model: Dims) -> Verified {
    let shape = Shape { ranks, microbatches, chunks: 1, stages: Rank::all(ranks as usize).collect() };
    let catalog = catalog(&shape, &model);
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
    let costs = Costs::unit(&schedule.catalog, 1);
    Verified(lower(&schedule, &costs).expect("1F1B does not deadlock"))
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

fn catalog(shape: &Shape, model: &Dims) -> Catalog {
    let tokens = model.tokens();
    let [hidden, heads, sequence, vocab] =
        [model.hidden, model.heads, model.sequence, model.vocab].map(u64::from);
    let stages = u32::try_from(shape.stages.len()).unwrap();
    let act = |stage: Stage| {
        let layers = model.layers_of(stage, stages).len() as u64;
        let last = u64::from(stage == shape.last());
        vec![tokens, layers * (16 * hidden + heads * sequence + 4) + last * (2 * hidden + 2 + vocab)]
    };
    let class = |name: &str, shape_at: &dyn Fn(Stage) -> Vec<u64>| Class {
        name: name.to_owned(),
        at_stage: Stage::all(shape.stages.len()).map(shape_at).collect(),
        at_rank: vec![tokens, hidden],
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
