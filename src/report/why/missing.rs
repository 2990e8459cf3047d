//! The answer without a base: for an attr and for the first drvs that have to be built for it, why no cache has them.

use serde::Serialize;

use crate::event::{Status, Text};
use crate::report::missing::{Evidence, Reason, Said, reason};
use crate::report::number::{plural, size};
use crate::report::text::{Line, Paint};

/// One attr.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    /// Its full path.
    pub attr: String,
    /// What people call it.
    pub name: String,
    /// What has to be done for it.
    pub status: Option<Status>,
    /// Its own derivation.
    pub own: Looked,
    /// The first drvs that have to be built for it.
    pub first: Vec<Looked>,
    /// How many more of these there are.
    pub more: usize,
    /// Drvs that have to be built, its own included.
    pub builds: usize,
}

/// A drv that was looked at.
#[derive(Debug, Clone, PartialEq)]
pub struct Looked {
    /// Absolute path and name, from the attr's own down to it.
    pub chain: Vec<(Text, Text)>,
    /// What is known of its outputs.
    pub evidence: Evidence,
}

impl Looked {
    fn name(&self) -> &str {
        self.chain.last().map(|(_, name)| &**name).unwrap_or_default()
    }

    /// The caches that have it, and its size.
    fn held(&self) -> Option<(Vec<&str>, u64)> {
        let held = self.evidence.said.iter().filter_map(|(cache, said)| match said {
            Said::Present { nar_size } => Some((cache.as_str(), *nar_size)),
            _ => None,
        });
        let held: Vec<(&str, u64)> = held.collect();
        let size = held.first()?.1;
        Some((held.into_iter().map(|(cache, _)| cache).collect(), size))
    }
}

/// The screen: one block an attr.
#[must_use]
pub fn screen(answers: &[Answer], width: usize) -> Vec<Line> {
    let mut lines = Vec::new();
    for answer in answers {
        if !lines.is_empty() {
            lines.push(Line::new());
        }
        lines.extend(block(answer, width));
    }
    lines
}

fn block(answer: &Answer, width: usize) -> Vec<Line> {
    let head = match (answer.status, answer.builds) {
        (Some(Status::Valid), _) => "is in this store; nothing has to be built".to_owned(),
        (Some(Status::ToFetch), _) => "is in a cache; nothing has to be built".to_owned(),
        (Some(Status::Skipped | Status::Failed), _) => "could not be looked into".to_owned(),
        (_, builds) => format!("has to be built: {}", plural(builds, "drv", "drvs")),
    };
    let mut lines = vec![Line::new().paint(Paint::Bold, &answer.name).text(format!("  {head}")).fit(width)];
    let all: Vec<&Looked> = std::iter::once(&answer.own).chain(&answer.first).collect();
    let column = all.iter().map(|looked| looked.name().chars().count()).max().unwrap_or(0).min(40) + 4;
    let mut hints: Vec<String> = Vec::new();
    for (at, looked) in all.iter().enumerate() {
        if at == 1 {
            let text =
                if answer.first.len() + answer.more == 1 { "built first" } else { "built first, each for itself" };
            lines.push(Line::from(format!("  {text}:")));
        }
        let text = match (looked.held(), reason(&looked.evidence)) {
            (Some((caches, bytes)), _) => format!("in {} ({})", caches.join(", "), size(bytes)),
            (None, Some(reason)) => {
                let here = answer.status == Some(Status::Valid);
                hints.extend(reason.hint(&answer.name, looked.name(), here));
                reason.text()
            }
            (None, None) => String::new(),
        };
        // Who can act on a reason wants all of it.
        let indent = if at == 0 { 2 } else { 4 };
        let line = Line::new().pad(indent).text(looked.name()).pad(column + 2).text(" ").text(text);
        let names: Vec<&str> = looked.chain.iter().map(|(_, name)| &**name).collect();
        let way = if names.len() > 2 { format!("    {}", super::chain(&names)) } else { String::new() };
        lines.push(line.then_if_fits(Line::new().paint(Paint::Dim, way), width));
    }
    if answer.more > 0 {
        lines.push(Line::from(format!("    and {} more", answer.more)));
    }
    let mut told: Vec<String> = Vec::new();
    for hint in hints {
        if !told.contains(&hint) {
            told.push(hint);
        }
    }
    if answer.builds > 0 && told.is_empty() {
        told.push(format!("drover run {}", answer.name));
    }
    lines.extend(told.iter().enumerate().map(|(at, hint)| {
        let word = if at == 0 { "  next" } else { "" };
        Line::new().paint(Paint::Dim, word).pad(8).text(hint)
    }));
    lines
}

/// The document of `drover why --json`, version 1.
#[derive(Debug, Serialize)]
#[expect(missing_docs, reason = "the names are the documented contract")]
pub struct Document<'a> {
    pub version: u32,
    /// The first attr, with what is the first cause.
    #[serde(flatten)]
    pub first: Option<AttrDocument<'a>>,
    /// All attrs.
    pub attrs: Vec<AttrDocument<'a>>,
    pub exit: u8,
}

/// One attr.
#[derive(Debug, Clone, Serialize)]
#[expect(missing_docs, reason = "the names are the documented contract")]
pub struct AttrDocument<'a> {
    pub attr: &'a str,
    pub status: Option<Status>,
    /// Down to the first drv that has to be built, or the attr's own.
    pub chain: Vec<Step<'a>>,
    pub cause: Option<Cause>,
    /// The attr's own, then the first drvs that have to be built.
    pub causes: Vec<Reached<'a>>,
    /// How many more of those there are.
    pub more: usize,
}

/// A cause and the way to it.
#[derive(Debug, Clone, Serialize)]
#[expect(missing_docs, reason = "the names are the documented contract")]
pub struct Reached<'a> {
    pub chain: Vec<Step<'a>>,
    pub cause: Option<Cause>,
}

/// A drv on the way.
#[derive(Debug, Clone, Serialize)]
#[expect(missing_docs, reason = "the names are the documented contract")]
pub struct Step<'a> {
    pub drv: &'a str,
    pub name: &'a str,
}

/// Why no cache has it.
#[derive(Debug, Clone, Serialize)]
#[expect(missing_docs, reason = "the names are the documented contract")]
pub struct Cause {
    pub kind: &'static str,
    pub name: String,
    pub base: Option<String>,
    pub head: Option<String>,
    pub run: Option<String>,
    pub cache: Option<String>,
    pub message: String,
}

/// The document.
#[must_use]
pub fn document(answers: &[Answer], exit: u8) -> Document<'_> {
    let attrs: Vec<AttrDocument> = answers.iter().map(attr).collect();
    Document { version: crate::report::json::VERSION, first: attrs.first().cloned(), attrs, exit }
}

fn attr(answer: &Answer) -> AttrDocument<'_> {
    let causes: Vec<Reached> = std::iter::once(&answer.own).chain(&answer.first).map(reached).collect();
    // Its own derivation waits for the first one below it.
    let chief = causes.get(1).or(causes.first()).cloned();
    AttrDocument {
        attr: &answer.attr,
        status: answer.status,
        chain: chief.as_ref().map(|chief| chief.chain.clone()).unwrap_or_default(),
        cause: chief.and_then(|chief| chief.cause),
        causes,
        more: answer.more,
    }
}

fn reached(looked: &Looked) -> Reached<'_> {
    let chain = looked.chain.iter().map(|(drv, name)| Step { drv, name }).collect();
    Reached { chain, cause: reason(&looked.evidence).map(|reason| cause(looked.name(), &reason)) }
}

fn cause(name: &str, reason: &Reason) -> Cause {
    Cause {
        kind: reason.word(),
        name: name.to_owned(),
        base: None,
        head: None,
        run: reason.run().map(str::to_owned),
        cache: reason.cache().map(str::to_owned),
        message: reason.text(),
    }
}
