//! The same run as lines of a CI log: each with its time and a word in front, never redrawn.

use crate::event::{Moment, Stage};
use crate::id::{AttrId, DrvId};
use crate::report::imports::imports;
use crate::report::number::{about, clock, count, duration, plural, size};
use crate::report::summary::Flake;
use crate::report::text::{Line, Paint, listed};
use crate::report::{affected, estimate, left_out, pushed};

use super::Settings;
use super::live::{first_line, is_push, stopping, why};
use super::model::{Model, Notice};

/// Columns before the text: time and word.
const INDENT: usize = 16;

/// Columns of what was asked for, in the first line.
const WHAT: usize = 60;

/// Builds that a "running" line names.
const NAMED: usize = 4;

/// Columns of what attrs import.
const IMPORTS: usize = 80;

/// `0m52s eval      `.
fn head(at: Moment, paint: Paint, word: &str) -> Line {
    Line::from(format!("{:>5} ", clock(at.seconds()))).paint(paint, word).pad(INDENT - 1).text(" ")
}

/// The lines about something that has happened. Only lists are held to the width; no text is cut in a log.
#[must_use]
pub fn notice(model: &Model, at: Moment, notice: &Notice, settings: &Settings, width: usize) -> Vec<Line> {
    let s = &model.summary;
    match notice {
        Notice::Started => vec![started(model, settings)],
        Notice::Locked => {
            s.flake.as_ref().map(|flake| head(at, Paint::Plain, "flake").text(flake_text(flake))).into_iter().collect()
        }
        Notice::Caches(ids) => {
            let text =
                |id| s.caches.get(id).map(|cache| format!("{} {} ok", cache.name, use_of(cache.pull, cache.push)));
            vec![head(at, Paint::Plain, "caches").text(ids.iter().filter_map(text).collect::<Vec<_>>().join(" · "))]
        }
        Notice::Builders(ids) => {
            let mut ids = ids.clone();
            ids.sort_by_key(|id| (id.0 == 0, *id));
            let text =
                |id| s.builders.get(id).map(|b| format!("{} {}", b.name, plural(b.slots as usize, "slot", "slots")));
            vec![head(at, Paint::Plain, "builders").text(ids.iter().filter_map(text).collect::<Vec<_>>().join(" · "))]
        }
        Notice::LeftOut(indexes) => {
            let parts = indexes.iter().filter_map(|index| s.left_out.get(*index));
            vec![head(at, Paint::Plain, "left out").text(left_out::lines(parts, usize::MAX).concat())]
        }
        // That nothing was found is said by the verdict.
        Notice::Evaluated if s.attrs.is_empty() => Vec::new(),
        Notice::Evaluated => vec![head(at, Paint::Plain, "eval").text(evaluated(model))],
        Notice::Compared => vec![head(at, Paint::Plain, "diff").text(compared(model, at))],
        Notice::Built(attr) => built(model, at, *attr).into_iter().collect(),
        Notice::Drv(drv) => drv_line(model, at, *drv).into_iter().collect(),
        Notice::Failed(reason, attrs) => {
            let names = listed(&s.names(attrs), " ", width.saturating_sub(INDENT) / 2);
            vec![head(at, Paint::Bad, "FAILED").text(names).pad(INDENT + 12).text("  ").text(why(model, reason))]
        }
        Notice::Pushed(cache) => vec![head(at, Paint::Plain, "push").text(push_text(model, *cache))],
        Notice::Skipped => affected::skipped(s, usize::MAX)
            .into_iter()
            .map(|line| Line::from(format!("{:>5} ", clock(at.seconds()))).then(line))
            .collect(),
        Notice::Base => {
            affected::base_line(s).map(|text| head(at, Paint::Plain, "base").text(text)).into_iter().collect()
        }
        Notice::Masked(attrs) => vec![head(at, Paint::Plain, "eval").text(affected::masked(*attrs))],
        Notice::Warning(index) => s.warnings.get(*index).map_or_else(Vec::new, |warning| {
            let mut lines = vec![head(at, Paint::Warn, "warning").text(first_line(&warning.message))];
            let hint = warning.hint.as_ref().map(|hint| format!("hint: {hint}"));
            let more = warning.message.lines().skip(1).chain(hint.as_deref());
            lines.extend(more.map(|line| Line::new().pad(INDENT).text(line)));
            lines
        }),
        Notice::EvalWarning(index) => s.eval_warnings.get(*index).map_or_else(Vec::new, |(message, _)| {
            vec![head(at, Paint::Warn, "warning").text(format!("evaluating: {}", first_line(message)))]
        }),
        Notice::Trace(attr, message) => {
            let mut texts = message.lines();
            let first = format!("{}: {}", s.attr_name(*attr), texts.next().unwrap_or_default());
            let more = texts.map(|line| Line::new().pad(INDENT).text(line));
            std::iter::once(head(at, Paint::Plain, "trace").text(first)).chain(more).collect()
        }
        Notice::Stopping { .. } => {
            vec![Line::from(format!("{:>5} ", clock(at.seconds()))).then(stopping(notice, usize::MAX))]
        }
    }
}

/// `drover 0.1.0 run 01KAJX3M · nix 2.34.8 · web1 web2`.
fn started(model: &Model, settings: &Settings) -> Line {
    let Some(header) = &model.summary.header else { return Line::new() };
    let what: Vec<&str> = header.what.iter().map(|what| &**what).collect();
    let what = if what.is_empty() { String::new() } else { format!(" · {}", listed(&what, " ", WHAT)) };
    let text = format!("drover {} {} {} · nix {}{what}", header.drover, header.command, settings.run, header.nix);
    Line::new().paint(Paint::Bold, text)
}

fn flake_text(flake: &Flake) -> String {
    let dirty = match flake.dirty_files {
        None | Some(0) => String::new(),
        Some(n) => format!(" (dirty: {})", plural(n as usize, "file", "files")),
    };
    let rev = flake.rev.as_ref().map_or_else(String::new, |rev| format!(" at {}", rev.get(..7).unwrap_or(rev)));
    let recorded = if flake.recorded { " · evaluated before, from the record" } else { "" };
    format!("{}{rev}{dirty}{recorded}", flake.original)
}

fn use_of(pull: bool, push: bool) -> &'static str {
    match (pull, push) {
        (true, true) => "pull+push",
        (false, true) => "push",
        _ => "pull",
    }
}

fn evaluated(model: &Model) -> String {
    let s = &model.summary;
    let recorded = if s.flake.as_ref().is_some_and(|flake| flake.recorded) { " · from the record" } else { "" };
    let base = match (&s.base, affected::counted(s)) {
        (Some(base), Some(counted)) => {
            format!(" · base {}{counted}", if base.recorded { "from record · " } else { "evaluated · " })
        }
        _ => String::new(),
    };
    let imports = imports(s, IMPORTS).map(|text| format!(" · {text}")).unwrap_or_default();
    format!(
        "{}, {} failed{recorded}{imports}{base}",
        plural(s.taken().len(), "attr", "attrs"),
        count(s.counts.eval_failed)
    )
}

fn compared(model: &Model, at: Moment) -> String {
    let s = &model.summary;
    let Some(diff) = s.diff else { return "nothing to compare".to_owned() };
    let mut text =
        format!("{} of {} absent", count(diff.absent as usize), plural(diff.paths as usize, "path", "paths"));
    for (n, word) in [(diff.untrusted, "untrusted"), (diff.no_answer, "without an answer")] {
        if n > 0 {
            text.push_str(&format!(", {} {word}", count(n as usize)));
        }
    }
    if s.counts.builds == 0 {
        return format!("{text} · nothing to build");
    }
    text.push_str(&format!(" · {} to build", plural(s.counts.builds, "drv", "drvs")));
    match estimate::remaining(s, at) {
        Some(left) if left.unknown == 0 => text.push_str(&format!(", about {}", about(left.seconds))),
        Some(left) => text.push_str(&format!(", at least {}", about(left.seconds))),
        None => text.push_str(", duration unknown (no history yet)"),
    }
    text
}

/// `1m20s built     lb1            9 drvs  27s`.
fn built(model: &Model, at: Moment, id: AttrId) -> Option<Line> {
    let attr = model.summary.attrs.get(&id)?;
    let planned = attr.planned.as_ref()?;
    let took = attr.ended.as_ref().map_or(0.0, |end| end.at.since(planned.at));
    let drvs = plural(planned.builds as usize, "drv", "drvs");
    let line = head(at, Paint::Good, "built").text(&*attr.name).pad(INDENT + 11).text(" ");
    Some(line.text(format!("{drvs:>8}  {}", duration(took))))
}

fn drv_line(model: &Model, at: Moment, id: DrvId) -> Option<Line> {
    let attempt = model.summary.last_attempt(id)?;
    let took = duration(attempt.seconds(model.summary.end));
    let text = format!("{} {took} {}", model.summary.drv_name(id), model.summary.builder_name(attempt.builder));
    Some(head(at, Paint::Dim, "drv").text(text))
}

/// `212 paths, 1.4 GiB to acme.cachix.org, all read back`.
fn push_text(model: &Model, cache: crate::id::CacheId) -> String {
    let totals = pushed::totals(&model.summary, cache);
    let name = model.summary.cache_name(cache);
    let paths = plural(totals.queued, "path", "paths");
    if totals.queued == 0 {
        return format!("nothing that {name} does not have");
    }
    if totals.missing.is_empty() {
        let read_back = if totals.read_back { ", all read back" } else { "" };
        return format!("{paths}, {} to {name}{read_back}", size(totals.bytes));
    }
    format!("{} of {paths} are not in {name}", count(totals.missing.len()))
}

/// A line of a log (`-L`): `nginx-1.29.4> checking for PCRE2 library`.
#[must_use]
pub fn log(name: &str, line: &str) -> Line {
    Line::new().paint(Paint::Dim, format!("{name}> ")).text(line)
}

/// What goes on, after some seconds without a line.
#[must_use]
pub fn going_on(model: &Model, now: Moment, width: usize) -> Vec<Line> {
    let s = &model.summary;
    let mut lines = Vec::new();
    let room = width.saturating_sub(INDENT);
    let mut running: Vec<(Moment, String)> = Vec::new();
    for attempt in model.running.values().flatten().filter_map(|id| s.attempts.get(id)) {
        let since = attempt.building.unwrap_or(attempt.started);
        let what = match (&attempt.waiting, attempt.building) {
            (Some(_), None) => " (built by somebody else)",
            (None, None) => " (bringing its inputs)",
            _ => "",
        };
        let (name, builder) = (s.drv_name(attempt.drv), s.builder_name(attempt.builder));
        running.push((since, format!("{name} {} {builder}{what}", duration(now.since(since)))));
    }
    for drv in model.fetching.iter().filter_map(|id| s.drvs.get(id)) {
        let since = drv.fetches.last().map_or(now, |fetch| fetch.span.start);
        running.push((since, format!("fetching {} {}", drv.name, duration(now.since(since)))));
    }
    running.sort();
    if !running.is_empty() {
        lines.push(head(now, Paint::Plain, "running").text(named(&running, room)));
    }
    if !model.is_evaluated() && !is_push(model) && s.cancelled.is_none() {
        lines.push(evaluating(model, now, room));
    }
    if model.to_push() > 0 {
        let counts = s.counts;
        let text =
            format!("{} of {} paths, {}", count(counts.pushed), count(counts.push_queued), size(counts.pushed_bytes));
        lines.push(head(now, Paint::Plain, "pushing").text(text));
    }
    if lines.is_empty() {
        let stage = s.stages.iter().filter(|(_, span)| span.end.is_none()).max_by_key(|(_, span)| span.start);
        let text = match stage {
            Some((Stage::Diff, span)) => format!("comparing with caches {}", duration(now.since(span.start))),
            Some((Stage::Push, span)) => format!("reading back what was pushed {}", duration(now.since(span.start))),
            Some((Stage::Record, span)) => format!("closing the record {}", duration(now.since(span.start))),
            _ => format!("for {} now", duration(now.seconds())),
        };
        lines.push(head(now, Paint::Plain, "waiting").text(text));
    }
    lines
}

/// The longest-running ones, and how many more.
fn named(running: &[(Moment, String)], room: usize) -> String {
    let texts: Vec<&str> = running.iter().map(|(_, text)| text.as_str()).collect();
    if texts.len() <= NAMED {
        return listed(&texts, " · ", room);
    }
    // Few names and a number say more than a full line.
    let shown = &texts[..NAMED - 1];
    let more = format!(" · {} more", texts.len() - shown.len());
    let text = shown.join(" · ");
    if Line::from(text.as_str()).width() + more.len() <= room {
        format!("{text}{more}")
    } else {
        listed(&texts, " · ", room)
    }
}

fn evaluating(model: &Model, now: Moment, room: usize) -> Line {
    let s = &model.summary;
    if let Some((text, since)) = affected::progress(s) {
        return head(now, Paint::Plain, "eval").text(format!("{text} for {}", duration(now.since(since))));
    }
    let Some(flake) = &s.flake else {
        return head(now, Paint::Plain, "flake").text(format!("locking for {}", duration(now.seconds())));
    };
    if s.counts.evaluated == 0 && model.evaluating.is_empty() {
        return head(now, Paint::Plain, "eval").text(format!("listing attrs for {}", duration(now.since(flake.at))));
    }
    let mut going_on: Vec<(Moment, AttrId)> =
        model.evaluating.iter().filter_map(|id| Some((s.attrs.get(id)?.eval_started?.0, *id))).collect();
    going_on.sort_unstable();
    let items: Vec<String> =
        going_on.iter().map(|(since, id)| format!("{} {}", s.attr_name(*id), duration(now.since(*since)))).collect();
    let done = format!("{}/{}", count(s.counts.evaluated), count(s.attrs.len()));
    let list = listed(&items, " · ", room.saturating_sub(done.len() + 3));
    let separator = if list.is_empty() { "" } else { " · " };
    head(now, Paint::Plain, "eval").text(format!("{done}{separator}{list}"))
}
