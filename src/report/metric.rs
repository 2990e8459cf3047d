//! What runs are measured by: one table of numbers that an [`Entry`] gives, for trends, comparisons, gates and goals.

use crate::error::{Error, Result};
use crate::event::{Stage, Status};
use crate::record::history::{Build, Entry, Outcome};

use super::number::{count, duration, size};

/// How a number is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// Seconds.
    Seconds,
    /// Bytes.
    Bytes,
    /// So many of something.
    Count,
    /// A share of 1.
    Share,
}

impl Unit {
    /// The word for machines.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Seconds => "seconds",
            Self::Bytes => "bytes",
            Self::Count => "count",
            Self::Share => "ratio",
        }
    }

    /// A number as people read it.
    #[must_use]
    pub fn text(self, number: f64) -> String {
        match self {
            Self::Seconds => duration(number),
            Self::Bytes => size(number.max(0.0) as u64),
            Self::Count => count(number.max(0.0).round() as usize),
            Self::Share => format!("{:.1}%", number * 100.0),
        }
    }
}

/// A number of a run.
#[derive(Debug, Clone, Copy)]
pub struct Metric {
    /// Its name on the command line and in documents.
    pub name: &'static str,
    /// What it is, for people.
    pub what: &'static str,
    /// How it is written.
    pub unit: Unit,
    /// The same run again gives the same number: one run is enough to judge it.
    pub exact: bool,
    /// More of it is better.
    pub more_is_better: bool,
    /// It is not told without the attrs and builds of a run.
    pub needs_builds: bool,
    of: fn(&Entry) -> Option<f64>,
}

impl Metric {
    /// The number of a run; `None` where the run has none.
    #[must_use]
    pub fn of(&self, entry: &Entry) -> Option<f64> {
        (self.of)(entry).filter(|number| number.is_finite())
    }

    /// The metric of that name.
    ///
    /// # Errors
    /// If there is none; the nearest name is in the hint.
    pub fn named(name: &str) -> Result<&'static Self> {
        let wanted = name.replace('_', "-");
        METRICS.iter().find(|metric| metric.name == wanted).ok_or_else(|| {
            let names: Vec<&str> = METRICS.iter().map(|metric| metric.name).collect();
            let near = names.iter().max_by(|a, b| strsim::jaro(a, &wanted).total_cmp(&strsim::jaro(b, &wanted)));
            let near = near.filter(|near| strsim::jaro(near, &wanted) > 0.7);
            let hint =
                near.map_or_else(|| format!("one of {}", names.join(", ")), |near| format!("did you mean {near}?"));
            Error::usage(format!("no metric is called '{name}'")).hint(hint)
        })
    }
}

/// All of them. What a gate looks at by itself comes first.
pub const METRICS: &[Metric] = &[
    exact("built", "drvs built", Unit::Count, |entry| Some(entry.counters.built as f64)),
    exact("closure", "bytes of all closures", Unit::Bytes, |entry| {
        Some(entry.counters.closure_bytes as f64).filter(|bytes| *bytes > 0.0)
    }),
    exact("evaluated", "attrs evaluated", Unit::Count, |entry| Some(entry.counters.evaluated as f64)),
    better("hit-rate", "paths that caches had", |entry| share(entry.counters.paths_hit, entry.counters.paths_asked)),
    timed("duration", "wall time", |entry| Some(entry.seconds)),
    timed("evaluation", "evaluating", |entry| stage(entry, Stage::Eval)),
    timed("comparison", "comparing with caches", |entry| stage(entry, Stage::Diff)),
    timed("building", "from the first build to the last", |entry| stage(entry, Stage::Build)),
    timed("push-tail", "pushing after all else", |entry| Some(waited(entry, &["pushing"]))),
    timed("queue", "waiting for slots and builders", |entry| {
        Some(waited(entry, &["waiting_for_slot", "waiting_for_builder"]))
    }),
    timed("chain", "the longest chain of builds", |entry| Some(entry.chain_seconds)),
    needing_builds(timed("work", "building, all builders together", |entry| {
        Some(entry.builds.iter().map(Build::seconds).sum())
    })),
    needing_builds(timed("first-failure", "until the first failure", first_failure)),
    better("attr-hit-rate", "attrs that caches had", |entry| {
        share(entry.counters.attrs_hit, entry.counters.attrs_asked)
    }),
    better("byte-hit-rate", "bytes that caches had", |entry| {
        share(entry.counters.bytes_hit, entry.counters.bytes_asked)
    }),
    exact("to-build", "drvs to build", Unit::Count, |entry| Some(entry.counters.to_build as f64)),
    exact("failed", "drvs that failed", Unit::Count, |entry| Some(entry.counters.failed as f64)),
    exact("retries", "attempts after the first", Unit::Count, |entry| Some(entry.counters.retries as f64)),
    exact("flaky", "flaky drvs", Unit::Count, |entry| Some(entry.counters.flaky as f64)),
    exact("pushed", "bytes pushed", Unit::Bytes, |entry| Some(entry.counters.pushed_bytes as f64)),
    Metric {
        name: "spared",
        what: "building that caches spared",
        unit: Unit::Seconds,
        exact: true,
        more_is_better: true,
        needs_builds: false,
        of: |entry| Some(entry.counters.spared_seconds as f64),
    },
];

const fn exact(name: &'static str, what: &'static str, unit: Unit, of: fn(&Entry) -> Option<f64>) -> Metric {
    Metric { name, what, unit, exact: true, more_is_better: false, needs_builds: false, of }
}

const fn timed(name: &'static str, what: &'static str, of: fn(&Entry) -> Option<f64>) -> Metric {
    Metric { name, what, unit: Unit::Seconds, exact: false, more_is_better: false, needs_builds: false, of }
}

const fn needing_builds(metric: Metric) -> Metric {
    Metric { needs_builds: true, ..metric }
}

const fn better(name: &'static str, what: &'static str, of: fn(&Entry) -> Option<f64>) -> Metric {
    Metric { name, what, unit: Unit::Share, exact: true, more_is_better: true, needs_builds: false, of }
}

/// Seconds of a stage; `None` if it never was.
fn stage(entry: &Entry, stage: Stage) -> Option<f64> {
    entry.stages.contains_key(&stage).then(|| entry.stage_seconds(stage))
}

/// Seconds of the account that belong to one of these.
fn waited(entry: &Entry, words: &[&str]) -> f64 {
    entry.account.iter().filter(|part| words.contains(&part.what.as_str())).map(|part| part.seconds).sum()
}

fn share(hit: u64, of: u64) -> Option<f64> {
    (of > 0).then(|| hit as f64 / of as f64)
}

/// Until the first attempt or attr failed.
fn first_failure(entry: &Entry) -> Option<f64> {
    let builds = entry.builds.iter().filter(|build| matches!(build.outcome, Outcome::Failed(_)));
    let attrs = entry.attrs.iter().filter(|attr| matches!(attr.status, Some(Status::EvalFailed | Status::Failed)));
    builds.map(|build| build.ended).chain(attrs.filter_map(|attr| attr.ended)).reduce(f64::min)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_told_apart_and_found() {
        let mut names: Vec<&str> = METRICS.iter().map(|metric| metric.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), METRICS.len());
        assert_eq!(Metric::named("hit_rate").unwrap().name, "hit-rate");
        let error = Metric::named("durations").unwrap_err();
        assert_eq!(error.hint.as_deref(), Some("did you mean duration?"));
        assert!(Metric::named("x").unwrap_err().hint.unwrap().starts_with("one of built, "));
    }
}
