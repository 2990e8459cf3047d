//! The verdict: the last lines of a run. Failures and what was not pushed, then one line; nothing comes after it.

use std::collections::{BTreeMap, BTreeSet};

use crate::event::{Class, Pushed, Stage, Status, Text};
use crate::id::AttrId;

use super::check;
use super::failure;
use super::flaky;
use super::hits;
use super::number::{clock, count, duration, name_version, plural, size};
use super::pushed::{self, Complete};
use super::summary::Summary;
use super::text::{Line, Paint, listed, wrapped};
use super::time;

/// Seconds from which a run says where its time went without being asked.
const LONG: f64 = 10.0;

/// What the verdict should know besides the events.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// Columns.
    pub width: usize,
    /// `-v`: always say where the time went.
    pub verbose: bool,
    /// The id of the run, as it is shown; without it `last` is typed.
    pub run: Option<String>,
    /// Where a report was written.
    pub report: Option<String>,
    /// The closing line begins with the time, as all lines of a CI log do.
    pub clock: bool,
}

/// Everything from "where the time went" to the last line.
#[must_use]
pub fn screen(summary: &Summary, options: &Options) -> Vec<Line> {
    let mut lines = Vec::new();
    let ran = !summary.attempts.is_empty() || (options.verbose && !summary.attrs.is_empty());
    if summary.cancelled.is_none() && ran && (options.verbose || summary.seconds() > LONG) {
        lines.extend(time::screen(summary, options.width));
        lines.push(Line::new());
    }
    let flaky = flaky::screen(summary, options.width);
    if !flaky.is_empty() {
        lines.extend(flaky);
        lines.push(Line::new());
    }
    if options.verbose {
        let hits = hits::screen(summary, options.width);
        let end = (!hits.is_empty()).then(Line::new);
        lines.extend(hits.into_iter().chain(end));
    }
    let groups = summary.failures();
    let blocks = match check::is_check(summary) {
        true => check::screen::blocks(summary, options.width),
        false if groups.is_empty() => Vec::new(),
        false => vec![failure::screen(summary, &groups, options.width)],
    };
    for block in blocks {
        lines.extend(block);
        lines.push(Line::new());
    }
    for cache in summary.caches.keys() {
        let not_pushed = not_pushed(summary, *cache, options);
        if !not_pushed.is_empty() {
            lines.extend(not_pushed);
            lines.push(Line::new());
        }
    }
    let width = if options.clock { usize::MAX } else { options.width };
    let last = last(summary, groups.len(), options);
    // What is to be typed stays whole.
    let typed = usize::from(last.len() > 1);
    let cut = last.len() - typed;
    lines.extend(last.into_iter().enumerate().map(|(i, line)| if i < cut { line.fit(width) } else { line }));
    lines
}

/// The closing line; one more where something is to be typed.
fn last(summary: &Summary, failures: usize, options: &Options) -> Vec<Line> {
    if let Some(error) = &summary.error {
        let width = if options.clock { usize::MAX } else { options.width };
        return failure::fatal(&error.message, error.hint.as_deref(), width);
    }
    if summary.cancelled.is_some() {
        return stopped(summary);
    }
    // A check says in any case how many attrs ended how.
    if failures > 0 && !check::is_check(summary) {
        return vec![fine(summary, options.width)];
    }
    if summary.exit.is_none() {
        let line = Line::new()
            .paint(Paint::Warn, "cut off")
            .text(format!("  the record ends after {}", duration(summary.seconds())));
        let command = summary.header.as_ref().map_or("run", |header| &header.command);
        return vec![line, Line::from(format!("  again   drover {command}"))];
    }
    vec![ok(summary, options)]
}

/// `36 hosts are fine. Nothing else failed.`
fn fine(summary: &Summary, width: usize) -> Line {
    let fine: Vec<AttrId> = with_status(summary, |status| {
        matches!(
            status,
            Some(
                Status::Built | Status::Cached | Status::Valid | Status::Unaffected | Status::ToBuild | Status::ToFetch
            )
        )
    });
    let skipped = summary.attrs.values().filter(|attr| summary.status(attr) == Some(Status::Skipped));
    let skipped = skipped.filter(|attr| !summary.is_left_out(attr)).count();
    if fine.is_empty() && skipped == 0 {
        return Line::from("Nothing else was asked for.");
    }
    if fine.is_empty() {
        return Line::from(format!("Nothing is fine, {} skipped.", count(skipped)));
    }
    let verb = if fine.len() == 1 { "is" } else { "are" };
    let skipped = if skipped > 0 { format!(", {} skipped", count(skipped)) } else { String::new() };
    let say = |kinds: String| {
        let kinds = kinds.rsplit_once(", ").map_or(kinds.clone(), |(most, last)| format!("{most} and {last}"));
        Line::from(format!("{kinds} {verb} fine{skipped}. Nothing else failed."))
    };
    let long = say(failure::kinds(summary, &fine));
    if long.width() <= width { long } else { say(failure::kinds_short(summary, &fine)) }
}

fn with_status(summary: &Summary, which: impl Fn(Option<Status>) -> bool) -> Vec<AttrId> {
    summary.attrs.iter().filter(|(_, attr)| which(summary.status(attr))).map(|(id, _)| *id).collect()
}

/// A way to say how many of which kinds.
type Kinds = fn(&Summary, &[AttrId]) -> String;

/// `ok  40 hosts: 9 built, 31 cached · 212 drvs built · 1.4 GiB pushed · 7m12s`: the longest way to say it that fits.
fn ok(summary: &Summary, options: &Options) -> Line {
    let exit = summary.exit.unwrap_or(0);
    let (paint, word) = match exit {
        0 => (Paint::Good, "ok".to_owned()),
        5 => (Paint::Bad, "not all pushed".to_owned()),
        1 | 3 | 4 if check::is_check(summary) => (Paint::Bad, "FAILED".to_owned()),
        code => (Paint::Bad, format!("exit {code}")),
    };
    let head = match options.clock {
        true => Line::from(format!("{:>5} ", clock(summary.seconds()))).paint(paint, format!("{word:<9} ")),
        false => Line::new().paint(paint, word).text("  "),
    };
    // A log has no width.
    let width = if options.clock { usize::MAX } else { options.width };
    let kinds: [Kinds; 3] = [failure::kinds, failure::kinds_brief, failure::kinds_short];
    let ways = kinds.into_iter().enumerate().flat_map(|(i, kinds)| [true, false].map(|long| (i > 0, kinds, long)));
    let command = summary.header.as_ref().map_or_else(|| "run".into(), |header| header.command.clone());
    let mut line = Line::new();
    for (brief, kinds, long) in ways {
        let what = match &*command {
            "push" => what_was_pushed(summary),
            "check" => check::screen::counted(summary, brief),
            _ => what_was(summary, kinds),
        };
        let start = head.clone().text(what);
        let parts: Vec<Line> =
            parts(summary, options, long).into_iter().map(|part| Line::from(format!(" · {part}"))).collect();
        let whole = parts.iter().cloned().fold(start.clone(), Line::then);
        if whole.width() <= width {
            line = whole;
            break;
        }
        line = parts.into_iter().fold(start, |line, part| line.then_if_fits(part, width));
    }
    let report = options.report.iter().map(|report| Line::from(format!(" · report: {report}")));
    report.fold(line, |line, report| line.then_if_fits(report, width))
}

/// What follows the attrs in the closing line.
fn parts(summary: &Summary, options: &Options, long: bool) -> Vec<String> {
    let mut parts: Vec<String> =
        check::screen::first(summary).filter(|_| check::is_check(summary)).into_iter().collect();
    let built = summary.counts.built - summary.counts.found;
    if built > 0 {
        let word = if long { " built" } else { "" };
        parts.push(format!("{}{word}", plural(built, "drv", "drvs")));
    }
    if summary.counts.pushed_bytes > 0 {
        let whole = summary.counts.push_failed == 0 && !summary.verified.is_empty();
        let read_back = whole && summary.verified.values().all(|v| v.missing.is_empty());
        let read_back = if read_back && long { ", all read back" } else { "" };
        let word = if is_push(summary) { "" } else { " pushed" };
        parts.push(format!("{}{word}{read_back}", size(summary.counts.pushed_bytes)));
    }
    if !options.clock {
        parts.push(duration(summary.seconds()));
    }
    match summary.flaky().len() {
        0 => {}
        n => parts.push(format!("{} flaky", count(n))),
    }
    match warnings(summary) {
        0 => {}
        // A check counts them with those of the flake.
        _ if check::is_check(summary) => {}
        n => parts.push(plural(n, "warning", "warnings")),
    }
    if !is_push(summary) {
        parts.extend(hits::in_short(summary));
    }
    parts
}

/// How many warnings of the run there are. A builder that was away is one, although all went well without it.
pub(super) fn warnings(summary: &Summary) -> usize {
    let away: usize = summary.builders.values().map(|builder| builder.outages.len()).sum();
    summary.warnings.len() + away
}

/// `40 hosts: 9 built, 31 cached`, where `kinds` says `40 hosts`.
#[must_use]
pub fn what_was(summary: &Summary, kinds: impl Fn(&Summary, &[AttrId]) -> String) -> String {
    let all = summary.taken();
    if all.is_empty() && !summary.skipped.is_empty() {
        return "nothing to do, as [skip] says".to_owned();
    }
    if all.is_empty() {
        let left_out = !summary.attrs.is_empty() || !summary.left_out.is_empty();
        return if left_out { "nothing but what was left out".to_owned() } else { "there is nothing to do".to_owned() };
    }
    let words = [
        (Status::Built, "built"),
        (Status::ToBuild, "to build"),
        (Status::ToFetch, "in a cache"),
        (Status::Cached, "cached"),
        (Status::Valid, "in this store"),
        (Status::Unaffected, "unaffected"),
        (Status::Skipped, "skipped"),
        (Status::Failed, "failed"),
        (Status::EvalFailed, "not evaluated"),
    ];
    let mut parts = Vec::new();
    for (status, word) in words {
        let n =
            all.iter().filter(|id| summary.attrs.get(id).and_then(|attr| summary.status(attr)) == Some(status)).count();
        if n > 0 {
            parts.push((n, word));
        }
    }
    let idle = parts.iter().all(|(_, word)| matches!(*word, "cached" | "in this store" | "unaffected"));
    let listed = match parts.as_slice() {
        [(_, word)] => format!("all {word}"),
        parts => parts.iter().map(|(n, word)| format!("{} {word}", count(*n))).collect::<Vec<_>>().join(", "),
    };
    let listed = if all.len() == 1 { listed.trim_start_matches("all ").to_owned() } else { listed };
    let kinds = kinds(summary, &all);
    match (parts.is_empty(), idle) {
        (true, _) => kinds,
        (_, true) => format!("{kinds}: nothing to do ({listed})"),
        (_, false) => format!("{kinds}: {listed}"),
    }
}

/// After Ctrl-C: what is kept and how to go on.
fn stopped(summary: &Summary) -> Vec<Line> {
    let counts = summary.counts;
    let left = counts.builds.saturating_sub(counts.built + counts.failed);
    let line = Line::new().paint(Paint::Warn, "stopped").text(format!("  after {}", duration(summary.seconds())));
    let planned = summary.header.as_ref().is_some_and(|header| header.is_plan());
    let line = match counts.builds {
        0 => line,
        _ if planned => line,
        _ => line.text(format!(
            ": {} kept, {} not built",
            plural(counts.built, "finished drv", "finished drvs"),
            count(left)
        )),
    };
    vec![line, Line::from(format!("  go on   {}", again(summary)))]
}

/// The command once more.
fn again(summary: &Summary) -> String {
    let Some(header) = &summary.header else { return "drover run".to_owned() };
    let words = std::iter::once(&header.command).chain(&header.what);
    format!("drover {}", words.map(|word| &**word).collect::<Vec<_>>().join(" "))
}

/// What is not in a cache where it should be.
fn not_pushed(summary: &Summary, cache: crate::id::CacheId, options: &Options) -> Vec<Line> {
    let mut totals = pushed::totals(summary, cache);
    let over = summary.exit.is_some() || summary.stages.get(&Stage::Push).is_some_and(|span| span.end.is_some());
    if totals.missing.is_empty() || !over {
        return Vec::new();
    }
    let width = options.width;
    let bytes = totals.missing.iter().fold(0_u64, |sum, (_, size, _)| sum.saturating_add(*size));
    let why = match (pushed::reason(&totals), summary.cancelled) {
        (Some(why), _) if why.class != Class::Cancelled => format!(": {}", failure::cause(why)),
        (_, Some(_)) => ": stopped before".to_owned(),
        _ => ": not there when read back".to_owned(),
    };
    let optional = summary.caches.get(&cache).is_some_and(|cache| cache.optional);
    let head = format!(
        "{} of {} ({}) to {}{}{why}",
        count(totals.missing.len()),
        plural(totals.queued, "path", "paths"),
        size(bytes),
        summary.cache_name(cache),
        if optional { " (optional)" } else { "" },
    );
    let paint = if optional { Paint::Warn } else { Paint::Bad };
    let mut texts = wrapped(&head, width.saturating_sub(12), 3).into_iter();
    let head = Line::new().paint(paint, "NOT PUSHED").text("  ").text(texts.next().unwrap_or_default());
    let mut lines = vec![head];
    lines.extend(texts.map(|more| Line::new().pad(12).text(more)));
    let of = |wanted: &[Complete]| -> Vec<String> {
        let ids = summary.attrs.keys().filter(|id| wanted.contains(&pushed::completeness(summary, **id, cache)));
        ids.map(|id| summary.attr_name(*id)).collect()
    };
    for (label, names) in [
        ("complete in the cache: ", of(&[Complete::Complete])),
        ("not complete: ", of(&[Complete::Partial, Complete::No])),
    ] {
        if !names.is_empty() {
            lines.push(Line::from(format!("  {label} {}", listed(&names, " ", width.saturating_sub(label.len() + 3)))));
        }
    }
    totals.missing.sort_by_key(|(_, size, _)| std::cmp::Reverse(*size));
    let names: Vec<&str> = totals.missing.iter().map(|(path, _, _)| name_version(path)).collect();
    lines.push(Line::from(format!("  missing: {}", listed(&names, ", ", width.saturating_sub(11)))));
    lines.extend(kept(summary, &totals, width));
    lines.push(Line::from(format!("  again   {}", push_again(summary, cache, options))));
    lines
}

/// Where what is missing is kept, and what is not kept and why.
fn kept(summary: &Summary, totals: &pushed::Totals, width: usize) -> Vec<Line> {
    let missing: BTreeSet<&Text> = totals.missing.iter().map(|(path, _, _)| path).collect();
    let concerned = summary.kept.iter().filter(|kept| kept.paths.iter().any(|path| missing.contains(path)));
    let mut until: BTreeMap<&Text, Vec<String>> = BTreeMap::new();
    let mut not: Vec<String> = Vec::new();
    for kept in concerned {
        let name = summary.builder_name(kept.builder);
        match (&kept.until, &kept.reason) {
            (Some(day), _) => until.entry(day).or_default().push(name),
            (None, reason) => {
                let why = reason.as_ref().map_or_else(String::new, |why| format!(": {}", failure::headline(why)));
                not.push(format!("not kept on {name}{why}"));
            }
        }
    }
    let found = until.into_iter().map(|(day, names)| {
        let names = names.join(", ");
        let names = names.rsplit_once(", ").map_or(names.clone(), |(most, last)| format!("{most} and {last}"));
        format!("kept on {names} until {day}; the next run finds the paths there and only pushes")
    });
    let texts: Vec<String> = found.chain(not).collect();
    let lines = texts.iter().flat_map(|text| wrapped(text, width.saturating_sub(2), 3));
    lines.map(|text| Line::from(format!("  {text}"))).collect()
}

/// What pushes the rest: `drover push --run 01KAJX3M`.
fn push_again(summary: &Summary, cache: crate::id::CacheId, options: &Options) -> String {
    let base = match is_push(summary) {
        true => again(summary),
        false => format!("drover push --run {}", options.run.as_deref().unwrap_or("last")),
    };
    match summary.caches.get(&cache).filter(|cache| cache.by_name) {
        None => base,
        Some(cache) if cache.pull => format!("{base} --push-to {}", cache.name),
        // A URL may hold secrets.
        Some(_) => format!("{base} --push-to URL    the same as before"),
    }
}

/// Whether this is a `drover push`.
pub(super) fn is_push(summary: &Summary) -> bool {
    summary.header.as_ref().is_some_and(|header| &*header.command == "push")
}

/// `12 paths pushed to acme`, of a `drover push`; what that was is its only news.
#[must_use]
pub fn what_was_pushed(summary: &Summary) -> String {
    let names: Vec<&str> = summary.caches.values().filter(|cache| cache.push).map(|cache| &*cache.name).collect();
    let names = names.join(" and ");
    let caches = summary.caches.iter().filter(|(_, cache)| cache.push);
    let totals: Vec<pushed::Totals> = caches.map(|(cache, _)| pushed::totals(summary, *cache)).collect();
    let sum = |of: fn(&pushed::Totals) -> usize| totals.iter().map(of).sum::<usize>();
    let (queued, there) = (sum(|totals| totals.queued), sum(|totals| totals.there));
    let pushes = summary.pushes.iter();
    let uploaded = pushes.filter(|(_, push)| matches!(push.ended, Some((_, Pushed::Uploaded { .. }))));
    // What went to several caches is one path.
    let uploaded: BTreeSet<&Text> = uploaded.map(|((_, path), _)| path).collect();
    match names.is_empty() {
        true => "there is no cache to push to".to_owned(),
        false if there < queued => format!("{} of {} pushed to {names}", count(there), plural(queued, "path", "paths")),
        false if !uploaded.is_empty() => format!("{} pushed to {names}", plural(uploaded.len(), "path", "paths")),
        false => {
            let asked = plural(summary.asked.len(), "path", "paths");
            format!("nothing to push: of {asked}, all is in {names} or in another cache")
        }
    }
}
