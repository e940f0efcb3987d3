//! Against others: PyTorch's orders cell by cell, the published generators' makespans and peaks, closed-form bubbles.
//!
//! The reference data lie beside the repository, in `../shared/oracles`; where they are absent the comparison is skipped, and says so.

use std::fs;
use std::path::{Path, PathBuf};

use crate::orders::{Cell, Orders};

/// A folder or file of reference data, or a printed reason why there is none.
#[allow(clippy::print_stderr, reason = "a comparison that is skipped says so")]
pub(crate) fn oracle(name: &str) -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/oracles").join(name);
    if path.exists() {
        return Some(path);
    }
    eprintln!("skipped: no reference data at {}", path.display());
    None
}

/// The compute cells of a PyTorch schedule, a row for each rank; empty cells are bubbles.
fn torch_rows(text: &str) -> Vec<Vec<Cell>> {
    let cell = |cell: &str| {
        let kind = cell.find(|letter: char| letter.is_ascii_alphabetic()).expect("a cell names an operation");
        let (stage, rest) = cell.split_at(kind);
        (rest.chars().next().unwrap(), stage.parse().unwrap(), rest[1..].parse().unwrap())
    };
    text.lines().map(|row| row.split(',').filter(|text| !text.is_empty()).map(cell).collect()).collect()
}

#[test]
fn orders_equal_those_of_pytorch_cell_by_cell() {
    let Some(folder) = oracle("torch") else { return };
    let pairs = [
        ("gpipe", "GPipe", ""),
        ("1f1b", "1F1B", ""),
        ("interleaved", "Interleaved1F1B", "_v2"),
        ("looped-bfs", "LoopedBFS", "_v2"),
    ];
    for (ours, theirs, chunks) in pairs {
        for (p, m) in [(2, 4), (4, 8)] {
            let file = folder.join(format!("{theirs}_p{p}_m{m}{chunks}.compute.csv"));
            let torch = torch_rows(&fs::read_to_string(&file).unwrap());
            let orders = Orders::of(ours, p, m);
            assert_eq!(orders.ranks, torch, "{ours} against {}", file.display());
        }
    }
}

/// PyTorch lists passes by cycles of equal length. Ours are placed by time: other orders, nowhere longer, in no more memory.
#[test]
fn split_backwards_over_chunks_are_no_longer_than_those_of_pytorch() {
    let Some(folder) = oracle("torch") else { return };
    for (ours, theirs) in [("interleaved-zb", "InterleavedZeroBubble"), ("zb-v", "ZBVZeroBubble")] {
        for (p, m) in [(2, 4), (4, 8)] {
            let file = folder.join(format!("{theirs}_p{p}_m{m}_v2.compute.csv"));
            let ranks = torch_split_rows(&fs::read_to_string(&file).unwrap());
            let pairs = vec![Vec::new(); p as usize];
            let torch = Orders { stages: 2 * p as usize, slices: 1, ranks, pairs }.time();
            let taken = Orders::of(ours, p, m).time();
            assert!(taken.makespan <= torch.makespan, "{ours} p={p} m={m}: {taken:?} against {torch:?}");
            let most = |peaks: &[usize]| peaks.iter().copied().max();
            assert!(most(&taken.peaks) <= most(&torch.peaks).max(Some(2 * p as usize)), "{ours} p={p} m={m}");
        }
    }
}

/// A full backward of PyTorch is a B and, right after it, the W; a pair is its two passes.
fn torch_split_rows(text: &str) -> Vec<Vec<Cell>> {
    let plain = text.replace(")OVERLAP_F_B", "").replace('(', "").replace(';', ",");
    let split = |(kind, stage, microbatch): Cell| match kind {
        'B' => vec![('B', stage, microbatch), ('W', stage, microbatch)],
        'I' => vec![('B', stage, microbatch)],
        _ => vec![(kind, stage, microbatch)],
    };
    torch_rows(&plain).into_iter().map(|row| row.into_iter().flat_map(split).collect()).collect()
}

/// The pairs of PyTorch's rows, by the first pass and the second.
fn torch_pairs(text: &str) -> Vec<Vec<(Cell, Cell)>> {
    let pair = |text: &str| {
        let cells = torch_rows(&text.replace(';', ",")).remove(0);
        (cells[0], cells[1])
    };
    let pairs = |row: &str| {
        let marked = row.split(',').filter_map(|cell| cell.strip_suffix(")OVERLAP_F_B"));
        marked.map(|cell| pair(cell.trim_start_matches('('))).collect()
    };
    text.lines().map(pairs).collect()
}

#[test]
fn dualpipe_v_equals_that_of_pytorch_cell_by_cell_and_pair_by_pair() {
    let Some(folder) = oracle("torch") else { return };
    for (p, m) in [(2, 4), (4, 8)] {
        let file = folder.join(format!("DualPipeV_p{p}_m{m}_v2.compute.csv"));
        let text = fs::read_to_string(&file).unwrap();
        let orders = Orders::of("dualpipe-v", p, m);
        assert_eq!(orders.ranks, torch_split_rows(&text), "against {}", file.display());
        assert_eq!(orders.pairs, torch_pairs(&text), "against {}", file.display());
    }
}

/// A row of the published generators' results, in halves of a stage's pass or activation.
struct Row {
    p: u32,
    m: u32,
    makespan: u64,
    span: u64,
    peaks: Vec<u64>,
}

/// A number of the table, which knows whole and half stages.
fn halves(text: &str) -> u64 {
    let (whole, part) = text.split_once('.').unwrap_or((text, "0"));
    assert!(["0", "5"].contains(&part), "{text}");
    2 * whole.parse::<u64>().unwrap() + u64::from(part == "5")
}

/// The rows of a generator at f = b = w = 1 and messages in no time.
fn rows(name: &str) -> Vec<Row> {
    let Some(file) = oracle("schedules.csv") else { return Vec::new() };
    let text = fs::read_to_string(file).unwrap();
    let rows: Vec<Row> = text
        .lines()
        .map(|line| line.split(',').collect::<Vec<_>>())
        .filter(|row| row[0] == name && row[3] == "1/1/1/0" && row[4] == "ok")
        .map(|row| Row {
            p: row[1].parse().unwrap(),
            m: row[2].parse().unwrap(),
            makespan: halves(row[5]),
            span: halves(row[7]),
            peaks: row[12].split(' ').map(halves).collect(),
        })
        .collect();
    assert!(rows.len() >= 8, "{name} has rows");
    rows
}

/// Our makespan, span and peaks in the same units.
fn ours(name: &str, row: &Row, chunks: u64) -> (u64, u64, Vec<u64>) {
    let taken = Orders::of(name, row.p, row.m).time();
    let scaled = |chunk_passes: u64| chunk_passes * 2 / chunks;
    let peaks = taken.peaks.iter().map(|&peak| scaled(peak as u64)).collect();
    (scaled(taken.makespan), scaled(taken.span), peaks)
}

#[test]
fn one_f_one_b_zb_h1_and_interleaved_equal_their_generators() {
    for (name, theirs, chunks) in [("1f1b", "1f1b", 1), ("zb-h1", "zb1p", 1), ("interleaved", "vpp2", 2)] {
        for row in rows(theirs) {
            let expected = (row.makespan, row.span, row.peaks.clone());
            assert_eq!(ours(name, &row, chunks), expected, "{name} p={} m={}", row.p, row.m);
        }
    }
}

/// The generator keeps 2p microbatches where its limit allows it; 2p - 1 give the same makespan and no bubble within a rank either.
#[test]
fn zb_h2_is_as_fast_as_its_generator_with_one_activation_less() {
    for row in rows("zb2p") {
        let (makespan, span, peaks) = ours("zb-h2", &row, 1);
        assert_eq!(makespan, row.makespan, "p={} m={}", row.p, row.m);
        assert!(span <= row.span, "p={} m={}: {span} against {}", row.p, row.m, row.span);
        let fits = peaks.iter().zip(&row.peaks).all(|(ours, theirs)| ours <= theirs);
        assert!(fits, "p={} m={}: {peaks:?} against {:?}", row.p, row.m, row.peaks);
        if row.m >= 2 * row.p {
            assert!(peaks.iter().all(|&peak| peak == u64::from(2 * (2 * row.p - 1))), "{peaks:?}");
        }
    }
}

/// `gint2` splits B and W, which `interleaved` does not: its bubble is 2(p - 1)/v where ours is 3(p - 1)/v.
#[test]
fn interleaved_is_behind_the_split_generator_by_exactly_its_fused_bubble() {
    for row in rows("gint2") {
        let (makespan, ..) = ours("interleaved", &row, 2);
        // (3 - 2)(p - 1)/v stages at v = 2: so many halves.
        assert_eq!(makespan - row.makespan, u64::from(row.p - 1), "p={} m={}", row.p, row.m);
    }
}

/// Makespan beyond m (f + b + w), in thirds of what 1F1B loses on a rank, at f = b = w = 1.
#[test]
fn bubbles_equal_their_closed_forms() {
    for (p, m) in [(1, 4), (2, 4), (3, 6), (4, 8), (5, 10), (8, 16), (8, 32)] {
        let excess = |name: &str, chunks: u64| {
            let taken = Orders::of(name, p, m).time();
            (taken.makespan - 3 * u64::from(m) * chunks, taken.span - 3 * u64::from(m) * chunks)
        };
        let behind = u64::from(p - 1);
        for name in ["gpipe", "1f1b", "eager-1f1b"] {
            assert_eq!(excess(name, 1).0, 3 * behind, "{name} p={p} m={m}");
        }
        for name in ["interleaved", "looped-bfs"] {
            // 3(p - 1)/v stages are 3(p - 1) chunks.
            assert_eq!(excess(name, 2).0, 3 * behind, "{name} p={p} m={m}");
        }
        assert_eq!(excess("zb-h1", 1).0, behind, "zb-h1 p={p} m={m}");
        assert_eq!(excess("zb-h2", 1), (behind, 0), "zb-h2 p={p} m={m}");
    }
}
