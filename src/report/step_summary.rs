//! The page in Markdown that a step of GitHub, Forgejo or Gitea leaves, and that a comment on a proposed change may hold:
//! what became of all attrs and which of them differ from the base, each cause of failure in a row, and the ends of the
//! logs.
//!
//! GitHub shows nothing at all of a page over 1 MiB, so what does not fit is left out, the least important first.

use std::collections::BTreeMap;
use std::path::Path;

use crate::event::{Difference, Status, Text};
use crate::id::Kind;
use crate::record::history::Entry;

use super::affected;
use super::annotations::{self, Annotation, Level};
use super::check;
use super::closing;
use super::failure;
use super::number::{count, duration, plural, size};
use super::summary::{Attr, Cause, Compared, Summary};

/// Bytes that a page may have, with what was there before.
pub const MOST: usize = 1 << 20;

/// Bytes that a comment may have: GitHub takes 65,536 characters.
pub const COMMENT: usize = 65_000;

/// Attrs that are named in a row.
const NAMED: usize = 20;

/// Bytes that are kept free for the line that says what is left out.
const RESERVE: usize = 300;

/// Lines of what is said in a row.
const LINES: usize = 4;

/// Characters of one of them.
const LINE: usize = 300;

/// What is known of runs before.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Before {
    /// How many seconds such a run takes, if there were some.
    pub usual: Option<f64>,
    /// A run of the base, with its attrs.
    pub base: Option<Entry>,
}

/// The page, of so many bytes at most; empty where not even its heading has room. `root` is the root of the repository at
/// hand.
#[must_use]
pub fn page(summary: &Summary, root: Option<&Path>, before: &Before, room: usize) -> String {
    let mut page = heading(summary, before.usual);
    if page.len() + RESERVE > room {
        return String::new();
    }
    let rows: Vec<String> = annotations::of(summary, root).iter().map(row).collect();
    let logs = logs(summary);
    let head = "\n| | what | why | where |\n|---|---|---|---|\n".to_owned();
    let head = (!rows.is_empty()).then_some(head);
    let all: Vec<String> = changes(summary, before.base.as_ref())
        .into_iter()
        .chain(head)
        .chain(rows)
        .chain(logs)
        .chain(base(summary))
        .chain(counts(summary))
        .collect();
    for (n, block) in all.iter().enumerate() {
        if page.len() + block.len() + RESERVE > room {
            let run = summary.header.as_ref().map_or_else(|| "last".to_owned(), |header| header.run.to_string());
            let left = plural(all.len() - n, "part of this page is", "parts of this page are");
            page.push_str(&format!("\n{left} left out: there is no room for more. All of it: `drover report {run}`\n"));
            break;
        }
        page.push_str(block);
    }
    page
}

/// `### drover check: 40 hosts: 9 built, 31 cached ✓ 7m12s`.
fn heading(summary: &Summary, usual: Option<f64>) -> String {
    let command = summary.header.as_ref().map_or("run", |header| &header.command);
    let stopped = if summary.cancelled.is_some() { "stopped, " } else { "" };
    let what = format!("{stopped}{}", changed(summary).unwrap_or_else(|| what_was(summary)));
    let usual = usual.map(|usual| format!(" (usually {})", duration(usual))).unwrap_or_default();
    let mark = match summary.exit {
        Some(0) => " ✓",
        Some(_) => " ✗",
        None => "",
    };
    format!("### drover {command}: {}{mark} {}{usual}\n", escaped(&what), duration(summary.seconds()))
}

/// `9 of 40 hosts change, all built`, of a run that is compared with a base and in which nothing went wrong.
fn changed(summary: &Summary) -> Option<String> {
    summary.base.as_ref().filter(|_| summary.exit == Some(0) && !check::is_check(summary))?;
    let (all, affected) = (summary.taken(), affected::affected(summary));
    let names = match (failure::kinds(summary, &all), affected.len()) {
        (_, 0) => return None,
        (kinds, n) if kinds.contains(',') => format!("{} of {}", count(n), plural(all.len(), "attr", "attrs")),
        (kinds, n) => format!("{} of {kinds}", count(n)),
    };
    let verb = if affected.len() == 1 { "changes" } else { "change" };
    let planned = summary.header.as_ref().is_some_and(super::summary::Header::is_plan);
    Some(format!("{names} {verb}{}", if planned { "" } else { ", all built" }))
}

/// Which attrs differ from the base, those that do so in the same way in a row.
fn changes(summary: &Summary, base: Option<&Entry>) -> Option<String> {
    summary.base.as_ref()?;
    let mut groups: BTreeMap<(Kind, String), Vec<&Attr>> = BTreeMap::new();
    for id in affected::affected(summary) {
        let Some(attr) = summary.attrs.get(&id) else { continue };
        if let Some(compared) = &attr.compared {
            groups.entry((attr.kind, why(compared))).or_default().push(attr);
        }
    }
    let sized = groups.values().flatten().any(|attr| attr.closure.is_some());
    let row = |((kind, why), attrs): (&(Kind, String), &Vec<&Attr>)| {
        let mut names: Vec<String> = attrs.iter().take(NAMED).map(|attr| escaped(&attr.name)).collect();
        names.extend((attrs.len() > NAMED).then(|| format!("and {} more", count(attrs.len() - NAMED))));
        let closure = if sized { format!(" {} |", closures(attrs, base)) } else { String::new() };
        format!("| {} {} | {} | {why} |{closure}\n", count(attrs.len()), kind.noun(attrs.len()), names.join(" "))
    };
    let rows: String = groups.iter().map(row).collect();
    let (title, line) = if sized { (" closure |", "---|") } else { ("", "") };
    (!rows.is_empty()).then(|| format!("\n| | | why |{title}\n|---|---|---|{line}\n{rows}"))
}

/// By how much the closures of attrs differ from those on the base, `+1.2 MiB`, from the least to the most; where that is
/// not known, how big they are together.
fn closures(attrs: &[&Attr], base: Option<&Entry>) -> String {
    let known = |attr: &&Attr| -> Option<i64> {
        let then = base?.attrs.iter().find(|then| then.attr == attr.path)?.closure?;
        let (_, now) = attr.closure?;
        Some(i64::try_from(now).ok()?.saturating_sub(i64::try_from(then).ok()?))
    };
    let mut differences: Vec<i64> = attrs.iter().filter_map(known).collect();
    differences.sort_unstable();
    let told = |difference: i64| match (difference, size(difference.unsigned_abs())) {
        (0, _) => "+0".to_owned(),
        (1.., size) => format!("+{size}"),
        (_, size) => format!("−{size}"),
    };
    match differences.as_slice() {
        [] => {
            let bytes = attrs.iter().filter_map(|attr| attr.closure).fold(0_u64, |sum, (_, b)| sum.saturating_add(b));
            if bytes > 0 { size(bytes) } else { String::new() }
        }
        [first, .., last] if told(*first) != told(*last) => format!("{} to {}", told(*first), told(*last)),
        [first, ..] => told(*first),
    }
}

/// How an attr differs, and why where that is known.
fn why(compared: &Compared) -> String {
    let word = match compared.difference {
        Difference::Added => "new",
        Difference::Fixed => "fixed: it did not evaluate",
        Difference::NewlyBroken => "newly broken",
        _ if compared.same_outputs => "changed, with the same outputs",
        _ if compared.revision_only => "changed, by its revision only",
        _ => return compared.why.as_deref().map_or_else(|| "changed".to_owned(), escaped),
    };
    word.to_owned()
}

/// `40 hosts: 9 built, 31 cached`, of any command.
pub(super) fn what_was(summary: &Summary) -> String {
    match summary.error {
        Some(_) => "stopped".to_owned(),
        None if check::is_check(summary) => check::screen::counted(summary, false),
        None if closing::is_push(summary) => closing::what_was_pushed(summary),
        None => closing::what_was(summary, failure::kinds),
    }
}

/// `| ✗ | web1 web2: nginx-1.29.4 failed | builder exited with code 2 | hosts/web.nix:12 |`.
fn row(annotation: &Annotation) -> String {
    let mark = match annotation.level {
        Level::Error => "✗",
        Level::Warning => "!",
    };
    let place = annotation.place.as_ref().map(|place| {
        let line = place.line.map(|line| format!(":{line}")).unwrap_or_default();
        escaped(&format!("{}{line}", place.file))
    });
    let lines = annotation.message.lines().map(str::trim).filter(|line| !line.is_empty()).take(LINES);
    let said: Vec<String> = lines.map(|line| escaped(&line.chars().take(LINE).collect::<String>())).collect();
    let title = escaped(&annotation.title);
    format!("| {mark} | {title} | {} | {} |\n", said.join("<br>"), place.unwrap_or_default())
}

/// The end of the log of each drv that failed, folded.
fn logs(summary: &Summary) -> Vec<String> {
    let drvs = summary.failures().into_iter().filter_map(|group| match group.cause {
        Cause::Drv(drv) => Some(drv),
        _ => None,
    });
    let log = |drv| {
        let attempt = summary.last_attempt(drv).filter(|attempt| !attempt.log_tail.is_empty())?;
        let name = escaped(&summary.drv_name(drv));
        Some(format!(
            "\n<details><summary>the end of the log of {name}</summary>\n\n{}\n</details>\n",
            fenced(&attempt.log_tail)
        ))
    };
    drvs.filter_map(log).collect()
}

/// How many are as on the base.
fn base(summary: &Summary) -> Option<String> {
    let base = affected::bare(summary.base.as_ref()?);
    let counted = affected::counted(summary)?;
    Some(format!("\nagainst {}: {}\n", escaped(base), escaped(&counted)))
}

/// `212 drvs built, 29,480 paths cached`.
fn counts(summary: &Summary) -> Option<String> {
    let hosts = summary.kinds(|_| true).into_iter().find(|(kind, _)| *kind == Kind::NixosConfigurations);
    let hosts = hosts.map(|(kind, n)| format!("{} {}", count(n), kind.noun(n)));
    let built = (summary.counts.built > 0).then(|| format!("{} built", plural(summary.counts.built, "drv", "drvs")));
    let cached = summary.diff.map(|diff| diff.present as usize).filter(|n| *n > 0);
    let cached = cached.map(|n| format!("{} cached", plural(n, "path", "paths")));
    let said: Vec<String> = hosts.into_iter().chain(built).chain(cached).collect();
    (!said.is_empty()).then(|| format!("\n{}\n", said.join(" · ")))
}

/// Foreign text that means itself, also in a table: what means something in Markdown or HTML is written as a number.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            c if c.is_control() => out.push(' '),
            '&' | '<' | '>' | '|' | '\\' | '`' | '*' | '_' | '[' | ']' | '~' | '#' | '@' | '!' | '$' => {
                out.push_str(&format!("&#{};", u32::from(c)));
            }
            c => out.push(c),
        }
    }
    out
}

/// Lines as they are, between fences that none of them can close.
fn fenced(lines: &[Text]) -> String {
    let longest = lines.iter().flat_map(|line| line.split(|c| c != '`')).map(str::len).max().unwrap_or(0);
    let fence = "`".repeat(longest.max(2) + 1);
    let lines: String = lines.iter().map(|line| format!("{line}\n")).collect();
    format!("{fence}text\n{lines}{fence}\n")
}

/// What later steps of a job may ask for (`steps.ID.outputs.failed`), as lines of the file that the runner reads.
#[must_use]
pub fn outputs(summary: &Summary) -> String {
    let (mut built, mut failed) = (0, 0);
    for status in summary.attrs.values().filter_map(|attr| summary.status(attr)) {
        match status {
            Status::Built => built += 1,
            Status::Failed | Status::EvalFailed => failed += 1,
            _ => {}
        }
    }
    let run = summary.header.as_ref().map(|header| header.run.to_string()).unwrap_or_default();
    let exit = summary.exit.map(|exit| exit.to_string()).unwrap_or_default();
    format!("run={run}\nexit={exit}\nbuilt={built}\nfailed={failed}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn foreign_text_is_no_markdown() {
        assert_eq!(escaped("a|b <img> `x` [y](z) é\n"), "a&#124;b &#60;img&#62; &#96;x&#96; &#91;y&#93;(z) é ");
        let lines = ["```".into(), "</details>````".into()];
        assert_eq!(fenced(&lines), "`````text\n```\n</details>````\n`````\n");
        assert_eq!(fenced(&["x".into()]), "```text\nx\n```\n");
    }
}
