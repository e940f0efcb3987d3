//! `schedc diff`: where two schedules or plans begin to differ, rank by rank.

use std::fmt::Write as _;

use schedc::ir::{Op, Plan, Rank};
use schedc::torch::{Action, Channel, Form, Sound};
use schedc::verify::Verified;

use super::job::{self, CostArg, JobArgs, ModeArg, Named};
use super::model::ModelArgs;
use super::{Failure, print};

/// What `schedc diff` takes.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct DiffArgs {
    /// A schedule of the library, a `.sched` file, a PyTorch schedule `.csv` or a plan; NAME:v=2,group=4 sets parameters
    first: String,
    /// What it is compared with
    second: String,
    /// Pipeline ranks [default: those of a file that states them]
    #[arg(long, short = 'p', value_name = "P")]
    ranks: Option<u32>,
    /// Microbatches in a step [default: those of a file that states them]
    #[arg(long, short = 'm', value_name = "M")]
    microbatches: Option<u32>,
    /// A transform to apply to schedules; again for more
    #[arg(long, value_name = "TRANSFORM")]
    with: Vec<String>,
    /// Compare whole plans, line by line, and not only the orders of passes [default: for two plans]
    #[arg(long)]
    plans: bool,
    /// Lines shown before and behind a difference
    #[arg(long, value_name = "N", default_value_t = 3)]
    context: usize,
    #[command(flatten)]
    cost: CostArg,
    #[command(flatten)]
    mode: ModeArg,
    #[command(flatten)]
    model: ModelArgs,
}

/// One side, as far as it must be known for the other.
enum Side {
    Torch(Sound),
    Plan(Verified),
    /// Needs numbers that the other side may have.
    Schedule,
}

/// What is compared: parts with a name, each a list of lines.
type Parts = Vec<(String, Vec<String>)>;

/// Compares, prints, and fails where anything differs.
pub(crate) fn diff(args: &DiffArgs) -> Result<(), Failure> {
    let jobs = [job(args, &args.first)?, job(args, &args.second)?];
    let [first, second] = [side(args, &jobs[0])?, side(args, &jobs[1])?];
    let names = [args.first.as_str(), args.second.as_str()];
    let parts = match (&first, &second) {
        // Cell by cell, messages too; where one file has none, passes only.
        (Side::Torch(first), Side::Torch(second)) if !args.plans => {
            let whole = first.rows().form == second.rows().form;
            [cells(first, whole), cells(second, whole)]
        }
        _ => {
            let whole = args.plans || matches!((&first, &second), (Side::Plan(_), Side::Plan(_)));
            let known = numbers(&first).or_else(|| numbers(&second));
            let plan = |side, job: &JobArgs| match side {
                Side::Plan(plan) => Ok(plan),
                Side::Torch(_) | Side::Schedule => job.with_numbers(known).plan_for("diff", &args.model),
            };
            let plans = [plan(first, &jobs[0])?, plan(second, &jobs[1])?];
            plans.map(|plan| if whole { lines(&plan) } else { orders(&plan) })
        }
    };
    let (text, same) = report(names, &parts, args.context);
    print(&text);
    if same { Ok(()) } else { Err(Failure::Refused(Vec::new())) }
}

/// What a word of the command line asks for.
fn job(args: &DiffArgs, word: &str) -> Result<JobArgs, Failure> {
    let (schedule, set) = job::named(word)?;
    Ok(JobArgs::of(Named {
        schedule,
        set,
        with: args.with.clone(),
        ranks: args.ranks,
        microbatches: args.microbatches,
        cost: args.cost.clone(),
        mode: args.mode,
    }))
}

fn side(args: &DiffArgs, job: &JobArgs) -> Result<Side, Failure> {
    if let Some(sound) = job.torch(Channel::Gloo)? {
        return Ok(Side::Torch(sound));
    }
    let plan = job.plan_file(&args.model)?;
    Ok(plan.map_or(Side::Schedule, Side::Plan))
}

/// The ranks and microbatches of a file that states them.
fn numbers(side: &Side) -> Option<(u32, u32)> {
    match side {
        Side::Torch(sound) => Some((sound.rows().ranks() as u32, sound.microbatches())),
        Side::Plan(plan) => Some((plan.header.ranks(), plan.header.microbatches)),
        Side::Schedule => None,
    }
}

/// The cells of a PyTorch schedule, or those with passes.
fn cells(sound: &Sound, whole: bool) -> Parts {
    let rows = sound.rows();
    let shown = |action: &&Action| whole || rows.form == Form::Compute || action.op.computes();
    let cell = |action: &Action| format!("{action}{}", if action.overlaps { " &" } else { "" });
    let row = |rank: Rank| rows.of(rank).iter().filter(shown).map(cell).collect();
    Rank::all(rows.ranks()).map(|rank| (rank.to_string(), row(rank))).collect()
}

/// Each rank's passes, in the order of its compute lane.
fn orders(plan: &Plan) -> Parts {
    let cut = plan.header.cut();
    let order = |rank: &schedc::ir::RankPlan| {
        let passes = rank.instrs.iter().filter_map(|instr| match instr.op {
            Op::Pass(pass) => Some((pass, instr.overlaps)),
            _ => None,
        });
        let line = |(pass, overlaps): (schedc::ir::Pass, bool)| {
            let name = &plan.header.catalog.kind(pass.kind).name;
            format!("{name} {} {}{}", pass.site, cut.name(pass.microbatch), if overlaps { " &" } else { "" })
        };
        passes.map(line).collect()
    };
    let ranks = plan.ranks.iter().enumerate();
    ranks.map(|(rank, list)| (Rank::new(rank).to_string(), order(list))).collect()
}

/// The text form, cut into its header and its ranks.
fn lines(plan: &Verified) -> Parts {
    let mut parts: Parts = vec![("header".to_owned(), Vec::new())];
    for line in schedc::emit::plan_text(plan).lines() {
        match line.strip_prefix("rank ") {
            Some(rank) => parts.push((rank.to_owned(), Vec::new())),
            None => parts.last_mut().expect("the header is there").1.push(line.to_owned()),
        }
    }
    parts
}

/// What differs, and whether nothing does.
fn report(names: [&str; 2], [first, second]: &[Parts; 2], context: usize) -> (String, bool) {
    let mut text = String::new();
    let mut same = true;
    let width = names.map(|name| name.chars().count()).into_iter().max().unwrap_or(0);
    for (at, (part, lines)) in first.iter().enumerate() {
        let Some((_, others)) = second.get(at) else {
            let _ = writeln!(text, "{part}  only in {}", names[0]);
            same = false;
            continue;
        };
        if let Some(place) = difference(lines, others) {
            same = false;
            told(&mut text, part, names, [lines, others], (place, context, width));
        } else {
            let _ = writeln!(text, "{part}  the same, {} lines", lines.len());
        }
    }
    for (part, _) in second.iter().skip(first.len()) {
        let _ = writeln!(text, "{part}  only in {}", names[1]);
        same = false;
    }
    (text, same)
}

/// The first position at which two lists differ.
fn difference(first: &[String], second: &[String]) -> Option<usize> {
    let shorter = first.len().min(second.len());
    let differs = first.iter().zip(second).position(|(one, other)| one != other);
    differs.or((first.len() != second.len()).then_some(shorter))
}

/// A difference: side by side above each other where lines are short, else one after the other.
fn told(
    text: &mut String,
    part: &str,
    names: [&str; 2],
    lists: [&[String]; 2],
    (place, context, width): (usize, usize, usize),
) {
    let what =
        |list: &[String]| list.get(place).map_or("nothing".to_owned(), |line| format!("`{}`", short(line)));
    let [one, other] = lists.map(what);
    let _ = writeln!(
        text,
        "{part}  the first {place} are the same, then {one} in {} and {other} in {}",
        names[0], names[1]
    );
    let from = place.saturating_sub(context);
    let shown = lists.map(|list| {
        list.get(from..list.len().min(place.saturating_add(context).saturating_add(1))).unwrap_or_default()
    });
    if shown.iter().copied().flatten().all(|line| line.len() <= 24) {
        for (name, list) in names.iter().zip(shown) {
            let _ = write!(text, "    {name:<width$} {}", if from > 0 { " …" } else { "" });
            for (at, line) in list.iter().enumerate() {
                let differs = from + at == place;
                let _ = if differs { write!(text, "  [{line}]") } else { write!(text, "  {line}") };
            }
            if list.len() <= place - from {
                text.push_str("  [end]");
            }
            text.push('\n');
        }
        return;
    }
    for line in &shown[0][..place - from] {
        let _ = writeln!(text, "      {}", short(line));
    }
    for (sign, list) in [('-', shown[0]), ('+', shown[1])] {
        for line in list.iter().skip(place - from) {
            let _ = writeln!(text, "    {sign} {}", short(line));
        }
    }
}

/// A line, cut where it is longer than a terminal.
fn short(line: &str) -> String {
    let mut cut: String = line.chars().take(160).collect();
    if cut.len() < line.len() {
        cut.push('…');
    }
    cut
}
