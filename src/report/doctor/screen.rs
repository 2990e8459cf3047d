//! What people read: a line for each area that is fine, then what is wrong, the worst first, then the verdict.

use super::{Finding, Report, Severity};
use crate::report::number::plural;
use crate::report::text::{Line, Paint, wrapped};

/// Columns before the text.
const INDENT: usize = 19;

/// Lines of one text that are shown.
const MOST: usize = 8;

/// The screen. What is to be typed is never cut.
#[must_use]
pub fn screen(report: &Report, width: usize) -> Vec<Line> {
    let mut lines = Vec::new();
    for area in report.areas.iter().filter(|area| area.ok) {
        let head = Line::new().paint(Paint::Good, "ok").pad(9).text(area.area).pad(INDENT);
        lines.push(head.text(&area.summary).fit(width));
    }
    for finding in report.notes.iter().chain(&report.findings) {
        if !lines.is_empty() && finding.severity != Severity::Note {
            lines.push(Line::new());
        }
        lines.extend(one(finding, width));
    }
    lines.push(Line::new());
    lines.push(verdict(report));
    lines
}

fn one(finding: &Finding, width: usize) -> Vec<Line> {
    let paint = match finding.severity {
        Severity::Error => Paint::Bad,
        Severity::Warning => Paint::Warn,
        Severity::Note => Paint::Dim,
    };
    let head = Line::new().paint(paint, finding.severity.word()).pad(9).text(finding.area).pad(INDENT);
    let room = width.saturating_sub(INDENT);
    let mut lines = Vec::new();
    for (i, text) in wrapped(&finding.message, room, MOST).into_iter().enumerate() {
        let start = if i == 0 { head.clone() } else { Line::new().pad(INDENT) };
        lines.push(start.text(text));
    }
    if finding.severity != Severity::Note {
        let why = wrapped(&finding.why, room, MOST).into_iter();
        lines.extend(why.map(|text| Line::new().pad(INDENT).paint(Paint::Dim, text)));
    }
    if !finding.fix.is_empty() && finding.severity != Severity::Note {
        lines.push(Line::new().text("  ").paint(Paint::Dim, "fix:").pad(INDENT).paint(Paint::Bold, &finding.fix));
    }
    lines
}

fn verdict(report: &Report) -> Line {
    let (errors, warnings) = (report.count(Severity::Error), report.count(Severity::Warning));
    let mut parts = Vec::new();
    if errors > 0 {
        parts.push(plural(errors, "error", "errors"));
    }
    if warnings > 0 {
        parts.push(plural(warnings, "warning", "warnings"));
    }
    match parts.is_empty() {
        true => Line::new().paint(Paint::Good, "nothing is wrong here"),
        false => {
            let paint = if errors > 0 { Paint::Bad } else { Paint::Warn };
            let rest = if errors > 0 { ": a run fails or is of no use" } else { ": a run works all the same" };
            Line::new().paint(paint, parts.join(", ")).text(rest)
        }
    }
}
