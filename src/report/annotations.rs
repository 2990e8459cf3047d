//! What is wrong, as annotations that GitHub, Forgejo and Gitea show beside the code: one a cause, the worst first.
//!
//! Commands of a workflow are lines `::error file=…,line=…,col=…,title=…::message`. Of each kind a step may have ten; a
//! runner drops what comes after them.

use std::path::Path;

use crate::error::Error;
use crate::event::{DrvOutcome, Failure, Text};
use crate::id::{AttrId, CacheId, DrvId};

use super::failure;
use super::harmless;
use super::number::{count, plural};
use super::place::{self, Place};
use super::pushed;
use super::summary::{Attempt, Attr, Cache, Cause, FailureGroup, Finding, Summary};
use super::text::listed;

/// Annotations of each kind that a step may have.
const MOST: usize = 10;

/// Characters of a title that are shown.
const TITLE: usize = 120;

/// Lines of a message.
const LINES: usize = 12;

/// Characters of one of its lines.
const LINE: usize = 400;

/// How bad it is. The order is that of the commands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// The run fails for it.
    Error,
    /// It does not.
    Warning,
}

/// One remark.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Annotation {
    /// How bad it is.
    pub level: Level,
    /// Where it is, if it is in the repository.
    pub place: Option<Place>,
    /// A few words.
    pub title: String,
    /// One or more lines.
    pub message: String,
}

/// All that is wrong, the worst first. `root` is the root of the repository at hand.
#[must_use]
pub fn of(summary: &Summary, root: Option<&Path>) -> Vec<Annotation> {
    let placed = |position: &Option<Text>| {
        let flake = summary.flake.as_ref()?;
        place::of(position.as_ref()?, &flake.original, root)
    };
    let mut groups = summary.failures();
    groups.sort_by_key(|group| is_old(summary, &group.attrs));
    let mut all: Vec<Annotation> = fatal(summary).into_iter().collect();
    all.extend(groups.iter().map(|group| {
        let (title, message, position) = said(summary, group);
        Annotation { level: level(summary, &group.attrs), place: placed(&position), title, message }
    }));
    all.extend(summary.findings.iter().map(|finding| Annotation {
        level: if finding.fails { Level::Error } else { Level::Warning },
        place: placed(&finding.position),
        title: finding.about.to_string(),
        message: with_hint(finding),
    }));
    all.extend(not_pushed(summary));
    let found = summary.attrs.values().filter_map(|attr| Some((attr, attr.finding()?)));
    all.extend(found.map(|(attr, failure)| Annotation {
        level: Level::Warning,
        place: placed(&failure.position),
        title: attr.name.to_string(),
        message: failure.message.to_string(),
    }));
    let warned = summary.attrs.values().flat_map(|attr| attr.warnings.iter().map(move |warning| (attr, warning)));
    all.extend(warned.map(|(attr, warning)| Annotation {
        level: Level::Warning,
        place: None,
        title: attr.name.to_string(),
        message: warning.to_string(),
    }));
    all.sort_by_key(|annotation| annotation.level);
    all
}

/// Of an error that came before there was a run.
#[must_use]
pub fn of_error(error: &Error) -> Annotation {
    let hint = error.hint.as_ref().map(|hint| format!("\n{hint}")).unwrap_or_default();
    let message = format!("{}{hint}", error.message);
    Annotation { level: Level::Error, place: None, title: "drover".to_owned(), message }
}

/// What ended the run as a whole.
fn fatal(summary: &Summary) -> Option<Annotation> {
    let error = summary.error.as_ref()?;
    let command = summary.header.as_ref().map_or("run", |header| &header.command);
    let hint = error.hint.as_ref().map(|hint| format!("\n{hint}")).unwrap_or_default();
    Some(Annotation {
        level: Level::Error,
        place: None,
        title: format!("drover {command}"),
        message: format!("{}{hint}", error.message),
    })
}

/// What is not in a cache where it should be, a remark a cache.
#[must_use]
pub fn not_pushed(summary: &Summary) -> Vec<Annotation> {
    let caches = summary.caches.iter().filter(|(_, cache)| cache.push && summary.exit.is_some());
    let of = |(id, cache): (&CacheId, &Cache)| {
        let totals = pushed::totals(summary, *id);
        let missing = Some(totals.missing.len()).filter(|missing| *missing > 0)?;
        let why = pushed::reason(&totals).map_or_else(String::new, |why| format!(": {}", failure::cause(why)));
        let of = plural(totals.queued, "path", "paths");
        Some(Annotation {
            level: if cache.optional { Level::Warning } else { Level::Error },
            place: None,
            title: format!("push to {}", cache.name),
            message: format!("{} of {of} are not there{why}", count(missing)),
        })
    };
    caches.filter_map(of).collect()
}

fn with_hint(finding: &Finding) -> String {
    let hint = finding.hint.as_ref().map(|hint| format!("\n{hint}")).unwrap_or_default();
    format!("{}{hint}", finding.message)
}

/// Whether all of these were broken on the base, too.
fn is_old(summary: &Summary, attrs: &[AttrId]) -> bool {
    let old = |attr: &AttrId| summary.attrs.get(attr).and_then(Attr::was_broken) == Some(true);
    !attrs.is_empty() && attrs.iter().all(old)
}

/// What fails without failing the run is a warning.
fn level(summary: &Summary, attrs: &[AttrId]) -> Level {
    let quarantined = |attr: &AttrId| summary.attrs.get(attr).is_some_and(|attr| attr.quarantined.is_some());
    let excused = !attrs.is_empty() && attrs.iter().all(quarantined);
    if excused || summary.exit == Some(0) { Level::Warning } else { Level::Error }
}

/// Title, message and position of a failure.
fn said(summary: &Summary, group: &FailureGroup) -> (String, String, Option<Text>) {
    let names = listed(&summary.names(&group.attrs), " ", TITLE / 2);
    let title = |what: &str| if names.is_empty() { what.to_owned() } else { format!("{names}: {what}") };
    match &group.cause {
        Cause::Eval(failure) => {
            (title(failure::word(failure.class)), failure.message.to_string(), failure.position.clone())
        }
        Cause::Drv(drv) => {
            let failure = failure_of(summary, *drv);
            let name = summary.drv_name(*drv);
            let what = format!("{name} failed");
            (
                if names == name { what } else { title(&what) },
                of_drv(summary, *drv, failure),
                failure
                    .and_then(|failure| failure.position.as_ref())
                    .or_else(|| summary.position_of(*drv, &group.attrs))
                    .cloned(),
            )
        }
        Cause::NoBuilder(drvs) => {
            let what = drvs.first().and_then(|drv| summary.no_builder_for(*drv)).unwrap_or_default();
            let position = drvs.first().and_then(|drv| summary.position_of(*drv, &group.attrs)).cloned();
            (title(&what), format!("{what}; drover doctor says which builders there are"), position)
        }
        Cause::Other(reason) => (title("failed"), reason.to_string(), None),
    }
}

/// What a drv died of: as its last attempt said, else as its final word does.
fn failure_of(summary: &Summary, drv: DrvId) -> Option<&Failure> {
    let attempt = summary.last_attempt(drv).and_then(Attempt::failure);
    attempt.or_else(|| match summary.drvs.get(&drv)?.ended.as_ref()? {
        (_, DrvOutcome::Failed(failure)) => Some(failure),
        _ => None,
    })
}

/// The cause, the line of the log that tells most, and where the rest is.
fn of_drv(summary: &Summary, drv: DrvId, failure: Option<&Failure>) -> String {
    let attempt = summary.last_attempt(drv);
    let telling = attempt.and_then(|attempt| failure::telling_line(&attempt.log_tail)).map(ToString::to_string);
    let log = attempt.filter(|attempt| attempt.log_lines > 0);
    let log = log.map(|_| format!("drover log {}", summary.log_name(drv)));
    failure.map(failure::cause).into_iter().chain(telling).chain(log).collect::<Vec<_>>().join("\n")
}

/// The commands for these annotations, each a line. What is over the limit is counted in a last one.
#[must_use]
pub fn commands(annotations: &[Annotation]) -> String {
    let mut out = String::new();
    let mut left = Vec::new();
    for (level, word) in [(Level::Error, "failure"), (Level::Warning, "warning")] {
        let all: Vec<&Annotation> = annotations.iter().filter(|annotation| annotation.level == level).collect();
        all.iter().take(MOST).for_each(|annotation| out.push_str(&command(annotation)));
        match all.len().saturating_sub(MOST) {
            0 => {}
            1 => left.push(format!("1 more {word}")),
            n => left.push(format!("{} more {word}s", count(n))),
        }
    }
    if !left.is_empty() {
        let message = format!("{}: the log has all of them", left.join(" and "));
        out.push_str(&format!("::notice title=drover::{}\n", data(&message)));
    }
    out
}

/// `::error file=flake.nix,line=3,col=9,title=web1::message`.
fn command(annotation: &Annotation) -> String {
    let level = match annotation.level {
        Level::Error => "error",
        Level::Warning => "warning",
    };
    let mut properties = Vec::new();
    if let Some(place) = &annotation.place {
        properties.push(format!("file={}", property(&place.file)));
        properties.extend(place.line.map(|line| format!("line={line}")));
        properties.extend(place.column.map(|column| format!("col={column}")));
    }
    properties.push(format!("title={}", property(&cut(&annotation.title, TITLE))));
    // A runner shows the message as lines of the log, and some of them read those again.
    let lines: Vec<String> = annotation.message.lines().take(LINES).map(|line| cut(line, LINE)).collect();
    format!("::{level} {}::{}\n", properties.join(","), data(&lines.join("\n")))
}

/// As many characters, without those that only a terminal understands and without commands.
fn cut(text: &str, most: usize) -> String {
    let visible: String = text.chars().filter(|c| !c.is_control()).collect();
    let safe = harmless::harmless(visible.trim_end());
    match safe.char_indices().nth(most) {
        Some((at, _)) => format!("{}…", &safe[..at]),
        None => safe.into_owned(),
    }
}

/// The value of a property, escaped as the runners' own toolkit does it.
fn property(text: &str) -> String {
    data(text).replace(':', "%3A").replace(',', "%2C")
}

/// The message of a command, escaped likewise.
fn data(text: &str) -> String {
    text.replace('%', "%25").replace('\r', "%0D").replace('\n', "%0A")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn annotation(level: Level, title: &str, message: &str) -> Annotation {
        Annotation { level, place: None, title: title.to_owned(), message: message.to_owned() }
    }

    #[test]
    fn a_command_is_one_line_whatever_is_said() {
        let place = Place { file: "a,b:c%.nix".into(), line: Some(12), column: Some(9) };
        let message = "100%\r\n::error::no\n\u{1b}[31mred ##[group]x";
        let annotation = Annotation { place: Some(place), ..annotation(Level::Error, "web1, web2: x", message) };
        assert_eq!(
            command(&annotation),
            "::error file=a%2Cb%3Ac%25.nix,line=12,col=9,title=web1%2C web2%3A x::100%25%0A: :error::no%0A[31mred # \
             #[group]x\n"
        );
    }

    #[test]
    fn at_most_ten_of_a_kind() {
        let all: Vec<Annotation> = (0..13)
            .map(|n| annotation(Level::Error, &format!("web{n}"), "no"))
            .chain([annotation(Level::Warning, "db1", "hm")])
            .collect();
        let commands = commands(&all);
        let of = |kind: &str| commands.lines().filter(|line| line.starts_with(kind)).count();
        assert_eq!((of("::error "), of("::warning "), of("::notice ")), (10, 1, 1));
        assert!(commands.ends_with("::notice title=drover::3 more failures: the log has all of them\n"), "{commands}");
        assert!(commands.starts_with("::error title=web0::no\n"), "{commands}");
    }
}
