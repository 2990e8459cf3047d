//! What failed, grouped by what caused it: the last thing on the screen of a failed run, and short forms of causes
//! for lines that appear while it runs.

pub(super) mod no_builder;

use std::collections::BTreeSet;

use crate::error::without_numbers;
use crate::event::{Class, Difference, DrvOutcome, Failure, Text};
use crate::id::{AttrId, DrvId, Kind};

use super::number::{count, duration, name_version, plural};
use super::summary::{Attempt, Attr, Cause, FailureGroup, Summary};
use super::text::{Line, Paint, listed, wrapped};
use super::{affected, builders, check};

/// Lines of log that a failure shows; a few where there are many failures.
const TAIL: usize = 25;

/// From this many failures on, each shows a few lines only.
const MANY: usize = 4;

/// The few.
const SHORT_TAIL: usize = 8;

/// Lines of a message that are shown.
const MESSAGE: usize = 6;

/// The same where nothing else is said.
const FATAL: usize = 20;

/// All failures, a blank line between two. Lines to be typed are never cut.
#[must_use]
pub fn screen(summary: &Summary, groups: &[FailureGroup], width: usize) -> Vec<Line> {
    let tail = if groups.len() >= MANY { SHORT_TAIL } else { TAIL };
    let mut lines = Vec::new();
    for group in groups {
        if !lines.is_empty() {
            lines.push(Line::new());
        }
        if let Cause::NoBuilder(drvs) = &group.cause {
            lines.extend(no_builder::block(summary, drvs, &group.attrs, width));
            continue;
        }
        lines.push(head(summary, &group.attrs, width));
        match &group.cause {
            Cause::NoBuilder(_) => {}
            Cause::Drv(drv) => lines.extend(drv_failure(summary, *drv, group, tail, width)),
            Cause::Eval(failure) => lines.extend(eval_failure(summary, failure, &group.attrs, width)),
            Cause::Other(reason) => {
                lines.extend(message(reason, width));
                lines.push(typed("again", &run_again(summary, &group.attrs)));
            }
        }
    }
    lines
}

/// What ended everything: a sentence, and what to type. The hint is never cut.
#[must_use]
pub fn fatal(message: &str, hint: Option<&str>, width: usize) -> Vec<Line> {
    said(Line::new().paint(Paint::Bad, "error:"), message, hint, width)
}

/// What is no reason to stop, outside of a run: the same.
#[must_use]
pub fn warning(message: &str, hint: Option<&str>, width: usize) -> Vec<Line> {
    said(Line::new().paint(Paint::Warn, "warning:"), message, hint, width)
}

fn said(word: Line, message: &str, hint: Option<&str>, width: usize) -> Vec<Line> {
    let message = without_numbers(message);
    let mut text = wrapped(&message, width.saturating_sub(word.width() + 1), FATAL).into_iter();
    let first = text.next().unwrap_or_default();
    let mut lines = vec![word.text(format!(" {first}"))];
    lines.extend(text.map(|line| Line::from(format!("  {line}"))));
    let mut hint = hint.into_iter().flat_map(str::lines);
    lines.extend(hint.next().map(|first| Line::new().text("  ").paint(Paint::Dim, "hint:").text(format!(" {first}"))));
    lines.extend(hint.map(|more| Line::from(format!("        {more}"))));
    lines
}

/// `FAILED  4 hosts: web1 web2 web3 lb1`.
fn head(summary: &Summary, attrs: &[AttrId], width: usize) -> Line {
    let line = Line::new().paint(Paint::Bad, "FAILED");
    if attrs.is_empty() {
        return line.text("  no attr asked for it by name");
    }
    let line = line.text(format!("  {}: ", kinds(summary, attrs)));
    let before = before(summary, attrs).map(|text| Line::new().paint(Paint::Dim, text));
    let taken = before.as_ref().map_or(0, |before| before.width() + 2);
    let left = width.saturating_sub(line.width());
    // Names matter more than what was before.
    let names = listed(&summary.names(attrs), " ", left.saturating_sub(taken).max(left.min(24)));
    let line = line.paint(Paint::Bold, names);
    match before {
        Some(before) if line.width() + taken <= width => line.right(before, width),
        _ => line,
    }
}

/// `newly broken (ok on main)`, where the base, or a recorded run of it, says so of all of them.
fn before(summary: &Summary, attrs: &[AttrId]) -> Option<String> {
    let base = affected::bare(summary.base.as_ref()?);
    let all = |which: fn(&Attr) -> bool| attrs.iter().all(|attr| summary.attrs.get(attr).is_some_and(which));
    // What was not there was not fine.
    if all(|attr| {
        let was_there = attr.compared.as_ref().is_some_and(|compared| compared.base_drv.is_some());
        attr.was_broken() == Some(false) && (attr.was_fine.is_some() || was_there)
    }) {
        return Some(format!("newly broken (ok on {base})"));
    }
    all(|attr| attr.was_broken() == Some(true)).then(|| format!("broken on {base} too"))
}

/// `4 hosts, 1 package`.
#[must_use]
pub fn kinds(summary: &Summary, attrs: &[AttrId]) -> String {
    let attrs: BTreeSet<AttrId> = attrs.iter().copied().collect();
    let kinds = summary.kinds(|attr| attrs.contains(&attr));
    kinds.into_iter().map(|(kind, n)| format!("{} {}", count(n), kind.noun(n))).collect::<Vec<_>>().join(", ")
}

/// The same in brief: the kind that matters most, and how many others: `4 hosts, 1 other`.
#[must_use]
pub fn kinds_brief(summary: &Summary, attrs: &[AttrId]) -> String {
    let wanted: BTreeSet<AttrId> = attrs.iter().copied().collect();
    let kinds = summary.kinds(|attr| wanted.contains(&attr));
    match kinds.as_slice() {
        [(kind, n), _, _, ..] => {
            let others = plural(wanted.len() - n, "other", "others");
            format!("{} {}, {others}", count(*n), kind.noun(*n))
        }
        _ => self::kinds(summary, attrs),
    }
}

/// The same for a sentence: `4 hosts`, and `5 attrs` where there are several kinds.
#[must_use]
pub fn kinds_short(summary: &Summary, attrs: &[AttrId]) -> String {
    let kinds = kinds(summary, attrs);
    if kinds.contains(',') { plural(attrs.len(), "attr", "attrs") } else { kinds }
}

fn drv_failure(summary: &Summary, id: DrvId, group: &FailureGroup, tail: usize, width: usize) -> Vec<Line> {
    let Some(drv) = summary.drvs.get(&id) else { return Vec::new() };
    let attempt = summary.last_attempt(id);
    let failure = attempt.and_then(Attempt::failure).or(match &drv.ended {
        Some((_, DrvOutcome::Failed(failure))) => Some(failure),
        _ => None,
    });
    let mut lines = Vec::new();
    let place = attempt.map(|attempt| {
        format!(" on {} after {}", summary.builder_name(attempt.builder), duration(attempt.seconds(summary.end)))
    });
    let phase = attempt.and_then(|attempt| attempt.phases.last()).map(|(_, phase)| format!(", {phase}"));
    let cause = failure.map(cause).unwrap_or_default();
    let name = &drv.name;
    let said = format!(
        "{}{}: {cause}{}",
        name,
        place.unwrap_or_default(),
        phase.filter(|_| attempt.is_some_and(|a| a.building.is_some())).unwrap_or_default()
    );
    let mut parts = wrapped(&said, width.saturating_sub(4), 4).into_iter();
    lines.extend(parts.next().map(|first| Line::from(format!("  {first}"))));
    lines.extend(parts.map(|more| Line::from(format!("    {more}"))));
    if let Some(line) = lines.pop() {
        lines.extend(with_tries(summary, id, line, width));
    }
    lines.extend(failure.into_iter().flat_map(details));
    let shown = attempt.map(|attempt| attempt.log_tail.as_slice()).unwrap_or_default();
    for line in &shown[shown.len().saturating_sub(tail)..] {
        lines.push(Line::new().paint(Paint::Said, format!("    {line}")).fit(width));
    }
    lines.extend(log_line(summary, id, attempt, width));
    lines.extend(why(summary, &group.attrs));
    lines.push(match failure {
        // Here nobody can repeat it.
        Some(failure) if failure.class == Class::NoBuilder => {
            typed("go on", &no_builder::without(summary, &group.attrs))
        }
        _ => typed("repeat", &format!("nix build -L '{}^*'", drv.path)),
    });
    lines
}

/// A line with what was tried: `1 attempt, not retried`, `2 attempts: big1 lost, big2`. Where it was tried is told even
/// where there is no room beside the line.
fn with_tries(summary: &Summary, id: DrvId, line: Line, width: usize) -> Vec<Line> {
    let attempts = summary.attempts_of(id).count();
    let ways = match attempts {
        0 => return vec![line],
        1 => vec!["1 attempt, not retried".to_owned(), "not retried".to_owned()],
        n => vec![format!("{n} attempts{}", builders::places(summary, id))],
    };
    for way in &ways {
        let beside = line.clone().right(Line::new().paint(Paint::Dim, way), width);
        if beside != line {
            return vec![beside];
        }
    }
    let tries = ways.concat();
    if attempts == 1 {
        return vec![line];
    }
    let below = wrapped(&tries, width.saturating_sub(4), 3).into_iter();
    let below = below.map(|text| Line::from("    ").paint(Paint::Dim, text));
    std::iter::once(line).chain(below).collect()
}

/// How to see what has changed, where there is a base with which one of these attrs was compared.
fn why(summary: &Summary, attrs: &[AttrId]) -> Option<Line> {
    let base = summary.base.as_ref()?;
    let changed = attrs.iter().find(|attr| {
        let compared = summary.attrs.get(attr).and_then(|attr| attr.compared.as_ref());
        compared.is_some_and(|compared| compared.difference == Difference::Changed)
    })?;
    let label = base.rev.as_deref().and_then(|rev| rev.get(..7)).unwrap_or(&base.locked);
    let name = summary.names(&[*changed]).concat();
    Some(typed("why", &format!("drover why {name} --base {label}")))
}

/// Where the whole log is.
fn log_line(summary: &Summary, id: DrvId, attempt: Option<&Attempt>, width: usize) -> Option<Line> {
    let attempt = attempt.filter(|attempt| attempt.log_lines > 0)?;
    let asked = summary.log_name(id);
    let lines = plural(usize::try_from(attempt.log_lines).unwrap_or(usize::MAX), "line", "lines");
    let extent = Line::from("        ").paint(Paint::Dim, format!("({lines})"));
    Some(typed("log", &format!("drover log {asked}")).then_if_fits(extent, width))
}

fn eval_failure(summary: &Summary, failure: &Failure, attrs: &[AttrId], width: usize) -> Vec<Line> {
    let text = failure.message.trim_start();
    let mut lines = message(text.strip_prefix("error:").unwrap_or(text).trim_start(), width);
    if let Some(position) = &failure.position {
        lines.push(typed("at", position));
    }
    if failure.class == Class::Oom {
        // Nix by itself would take all the memory that there is.
        lines.push(typed("again", &format!("{} --eval-memory SIZE", run_again(summary, attrs))));
        return lines;
    }
    lines.extend(attrs.first().and_then(|attr| repeat_eval(summary, *attr)).map(|command| typed("repeat", &command)));
    lines
}

/// The command that shows an evaluation error alone.
pub(super) fn repeat_eval(summary: &Summary, attr: AttrId) -> Option<String> {
    let attr = summary.attrs.get(&attr)?;
    let flake = summary.flake.as_ref().map_or("", |flake| &flake.original);
    let below = match attr.kind {
        Kind::NixosConfigurations | Kind::DarwinConfigurations => ".config.system.build.toplevel.drvPath",
        Kind::HomeConfigurations => ".activationPackage.drvPath",
        Kind::Apps => ".program",
        // Overlays, modules, templates: Nix prints them, whatever they are.
        Kind::Other => "",
        _ => ".drvPath",
    };
    // Of a plain file, and of lines that another evaluator wrote.
    if !flake.contains(':') {
        let file = flake.starts_with(['/', '<']);
        return file.then(|| format!("nix eval --show-trace --file '{flake}' '{}{below}'", attr.path));
    }
    Some(format!("nix eval --show-trace '{flake}#{}{below}'", attr.path))
}

fn run_again(summary: &Summary, attrs: &[AttrId]) -> String {
    let names = summary.names(attrs);
    let command = summary.header.as_ref().map_or("run", |header| &header.command);
    // A check is of a whole flake.
    if check::is_check(summary) {
        let paths = attrs.iter().filter_map(|attr| summary.attrs.get(attr)).filter(|_| attrs.len() <= 4);
        let only: String = paths.map(|attr| format!(" --only '{}'", attr.path)).collect();
        return format!("drover check{only}");
    }
    if names.len() > 4 { format!("drover {command} --failed") } else { format!("drover {command} {}", names.join(" ")) }
}

/// A line whose text is there to be copied; whatever its width, it stays whole.
fn typed(label: &str, text: &str) -> Line {
    Line::from(format!("  {label:<6}  {text}"))
}

/// A foreign message, indented; its first lines.
fn message(text: &str, width: usize) -> Vec<Line> {
    let lines = wrapped(&shorten_paths(text), width.saturating_sub(2), MESSAGE);
    lines.into_iter().map(|line| Line::from(format!("  {line}"))).collect()
}

/// What happened, in a line: `builder exited with code 2`.
#[must_use]
pub fn cause(failure: &Failure) -> String {
    match (failure.class, code(&failure.message)) {
        (Class::Build, Some(code)) => format!("builder exited with code {code}"),
        (Class::Signal, Some(code)) => format!("builder was killed by signal {code}"),
        // The details below go on where the first line ends.
        (Class::HashMismatch | Class::DisallowedReference, _) => {
            let first = failure.message.lines().next().unwrap_or_default();
            headline(first).trim_end_matches(':').to_owned()
        }
        _ => {
            let first = headline(&failure.message);
            if first.is_empty() { word(failure.class).to_owned() } else { first }
        }
    }
}

/// What a foreign message says in one line: its first line that says something, with the next where it ends in `:`,
/// without `error:` in front.
#[must_use]
pub fn headline(message: &str) -> String {
    let strip = |line: &str| line.trim().strip_prefix("error:").map_or(line.trim(), str::trim).to_owned();
    let mut lines = message.lines().map(strip).filter(|line| !line.is_empty());
    let mut text = lines.next().unwrap_or_default();
    if text.ends_with(':')
        && let Some(next) = lines.next()
    {
        text = format!("{text} {next}");
    }
    shorten_paths(&text)
}

/// The same in a few words, for a line of the live view: `exit code 2`.
#[must_use]
pub fn short_cause(failure: &Failure) -> String {
    match (failure.class, code(&failure.message)) {
        (Class::Build, Some(code)) => format!("exit code {code}"),
        (Class::Signal, Some(code)) => format!("signal {code}"),
        (class, _) => word(class).to_owned(),
    }
}

/// What the first line does not say: hashes, references. They are there to be copied, so they are not cut.
fn details(failure: &Failure) -> Vec<Line> {
    let tells =
        matches!(failure.class, Class::HashMismatch | Class::DisallowedReference | Class::NoOutput | Class::Signature);
    if !tells {
        return Vec::new();
    }
    let rest: Vec<&str> = failure.message.lines().skip(1).take(MESSAGE).collect();
    rest.into_iter().map(|line| Line::from(format!("    {}", shorten_paths(line.trim())))).collect()
}

/// The number after `exit code`, `exit status` or `signal` in Nix's own words.
fn code(message: &str) -> Option<u32> {
    ["exit code ", "exit status ", "with code ", "signal "].iter().find_map(|before| {
        let rest = &message[message.find(before)? + before.len()..];
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        rest[..digits].parse().ok()
    })
}

/// A class as it is called in JSON.
pub(super) fn in_json(class: Class) -> String {
    serde_json::to_value(class).ok().and_then(|value| value.as_str().map(str::to_owned)).unwrap_or_default()
}

/// What a class of failure is called where nothing better is known.
pub(super) fn word(class: Class) -> &'static str {
    match class {
        Class::Eval => "does not evaluate",
        Class::Oom => "out of memory",
        Class::Build => "build failed",
        Class::Signal => "killed by a signal",
        Class::NoOutput => "an output is missing",
        Class::HashMismatch => "hash mismatch",
        Class::DisallowedReference => "disallowed reference",
        Class::Timeout => "timed out",
        Class::Silent => "silent for too long",
        Class::LogLimit => "log too large",
        Class::DiskFull => "disk full",
        Class::NoBuilder => "no builder",
        Class::BuilderLost => "builder lost",
        Class::Dependency => "a dependency failed",
        Class::Network => "network error",
        Class::Cache => "cache error",
        Class::Signature => "signature missing",
        Class::Cancelled => "stopped",
        Class::Policy => "not allowed",
        Class::Internal => "bug in drover",
    }
}

/// The text with store paths cut to what follows their hash, without the quotes around them.
fn shorten_paths(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('/') {
        let end =
            rest[at..].find(|c: char| c.is_whitespace() || "'\"`,;:^!()<>".contains(c)).map_or(rest.len(), |n| at + n);
        let path = &rest[at..end];
        out.push_str(&rest[..at]);
        out.push_str(after_hash(path).unwrap_or(path));
        rest = &rest[end..];
    }
    out.push_str(rest);
    out
}

/// `nginx-1.29.4/bin` of `/nix/store/HASH-nginx-1.29.4/bin`.
fn after_hash(path: &str) -> Option<&str> {
    let mut from = 0;
    for part in path.split('/') {
        let name = name_version(part);
        let bare = part.strip_suffix(".drv").unwrap_or(part);
        if name.len() + 33 == bare.len() {
            return path.get(from + 33..);
        }
        from += part.len() + 1;
    }
    None
}

/// The line of a log tail that looks most like the error, for annotations: the first with `error`, else the last.
#[must_use]
pub fn telling_line(tail: &[Text]) -> Option<&Text> {
    tail.iter().find(|line| line.to_ascii_lowercase().contains("error")).or(tail.last())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure(class: Class, message: &str) -> Failure {
        Failure::new(class, message)
    }

    #[test]
    fn nix_words_become_a_short_cause() {
        let old = "builder for '/nix/store/7d4kq0fz1v3c8b2n5m6l9x0y1w2r3s4d-nginx-1.29.4.drv' failed with exit code 2";
        let new = "Cannot build '/nix/store/7d4kq0fz1v3c8b2n5m6l9x0y1w2r3s4d-nginx-1.29.4.drv'.\nReason: builder failed with exit code 77.";
        assert_eq!(cause(&failure(Class::Build, old)), "builder exited with code 2");
        assert_eq!(short_cause(&failure(Class::Build, new)), "exit code 77");
        assert_eq!(
            cause(&failure(Class::Signal, "builder failed due to signal 9 (Killed)")),
            "builder was killed by signal 9"
        );
        assert_eq!(cause(&failure(Class::Timeout, "")), "timed out");
        let lost = failure(Class::BuilderLost, "error: big1: no bytes for 30s");
        assert_eq!((cause(&lost).as_str(), short_cause(&lost).as_str()), ("big1: no bytes for 30s", "builder lost"));
    }

    #[test]
    fn store_paths_in_messages_are_shortened() {
        let text = "path '/nix/store/7d4kq0fz1v3c8b2n5m6l9x0y1w2r3s4d-nginx-1.29.4/bin/nginx' refers to /etc/passwd";
        assert_eq!(shorten_paths(text), "path 'nginx-1.29.4/bin/nginx' refers to /etc/passwd");
        assert_eq!(shorten_paths("a/b /é/ 'x'"), "a/b /é/ 'x'");
    }
}
