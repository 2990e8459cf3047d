//! Whether runs reach what `[goals]` asks of them.

use serde::Serialize;
use serde_json::{Value, json};

use crate::event::Class;
use crate::record::history::{Build, Entry, Outcome};

use super::metric::{Metric, Unit};
use super::number::plural;
use super::stats::{self, Rate};
use super::text::{Line, Paint};

/// Runs that are looked at, the newest.
pub const RUNS: usize = 20;

/// What is asked of runs; what is `None` is not.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Wanted {
    /// At least this share of paths is to be had from caches.
    pub hit_rate: Option<f64>,
    /// At most so many seconds is a run to take.
    pub duration: Option<f64>,
    /// At least this share of runs is to end well.
    pub success_rate: Option<f64>,
    /// At most so many seconds is it to take until what failed for no fault of its own is built all the same.
    pub recovery: Option<f64>,
    /// At most so many seconds is it to take until the first failure is told.
    pub first_failure: Option<f64>,
}

/// A goal and what runs did.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Goal {
    /// As in `[goals]`.
    pub name: &'static str,
    /// How it is written.
    #[serde(skip)]
    pub unit: Unit,
    /// What is asked.
    pub wanted: f64,
    /// What runs did: the median, the mean, or the share of all; `None` if no run says.
    pub now: Option<f64>,
    /// Of a share: the interval in which it lies in 95 of 100 cases.
    pub interval: Option<(f64, f64)>,
    /// Of how many runs, or recoveries.
    pub of: usize,
    /// Whether it is reached; `None` if no run says.
    pub met: Option<bool>,
}

/// Of runs, the newest last. Runs that somebody stopped say nothing.
#[must_use]
pub fn goals(wanted: &Wanted, entries: &[Entry]) -> Vec<Goal> {
    let whole: Vec<&Entry> = entries.iter().filter(|entry| entry.is_whole()).collect();
    let newest = &whole[whole.len().saturating_sub(RUNS)..];
    let at_most = |name, wanted: Option<f64>, numbers: Vec<f64>, of: fn(&[f64]) -> Option<f64>| {
        let wanted = wanted?;
        let now = of(&numbers);
        let met = now.map(|now| now <= wanted);
        Some(Goal { name, unit: Unit::Seconds, wanted, now, interval: None, of: numbers.len(), met })
    };
    [
        wanted.hit_rate.map(|wanted| hit_rate(wanted, newest)),
        at_most("duration", wanted.duration, numbers("duration", newest), stats::median),
        wanted.success_rate.map(|wanted| success_rate(wanted, newest)),
        at_most("recovery", wanted.recovery, recoveries(newest), mean),
        at_most("first-failure", wanted.first_failure, numbers("first-failure", newest), stats::median),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn numbers(metric: &str, entries: &[&Entry]) -> Vec<f64> {
    let Ok(metric) = Metric::named(metric) else { return Vec::new() };
    entries.iter().filter_map(|entry| metric.of(entry)).collect()
}

fn mean(numbers: &[f64]) -> Option<f64> {
    (!numbers.is_empty()).then(|| numbers.iter().sum::<f64>() / numbers.len() as f64)
}

fn hit_rate(wanted: f64, entries: &[&Entry]) -> Goal {
    let sum = |of: fn(&Entry) -> u64| entries.iter().fold(0, |sum: u64, entry| sum.saturating_add(of(entry)));
    let (hit, of) = (sum(|entry| entry.counters.paths_hit), sum(|entry| entry.counters.paths_asked));
    let asked = entries.iter().filter(|entry| entry.counters.paths_asked > 0).count();
    let now = (of > 0).then(|| hit as f64 / of as f64);
    let met = now.map(|now| now >= wanted);
    Goal { name: "hit-rate", unit: Unit::Share, wanted, now, interval: None, of: asked, met }
}

fn success_rate(wanted: f64, entries: &[&Entry]) -> Goal {
    let good = entries.iter().filter(|entry| entry.exit == Some(0)).count();
    let rate: Rate = stats::wilson(good as u64, entries.len() as u64);
    let some = !entries.is_empty();
    Goal {
        name: "success-rate",
        unit: Unit::Share,
        wanted,
        now: some.then(|| rate.share()),
        interval: some.then_some((rate.low, rate.high)),
        of: entries.len(),
        met: some.then(|| rate.share() >= wanted),
    }
}

/// How long it took until drvs were built whose first attempts failed for no fault of their own.
fn recoveries(entries: &[&Entry]) -> Vec<f64> {
    let of_run = |entry: &&Entry| {
        let failed = entry.builds.iter().filter(|build| is_transient(build));
        let mut firsts: Vec<&Build> = Vec::new();
        for build in failed {
            if !firsts.iter().any(|first| first.drv == build.drv) {
                firsts.push(build);
            }
        }
        let recovered = |first: &&Build| {
            let good =
                |build: &&Build| build.drv == first.drv && matches!(build.outcome, Outcome::Built | Outcome::Valid);
            let end = entry.builds.iter().filter(|build| build.ended >= first.ended).find(good)?;
            Some(end.ended - first.ended)
        };
        firsts.iter().filter_map(recovered).collect::<Vec<f64>>()
    };
    entries.iter().flat_map(of_run).collect()
}

fn is_transient(build: &Build) -> bool {
    let Outcome::Failed(class) = build.outcome else { return false };
    matches!(
        class,
        Class::Signal
            | Class::DiskFull
            | Class::BuilderLost
            | Class::Network
            | Class::Cache
            | Class::Oom
            | Class::Internal
    )
}

/// The goals as a part of a document.
#[must_use]
pub fn document(goals: &[Goal]) -> Value {
    json!(goals)
}

/// A line a goal.
#[must_use]
pub fn screen(goals: &[Goal], width: usize) -> Vec<Line> {
    let line = |goal: &Goal| {
        let (paint, word) = match goal.met {
            Some(true) => (Paint::Good, "met"),
            Some(false) => (Paint::Bad, "MISSED"),
            None => (Paint::Warn, "unknown"),
        };
        let line = Line::new().paint(paint, word).pad(9).paint(Paint::Bold, goal.name).pad(24);
        let at = if goal.unit == Unit::Share { "at least" } else { "at most" };
        let wanted = format!("{at} {}", goal.unit.text(goal.wanted));
        let Some(now) = goal.now else { return line.text(format!("{wanted}: no run says")).fit(width) };
        let what = if goal.name == "recovery" { ("recovery", "recoveries") } else { ("run", "runs") };
        let of = plural(goal.of, what.0, what.1);
        let interval =
            goal.interval.map(|(low, high)| format!(" ({} to {})", goal.unit.text(low), goal.unit.text(high)));
        let line = line.text(format!("{wanted}: {}{} of {of}", goal.unit.text(now), interval.unwrap_or_default()));
        line.fit(width)
    };
    goals.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::gate::testing::run;
    use crate::report::text::{Style, render};

    fn build(drv: &str, ended: f64, outcome: Outcome) -> Build {
        Build {
            drv: drv.into(),
            name: "nginx-1.29.4".into(),
            system: crate::id::System("x86_64-linux".into()),
            builder: "big1".into(),
            ready: 0.0,
            started: 0.0,
            building: None,
            ended,
            outcome,
            cpu: None,
            brought: 0,
            bytes: None,
        }
    }

    #[test]
    fn each_goal_is_held_against_what_runs_did() {
        let mut runs: Vec<Entry> = (0..24).map(|i| run(400.0 + f64::from(i))).collect();
        runs[23].exit = Some(1);
        runs[22].exit = Some(130);
        runs[21].builds = vec![
            build("a.drv", 10.0, Outcome::Failed(Class::BuilderLost)),
            build("b.drv", 12.0, Outcome::Failed(Class::Build)),
            build("a.drv", 20.0, Outcome::Failed(Class::Network)),
            build("a.drv", 70.0, Outcome::Built),
            build("b.drv", 80.0, Outcome::Built),
        ];
        let wanted = Wanted {
            hit_rate: Some(0.9),
            duration: Some(405.0),
            success_rate: Some(0.99),
            recovery: Some(120.0),
            first_failure: Some(60.0),
        };
        let goals = goals(&wanted, &runs);
        let told: Vec<(&str, Option<bool>, usize)> = goals.iter().map(|goal| (goal.name, goal.met, goal.of)).collect();
        assert_eq!(
            told,
            [
                ("hit-rate", Some(true), 20),
                ("duration", Some(false), 20),
                ("success-rate", Some(false), 20),
                ("recovery", Some(true), 1),
                ("first-failure", Some(true), 1),
            ]
        );
        assert_eq!((goals[2].now, goals[3].now, goals[4].now), (Some(0.95), Some(60.0), Some(10.0)));
        let text = |width| render(&screen(&goals, width), Style::default());
        insta::assert_snapshot!("goals_100", text(100));
        insta::assert_snapshot!("goals_60", text(60));
        let none = super::goals(&wanted, &[]);
        assert!(none.iter().all(|goal| goal.met.is_none()), "{none:?}");
    }
}
