//! What lies over the rows of a chart: messages and the critical path.

#![allow(clippy::cast_precision_loss, clippy::cast_sign_loss, reason = "positions on a page")]

use std::fmt::Write as _;

use super::numbers::{short, tenth};
use super::{Drawing, MARGINS};
use crate::view::scene::{Act, Chart};

/// More arrows than this have no heads: a page would take long to draw them.
const MOST_HEADS: usize = 3000;

impl Drawing<'_> {
    /// An arrow from each send to its receive; without heads where there are very many.
    pub(super) fn messages(&self, text: &mut String, chart: &Chart, top: f64) {
        let sends = || {
            let rows = chart.rows.iter().zip(0u32..);
            rows.flat_map(|(row, rank)| row.events.iter().map(move |event| (rank, event)))
                .filter(|(_, event)| chart.styles[event.style as usize].act == Act::Send)
        };
        let heads = sends().count() <= MOST_HEADS;
        let _ = write!(text, "<g class=\"a\" transform=\"translate({} {})\">", MARGINS[0], short(top));
        let mut lines = String::new();
        for (rank, event) in sends() {
            let Some((peer, at)) = event.peer else { continue };
            let received = &chart.rows[peer as usize].events[at as usize];
            let (Some((start, _)), Some((_, end))) =
                (self.extent(chart, event), self.extent(chart, received))
            else {
                continue;
            };
            let (down, up) = if peer > rank { (self.heights[0], 0.0) } else { (0.0, self.heights[0]) };
            let from = f64::from(rank) * self.heights[2] + down;
            let to = f64::from(peer) * self.heights[2] + up;
            let line = format!(
                "M{} {}L{} {}",
                tenth(start as f64 / 100.0),
                tenth(from),
                tenth(end as f64 / 100.0),
                tenth(to)
            );
            if heads {
                let _ = writeln!(text, "<path marker-end=\"url(#to)\" d=\"{line}\"/>");
            } else {
                lines.push_str(&line);
            }
        }
        if !lines.is_empty() {
            let _ = writeln!(text, "<path d=\"{lines}\"/>");
        }
        text.push_str("</g>\n");
    }

    /// A line under every pass of the critical path, and from one to the next.
    pub(super) fn critical(&self, text: &mut String, chart: &Chart, top: f64) {
        let mut line = String::new();
        let mut last = None;
        for &(rank, at) in &chart.critical {
            let event = &chart.rows[rank as usize].events[at as usize];
            let Some((start, end)) = self.extent(chart, event) else { continue };
            if start == end {
                continue;
            }
            let y = top + f64::from(rank) * self.heights[2] + self.heights[0] - 0.8;
            let (x, to) = (MARGINS[0] + start as f64 / 100.0, MARGINS[0] + end as f64 / 100.0);
            let word = if last.is_some() { 'L' } else { 'M' };
            let _ = write!(line, "{word}{} {}H{}", tenth(x), tenth(y), tenth(to));
            last = Some(rank);
        }
        if !line.is_empty() {
            let _ = writeln!(text, "<path class=\"k\" d=\"{line}\"/>");
        }
    }
}
