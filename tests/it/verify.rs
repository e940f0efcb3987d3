//! The verifier passes sound plans, and refuses each kind of unsound one with its own code and a readable report.

use miette::{Diagnostic, GraphicalReportHandler, GraphicalTheme};
use schedc::import::read_plan;
use schedc::ir::{Bytes, ClassId};
use schedc::verify::{Channel, Fifo, Options, Sends, verify};

use crate::plans::plans;

#[test]
fn sound_plans_are_verified() {
    for (name, plan) in plans() {
        if let Err(refused) = verify(plan, &Options::default()) {
            panic!("{name}: {}", render(&*refused));
        }
    }
}

#[test]
fn a_plan_may_be_safe_on_one_channel_and_hang_on_another() {
    let text = std::fs::read("tests/ui/verify/deadlock.plan").unwrap();
    let verdict = |sends, queue| {
        let (plan, _) = read_plan("deadlock", &text).unwrap();
        verify(plan, &Options { channel: Channel { sends, queue }, memory_limit: None }).is_ok()
    };
    assert!(!verdict(Sends::Rendezvous, Fifo::PerPair));
    assert!(!verdict(Sends::Buffered(0), Fifo::PerPair));
    assert!(!verdict(Sends::Rendezvous, Fifo::PerRank));
    assert!(verdict(Sends::Rendezvous, Fifo::PerDirection));
    assert!(verdict(Sends::Buffered(2), Fifo::PerPair));
}

#[test]
fn a_class_that_does_not_exist_is_refused_before_anything_looks_it_up() {
    for (name, plan) in plans() {
        for kind in 0..plan.header.catalog.kinds.len() {
            let mut added = plan.clone();
            added.header.catalog.kinds[kind].makes.push(ClassId(65_000));
            let mut changed = plan.clone();
            changed.header.catalog.kinds[kind].gives.fill(ClassId(65_000));
            let changed = (!changed.header.catalog.kinds[kind].gives.is_empty()).then_some(changed);
            for broken in std::iter::once(added).chain(changed) {
                let refused = verify(broken, &Options::default()).expect_err(&name);
                assert_eq!(refused.violations[0].name(), "schedc::verify::malformed_catalog", "{name}");
            }
        }
    }
}

#[test]
fn every_broken_plan_is_refused_with_the_code_that_its_file_is_named_for() {
    for path in fixtures("verify") {
        let stem = stem(&path);
        let code = stem.split('@').next().unwrap();
        let (plan, source) = read_plan(&format!("{stem}.plan"), &std::fs::read(&path).unwrap())
            .map_err(miette::Report::new)
            .unwrap();
        let memory_limit = (code == "over_limit").then_some(Bytes(4000));
        let refused = verify(plan, &Options { memory_limit, ..Options::default() }).expect_err(&stem);
        let codes: Vec<_> = refused.violations.iter().map(schedc::verify::Violation::name).collect();
        assert!(codes.contains(&format!("schedc::verify::{code}")), "{stem}: {codes:?}");
        snapshot("verify", &stem, &render(&refused.labelled_in_plan(source)));
    }
}

#[test]
fn every_file_that_is_no_plan_is_refused_with_the_code_that_it_is_named_for() {
    for path in fixtures("import") {
        let stem = stem(&path);
        let code = stem.split('@').next().unwrap();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let error = read_plan(&name, &std::fs::read(&path).unwrap()).expect_err(&stem);
        let codes: Vec<_> =
            error.problems.iter().map(|problem| problem.code().unwrap().to_string()).collect();
        assert!(codes.contains(&format!("schedc::import::{code}")), "{stem}: {codes:?}");
        snapshot("import", &stem, &render(&error));
    }
}

fn fixtures(room: &str) -> Vec<std::path::PathBuf> {
    let files = std::fs::read_dir(format!("tests/ui/{room}")).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<_> =
        files.filter(|path| path.extension().is_some_and(|kind| kind == "plan" || kind == "json")).collect();
    files.sort();
    assert!(!files.is_empty());
    files
}

fn stem(path: &std::path::Path) -> String {
    path.file_stem().unwrap().to_string_lossy().into_owned()
}

fn snapshot(room: &str, stem: &str, report: &str) {
    insta::with_settings!({
        snapshot_path => format!("../ui/{room}"),
        prepend_module_to_snapshot => false,
        omit_expression => true,
    }, { insta::assert_snapshot!(stem, report) });
}

fn render(diagnostic: &dyn Diagnostic) -> String {
    let mut text = String::new();
    GraphicalReportHandler::new_themed(GraphicalTheme::unicode_nocolor())
        .with_width(110)
        .render_report(&mut text, diagnostic)
        .unwrap();
    text.lines().map(str::trim_end).collect::<Vec<_>>().join("\n")
}
