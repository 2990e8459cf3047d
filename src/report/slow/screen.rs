//! How it reads: the differences as they are rounded add up, too.

use serde_json::{Value, json};

use super::{Cause, Kind, Slow};
use crate::report::number::{clock, duration, plural};
use crate::report::text::{Line, Paint, wrapped};

/// Seconds of difference from which whole seconds are shown.
const COARSE: f64 = 10.0;

/// Lines of one cause.
const LINES: usize = 3;

/// As a document: `{version, run, branch, seconds, usual, runs, difference, causes: [{kind, seconds, text}]}`.
#[must_use]
pub fn document(slow: &Slow) -> Value {
    json!({
        "version": crate::report::json::VERSION,
        "run": slow.run,
        "branch": slow.branch,
        "seconds": slow.seconds,
        "usual": slow.usual,
        "runs": slow.runs,
        "difference": slow.usual.map(|_| slow.difference()),
        "causes": slow.causes,
    })
}

/// `short`: how the run's id is shown.
#[must_use]
pub fn screen(slow: &Slow, short: &str, width: usize) -> Vec<Line> {
    let branch = slow.branch.as_deref().map(|branch| format!("{branch}, ")).unwrap_or_default();
    let head = Line::from("run ")
        .paint(Paint::Bold, short)
        .text(format!("  {branch}{}", slow.started.strftime("%a %H:%M UTC")));
    let head = head.text("   ").paint(Paint::Bold, duration(slow.seconds));
    let Some(usual) = slow.usual else {
        let why = "  no run like it ended well before it: nothing to hold it against";
        return vec![head.fit(width), Line::from(why).fit(width), Line::from("  drover report list")];
    };
    let unit = if slow.difference().abs() < COARSE { 0.1 } else { 1.0 };
    let units = |seconds: f64| (seconds / unit).round() as i64;
    let total = units(slow.seconds) - units(usual);
    let middle = if slow.runs > 1 { format!(" (median of {})", slow.runs) } else { String::new() };
    let more = Line::from(format!("usual {}{middle}   ", duration(usual))).paint(Paint::Bold, signed(total, unit));
    let mut lines = if head.width() + 3 + more.width() <= width {
        vec![head.text("   ").then(more)]
    } else {
        vec![head.fit(width), Line::from("  ").then(more).fit(width)]
    };
    for (cause, units) in rounded(&slow.causes, total, unit) {
        lines.extend(lines_of(cause, signed(units, unit), width));
    }
    if slow.causes.is_empty() {
        let runs = plural(slow.runs, "run", "runs");
        lines.push(Line::from(format!("  as the {runs} before it")));
    }
    lines
}

/// Each cause with its units; the rest takes up what rounding leaves.
fn rounded(causes: &[Cause], total: i64, unit: f64) -> Vec<(&Cause, i64)> {
    let named = causes.iter().filter(|cause| cause.kind != Kind::Rest);
    let mut out: Vec<(&Cause, i64)> = named.map(|cause| (cause, (cause.seconds / unit).round() as i64)).collect();
    let left = total - out.iter().map(|(_, units)| units).sum::<i64>();
    match causes.iter().find(|cause| cause.kind == Kind::Rest) {
        Some(rest) => out.push((rest, left)),
        None => {
            if let Some((_, units)) = out.first_mut() {
                *units += left;
            }
        }
    }
    out.retain(|(_, units)| *units != 0);
    out
}

fn lines_of(cause: &Cause, time: String, width: usize) -> Vec<Line> {
    let indent = 11;
    let line = Line::new().pad(indent - 2 - Line::from(time.as_str()).width().min(indent - 2)).text(time).text("  ");
    let paint = if cause.kind == Kind::Rest { Paint::Dim } else { Paint::Plain };
    let mut texts = wrapped(&cause.text, width.saturating_sub(indent), LINES).into_iter();
    let first = line.paint(paint, texts.next().unwrap_or_default());
    let rest = texts.map(|text| Line::new().pad(indent).paint(paint, text));
    std::iter::once(first).chain(rest).collect()
}

/// `+11m05s`, `−0m10s`, `+0.9s`.
fn signed(units: i64, unit: f64) -> String {
    let sign = if units < 0 { '−' } else { '+' };
    let seconds = units.unsigned_abs() as f64 * unit;
    if unit < 1.0 { format!("{sign}{seconds:.1}s") } else { format!("{sign}{}", clock(seconds)) }
}
