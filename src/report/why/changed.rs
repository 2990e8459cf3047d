//! The answer with a base: what makes each attr differ from it. Attrs with one cause stand together.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::event::{CauseKind, Difference, Text};
use crate::report::number::{plural, size};
use crate::report::text::{Line, Paint, listed, wrapped};

mod document;
mod groups;
#[cfg(test)]
mod tests;
mod words;

pub use document::{Document, document};
pub use words::said;

use super::textdiff;
use groups::groups;
use words::Told;

/// Causes that are shown with all that differs; the others in one line.
const WHOLE: usize = 12;

/// Differences of one cause that are shown.
const DIFFERENCES: usize = 6;

/// What is said in one line, in this order.
const OTHERS: [Difference; 5] =
    [Difference::Added, Difference::Removed, Difference::NewlyBroken, Difference::StillBroken, Difference::Fixed];

/// Lines over which one that is too long goes on.
const LINES: usize = 4;

/// Files of a source that are shown, and lines of each.
const FILES: usize = 6;
const FILE_LINES: usize = 12;

/// What was compared.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Answer {
    /// What people call the base: `main@a01b77e`.
    pub base: String,
    /// Paths that differ in the repository, if that is known.
    pub paths: Vec<String>,
    /// The attrs.
    pub attrs: Vec<Attr>,
    /// The causes.
    pub causes: Vec<Cause>,
    /// Absolute path and name of all derivations in which a cause is found, below whichever attr; by
    /// [`Reached::fold`].
    pub folds: BTreeMap<usize, Vec<(Text, Text)>>,
    /// Not everything was compared: there may be more derivations than are counted.
    pub cut: bool,
}

/// One attr.
#[derive(Debug, Clone, PartialEq)]
pub struct Attr {
    /// Its full path.
    pub attr: String,
    /// What people call it.
    pub name: String,
    /// How it differs.
    pub difference: Difference,
    /// Its drv differs, and its outputs do not.
    pub same_outputs: bool,
    /// It differs only because it embeds the revision or the source tree.
    pub revision_only: bool,
    /// Why, the nearest first.
    pub causes: Vec<Reached>,
    /// There are more.
    pub more: bool,
    /// Bytes of its closure on the base and now, where both are in the store.
    pub closure: Option<(u64, u64)>,
    /// Why it does not evaluate.
    pub error: Option<String>,
}

/// A cause, the way to it, and where else below the attr it is found.
#[derive(Debug, Clone, PartialEq)]
pub struct Reached {
    /// Place in [`Answer::causes`]: the nearest.
    pub cause: usize,
    /// Causes that say the same have the same number.
    pub fold: usize,
    /// Absolute path and name of the derivations in which it is found, the nearest first; not necessarily all.
    pub drvs: Vec<(Text, Text)>,
    /// How many those are.
    pub count: usize,
    /// Absolute path and name of each .drv of the head, from the attr's own down.
    pub chain: Vec<(Text, Text)>,
}

/// A derivation that differs by itself.
#[derive(Debug, Clone, PartialEq)]
pub struct Cause {
    /// What sort of thing matters most.
    pub kind: CauseKind,
    /// Its name.
    pub name: String,
    /// What the base has of it.
    pub from: Option<String>,
    /// What the head has of it.
    pub to: Option<String>,
    /// Absolute path of the .drv on the base.
    pub base_drv: Text,
    /// Absolute path of the .drv now.
    pub head_drv: Text,
    /// Whoever needs its outputs gets the same.
    pub same_outputs: bool,
    /// All that differs, what matters most first.
    pub details: Vec<Detail>,
}

/// One thing that differs.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[expect(missing_docs, reason = "the names are the documented contract")]
pub struct Detail {
    pub kind: CauseKind,
    pub name: String,
    pub base: Option<String>,
    pub head: Option<String>,
    /// Gone, once revision and source tree are masked.
    pub revision: bool,
    /// Of a source: what differs in it, as far as it is in the store.
    pub files: Vec<FileChange>,
}

/// A file of a source.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct FileChange {
    /// Below the source; empty if that is the file.
    pub path: String,
    /// The file in the repository, if there is one of this name and content.
    pub repository: Option<String>,
    /// Its text, if it is a small one.
    #[serde(skip)]
    pub base: Option<String>,
    /// The same.
    #[serde(skip)]
    pub head: Option<String>,
}

/// The screen. `one`: a single attr was asked about, and its chains are shown.
#[must_use]
pub fn screen(answer: &Answer, one: bool, width: usize) -> Vec<Line> {
    let mut lines = Vec::new();
    let attr = answer.attrs.first().filter(|_| one && answer.attrs.len() == 1);
    match attr {
        Some(attr) => lines.extend(one_attr(answer, attr, width)),
        None => lines.extend(all_attrs(answer, width)),
    }
    if !answer.paths.is_empty() && answer.attrs.iter().any(|attr| !attr.causes.is_empty()) {
        let label = Line::new().paint(Paint::Dim, "in the repository  ");
        let left = width.saturating_sub(label.width());
        lines.push(label.text(listed(&answer.paths, " ", left)));
    }
    lines
}

fn one_attr(answer: &Answer, attr: &Attr, width: usize) -> Vec<Line> {
    let name = Line::new().paint(Paint::Bold, &attr.name).text("  ");
    let mut lines = hanging(name, Paint::Plain, &verdict(attr, &answer.base), width);
    lines.extend(attr.error.iter().flat_map(|error| error.lines().take(6)).map(|line| Line::from(format!("  {line}"))));
    for (at, reached) in attr.causes.iter().enumerate() {
        let Some(cause) = answer.causes.get(reached.cause) else { continue };
        let drvs = reached.drvs.iter().collect();
        let told = Told { cause, drvs, count: reached.count, at_least: answer.cut };
        lines.extend(headline(hanging(Line::new().text("  "), Paint::Bold, &told.said(), width), &told, width));
        let names: Vec<&str> = reached.chain.iter().map(|(_, name)| &**name).collect();
        if names.len() > 1 {
            lines.push(Line::new().text("    ").paint(Paint::Dim, super::chain(&names)).fit(width));
        }
        if at < WHOLE {
            lines.extend(details(&told, 4, width));
        }
    }
    if attr.more {
        lines.push(Line::from("  and more causes that are not named here"));
    }
    lines.extend(closure(attr).map(|text| Line::from(format!("  closure  {text}"))));
    lines.extend(again(answer, &attr.name));
    lines
}

/// What was said, with the names of the derivations: in the same line if they fit.
fn headline(mut lines: Vec<Line>, told: &Told, width: usize) -> Vec<Line> {
    let Some(last) = lines.pop() else { return lines };
    let beside = told.names(usize::MAX).map(|names| Line::new().text("   ").then(names));
    match beside {
        Some(names) if last.width() + names.width() > width => {
            lines.push(last);
            lines.extend(told.names(width.saturating_sub(4)).map(|names| Line::new().pad(4).then(names)));
        }
        names => lines.push(names.into_iter().fold(last, Line::then)),
    }
    lines
}

/// A text that goes on below itself where it is too long.
fn hanging(first: Line, paint: Paint, text: &str, width: usize) -> Vec<Line> {
    let indent = first.width();
    let mut lines = Vec::new();
    for part in wrapped(text, width.saturating_sub(indent), LINES) {
        let start = if lines.is_empty() { first.clone() } else { Line::new().pad(indent) };
        lines.push(start.paint(paint, part));
    }
    lines
}

/// What to type where derivations of the base are gone.
fn again(answer: &Answer, name: &str) -> Option<Line> {
    let gone = answer.causes.iter().any(|cause| cause.kind == CauseKind::Unreadable);
    let base = answer.base.rsplit('@').next().unwrap_or(&answer.base);
    let command = ["drover", "why", name, "--base", base].map(str::to_owned);
    let words: Vec<String> = command.into_iter().filter(|word| !word.is_empty()).collect();
    gone.then(|| {
        Line::new().paint(Paint::Dim, "  next").pad(8).text(format!("{}    evaluates it again", words.join(" ")))
    })
}

fn all_attrs(answer: &Answer, width: usize) -> Vec<Line> {
    let changed = answer.attrs.iter().filter(|attr| attr.difference == Difference::Changed);
    let (rev, changed): (Vec<&Attr>, Vec<&Attr>) = changed.partition(|attr| attr.revision_only);
    let mut lines = Vec::new();
    let groups = groups(answer, &changed);
    let names: Vec<String> = groups.iter().map(|group| joined(&group.attrs, width / 2)).collect();
    let others: Vec<Vec<&Attr>> = OTHERS
        .into_iter()
        .map(|difference| answer.attrs.iter().filter(|attr| attr.difference == difference).collect())
        .filter(|attrs: &Vec<&Attr>| !attrs.is_empty())
        .collect();
    let rest = others.iter().chain([&rev]).map(|attrs| joined(attrs, width / 2));
    let column = names.iter().cloned().chain(rest).map(|names| names.chars().count()).max().unwrap_or(0) + 2;
    let mut before: Vec<&str> = Vec::new();
    for (at, (group, names)) in groups.iter().zip(&names).enumerate() {
        let of: Vec<&str> = group.attrs.iter().map(|attr| attr.attr.as_str()).collect();
        // Attrs with the same causes are one group, and stand there once.
        let names = if before == of { "" } else { names.as_str() };
        before = of;
        let told = Told { cause: group.cause, drvs: group.drvs.clone(), count: group.drvs.len(), at_least: answer.cut };
        let name = Line::new().paint(Paint::Bold, names);
        let line = name.clone().pad(column).text(told.said());
        let mut head = vec![line];
        if head.iter().any(|line| line.width() > width) {
            head = hanging(Line::new().text("  "), Paint::Plain, &told.said(), width);
            if !names.is_empty() {
                head.insert(0, name);
            }
        }
        let sizes: Vec<String> = group.attrs.iter().filter_map(|attr| closure(attr)).collect();
        let same = sizes.len() == group.attrs.len() && sizes.iter().all(|size| Some(size) == sizes.first());
        let size = sizes.first().filter(|_| same).map(|size| Line::new().text("    ").paint(Paint::Dim, size));
        if let Some(size) = size
            && let Some(last) = head.pop()
        {
            head.push(last.then_if_fits(size, width));
        }
        lines.extend(headline(head, &told, width));
        if at < WHOLE {
            lines.extend(details(&told, 4, width));
        }
    }
    if !rev.is_empty() {
        let text =
            format!("{} only in the revision that they embed", if rev.len() == 1 { "differs" } else { "differ" });
        let name = Line::new().paint(Paint::Bold, joined(&rev, width / 2)).pad(column);
        lines.extend(hanging(name, Paint::Plain, &text, width));
    }
    for attrs in &others {
        if let Some(first) = attrs.first() {
            let line = Line::new().paint(Paint::Bold, joined(attrs, width / 2)).pad(column);
            lines.extend(hanging(line, Paint::Plain, &verdict(first, &answer.base), width));
        }
    }
    lines.extend(again(answer, ""));
    if lines.is_empty() {
        lines.push(Line::from(format!("nothing differs from {}", answer.base)));
    }
    lines
}

fn joined(attrs: &[&Attr], width: usize) -> String {
    let names: Vec<&str> = attrs.iter().map(|attr| attr.name.as_str()).collect();
    listed(&names, " ", width.max(20))
}

/// How an attr differs, in a few words.
fn verdict(attr: &Attr, base: &str) -> String {
    match attr.difference {
        Difference::Added => format!("is new: {base} does not have it"),
        Difference::Removed => format!("is gone: only {base} has it"),
        Difference::Unchanged => format!("is as on {base}"),
        Difference::NewlyBroken => format!("does not evaluate any more; on {base} it does"),
        Difference::StillBroken => format!("does not evaluate, as on {base}"),
        Difference::Fixed => format!("evaluates again; on {base} it does not"),
        Difference::Changed if attr.revision_only => {
            format!("differs from {base} only in the revision that it embeds")
        }
        Difference::Changed if attr.same_outputs => {
            format!("differs from {base}, and gives the same outputs: nothing has to be built")
        }
        Difference::Changed => format!("differs from {base}"),
    }
}

/// `+1.2 MiB`.
fn closure(attr: &Attr) -> Option<String> {
    let (base, head) = attr.closure?;
    Some(match head.cmp(&base) {
        std::cmp::Ordering::Equal => "+0".to_owned(),
        std::cmp::Ordering::Greater => format!("+{}", size(head - base)),
        std::cmp::Ordering::Less => format!("−{}", size(base - head)),
    })
}

/// All that differs, line by line.
fn details(told: &Told, indent: usize, width: usize) -> Vec<Line> {
    let (cause, mut lines) = (told.cause, Vec::new());
    if told.inline().is_some() {
        return lines;
    }
    let shown: Vec<&Detail> = cause.details.iter().filter(|detail| !is_said(cause, detail)).collect();
    if cause.kind == CauseKind::Revision {
        let names: Vec<&str> = shown.iter().map(|detail| detail.name.as_str()).collect();
        return hanging(Line::new().pad(indent), Paint::Dim, &format!("in {}", names.join(", ")), width);
    }
    for detail in shown.iter().take(DIFFERENCES) {
        for (at, text) in texts(detail).into_iter().enumerate() {
            let paint = match text.chars().next() {
                Some('−') => Paint::Bad,
                Some('+') => Paint::Good,
                _ => Paint::Plain,
            };
            let label = if at == 0 { label(cause, detail) } else { String::new() };
            let line = Line::new().pad(indent).paint(Paint::Dim, label);
            let line = if line.width() > indent { line.text("  ") } else { line };
            lines.extend(hanging(line, paint, &text, width));
        }
    }
    if shown.len() > DIFFERENCES {
        lines.push(Line::new().pad(indent).text(format!("and {} more", shown.len() - DIFFERENCES)));
    }
    lines
}

/// What stands before a difference: nothing where the line above has named it.
fn label(cause: &Cause, detail: &Detail) -> String {
    let shown = cause.details.iter().filter(|other| !is_said(cause, other)).count();
    let named = matches!(detail.kind, CauseKind::Args | CauseKind::Builder | CauseKind::System);
    let is_named = cause.kind == detail.kind && (cause.name == detail.name || named);
    if is_named && (shown <= 1 || named) { String::new() } else { detail.name.clone() }
}

/// Whether the line above says it all.
fn is_said(cause: &Cause, detail: &Detail) -> bool {
    let whole = matches!(
        detail.kind,
        CauseKind::Dependency | CauseKind::AddedInput | CauseKind::RemovedInput | CauseKind::Unreadable
    );
    (whole && detail.kind == cause.kind && detail.name == cause.name)
        || (cause.kind == CauseKind::Patch && detail.kind == CauseKind::Variable && detail.name == "patches")
        || (detail.revision && cause.kind != CauseKind::Revision)
}

fn texts(detail: &Detail) -> Vec<String> {
    if matches!(detail.kind, CauseKind::Source | CauseKind::Patch) {
        return files(&detail.files);
    }
    textdiff::lines(detail.base.as_deref(), detail.head.as_deref())
}

fn files(files: &[FileChange]) -> Vec<String> {
    let mut lines = Vec::new();
    for file in files.iter().take(FILES) {
        let name = file.repository.as_deref().unwrap_or(&file.path);
        let (base, head) = (file.base.as_deref(), file.head.as_deref());
        if !name.is_empty() {
            lines.push(name.to_owned());
        }
        if base.is_some() || head.is_some() {
            let (changed, more) = textdiff::unified(base.unwrap_or_default(), head.unwrap_or_default(), FILE_LINES);
            lines.extend(changed);
            if more > 0 {
                lines.push(format!("… {}", plural(more, "more line", "more lines")));
            }
        }
    }
    if files.len() > FILES {
        lines.push(format!("and {}", plural(files.len() - FILES, "more file", "more files")));
    }
    lines
}
