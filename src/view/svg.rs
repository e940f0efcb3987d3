//! Scene -> SVG, for papers: a row for each rank, a box for each pass with its microbatch where that fits, collectives on a thin lane below.
//!
//! A file stays small: the boxes of one kind in one row are one path, each placed from the one before. Where boxes are too narrow for
//! numbers, some of the forwards are numbered, with a mark.

#![allow(clippy::cast_precision_loss, clippy::cast_sign_loss, reason = "positions on a page")]

mod numbers;
mod overlay;
mod row;

use std::fmt::Write as _;

pub(super) use numbers::escape;
use numbers::short;

use super::Range;
use super::palette::COMMUNICATION;
use super::scene::{Act, Chart, Event, Scene, Track};
use super::words::{number, tick, with_unit};

/// What is drawn beside the passes.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// The part of the axis.
    pub range: Range,
    /// An arrow for each message.
    pub messages: bool,
    /// The critical path.
    pub critical: bool,
}

/// Widths of pictures without the margins: the least, the one where not all numbers fit, the most that is spent on making them fit.
const WIDTHS: [f64; 3] = [560.0, 2400.0, 3600.0];

/// Space to the left, with the ranks' names, and to the right.
const MARGINS: [f64; 2] = [34.0, 14.0];

/// More events than this are drawn to a tenth of a pixel.
const MANY: usize = 100_000;

/// The height of a chart's title and caption.
const HEAD: f64 = 34.0;

/// Size of the numbers in boxes, and the width of a digit of them.
const DIGIT: [f64; 2] = [7.5, 4.2];

/// Draws every chart, one below the other, on one axis.
#[must_use]
pub fn draw(scene: &Scene, options: &Options) -> String {
    let drawing = Drawing::new(scene, options);
    let mut body = String::new();
    let mut top = 6.0;
    for (chart, &before) in scene.charts.iter().zip(&drawing.classes) {
        top = drawing.chart(&mut body, chart, before, top);
    }
    let bottom = drawing.foot(&mut body, scene, top);
    let width = MARGINS[0] + drawing.width + MARGINS[1];
    let mut text = String::new();
    let (wide, high) = (short(width), short(bottom));
    let _ = write!(
        text,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{wide}\" height=\"{high}\" viewBox=\"0 0 {wide} {high}\" \
         font-family=\"Helvetica,Arial,sans-serif\" font-size=\"9\">\n<title>{}</title>\n",
        escape(&scene.charts.iter().map(|chart| chart.name.as_str()).collect::<Vec<_>>().join(", "))
    );
    drawing.styles(&mut text, scene);
    if options.messages {
        text.push_str(
            "<defs><marker id=\"to\" viewBox=\"0 0 6 6\" refX=\"6\" refY=\"3\" markerWidth=\"5\" markerHeight=\"5\" orient=\"auto\">\
             <path d=\"M0 0L6 3L0 6z\" style=\"fill:#555\"/></marker></defs>\n",
        );
    }
    let _ = writeln!(text, "<rect class=\"bg\" width=\"{wide}\" height=\"{high}\"/>");
    text + &body + "</svg>\n"
}

/// The scale and the sizes of the whole picture.
struct Drawing<'a> {
    options: &'a Options,
    width: f64,
    /// Height of a pass, of the lane of collectives, and from row to row.
    heights: [f64; 3],
    /// Hundredths of a pixel that positions are rounded to: coarser where boxes are very many.
    grain: f64,
    /// Styles of all charts before a chart: classes are numbered over all.
    classes: Vec<usize>,
}

impl<'a> Drawing<'a> {
    fn new(scene: &Scene, options: &'a Options) -> Self {
        let natural = scene.charts.iter().filter_map(natural).fold(0.0, f64::max);
        let width = (options.range.length() * natural).max(WIDTHS[0]);
        let width = if width > WIDTHS[2] { WIDTHS[1] } else { width };
        let ranks = scene.charts.iter().map(|chart| chart.rows.len()).max().unwrap_or(1);
        let pass = if ranks <= 16 {
            16.0
        } else if ranks <= 32 {
            13.0
        } else {
            10.0
        };
        let group = |chart: &Chart| {
            chart.rows.iter().flat_map(|row| &row.events).any(|event| event.track == Track::Group)
        };
        let lane = if scene.charts.iter().any(group) { (pass / 5.0_f64).max(2.0) } else { 0.0 };
        // Arrows need room.
        let between = if options.messages { 9.0 } else { 2.5 };
        let mut before = 0;
        let mut classes = Vec::new();
        for chart in &scene.charts {
            classes.push(before);
            before += chart.styles.len();
        }
        let events: usize =
            scene.charts.iter().flat_map(|chart| &chart.rows).map(|row| row.events.len()).sum();
        let grain = if events > MANY { 10.0 } else { 1.0 };
        Self { options, width, heights: [pass, lane, pass + lane + between], grain, classes }
    }

    fn x(&self, moment: f64) -> f64 {
        (moment - self.options.range.from) / self.options.range.length() * self.width
    }

    /// Where an event begins and ends, in hundredths of a pixel from the left end of its row; `None` where it is not in the picture.
    fn extent(&self, chart: &Chart, event: &Event) -> Option<(i64, i64)> {
        let (start, end) = (chart.time(event.start), chart.time(event.end));
        let Range { from, to } = self.options.range;
        if end < from || start >= to {
            return None;
        }
        let parts = 100.0 / self.grain;
        let hundredths =
            |moment: f64| (self.x(moment.clamp(from, to)) * parts).round() as i64 * self.grain as i64;
        Some((hundredths(start), hundredths(end)))
    }

    fn styles(&self, text: &mut String, scene: &Scene) {
        let [pass, ..] = self.heights;
        let _ = write!(
            text,
            "<style>.bg{{fill:#fff}}text{{fill:#222}}.t{{font-size:12px;font-weight:bold}}.i{{fill:#666}}.n{{text-anchor:end}}\
             path{{fill:none}}.c{{fill:{COMMUNICATION}}}\
             .a{{stroke:#555;stroke-width:.6;opacity:.7}}.k{{stroke:#d00;stroke-width:1.6}}.x{{stroke:#ccc;stroke-width:.6}}\
             .b text,.w text,.m text{{font-size:{d}px;text-anchor:middle}}.b text{{fill:#000}}.w text{{fill:#fff}}\
             .m text{{fill:#000;stroke:#fff;stroke-width:2px;paint-order:stroke;font-weight:bold}}",
            d = short(DIGIT[0].min(pass - 3.0)),
        );
        for (chart, before) in scene.charts.iter().zip(&self.classes) {
            for (at, style) in chart.styles.iter().enumerate() {
                let chunks = if style.at_stage { chart.chunks.max(1) } else { 1 };
                let drawn = matches!(style.act, Act::Pass | Act::Step) && style.colour != COMMUNICATION;
                for chunk in (0..chunks).filter(|_| drawn) {
                    let colour = style.colour.of_chunk(chunk, chunks);
                    let _ = write!(text, ".k{}-{chunk}{{fill:{colour}}}", before + at);
                }
            }
        }
        text.push_str(
            "@media(prefers-color-scheme:dark){.bg{fill:#16181d}text{fill:#ddd}.i{fill:#999}.x{stroke:#444}.a{stroke:#aaa}.k{stroke:#f66}}</style>\n",
        );
    }

    /// Draws a chart from `top` on; where it ends.
    fn chart(&self, text: &mut String, chart: &Chart, before: usize, top: f64) -> f64 {
        let [pass, _, row_height] = self.heights;
        let _ = writeln!(
            text,
            "<text class=\"t\" x=\"{left}\" y=\"{}\">{} <tspan class=\"i\" font-size=\"10\" font-weight=\"normal\">{}</tspan></text>\n\
             <text class=\"i\" x=\"{left}\" y=\"{}\">{}</text>",
            short(top + 12.0),
            escape(&chart.name),
            escape(&chart.shape()),
            short(top + 25.0),
            escape(&chart.caption()),
            left = MARGINS[0],
        );
        let rows = top + HEAD;
        for (rank, row) in chart.rows.iter().enumerate() {
            let y = rows + rank as f64 * row_height;
            let _ = writeln!(text, "<g transform=\"translate({} {})\">", MARGINS[0], short(y));
            let _ =
                write!(text, "<text class=\"n\" x=\"-5\" y=\"{}\">r{rank}</text>", short(pass / 2.0 + 3.0));
            self.boxes(text, chart, row, before);
            self.collectives(text, chart, row);
            self.numbers(text, chart, row);
            text.push_str("</g>\n");
        }
        if self.options.messages {
            self.messages(text, chart, rows);
        }
        if self.options.critical {
            self.critical(text, chart, rows);
        }
        rows + chart.rows.len() as f64 * row_height + 8.0
    }

    /// The time axis and the legend; where the picture ends.
    fn foot(&self, text: &mut String, scene: &Scene, top: f64) -> f64 {
        let Range { from, to } = self.options.range;
        let step = tick(self.options.range.length(), self.width / 70.0);
        let _ = writeln!(text, "<g transform=\"translate({} {})\">", MARGINS[0], short(top));
        let _ = write!(text, "<path class=\"x\" d=\"M0 0H{}\"/>", short(self.width));
        let mut mark = (from / step).ceil();
        while mark * step <= to * (1.0 + 1e-9) {
            let x = short(self.x(mark * step));
            let label = if mark == 0.0 { with_unit(0.0, scene.unit()) } else { number(mark * step) };
            let _ = write!(
                text,
                "<path class=\"x\" d=\"M{x} 0v4\"/><text class=\"i\" x=\"{x}\" y=\"13\" text-anchor=\"middle\">{label}</text>"
            );
            mark += 1.0;
        }
        text.push_str("\n</g>\n");
        let mut x = MARGINS[0];
        let mut y = top + 24.0;
        let mut entries =
            scene.legend().into_iter().map(|(name, colour)| (name, colour, 9.0)).collect::<Vec<_>>();
        if self.heights[1] > 0.0 {
            entries.push(("collectives".to_owned(), COMMUNICATION, self.heights[1]));
        }
        for (name, colour, height) in entries {
            let wide = 22.0 + name.chars().count() as f64 * 5.4;
            if x + wide > MARGINS[0] + self.width {
                (x, y) = (MARGINS[0], y + 15.0);
            }
            let _ = write!(
                text,
                "<rect x=\"{}\" y=\"{}\" width=\"11\" height=\"{}\" fill=\"{colour}\"/><text x=\"{}\" y=\"{}\">{}</text>",
                short(x),
                short(y + (9.0 - height) / 2.0),
                short(height),
                short(x + 14.0),
                short(y + 8.0),
                escape(&name)
            );
            x += wide;
        }
        text.push('\n');
        y + 18.0
    }
}

/// Pixels for a unit of time at which the numbers of a usual pass fit.
fn natural(chart: &Chart) -> Option<f64> {
    let passes = || chart.rows.iter().flat_map(|row| chart.passes(row));
    let mut lengths: Vec<f64> = passes()
        .map(|event| chart.time(event.end) - chart.time(event.start))
        .filter(|&length| length > 0.0)
        .collect();
    lengths.sort_by(f64::total_cmp);
    let usual = *lengths.get(lengths.len() / 2)?;
    let digits = passes().filter_map(|event| event.unit).max().map_or(1, |unit| chart.unit_name(unit).len());
    Some((digits as f64 * DIGIT[1] + 3.0) / usual)
}
