//! Layers spread unevenly: plans that say so, what they compute, and what the balance is.

use schedc::cost::{UNIT, balance};
use schedc::driver::{Input, Job, compile};
use schedc::ir::{Dims, Mode, Partition, Plan, Precision, Stage};
use schedc::resolve::{Model, Partitioning};
use schedc::source::Sources;
use schedc::verify::{Options, Verified, verify};

use crate::compiled::tiny;
use crate::execute::matrix;

fn spread(schedule: &str, with: &[&str], ranks: u32, partition: Partitioning, dims: Dims) -> Verified {
    let with: Vec<String> = with.iter().map(ToString::to_string).collect();
    let job = Job {
        input: Input::Library(schedule),
        with: &with,
        set: &[],
        ranks,
        microbatches: 4,
        model: Model { layers: Some(dims.layers), dims, partition },
        costs: &UNIT,
        retime: None,
        mode: Mode::Training,
    };
    compile(&job, &mut Sources::default()).unwrap_or_else(|errors| {
        panic!("{schedule} {with:?}: {:?}", errors.into_iter().next().map(miette::Report::new))
    })
}

fn read(text: &str) -> Plan {
    schedc::import::read_plan("own", text.as_bytes()).map_err(miette::Report::new).unwrap().0
}

fn layers(plan: &Plan) -> Vec<usize> {
    Stage::all(plan.header.depth() as usize).map(|place| plan.header.layers_of(place).len()).collect()
}

#[test]
fn uneven_stages_compute_what_one_rank_computes() {
    let cases: [(&str, &[&str], u32, &[u32]); 8] = [
        ("1f1b", &[], 3, &[1, 3, 1]),
        ("1f1b", &["vocab-1"], 2, &[1, 4]),
        ("1f1b", &["vocab-2"], 3, &[2, 2, 1]),
        ("zb-h1", &[], 3, &[2, 3, 0]),
        ("zb-h1", &["interlaced"], 2, &[3, 1]),
        ("v-half", &[], 2, &[1, 2, 0, 1]),
        ("gpipe", &[], 3, &[0, 2, 0]),
        ("dualpipe", &[], 2, &[1, 2]),
    ];
    for (schedule, with, ranks, given) in cases {
        for tied in [false, true] {
            let dims = tiny(given.iter().sum(), tied);
            let plan = spread(schedule, with, ranks, Partitioning::Given(given.to_vec()), dims);
            assert_eq!(layers(&plan), given.iter().map(|&count| count as usize).collect::<Vec<_>>());
            matrix([(format!("{schedule} {with:?} with {given:?} layers, tied: {tied}"), plan)]);
        }
    }
}

#[test]
fn a_partition_is_written_and_read_back() {
    let plan = spread("1f1b", &[], 3, Partitioning::Given(vec![1, 3, 1]), tiny(5, false));
    let text = schedc::emit::plan_text(&plan);
    assert!(text.contains("\nlayers 1 3 1\n"), "{text}");
    assert_eq!(&read(&text), plan.plan());
    let json = schedc::emit::plan_json(&plan);
    assert_eq!(&read(&json), plan.plan());
    for (wrong, says) in
        [("layers 1 3", "5 layers"), ("layers 1 3 2", "6 layers"), ("layers 1 4294967295 1", "layers")]
    {
        let other = read(&text.replace("layers 1 3 1", wrong));
        let refused = verify(other, &Options::default()).unwrap_err();
        let first = refused.violations[0].to_string();
        assert!(first.contains("partition") && (says == "5 layers" || first.contains(says)), "{first}");
    }
}

#[test]
fn even_numbers_are_the_uniform_partition() {
    assert!(Partition::of(vec![3, 3, 2]).is_uniform());
    assert!(!Partition::of(vec![2, 3, 3]).is_uniform());
    let given = spread("1f1b", &[], 3, Partitioning::Given(vec![2, 2, 1]), tiny(5, false));
    let uniform = spread("1f1b", &[], 3, Partitioning::Uniform, tiny(5, false));
    assert_eq!(given.plan(), uniform.plan());
}

/// Of a 4B model at a vocabulary of 256k the output layer is worth 6.25 of the 32 layers.
#[test]
fn balance_takes_layers_from_where_the_vocabulary_lies() {
    let dims = Dims {
        layers: 32,
        hidden: 3072,
        heads: 24,
        sequence: 2048,
        batch: 1,
        vocab: 256_000,
        tied: false,
        precision: Precision::F32,
    };
    let on =
        |schedule: &str, with: &[&str], ranks| layers(&spread(schedule, with, ranks, balance(&dims), dims));
    assert_eq!(on("1f1b", &[], 8), [4, 4, 4, 5, 5, 5, 5, 0]);
    assert_eq!(on("1f1b", &["vocab-2"], 8), [4; 8]);
    // The first rank holds both ends: of 38.25 layers' worth, a quarter is 9.56.
    assert_eq!(on("v-half", &[], 4), [3, 4, 5, 5, 5, 5, 5, 0]);
}
