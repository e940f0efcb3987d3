//! What a picture shows: charts one above the other on one time axis. Each has a row for each rank and what happened there.

use super::palette::Colour;
use super::words::{number, size, with_unit};
use crate::ir::{Compute, Dims};

/// Charts on one time axis, from top to bottom.
#[derive(Clone, Debug, Default)]
pub struct Scene {
    /// The charts.
    pub charts: Vec<Chart>,
}

/// One plan's step, predicted or recorded.
#[derive(Clone, Debug)]
pub struct Chart {
    /// The schedule and its transforms: `v-half + vocab-1`.
    pub name: String,
    /// The model that was computed; where it is known.
    pub model: Option<Modelled>,
    /// Where its times come from.
    pub origin: Origin,
    /// The step that was recorded.
    pub step: Option<u64>,
    /// Whether that is the first step of its run: caches are cold then, and memory is touched for the first time.
    pub first: bool,
    /// Whether ranks were queues of a device.
    pub device: bool,
    /// The plan's hash, where it is known.
    pub plan: Option<String>,
    /// `m`.
    pub microbatches: u32,
    /// Slices of each microbatch.
    pub slices: u32,
    /// Stages of each rank.
    pub chunks: u32,
    /// The rank of each stage; empty where it is not known.
    pub stages: Vec<u32>,
    /// How its times become those of the axis.
    pub clock: Clock,
    /// What events are, by [`Event::style`].
    pub styles: Vec<Style>,
    /// Names and colours of buffer classes, by their index in [`Effect`].
    pub classes: Vec<(String, Colour)>,
    /// What events do to memory, by [`Event::effect`]; the first does nothing.
    pub effects: Vec<Effect>,
    /// The ranks.
    pub rows: Vec<Row>,
    /// Rank and position in its row of what nothing could have been later than, first to last.
    pub critical: Vec<(u32, u32)>,
    /// The moment at which each rank's buffers take the most bytes, and how many, by rank; empty where it is not known.
    pub peaks: Vec<(u64, u64)>,
    /// The largest arena of a rank.
    pub arena: Option<u64>,
    /// Activations that a rank holds at most, in microbatches of its share of the model.
    pub held: Option<f64>,
}

/// The model of a plan, and where its layers are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Modelled {
    /// Its dimensions.
    pub dims: Dims,
    /// Copies of it.
    pub flows: u32,
    /// The layers of each stage of a flow.
    pub layers: Vec<u32>,
}

/// Where a chart's times come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The simulator.
    Predicted,
    /// A run.
    Measured,
}

/// `(moment - zero) * scale`, in the axis's unit.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Clock {
    /// The moment that the axis begins at.
    pub zero: u64,
    /// The axis's units in one of the chart's.
    pub scale: f64,
    /// What the unit is called; empty for the unit that costs were written in.
    pub unit: &'static str,
    /// Whether `scale` was chosen to fit another chart.
    pub fitted: bool,
}

/// What an event is and how it looks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Style {
    /// The pass's name, the collective's, or what is sent.
    pub name: String,
    /// What it does.
    pub act: Act,
    /// Its colour, of the first chunk.
    pub colour: Colour,
    /// Whether its site is a stage, not a rank.
    pub at_stage: bool,
    /// What a pass computes; where it is known.
    pub computes: Option<Compute>,
}

/// What an event does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Act {
    /// Runs a pass.
    Pass,
    /// Sends a value.
    Send,
    /// Receives a value.
    Recv,
    /// Takes part in a collective.
    Collective,
    /// Ends the step.
    Step,
}

/// Which lane of the picture an event is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Track {
    /// The rank's passes.
    Compute,
    /// Collectives and what runs between them.
    Group,
    /// Messages.
    Link,
}

/// Which part of its lane's height an event takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Share {
    /// All of it.
    Whole,
    /// The first of two that run overlapped.
    Upper,
    /// The second of the two.
    Lower,
}

/// What one rank did, in the order of its list.
#[derive(Clone, Debug, Default)]
pub struct Row {
    /// Its events.
    pub events: Vec<Event>,
    /// For each event, where what it waits for ends in `waits`.
    pub wait_ends: Vec<u32>,
    /// Positions of events.
    pub waits: Vec<u32>,
    /// Its lanes, by name.
    pub lanes: Vec<String>,
}

/// Something that a rank did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    /// Index into [`Chart::styles`].
    pub style: u32,
    /// The stage or the rank of the pass; of a message, of the pass whose value it is.
    pub site: u32,
    /// The chunk of that stage on its rank.
    pub chunk: u32,
    /// The microbatch or the slice of one; of a step's own work, none.
    pub unit: Option<u32>,
    /// The other rank of a message, and the position of its send or receive there.
    pub peer: Option<(u32, u32)>,
    /// When its rank comes to it. A message or a collective begins when all who take part have.
    pub posted: u64,
    /// When it begins.
    pub start: u64,
    /// When it has ended.
    pub end: u64,
    /// Index into [`Row::lanes`].
    pub lane: u32,
    /// Where it is drawn.
    pub track: Track,
    /// How much of the lane it takes.
    pub share: Share,
    /// Index into [`Chart::effects`].
    pub effect: u32,
}

/// What an event does to memory: class and bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Effect {
    /// Buffers that it writes, or that it sends.
    pub makes: Vec<(u32, u64)>,
    /// Buffers that it is the last to use.
    pub frees: Vec<(u32, u64)>,
}

impl Scene {
    /// Charts on one axis, each from its first pass on. Where some have times in seconds and others in the unit of costs, those are stretched so that their passes take as
    /// long in all.
    #[must_use]
    pub fn new(mut charts: Vec<Chart>) -> Self {
        for chart in &mut charts {
            let passes = chart.rows.iter().flat_map(|row| chart.passes(row));
            chart.clock.zero = passes.map(|event| event.start).min().unwrap_or_default();
        }
        let real = charts.iter().find(|chart| !chart.clock.unit.is_empty());
        let real = real.map(|chart| (chart.clock.unit, chart.busy()));
        if let Some((unit, busy)) = real {
            for chart in charts.iter_mut().filter(|chart| chart.clock.unit.is_empty()) {
                let own = chart.busy();
                if own > 0.0 && busy > 0.0 {
                    let scale = chart.clock.scale * busy / own;
                    chart.clock = Clock { scale, unit, fitted: true, ..chart.clock };
                }
            }
        }
        Self { charts }
    }

    /// The end of the last event of any chart, on the axis.
    #[must_use]
    pub fn end(&self) -> f64 {
        self.charts.iter().map(Chart::end).fold(0.0, f64::max)
    }

    /// The unit of the axis.
    #[must_use]
    pub fn unit(&self) -> &'static str {
        self.charts.first().map_or("", |chart| chart.clock.unit)
    }

    /// Every kind of pass and every chunk of it that has a colour, in the order that they come, with its name and colour.
    #[must_use]
    pub fn legend(&self) -> Vec<(String, Colour)> {
        let mut entries: Vec<(String, Colour)> = Vec::new();
        let shown = |style: &&Style| style.act == Act::Pass && style.colour != super::palette::COMMUNICATION;
        for chart in &self.charts {
            for style in chart.styles.iter().filter(shown) {
                let chunks = if style.at_stage { chart.chunks.max(1) } else { 1 };
                for chunk in 0..chunks {
                    let name =
                        if chunk == 0 { style.name.clone() } else { format!("{}.{chunk}", style.name) };
                    let colour = style.colour.of_chunk(chunk, chunks);
                    if !entries.iter().any(|entry| *entry == (name.clone(), colour)) {
                        entries.push((name, colour));
                    }
                }
            }
        }
        entries
    }
}

impl Chart {
    /// A moment on the axis.
    #[must_use]
    #[allow(clippy::cast_precision_loss, reason = "pictures show a few digits")]
    pub fn time(&self, moment: u64) -> f64 {
        moment.saturating_sub(self.clock.zero) as f64 * self.clock.scale
    }

    /// The end of its last event on the axis.
    #[must_use]
    pub fn end(&self) -> f64 {
        let last = self.rows.iter().flat_map(|row| &row.events).map(|event| event.end).max();
        last.map_or(0.0, |last| self.time(last))
    }

    /// The passes of a rank's compute lane.
    pub fn passes<'a>(&'a self, row: &'a Row) -> impl Iterator<Item = &'a Event> + 'a {
        let pass = |event: &&Event| self.styles[event.style as usize].act == Act::Pass;
        row.events.iter().filter(|event| event.track == Track::Compute).filter(pass)
    }

    /// Time in passes, of all ranks, on the axis. Two that overlap count once.
    fn busy(&self) -> f64 {
        let passes = self.rows.iter().flat_map(|row| self.passes(row));
        let alone = passes.filter(|event| event.share != Share::Lower);
        alone.map(|event| self.time(event.end) - self.time(event.start)).sum()
    }

    /// From the first pass to the end of the last, on the axis.
    #[must_use]
    pub fn makespan(&self) -> f64 {
        let passes = || self.rows.iter().flat_map(|row| self.passes(row));
        let first = passes().map(|event| event.start).min().unwrap_or_default();
        let last = passes().map(|event| event.end).max().unwrap_or_default();
        self.time(last) - self.time(first)
    }

    /// 1 - busy / makespan, mean over the ranks.
    #[must_use]
    #[allow(clippy::cast_precision_loss, reason = "ranks are few")]
    pub fn bubble(&self) -> f64 {
        let whole = self.makespan() * self.rows.len() as f64;
        if whole > 0.0 { (1.0 - self.busy() / whole).max(0.0) } else { 0.0 }
    }

    /// Ranks, microbatches, and whether it was measured: what stands beside the name.
    #[must_use]
    pub fn shape(&self) -> String {
        let sliced = if self.slices > 1 { format!(" of {} slices", self.slices) } else { String::new() };
        let origin = match (self.origin, self.step) {
            (Origin::Predicted, _) => "predicted".to_owned(),
            (Origin::Measured, Some(step)) => format!("measured, step {step}"),
            (Origin::Measured, None) => "measured".to_owned(),
        };
        let (ranks, microbatches) = (self.rows.len(), self.microbatches);
        let ranks = format!("{ranks} rank{}", if ranks == 1 { "" } else { "s" });
        let microbatches = format!("{microbatches} microbatch{}", if microbatches == 1 { "" } else { "es" });
        format!("{ranks}, {microbatches}{sliced}, {origin}")
    }

    /// What it comes to, in one line.
    #[must_use]
    pub fn caption(&self) -> String {
        let mut parts = vec![
            format!("makespan {}", with_unit(self.makespan(), self.clock.unit)),
            format!("bubble {:.1} %", self.bubble() * 100.0),
        ];
        let arena = self.arena.map(|arena| format!("{} allocated", size(arena)));
        if let Some(held) = self.held.filter(|&held| held > 0.0) {
            parts.push(format!("peak {} microbatches in flight", number(held)));
        }
        parts.extend(arena);
        if self.clock.fitted {
            parts.push("times stretched to the measured passes".to_owned());
        }
        parts.join(" · ")
    }

    /// The position of each stage among those of its rank.
    #[must_use]
    pub fn chunk_of(&self) -> Vec<u32> {
        let mut held = vec![0; self.rows.len()];
        let chunk = |&rank: &u32| {
            let Some(count) = held.get_mut(rank as usize) else { return 0 };
            *count += 1;
            *count - 1
        };
        self.stages.iter().map(chunk).collect()
    }

    /// The name of a microbatch, or of a slice of one, without the sigil.
    #[must_use]
    pub fn unit_name(&self, unit: u32) -> String {
        let slices = self.slices.max(1);
        if slices == 1 { unit.to_string() } else { format!("{}.{}", unit / slices, unit % slices) }
    }

    /// The colour of an event.
    #[must_use]
    pub fn colour(&self, event: &Event) -> Colour {
        let style = &self.styles[event.style as usize];
        if style.at_stage { style.colour.of_chunk(event.chunk, self.chunks) } else { style.colour }
    }
}
