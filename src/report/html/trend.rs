//! Small charts of how a run compares with earlier ones.

use std::fmt::Write as _;

use crate::record::history::Entry;
use crate::report::metric::{METRICS, Metric};
use crate::report::number::plural;
use crate::report::stats::median;

/// Earlier runs that are shown, and those whose median is called usual.
const SHOWN: usize = 40;
const USUAL: usize = 20;

/// Pixels of a chart, and of the margin in which its dots are.
const WIDTH: f64 = 260.0;
const HEIGHT: f64 = 64.0;
const MARGIN: f64 = 5.0;

/// One number over runs.
pub(super) struct Trend {
    pub(super) name: &'static str,
    /// Of this run.
    pub(super) value: String,
    /// The median of the earlier ones.
    pub(super) usual: String,
    /// The chart, for those who do not see it.
    pub(super) text: String,
    pub(super) svg: String,
}

/// The numbers that have a chart, by their names.
const SHOWN_METRICS: [&str; 7] = ["duration", "built", "evaluation", "chain", "hit-rate", "pushed", "closure"];

/// The median duration of the latest runs that came to their own end; `None` without any.
#[must_use]
pub fn usual(earlier: &[Entry]) -> Option<f64> {
    let whole = earlier.iter().rev().filter(|run| run.is_whole()).take(USUAL);
    median(&whole.map(|run| run.seconds).collect::<Vec<_>>())
}

/// What is compared with.
pub(super) fn note(earlier: &[Entry]) -> String {
    let runs = earlier.len().min(SHOWN);
    format!("this run (right) and the {} of the same before it", plural(runs, "run", "runs"))
}

/// The charts; none where there is nothing to compare with, and none of what was always nothing.
pub(super) fn of(earlier: &[Entry], this: &Entry) -> Vec<Trend> {
    let runs: Vec<&Entry> = earlier.iter().skip(earlier.len().saturating_sub(SHOWN)).chain([this]).collect();
    if runs.len() < 2 {
        return Vec::new();
    }
    let metrics = SHOWN_METRICS.iter().filter_map(|name| METRICS.iter().find(|metric| metric.name == *name));
    metrics.filter_map(|metric| trend(metric, &runs)).collect()
}

fn trend(metric: &Metric, runs: &[&Entry]) -> Option<Trend> {
    let (this, before) = runs.split_last()?;
    let value = metric.of(this)?;
    let known: Vec<(usize, f64)> = runs
        .iter()
        .enumerate()
        .filter_map(|(n, run)| Some((n, metric.of(run)?)))
        .filter(|(_, v)| v.is_finite())
        .collect();
    let most = known.iter().map(|(_, value)| *value).fold(0.0, f64::max);
    if most <= 0.0 {
        return None;
    }
    let middle = median(&before.iter().filter_map(|run| metric.of(run)).collect::<Vec<_>>());
    let usual = middle.map(|middle| metric.unit.text(middle)).unwrap_or_default();
    let shown = metric.unit.text(value);
    Some(Trend {
        name: metric.what,
        text: format!("{} over {}: now {shown}, usually {usual}", metric.what, plural(runs.len(), "run", "runs")),
        svg: svg(runs, &known, most, middle),
        value: shown,
        usual,
    })
}

fn svg(runs: &[&Entry], known: &[(usize, f64)], most: f64, middle: Option<f64>) -> String {
    let step = (WIDTH - 2.0 * MARGIN) / (runs.len() - 1).max(1) as f64;
    let x = |n: usize| MARGIN + step * n as f64;
    let y = |value: f64| HEIGHT - MARGIN - (value / most).clamp(0.0, 1.0) * (HEIGHT - 2.0 * MARGIN);
    let mut out = String::new();
    if let Some(middle) = middle {
        let y = y(middle);
        let _ = write!(out, "<line class=u x1=0 x2={WIDTH} y1={y:.1} y2={y:.1} />");
    }
    let points: Vec<String> = known.iter().map(|(n, value)| format!("{:.1},{:.1}", x(*n), y(*value))).collect();
    let _ = write!(out, "<polyline points=\"{}\" />", points.join(" "));
    for (n, value) in known {
        let run = runs[*n];
        let class = match (n + 1 == runs.len(), run.exit) {
            (true, _) => "now",
            (false, Some(0)) => continue,
            (false, _) => "bad",
        };
        let r = if class == "now" { 4 } else { 2 };
        let _ = write!(out, "<circle class={class} cx={:.1} cy={:.1} r={r} />", x(*n), y(*value));
    }
    out
}
