//! Every schedule over ranks, microbatches and costs, beside the published figures.

use schedc::simulate::Figures;

use super::PER_RANK;
use super::measure::{Entry, each, head, line, measure, number, percent};
use super::published::{self, Published};

/// Costs as the table names them and as `--cost` takes them.
pub(crate) const COSTS: [(&str, &str); 3] = [
    ("1/1/1/0", "F=1,B=1,W=1,p2p=0"),
    ("10/10/10/1", "F=10,B=10,W=10,p2p=1"),
    ("10/12/8/1", "F=10,B=12,W=8,p2p=1"),
];

/// What is smaller than this is the rounding of a published figure.
const EPSILON: f64 = 2e-3;

/// How a row stands beside the published one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    Better,
    Equal,
    Worse,
}

fn standing(ours: &Figures, theirs: Published) -> Standing {
    let above = |ours: f64, theirs: f64| ours > theirs + EPSILON;
    let peak = theirs.peak.unwrap_or(f64::INFINITY);
    if above(ours.makespan, theirs.makespan) || above(ours.peak_max, peak) {
        Standing::Worse
    } else if above(theirs.makespan, ours.makespan)
        || theirs.peak.is_some_and(|peak| above(peak, ours.peak_max))
    {
        Standing::Better
    } else {
        Standing::Equal
    }
}

/// The counts of one schedule, and the points where it falls short.
#[derive(Default)]
struct Tally {
    counts: [u32; 3],
    worse: Vec<String>,
}

/// One row of the grid: what a schedule comes to at a size under all costs.
#[allow(dead_code, reason = "a test holds the page against it")]
pub(crate) fn row(entry: &Entry, size: (u32, u32)) -> String {
    tallied(entry, size, &mut Tally::default())
}

fn tallied(entry: &Entry, size: (u32, u32), tally: &mut Tally) -> String {
    let mut cells = vec![entry.label.clone(), size.0.to_string(), size.1.to_string()];
    for (name, costs) in COSTS {
        let ours = match measure(entry, &[], size, costs) {
            Ok(ours) => ours,
            Err(reason) => {
                cells.extend([reason, String::new(), String::new(), String::new()]);
                continue;
            }
        };
        cells.extend([number(ours.makespan), percent(ours.bubble), number(ours.peak_max)]);
        let theirs = published::schedule(&entry.label, size, name);
        cells.push(
            theirs.map_or_else(|| "–".to_owned(), |theirs| beside(entry, size, name, &ours, theirs, tally)),
        );
    }
    line(&cells)
}

/// The cell of the published figures: makespan, peak, and a mark where ours is worse or better.
fn beside(
    entry: &Entry,
    (p, m): (u32, u32),
    costs: &str,
    ours: &Figures,
    theirs: Published,
    tally: &mut Tally,
) -> String {
    let peak = theirs.peak.map_or_else(String::new, |peak| format!(", {}", number(peak)));
    let figures = format!("{}{peak}", number(theirs.makespan));
    let standing = standing(ours, theirs);
    tally.counts[standing as usize] += 1;
    match standing {
        Standing::Better => format!("{figures} ✓"),
        Standing::Equal => figures,
        Standing::Worse => {
            let (makespan, held) = (number(ours.makespan), number(ours.peak_max));
            let point =
                format!("{} p={p} m={m} at {costs}: {makespan}, {held} against {figures}", entry.label);
            tally.worse.push(point);
            format!("{figures} **worse**")
        }
    }
}

/// The section of the page.
pub(crate) fn section(entries: &[Entry], ranks: &[u32]) -> String {
    let mut summary = head(&["schedule", "points with a published figure", "better", "equal", "worse"]);
    let (mut tables, mut worse) = (String::new(), Vec::new());
    let rows = each(entries, |entry| {
        let mut tally = Tally::default();
        let sizes = ranks.iter().flat_map(|&p| PER_RANK.map(|per_rank| (p, p * per_rank)));
        let rows: String = sizes.map(|size| tallied(entry, size, &mut tally)).collect();
        (rows, tally)
    });
    let mut titles = vec!["schedule".to_owned(), "p".to_owned(), "m".to_owned()];
    for (name, _) in COSTS {
        let own =
            [format!("makespan {name}"), "bubble".to_owned(), "peak".to_owned(), "published".to_owned()];
        titles.extend(own);
    }
    let titles = head(&titles.iter().map(String::as_str).collect::<Vec<_>>());
    for (entry, (rows, tally)) in entries.iter().zip(rows) {
        tables.extend(["\n### ", entry.label.as_str(), "\n", titles.as_str(), rows.as_str()]);
        let [better, equal, short] = tally.counts;
        let counts = [better + equal + short, better, equal, short].map(|count| count.to_string());
        summary += &line(&[vec![entry.label.clone()], counts.to_vec()].concat());
        worse.extend(tally.worse);
    }
    let worse = if worse.is_empty() {
        "\nNo grid point falls short of a published figure.\n".to_owned()
    } else {
        let points = worse.join("\n- ");
        format!(
            "\nGrid points that fall short, makespan and peak against the published ones:\n\n- {points}\n"
        )
    };
    format!(
        "\n## Bubble and peak\n\nA grid point is better or worse by its makespan or by its peak; worse in either is worse.\n\
         {summary}{worse}\n\
         In the tables `published` has makespan and peak; ✓ marks what is better than it.\n{tables}"
    )
}
