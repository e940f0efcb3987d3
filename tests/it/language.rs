//! The language means what `docs/language.md` says, and hostile texts are refused in no time.

use std::time::Instant;

use schedc::diag::Error;
use schedc::ir::{
    ClassId, CollectiveId, CollectiveOp, FileId, Flow, Pattern, PatternKind, Port, Program, Queue, Rank,
    RankOrder, Relation, Repeat, Source, Where,
};
use schedc::source::{Library, STDLIB, Sources};
use schedc::syntax::parse;

use crate::support::{Options, code, program};

/// A program that must be accepted.
fn accepted(text: &str, options: &str) -> Program {
    program("test.sched", text.as_bytes(), &Options::parse(options)).unwrap_or_else(|errors| {
        let reports: String = errors.iter().map(crate::support::rendered).collect();
        panic!("{reports}\n{text}")
    })
}

/// The codes that a text is refused with.
fn refused(text: &str) -> Vec<String> {
    let errors: Vec<Error> =
        program("test.sched", text.as_bytes(), &Options::default()).expect_err("is refused");
    errors.iter().map(code).collect()
}

fn library(name: &str) -> &'static str {
    STDLIB.iter().find(|file| file.name == name).expect("a library file").text
}

#[test]
fn every_library_schedule_resolves_with_every_transform() {
    let library = Library::load(&mut Sources::default());
    for schedule in library.schedules() {
        let text = library.show(schedule.name).expect("what is listed is shown");
        for ranks in [1, 2, 4, 64] {
            for microbatches in [1, 3, 8] {
                let numbers = format!("ranks={ranks} microbatches={microbatches}");
                let name = schedule.name;
                let plain = program_of(text, &format!("{numbers} schedule={name}"));
                assert_eq!(plain.ranks.len(), ranks);
                for transform in library.transforms() {
                    let with = format!("{numbers} schedule={name} with={}", transform.name);
                    assert_eq!(program_of(text, &with).transforms.len(), 1);
                }
            }
        }
    }
}

/// A library schedule; its text is compiled as the user's copy under another name.
fn program_of(text: &str, options: &str) -> Program {
    accepted(text, options)
}

#[test]
fn without_w_the_backward_pass_is_fused() {
    let program = accepted(library("1f1b"), "");
    let b = program.catalog.kind(program.catalog.kind_named("B").unwrap());
    assert_eq!(b.computes.unwrap().word(), "stage_backward");
    let class = |name: &str| program.catalog.classes.iter().position(|class| class.name == name).unwrap();
    assert_eq!(b.frees.iter().copied().map(ClassId::index).collect::<Vec<_>>(), [class("act")]);
    assert!(b.makes.is_empty());
    let split = accepted(library("zb-h1"), "");
    let b = split.catalog.kind(split.catalog.kind_named("B").unwrap());
    assert_eq!(b.makes.iter().copied().map(ClassId::index).collect::<Vec<_>>(), [class("delta")]);
}

#[test]
fn the_pattern_of_each_rank_is_unfolded() {
    let program = accepted(library("1f1b"), "ranks=4 microbatches=8");
    let PatternKind::Sequence(parts) = &pattern(&program, 1).kind else { panic!("a sequence") };
    let times: Vec<Repeat> = parts
        .iter()
        .map(
            |part| if let PatternKind::Repeat { times, .. } = part.kind { times } else { panic!("a repeat") },
        )
        .collect();
    assert_eq!(times, [Repeat::Times(2), Repeat::UntilOut, Repeat::UntilOut]);
}

#[test]
fn vocab_2_becomes_one_gather_a_rescale_and_a_reduce_to_the_last_stage() {
    let program = accepted(library("1f1b"), "with=vocab-2");
    let transform = &program.transforms[0];
    let names: Vec<&str> = transform.kinds.iter().map(|kind| kind.name.as_str()).collect();
    assert_eq!(names, ["S", "C1", "T", "IF", "IB"]);
    assert_eq!(transform.kinds[1].queue, Queue::Group);
    let stats = &transform.collectives[0];
    let dx = &transform.collectives[1];
    assert_eq!(
        (stats.name.as_str(), stats.op, stats.reader),
        ("C1.stats", CollectiveOp::AllGather, Where::All)
    );
    assert_eq!((dx.name.as_str(), dx.op, dx.reader), ("C1.dx", CollectiveOp::Reduce, Where::Last));
    assert_eq!(dx.after.map(CollectiveId::index), Some(0));
    assert_eq!((dx.kind.index(), dx.port.index()), (3, 0));
    assert_eq!(transform.kinds[1].needs.len(), 2);
    let others: Vec<&str> = transform.collectives[2..].iter().map(|other| other.name.as_str()).collect();
    assert_eq!(others, ["broadcast F(last)", "reduce IF", "broadcast B(first)"]);
    assert_eq!(transform.edges.len(), 2);
    assert_eq!((transform.edges[0].0.index(), transform.edges[0].1.on), (1, Where::Last));
    assert_eq!(transform.deepen, 1);
    assert_eq!(transform.limits.len(), 3);
}

#[test]
fn interlaced_collectives_of_lockstep_passes_are_in_lockstep() {
    let program = accepted(library("1f1b"), "with=interlaced");
    assert!(program.transforms[0].collectives.iter().all(|collective| collective.lockstep));
    let plain = accepted(library("1f1b"), "with=vocab-1");
    assert!(plain.transforms[0].collectives.iter().all(|collective| !collective.lockstep));
}

#[test]
fn needs_at_other_stages_carry_the_first_value() {
    let program = accepted(library("zb-h1"), "");
    let b = program.catalog.kind(program.catalog.kind_named("B").unwrap());
    let ports: Vec<_> = b
        .needs
        .iter()
        .map(|need| match need.from {
            Source::Pass { at, port, .. } => (at, port.map(Port::index)),
            Source::Collective(_) => panic!("no collective without a transform"),
        })
        .collect();
    assert_eq!(ports, [(Relation::Here, None), (Relation::Next, Some(0))]);
}

#[test]
fn streams_are_sorted_by_their_keys() {
    let program = accepted(library("interleaved"), "ranks=2 microbatches=4");
    let f = program.ranks[0].streams[0].as_ref().expect("F has a stream");
    let shown: Vec<(u32, u32)> = f.iter().map(|(chunk, microbatch)| (chunk.0, microbatch.0)).collect();
    assert_eq!(shown, [(0, 0), (0, 1), (1, 0), (1, 1), (0, 2), (0, 3), (1, 2), (1, 3)]);
    let b = program.ranks[0].streams[1].as_ref().expect("B has a stream");
    assert_eq!((b[0].0.0, b[0].1.0), (1, 0));
}

#[test]
fn placements_loop_wave_and_by_expression() {
    let stages = |place: &str| {
        let text = format!("schedule \"x\" {{ chunks 2 place {place} order F^* B^* }}");
        accepted(&text, "ranks=3").shape.stages.iter().map(|rank| rank.0).collect::<Vec<_>>()
    };
    assert_eq!(stages("loop"), [0, 1, 2, 0, 1, 2]);
    assert_eq!(stages("wave"), [0, 1, 2, 2, 1, 0]);
    assert_eq!(stages("s -> s / chunks"), [0, 0, 1, 1, 2, 2]);
}

#[test]
fn shapes_follow_the_stage_and_the_shards() {
    let program = accepted(library("1f1b"), "ranks=4 with=vocab-1 layers=6");
    let class = |name: &str| program.catalog.classes.iter().find(|class| class.name == name).unwrap();
    // 6 layers on 4 stages: 2 2 1 1. hidden 16, heads 2, sequence 8, a shard of 16 entries.
    assert_eq!(class("act").at_stage[0], [8, 2 * (16 * 16 + 2 * 8 + 4)]);
    assert_eq!(class("act").at_stage[3], [8, (16 * 16 + 2 * 8 + 4) + 18]);
    assert_eq!(class("logits").at_rank, [8, 32]);
}

#[test]
fn conditions_loops_and_chunks_are_computed() {
    let text = "schedule \"x\" (v = 2) {
        chunks v
        let even = rank % 2 == 0
        order for i in 0..chunks { if even { F.i } else { F.(chunks - 1 - i)^1 } } F^* B^*
    }";
    let program = accepted(text, "ranks=2 set=v=3");
    let chunks = |rank: usize| {
        let PatternKind::Sequence(parts) = &pattern(&program, rank).kind else { panic!("a sequence") };
        let PatternKind::Sequence(turns) = &parts[0].kind else { panic!("the turns of the loop") };
        turns.iter().map(|turn| first_chunk(&turn.kind)).collect::<Vec<_>>()
    };
    assert_eq!((chunks(0), chunks(1)), (vec![0, 1, 2], vec![2, 1, 0]));
}

fn first_chunk(pattern: &PatternKind) -> u32 {
    match pattern {
        PatternKind::Pass { chunk, .. } => chunk.expect("a chunk").0,
        PatternKind::Pair(sides) => first_chunk(&sides[0].kind),
        PatternKind::Sequence(parts) => first_chunk(&parts[0].kind),
        PatternKind::Repeat { body, .. } => first_chunk(&body.kind),
    }
}

#[test]
fn division_truncates_and_remainders_take_the_sign_of_the_dividend() {
    let times = |expr: &str| {
        let text = format!("schedule \"x\" {{ order F^({expr}) F^* B^* }}");
        let program = accepted(&text, "");
        let PatternKind::Sequence(parts) = &pattern(&program, 0).kind else { panic!("a sequence") };
        let PatternKind::Repeat { times, .. } = parts[0].kind else { panic!("a repeat") };
        times
    };
    assert_eq!(times("3 + -7 / 2"), Repeat::Times(0));
    assert_eq!(times("3 + -7 % 2"), Repeat::Times(2));
    assert_eq!(times("abs(-2) + max(1, 2, 3) - min(4, 5)"), Repeat::Times(1));
}

#[test]
fn streams_of_a_large_pipeline_are_sorted_quickly() {
    let start = Instant::now();
    let program = accepted(library("interleaved"), "ranks=64 microbatches=1024");
    assert_eq!(program.ranks.len(), 64);
    assert!(start.elapsed().as_millis() < 1000, "took {:?}", start.elapsed());
}

#[test]
fn hostile_texts_are_refused_quickly() {
    let start = Instant::now();
    let order = |pattern: &str| format!("schedule \"x\" {{ order {pattern} }}");
    let cases = [
        (order(&"(".repeat(1_000_000)), "syntax::too_deep"),
        (order(&"(".repeat(10_000_000)), "syntax::too_large"),
        (format!("schedule \"x\" {{ let a = 1{} order F }}", "+1".repeat(500_000)), "syntax::too_deep"),
        (format!("schedule \"x\" {{ let a = {}1 order F }}", "-".repeat(1_000_000)), "syntax::too_deep"),
        (order(&"if 1 == 1 { ".repeat(80_000)), "syntax::too_deep"),
        ("\"".repeat(1_000_000), "syntax::unexpected_token"),
        (format!("//{}\nx", "/".repeat(1_000_000)), "syntax::unexpected_token"),
        ("x".repeat(1_000_000), "syntax::unexpected_token"),
        ("9".repeat(1_000_000), "syntax::number_too_large"),
        ("\u{1F600}".repeat(100_000), "syntax::unknown_character"),
        ("\0".repeat(100), "syntax::not_text"),
        (order("for i in 0..9000000000000000000 { }"), "resolve::order_too_long"),
        (order("for i in 0..3000 { for j in 0..3000 { F } }"), "resolve::order_too_long"),
    ];
    for (text, expected) in cases {
        assert_eq!(refused(&text), [expected]);
    }
    let lists = [
        format!("schedule \"x\" {{ {} order F^* B^* }}", "let a = 1 ".repeat(90_000)),
        "class a[]\n".repeat(90_000),
        format!("schedule \"x\" {{ passes {}F order F^* }}", "F,".repeat(400_000)),
        format!("schedule \"x\" {{ order F^(min({}1)) }}", "1,".repeat(400_000)),
    ];
    for text in lists {
        assert_eq!(refused(&text), ["syntax::too_long"]);
    }
    assert_eq!(refused(&order(&"X ".repeat(500_000))).len(), 20);
    let times = order("(F^9000000000000000000)^9000000000000000000 B^*");
    accepted(&times, "");
    let long = order(&"F ".repeat(100_000));
    assert_eq!(refused(&long), ["resolve::order_too_long"]);
    assert!(start.elapsed().as_secs() < 20, "took {:?}", start.elapsed());
}

#[test]
fn sizes_beyond_the_machine_are_refused() {
    for (numbers, expected) in [
        ("ranks=4294967295 microbatches=4294967295", "resolve::too_many_passes"),
        ("ranks=64 microbatches=4294967295", "resolve::too_many_passes"),
        ("seq=4294967295 hidden=4294967294 vocab=4294967295", "resolve::overflow"),
    ] {
        let text = "schedule \"x\" { order F^* B^* }";
        let errors = program("x", text.as_bytes(), &Options::parse(numbers)).expect_err("is refused");
        assert_eq!(code(&errors[0]), expected, "{numbers}");
    }
}

#[test]
fn docs_above_an_item_are_its_own() {
    let library = Library::load(&mut Sources::default());
    let vocab = library.transforms().find(|entry| entry.name == "vocab-2").expect("vocab-2");
    assert!(vocab.summary.starts_with("Algorithm 2"), "{}", vocab.summary);
    let schedule = library.schedules().find(|entry| entry.name == "zb-h1").expect("zb-h1");
    assert_eq!(
        schedule.summary,
        "Zero-bubble H1: weight gradients fill the cool-down; 1F1B's memory, a third of its bubble."
    );
}

/// The ```` ```sched ```` blocks of the language's manual.
fn blocks() -> Vec<String> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/language.md");
    let manual = std::fs::read_to_string(path).expect("docs/language.md");
    let blocks = manual.split("```sched\n").skip(1);
    blocks.map(|rest| rest.split("```").next().unwrap_or_default().to_owned()).collect()
}

#[test]
fn every_example_of_the_manual_compiles() {
    let blocks = blocks();
    assert!(blocks.len() >= 10, "the manual has examples");
    for block in blocks {
        crate::printer::formatted(&block);
        let tree = parse(FileId(0), &block).expect("examples are well spelt");
        let host = "schedule \"host\" { passes F, B, W order F^* (B W)^* }";
        let names: Vec<String> = tree.schedules().map(|schedule| schedule.name.text.clone()).collect();
        for name in &names {
            accepted(&block, &format!("schedule={name}"));
        }
        let applied = |name: &str| block.contains(&format!("apply \"{name}\""));
        for transform in tree.transforms().filter(|transform| !applied(&transform.name.text)) {
            let text = if names.is_empty() { format!("{block}\n{host}") } else { block.clone() };
            accepted(&text, &format!("with={}", transform.name.text));
        }
        if names.is_empty() {
            accepted(&format!("{block}\n{host}"), "");
        }
    }
}

#[test]
fn wave_holds_every_rank_twice() {
    let text = "schedule \"x\" { chunks 2 place wave order F^* B^* }";
    let program = accepted(text, "ranks=4");
    assert_eq!(program.shape.rank_of(program.shape.last_of(Flow(0))), Rank(0));
}

/// The pattern of a rank.
fn pattern(program: &Program, rank: usize) -> &Pattern {
    let RankOrder::Pattern(pattern) = &program.ranks[rank].order else { panic!("a pattern") };
    pattern
}
