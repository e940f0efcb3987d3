//! What lies in one rank's row: boxes, the lane of collectives, numbers.

#![allow(clippy::cast_precision_loss, clippy::cast_sign_loss, reason = "positions on a page")]

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::numbers::{hundredths, short, tenth};
use super::{DIGIT, Drawing};
use crate::view::palette::COMMUNICATION;
use crate::view::scene::{Act, Chart, Event, Row, Share, Track};

impl Drawing<'_> {
    /// One path for each kind and chunk of a row: every box a rectangle, each placed from the one before.
    pub(super) fn boxes(&self, text: &mut String, chart: &Chart, row: &Row, before: usize) {
        let [pass, ..] = self.heights;
        let mut paths: BTreeMap<(u32, u32, u8), Path> = BTreeMap::new();
        for event in row.events.iter().filter(|event| event.track == Track::Compute) {
            let style = &chart.styles[event.style as usize];
            if style.act == Act::Collective {
                continue;
            }
            let Some((start, end)) = self.extent(chart, event) else { continue };
            let chunk = if style.at_stage { event.chunk } else { 0 };
            // A hair between boxes, where they are wide enough to be told apart.
            let gap = if end - start >= 300 { 50 } else { 0 };
            let high = if event.share == Share::Whole { pass } else { pass / 2.0 };
            let path =
                paths.entry((event.style, chunk, event.share as u8)).or_insert_with(|| Path::new(high));
            path.add(start, end - gap);
        }
        for ((style, chunk, share), path) in paths {
            let top = if share == Share::Lower as u8 { pass / 2.0 } else { 0.0 };
            let name = before + style as usize;
            let colour = if chart.styles[style as usize].colour == COMMUNICATION {
                "c".to_owned()
            } else {
                format!("k{name}-{chunk}")
            };
            let _ = writeln!(text, "<path class=\"{colour}\" d=\"M0 {}{}\"/>", short(top), path.finish());
        }
    }

    /// Collectives and what runs between them, as one path.
    pub(super) fn collectives(&self, text: &mut String, chart: &Chart, row: &Row) {
        let [pass, lane, _] = self.heights;
        let mut path = Path::new(lane);
        let drawn = |event: &&Event| {
            event.track == Track::Group || chart.styles[event.style as usize].act == Act::Collective
        };
        let mut extents: Vec<(i64, i64)> =
            row.events.iter().filter(drawn).filter_map(|event| self.extent(chart, event)).collect();
        extents.sort_unstable();
        for (start, end) in extents {
            // What takes no time is a mark; marks closer than can be seen are one.
            path.near = 40;
            path.add(start, end.max(start + 60));
        }
        let boxes = path.finish();
        if !boxes.is_empty() {
            let _ = writeln!(text, "<path class=\"c\" d=\"M0 {}{boxes}\"/>", short(pass + 0.5));
        }
    }

    /// The microbatch in each box that has room for it. Where hardly any has, some of the first kind's boxes get a mark.
    pub(super) fn numbers(&self, text: &mut String, chart: &Chart, row: &Row) {
        let mut inks: [String; 2] = Default::default();
        let (mut all, mut named) = (0, 0);
        for event in chart.passes(row) {
            let (Some((start, end)), Some(unit)) = (self.extent(chart, event), event.unit) else { continue };
            let label = chart.unit_name(unit);
            all += 1;
            if (end - start) as f64 / 100.0 < label.len() as f64 * DIGIT[1] + 1.5 {
                continue;
            }
            named += 1;
            let y = match event.share {
                Share::Whole => self.heights[0] / 2.0 + 2.7,
                Share::Upper => self.heights[0] / 2.0 - 1.3,
                Share::Lower => self.heights[0] - 1.3,
            };
            let ink = usize::from(chart.colour(event).has_dark_ink());
            let x = (start + end) as f64 / 200.0 - 0.25;
            let _ = write!(inks[ink], "<text x=\"{}\" y=\"{}\">{label}</text>", tenth(x), tenth(y));
        }
        if named * 5 < all {
            return self.marks(text, chart, row);
        }
        for (class, ink) in ["w", "b"].into_iter().zip(inks).filter(|(_, ink)| !ink.is_empty()) {
            let _ = writeln!(text, "<g class=\"{class}\">{ink}</g>");
        }
    }

    /// Every so many microbatches, where its first pass of this row begins.
    fn marks(&self, text: &mut String, chart: &Chart, row: &Row) {
        let total = chart.microbatches.saturating_mul(chart.slices).max(1);
        let each = (f64::from(total) * 110.0 / self.width.max(1.0)).max(1.0);
        let each = (each as u32).next_power_of_two();
        let mut next = 0;
        let mut last = f64::NEG_INFINITY;
        let _ = write!(text, "<g class=\"m\">");
        for event in chart.passes(row) {
            let (Some((start, _)), Some(unit)) = (self.extent(chart, event), event.unit) else { continue };
            let x = start as f64 / 100.0;
            let first = event.chunk == 0 && chart.styles[event.style as usize].at_stage;
            if first && unit >= next && unit.is_multiple_of(each) && x > last + 24.0 {
                let y = self.heights[0] / 2.0 + 2.7;
                let _ = write!(
                    text,
                    "<text x=\"{}\" y=\"{}\">{}</text>",
                    tenth(x + 4.0),
                    tenth(y),
                    chart.unit_name(unit)
                );
                (next, last) = (unit + 1, x);
            }
        }
        text.push_str("</g>\n");
    }
}

/// Rectangles in one row. Those that touch are one.
struct Path {
    /// Their height, as the path has it.
    high: String,
    /// How far apart two may be that are drawn as one.
    near: i64,
    /// Where the one before began.
    at: i64,
    /// The one that is not written yet.
    last: Option<(i64, i64)>,
    text: String,
}

impl Path {
    fn new(high: f64) -> Self {
        Self { high: short(high), near: 0, at: 0, last: None, text: String::new() }
    }

    /// Adds a rectangle, in hundredths of a pixel.
    fn add(&mut self, start: i64, end: i64) {
        match &mut self.last {
            Some(last) if start <= last.1 + self.near => last.1 = end.max(last.1),
            last => {
                let before = last.replace((start, end));
                self.write(before);
            }
        }
    }

    fn write(&mut self, rectangle: Option<(i64, i64)>) {
        let Some((start, end)) = rectangle else { return };
        let (step, wide) = (hundredths(start - self.at), hundredths(end - start));
        let _ = write!(self.text, "m{step} 0h{wide}v{}h-{wide}z", self.high);
        self.at = start;
    }

    fn finish(mut self) -> String {
        let last = self.last.take();
        self.write(last);
        self.text
    }
}
