//! Predicted against measured: 20 runs of Yeung et al. 2024 on 8 GPUs, from the pass times that they recorded.
//!
//! A row of `artifact_8gpu.csv` has the mean time of each pass on each rank, and the time that an iteration took. Layers are spread as
//! the row's method spreads them, which is in the times already; of S + T a third is S under algorithm 1 and two thirds under
//! algorithm 2 (2 and 4 of 6 b s h V / p, table 4 of the paper). Collectives are free: they run beside the passes. Nothing is fitted.

use std::fmt::Write as _;
use std::fs;

use schedc::cost::{CostSpec, Costs, Durations};
use schedc::driver::{Input, Job, compile};
use schedc::ir::{Header, Mode};
use schedc::resolve::{Model, Partitioning};
use schedc::simulate::simulate;
use schedc::source::Sources;
use schedc::verify::Verified;

use crate::compiled::tiny;
use crate::differential::oracle;

/// A measured run.
#[derive(Debug)]
struct Row {
    method: String,
    vocab: String,
    microbatches: u32,
    /// By rank, in µs.
    f: Vec<f64>,
    b: Vec<f64>,
    st: Vec<f64>,
    lookup: Vec<f64>,
    scatter: Vec<f64>,
    p2p: f64,
    /// Measured, in µs.
    iteration: f64,
}

fn rows() -> Vec<Row> {
    let Some(path) = oracle("artifact_8gpu.csv") else { return Vec::new() };
    let text = fs::read_to_string(path).unwrap();
    let row = |line: &str| {
        let cells: Vec<&str> = line.split(',').collect();
        let times =
            |cell: usize| cells[cell].split(' ').map(|time| time.parse().unwrap()).collect::<Vec<f64>>();
        Row {
            method: cells[0].to_owned(),
            vocab: cells[2].to_owned(),
            microbatches: cells[4].parse().unwrap(),
            f: times(5),
            b: times(6),
            st: times(7),
            lookup: times(8),
            scatter: times(9),
            p2p: cells[10].parse().unwrap(),
            iteration: cells[11].parse::<f64>().unwrap() * 1000.0,
        }
    };
    text.lines().skip(1).map(row).collect()
}

impl Row {
    fn transform(&self) -> Option<&str> {
        ["vocab-1", "vocab-2", "interlaced"].into_iter().find(|name| *name == self.method)
    }

    /// The part of S + T that is S.
    fn output(&self) -> f64 {
        if self.method == "vocab-2" { 2.0 / 3.0 } else { 1.0 / 3.0 }
    }

    /// Times by kind and rank; none for the steps of barriers.
    fn of(&self, kind: &str) -> Vec<f64> {
        let share = |part: f64| self.st.iter().map(|time| time * part).collect();
        match kind {
            "F" => self.f.clone(),
            "B" => self.b.clone(),
            "S" => share(self.output()),
            "T" => share(1.0 - self.output()),
            "IF" => self.lookup.clone(),
            "IB" => self.scatter.clone(),
            _ => vec![0.0],
        }
    }

    /// What places the passes: the means over the ranks.
    fn spec(&self) -> CostSpec {
        let mean = |times: Vec<f64>| (times.iter().sum::<f64>() / f64::from(times.len() as u32)).round();
        let mut text = format!("F={},B={},W=0", mean(self.of("F")), mean(self.of("B")));
        if self.transform().is_some() {
            for kind in ["S", "T", "IF", "IB"] {
                let _ = write!(text, ",{kind}={}", mean(self.of(kind)));
            }
        }
        CostSpec::parse(&text).unwrap()
    }

    fn plan(&self) -> Verified {
        let with: Vec<String> = self.transform().map(str::to_owned).into_iter().collect();
        let spec = self.spec();
        let job = Job {
            input: Input::Library("1f1b"),
            with: &with,
            set: &[],
            ranks: self.f.len() as u32,
            microbatches: self.microbatches,
            model: Model { layers: None, dims: tiny(1, false), partition: Partitioning::Uniform },
            costs: &spec,
            retime: None,
            mode: Mode::Training,
        };
        compile(&job, &mut Sources::default()).unwrap_or_else(|errors| panic!("{self:?}: {errors:?}"))
    }

    /// Every pass as measured at its site.
    fn costs(&self, header: &Header, p2p: f64) -> Costs {
        let ranks = self.f.len();
        let durations = Durations {
            passes: header.catalog.kinds.iter().map(|kind| self.of(&kind.name)).collect(),
            collectives: vec![0.0; header.catalog.collectives.len()],
            messages: vec![p2p; ranks * ranks],
            transfers: vec![0.0; ranks * ranks],
            ranks: ranks as u32,
            ..Durations::default()
        };
        durations.bind(header.stages.len() as u32, header.cut().units()).unwrap()
    }
}

#[test]
fn simulated_iterations_take_what_measured_ones_took_within_three_percent() {
    let mut worst: f64 = 0.0;
    let mut table = String::new();
    for row in rows() {
        let plan = row.plan();
        let ratio = |p2p: f64| {
            let costs = row.costs(&plan.header, p2p);
            costs.in_units(simulate(&plan, &costs).makespan()) / row.iteration
        };
        let (free, sent) = (ratio(0.0), ratio(row.p2p));
        let _ = writeln!(table, "{:<10} {:>6}  {free:.4}  {sent:.4}", row.method, row.vocab);
        worst = worst.max((free - 1.0).abs()).max((sent - 1.0).abs());
    }
    println!("simulated / measured: free messages, messages as given\n{table}");
    assert!(worst <= 0.03, "off by {:.2} %\n{table}", worst * 100.0);
}
