//! What is wrong with an environment, and what mends it: [`Facts`] in, a [`Report`] out. Pure; who asks Nix, stores,
//! caches and git for the facts is `cli::doctor`.
//!
//! A rule looks at facts and says *what* is wrong, *why* it matters, and *what to type* (or which line to write). An
//! error is what makes a run fail or its results worthless; a warning is what makes it slower or surprising. Notes
//! are worth knowing and are no findings.

mod builders;
mod caches;
mod facts;
mod keys;
mod nix;
mod place;
mod screen;

pub use facts::{
    Answer, Builder, Cache, Checked, Config, Disk, Down, Facts, Flake, Git, KeyFile, KeyFileState, KeyTrouble, Login,
    Netrc, NetrcFile, Nix, NoWay, PublicKey, Reach, Signed, StateDir, Store, Talk, Trouble, Untrusted, Write,
};
pub use screen::screen;

use serde::Serialize;

/// How bad.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// A run fails, or nobody can use what it makes.
    Error,
    /// A run is slower or does something else than people expect.
    Warning,
    /// Worth knowing.
    Note,
}

impl Severity {
    /// As it is shown.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warning",
            Self::Note => "note",
        }
    }
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What it is about: `nix`, `caches`, …
    pub area: &'static str,
    /// How bad.
    pub severity: Severity,
    /// What is wrong.
    pub message: String,
    /// Why it matters.
    pub why: String,
    /// A command to type, or a line to write and where.
    pub fix: String,
}

/// One area that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Area {
    /// Its name.
    pub area: &'static str,
    /// Nothing was found.
    pub ok: bool,
    /// What there is, in a few words.
    pub summary: String,
}

/// All that was found. As JSON it is the document of `drover doctor --json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Of the document.
    pub version: u32,
    /// Nothing was found.
    pub ok: bool,
    /// Errors, then warnings.
    pub findings: Vec<Finding>,
    /// What is worth knowing and not wrong.
    pub notes: Vec<Finding>,
    /// What was looked at.
    pub areas: Vec<Area>,
}

impl Report {
    /// How many findings there are of this severity.
    #[must_use]
    pub fn count(&self, severity: Severity) -> usize {
        self.findings.iter().filter(|finding| finding.severity == severity).count()
    }
}

/// Holds the facts against all rules.
#[must_use]
pub fn examine(facts: &Facts) -> Report {
    let mut sheet = Sheet::default();
    nix::nix(facts, &mut sheet);
    nix::store(facts, &mut sheet);
    builders::builders(facts, &mut sheet);
    caches::caches(facts, &mut sheet);
    keys::keys(facts, &mut sheet);
    keys::push(facts, &mut sheet);
    caches::clock(facts, &mut sheet);
    place::config(facts, &mut sheet);
    place::flake(facts, &mut sheet);
    place::git(facts, &mut sheet);
    place::disk(facts, &mut sheet);
    place::state(facts, &mut sheet);
    sheet.report()
}

/// What the rules write on.
#[derive(Default)]
struct Sheet {
    findings: Vec<Finding>,
    areas: Vec<(&'static str, String)>,
}

impl Sheet {
    /// This area was looked at.
    fn area(&mut self, area: &'static str, summary: impl Into<String>) {
        self.areas.push((area, summary.into()));
    }

    fn add(&mut self, severity: Severity, area: &'static str, [message, why, fix]: [String; 3]) {
        self.findings.push(Finding { area, severity, message, why, fix });
    }

    fn error(&mut self, area: &'static str, message: impl Into<String>, why: &str, fix: impl Into<String>) {
        self.add(Severity::Error, area, [message.into(), why.to_owned(), fix.into()]);
    }

    fn warning(&mut self, area: &'static str, message: impl Into<String>, why: &str, fix: impl Into<String>) {
        self.add(Severity::Warning, area, [message.into(), why.to_owned(), fix.into()]);
    }

    fn note(&mut self, area: &'static str, message: impl Into<String>, why: &str, fix: impl Into<String>) {
        self.add(Severity::Note, area, [message.into(), why.to_owned(), fix.into()]);
    }

    fn report(self) -> Report {
        let (notes, mut findings): (Vec<_>, Vec<_>) =
            self.findings.into_iter().partition(|finding| finding.severity == Severity::Note);
        findings.sort_by_key(|finding| finding.severity);
        let ok = |area: &str| !findings.iter().any(|finding| finding.area == area);
        let area = |(area, summary)| Area { area, ok: ok(area), summary };
        let areas: Vec<Area> = self.areas.into_iter().map(area).collect();
        Report { version: 1, ok: findings.is_empty(), findings, notes, areas }
    }
}

#[cfg(test)]
mod tests;
