//! What scrolls above the live part, once.

use crate::event::DrvOutcome;
use crate::id::{AttrId, DrvId};
use crate::report::number::{count, duration, plural};
use crate::report::text::{Line, Paint, listed, wrapped};
use crate::report::{affected, check, failure, left_out};

use crate::ui::Settings;
use crate::ui::model::{Model, Notice, Reason};

/// Lines of a warning that are shown.
const WARNING: usize = 6;

/// Lines of what there is to say of a verdict, each.
const NOTE: usize = 3;

/// Columns up to the text of a line about an attr.
const NAME: usize = 22;

/// What scrolls above the live part.
#[must_use]
pub fn notice(model: &Model, notice: &Notice, settings: &Settings, width: usize) -> Vec<Line> {
    let s = &model.summary;
    match notice {
        Notice::Built(attr) => built(model, *attr, width).into_iter().collect(),
        Notice::Checked(attr) => checked(model, *attr, width),
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
        | Notice::Away(..)
        | Notice::Back(..)
        | Notice::GivenUp(..)
        | Notice::Paused(..)
        | Notice::Flaky(_)
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
        Notice::Checked(attr) if is_wrong(model, *attr) => checked(model, *attr, width),
        Notice::Failed(reason, attrs) => vec![failed(model, reason, attrs, settings, width)],
        Notice::Warning(index) => s.warnings.get(*index).map_or_else(Vec::new, |warning| {
            let mut texts = wrapped(&warning.message, width.saturating_sub(9), WARNING).into_iter();
            let first = texts.next().unwrap_or_default();
            let first = Line::new().paint(Paint::Warn, " warning").text(format!(" {first}"));
            // What is to be typed stays whole.
            let more = texts.chain(warning.hint.as_deref().map(|hint| format!("hint: {hint}")));
            std::iter::once(first).chain(more.map(|line| Line::from(format!("         {line}")))).collect()
        }),
        Notice::Away(..) | Notice::Back(..) | Notice::GivenUp(..) | Notice::Paused(..) => trouble(model, notice, width),
        Notice::Flaky(drv) => flaky(model, *drv, width),
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

/// Builders that come and go. What is to be typed stays whole.
fn trouble(model: &Model, notice: &Notice, width: usize) -> Vec<Line> {
    let (bad, texts) = notice.builder_texts(&model.summary);
    let word = if bad { Line::new().paint(Paint::Warn, " warning") } else { Line::new().paint(Paint::Dim, " builder") };
    let mut lines: Vec<Line> = Vec::new();
    for text in texts {
        let text = if bad { text.as_str() } else { text.strip_prefix("builder ").unwrap_or(&text) };
        if text.starts_with("hint: ") {
            lines.push(Line::from(format!("         {text}")));
            continue;
        }
        for part in wrapped(text, width.saturating_sub(9), WARNING) {
            let head = if lines.is_empty() { word.clone().text(" ") } else { Line::new().pad(9) };
            lines.push(head.text(part));
        }
    }
    lines
}

/// ` flaky  nginx-1.29.4: failed on big1, built on big2`.
fn flaky(model: &Model, drv: DrvId, width: usize) -> Vec<Line> {
    let text = crate::report::flaky::line(&model.summary, drv);
    vec![Line::new().paint(Paint::Warn, " flaky").text(format!("  {text}")).fit(width)]
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

/// ` ok      check       lint                           0.3s`, and what there is to say of it.
fn checked(model: &Model, id: AttrId, width: usize) -> Vec<Line> {
    let Some(verdict) = check::verdict(&model.summary, id) else { return Vec::new() };
    let (paint, word) = check::screen::word(&verdict);
    let first = Line::from(" ").paint(paint, word).pad(9).then(check::screen::subject(&verdict)).fit(width);
    let notes = check::screen::notes(&model.summary, &verdict);
    let notes = notes.iter().flat_map(|note| wrapped(note, width.saturating_sub(9), NOTE));
    std::iter::once(first).chain(notes.map(|note| Line::new().pad(9).text(note))).collect()
}

/// Whether there is more to say of an attr than that it is fine.
fn is_wrong(model: &Model, id: AttrId) -> bool {
    check::verdict(&model.summary, id).is_some_and(|verdict| !verdict.outcome.is_good())
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
pub(in crate::ui) fn why(model: &Model, reason: &Reason) -> String {
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
pub(in crate::ui) fn first_line(message: &str) -> &str {
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
pub(in crate::ui) fn stopping(notice: &Notice, width: usize) -> Line {
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
