//! Two runs side by side: `drover report --compare RUN`. What got more or less, by seconds of the account, which add up to
//! the difference; then counts, packages, builders and inputs that are not the same.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use crate::record::history::{Build, Entry, Outcome};

use super::metric::{METRICS, Metric, Unit};
use super::number::{duration, pname};
use super::slow::signed;
use super::text::{Line, Paint};

/// Rows of the account and of packages that are shown; of more, those that differ least are put together.
const ROWS: usize = 10;
const PACKAGES: usize = 5;

/// The share of the largest difference below which one is put together with others.
const LEAST_SHARE: f64 = 0.1;

/// Seconds below which a package's builds do not differ.
const LEAST: f64 = 1.0;

/// Something of two runs.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct Row {
    /// What it is.
    pub what: String,
    /// In the other run.
    pub before: f64,
    /// In this one.
    pub now: f64,
}

impl Row {
    fn difference(&self) -> f64 {
        self.now - self.before
    }
}

/// Two runs.
#[derive(Debug, Clone)]
pub struct Compared {
    /// Seconds of both.
    pub seconds: (f64, f64),
    /// The account, what differs most first, with what is the same; the differences add up to that of the runs.
    pub account: Vec<Row>,
    /// Numbers that are exact and differ.
    pub counts: Vec<(&'static Metric, Row)>,
    /// Packages that took longer or less long to build, what differs most first; of those that both built.
    pub packages: Vec<Row>,
    /// Builders that one of them had, or with other slots.
    pub builders: Vec<String>,
    /// Inputs that are locked to something else.
    pub inputs: Vec<String>,
}

/// Holds a run against another one.
#[must_use]
pub fn compare(now: &Entry, before: &Entry) -> Compared {
    Compared {
        seconds: (before.seconds, now.seconds),
        account: rows(account(before), account(now)),
        counts: counts(now, before),
        packages: packages(now, before),
        builders: builders(now, before),
        inputs: inputs(now, before),
    }
}

fn account(run: &Entry) -> BTreeMap<String, f64> {
    let mut parts: BTreeMap<String, f64> = BTreeMap::new();
    for part in &run.account {
        let what = part.what.replace('_', " ");
        // Whose evaluation it was that was waited for is chance.
        let named = !part.owner.is_empty() && !matches!(part.what.as_str(), "evaluating" | "waiting_for_slot");
        *parts.entry(if named { format!("{what} {}", part.owner) } else { what }).or_default() += part.seconds;
    }
    parts
}

/// What differs most first.
fn rows(before: BTreeMap<String, f64>, now: BTreeMap<String, f64>) -> Vec<Row> {
    let names: BTreeSet<&String> = before.keys().chain(now.keys()).collect();
    let of = |parts: &BTreeMap<String, f64>, name: &String| parts.get(name).copied().unwrap_or_default();
    let row = |name: &String| Row { what: name.clone(), before: of(&before, name), now: of(&now, name) };
    let mut rows: Vec<Row> = names.into_iter().map(row).collect();
    rows.sort_by(|a, b| b.difference().abs().total_cmp(&a.difference().abs()));
    rows
}

fn counts(now: &Entry, before: &Entry) -> Vec<(&'static Metric, Row)> {
    let exact = METRICS.iter().filter(|metric| metric.exact);
    let differ = exact.filter_map(|metric| {
        let (before, now) = (metric.of(before)?, metric.of(now)?);
        (before.to_bits() != now.to_bits()).then(|| (metric, Row { what: metric.what.to_owned(), before, now }))
    });
    differ.collect()
}

fn packages(now: &Entry, before: &Entry) -> Vec<Row> {
    let took = |run: &Entry| {
        let mut took: BTreeMap<String, f64> = BTreeMap::new();
        for build in run.builds.iter().filter(|build: &&Build| build.outcome == Outcome::Built) {
            let longest = took.entry(pname(&build.name).to_owned()).or_default();
            *longest = longest.max(build.seconds());
        }
        took
    };
    let (mut before, mut now) = (took(before), took(now));
    before.retain(|name, _| now.contains_key(name));
    now.retain(|name, _| before.contains_key(name));
    let mut rows = rows(before, now);
    rows.retain(|row| row.difference().abs() >= LEAST);
    rows
}

fn builders(now: &Entry, before: &Entry) -> Vec<String> {
    let slots = |run: &Entry| -> BTreeMap<String, u32> {
        run.builders.iter().filter(|used| used.up > 0.0).map(|used| (used.name.clone(), used.slots)).collect()
    };
    let (before, now) = (slots(before), slots(now));
    let names: BTreeSet<&String> = before.keys().chain(now.keys()).collect();
    let differ = names.into_iter().filter_map(|name| match (before.get(name), now.get(name)) {
        (Some(slots), None) => Some(format!("{name} absent (had {slots} slots)")),
        (None, Some(slots)) => Some(format!("{name} new ({slots} slots)")),
        (Some(before), Some(now)) if before != now => Some(format!("{name} {before} → {now} slots")),
        _ => None,
    });
    differ.collect()
}

fn inputs(now: &Entry, before: &Entry) -> Vec<String> {
    let names: BTreeSet<&String> = before.inputs.keys().chain(now.inputs.keys()).collect();
    let short = |rev: Option<&String>| rev.map_or("none", |rev| rev.get(..6).unwrap_or(rev)).to_owned();
    let differ = names.into_iter().filter_map(|name| {
        let (before, now) = (before.inputs.get(name), now.inputs.get(name));
        (before != now).then(|| format!("{name} {} → {}", short(before), short(now)))
    });
    differ.collect()
}

/// As a document: `{version, seconds: {before, now}, account: [{what, before, now}], counts: {NAME: {before, now}},
/// packages, builders, inputs}`.
#[must_use]
pub fn document(compared: &Compared) -> Value {
    let count =
        |(metric, row): &(&Metric, Row)| (metric.name.to_owned(), json!({ "before": row.before, "now": row.now }));
    json!({
        "version": super::json::VERSION,
        "seconds": { "before": compared.seconds.0, "now": compared.seconds.1 },
        "account": compared.account,
        "counts": compared.counts.iter().map(count).collect::<serde_json::Map<_, _>>(),
        "packages": compared.packages,
        "builders": compared.builders,
        "inputs": compared.inputs,
    })
}

/// `shorts`: how the ids of the other run and of this one are shown.
#[must_use]
pub fn screen(compared: &Compared, shorts: (&str, &str), width: usize) -> Vec<Line> {
    let (before, now) = compared.seconds;
    let unit = if (now - before).abs() < 10.0 { 0.1 } else { 1.0 };
    let units = |seconds: f64| (seconds / unit).round() as i64;
    let total = units(now) - units(before);
    let head = Line::from("run ").paint(Paint::Bold, shorts.1).text("  ").paint(Paint::Bold, duration(now));
    let head = head.text(format!("   against {}  {}   ", shorts.0, duration(before)));
    let mut lines = vec![head.paint(Paint::Bold, signed(total, unit)).fit(width)];
    let mut left = total;
    let least = compared.account.first().map_or(0.0, |row| row.difference().abs() * LEAST_SHARE);
    for row in compared.account.iter().take(ROWS).filter(|row| row.difference().abs() >= least) {
        let units = units(row.difference());
        if units != 0 {
            left -= units;
            lines.push(timed(signed(units, unit), row, Unit::Seconds, width));
        }
    }
    if left != 0 {
        lines.push(column(signed(left, unit)).paint(Paint::Dim, "all else").fit(width));
    }
    for (metric, row) in &compared.counts {
        lines.push(column(String::new()).text(text(row, metric.unit)).fit(width));
    }
    for row in compared.packages.iter().take(PACKAGES) {
        lines.push(column(String::new()).text(format!("building {}", text(row, Unit::Seconds))).fit(width));
    }
    let rest = [("builders", &compared.builders), ("inputs", &compared.inputs)];
    for (what, texts) in rest.into_iter().filter(|(_, texts)| !texts.is_empty()) {
        lines.push(column(String::new()).text(format!("{what}: {}", texts.join(" · "))).fit(width));
    }
    lines
}

fn timed(time: String, row: &Row, unit: Unit, width: usize) -> Line {
    column(time).text(text(row, unit)).fit(width)
}

/// `drvs built 212 → 1,416`.
fn text(row: &Row, unit: Unit) -> String {
    format!("{} {} → {}", row.what, unit.text(row.before), unit.text(row.now))
}

/// A time flush right before what it is of.
fn column(time: String) -> Line {
    const COLUMN: usize = 9;
    Line::new().pad(COLUMN.saturating_sub(Line::from(time.as_str()).width())).text(time).text("  ")
}
