//! Whether runs have become worse than those of a baseline by more than is allowed: `drover report --gate`.
//!
//! What is exact is compared as it is. Times are noise on shared machines: they have become worse only if the shift
//! (Hodges and Lehmann, of logarithms) is as large as what is not allowed, and if it is hardly possible (one in a hundred,
//! Mann and Whitney) that they are slower by three fifths of that or less. Where there are too few runs for that, the gate says so
//! and lets them pass.

mod screen;
#[cfg(test)]
pub(super) mod testing;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use serde::Serialize;

use crate::id::AttrPath;
use crate::record::history::{Entry, Outcome};

use super::metric::{METRICS, Metric, Unit};
use super::number::pname;
use super::stats::{self, benjamini_hochberg, change_point, p_greater};

pub use screen::{document, screen};

/// Runs of each side that are needed to judge a time.
pub const RUNS: usize = 5;

/// How improbable it has to be that a time is not really worse.
const SURE: f64 = 0.01;

/// The part of what is allowed that is given to noise: with 8 runs of each side that are spread by 5 %, and 10 % allowed,
/// 3 of 1,000 histories are refused whose runs became slower by 5 %, and 970 of those that did by 20 %.
pub const GIVEN: f64 = 0.6;

/// Metrics that are looked at where none is named.
const USUAL: usize = 6;

/// The metric that is compared attr by attr.
const CLOSURE: &str = "closure";

/// Seconds below which a package's build time is not looked at: they are all noise.
const LEAST: f64 = 1.0;

/// Runs with so many times more or fewer drvs to build are not compared by their times.
const ALIKE: f64 = 1.5;

/// Drvs by which runs may differ in any case.
const ALIKE_DRVS: f64 = 5.0;

/// What is asked.
#[derive(Debug, Clone, PartialEq)]
pub struct Rule {
    /// What the baseline is called: `main`.
    pub baseline: String,
    /// By how much runs may be worse: 0.1 for 10 %.
    pub max_regression: f64,
    /// Names of metrics; the usual ones if none is given.
    pub metrics: Vec<&'static str>,
}

/// What is said of one number.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Verdict {
    /// The metric, or `build of PACKAGE`.
    pub metric: String,
    /// How it is written.
    #[serde(skip)]
    pub unit: Unit,
    /// More of it is better.
    #[serde(skip)]
    pub more_is_better: bool,
    /// What it usually is on the baseline.
    pub before: Option<f64>,
    /// What it is now.
    pub now: Option<f64>,
    /// By how much it is worse, 0.1 for 10 %; below 0 it is better.
    pub worse_by: Option<f64>,
    /// The interval of that, where it is a time.
    pub interval: Option<(f64, f64)>,
    /// How probable so much is if it is not worse by more than [`GIVEN`] of what is allowed; of times.
    pub p: Option<f64>,
    /// Runs of the baseline and of this side.
    pub runs: (usize, usize),
    /// What follows.
    pub outcome: Judgement,
}

/// What follows from a number.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "is", content = "why")]
pub enum Judgement {
    /// Not worse by more than is allowed.
    Fine,
    /// Worse.
    Worse,
    /// Nothing can be said, for this reason.
    Unsure(String),
}

/// What the gate says.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Gate {
    /// What the baseline is called.
    pub baseline: String,
    /// By how much runs may be worse.
    pub max_regression: f64,
    /// The numbers, the exact ones first.
    pub verdicts: Vec<Verdict>,
}

impl Gate {
    /// Whether it holds: nothing has become worse.
    #[must_use]
    pub fn holds(&self) -> bool {
        self.verdicts.iter().all(|verdict| verdict.outcome != Judgement::Worse)
    }
}

/// Compares runs with those of a baseline, both the newest last. Of the baseline only what came after its latest jump
/// counts; runs that failed or were stopped are no measure of anything.
#[must_use]
pub fn gate(before: &[Entry], now: &[Entry], rule: &Rule) -> Gate {
    let usable = |entries: &[Entry]| -> Vec<Entry> { entries.iter().filter(|e| e.exit == Some(0)).cloned().collect() };
    let (before, now) = (usable(before), usable(now));
    let mut verdicts: Vec<Verdict> = metrics(rule).map(|metric| verdict(metric, &before, &now, rule)).collect();
    if rule.metrics.is_empty() {
        verdicts.extend(packages(&before, &now, rule));
    }
    Gate { baseline: rule.baseline.clone(), max_regression: rule.max_regression, verdicts }
}

fn metrics(rule: &Rule) -> impl Iterator<Item = &'static Metric> {
    let named = rule.metrics.clone();
    let wanted = move |(at, metric): (usize, &'static Metric)| {
        let taken = if named.is_empty() { at < USUAL } else { named.contains(&metric.name) };
        taken.then_some(metric)
    };
    METRICS.iter().enumerate().filter_map(wanted)
}

fn verdict(metric: &Metric, before: &[Entry], now: &[Entry], rule: &Rule) -> Verdict {
    let numbers = |entries: &[Entry]| -> Vec<f64> { entries.iter().filter_map(|entry| metric.of(entry)).collect() };
    if metric.name == CLOSURE {
        let (before, now) = closures(before, now);
        return compared(metric, &before, &now, rule);
    }
    if metric.exact {
        return compared(metric, &numbers(before), &numbers(now), rule);
    }
    let alike: Vec<Entry> = before.iter().filter(|entry| is_alike(entry, now)).cloned().collect();
    let mut verdict = timed(metric.name.to_owned(), &since_the_jump(numbers(&alike)), &numbers(now), rule);
    if let Judgement::Unsure(why) = &mut verdict.outcome
        && alike.len() < RUNS
        && alike.len() < before.len()
    {
        why.push_str("; the others had much more or less to build");
    }
    verdict
}

/// The closures of those attrs alone that both sides know: a run knows only those of what it built or had.
fn closures(before: &[Entry], now: &[Entry]) -> (Vec<f64>, Vec<f64>) {
    let mut usual: BTreeMap<&AttrPath, Vec<f64>> = BTreeMap::new();
    for attr in before.iter().flat_map(|entry| &entry.attrs) {
        if let Some(bytes) = attr.closure {
            usual.entry(&attr.attr).or_default().push(bytes as f64);
        }
    }
    // Of each attr the newest that is known.
    let newest: BTreeMap<&AttrPath, f64> =
        now.iter().flat_map(|entry| &entry.attrs).filter_map(|a| Some((&a.attr, a.closure? as f64))).collect();
    let both = newest.iter().filter_map(|(attr, now)| Some((stats::median(usual.get(attr)?)?, *now)));
    let (before, now): (Vec<f64>, Vec<f64>) = both.unzip();
    let sum = |all: &[f64]| (!all.is_empty()).then(|| all.iter().sum()).into_iter().collect();
    (sum(&before), sum(&now))
}

/// Whether as much was to be built as in the runs of this side.
fn is_alike(entry: &Entry, now: &[Entry]) -> bool {
    let drvs: Vec<f64> = now.iter().map(|entry| entry.counters.to_build as f64).collect();
    let (here, there) = (stats::median(&drvs).unwrap_or(0.0), entry.counters.to_build as f64);
    (here - there).abs() <= ALIKE_DRVS || (here <= there * ALIKE && there <= here * ALIKE)
}

/// The numbers after their latest jump.
fn since_the_jump(mut numbers: Vec<f64>) -> Vec<f64> {
    match change_point(&numbers, SURE) {
        Some(at) => numbers.split_off(at),
        None => numbers,
    }
}

/// What is exact: the newest run against the median of the baseline.
fn compared(metric: &Metric, before: &[f64], now: &[f64], rule: &Rule) -> Verdict {
    let (usual, newest) = (stats::median(before), now.last().copied());
    let worse_by = usual.zip(newest).map(|(usual, newest)| {
        let change = match (usual == newest, usual == 0.0) {
            (true, _) => 0.0,
            // More than nothing is more than any share.
            (false, true) => f64::from(i8::from(newest > usual)) * newest,
            (false, false) => (newest - usual) / usual,
        };
        if metric.more_is_better { -change } else { change }
    });
    let outcome = match worse_by {
        None if before.is_empty() => Judgement::Unsure("no run of the baseline has it".to_owned()),
        None => Judgement::Unsure("no run of this side has it".to_owned()),
        Some(worse) if worse > rule.max_regression => Judgement::Worse,
        Some(_) => Judgement::Fine,
    };
    let runs = (before.len(), now.len());
    Verdict {
        metric: metric.name.to_owned(),
        unit: metric.unit,
        more_is_better: metric.more_is_better,
        before: usual,
        now: newest,
        worse_by,
        interval: None,
        p: None,
        runs,
        outcome,
    }
}

/// What is a time: both sides as they are spread.
fn timed(name: String, before: &[f64], now: &[f64], rule: &Rule) -> Verdict {
    let logs = |times: &[f64]| -> Vec<f64> { times.iter().map(|time| time.max(1e-3).ln()).collect() };
    let (log_before, log_now) = (logs(before), logs(now));
    let by = stats::hodges_lehmann(&log_before, &log_now);
    let given = rule.max_regression.ln_1p() * GIVEN;
    let lowered: Vec<f64> = log_now.iter().map(|log| log - given).collect();
    let p = p_greater(&log_before, &lowered);
    let worse_by = by.map(f64::exp_m1);
    let runs = (before.len(), now.len());
    let outcome = match worse_by {
        _ if before.len() < RUNS || now.len() < RUNS => {
            let few = |runs: usize, whose: &str| (runs < RUNS).then(|| format!("{runs} {whose}"));
            let sides = [few(now.len(), "here"), few(before.len(), "on the baseline")];
            let sides: Vec<String> = sides.into_iter().flatten().collect();
            Judgement::Unsure(format!("{RUNS} runs of each side are needed to judge a time: {}", sides.join(", ")))
        }
        Some(worse) if worse >= rule.max_regression && p < SURE => Judgement::Worse,
        _ => Judgement::Fine,
    };
    // Drawing it takes longer than all else, and nobody asks how sure it is that nothing happened.
    let interval = (outcome == Judgement::Worse).then(|| stats::shift(&log_before, &log_now, 0.95)).flatten();
    Verdict {
        metric: name,
        unit: Unit::Seconds,
        more_is_better: false,
        before: stats::median(before),
        now: stats::median(now),
        worse_by,
        interval: interval.map(|shift| (shift.low.exp_m1(), shift.high.exp_m1())),
        p: Some(p),
        runs,
        outcome,
    }
}

/// Packages whose own build has become slower, whatever else was built: of many tests, at most one in a hundred of those
/// that are said to hold may be wrong.
fn packages(before: &[Entry], now: &[Entry], rule: &Rule) -> Vec<Verdict> {
    let (before, now) = (build_times(before), build_times(now));
    let both = now.iter().filter_map(|(package, now)| Some((package, before.get(package)?, now)));
    let both = both.filter(|(_, before, now)| {
        let long = stats::median(now).is_some_and(|median| median >= LEAST);
        long && before.len() >= RUNS && now.len() >= RUNS
    });
    let mut verdicts: Vec<Verdict> = both
        .map(|((name, system), before, now)| timed(format!("build of {name} ({system})"), before, now, rule))
        .collect();
    let ps: Vec<f64> = verdicts.iter().map(|verdict| verdict.p.unwrap_or(1.0)).collect();
    for (verdict, holds) in verdicts.iter_mut().zip(benjamini_hochberg(&ps, SURE)) {
        if !holds {
            verdict.outcome = Judgement::Fine;
        }
    }
    verdicts.retain(|verdict| verdict.outcome == Judgement::Worse);
    verdicts.sort_by(|a, b| b.worse_by.unwrap_or(0.0).total_cmp(&a.worse_by.unwrap_or(0.0)));
    verdicts
}

/// Build times by package and system, one a run: the median of those of the run.
fn build_times(entries: &[Entry]) -> BTreeMap<(String, String), Vec<f64>> {
    let mut all: BTreeMap<(String, String), Vec<f64>> = BTreeMap::new();
    for entry in entries {
        let mut of_run: BTreeMap<(String, String), Vec<f64>> = BTreeMap::new();
        for build in entry.builds.iter().filter(|build| build.outcome == Outcome::Built) {
            let package = (pname(&build.name).to_owned(), build.system.to_string());
            of_run.entry(package).or_default().push(build.seconds());
        }
        for (package, times) in of_run {
            all.entry(package).or_default().extend(stats::median(&times));
        }
    }
    all
}
