//! The same run as lines of a CI log: each with its time and a word in front, never redrawn.

mod going_on;

use crate::event::Moment;
use crate::id::{AttrId, BuilderId, DrvId};
use crate::report::imports::imports;
use crate::report::number::{about, clock, count, duration, plural, size};
use crate::report::summary::{Flake, LOCAL};
use crate::report::text::{Line, Paint, listed};
use crate::report::{affected, check, estimate, flaky, left_out, pushed};

use super::Settings;
use super::live::{first_line, stopping, why};
use super::model::{Model, Notice};

pub use going_on::going_on;

/// Columns before the text: time and word.
const INDENT: usize = 16;

/// Columns of what was asked for, in the first line.
const WHAT: usize = 60;

/// Columns of what attrs import.
const IMPORTS: usize = 80;

/// `0m52s eval      `.
fn head(at: Moment, paint: Paint, word: &str) -> Line {
    Line::from(format!("{:>5} ", clock(at.seconds()))).paint(paint, word).pad(INDENT - 1).text(" ")
}

/// Whether a cache can be used.
fn state(sick: bool) -> &'static str {
    if sick { "not now" } else { "ok" }
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
            let text = |id| {
                s.caches
                    .get(id)
                    .map(|cache| format!("{} {} {}", cache.name, use_of(cache.pull, cache.push), state(cache.sick)))
            };
            vec![head(at, Paint::Plain, "caches").text(ids.iter().filter_map(text).collect::<Vec<_>>().join(" · "))]
        }
        Notice::Builders(ids) => {
            let mut ids = ids.clone();
            ids.sort_by_key(|id| (*id == LOCAL, *id));
            let text = |id: &BuilderId| {
                let builder = s.builders.get(id)?;
                let ok = if *id == LOCAL { "" } else { " ok" };
                Some(format!("{} {}{ok}", builder.name, plural(builder.slots as usize, "slot", "slots")))
            };
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
        Notice::Checked(attr) => checked(model, at, *attr),
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
        Notice::Away(..) | Notice::Back(..) | Notice::GivenUp(..) | Notice::Paused(..) => {
            let (bad, texts) = notice.builder_texts(s);
            let head =
                |first| head(at, if first { Paint::Warn } else { Paint::Plain }, if first { "warning" } else { "" });
            let lines = texts.iter().enumerate();
            lines
                .map(|(i, text)| if i == 0 { head(bad).text(text) } else { Line::new().pad(INDENT).text(text) })
                .collect()
        }
        Notice::Flaky(drv) => vec![head(at, Paint::Warn, "flaky").text(flaky::line(s, *drv))],
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
        Some(left) if left.unknown == 0 => text.push_str(&format!(", about {}", left.about())),
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

/// `0m04s ok        check       lint                           0.3s`, and what there is to say of it.
fn checked(model: &Model, at: Moment, id: AttrId) -> Vec<Line> {
    let Some(verdict) = check::verdict(&model.summary, id) else { return Vec::new() };
    let (paint, word) = check::screen::word(&verdict);
    let notes = check::screen::notes(&model.summary, &verdict).into_iter();
    let first = head(at, paint, word).then(check::screen::subject(&verdict));
    std::iter::once(first).chain(notes.map(|note| Line::new().pad(INDENT).text(note))).collect()
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
