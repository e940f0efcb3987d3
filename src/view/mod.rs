//! A plan and its timeline, or a recorded run -> pictures: a grid in the terminal, SVG for papers, a page to look around in, a trace for
//! Chrome and Perfetto.
//!
//! [`planned`] and [`recorded`] make a [`scene::Scene`]: charts one above the other on one axis. Each form draws the same scene with the same
//! colours ([`palette`]). Nothing is decided here: what a plan does comes from the plan, when it does so from the simulator or the run.

pub mod chrome;
mod error;
pub mod html;
pub mod palette;
pub mod planned;
pub mod recorded;
pub mod scene;
pub mod svg;
pub mod terminal;
pub mod words;

pub use error::ViewError;
pub use planned::{measured, predicted};
pub use scene::{Chart, Scene};

/// The part of the axis that is drawn.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Range {
    /// Where it begins.
    pub from: f64,
    /// Where it ends.
    pub to: f64,
}

impl Range {
    /// The part that was asked for; the whole axis where nothing was.
    ///
    /// # Errors
    /// There is nothing in it.
    pub fn of(scene: &Scene, from: Option<f64>, to: Option<f64>) -> Result<Self, ViewError> {
        let end = scene.end();
        let range = Self { from: from.unwrap_or(0.0).max(0.0), to: to.unwrap_or(end).min(end) };
        if range.from < range.to {
            return Ok(range);
        }
        let shown = |moment: f64| words::with_unit(moment, scene.unit());
        Err(ViewError::EmptyRange { from: shown(range.from), to: shown(to.unwrap_or(end)), end: shown(end) })
    }

    /// How long it is.
    #[must_use]
    pub fn length(self) -> f64 {
        self.to - self.from
    }
}
