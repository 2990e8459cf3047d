//! A cause in a few words, where it is in one derivation and where it is in many.

use crate::event::{CauseKind, Text};
use crate::report::number::{count, name_version, plural};
use crate::report::text::Line;

use super::groups::one_package;
use super::{Cause, Detail, is_said, textdiff};

/// Derivations that are named.
const NAMES: usize = 3;

/// A cause with the derivations in which it is found.
pub(super) struct Told<'a> {
    pub(super) cause: &'a Cause,
    /// The nearest; not necessarily all.
    pub(super) drvs: Vec<&'a (Text, Text)>,
    pub(super) count: usize,
    /// There may be more.
    pub(super) at_least: bool,
}

impl Told<'_> {
    /// It is found in derivations of several names.
    pub(super) fn is_spread(&self) -> bool {
        self.count > 1 && one_package(self.drvs.iter().copied()).is_none()
    }

    /// What differs, and where.
    pub(super) fn said(&self) -> String {
        if self.is_spread() {
            let what = spread(self.cause, &self.places());
            return self.inline().map_or(what.clone(), |text| format!("{what}: {text}"));
        }
        let times = if self.count > 1 { format!(" ×{}", count(self.count)) } else { String::new() };
        format!("{}{times}", said(self.cause))
    }

    /// `98 drvs`.
    fn places(&self) -> String {
        let places = plural(self.count, "drv", "drvs");
        if self.at_least { format!("at least {places}") } else { places }
    }

    /// The difference, if it is one of two short values and nothing else.
    pub(super) fn inline(&self) -> Option<String> {
        let mut shown = self.cause.details.iter().filter(|detail| !is_said(self.cause, detail));
        let detail = shown.next().filter(|detail| self.is_spread() && detail.name == self.cause.name)?;
        let is_file = matches!(detail.kind, CauseKind::Source | CauseKind::Patch);
        let alone = shown.next().is_none() && !is_file;
        textdiff::short(detail.base.as_deref().filter(|_| alone)?, detail.head.as_deref()?)
    }

    /// `nixos-system-web1-26.05, pkg42, pkg98 … 95 more`; as many as fit.
    pub(super) fn names(&self, width: usize) -> Option<Line> {
        if !self.is_spread() {
            return None;
        }
        let names: Vec<&str> = self.drvs.iter().take(NAMES).map(|(_, name)| name_version(name)).collect();
        let line = |shown: usize| {
            let more = self.count.saturating_sub(shown);
            let more = if more > 0 { format!(" … {} more", count(more)) } else { String::new() };
            Line::from(format!("{}{more}", names[..shown].join(", ")))
        };
        let fits = (1..=names.len()).rev().map(line).find(|line| line.width() <= width);
        Some(fits.unwrap_or_else(|| line(1.min(names.len())).fit(width)))
    }
}

/// A cause in one derivation: `nginx 1.29.3 → 1.29.4`.
#[must_use]
pub fn said(cause: &Cause) -> String {
    let place = name_version(&cause.head_drv);
    let (name, from, to) = (&cause.name, cause.from.as_deref(), cause.to.as_deref());
    match cause.kind {
        CauseKind::Dependency => dependency(cause),
        CauseKind::Patch => match (from, to) {
            (None, _) => format!("{place} has a new patch: {name}"),
            (_, None) => format!("{place} has lost a patch: {name}"),
            _ => format!("{place} has another patch: {name}"),
        },
        CauseKind::Source => match (from, to) {
            (None, _) => format!("{place} has a new source: {name}"),
            (_, None) => format!("{place} has lost a source: {name}"),
            _ => format!("{place}: the source {name} differs"),
        },
        CauseKind::Variable => format!("{place}: {}", variables(cause)),
        CauseKind::Builder => format!("{place} has another builder"),
        CauseKind::Args => format!("{place}: other arguments of its builder"),
        CauseKind::System => format!("{place} is for another system"),
        CauseKind::Output if is_list_of_outputs(cause) => format!("{place} has other outputs"),
        CauseKind::Output => format!("{place} has another hash"),
        CauseKind::AddedInput => format!("{place} needs {name} now"),
        CauseKind::RemovedInput => format!("{place} needs {name} no more"),
        CauseKind::Revision => format!("{place} embeds the {}", embedded(cause)),
        CauseKind::Unreadable => format!("{place}: its .drv is gone, and nothing is known of it"),
    }
}

/// A cause in many derivations; `places`: how many.
fn spread(cause: &Cause, places: &str) -> String {
    let (name, from, to) = (&cause.name, cause.from.as_deref(), cause.to.as_deref());
    match cause.kind {
        CauseKind::Dependency => format!("{} in {places}", dependency(cause)),
        CauseKind::Patch => match (from, to) {
            (None, _) => format!("{places} have a new patch: {name}"),
            (_, None) => format!("{places} have lost a patch: {name}"),
            _ => format!("{places} have another patch: {name}"),
        },
        CauseKind::Source => match (from, to) {
            (None, _) => format!("{places} have a new source: {name}"),
            (_, None) => format!("{places} have lost a source: {name}"),
            _ => format!("the source {name} differs in {places}"),
        },
        CauseKind::Variable => format!("{} in {places}", variables(cause)),
        CauseKind::Builder => format!("{places} have another builder"),
        CauseKind::Args => format!("other arguments of the builder in {places}"),
        CauseKind::System => format!("{places} are for another system"),
        CauseKind::Output if is_list_of_outputs(cause) => format!("{places} have other outputs"),
        CauseKind::Output => format!("{places} have another hash"),
        CauseKind::AddedInput => format!("{places} need {name} now"),
        CauseKind::RemovedInput => format!("{places} need {name} no more"),
        CauseKind::Revision => format!("{places} embed the {}", embedded(cause)),
        CauseKind::Unreadable => format!("{places} are gone, and nothing is known of them"),
    }
}

fn dependency(cause: &Cause) -> String {
    let name = &cause.name;
    match (cause.from.as_deref(), cause.to.as_deref()) {
        (Some(from), Some(to)) if to.starts_with(name.as_str()) => format!("{from} → {to}"),
        (from, to) => format!("{name} {} → {}", from.unwrap_or("-"), to.unwrap_or("-")),
    }
}

fn is_list_of_outputs(cause: &Cause) -> bool {
    cause.details.iter().any(|detail: &Detail| detail.name == "outputs")
}

/// What of the revision a derivation embeds.
fn embedded(cause: &Cause) -> &'static str {
    let source = cause.details.iter().any(|detail| detail.kind == CauseKind::Source);
    if source { "source tree" } else { "revision" }
}

/// `the variable text differs`, `the variables a, b differ`.
fn variables(cause: &Cause) -> String {
    let own = cause.details.iter().filter(|detail| detail.kind == CauseKind::Variable && !detail.revision);
    let names: Vec<&str> = own.map(|detail| detail.name.as_str()).collect();
    match names.as_slice() {
        [one] => format!("the variable {one} differs"),
        [.., _] if names.len() > 4 => format!("{} differ", plural(names.len(), "variable", "variables")),
        _ => format!("the variables {} differ", names.join(", ")),
    }
}
