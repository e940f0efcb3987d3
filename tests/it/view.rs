//! Pictures: the grid in the terminal, SVG, traces, and what a run records. The page is opened in `browser.rs`.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::cli::{SMALL, schedc};

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

#[track_caller]
fn view(folder: &Path, words: &str) -> String {
    let done = schedc(folder, &format!("view {words}"));
    assert_eq!(done.code, 0, "{}", done.err);
    done.out
}

/// The same with colours, though nobody sees them.
fn coloured(folder: &Path, words: &str, depth: &str) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_schedc"));
    command.arg("view").args(words.split_whitespace()).current_dir(folder);
    command.env("CLICOLOR_FORCE", "1").env("COLORTERM", depth).env_remove("NO_COLOR");
    String::from_utf8(command.output().unwrap().stdout).unwrap()
}

#[test]
fn a_grid_names_every_pass_where_it_runs() {
    insta::assert_snapshot!(view(folder().path(), "1f1b -p 4 -m 6 --width 120"));
}

#[test]
fn chunks_and_vocabulary_passes_have_their_cells() {
    insta::assert_snapshot!(view(folder().path(), "v-half --with vocab-1 -p 2 -m 3 --width 150"));
}

#[test]
fn two_plans_lie_one_above_the_other_on_one_axis() {
    insta::assert_snapshot!(view(folder().path(), "1f1b zb-h1 1f1b+vocab-2 -p 3 -m 3 --width 110"));
}

#[test]
fn a_pass_has_its_colour_in_the_grid() {
    let folder = folder();
    let grid = coloured(folder.path(), "1f1b -p 2 -m 2 --width 60", "truecolor");
    insta::assert_snapshot!(grid.replace('\x1b', "␛"));
    let indexed = coloured(folder.path(), "1f1b -p 2 -m 2 --width 60", "");
    assert!(indexed.contains("\x1b[38;5;231;48;5;25m0"), "{indexed}");
    let plain = view(folder.path(), "1f1b -p 2 -m 2 --width 60");
    assert!(!plain.contains('\x1b'), "no colour where nobody sees it");
}

#[test]
fn a_grid_fits_any_width_at_any_size_and_says_when_it_is_cut() {
    let folder = folder();
    for (schedule, ranks) in [("1f1b", 1), ("1f1b", 2), ("zb-h1", 17), ("v-half --with vocab-1", 64)] {
        for width in [24, 80, 211] {
            let grid = view(folder.path(), &format!("{schedule} -p {ranks} -m 24 --width {width}"));
            let rows: Vec<&str> = grid.lines().filter(|line| line.starts_with('r')).collect();
            assert_eq!(rows.len(), ranks, "{grid}");
            assert!(rows.iter().all(|row| row.chars().count() <= width), "{width} columns\n{grid}");
            assert!(grid.contains("cut at") || width == 211, "{schedule} {ranks} {width}\n{grid}");
        }
    }
    let grid = view(folder.path(), "1f1b -p 4 -m 24 --width 80");
    let hint = grid.lines().last().unwrap();
    assert!(hint.starts_with("cut at") && hint.contains("--to 81 squeezes all of it in"), "{hint}");
    let squeezed = view(folder.path(), "1f1b -p 4 -m 24 --width 80 --to 81");
    assert!(!squeezed.contains("cut at"), "{squeezed}");
    let later = view(folder.path(), "1f1b -p 4 -m 24 --width 80 --from 60");
    assert!(later.contains("B23") && !later.contains("F0 "), "{later}");
}

#[test]
fn a_small_svg_is_as_it_was() {
    let folder = folder();
    view(folder.path(), "1f1b --with vocab-2 -p 2 -m 2 --messages -o small.svg");
    insta::assert_snapshot!(fs::read_to_string(folder.path().join("small.svg")).unwrap());
}

#[test]
fn an_overlapped_pair_shares_its_row_in_a_svg() {
    let folder = folder();
    view(folder.path(), "dualpipe -p 4 -m 8 -o pairs.svg");
    let svg = fs::read_to_string(folder.path().join("pairs.svg")).unwrap();
    assert!(svg.contains("v8h-"), "halves of a row: {svg}");
}

#[test]
fn a_svg_stays_small_and_numbers_what_it_can() {
    let folder = folder();
    view(folder.path(), "v-half --with vocab-1 -p 8 -m 32 -o small.svg");
    let svg = fs::read_to_string(folder.path().join("small.svg")).unwrap();
    assert!(svg.len() < 200_000, "{} bytes", svg.len());
    assert_eq!(svg.matches(">31</text>").count(), 8 * 6, "F, B and W of two chunks on every rank");
    view(folder.path(), "1f1b -p 64 -m 256 -o large.svg");
    let svg = fs::read_to_string(folder.path().join("large.svg")).unwrap();
    assert!(svg.len() < 1_000_000, "{} bytes", svg.len());
    assert!(svg.contains("<g class=\"m\"><text"), "some of the passes are numbered");
}

#[test]
fn names_that_mean_something_to_a_page_are_only_names() {
    let folder = folder();
    let text = "schedule \"</script><b>&\" {\n    order F^* B^*\n}\n";
    fs::write(folder.path().join("odd.sched"), text).unwrap();
    for ending in ["svg", "html"] {
        view(folder.path(), &format!("odd.sched -p 2 -m 2 -o odd.{ending}"));
        let picture = fs::read_to_string(folder.path().join(format!("odd.{ending}"))).unwrap();
        assert!(picture.contains("&lt;/script&gt;&lt;b&gt;&amp;") && !picture.contains("<b>&"), "{ending}");
        assert!(
            ending != "html" || picture.matches("</script>").count() == 2,
            "the data ends where it should"
        );
    }
}

fn trace(path: &Path) -> Value {
    serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}

fn events<'a>(trace: &'a Value, what: &'a str) -> impl Iterator<Item = &'a Value> + 'a {
    let all = trace["traceEvents"].as_array().unwrap();
    all.iter().filter(move |event| event["ph"] == what || event["cat"] == what && event["ph"] == "X")
}

#[test]
fn a_trace_has_every_pass_and_a_flow_for_every_message() {
    let folder = folder();
    view(folder.path(), "1f1b --with vocab-2 -p 2 -m 3 --cost p2p=0.5 -o trace.json");
    let trace = trace(&folder.path().join("trace.json"));
    assert_eq!(trace["schedc"]["schedule"], "1f1b + vocab-2");
    assert_eq!((&trace["schedc"]["ranks"], &trace["schedc"]["measured"]), (&2.into(), &false.into()));
    let count = |what: &str| events(&trace, what).count();
    assert_eq!(
        count("pass"),
        2 * 3 * 2 + 2 * 3 * 5,
        "F and B of a stage; S, T, IF, IB and the rescale of a rank"
    );
    assert_eq!(count("send"), 2 * 3);
    assert_eq!(count("s"), count("send"));
    assert_eq!(count("f"), count("recv"));
    let first = events(&trace, "pass").find(|event| event["name"] == "F").unwrap();
    assert_eq!(first["args"]["site"], 0);
    assert_eq!(first["dur"], 1000.0);
    for (sent, received) in events(&trace, "s").zip(events(&trace, "f")) {
        assert_eq!(sent["id"], received["id"]);
        assert!(received["ts"].as_f64().unwrap() >= sent["ts"].as_f64().unwrap() + 500.0);
        assert_ne!(sent["pid"], received["pid"]);
    }
}

#[test]
fn a_trace_read_back_is_the_same_picture() {
    let folder = folder();
    let job = "v-half --with vocab-1 -p 4 -m 6";
    view(folder.path(), &format!("{job} -o trace.json"));
    let lines = |grid: String| {
        grid.lines().filter(|line| line.starts_with('r')).map(str::to_owned).collect::<Vec<_>>()
    };
    let width = "--width 200";
    assert_eq!(
        lines(view(folder.path(), &format!("trace.json {width}"))),
        lines(view(folder.path(), &format!("{job} {width}")))
    );
    view(folder.path(), "trace.json -o again.svg");
    let colours = |file: &str| {
        let svg = fs::read_to_string(folder.path().join(file)).unwrap();
        let legend = svg.lines().rev().nth(1).unwrap().to_owned();
        legend.split("fill=\"").skip(1).map(|rest| rest[..7].to_owned()).collect::<Vec<_>>()
    };
    view(folder.path(), &format!("{job} -o first.svg"));
    assert_eq!(colours("again.svg"), colours("first.svg"));
}

#[test]
fn a_recorded_run_has_every_pass_of_its_last_steps_in_the_order_of_the_plan() {
    let folder = folder();
    let job = "1f1b --with vocab-2 -p 2 -m 4";
    let run = schedc(folder.path(), &format!("run {job} --steps 7 --trace run.json --trace-steps 3 {SMALL}"));
    assert_eq!(run.code, 0, "{}", run.err);
    assert!(run.out.contains("trace     run.json (3 steps)"), "{}", run.out);
    let trace = trace(&folder.path().join("run.json"));
    assert_eq!(trace["schedc"]["measured"], true);
    assert!(run.out.contains(&trace["schedc"]["plan"].as_str().unwrap()[..12]), "the plan's hash");
    for step in [5, 6, 7] {
        let of_step = |event: &&Value| event["args"]["step"] == step;
        let passes: Vec<&Value> = events(&trace, "pass").filter(of_step).collect();
        assert_eq!(passes.len(), 2 * 4 * 2 + 2 * 4 * 5);
        let moment = |event: &Value, name: &str, microbatch: u32| {
            let named = event["name"] == name && event["args"]["microbatch"] == microbatch;
            named.then(|| (event["ts"].as_f64().unwrap(), event["dur"].as_f64().unwrap()))
        };
        for microbatch in 0..4 {
            let find = |name: &str, rank: u32| {
                let here = passes.iter().filter(|event| event["pid"] == rank);
                here.clone().find_map(|event| moment(event, name, microbatch)).unwrap()
            };
            let ((first, takes), (second, _)) = (find("F", 0), find("F", 1));
            assert!(second >= first + takes, "F at stage 1 reads what F at stage 0 gives");
            assert!(find("B", 0).0 >= find("B", 1).0 + find("B", 1).1);
            assert!(find("T", 0).0 >= second);
        }
        for rank in 0..2 {
            let mut lane: Vec<(f64, f64)> = passes
                .iter()
                .filter(|event| event["pid"] == rank && event["tid"] == 0)
                .map(|event| (event["ts"].as_f64().unwrap(), event["dur"].as_f64().unwrap()))
                .collect();
            lane.sort_by(|a, b| a.0.total_cmp(&b.0));
            assert!(lane.windows(2).all(|pair| pair[1].0 >= pair[0].0 + pair[0].1 - 0.01), "one at a time");
        }
    }
    let seen = view(folder.path(), "run.json --step 6 --width 100");
    assert!(seen.contains("1f1b + vocab-2: 2 ranks, 4 microbatches, measured, step 6"), "{seen}");
}

#[test]
fn prediction_and_reality_lie_one_above_the_other() {
    let folder = folder();
    let job = "zb-h1 -p 2 -m 4";
    for file in ["run.json", "run.svg", "run.html"] {
        let run = schedc(folder.path(), &format!("run {job} --steps 2 --trace {file} {SMALL}"));
        assert_eq!(run.code, 0, "{}", run.err);
    }
    let svg = fs::read_to_string(folder.path().join("run.svg")).unwrap();
    assert!(svg.contains("measured, step 2") && svg.contains("0 ms"), "{svg}");
    assert!(fs::read_to_string(folder.path().join("run.html")).unwrap().contains("measured, step 2"));
    let both = view(folder.path(), &format!("{job} run.json --width 100"));
    for words in ["predicted", "measured, step 2", "times stretched to the measured passes", "|0 ms"] {
        assert!(both.contains(words), "no `{words}` in\n{both}");
    }
}

#[test]
fn pictures_that_cannot_be_made_are_refused() {
    let folder = folder();
    let path = folder.path();
    let job = "1f1b -p 2 -m 2";
    view(path, &format!("{job} -o trace.json"));
    let refused = |words: &str, code: i32, said: &[&str]| schedc(path, words).refused(code, said);
    let picture = "schedc::cli::unknown_picture";
    refused(&format!("view {job} -o picture.png"), 2, &[picture, "`.svg`, `.html`, or `.json`"]);
    refused(&format!("view {job} -o picture"), 2, &[picture]);
    refused(&format!("run {job} --trace run.txt"), 2, &[picture]);
    refused(&format!("view {job} -o no/such/folder/a.svg"), 2, &["schedc::cli::unwritable"]);
    refused(&format!("run {job} --trace no/such/folder/a.json"), 1, &["schedc::execute::write"]);
    refused("view 1f1b -m 2", 2, &["schedc::cli::missing_flag", "`--ranks`", "schedc view 1f1b"]);
    refused("view nope -p 2 -m 2", 1, &["schedc::resolve::unknown_schedule"]);
    refused("view 1f1b+nope -p 2 -m 2", 1, &["schedc::resolve::unknown_transform"]);
    refused(&format!("view {job} --cost Q=1"), 1, &["schedc::cost::"]);
    refused(&format!("view {job} --from 9 --to 4"), 2, &["schedc::view::empty_range", "from 9 to 4"]);
    refused(&format!("view {job} --from 100"), 2, &["schedc::view::empty_range", "ends at 9"]);
    refused(&format!("view {job} --cost F=0,B=0,W=0"), 2, &["schedc::view::empty_range", "ends at 0"]);
    refused("view trace.json --step 3", 1, &["schedc::view::no_such_step", "it has step 0"]);
    refused(&format!("run {job} --trace-steps 2"), 2, &["--trace"]);
    let many = format!("run {job} --trace many.json --trace-steps 4000000000 {SMALL}");
    refused(&many, 1, &["schedc::execute::recording_too_large", "--trace-steps"]);
    let none = schedc(path, &format!("run {job} --steps 0 --trace none.json {SMALL}"));
    assert_eq!((none.code, none.out.contains("nothing is written")), (0, true), "{}{}", none.out, none.err);
}

#[test]
fn rubbish_is_no_trace() {
    let folder = folder();
    let head = r#"{"schedc":{"ranks":2,"microbatches":1,"stages":[0,1,9]},"traceEvents":["#;
    let pass = |more: &str| {
        format!(r#"{head}{{"name":"F","cat":"pass","ph":"X","ts":0,"dur":1,"pid":0,"tid":0{more}}}]}}"#)
    };
    let malformed = "schedc::view::malformed_trace";
    for (text, code) in [
        (r#"{"schedc":"#.to_owned(), malformed),
        (r#"{"traceEvents":[]}"#.to_owned(), malformed),
        (r#"{"schedc":{"ranks":2,"microbatches":1}}"#.to_owned(), malformed),
        (head.replace('2', "4294967295") + "]}", malformed),
        (head.replace('2', "0") + "]}", malformed),
        (format!("{head}]}}"), "schedc::view::nothing_to_draw"),
        (pass("").replace("\"pid\":0", "\"pid\":7"), "schedc::view::nothing_to_draw"),
        (pass("").replace("\"cat\":\"pass\"", "\"cat\":\"other\""), "schedc::view::nothing_to_draw"),
        (pass("").replace("\"dur\":1", "\"dur\":-1"), malformed),
        (pass("").replace("\"ts\":0", "\"ts\":1e300"), malformed),
        (pass("").replace("\"ts\":0", "\"ts\":\"soon\""), malformed),
        (pass(r#","args":{"step":-1}"#), malformed),
        (pass(r#","args":"#) + &"[".repeat(100_000), malformed),
    ] {
        fs::write(folder.path().join("rubbish.json"), &text).unwrap();
        schedc(folder.path(), "view rubbish.json").refused(1, &[code]);
    }
    fs::write(
        folder.path().join("fine.json"),
        pass(r#","args":{"site":4000000000,"microbatch":4294967295}"#),
    )
    .unwrap();
    for form in ["", "-o a.svg", "-o a.html", "-o a.json"] {
        view(folder.path(), &format!("fine.json {form}"));
    }
}

#[test]
fn the_picture_of_the_readme_is_what_is_drawn() {
    let folder = folder();
    view(folder.path(), "zb-h1 --with vocab-2 -p 4 -m 8 -o picture.svg");
    let drawn = fs::read_to_string(folder.path().join("picture.svg")).unwrap();
    let shown = fs::read_to_string("docs/zb-h1-vocab-2.svg").unwrap();
    assert!(drawn == shown, "renew it: schedc view zb-h1 --with vocab-2 -p 4 -m 8 -o docs/zb-h1-vocab-2.svg");
}
