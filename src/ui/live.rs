//! The live view as lines: pure functions of the model. The live part is at most builders + 3 lines; what has
//! happened scrolls above it once.

mod builders;
mod notices;

use crate::event::{Moment, Stage};
use crate::id::AttrId;
use crate::report::affected;
use crate::report::number::{about, count, duration, plural, size};
use crate::report::text::{Line, Paint, listed};

use super::model::Model;

pub(super) use notices::{first_line, stopping, why};
pub use notices::{notice, quiet};

/// The live part at a moment, each line at most this wide.
#[must_use]
pub fn region(model: &Model, now: Moment, width: usize) -> Vec<Line> {
    // The last column stays free: some terminals wrap a line that fills it.
    let width = width.saturating_sub(1).max(20);
    let mut lines = vec![Line::new().paint(Paint::Dim, "─".repeat(width)), status(model, now, width)];
    if !is_plan(model) && !is_push(model) {
        lines.extend(builders::lines(model, now, width));
    }
    lines.push(elapsed(model, now, width));
    lines
}

/// Whether nothing will be built.
fn is_plan(model: &Model) -> bool {
    model.summary.header.as_ref().is_some_and(|header| header.is_plan())
}

/// Whether nothing will be evaluated and built: what is there is pushed.
pub(super) fn is_push(model: &Model) -> bool {
    model.summary.header.as_ref().is_some_and(|header| &*header.command == "push")
}

/// The first of several ways to say something that fits; the last one, cut, if none does.
fn first_fit(ways: Vec<Line>, width: usize) -> Line {
    let fits = ways.iter().position(|line| line.width() <= width);
    let chosen = fits.unwrap_or(ways.len().saturating_sub(1));
    ways.into_iter().nth(chosen).unwrap_or_default().fit(width)
}

/// Eval, build and push in one line.
fn status(model: &Model, now: Moment, width: usize) -> Line {
    let (build, push) = (build(model), push(model, now));
    if is_push(model) {
        let asking = vec!["push   asking what is there".to_owned()];
        return first_fit(push.unwrap_or(asking).iter().map(|way| Line::from(way.as_str())).collect(), width);
    }
    let rest = |level: usize| -> Vec<String> {
        [build.as_ref(), push.as_ref()]
            .into_iter()
            .flatten()
            .map(|ways| ways[level.min(ways.len() - 1)].clone())
            .collect()
    };
    // While attrs are evaluated, which ones matters more than how fast the rest goes.
    let levels: &[(usize, &str)] = match model.is_evaluated() {
        true => &[(0, "      "), (0, "   "), (1, "   "), (2, "   "), (2, "  ")],
        false => &[(1, "   "), (2, "   "), (2, "  ")],
    };
    let mut ways = Vec::new();
    for (level, gap) in levels.iter().copied() {
        let rest: String = rest(level).iter().map(|part| format!("{gap}{part}")).collect();
        let left = width.saturating_sub(Line::from(rest.as_str()).width());
        let eval = eval(model, now, left);
        ways.push(Line::from(eval).text(rest));
    }
    first_fit(ways, width)
}

/// What evaluation does: `eval 31/49  web1 6s, db2 4s, mon1 3s`.
fn eval(model: &Model, now: Moment, width: usize) -> String {
    let s = &model.summary;
    let Some(flake) = &s.flake else {
        return format!("locking the flake {}", duration(now.seconds()));
    };
    if let Some((text, since)) = affected::progress(s) {
        return format!("eval   {text} {}", duration(now.since(since)));
    }
    let failed =
        if s.counts.eval_failed > 0 { format!(", {} failed", count(s.counts.eval_failed)) } else { String::new() };
    if model.is_evaluated() {
        if let Some(span) = s.stages.get(&Stage::Diff).filter(|span| span.end.is_none() && s.counts.running == 0) {
            let paths = s.diff.map_or(0, |diff| diff.paths);
            return format!("diff   {} {}", plural(paths as usize, "path", "paths"), duration(now.since(span.start)));
        }
        let span = s.stages.get(&Stage::Eval).and_then(|span| Some(span.end?.since(span.start)));
        return match (flake.recorded, span) {
            (false, Some(seconds)) => format!("eval   done {}{failed}", duration(seconds)),
            _ => format!("eval   from the record{failed}"),
        };
    }
    if s.counts.evaluated == 0 && model.evaluating.is_empty() {
        return format!("listing attrs {}", duration(now.since(flake.at)));
    }
    let head = format!("eval {}/{}{failed}", count(s.counts.evaluated), count(s.attrs.len()));
    let mut going_on: Vec<(Moment, AttrId)> =
        model.evaluating.iter().filter_map(|id| Some((s.attrs.get(id)?.eval_started?.0, *id))).collect();
    going_on.sort_unstable();
    let items: Vec<String> =
        going_on.iter().map(|(since, attr)| format!("{} {}", s.attr_name(*attr), short(now.since(*since)))).collect();
    let room = width.saturating_sub(head.len() + 2);
    if items.is_empty() || room < 12 { head } else { format!("{head}  {}", listed(&items, ", ", room)) }
}

/// Seconds of something that goes on: whole ones, so that the line does not flicker.
fn short(seconds: f64) -> String {
    if seconds < 9.95 { format!("{}s", seconds as u64) } else { duration(seconds) }
}

/// `build 131/212 · 19 running · 62 wait`, long and short.
fn build(model: &Model) -> Option<Vec<String>> {
    let counts = model.summary.counts;
    if counts.builds == 0 && counts.fetches == 0 {
        return None;
    }
    if is_plan(model) {
        return Some(vec![format!("{} to build", plural(counts.builds, "drv", "drvs"))]);
    }
    let waiting = counts.builds.saturating_sub(counts.built + counts.failed + counts.given_up + counts.running);
    let returning = match counts.returning {
        0 => String::new(),
        n => format!(" · {} coming home", count(n)),
    };
    let done = format!("build {}/{}", count(counts.built), count(counts.builds));
    let failed = if counts.failed > 0 { format!(" · {} FAILED", count(counts.failed)) } else { String::new() };
    let running = match model.summary.builders.is_empty() {
        true => " · no builder answers yet".to_owned(),
        false => format!(" · {} running", count(counts.running)),
    };
    let wait = if waiting > 0 { format!(" · {} wait", count(waiting)) } else { String::new() };
    let fetch = match counts.fetches.saturating_sub(counts.fetched) {
        0 => String::new(),
        n => format!(" · {} to fetch", count(n)),
    };
    Some(vec![
        format!("{done}{failed}{running}{wait}{fetch}{returning}"),
        format!("{done}{failed}{running}"),
        format!("{done}{failed}"),
    ])
}

/// `push 118/131 · 0.9 GiB · 31 MiB/s`, long and short.
fn push(model: &Model, now: Moment) -> Option<Vec<String>> {
    let counts = model.summary.counts;
    if counts.push_queued == 0 {
        return None;
    }
    let done = format!("push {}/{}", count(counts.pushed), count(counts.push_queued));
    let failed =
        if counts.push_failed > 0 { format!(" · {} FAILED", count(counts.push_failed)) } else { String::new() };
    let bytes = format!(" · {}", size(counts.pushed_bytes));
    let speed = match model.push_speed(now) {
        Some(speed) if model.to_push() > 0 => format!(" · {}/s", size(speed as u64)),
        _ => String::new(),
    };
    Some(vec![format!("{done}{failed}{bytes}{speed}"), format!("{done}{failed}{bytes}"), format!("{done}{failed}")])
}

/// The last line: how long so far, how long still, and what Ctrl-C does.
fn elapsed(model: &Model, now: Moment, width: usize) -> Line {
    let s = &model.summary;
    let line = Line::from(format!("{} elapsed", short(now.seconds())));
    if s.cancelled.is_some() {
        return line.text("   stopping; Ctrl-C again: now").fit(width);
    }
    let left = match model.left.as_ref().filter(|_| model.is_evaluated()) {
        Some(left) if left.seconds >= 1.0 && left.unknown == 0 => format!(", about {} left", left.about()),
        Some(left) if left.seconds >= 1.0 => format!(", at least {} left", about(left.seconds)),
        _ => String::new(),
    };
    let line = line.text(left);
    if is_plan(model) {
        return line.fit(width);
    }
    let what = match s.has_push() {
        _ if is_push(model) => "what is pushed stays",
        true => "what is built stays and is pushed",
        false => "what is built stays",
    };
    let long = Line::new().paint(Paint::Dim, format!("Ctrl-C stops cleanly; {what}"));
    let short = Line::new().paint(Paint::Dim, "Ctrl-C stops cleanly");
    let with = line.clone().right(long, width);
    if with == line { line.right(short, width).fit(width) } else { with }
}
