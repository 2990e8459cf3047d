//! How far the estimate of a run was from what then happened.

use crate::event::{DrvOutcome, Event, Fact, Stage};
use crate::report::number::{clock, duration};
use crate::report::summary::{Attempt, Drv, Summary};
use crate::report::text::Line;

use super::remaining;

/// An estimate, held against what happened.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
pub struct Checked {
    /// Seconds after the start of the run at which all was known that had to be built.
    pub at: f64,
    /// Seconds of building that were expected from then on.
    pub expected: f64,
    /// Seconds by which it was said that this may be wrong, if anything was.
    pub error: Option<f64>,
    /// Seconds until the last drv was built.
    pub took: f64,
}

impl Checked {
    /// By how much it was wrong, as a share of what it took.
    #[must_use]
    pub fn off(&self) -> f64 {
        (self.expected - self.took) / self.took.max(1e-6)
    }
}

/// Of the estimate at the end of the comparison; `None` if nothing was built after it, or too little is known to tell:
/// a drv without a measured duration, or one that was not built. `now` is the fold of the events.
#[must_use]
pub fn checked(events: &[Event], now: &Summary) -> Option<Checked> {
    let compared = |event: &Event| matches!(event.fact, Fact::StageEnded { stage: Stage::Diff });
    let last = events.iter().rposition(compared)?;
    let at = events.get(last)?.at;
    let then = Summary::of(events.get(..=last)?);
    let estimate = remaining(&then, at).filter(|estimate| estimate.unknown == 0)?;
    let built = |drv: &Drv| matches!(drv.ended, Some((_, DrvOutcome::Built | DrvOutcome::Fetched | DrvOutcome::Valid)));
    if now.exit.is_some_and(|exit| exit != 0) || !now.drvs.values().all(built) {
        return None;
    }
    let ends = now.attempts.values().filter(|attempt| attempt.succeeded());
    let end = ends.filter_map(|attempt: &Attempt| Some(attempt.ended.as_ref()?.0)).max().filter(|end| *end > at)?;
    Some(Checked { at: at.seconds(), expected: estimate.seconds, error: estimate.error, took: end.since(at) })
}

/// `At 0m53s 6m20s of building were expected; it took 6m19s (0.3% off)`.
#[must_use]
pub fn line(checked: &Checked, width: usize) -> Line {
    let off = 100.0 * checked.off().abs();
    let (expected, took) = (duration(checked.expected), duration(checked.took));
    let text = format!("At {} {expected} of building were expected; it took {took} ({off:.1}% off)", clock(checked.at));
    Line::from(text).fit(width)
}
