//! What people read of a check: a line for each verdict, and what is wrong at the end.

use std::collections::BTreeMap;

use crate::event::{Difference, DrvOutcome, Failure, Text};
use crate::id::{AttrId, AttrPath, Kind};

use super::{Outcome, Verdict, first_failure, verdicts};
use crate::report::affected;
use crate::report::closing;
use crate::report::failure;
use crate::report::number::{count, duration, plural};
use crate::report::summary::{Attr, FailureGroup, Finding, Summary};
use crate::report::text::{Line, Paint, listed, wrapped};

/// Columns of the kind, in a line about an attr.
const KIND: usize = 12;

/// Columns of the kind and the name.
const NAME: usize = 42;

/// Findings that are told one by one at the end.
const FINDINGS: usize = 20;

/// Lines of a message.
const MESSAGE: usize = 4;

/// `ok`, `built`, `FAILED`: what a line about an attr begins with.
#[must_use]
pub fn word(verdict: &Verdict) -> (Paint, &'static str) {
    match verdict.outcome {
        Outcome::Ok => (Paint::Good, "ok"),
        Outcome::Built => (Paint::Good, "built"),
        Outcome::Cached => (Paint::Good, "cached"),
        Outcome::Unaffected => (Paint::Good, "as on the base"),
        Outcome::Finding => (Paint::Warn, "warning"),
        Outcome::Skipped => (Paint::Dim, "skipped"),
        Outcome::Refused | Outcome::Failed if verdict.quarantined.is_some() => (Paint::Warn, "failed"),
        Outcome::Refused | Outcome::Failed => (Paint::Bad, "FAILED"),
    }
}

/// `check       lint                           0.3s`: what follows the word.
#[must_use]
pub fn subject(verdict: &Verdict) -> Line {
    let kind = kind(verdict.kind, &verdict.path);
    let line = Line::from(kind).pad(KIND - 1).text(" ").text(&*verdict.name).pad(NAME);
    line.text(format!("  {:>5}", duration(verdict.seconds)))
}

/// What an attr is called that is one of its kind: `check`, `overlay`.
fn kind(kind: Kind, path: &AttrPath) -> &'static str {
    let output = path.parts().first().map_or("", String::as_str);
    match (kind, output) {
        (Kind::Other, "overlay" | "overlays") => "overlay",
        (Kind::Other, "nixosModule" | "nixosModules") => "module",
        (Kind::Other, "template" | "templates" | "defaultTemplate") => "template",
        (Kind::Other, "bundlers" | "defaultBundler") => "bundler",
        (Kind::Other, "defaultPackage") => "package",
        (Kind::Other, "defaultApp") => "app",
        (Kind::Other, "devShell") => "dev shell",
        (Kind::Other, _) => "output",
        (kind, _) => kind.noun(1),
    }
}

/// What there is to say of a verdict, each in a line of its own: what is wrong and where, that it does not count, and
/// what Nix remarks.
#[must_use]
pub fn notes(s: &Summary, verdict: &Verdict) -> Vec<String> {
    let mut notes = Vec::new();
    if let Some(failure) = &verdict.failure {
        notes.push(match verdict.root {
            Some(root) => of_drv(s, root, failure),
            None => with_position(failure),
        });
    }
    if let Some(quarantined) = verdict.quarantined.as_ref().filter(|_| verdict.outcome.is_bad()) {
        notes.push(format!("in quarantine until {}: {}", quarantined.expires, quarantined.reason));
    }
    notes.extend(verdict.warnings.iter().map(|warning| format!("warning: {}", failure::headline(warning))));
    notes
}

/// `nginx-1.29.4 on big2, exit code 2`.
fn of_drv(s: &Summary, root: crate::id::DrvId, failure: &Failure) -> String {
    let place = s.last_attempt(root).map(|attempt| format!(" on {}", s.builder_name(attempt.builder)));
    let cause = match s.drvs.get(&root).and_then(|drv| drv.ended.as_ref()) {
        Some((_, DrvOutcome::Failed(_))) => format!(", {}", failure::short_cause(failure)),
        _ => String::new(),
    };
    format!("{}{}{cause}", s.drv_name(root), place.unwrap_or_default())
}

/// `attribute 'hostKey' missing, hosts/pi3.nix:12:9`.
fn with_position(failure: &Failure) -> String {
    let text = failure::headline(&failure.message);
    match &failure.position {
        Some(position) => format!("{text}, {position}"),
        None => text,
    }
}

/// What is wrong, in blocks: what failed and is new, what failed before, what does not any more, what is no failure, and
/// what is in quarantine.
#[must_use]
pub fn blocks(s: &Summary, width: usize) -> Vec<Vec<Line>> {
    let (blocking, still) = failed(s);
    let mut changes = Vec::new();
    if !still.is_empty() {
        changes.push(names(s, (Paint::Bad, "still broken"), &format!("{} too", on_base(s)), &still, width));
    }
    let mut fixed = with_difference(s, Difference::Fixed);
    fixed.retain(|id| super::verdict(s, *id).is_none_or(|verdict| !verdict.outcome.is_bad()));
    if !fixed.is_empty() {
        changes.push(names(s, (Paint::Good, "fixed"), &format!("broken {}", on_base(s)), &fixed, width));
    }
    let blocks =
        [failure::screen(s, &blocking, width), changes, findings(s, width), quarantine(s, width), beside(s, width)];
    blocks.into_iter().filter(|block| !block.is_empty()).collect()
}

/// What failed and counts: the groups that are told one by one, newly broken first, and the attrs that were broken on
/// the base too.
fn failed(s: &Summary) -> (Vec<FailureGroup>, Vec<AttrId>) {
    let was_broken = |id: &AttrId| s.attrs.get(id).and_then(Attr::was_broken);
    let (mut groups, mut still) = (Vec::new(), Vec::new());
    for mut group in s.failures() {
        let orphan = group.attrs.is_empty();
        group.attrs.retain(|id| s.attrs.get(id).is_some_and(|attr| attr.quarantined.is_none()));
        let (old, new) = group.attrs.into_iter().partition(|id| was_broken(id) == Some(true));
        group.attrs = new;
        still.extend::<Vec<AttrId>>(old);
        if orphan || !group.attrs.is_empty() {
            groups.push(group);
        }
    }
    let is_new = |group: &FailureGroup| group.attrs.iter().any(|id| was_broken(id) == Some(false));
    groups.sort_by_key(|group| !is_new(group));
    still.sort_unstable();
    (groups, still)
}

fn on_base(s: &Summary) -> String {
    s.base.as_ref().map_or_else(|| "before".to_owned(), |base| format!("on {}", affected::bare(base)))
}

fn with_difference(s: &Summary, difference: Difference) -> Vec<AttrId> {
    let has = |id: &AttrId| s.attrs.get(id).and_then(|attr| attr.compared.as_ref());
    s.attrs.keys().filter(|id| has(id).is_some_and(|compared| compared.difference == difference)).copied().collect()
}

/// `fixed  2 packages (broken on main): a b`.
fn names(s: &Summary, (paint, word): (Paint, &str), what: &str, attrs: &[AttrId], width: usize) -> Line {
    let head = format!("  {} ({what}): ", failure::kinds_short(s, attrs));
    let line = Line::new().paint(paint, word).text(head);
    let left = width.saturating_sub(line.width());
    line.paint(Paint::Bold, listed(&s.names(attrs), " ", left.max(12))).fit(width)
}

/// Attrs with the same finding share a line.
fn findings(s: &Summary, width: usize) -> Vec<Line> {
    let mut same: Vec<(&Failure, Vec<AttrId>)> = Vec::new();
    for (id, attr) in &s.attrs {
        let Some(finding) = attr.finding().filter(|_| !s.is_left_out(attr)) else { continue };
        match same.iter_mut().find(|(known, _)| *known == finding) {
            Some((_, attrs)) => attrs.push(*id),
            None => same.push((finding, vec![*id])),
        }
    }
    let of_attrs = same.iter().map(|(finding, attrs)| {
        let names = listed(&s.names(attrs), " ", width / 2);
        let mut kinds: Vec<&str> =
            attrs.iter().filter_map(|id| s.attrs.get(id)).map(|a| kind(a.kind, &a.path)).collect();
        kinds.dedup();
        let kind = if let [kind] = kinds.as_slice() { format!("{kind} ") } else { String::new() };
        let text = format!("{kind}{names}: {}", with_position(finding));
        warning(Paint::Warn, &text, width)
    });
    let of_flake = s.findings.iter().map(|finding| of_flake(finding, width));
    let all: Vec<Vec<Line>> = of_flake.chain(of_attrs).collect();
    let more = all.len().saturating_sub(FINDINGS);
    let mut lines: Vec<Line> = all.into_iter().take(FINDINGS).flatten().collect();
    if more > 0 {
        lines.push(Line::from(format!("         and {}", plural(more, "more warning", "more warnings"))));
    }
    lines
}

fn of_flake(finding: &Finding, width: usize) -> Vec<Line> {
    let place = finding.position.as_ref().map_or_else(String::new, |position| format!(", {position}"));
    let text = format!("{}: {}{place}", finding.about, finding.message);
    let mut lines = warning(if finding.fails { Paint::Bad } else { Paint::Warn }, &text, width);
    let hint = finding.hint.as_ref();
    lines.extend(hint.map(|hint| Line::from("         ").paint(Paint::Dim, "hint:").text(format!(" {hint}"))));
    lines
}

/// ` warning text`, over as many lines as it takes.
fn warning(paint: Paint, text: &str, width: usize) -> Vec<Line> {
    let texts = wrapped(text, width.saturating_sub(9), MESSAGE).into_iter().enumerate();
    let head = |i| if i == 0 { Line::new().paint(paint, "warning") } else { Line::new() };
    texts.map(|(i, text)| head(i).pad(9).text(text)).collect()
}

/// What is in quarantine and failed, and what passes and may be let out.
fn quarantine(s: &Summary, width: usize) -> Vec<Line> {
    let mut failed: BTreeMap<(&Text, &Text), (Vec<AttrId>, String)> = BTreeMap::new();
    let mut passed: BTreeMap<&Text, (Vec<AttrId>, bool)> = BTreeMap::new();
    let verdicts = verdicts(s);
    for verdict in &verdicts {
        let Some(quarantined) = &verdict.quarantined else { continue };
        let ticket = quarantined.ticket.as_ref().map_or_else(String::new, |ticket| format!(", {ticket}"));
        let why = format!("{}{ticket}", quarantined.reason);
        if verdict.outcome.is_bad() {
            let key = (&quarantined.expires, &quarantined.name);
            failed.entry(key).or_insert_with(|| (Vec::new(), why)).0.push(verdict.attr);
        }
        let entry = passed.entry(&quarantined.name).or_insert_with(|| (Vec::new(), true));
        entry.0.push(verdict.attr);
        entry.1 &= matches!(verdict.outcome, Outcome::Ok | Outcome::Built | Outcome::Cached);
    }
    let mut lines = Vec::new();
    for ((expires, _), (attrs, why)) in failed {
        let text = format!("in quarantine until {expires}: {} ({why})", listed(&s.names(&attrs), " ", width / 2));
        lines.extend(wrapped(&text, width, MESSAGE).into_iter().map(Line::from));
    }
    for (name, (attrs, _)) in passed.into_iter().filter(|(_, (_, all))| *all) {
        let names = listed(&s.names(&attrs), " ", width / 2);
        let verb = if attrs.len() == 1 { "passes" } else { "pass" };
        let text = format!("in quarantine: {names} {verb} and may be let out: remove [quarantine.{name}]");
        lines.extend(wrapped(&text, width, MESSAGE).into_iter().map(Line::from));
    }
    lines
}

/// Both verdicts, where `nix flake check` was asked too. That they differ is worth telling drover's authors.
#[must_use]
pub fn beside(s: &Summary, width: usize) -> Vec<Line> {
    let Some(of_nix) = &s.of_nix else { return Vec::new() };
    let ours = s.exit.unwrap_or(0) == 0;
    let said = |ok: bool| if ok { "ok" } else { "failed" };
    let text =
        format!("drover check: {} · nix flake check: {} in {}", said(ours), said(of_nix.ok), duration(of_nix.seconds));
    let mut lines: Vec<Line> = wrapped(&text, width, 2).into_iter().map(Line::from).collect();
    if ours != of_nix.ok {
        let error = of_nix.error.as_ref().map_or_else(String::new, |error| format!(" ({})", failure::headline(error)));
        let text = format!("the two differ{error}; unless a flag explains it, that is a bug worth reporting");
        lines.extend(warning(Paint::Warn, &text, width));
    }
    lines
}

/// How many attrs ended how: `58 attrs: 52 ok, 4 built, 2 warnings`; in brief, `58 attrs: 56 fine, 2 warnings`.
#[must_use]
pub fn counted(s: &Summary, brief: bool) -> String {
    let verdicts = verdicts(s);
    if verdicts.is_empty() {
        return "the flake has nothing to check".to_owned();
    }
    let n = |which: &dyn Fn(&Verdict) -> bool| verdicts.iter().filter(|verdict| which(verdict)).count();
    let is = |outcome: Outcome| n(&|verdict| verdict.outcome == outcome && verdict.quarantined.is_none());
    let free = |outcome: Outcome| n(&|verdict| verdict.outcome == outcome);
    let of_flake = s.findings.len() + s.eval_warnings.len();
    let warnings = free(Outcome::Finding) + of_flake + closing::warnings(s);
    let warned = (warnings, if warnings == 1 { "warning" } else { "warnings" });
    let bad = is(Outcome::Failed) + is(Outcome::Refused);
    let spared = n(&|verdict| verdict.outcome.is_bad() && verdict.quarantined.is_some());
    let short =
        vec![(bad, "failed"), (spared, "in quarantine"), (n(&|verdict| verdict.outcome.is_good()), "fine"), warned];
    let long = vec![
        (is(Outcome::Failed), "failed"),
        (is(Outcome::Refused), "refused"),
        (spared, "failed in quarantine"),
        (free(Outcome::Ok), "ok"),
        (free(Outcome::Built), "built"),
        (free(Outcome::Cached), "cached"),
        (free(Outcome::Unaffected), "unaffected"),
        (free(Outcome::Skipped), "skipped"),
        warned,
    ];
    let parts = if brief { short } else { long };
    let parts = parts.into_iter().filter(|(n, _)| *n > 0);
    let parts: Vec<String> = parts.map(|(n, word)| format!("{} {word}", count(n))).collect();
    format!("{}: {}", plural(verdicts.len(), "attr", "attrs"), parts.join(", "))
}

/// `first failure after 3.1s`, if there is one.
#[must_use]
pub fn first(s: &Summary) -> Option<String> {
    first_failure(s).map(|seconds| format!("first failure after {}", duration(seconds)))
}
