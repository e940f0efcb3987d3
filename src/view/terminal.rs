//! Scene -> a grid of characters: a line for each rank, a column for a stretch of time, passes by colour and microbatch.
//!
//! A column stands for as little time as the shortest pass and the number of a usual one need. What does not fit into the width is cut off, and the
//! last line says so, unless a range was asked for: that is squeezed in.

use std::fmt::Write as _;

use super::Range;
use super::palette::Colour;
use super::scene::{Chart, Event, Row, Scene, Share};
use super::words::{number, tick, with_unit};

/// How the terminal shows colours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Depth {
    /// Not at all: passes are told apart by their names.
    Plain,
    /// The 256 that every terminal has.
    Indexed,
    /// All of them.
    True,
}

/// What the grid is drawn for.
#[derive(Clone, Copy, Debug)]
pub struct Screen {
    /// Columns in all.
    pub width: usize,
    /// Colours.
    pub depth: Depth,
    /// Where to begin, on the axis.
    pub from: Option<f64>,
    /// Where to end, on the axis.
    pub to: Option<f64>,
}

/// The longest that one column is stretched where there is room.
const WIDEST: f64 = 4.0;

/// The narrowest screen that is drawn for.
const NARROWEST: usize = 24;

/// Draws every chart, one below the other, on one axis.
///
/// # Errors
/// There is nothing in the range that was asked for.
pub fn grid(scene: &Scene, screen: &Screen) -> Result<String, super::ViewError> {
    let whole = Range::of(scene, screen.from, screen.to)?;
    let ranks = scene.charts.iter().map(|chart| chart.rows.len()).max().unwrap_or(0);
    let gutter = 2 + ranks.saturating_sub(1).to_string().len();
    let columns = screen.width.max(NARROWEST) - gutter;
    let grid = Grid::new(scene, whole, columns, screen);
    let mut text = String::new();
    for (at, chart) in scene.charts.iter().enumerate() {
        if at > 0 {
            text.push('\n');
        }
        let _ = writeln!(text, "{}: {}\n{}", chart.name, chart.shape(), chart.caption());
        grid.axis(&mut text, gutter, scene.unit());
        for (rank, row) in chart.rows.iter().enumerate() {
            let _ = write!(text, "{:<gutter$}", format!("r{rank}"));
            grid.row(&mut text, chart, row);
        }
    }
    text.push('\n');
    grid.legend(&mut text, scene);
    if grid.shown.to < whole.to {
        grid.cut(&mut text, scene, whole);
    }
    Ok(text)
}

/// Which moment each column begins at.
struct Grid {
    /// The part of the axis that fits.
    shown: Range,
    /// Time of a column.
    column: f64,
    columns: usize,
    depth: Depth,
}

impl Grid {
    fn new(scene: &Scene, whole: Range, columns: usize, screen: &Screen) -> Self {
        #[allow(clippy::cast_precision_loss, reason = "columns are few")]
        let width = columns as f64;
        let natural = natural(scene, screen.depth);
        let column = if screen.to.is_some() {
            natural.min(whole.length() / width).max(whole.length() / width)
        } else {
            let room = (width * natural / whole.length()).floor().clamp(1.0, WIDEST);
            natural / room
        };
        let to = whole.to.min(whole.from + column * width);
        let shown = Range { from: whole.from, to };
        #[allow(clippy::cast_sign_loss, reason = "a length is not negative")]
        let used = ((shown.length() / column - 1e-6).ceil() as usize).clamp(1, columns);
        Self { shown, column, columns: used, depth: screen.depth }
    }

    /// The column that a moment falls into, as a fraction.
    fn at(&self, moment: f64) -> f64 {
        (moment - self.shown.from) / self.column
    }

    /// Marks at round times.
    fn axis(&self, text: &mut String, gutter: usize, unit: &str) {
        #[allow(clippy::cast_precision_loss, reason = "columns are few")]
        let step = tick(self.column * self.columns as f64, self.columns as f64 / 10.0);
        let mut line = " ".repeat(gutter);
        let mut mark = (self.shown.from / step).ceil();
        while mark * step < self.shown.to {
            #[allow(clippy::cast_sign_loss, reason = "the mark is on the axis")]
            let column = gutter + self.at(mark * step).round() as usize;
            let label = format!("|{}", if mark == 0.0 { with_unit(0.0, unit) } else { number(mark * step) });
            if column >= line.len() && column + label.len() <= gutter + self.columns.max(NARROWEST) {
                line.push_str(&" ".repeat(column - line.len()));
                line.push_str(&label);
            }
            mark += 1.0;
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }

    /// For each column the event that fills most of it.
    #[allow(clippy::cast_sign_loss, clippy::cast_precision_loss, reason = "columns are few and not negative")]
    fn cells<'a>(&self, chart: &'a Chart, row: &'a Row) -> Vec<Option<&'a Event>> {
        let mut cells: Vec<(f64, Option<&Event>)> = vec![(0.0, None); self.columns];
        let mut put = |from: f64, to: f64, event: &'a Event| {
            let (from, to) = (from.max(0.0), to.min(self.columns as f64));
            let first = from.floor() as usize;
            let last = (to.ceil().max(0.0) as usize).min(self.columns);
            for (cell, column) in cells.iter_mut().zip(0..).take(last).skip(first) {
                let covered = to.min(f64::from(column) + 1.0) - from.max(f64::from(column));
                if covered > cell.0 + 1e-9 {
                    *cell = (covered, Some(event));
                }
            }
        };
        for event in chart.passes(row) {
            let (start, end) = (self.at(chart.time(event.start)), self.at(chart.time(event.end)));
            // Of two that overlap, the first takes the first half: a line has no room for both at once.
            let middle = f64::midpoint(start, end);
            match event.share {
                Share::Whole => put(start, end, event),
                Share::Upper => put(start, middle, event),
                Share::Lower => put(middle, end, event),
            }
        }
        // A column that is idle for most of its time is idle.
        cells.into_iter().map(|(covered, event)| event.filter(|_| covered >= 0.25)).collect()
    }

    fn row(&self, text: &mut String, chart: &Chart, row: &Row) {
        let cells = self.cells(chart, row);
        let mut rest = &cells[..];
        while let Some(first) = rest.first() {
            let place = first.map(std::ptr::from_ref);
            let length = rest.iter().take_while(|cell| cell.map(std::ptr::from_ref) == place).count();
            rest = &rest[length..];
            match first {
                Some(event) => self.cell(text, chart, event, length),
                None if self.depth == Depth::Plain => text.push_str(&"·".repeat(length)),
                None => text.push_str(&" ".repeat(length)),
            }
        }
        text.truncate(text.trim_end_matches(' ').len());
        text.push('\n');
    }

    /// A pass over so many columns, with as much of its name as fits.
    fn cell(&self, text: &mut String, chart: &Chart, event: &Event, length: usize) {
        let name = &chart.styles[event.style as usize].name;
        let unit = event.unit.map_or_else(String::new, |unit| chart.unit_name(unit));
        let label = match self.depth {
            Depth::Plain => Some(format!("{name}{unit}")).filter(|label| label.chars().count() <= length),
            _ => Some(unit).filter(|unit| unit.len() <= length),
        };
        let short =
            || if self.depth == Depth::Plain { name.chars().take(length).collect() } else { String::new() };
        let label = label.unwrap_or_else(short);
        paint(text, self.depth, chart.colour(event), &format!("{label:<length$}"));
    }

    fn legend(&self, text: &mut String, scene: &Scene) {
        if self.depth == Depth::Plain {
            text.push_str("each cell: pass and microbatch; · is idle\n");
            return;
        }
        for (name, colour) in scene.legend() {
            paint(text, self.depth, colour, &format!(" {name} "));
            text.push(' ');
        }
        text.push_str(" each cell: the microbatch\n");
    }

    /// What is missing, and how to see it.
    fn cut(&self, text: &mut String, scene: &Scene, whole: Range) {
        let unit = scene.unit();
        let (to, end) = (number(self.shown.to), with_unit(whole.to, unit));
        let _ = writeln!(
            text,
            "cut at {to} of {end}: --from {to} goes on, --to {} squeezes all of it in, -o FILE.html shows everything",
            number(whole.to.ceil())
        );
    }
}

/// The time of a column at which the shortest passes have one, and a usual pass at a stage has room for its label.
fn natural(scene: &Scene, depth: Depth) -> f64 {
    let mut least = f64::INFINITY;
    for chart in &scene.charts {
        let (mut lengths, mut at_stage) = (Vec::new(), Vec::new());
        let mut widest = 1;
        for event in chart.rows.iter().flat_map(|row| chart.passes(row)) {
            let style = &chart.styles[event.style as usize];
            let length = chart.time(event.end) - chart.time(event.start);
            lengths.push(length);
            if style.at_stage {
                at_stage.push(length);
            }
            let name = if depth == Depth::Plain { style.name.len() } else { 1 };
            widest = widest.max(name + event.unit.map_or(0, |unit| chart.unit_name(unit).len()));
        }
        // What fewer than one pass in twenty falls below may vanish.
        let Some(shortest) = quantile(&mut lengths, 20) else { continue };
        let usual = quantile(&mut at_stage, 2).unwrap_or(shortest);
        #[allow(clippy::cast_precision_loss, reason = "names are short")]
        let labelled = usual / widest as f64;
        least = least.min(labelled.min(shortest).max(usual / 8.0));
    }
    if least.is_finite() { least } else { 1.0 }
}

/// The length that one in so many falls below, of those that take time.
fn quantile(lengths: &mut Vec<f64>, one_in: usize) -> Option<f64> {
    lengths.retain(|&length| length > 0.0);
    lengths.sort_by(f64::total_cmp);
    lengths.get(lengths.len().saturating_sub(1) / one_in).copied()
}

/// Text on a colour.
fn paint(text: &mut String, depth: Depth, colour: Colour, words: &str) {
    let [red, green, blue] = colour.0;
    let _ = match depth {
        Depth::Plain => write!(text, "{words}"),
        Depth::Indexed => {
            write!(text, "\x1b[38;5;{};48;5;{}m{words}\x1b[0m", colour.ink().ansi(), colour.ansi())
        }
        Depth::True => {
            let [over, _, _] = colour.ink().0;
            write!(text, "\x1b[38;2;{over};{over};{over};48;2;{red};{green};{blue}m{words}\x1b[0m")
        }
    };
}
