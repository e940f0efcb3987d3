//! The forms of a plan: what is written reads back equal, and no file brings the reader down.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use schedc::emit::{plan_hash, plan_json, plan_schema, plan_text};
use schedc::import::read_plan;
use schedc::verify::{Options, verify};

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
                match read_plan(&name, &bytes) {
                    Ok((plan, source)) => {
                        if let Err(refused) = verify(plan, &Options::default()) {
                            let report = miette::Report::new(refused.labelled_in_plan(source));
                            assert!(!format!("{report:?}").is_empty());
                        }
                    }
                    Err(error) => assert!(!format!("{:?}", miette::Report::new(error)).is_empty()),
                }
            }
        }
    }
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
