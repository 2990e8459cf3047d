//! Reports over many runs: trends, gates, goals.

use std::path::Path;

use crate::config::{GoalSettings, Words};
use crate::error::{Error, Fault, Result, exit_code};
use crate::id::RunId;
use crate::record::history::{Depth, Entry, Filter, History};
use crate::record::{self, short_ids};
use crate::report::gate::{self, Rule};
use crate::report::goals::{self, Goal, Wanted};
use crate::report::metric::Metric;
use crate::report::text::{Line, Style, render};
use crate::report::trend;

use super::super::args::{OverArgs, Place};
use super::super::run::settings;
use super::super::{Session, print, print_json};
use super::history;
use super::slow;

/// Runs of each side that a gate looks at, and those of a trend.
const SIDE: usize = 20;
const TREND: usize = 100;

/// A trend, a gate, goals, or why a run was slow, whichever is asked for; `None` if none is.
pub(super) fn report(
    session: &Session,
    (asked, over, json): (&str, &OverArgs, bool),
    (place, state_dir): (&Place, &Path),
) -> Result<Option<u8>> {
    if over.trend.is_none() && !over.gate && !over.goals && !over.slow {
        return Ok(None);
    }
    let runs = Runs::open(session, state_dir)?;
    let found = record::lookup(state_dir, asked)?;
    let run = found.id;
    if over.slow {
        return slow::report(&View { session, json }, &runs, &found).map(Some);
    }
    let wanted = wanted(session, place)?;
    let view = View { session, json };
    Ok(Some(match &over.trend {
        Some(metric) => view.trend(&runs, run, metric)?,
        None if over.gate => view.gate(&runs, run, over, &wanted)?,
        None => view.goals(&runs, run, &wanted)?,
    }))
}

/// What `[goals]` asks.
fn wanted(session: &Session, place: &Place) -> Result<Wanted> {
    let words = Words { state_dir: place.state_dir.clone(), ..Words::default() };
    let GoalSettings { hit_rate, duration, success_rate, recovery, first_failure } = settings(session, words)?.goals;
    Ok(Wanted { hit_rate, duration, success_rate, recovery, first_failure })
}

/// The runs that are known.
pub(super) struct Runs(History);

impl Runs {
    /// Opens the history, with what is recorded and was not in it yet.
    fn open(session: &Session, state_dir: &Path) -> Result<Self> {
        history::open(session, state_dir).map(Self)
    }

    /// A run that is recorded.
    pub(super) fn entry(&self, run: RunId, depth: Depth) -> Result<Entry> {
        let entry = self.0.entry(run, depth)?;
        entry.ok_or_else(|| Error::usage(format!("run {run} has recorded nothing")).hint("drover report list"))
    }

    /// Runs of the same series up to this one, the newest last.
    pub(super) fn like(&self, entry: &Entry, branch: Option<&str>, depth: Depth, limit: usize) -> Result<Vec<Entry>> {
        let branch = branch.map(str::to_owned);
        let filter = Filter { series: Some(entry.series()), branch, before: Some(entry.run), ..Filter::default() };
        let mut entries = self.0.entries(&filter, depth, limit)?;
        entries.reverse();
        Ok(entries)
    }

    /// The same with the run itself, which is the last.
    fn up_to(&self, entry: &Entry, depth: Depth, limit: usize) -> Result<Vec<Entry>> {
        let mut entries = self.like(entry, None, depth, limit)?;
        entries.extend(self.0.entry(entry.run, depth)?);
        Ok(entries)
    }

    /// The runs of the change that a run is of, and those of the baseline before it.
    fn sides(&self, entry: &Entry, baseline: &str) -> Result<(Vec<Entry>, Vec<Entry>)> {
        let own = entry.branch.as_deref().filter(|branch| *branch != baseline);
        let all = self.like(entry, own, Depth::Builds, SIDE)?;
        // On the baseline itself, runs of one commit are one side.
        let same = |other: &Entry| own.is_some() || (entry.rev.is_some() && other.rev == entry.rev);
        let mut now: Vec<Entry> = all.into_iter().filter(same).collect();
        now.extend(self.0.entry(entry.run, Depth::Builds)?);
        let mut before = self.like(entry, Some(baseline), Depth::Builds, 2 * SIDE)?;
        before.retain(|other| now.iter().all(|entry| entry.run != other.run));
        let surplus = before.len().saturating_sub(SIDE);
        Ok((before.split_off(surplus), now))
    }
}

/// How it is shown.
pub(super) struct View<'a> {
    session: &'a Session,
    json: bool,
}

impl View<'_> {
    fn trend(&self, runs: &Runs, run: RunId, metric: &str) -> Result<u8> {
        let metric = Metric::named(metric)?;
        let depth = if metric.needs_builds { Depth::Builds } else { Depth::Numbers };
        let entries = runs.up_to(&runs.entry(run, Depth::Numbers)?, depth, TREND)?;
        let trend = trend::trend(metric, &entries);
        let ids: Vec<RunId> = entries.iter().map(|entry| entry.run).collect();
        let shorts = short_ids(&ids);
        let short = |run: &str| {
            let at = ids.iter().position(|id| id.to_string() == run);
            at.and_then(|at| shorts.get(at)).map_or(run, String::as_str).to_owned()
        };
        let now = self.session.clock.started;
        self.show(&trend::document(&trend), |width| trend::screen(&trend, now, short, width))?;
        Ok(0)
    }

    fn gate(&self, runs: &Runs, run: RunId, over: &OverArgs, wanted: &Wanted) -> Result<u8> {
        let names: Result<Vec<&'static str>> =
            over.metric.iter().map(|name| Metric::named(name).map(|metric| metric.name)).collect();
        let rule = Rule { baseline: over.baseline.clone(), max_regression: over.max_regression.0, metrics: names? };
        let entry = runs.entry(run, Depth::Numbers)?;
        let (before, now) = runs.sides(&entry, &rule.baseline)?;
        let gate = gate::gate(&before, &now, &rule);
        let goals = goals::goals(wanted, &runs.up_to(&entry, Depth::Builds, SIDE)?);
        let mut document = gate::document(&gate);
        document["goals"] = goals::document(&goals);
        self.show(&document, |width| {
            let mut lines = goals::screen(&goals, width);
            let between = (!lines.is_empty()).then(Line::new);
            lines.extend(between);
            lines.extend(gate::screen(&gate, width));
            lines
        })?;
        Ok(verdict(gate.holds() && goals.iter().all(is_met)))
    }

    fn goals(&self, runs: &Runs, run: RunId, wanted: &Wanted) -> Result<u8> {
        if *wanted == Wanted::default() {
            let hint = "in drover.toml: [goals] hit-rate = 0.9, duration = \"10m\", success-rate = 0.95";
            return Err(Error::usage("no goals are set").hint(hint));
        }
        let goals = goals::goals(wanted, &runs.up_to(&runs.entry(run, Depth::Numbers)?, Depth::Builds, SIDE)?);
        let document = serde_json::json!({ "version": crate::report::json::VERSION, "goals": goals::document(&goals) });
        self.show(&document, |width| goals::screen(&goals, width))?;
        Ok(verdict(goals.iter().all(is_met)))
    }

    pub(super) fn show(&self, document: &serde_json::Value, screen: impl FnOnce(usize) -> Vec<Line>) -> Result<()> {
        if self.json {
            return print_json(document);
        }
        let style: Style = self.session.stdout_style();
        print(render(&screen(self.session.width()), style).as_bytes())
    }
}

fn is_met(goal: &Goal) -> bool {
    goal.met != Some(false)
}

fn verdict(holds: bool) -> u8 {
    if holds { 0 } else { exit_code(&[Fault::Build]) }
}
