//! A plan and the moments of its instructions -> [`Chart`].

use std::collections::BTreeMap;

use super::palette::{self, COMMUNICATION, Colour, STEP};
use super::scene::{Act, Chart, Clock, Effect, Event, Modelled, Origin, Row, Share, Style, Track};
use crate::cost::Costs;
use crate::execute::recording::{RecordedStep, Recording};
use crate::ir::{
    At, Bytes, Catalog, ClassId, GroupId, Header, Instr, InstrId, Kind, Lane, Op, Pass, Payload, Place, Plan,
    Queue, Rank, RankPlan, Site, Stage, Ticks, Value,
};
use crate::simulate::{self, Timeline};
use crate::verify::Verified;

/// What the simulator says of a plan.
#[must_use]
pub fn predicted(plan: &Verified, timeline: &Timeline, costs: &Costs) -> Chart {
    let moments = |rank, instr| (timeline.start(rank, instr).0, timeline.end(rank, instr).0);
    let scale = costs.in_units(Ticks(1));
    let (scale, unit) = if costs.in_microseconds() { (scale * 1e-3, "ms") } else { (scale, "") };
    let clock = Clock { zero: 0, scale, unit, fitted: false };
    let mut chart = charted(plan, Origin::Predicted, clock, moments);
    chart.plan = Some(crate::emit::plan_hash(plan).to_string());
    let held = simulate::activations(plan).into_iter().fold(0.0, f64::max);
    chart.held = Some(held);
    let critical = simulate::critical_path(plan, timeline);
    chart.critical = critical.into_iter().map(|(rank, instr)| (rank.0, instr.0)).collect();
    let peaks = simulate::memory_peaks(plan, timeline);
    chart.peaks = peaks.into_iter().map(|peak| (peak.at.0, peak.bytes.0)).collect();
    chart
}

/// What happened in each recorded step of a run, on one clock that begins with the first step's first pass.
#[must_use]
pub fn measured(plan: &Plan, hash: &str, recording: &Recording) -> Vec<Chart> {
    let step = |taken: &RecordedStep| {
        let moments = |rank: Rank, instr: InstrId| taken.ranks[rank.index()][instr.index()].into();
        let clock = Clock { zero: 0, scale: 1e-6, unit: "ms", fitted: false };
        let mut chart = charted(plan, Origin::Measured, clock, moments);
        chart.step = Some(taken.step);
        chart.first = taken.first;
        chart.device = recording.device;
        chart.plan = Some(hash.to_owned());
        chart
    };
    let mut charts: Vec<Chart> = recording.steps.iter().map(step).collect();
    let first = |chart: &Chart| {
        let passes = chart.rows.iter().flat_map(|row| chart.passes(row));
        passes.map(|event| event.start).min().unwrap_or_default()
    };
    let zero = charts.first().map_or(0, first);
    for chart in &mut charts {
        chart.clock.zero = zero;
    }
    charts
}

/// The events of every instruction. `moments` gives start and end; what needs several ranks begins when all have come.
fn charted(
    plan: &Plan,
    origin: Origin,
    clock: Clock,
    moments: impl Fn(Rank, InstrId) -> (u64, u64),
) -> Chart {
    let header = &plan.header;
    let mut builder = Builder::new(plan);
    let ranks = Rank::all(plan.ranks.len());
    let mut rows: Vec<Row> = ranks.clone().map(|rank| builder.row(rank, &moments)).collect();
    pair_messages(plan, &mut rows);
    meet(plan, &mut rows);
    let name = std::iter::once(&header.name).chain(&header.transforms);
    let mut chart = Chart {
        name: name.map(String::as_str).collect::<Vec<_>>().join(" + "),
        model: Some(modelled(header)),
        origin,
        step: None,
        first: false,
        device: false,
        plan: None,
        microbatches: header.microbatches,
        slices: header.slices,
        chunks: builder.chunks.iter().map(|chunk| chunk + 1).max().unwrap_or(1),
        stages: header.stages.iter().map(|rank| rank.0).collect(),
        clock,
        classes: classes(&header.catalog, &builder.styles),
        styles: builder.styles,
        effects: Vec::new(),
        rows,
        critical: Vec::new(),
        peaks: Vec::new(),
        arena: plan.ranks.iter().map(|rank| rank.peak.bytes.0).max(),
        held: None,
    };
    chart.effects = vec![Effect::default(); builder.effects.len()];
    for (effect, at) in builder.effects {
        chart.effects[at as usize] = effect;
    }
    chart
}

/// The model of a plan.
fn modelled(header: &Header) -> Modelled {
    let layers = |place| header.layers_of(place).len() as u32;
    let layers = Stage::all(header.depth() as usize).map(layers).collect();
    Modelled { dims: header.model, flows: header.flows.max(1), layers }
}

/// What all ranks' rows share.
struct Builder<'a> {
    plan: &'a Plan,
    /// Kinds, then collectives, then the sums at the end of a step, then each kind's values as sent and as received.
    styles: Vec<Style>,
    /// The chunk of each stage.
    chunks: Vec<u32>,
    /// Where the styles of messages begin; two for each kind and port.
    messages: Vec<u32>,
    effects: BTreeMap<Effect, u32>,
}

impl<'a> Builder<'a> {
    fn new(plan: &'a Plan) -> Self {
        let catalog = &plan.header.catalog;
        let mut styles = kind_styles(catalog);
        let communicates = |name: &str, act| Style {
            name: name.to_owned(),
            act,
            colour: COMMUNICATION,
            at_stage: false,
            computes: None,
        };
        styles.extend(catalog.collectives.iter().map(|each| communicates(&each.name, Act::Collective)));
        styles.push(communicates("sum of gradients", Act::Collective));
        styles.push(Style { colour: STEP, ..communicates("step", Act::Step) });
        let mut messages = Vec::with_capacity(catalog.kinds.len());
        for kind in &catalog.kinds {
            messages.push(styles.len() as u32);
            for &class in &kind.gives {
                let what = format!("{} of {}", catalog.class(class).name, kind.name);
                for act in [Act::Send, Act::Recv] {
                    styles.push(Style { at_stage: kind.at == At::Stage, ..communicates(&what, act) });
                }
            }
        }
        let effects = BTreeMap::from([(Effect::default(), 0)]);
        Self { plan, styles, chunks: chunks(&plan.header.stages), messages, effects }
    }

    fn row(&mut self, rank: Rank, moments: &impl Fn(Rank, InstrId) -> (u64, u64)) -> Row {
        let plan = &self.plan.ranks[rank.index()];
        let mut row = Row { lanes: plan.lanes.iter().map(ToString::to_string).collect(), ..Row::default() };
        let mut second = None;
        for (instr, id) in plan.instrs.iter().zip(InstrId::all(plan.instrs.len())) {
            let (start, end) = moments(rank, id);
            let (style, site, unit) = self.looks(instr.op);
            let share = if second == Some(instr.lane) {
                second = None;
                Share::Lower
            } else if instr.overlaps {
                second = Some(instr.lane);
                Share::Upper
            } else {
                Share::Whole
            };
            let (site, chunk) = match site {
                Some(Site::Stage(stage)) => (stage.0, self.chunks[stage.index()]),
                Some(Site::Rank(rank)) => (rank.0, 0),
                None => (rank.0, 0),
            };
            let track = match plan.lane(instr) {
                Lane::Compute => Track::Compute,
                Lane::Group(_) => Track::Group,
                Lane::Send(_) | Lane::Recv(_) => Track::Link,
            };
            let effect = self.effect(plan, instr);
            row.events.push(Event {
                style,
                site,
                chunk,
                unit,
                peer: None,
                posted: start,
                start,
                end: end.max(start),
                lane: instr.lane.0,
                track,
                share,
                effect,
            });
            row.waits.extend_from_slice(plan.operands(instr).waits);
            row.wait_ends.push(row.waits.len() as u32);
        }
        row
    }

    /// Style, site and unit of an instruction.
    fn looks(&self, op: Op) -> (u32, Option<Site>, Option<u32>) {
        let catalog = &self.plan.header.catalog;
        let kinds = catalog.kinds.len() as u32;
        let sums = kinds + catalog.collectives.len() as u32;
        let pass = |pass: Pass| (Some(pass.site), Some(pass.microbatch.0));
        let message = |value: Value| self.messages[value.pass.kind.index()] + 2 * value.port.0;
        match op {
            Op::Pass(of) => (of.kind.0, pass(of).0, pass(of).1),
            Op::Send { value, .. } => (message(value), pass(value.pass).0, pass(value.pass).1),
            Op::Recv { value, .. } => (message(value) + 1, pass(value.pass).0, pass(value.pass).1),
            Op::Collective { payload: Payload::Value { collective, microbatch }, .. } => {
                (kinds + collective.0, None, Some(microbatch.0))
            }
            Op::Collective { .. } => (sums, None, None),
            Op::Step => (sums + 1, None, None),
        }
    }

    /// What an instruction writes and frees, or sends; each set of classes and bytes is kept once.
    fn effect(&mut self, plan: &RankPlan, instr: &Instr) -> u32 {
        let operands = plan.operands(instr);
        let listed = |ids: &[u32]| {
            let mut sizes: Vec<(u32, u64)> = Vec::new();
            for &id in ids {
                let buffer = &plan.buffers[id as usize];
                let Bytes(bytes) = buffer.bytes();
                match sizes.iter_mut().find(|(class, _)| *class == buffer.class.0) {
                    _ if !matches!(buffer.place, Place::Arena(_)) => {}
                    Some((_, sum)) => *sum = sum.saturating_add(bytes),
                    None => sizes.push((buffer.class.0, bytes)),
                }
            }
            sizes
        };
        let sends = matches!(instr.op, Op::Send { .. });
        let makes = listed(if sends { operands.reads } else { operands.writes });
        let effect = Effect { makes, frees: listed(operands.frees) };
        let next = self.effects.len() as u32;
        *self.effects.entry(effect).or_insert(next)
    }
}

/// Kinds of pass with their colours. What runs between the parts of a barrier looks like communication.
fn kind_styles(catalog: &Catalog) -> Vec<Style> {
    let names: Vec<&str> = catalog
        .kinds
        .iter()
        .filter(|kind| kind.queue != Queue::Group)
        .map(|kind| kind.name.as_str())
        .collect();
    let mut colours = palette::colours(&names).into_iter();
    let style = |kind: &Kind| Style {
        name: kind.name.clone(),
        act: Act::Pass,
        colour: if kind.queue == Queue::Group {
            COMMUNICATION
        } else {
            colours.next().unwrap_or(COMMUNICATION)
        },
        at_stage: kind.at == At::Stage,
        computes: kind.computes,
    };
    catalog.kinds.iter().map(style).collect()
}

/// Buffer classes with their colours: a paler one of the pass that leaves it, a greyer one for a value that is passed on.
fn classes(catalog: &Catalog, styles: &[Style]) -> Vec<(String, Colour)> {
    let maker = |of: &dyn Fn(&Kind) -> &[ClassId], class| {
        let maker = catalog.kinds.iter().position(|kind| of(kind).contains(&class))?;
        Some(styles[maker].colour.mix(Colour([0xff; 3]), 35))
    };
    let colour = |class| {
        let left = maker(&|kind| &kind.makes, class);
        let passed = || maker(&|kind| &kind.gives, class).map(|colour| colour.mix(COMMUNICATION, 55));
        left.or_else(passed).unwrap_or(COMMUNICATION)
    };
    let ids = ClassId::all(catalog.classes.len());
    ids.zip(&catalog.classes).map(|(id, class)| (class.name.clone(), colour(id))).collect()
}

/// The position of each stage among those of its rank.
fn chunks(stages: &[Rank]) -> Vec<u32> {
    let mut held: BTreeMap<Rank, u32> = BTreeMap::new();
    let chunk = |rank: &Rank| {
        let count = held.entry(*rank).or_default();
        *count += 1;
        *count - 1
    };
    stages.iter().map(chunk).collect()
}

/// Lets each receive begin with its send, and each know the other: the k-th send of a channel meets the k-th receive.
fn pair_messages(plan: &Plan, rows: &mut [Row]) {
    let mut sends: BTreeMap<(Rank, Rank), Vec<u32>> = BTreeMap::new();
    for (rank, plan) in Rank::all(plan.ranks.len()).zip(&plan.ranks) {
        for (instr, at) in plan.instrs.iter().zip(0..) {
            if let Op::Send { to, .. } = instr.op {
                sends.entry((rank, to)).or_default().push(at);
            }
        }
    }
    let mut turns: BTreeMap<(Rank, Rank), usize> = BTreeMap::new();
    for (rank, plan) in Rank::all(plan.ranks.len()).zip(&plan.ranks) {
        for (at, instr) in plan.instrs.iter().enumerate() {
            let Op::Recv { from, .. } = instr.op else { continue };
            let turn = turns.entry((from, rank)).or_default();
            let send = sends.get(&(from, rank)).and_then(|sends| sends.get(*turn)).copied();
            *turn += 1;
            let Some(send) = send else { continue };
            let sender = &mut rows[from.index()].events[send as usize];
            sender.peer = Some((rank.0, at as u32));
            let begun = sender.start;
            let event = &mut rows[rank.index()].events[at];
            event.peer = Some((from.0, send));
            event.start = event.start.max(begun).min(event.end);
        }
    }
}

/// Lets each collective begin on all members when the last has come to it.
fn meet(plan: &Plan, rows: &mut [Row]) {
    let group = |op: Op| if let Op::Collective { group, .. } = op { Some(group) } else { None };
    let mut begins: BTreeMap<(u32, GroupId, Option<u32>), u64> = BTreeMap::new();
    for (row, plan) in rows.iter().zip(&plan.ranks) {
        for (event, instr) in row.events.iter().zip(&plan.instrs) {
            if let Some(group) = group(instr.op) {
                let latest = begins.entry((event.style, group, event.unit)).or_default();
                *latest = event.start.max(*latest);
            }
        }
    }
    for (row, plan) in rows.iter_mut().zip(&plan.ranks) {
        for (event, instr) in row.events.iter_mut().zip(&plan.instrs) {
            if let Some(group) = group(instr.op) {
                event.start = begins[&(event.style, group, event.unit)].clamp(event.start, event.end);
            }
        }
    }
}
