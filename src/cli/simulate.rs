//! `schedc simulate`: what a schedule or a plan takes in time and memory, and why.

use schedc::cost::Weights;
use schedc::ir::{Bytes, Header, Rank};
use schedc::simulate::{IdleReport, Known, PathPart, RankReport, Report, Timeline, groups, memory_peak};
use schedc::verify::Verified;

use super::compare::{INSTRUCTIONS, MICROBATCHES, RANKS, STAGES, columns, counted, number, percent};
use super::{Failure, job, limit, model, print};

/// What `schedc simulate` takes.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct SimulateArgs {
    #[command(flatten)]
    job: job::JobArgs,
    #[command(flatten)]
    model: model::ModelArgs,
    #[command(flatten)]
    limit: limit::LimitArg,
    /// Print JSON: docs/simulation.schema.json
    #[arg(long)]
    json: bool,
    /// With --json: also what every rank holds over time, and the instructions of the critical path
    #[arg(long, requires = "json")]
    over_time: bool,
}

/// Simulates and prints the report. A plan over the memory limit is refused.
pub(crate) fn simulate(args: &SimulateArgs) -> Result<(), Failure> {
    let plan = args.job.plan_for("simulate", &args.model)?;
    let costs = args.job.costs_of(&plan.header)?;
    let known = Known { over_time: args.over_time, ..args.job.known(&plan)? };
    args.limit.check(&plan, || Ok((costs.clone(), known.clone())))?;
    let timeline = schedc::simulate::simulate(&plan, &costs);
    let report = Report::of_timeline(&plan, &costs, &known, &timeline);
    if args.json {
        let text =
            serde_json::to_string_pretty(&report).expect("a report of names and numbers has a JSON form");
        print(&(text + "\n"));
    } else {
        print(&page(&plan, &timeline, &known, &in_handy_units(report)));
    }
    Ok(())
}

/// Long times in microseconds as milliseconds.
fn in_handy_units(mut report: Report) -> Report {
    if report.unit.as_deref() != Some("µs") || report.makespan < 10_000.0 {
        return report;
    }
    report.unit = Some("ms".to_owned());
    let path = &mut report.critical_path;
    let mut times = vec![&mut report.makespan, &mut report.step, &mut path.length];
    times.extend(path.parts.iter_mut().map(|part| &mut part.time));
    for rank in &mut report.ranks {
        let IdleReport { warm_up, dependency, message, collective, imbalance, cool_down } =
            &mut rank.idle_parts;
        times.extend([warm_up, dependency, message, collective, imbalance, cool_down]);
        times.extend([&mut rank.busy, &mut rank.idle, &mut rank.memory.at]);
    }
    for time in times {
        *time /= 1000.0;
    }
    report
}

/// The report for people: what the plan is, each rank's time and memory, the critical path, who holds the peak.
fn page(plan: &Verified, timeline: &Timeline, known: &Known, report: &Report) -> String {
    let memory = memory(plan, timeline, known, report);
    [head(&plan.header, report), table(known, report), path(report), memory].join("\n")
}

fn head(header: &Header, report: &Report) -> String {
    let name: Vec<&str> =
        std::iter::once(&report.schedule).chain(&report.transforms).map(String::as_str).collect();
    let sliced = if report.slices > 1 { format!(" of {} slices", report.slices) } else { String::new() };
    let unit = report.unit.as_deref().map_or(String::new(), |unit| format!(" {unit}"));
    let mfu = report.mfu.map_or(String::new(), |mfu| format!(" · MFU {}", percent(mfu)));
    format!(
        "{} · {}, {}, {}{sliced} · {}\n\
         makespan {}{unit} · step {}{unit} · bubble {} (longest rank {}){mfu}\n\
         {}, {}\n",
        name.join(" + "),
        counted(header.ranks() as usize, RANKS),
        counted(report.stages.len(), STAGES),
        counted(report.microbatches as usize, MICROBATCHES),
        counted(report.instructions as usize, INSTRUCTIONS),
        number(report.makespan),
        number(report.step),
        percent(report.bubble),
        percent(report.span_bubble),
        counted(report.messages as usize, ["message", "messages"]),
        Bytes(report.message_bytes).short(),
    )
}

/// A line for each rank, and the mean or the largest of all below. Parts of idle time that no rank has are left out.
fn table(known: &Known, report: &Report) -> String {
    type Part = (&'static str, fn(&RankReport) -> f64);
    /// A figure of a rank.
    type Of<'a> = &'a dyn Fn(&RankReport) -> f64;
    let parts: [Part; 6] = [
        ("warm-up", |rank| rank.idle_parts.warm_up),
        ("depend.", |rank| rank.idle_parts.dependency),
        ("message", |rank| rank.idle_parts.message),
        ("collect.", |rank| rank.idle_parts.collective),
        ("imbal.", |rank| rank.idle_parts.imbalance),
        ("cool-d.", |rank| rank.idle_parts.cool_down),
    ];
    let parts: Vec<Part> =
        parts.into_iter().filter(|(_, of)| report.ranks.iter().any(|rank| of(rank) > 0.0)).collect();
    let cells = |name: String, of: &dyn Fn(Of<'_>) -> f64| {
        let mut cells = vec![name, time(of(&|rank| rank.busy)), time(of(&|rank| rank.idle))];
        cells.extend(parts.iter().map(|(_, part)| time(of(part))));
        cells.push(percent(of(&|rank| rank.bubble)));
        cells
    };
    let mut lines = Vec::with_capacity(report.ranks.len() + 2);
    let mut top: Vec<String> = ["rank", "busy", "idle"].map(str::to_owned).to_vec();
    top.extend(parts.iter().map(|(name, _)| (*name).to_owned()));
    let memory = if known.device.is_some() {
        ["bubble", "peak", "resident", "total"]
    } else {
        ["bubble", "peak", "arena", "resident"]
    };
    top.extend(memory.map(str::to_owned));
    lines.push(top);
    for (index, rank) in report.ranks.iter().enumerate() {
        let mut line = cells(format!("r{index}"), &|of| of(rank));
        let memory = &rank.memory;
        let resident = memory.resident.total();
        let bytes = if known.device.is_some() {
            [memory.peak, resident, memory.total]
        } else {
            [memory.peak, memory.arena, resident]
        };
        line.extend(bytes.map(|bytes| Bytes(bytes).short()));
        lines.push(line);
    }
    #[allow(clippy::cast_precision_loss, reason = "fewer than 2^52 ranks")]
    let count = report.ranks.len().max(1) as f64;
    let mut mean = cells("mean".to_owned(), &|of| report.ranks.iter().map(of).sum::<f64>() / count);
    mean.extend([String::new(), String::new(), String::new()]);
    lines.push(mean);
    columns(&lines).lines().map(str::trim_end).collect::<Vec<_>>().join("\n") + "\n"
}

/// Three decimals at most, and fewer for large numbers: columns stay narrow.
fn time(value: f64) -> String {
    match value {
        10_000.0.. => format!("{value:.0}"),
        1_000.0.. => number((value * 10.0).round() / 10.0),
        _ => number(value),
    }
}

fn path(report: &Report) -> String {
    let path = &report.critical_path;
    let part = |part: &PathPart| {
        format!("{} {} ({}, {})", part.what, number(part.time), percent(part.part), part.count)
    };
    let parts: Vec<String> = path.parts.iter().filter(|part| part.time > 0.0).map(part).collect();
    if parts.is_empty() {
        return "critical path  none: nothing takes time\n".to_owned();
    }
    let head = format!("critical path  {} instructions: ", path.instructions);
    wrapped(&head, &parts)
}

/// Who holds the peak of the rank that needs most.
fn memory(plan: &Verified, timeline: &Timeline, known: &Known, report: &Report) -> String {
    let most = report.ranks.iter().enumerate().rev().max_by_key(|(_, rank)| rank.memory.total);
    let Some((index, rank)) = most else { return String::new() };
    let weights = known.device.as_ref().map(|device| Weights::of(plan, &device.training));
    let groups = groups(&plan.header, &memory_peak(plan, timeline, Rank::new(index), weights.as_ref()));
    let mut parts: Vec<String> = groups.iter().take(OWNERS).map(ToString::to_string).collect();
    if groups.len() > OWNERS {
        let rest: u64 = groups.iter().skip(OWNERS).map(|group| group.bytes.0).sum();
        parts.push(format!("{} of {} others", Bytes(rest).short(), groups.len() - OWNERS));
    }
    let unit = report.unit.as_deref().map_or(String::new(), |unit| format!(" {unit}"));
    let head = format!("peak of r{index} at {}{unit}: ", number(rank.memory.at));
    let text = wrapped(&head, &parts);
    let Some(device) = known.device.as_ref().filter(|device| rank.memory.total > device.memory.0) else {
        return text;
    };
    let (needs, has) = (Bytes(rank.memory.total).short(), device.memory.short());
    format!("{text}r{index} needs {needs}, and the device has {has}: a run would end for want of memory\n")
}

/// Groups of owners that are named.
const OWNERS: usize = 6;

/// The width of a page.
const WIDTH: usize = 100;

/// Parts after a head, with ` · ` between them, in lines of a page's width, the later ones indented.
fn wrapped(head: &str, parts: &[String]) -> String {
    let mut text = head.to_owned();
    let mut column = head.chars().count();
    for (index, part) in parts.iter().enumerate() {
        let width = part.chars().count() + 3;
        if index > 0 && column + width > WIDTH {
            text.push_str("\n    ");
            column = 4;
        } else if index > 0 {
            text.push_str(" · ");
        }
        text.push_str(part);
        column += width;
    }
    text.push('\n');
    text
}
