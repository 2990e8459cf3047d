//! The page in Markdown that a step of GitHub, Forgejo or Gitea leaves, and that a comment on a proposed change may hold:
//! what became of all attrs and which of them differ from the base, each cause of failure in a row, and the ends of the
//! logs.
//!
//! GitHub shows nothing at all of a page over 1 MiB, so what does not fit is left out, the least important first.

use std::collections::BTreeMap;
use std::path::Path;

use crate::event::{Difference, Status, Text};
use crate::id::{AttrId, Kind};

use super::affected;
use super::annotations::{self, Annotation, Level};
use super::check;
use super::closing;
use super::failure;
use super::number::{count, duration, plural, size};
use super::summary::{Cause, Compared, Summary};

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

/// The page, of so many bytes at most; empty where not even its heading has room. `root` is the root of the repository at
/// hand, `usual` how many seconds such a run takes, if there were some.
#[must_use]
pub fn page(summary: &Summary, root: Option<&Path>, usual: Option<f64>, room: usize) -> String {
    let mut page = heading(summary, usual);
    if page.len() + RESERVE > room {
        return String::new();
    }
    let rows: Vec<String> = annotations::of(summary, root).iter().map(row).collect();
    let logs = logs(summary);
    let head = "\n| | what | why | where |\n|---|---|---|---|\n".to_owned();
    let head = (!rows.is_empty()).then_some(head);
    let all: Vec<String> = changes(summary)
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
fn changes(summary: &Summary) -> Option<String> {
    summary.base.as_ref()?;
    let mut groups: BTreeMap<(Kind, String), Vec<AttrId>> = BTreeMap::new();
    for id in affected::affected(summary) {
        let Some(attr) = summary.attrs.get(&id) else { continue };
        if let Some(compared) = &attr.compared {
            groups.entry((attr.kind, how(compared))).or_default().push(id);
        }
    }
    let sized = groups.values().flatten().any(|id| summary.attrs.get(id).is_some_and(|attr| attr.closure.is_some()));
    let row = |((kind, how), ids): (&(Kind, String), &Vec<AttrId>)| {
        let mut names: Vec<String> = ids.iter().take(NAMED).map(|id| escaped(&summary.attr_name(*id))).collect();
        names.extend((ids.len() > NAMED).then(|| format!("and {} more", count(ids.len() - NAMED))));
        let bytes =
            ids.iter().filter_map(|id| summary.attrs.get(id)?.closure).fold(0_u64, |sum, (_, b)| sum.saturating_add(b));
        let closure = if bytes > 0 { size(bytes) } else { String::new() };
        let closure = if sized { format!(" {closure} |") } else { String::new() };
        format!("| {} {} | {} | {how} |{closure}\n", count(ids.len()), kind.noun(ids.len()), names.join(" "))
    };
    let rows: String = groups.iter().map(row).collect();
    let (title, line) = if sized { (" closures |", "---|") } else { ("", "") };
    (!rows.is_empty()).then(|| format!("\n| | | how |{title}\n|---|---|---|{line}\n{rows}"))
}

/// How an attr differs.
fn how(compared: &Compared) -> String {
    let word = match compared.difference {
        Difference::Added => "new",
        Difference::Fixed => "fixed: it did not evaluate",
        Difference::NewlyBroken => "newly broken",
        _ if compared.same_outputs => "changed, with the same outputs",
        _ if compared.revision_only => "changed, by its revision only",
        _ => "changed",
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
