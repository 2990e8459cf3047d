//! Why a run took longer than runs like it, or less: `drover report --slow`.
//!
//! The account of the run is held against the median account of the runs before it, group by group, and each group's
//! difference is given to what the two sides otherwise differ in: drvs, builders, caches, attempts. What has no cause is
//! the rest, so that the lines add up to the difference. A cause is a likely one: it says what came together with the
//! time, not what would have been without it (that is `--what-if`).

mod drvs;
mod group;
mod ledger;
mod screen;
mod usual;

use serde::Serialize;

use crate::id::RunId;
use crate::record::history::Entry;

use ledger::Ledger;
use usual::Usual;

pub use screen::{document, screen};

/// Runs like this one that are looked at.
pub const RUNS: usize = 20;

/// Seconds, and share of the usual wall time, below which a cause is part of the rest.
const LEAST: f64 = 0.5;
const LEAST_SHARE: f64 = 0.01;

/// Why a run took as long as it did.
#[derive(Debug, Clone, PartialEq)]
pub struct Slow {
    /// Which.
    pub run: RunId,
    /// Of which branch it was.
    pub branch: Option<String>,
    /// When it began.
    pub started: jiff::Timestamp,
    /// Its wall time.
    pub seconds: f64,
    /// The median of the runs before it; `None` if there are none.
    pub usual: Option<f64>,
    /// How many those are.
    pub runs: usize,
    /// Why it took longer, what took most first; their seconds add up to the difference. Below 0: why it took less.
    pub causes: Vec<Cause>,
}

impl Slow {
    /// By how much it took longer than usual.
    #[must_use]
    pub fn difference(&self) -> f64 {
        self.usual.map_or(0.0, |usual| self.seconds - usual)
    }
}

/// One cause.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Cause {
    /// Which sort of cause.
    pub kind: Kind,
    /// By how much it made the run longer.
    pub seconds: f64,
    /// What happened.
    pub text: String,
}

/// Sorts of causes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// More had to be built, or other things, since the flake changed.
    Drvs,
    /// More attrs were asked for.
    Attrs,
    /// Caches lacked what they had before.
    ColderCache,
    /// A builder was not there, for some or all of the time, or had fewer slots.
    Builder,
    /// A cache was slow, or refused to answer for a while.
    Cache,
    /// Evaluation.
    Evaluation,
    /// A drv took longer than it usually does.
    Drv,
    /// Drvs waited for slots, though there were as many as usual and no more to do.
    Queue,
    /// Pushing after all else was done.
    Push,
    /// Drvs that had to be tried again.
    Retry,
    /// Bringing inputs to builders and results home.
    Copying,
    /// Starting and closing.
    Start,
    /// What none of these explains.
    Rest,
}

/// Of a run, against runs like it before, the newest last. Only those that ended well count.
#[must_use]
pub fn slow(now: &Entry, before: &[Entry]) -> Slow {
    let before: Vec<&Entry> = before.iter().filter(|entry| entry.exit == Some(0)).collect();
    let before = before[before.len().saturating_sub(RUNS)..].to_vec();
    let usual = Usual::of(before);
    let seconds = usual.median(|entry| entry.seconds);
    let causes = seconds.map(|seconds| causes(now, &usual, seconds)).unwrap_or_default();
    Slow {
        run: now.run,
        branch: now.branch.clone(),
        started: now.started,
        seconds: now.seconds,
        usual: seconds,
        runs: usual.len(),
        causes,
    }
}

fn causes(now: &Entry, usual: &Usual<'_>, seconds: f64) -> Vec<Cause> {
    let mut ledger = Ledger::new(now, usual);
    ledger.attrs();
    ledger.retries();
    ledger.slower_drvs();
    ledger.caches();
    ledger.away();
    ledger.work();
    ledger.others();
    let least = LEAST.max(seconds * LEAST_SHARE);
    let mut causes = ledger.into_causes();
    causes.retain(|cause| cause.seconds.abs() >= least);
    causes.sort_by(|a, b| b.seconds.total_cmp(&a.seconds));
    let explained: f64 = causes.iter().map(|cause| cause.seconds).sum();
    let rest = now.seconds - seconds - explained;
    if rest.abs() >= 1e-9 {
        causes.push(Cause { kind: Kind::Rest, seconds: rest, text: "nothing that stands out".to_owned() });
    }
    causes
}
