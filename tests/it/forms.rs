//! The forms of a plan: what is written reads back equal, and no file brings the reader down.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use schedc::emit::{plan_hash, plan_json, plan_schema, plan_text};
use schedc::import::read_plan;
use schedc::verify::{Options, verify};
use serde_json::Value;

use crate::compiled::{library, tiny};
use crate::plans::plans;

#[test]
fn the_text_form_reads_back_as_an_equal_plan() {
    for (name, plan) in plans() {
        let text = plan_text(&plan);
        let (again, _) = read_plan(&name, text.as_bytes()).unwrap();
        assert_eq!(again, plan, "{name}");
        assert_eq!(text, std::fs::read_to_string(format!("tests/plans/{name}.plan")).unwrap(), "{name}");
    }
}

#[test]
fn the_json_form_reads_back_as_an_equal_plan() {
    for (name, plan) in plans() {
        let (again, _) = read_plan(&name, plan_json(&plan).as_bytes()).unwrap();
        assert_eq!(again, plan, "{name}");
    }
}

#[test]
fn the_published_schema_is_current() {
    let path = "docs/plan.schema.json";
    if std::env::var_os("SCHEDC_BLESS").is_some() {
        std::fs::write(path, plan_schema()).unwrap();
    }
    let published = std::fs::read_to_string(path).unwrap();
    assert!(published == plan_schema(), "run the tests once with SCHEDC_BLESS=1 and commit {path}");
}

#[test]
fn the_hash_tells_plans_apart_and_nothing_else() {
    let plans = plans();
    let hashes: Vec<_> = plans.iter().map(|(_, plan)| plan_hash(plan)).collect();
    for (position, hash) in hashes.iter().enumerate() {
        assert_eq!(hashes.iter().position(|other| other == hash), Some(position));
        assert_eq!(*hash, plan_hash(&plans[position].1.clone()));
        assert_eq!(hash.to_string().len(), 64);
    }
}

#[test]
fn damaged_files_are_read_or_refused_and_never_bring_the_reader_down() {
    let mut rng = ChaCha8Rng::seed_from_u64(7);
    let alphabet = b"0123456789 bigmrsox.-[],\"\n\xff{}";
    for (name, plan) in plans() {
        for text in [plan_text(&plan), plan_json(&plan)] {
            for _ in 0..150 {
                let mut bytes = text.clone().into_bytes();
                for _ in 0..rng.random_range(1..4) {
                    let at = rng.random_range(0..bytes.len());
                    match rng.random_range(0..4) {
                        0 => bytes.truncate(at.max(1)),
                        1 => bytes.insert(at, alphabet[rng.random_range(0..alphabet.len())]),
                        2 => drop(bytes.remove(at)),
                        _ => bytes[at] = alphabet[rng.random_range(0..alphabet.len())],
                    }
                }
                judge(&name, &bytes);
            }
        }
    }
}

/// Reads and verifies, and renders what is said against the file. Whether it is sound.
fn judge(name: &str, bytes: &[u8]) -> bool {
    let report = match read_plan(name, bytes) {
        Ok((plan, source)) => match verify(plan, &Options::default()) {
            Ok(_) => return true,
            Err(refused) => miette::Report::new(refused.labelled_in_plan(source)),
        },
        Err(error) => miette::Report::new(error),
    };
    assert!(!format!("{report:?}").is_empty());
    false
}

/// Numbers that ids, counts and sizes break at.
const NUMBERS: [u64; 12] =
    [0, 1, 2, 3, 5, 63, 65, 65_535, 65_536, u32::MAX as u64, i64::MAX as u64, u64::MAX];

/// Counts the numbers and lists of a JSON value, and changes the one with the number `at`.
fn change(value: &mut Value, at: &mut usize, rng: &mut ChaCha8Rng) {
    let mut here = || {
        let here = *at == 0;
        *at = at.wrapping_sub(1);
        here
    };
    match value {
        Value::Number(number) if here() => {
            let nearby =
                number.as_u64().unwrap_or_default().wrapping_add(rng.random_range(0..3)).wrapping_sub(1);
            let other = NUMBERS[rng.random_range(0..NUMBERS.len())];
            *value = if rng.random_bool(0.5) { nearby } else { other }.into();
        }
        Value::Array(items) => {
            if here() && !items.is_empty() {
                let item = rng.random_range(0..items.len());
                match rng.random_range(0..3) {
                    0 => drop(items.remove(item)),
                    1 => items.insert(item, items[item].clone()),
                    _ => items.swap(0, item),
                }
            }
            for item in items {
                change(item, at, rng);
            }
        }
        Value::Object(fields) => fields.values_mut().for_each(|field| change(field, at, rng)),
        _ => {}
    }
}

/// Changes a word of digits of a line, or drops, repeats or moves the line.
fn change_line(lines: &mut Vec<String>, rng: &mut ChaCha8Rng) {
    let at = rng.random_range(0..lines.len());
    match rng.random_range(0..8) {
        0 => drop(lines.remove(at)),
        1 => lines.insert(at, lines[at].clone()),
        2 => {
            let other = rng.random_range(0..lines.len());
            lines.swap(at, other);
        }
        _ => {
            let starts: Vec<usize> =
                lines[at].match_indices(|c: char| c.is_ascii_digit()).map(|(at, _)| at).collect();
            if starts.is_empty() {
                return;
            }
            let start = starts[rng.random_range(0..starts.len())];
            let number = if rng.random_bool(0.7) {
                rng.random_range(0..10)
            } else {
                NUMBERS[rng.random_range(0..NUMBERS.len())]
            };
            lines[at].replace_range(start..=start, &number.to_string());
        }
    }
}

#[test]
fn plans_with_other_numbers_or_items_are_read_and_verified_or_refused() {
    let mut rng = ChaCha8Rng::seed_from_u64(11);
    let mut refused = 0;
    for (schedule, with) in [("1f1b", None), ("1f1b", Some("vocab-2")), ("zb-h1", Some("interlaced"))] {
        let plan = library(schedule, with, 2, 2, tiny(2, true));
        let json: Value = serde_json::from_str(&plan_json(&plan)).unwrap();
        let lines: Vec<String> = plan_text(&plan).lines().map(str::to_owned).collect();
        let mut places = usize::MAX;
        change(&mut json.clone(), &mut places, &mut rng);
        let places = usize::MAX - places;
        let header = lines.iter().position(|line| line.starts_with("rank ")).unwrap();
        for case in 0..600 {
            let mut other = json.clone();
            for _ in 0..rng.random_range(1..3) {
                // The first places are the header's, on which everything else rests.
                let mut at = rng.random_range(0..if case % 2 == 0 { places } else { places.min(150) });
                change(&mut other, &mut at, &mut rng);
            }
            refused += usize::from(!judge("other.json", other.to_string().as_bytes()));
            let mut other = lines.clone();
            for _ in 0..rng.random_range(1..3) {
                change_line(&mut other, &mut rng);
            }
            if case % 2 == 0 {
                let mut head: Vec<String> = other.drain(..header.min(other.len())).collect();
                change_line(&mut head, &mut rng);
                other.splice(0..0, head);
            }
            refused += usize::from(!judge("other.plan", other.join("\n").as_bytes()));
        }
    }
    assert!(refused > 2500, "only {refused} of 3600 are refused");
}

#[test]
fn hostile_files_are_refused_quickly() {
    let long_line = "x".repeat(20_000_000);
    let nested = "[".repeat(5_000_000);
    let many_ranks = "schedc plan 1\nname a\nranks 4294967295\nmicrobatches 4294967295\nstages r4294967295\n\
        model layers=1 hidden=1 heads=1 sequence=1 batch=1 vocab=1 tied=false\n\
        rank r0\npeak 0 B\nlanes compute\n";
    for text in
        [&long_line, &format!("{{\"version\":1,\"header\":{nested}"), &nested, many_ranks, "", "\0\0", "{"]
    {
        let report = match read_plan("hostile", text.as_bytes()) {
            Err(error) => format!("{:?}", miette::Report::new(error)),
            Ok((plan, _)) => verify(plan, &Options::default()).unwrap_err().to_string(),
        };
        assert!(report.len() < 10_000, "{} bytes of report", report.len());
    }
}
