//! Activations in flight: what plans state against closed forms, with and without transforms; and the edges of p and m.

use schedc::verify::Verified;

use crate::compiled::{SCHEDULES, TRANSFORMS, library, tiny};

fn plan(schedule: &str, with: Option<&str>, p: u32, m: u32) -> Verified {
    library(schedule, with, p, m, tiny(2, false))
}

/// The most buffers of a class that are live at once, by rank.
fn live(plan: &Verified, class: &str) -> Vec<u32> {
    let id = plan.header.catalog.classes.iter().position(|declared| declared.name == class).unwrap();
    plan.ranks.iter().map(|rank| rank.peak.live[id]).collect()
}

/// Stages on a rank that a microbatch passes through.
fn chunks(plan: &Verified) -> u32 {
    plan.header.depth() / plan.header.ranks()
}

#[test]
fn vocabulary_parallelism_costs_1f1b_one_activation_for_each_barrier() {
    let on_first = |with| live(&plan("1f1b", with, 8, 32), "act")[0];
    assert_eq!(on_first(None), 8);
    assert_eq!(on_first(Some("vocab-2")), 9);
    assert_eq!(on_first(Some("vocab-1")), 10);
    assert!(on_first(Some("interlaced")) <= 12);
}

#[test]
fn at_most_two_shards_of_logits_are_in_flight() {
    for schedule in SCHEDULES {
        for with in TRANSFORMS.into_iter().flatten() {
            for (p, m) in [(1, 4), (4, 8), (8, 32)] {
                let logits = live(&plan(schedule, Some(with), p, m), "logits");
                assert!(
                    logits.iter().all(|&live| live <= 2),
                    "{schedule} with {with} p={p} m={m}: {logits:?}"
                );
            }
        }
    }
}

/// Microbatches more in flight: one for each barrier between F(last) and B(last); in lock step every other rank waits half a turn.
fn more(with: &str, p: u32) -> u32 {
    match with {
        "vocab-2" => 1,
        "interlaced" => p / 2,
        _ => 2,
    }
}

/// The schedules that are blocks or priority lists.
const BY_TIME: [&str; 6] = ["hanayo", "interleaved-zb", "zb-v", "v-half", "v-min", "1f1b-v"];

#[test]
fn a_transform_keeps_one_microbatch_more_for_each_barrier() {
    for schedule in SCHEDULES {
        for (p, m) in [(1, 3), (2, 8), (4, 3), (4, 16), (5, 13), (8, 32)] {
            let plain = plan(schedule, None, p, m);
            let v = chunks(&plain);
            // What a stage has in flight are slices, where sequences are cut.
            let units = m * plain.header.slices;
            for with in TRANSFORMS.into_iter().flatten() {
                let with_it = live(&plan(schedule, Some(with), p, m), "act");
                let plain = live(&plain, "act");
                // An order placed by time takes the memory of the fullest rank on every rank, and less where that is no longer.
                let fullest = plain.iter().copied().max().filter(|_| BY_TIME.contains(&schedule));
                for (rank, (&with_it, plain)) in with_it.iter().zip(plain).enumerate() {
                    let most = (fullest.unwrap_or(plain) + more(with, p) * v).min(v * units);
                    assert!(
                        with_it <= most,
                        "{schedule} with {with} p={p} m={m} r{rank}: {with_it} > {most}"
                    );
                    assert!(
                        with_it >= plain || fullest.is_some(),
                        "{schedule} with {with} p={p} m={m} r{rank}: below the plain plan"
                    );
                }
            }
        }
    }
}

#[test]
fn peaks_of_two_flows_equal_their_closed_forms() {
    for (p, m) in [(2_u32, 8_u32), (4, 8), (4, 16), (8, 32)] {
        let forms: [(&str, &dyn Fn(u32) -> u32); 3] = [
            // Half of the unit in the near flow, and the far flow's as 1F1B has them.
            ("chimera", &|rank| p / 2 + 1 + rank.min(p - rank - 1)),
            ("dualpipe", &|_| p + 1),
            ("dualpipe-v", &|_| 2 * p + 1),
        ];
        for (schedule, form) in forms {
            let expected: Vec<u32> = (0..p).map(form).collect();
            assert_eq!(live(&plan(schedule, None, p, m), "act"), expected, "{schedule} p={p} m={m}");
        }
    }
}

#[test]
fn peaks_equal_their_closed_forms() {
    for (p, m) in [(1_u32, 4_u32), (2, 4), (3, 7), (4, 8), (4, 16), (5, 13), (8, 32)] {
        let forms: [(&str, &dyn Fn(u32) -> u32); 7] = [
            ("gpipe", &|_| m),
            ("1f1b", &|rank| (p - rank).min(m)),
            ("eager-1f1b", &|rank| (2 * (p - rank) - 1).min(m)),
            // (v + 1)p - 1 chunks on rank 0 and two less on each rank after it.
            ("interleaved", &|rank| (3 * p - 1 - 2 * rank).min(2 * m)),
            ("looped-bfs", &|_| 2 * m),
            ("zb-h1", &|_| p.min(m)),
            ("zb-h2", &|_| (2 * p - 1).min(m)),
        ];
        for (schedule, form) in forms {
            // Where groups of microbatches do not come out even the last one is longer, and its warm-up with it.
            if schedule == "interleaved" && (m % p != 0 || m < 2 * p) {
                continue;
            }
            let expected: Vec<u32> = (0..p).map(form).collect();
            assert_eq!(live(&plan(schedule, None, p, m), "act"), expected, "{schedule} p={p} m={m}");
        }
    }
}

/// Every schedule under every transform is compiled and verified.
fn sizes(sizes: &[(u32, u32)]) {
    for schedule in SCHEDULES {
        for with in TRANSFORMS {
            for &(p, m) in sizes {
                let compiled = plan(schedule, with, p, m);
                assert_eq!((compiled.header.ranks(), compiled.header.microbatches), (p, m));
            }
        }
    }
}

#[test]
fn one_rank_and_one_microbatch_work() {
    sizes(&[(1, 1), (1, 2), (1, 5), (2, 1), (3, 1), (8, 1)]);
}

#[test]
fn fewer_microbatches_than_ranks_work() {
    sizes(&[(4, 2), (4, 3), (8, 3), (8, 7)]);
}

#[test]
fn uneven_numbers_of_ranks_and_microbatches_work() {
    sizes(&[(3, 4), (5, 7), (5, 13), (7, 11), (6, 31)]);
}

#[test]
fn sixty_four_ranks_are_compiled_for_every_schedule() {
    sizes(&[(64, 1), (64, 3), (64, 65)]);
}
