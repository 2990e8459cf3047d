//! One number over many runs: `drover report --trend METRIC`.

use serde_json::{Value, json};

use crate::record::history::Entry;

use super::metric::{Metric, Unit};
use super::number::{ago, plural};
use super::stats::{self, Drift};
use super::text::{Line, Paint};

/// Runs with a line of their own; the sparkline has all of them, as far as there is room.
const LINES: usize = 15;

/// How improbable a jump or creeping has to be by chance to be told.
const SURE: f64 = 0.01;

/// A number over runs.
#[derive(Debug, Clone)]
pub struct Trend {
    /// Which.
    pub metric: &'static Metric,
    /// The runs that have it, the oldest first.
    pub points: Vec<Point>,
    /// The median.
    pub median: Option<f64>,
    /// How it creeps since its latest jump, if it does.
    pub drift: Option<Drift>,
    /// The first point after the latest jump, if there is one.
    pub jump: Option<usize>,
}

/// A run in a trend.
#[derive(Debug, Clone, PartialEq)]
pub struct Point {
    /// Its id, in full.
    pub run: String,
    /// When it began.
    pub started: jiff::Timestamp,
    /// The revision that it was of.
    pub rev: Option<String>,
    /// The number.
    pub number: f64,
    /// It ended with exit code 0.
    pub ok: bool,
    /// It does not belong to the others.
    pub odd: bool,
}

/// Of runs, the oldest first.
#[must_use]
pub fn trend(metric: &'static Metric, entries: &[Entry]) -> Trend {
    let measured: Vec<(&Entry, f64)> = entries.iter().filter_map(|entry| Some((entry, metric.of(entry)?))).collect();
    let numbers: Vec<f64> = measured.iter().map(|(_, number)| *number).collect();
    let point = |(entry, number): &(&Entry, f64)| Point {
        run: entry.run.to_string(),
        started: entry.started,
        rev: entry.rev.clone(),
        number: *number,
        ok: entry.exit == Some(0),
        odd: stats::modified_z(*number, &numbers).is_some_and(|z| z.abs() > 3.5),
    };
    let jump = stats::change_point(&numbers, SURE);
    let since = &numbers[jump.unwrap_or(0)..];
    let drift = stats::drift(since).filter(|drift| drift.p < SURE && drift.slope != 0.0);
    Trend { metric, points: measured.iter().map(point).collect(), median: stats::median(since), drift, jump }
}

/// The trend as a document: `{version, metric, unit, median, slope, jump, points}`.
#[must_use]
pub fn document(trend: &Trend) -> Value {
    let point = |point: &Point| {
        json!({
            "run": point.run, "started": point.started, "rev": point.rev, "value": point.number, "ok": point.ok,
            "odd": point.odd,
        })
    };
    json!({
        "version": super::json::VERSION,
        "metric": trend.metric.name,
        "unit": trend.metric.unit.word(),
        "median": trend.median,
        "slope": trend.drift.map(|drift| drift.slope),
        "jump": trend.jump.and_then(|at| trend.points.get(at)).map(|point| point.run.as_str()),
        "points": trend.points.iter().map(point).collect::<Vec<_>>(),
    })
}

/// `shorts`: how a run's id is shown.
#[must_use]
pub fn screen(trend: &Trend, now: jiff::Timestamp, shorts: impl Fn(&str) -> String, width: usize) -> Vec<Line> {
    let unit = trend.metric.unit;
    let head = Line::new().paint(Paint::Bold, trend.metric.name).text(format!("  {}", trend.metric.what));
    let Some(median) = trend.median else {
        return vec![head, Line::from("  no recorded run has it"), Line::from("  drover report list")];
    };
    let runs = plural(trend.points.len(), "run", "runs");
    let mut lines = vec![head.text(format!(", median {} of {runs}", unit.text(median))).fit(width)];
    let numbers: Vec<f64> = trend.points.iter().map(|point| point.number).collect();
    let shown = numbers.len().saturating_sub(width.saturating_sub(2));
    lines.push(Line::from(format!("  {}", sparkline(&numbers[shown..]))));
    lines.extend(remarks(trend, now, &shorts).into_iter().map(|line| line.fit(width)));
    let first = trend.points.len().saturating_sub(LINES);
    for (at, point) in trend.points.iter().enumerate().skip(first).rev() {
        lines.push(row(point, now, shorts(&point.run), unit, trend.jump == Some(at)).fit(width));
    }
    lines
}

fn remarks(trend: &Trend, now: jiff::Timestamp, shorts: &impl Fn(&str) -> String) -> Vec<Line> {
    let unit = trend.metric.unit;
    let jump = trend.jump.and_then(|at| {
        let numbers: Vec<f64> = trend.points.iter().map(|point| point.number).collect();
        let (before, point) = (stats::median(&numbers[..at])?, trend.points.get(at)?);
        let change = format!("from {} to {}", unit.text(before), unit.text(trend.median?));
        Some(Line::from(format!("  jumped {change} with run {}, {}", shorts(&point.run), when(point, now))))
    });
    let drift = trend.drift.map(|drift| {
        let (more, slope) = if drift.slope > 0.0 { ("more", drift.slope) } else { ("less", -drift.slope) };
        let text = match unit {
            Unit::Share => format!("{:.2} points", slope * 100.0),
            Unit::Count => format!("{slope:.1}"),
            Unit::Seconds if slope < 0.1 => format!("{:.0} ms", slope * 1000.0),
            _ => unit.text(slope),
        };
        Line::from(format!("  creeps: {text} {more} with each run"))
    });
    jump.into_iter().chain(drift).collect()
}

fn row(point: &Point, now: jiff::Timestamp, run: String, unit: Unit, jump: bool) -> Line {
    let rev = point.rev.as_deref().map(|rev| rev.get(..7).unwrap_or(rev)).unwrap_or_default();
    let line = Line::from(format!("  {run}  {:>11}  {rev:<7}  ", when(point, now)));
    let line =
        line.paint(if point.odd { Paint::Warn } else { Paint::Plain }, format!("{:>9}", unit.text(point.number)));
    let mut remarks: Vec<&str> = Vec::new();
    remarks.extend(jump.then_some("jump"));
    remarks.extend(point.odd.then_some("unusual"));
    remarks.extend((!point.ok).then_some("failed"));
    if remarks.is_empty() { line } else { line.text("  ").paint(Paint::Dim, remarks.join(", ")) }
}

fn when(point: &Point, now: jiff::Timestamp) -> String {
    ago(now.as_second().saturating_sub(point.started.as_second()))
}

/// Eight heights; all the same where all numbers are.
fn sparkline(numbers: &[f64]) -> String {
    const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let (low, high) = numbers.iter().fold((f64::MAX, f64::MIN), |(low, high), n| (low.min(*n), high.max(*n)));
    let bar = |number: &f64| {
        let share = if high > low { (number - low) / (high - low) } else { 0.5 };
        BARS[((share * 7.0).round() as usize).min(7)]
    };
    numbers.iter().map(bar).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::text::{Style, render};

    #[test]
    fn heights_of_a_sparkline() {
        assert_eq!(sparkline(&[1.0, 4.5, 8.0]), "▁▅█");
        assert_eq!(sparkline(&[2.0, 2.0]), "▅▅");
        assert_eq!(sparkline(&[]), "");
        let ascii = Style { ascii: true, ..Style::default() };
        assert_eq!(Line::from("▁▅█").render(ascii), "_+@");
    }

    #[test]
    fn how_it_reads() {
        let metric = Metric::named("duration").unwrap();
        let point = |at: usize, number: f64| Point {
            run: format!("01KAJX3M{at:02}"),
            started: jiff::Timestamp::from_second(1_795_000_000 + at as i64 * 3600).unwrap(),
            rev: Some("4f2c1d9a0b3e".into()),
            number,
            ok: at != 17,
            odd: at == 16,
        };
        let numbers = (0..18).map(|at| if at < 9 { 430.0 + at as f64 } else { 515.0 + at as f64 });
        let points: Vec<Point> = numbers.enumerate().map(|(at, number)| point(at, number)).collect();
        let drift = Some(Drift { slope: 1.0, p: 0.001 });
        let trend = Trend { metric, points, median: Some(528.0), drift, jump: Some(9) };
        let now = jiff::Timestamp::from_second(1_795_100_000).unwrap();
        let text = |width| render(&screen(&trend, now, |run| run[..8].to_owned(), width), Style::default());
        insta::assert_snapshot!("trend_100", text(100));
        insta::assert_snapshot!("trend_60", text(60));
        let none = Trend { metric, points: Vec::new(), median: None, drift: None, jump: None };
        let lines = render(&screen(&none, now, str::to_owned, 100), Style::default());
        assert!(lines.ends_with("no recorded run has it\n  drover report list\n"), "{lines}");
    }
}
