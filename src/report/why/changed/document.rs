//! `drover why --base REF --json`, version 1: fields may be added, not renamed.

use serde::Serialize;

use crate::event::{CauseKind, Difference, Text};

use super::groups::groups;
use super::words::Told;
use super::{Answer, Attr, Detail};

/// The document.
#[derive(Debug, Serialize)]
#[expect(missing_docs, reason = "the names are the documented contract")]
pub struct Document<'a> {
    pub version: u32,
    pub base: &'a str,
    /// The first attr, with its nearest cause.
    #[serde(flatten)]
    pub first: Option<AttrDocument<'a>>,
    /// All attrs.
    pub attrs: Vec<AttrDocument<'a>>,
    /// Attrs with one cause.
    pub groups: Vec<GroupDocument<'a>>,
    /// Paths that differ in the repository.
    pub paths: &'a [String],
    pub exit: u8,
}

/// One attr.
#[derive(Debug, Clone, Serialize)]
pub struct AttrDocument<'a> {
    pub attr: &'a str,
    pub status: Difference,
    pub revision_only: bool,
    pub same_outputs: bool,
    pub chain: Vec<Step<'a>>,
    pub cause: Option<CauseDocument<'a>>,
    pub causes: Vec<ReachedDocument<'a>>,
    /// There are more.
    pub more: bool,
    pub closure: Option<Closure>,
    pub error: Option<&'a str>,
}

/// Sizes in bytes.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Closure {
    pub base: u64,
    pub head: u64,
}

/// A cause and the way to it.
#[derive(Debug, Clone, Serialize)]
pub struct ReachedDocument<'a> {
    pub chain: Vec<Step<'a>>,
    pub cause: CauseDocument<'a>,
}

/// A drv on the way.
#[derive(Debug, Clone, Serialize)]
pub struct Step<'a> {
    pub drv: &'a str,
    pub name: &'a str,
}

/// What differs.
#[derive(Debug, Clone, Serialize)]
pub struct CauseDocument<'a> {
    pub kind: CauseKind,
    pub name: &'a str,
    pub base: Option<&'a str>,
    pub head: Option<&'a str>,
    pub base_drv: &'a str,
    pub head_drv: &'a str,
    pub same_outputs: bool,
    pub differences: &'a [Detail],
    /// The derivations in which it is found, the nearest first: of an attr 48 at most, of a group all.
    pub drvs: Vec<Step<'a>>,
    /// How many those are.
    pub count: usize,
    /// There may be more: not everything was compared.
    pub at_least: bool,
}

/// Attrs with one cause.
#[derive(Debug, Clone, Serialize)]
pub struct GroupDocument<'a> {
    pub attrs: Vec<&'a str>,
    pub cause: CauseDocument<'a>,
}

/// The document.
#[must_use]
pub fn document(answer: &Answer, exit: u8) -> Document<'_> {
    let attrs: Vec<AttrDocument> = answer.attrs.iter().map(|attr| attr_document(answer, attr)).collect();
    let changed: Vec<&Attr> = answer.attrs.iter().collect();
    let groups = groups(answer, &changed).into_iter().map(|group| {
        let count = group.drvs.len();
        let cause = cause_document(Told { cause: group.cause, drvs: group.drvs, count, at_least: answer.cut });
        GroupDocument { attrs: group.attrs.iter().map(|attr| attr.attr.as_str()).collect(), cause }
    });
    Document {
        version: crate::report::json::VERSION,
        base: &answer.base,
        first: attrs.first().cloned(),
        groups: groups.collect(),
        attrs,
        paths: &answer.paths,
        exit,
    }
}

fn attr_document<'a>(answer: &'a Answer, attr: &'a Attr) -> AttrDocument<'a> {
    let causes = attr.causes.iter().filter_map(|reached| {
        let chain = reached.chain.iter().map(step).collect();
        let (cause, drvs) = (answer.causes.get(reached.cause)?, reached.drvs.iter().collect());
        let told = Told { cause, drvs, count: reached.count, at_least: answer.cut };
        Some(ReachedDocument { chain, cause: cause_document(told) })
    });
    let causes: Vec<ReachedDocument> = causes.collect();
    let first = causes.first().cloned();
    AttrDocument {
        attr: &attr.attr,
        status: attr.difference,
        revision_only: attr.revision_only,
        same_outputs: attr.same_outputs,
        chain: first.as_ref().map(|first| first.chain.clone()).unwrap_or_default(),
        cause: first.map(|first| first.cause),
        causes,
        more: attr.more,
        closure: attr.closure.map(|(base, head)| Closure { base, head }),
        error: attr.error.as_deref(),
    }
}

fn step((drv, name): &(Text, Text)) -> Step<'_> {
    Step { drv, name }
}

fn cause_document(told: Told<'_>) -> CauseDocument<'_> {
    let Told { cause, drvs, count, at_least } = told;
    CauseDocument {
        kind: cause.kind,
        name: &cause.name,
        base: cause.from.as_deref(),
        head: cause.to.as_deref(),
        base_drv: &cause.base_drv,
        head_drv: &cause.head_drv,
        same_outputs: cause.same_outputs,
        differences: &cause.details,
        drvs: drvs.into_iter().map(step).collect(),
        count,
        at_least,
    }
}
