//! The live view as lines: pure functions of the model. The live part is at most builders + 3 lines; what has
//! happened scrolls above it once.

use crate::event::{DrvOutcome, Moment, Stage};
use crate::id::{AttemptId, AttrId, BuilderId, DrvId};
use crate::report::number::{about, count, duration, plural, size};
use crate::report::summary::{Attempt, Builder};
use crate::report::text::{Line, Paint, listed, wrapped};
use crate::report::{affected, failure, left_out};

use super::Settings;
use super::model::{Model, Notice, Reason, holds_slot};

/// Builders with a line of their own; the rest is folded into one.
const BUILDERS: usize = 6;

/// Lines of a warning that are shown.
const WARNING: usize = 6;

/// Columns up to the text of a line about an attr.
const NAME: usize = 22;

/// The live part at a moment, each line at most this wide.
#[must_use]
pub fn region(model: &Model, now: Moment, width: usize) -> Vec<Line> {
    // The last column stays free: some terminals wrap a line that fills it.
    let width = width.saturating_sub(1).max(20);
    let mut lines = vec![Line::new().paint(Paint::Dim, "─".repeat(width)), status(model, now, width)];
    if !is_plan(model) && !is_push(model) {
        lines.extend(builders(model, now, width));
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
    let done = format!("build {}/{}", count(counts.built), count(counts.builds));
    let failed = if counts.failed > 0 { format!(" · {} FAILED", count(counts.failed)) } else { String::new() };
    let running = format!(" · {} running", count(counts.running));
    let wait = if waiting > 0 { format!(" · {} wait", count(waiting)) } else { String::new() };
    let fetch = match counts.fetches.saturating_sub(counts.fetched) {
        0 => String::new(),
        n => format!(" · {} to fetch", count(n)),
    };
    Some(vec![
        format!("{done}{failed}{running}{wait}{fetch}"),
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

/// A line a builder, the local one last; idle ones are folded first where there are many.
fn builders(model: &Model, now: Moment, width: usize) -> Vec<Line> {
    let s = &model.summary;
    let busy = |id: &BuilderId| model.running.get(id).map_or(0, std::collections::BTreeSet::len);
    let mut ids: Vec<BuilderId> = s.builders.keys().copied().collect();
    ids.sort_by_key(|id| (id.0 == 0, *id));
    let mut folded = Vec::new();
    while ids.len() > BUILDERS {
        let least = (0..ids.len()).rev().min_by_key(|i| busy(&ids[*i]));
        folded.extend(least.map(|i| ids.remove(i)));
    }
    let names = ids.iter().map(|id| Line::from(s.builder_name(*id)).width()).max().unwrap_or(0).clamp(5, 16);
    let mut lines: Vec<Line> = Vec::new();
    for id in ids {
        let Some(builder) = s.builders.get(&id) else { continue };
        lines.push(builder_line(model, id, builder, names, now, width));
    }
    if !folded.is_empty() {
        let used: usize = folded.iter().map(busy).sum();
        let slots = folded.iter().filter_map(|id| s.builders.get(id)).fold(0_u32, |sum, b| sum.saturating_add(b.slots));
        let text = format!("{} more builders  {used}/{slots}", folded.len());
        // One line fewer of the others, so that there are never more lines than builders + 3.
        lines.push(Line::from(text).fit(width));
    }
    lines
}

/// `big1   12/16  linux-6.12.58 3m01s of ~4m20s · nginx-1.29.4 48s · 10 more`.
fn builder_line(model: &Model, id: BuilderId, builder: &Builder, names: usize, now: Moment, width: usize) -> Line {
    let s = &model.summary;
    let attempts: Vec<&Attempt> = model
        .running
        .get(&id)
        .into_iter()
        .flatten()
        .filter_map(|attempt: &AttemptId| s.attempts.get(attempt))
        .collect();
    let used = attempts.iter().filter(|attempt| holds_slot(attempt)).count();
    let mut items: Vec<(Moment, String)> = attempts.iter().map(|a| (a.started, attempt_text(model, a, now))).collect();
    if id.0 == 0 {
        items.extend(model.fetching.iter().filter_map(|drv| fetch_text(model, *drv, now)));
    }
    items.sort();
    let line = Line::new()
        .paint(Paint::Bold, &*builder.name)
        .pad(names)
        .text(format!(" {:>6}  ", format!("{used}/{}", builder.slots)));
    if items.is_empty() {
        return line.paint(Paint::Dim, "idle").fit(width);
    }
    let texts: Vec<String> = items.into_iter().map(|(_, text)| text).collect();
    let left = width.saturating_sub(line.width());
    line.text(listed(&texts, " · ", left)).fit(width)
}

/// One attempt in a few words, with its elapsed time.
fn attempt_text(model: &Model, attempt: &Attempt, now: Moment) -> String {
    let name = model.summary.drv_name(attempt.drv);
    match (&attempt.waiting, attempt.building) {
        (_, Some(since)) => {
            let expected = model.summary.drvs.get(&attempt.drv).and_then(|drv| drv.expected);
            let of = expected.map_or_else(String::new, |seconds| format!(" of ~{}", about_exactly(seconds)));
            format!("{name} {}{of}", short(now.since(since)))
        }
        (Some((since, _)), None) => format!("{name} {} (built by somebody else)", short(now.since(*since))),
        (None, None) => format!("↓ {name} {}", short(now.since(attempt.started))),
    }
}

/// A duration of history beside one that runs.
fn about_exactly(seconds: f64) -> String {
    if seconds < 9.95 { format!("{}s", seconds.round().max(1.0)) } else { duration(seconds) }
}

fn fetch_text(model: &Model, id: DrvId, now: Moment) -> Option<(Moment, String)> {
    let drv = model.summary.drvs.get(&id)?;
    let since = drv.fetches.last()?.span.start;
    Some((since, format!("↓ {} {}", drv.name, short(now.since(since)))))
}

/// The last line: how long so far, how long still, and what Ctrl-C does.
fn elapsed(model: &Model, now: Moment, width: usize) -> Line {
    let s = &model.summary;
    let line = Line::from(format!("{} elapsed", short(now.seconds())));
    if s.cancelled.is_some() {
        return line.text("   stopping; Ctrl-C again: now").fit(width);
    }
    let left = match model.left.as_ref().filter(|_| model.is_evaluated()) {
        Some(left) if left.seconds >= 1.0 && left.unknown == 0 => format!(", about {} left", about(left.seconds)),
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

/// What scrolls above the live part.
#[must_use]
pub fn notice(model: &Model, notice: &Notice, settings: &Settings, width: usize) -> Vec<Line> {
    let s = &model.summary;
    match notice {
        Notice::Built(attr) => built(model, *attr, width).into_iter().collect(),
        Notice::Drv(drv) => drv_line(model, *drv, width).into_iter().collect(),
        Notice::LeftOut(indexes) => {
            let parts = indexes.iter().filter_map(|index| s.left_out.get(*index));
            let texts = left_out::lines(parts, width.saturating_sub(10)).into_iter().enumerate();
            texts.map(|(i, text)| Line::from(if i == 0 { " left out" } else { "" }).pad(10).text(text)).collect()
        }
        Notice::Base => base(model, width),
        Notice::Skipped => skipped(model, width),
        Notice::Masked(attrs) => vec![masked(*attrs, width)],
        Notice::Failed(..)
        | Notice::Warning(_)
        | Notice::EvalWarning(_)
        | Notice::Trace(..)
        | Notice::Stopping { .. } => quiet(model, notice, settings, width),
        Notice::Started
        | Notice::Locked
        | Notice::Caches(_)
        | Notice::Builders(_)
        | Notice::Evaluated
        | Notice::Compared
        | Notice::Pushed(_) => Vec::new(),
    }
}

/// What is said even where only the verdict is wanted: failures, warnings, stopping.
#[must_use]
pub fn quiet(model: &Model, notice: &Notice, settings: &Settings, width: usize) -> Vec<Line> {
    let s = &model.summary;
    match notice {
        Notice::Failed(reason, attrs) => vec![failed(model, reason, attrs, settings, width)],
        Notice::Warning(index) => s.warnings.get(*index).map_or_else(Vec::new, |warning| {
            let mut texts = wrapped(&warning.message, width.saturating_sub(9), WARNING).into_iter();
            let first = texts.next().unwrap_or_default();
            let first = Line::new().paint(Paint::Warn, " warning").text(format!(" {first}"));
            // What is to be typed stays whole.
            let more = texts.chain(warning.hint.as_deref().map(|hint| format!("hint: {hint}")));
            std::iter::once(first).chain(more.map(|line| Line::from(format!("         {line}")))).collect()
        }),
        Notice::EvalWarning(index) => s.eval_warnings.get(*index).map_or_else(Vec::new, |(message, _)| {
            vec![
                Line::new()
                    .paint(Paint::Warn, " warning")
                    .text(format!(" evaluating: {}", first_line(message)))
                    .fit(width),
            ]
        }),
        Notice::Trace(attr, message) => {
            let text = format!(" {}: {}", s.attr_name(*attr), first_line(message));
            vec![Line::new().paint(Paint::Dim, " trace  ").text(text).fit(width)]
        }
        Notice::Stopping { .. } => vec![stopping(notice, width)],
        Notice::Base if s.base.is_none() => base(model, width),
        Notice::Skipped => skipped(model, width),
        _ => Vec::new(),
    }
}

/// What is not evaluated and why, with a column of room as all that scrolls above the live part has.
fn skipped(model: &Model, width: usize) -> Vec<Line> {
    let lines = affected::skipped(&model.summary, width.saturating_sub(1)).into_iter();
    lines.map(|line| Line::from(" ").then(line)).collect()
}

/// ` eval   3 attrs once more on both sides, with the revision masked`.
fn masked(attrs: u32, width: usize) -> Line {
    Line::new().paint(Paint::Bold, " eval").text(format!("   {}", affected::masked(attrs))).fit(width)
}

/// ` base   main@a01b77e from record`.
fn base(model: &Model, width: usize) -> Vec<Line> {
    let text = affected::base_line(&model.summary).unwrap_or_default();
    let mut texts = wrapped(&text, width.saturating_sub(8), WARNING).into_iter();
    let first = Line::new().paint(Paint::Bold, " base").text(format!("   {}", texts.next().unwrap_or_default()));
    std::iter::once(first).chain(texts.map(|more| Line::from(format!("        {more}")))).collect()
}

/// ` built  db1           2m04s  14 drvs`.
fn built(model: &Model, id: AttrId, width: usize) -> Option<Line> {
    let attr = model.summary.attrs.get(&id)?;
    let planned = attr.planned.as_ref()?;
    let took = attr.ended.as_ref().map_or(0.0, |end| end.at.since(planned.at));
    let line = Line::new().paint(Paint::Good, " built ").text(format!(" {}", attr.name)).pad(NAME - 1).text(" ");
    let drvs = plural(planned.builds as usize, "drv", "drvs");
    Some(line.text(format!("{:>6}  {drvs:>8}", duration(took))).fit(width))
}

/// ` FAILED web3          nginx-1.29.4 on big2, exit code 2 (details at the end; the rest goes on)`.
fn failed(model: &Model, reason: &Reason, attrs: &[AttrId], settings: &Settings, width: usize) -> Line {
    let names = listed(&model.summary.names(attrs), " ", (width / 3).max(13));
    let line = Line::new().paint(Paint::Bad, " FAILED").text(format!(" {names}")).pad(NAME - 2).text("  ");
    let line = line.text(why(model, reason)).fit(width);
    let rest = if settings.fail_fast { " (details at the end)" } else { " (details at the end; the rest goes on)" };
    line.then_if_fits(Line::from(rest), width)
}

/// Why attrs failed, in short.
pub(super) fn why(model: &Model, reason: &Reason) -> String {
    let s = &model.summary;
    match reason {
        Reason::Drv(id) => {
            let name = s.drv_name(*id);
            let place = s.last_attempt(*id).map(|attempt| format!(" on {}", s.builder_name(attempt.builder)));
            let ended = s.drvs.get(id).and_then(|drv| drv.ended.as_ref());
            let cause = match ended {
                Some((_, DrvOutcome::Failed(failure))) => format!(", {}", failure::short_cause(failure)),
                _ => String::new(),
            };
            format!("{name}{}{cause}", place.unwrap_or_default())
        }
        Reason::Eval(message) | Reason::Other(message) => failure::headline(message),
    }
}

/// The first line that says something.
pub(super) fn first_line(message: &str) -> &str {
    message.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or("no reason is recorded")
}

/// ` drv    nginx-1.29.4   48s  big1` (`-v`).
fn drv_line(model: &Model, id: DrvId, width: usize) -> Option<Line> {
    let attempt = model.summary.last_attempt(id)?;
    let name = model.summary.drv_name(id);
    let took = duration(attempt.seconds(model.summary.end));
    let line = Line::new().paint(Paint::Dim, " drv   ").text(format!(" {name}")).pad(2 * NAME - 1).text(" ");
    Some(line.text(format!("{took:>6}  {}", model.summary.builder_name(attempt.builder))).fit(width))
}

/// What Ctrl-C does.
pub(super) fn stopping(notice: &Notice, width: usize) -> Line {
    let Notice::Stopping { level, running, built, to_push } = notice else { return Line::new() };
    let some = |n: usize, text: String| (n > 0).then_some(text);
    let kept = some(*built, format!("{} kept", plural(*built, "finished drv", "finished drvs")));
    let parts = match level {
        0 | 1 => [
            some(*running, plural(*running, "build ended", "builds ended")),
            kept,
            some(*to_push, format!("pushing the last {}", count(*to_push))),
        ],
        _ => [kept, some(*to_push, format!("{} not pushed", count(*to_push))), None],
    };
    let now = if *level > 1 { " now" } else { "" };
    let mut line = Line::new().paint(Paint::Warn, "stopping").text(now);
    for (i, part) in parts.into_iter().flatten().enumerate() {
        line = line.then_if_fits(Line::from(if i == 0 { ": " } else { ", " }).text(part), width);
    }
    if *level > 1 { line } else { line.then_if_fits(Line::from(" (Ctrl-C again: now)"), width) }
}
