//! Random orders are refused with a diagnostic or give a verified plan; nothing panics, and no unsound plan is made.

use proptest::prelude::*;
use schedc::cost::UNIT;
use schedc::diag::{Cause, Error};
use schedc::driver::{Input, Job, compile};
use schedc::ir::Mode;
use schedc::resolve::{Model, Partitioning};
use schedc::source::Sources;
use schedc::verify::Verified;

use crate::compiled::tiny;

/// A pattern over passes, with bounded repeats.
fn pattern(passes: &'static [&'static str]) -> impl Strategy<Value = String> {
    let numbers = vec!["*", "*", "*", "1", "2", "(rank + 1)", "(ranks - rank)", "(microbatches / 2)"];
    let repeats = prop::sample::select(numbers);
    let leaf = prop::sample::select(passes).prop_map(str::to_owned);
    leaf.prop_recursive(4, 12, 4, move |inner| {
        let sequence = prop::collection::vec(inner.clone(), 1..4).prop_map(|parts| parts.join(" "));
        prop_oneof![
            sequence.clone(),
            (sequence.clone(), repeats.clone()).prop_map(|(body, times)| format!("({body})^{times}")),
            (sequence.clone(), sequence)
                .prop_map(|(left, right)| format!("if rank % 2 == 0 {{ {left} }} else {{ {right} }}")),
        ]
    })
}

/// A schedule that takes what its random pattern leaves over.
fn program() -> impl Strategy<Value = String> {
    let order = any::<bool>().prop_flat_map(|split| {
        let passes: &'static [&'static str] =
            if split { &["F", "F", "B", "B", "W"] } else { &["F", "F", "B"] };
        let leads = vec![
            "",
            "F ",
            "F^(min(ranks - rank, microbatches)) ",
            "F^(min(2 * (ranks - rank) + 1, chunks * microbatches)) ",
        ];
        let steady = vec![
            "(F B)^*",
            "(F F B B)^*",
            "(F B)^(rank + 1) (B F)^*",
            "(F^2 B)^* (B F)^*",
            "(F B^2)^* (F B)^*",
            "(F & B)^*",
            "F^(rank + 1) (F & B B & F)^*",
        ];
        let pattern =
            prop_oneof![1 => pattern(passes), 1 => prop::sample::select(steady).prop_map(str::to_owned)];
        (Just(split), prop::sample::select(leads), pattern).prop_map(|(split, lead, pattern)| {
            let (declared, rest) =
                if split { ("passes F, B, W\n    ", "F^* (B W)^* B^* W^*") } else { ("", "F^* B^*") };
            (declared, format!("order {lead}{pattern} {rest}"))
        })
    });
    let place = prop::sample::select(vec!["loop", "wave", "bidirectional"]);
    let stream = prop::sample::select(vec!["microbatch, -chunk", "-chunk, microbatch", "microbatch"]);
    let slices = prop::sample::select(vec![1, 1, 2, 4_u32]);
    (1..4_u32, slices, place, stream, order).prop_map(|(chunks, slices, place, stream, (declared, order))| {
        // A wave has an end at every rank, so each rank has an even number of its stages.
        let place = if chunks == 2 { place } else { "loop" };
        let slices = if place == "bidirectional" { 1 } else { slices };
        let weights = if declared.is_empty() { String::new() } else { format!("stream W by {stream}, -slice\n    ") };
        format!(
            "schedule \"random\" {{\n    {declared}chunks {chunks}\n    slices {slices}\n    place {place}\n    \
             stream B by {stream}, -slice\n    {weights}{order}\n}}\n"
        )
    })
}

/// Compiles a random schedule for a model whose layers do not come out even.
fn compiled(
    text: &str,
    ranks: u32,
    microbatches: u32,
    with: Option<&str>,
    tied: bool,
) -> Result<Verified, Vec<Error>> {
    let with: Vec<String> = with.iter().map(ToString::to_string).collect();
    let job = Job {
        input: Input::File { name: "random.sched", bytes: text.as_bytes(), schedule: None },
        with: &with,
        set: &[],
        ranks,
        microbatches,
        model: Model { layers: Some(3), dims: tiny(3, tied), partition: Partitioning::Uniform },
        costs: &UNIT,
        retime: None,
        mode: Mode::Training,
    };
    compile(&job, &mut Sources::default())
}

/// The reports of errors that no order may cause, with the schedule.
fn unexpected(errors: Vec<Error>, text: &str) -> String {
    let order = |error: &Error| matches!(error.cause(), Cause::Order(_) | Cause::Lower(_));
    let reports = errors
        .into_iter()
        .filter(|error| !order(error))
        .map(|error| format!("{:?}\n", miette::Report::new(error)));
    let reports: String = reports.collect();
    if reports.is_empty() { reports } else { reports + text }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_order_is_refused_with_a_diagnostic_or_gives_a_verified_plan_under_every_transform(
        text in program(),
        ranks in 1..6_u32,
        microbatches in 1..9_u32,
        with in prop::sample::select(vec!["vocab-1", "vocab-2", "interlaced"]),
        tied in any::<bool>(),
    ) {
        match compiled(&text, ranks, microbatches, None, tied) {
            Ok(plan) => {
                prop_assert_eq!(plan.header.microbatches, microbatches);
                let sharded = compiled(&text, ranks, microbatches, Some(with), tied);
                let sharded = sharded.map_err(|errors| format!("{:?}\n{text}", miette::Report::new(errors.into_iter().next().unwrap())));
                prop_assert!(sharded.is_ok(), "{}", sharded.unwrap_err());
            }
            Err(errors) => {
                let reports = unexpected(errors, &text);
                prop_assert!(reports.is_empty(), "{}", reports);
            }
        }
    }
}
