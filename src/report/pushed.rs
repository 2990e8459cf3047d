//! What is complete in which cache, by attr, and what is not.

use std::collections::BTreeSet;

use serde::Serialize;

use crate::event::{Class, Evaluated, Failure, Pushed, Status, Text};
use crate::id::{AttrId, CacheId, DrvId};

use super::summary::{Attr, Push, Summary};

/// How much of an attr a cache has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Complete {
    /// All of it, with its runtime closure.
    Complete,
    /// A part.
    Partial,
    /// Nothing of it.
    No,
}

/// What one cache got.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Totals {
    /// Paths queued.
    pub queued: usize,
    /// Of these there now, uploaded or found.
    pub there: usize,
    /// Bytes that were uploaded.
    pub bytes: u64,
    /// Paths that are not there, with their NAR sizes and why.
    pub missing: Vec<(Text, u64, Option<Failure>)>,
    /// All that should be there was read back.
    pub read_back: bool,
}

/// What a cache got in this run.
#[must_use]
pub fn totals(summary: &Summary, cache: CacheId) -> Totals {
    let unread: BTreeSet<&Text> = summary.verified.get(&cache).map(|v| v.missing.iter().collect()).unwrap_or_default();
    let mut totals =
        Totals { read_back: summary.verified.contains_key(&cache) && unread.is_empty(), ..Totals::default() };
    for ((_, path), push) in of_cache(summary, cache) {
        totals.queued += 1;
        if let Some((_, Pushed::Uploaded { file_size })) = push.ended {
            totals.bytes = totals.bytes.saturating_add(file_size);
        }
        if is_there(push) && !unread.contains(path) {
            totals.there += 1;
        } else {
            let why = match &push.ended {
                Some((_, Pushed::Failed(failure))) => Some(failure.clone()),
                _ => None,
            };
            totals.missing.push((path.clone(), push.nar_size, why));
        }
    }
    totals
}

/// How much of an attr a cache that is pushed to has, as far as the record says. References go before referrers, so
/// an output that is there has its closure there.
#[must_use]
pub fn completeness(summary: &Summary, id: AttrId, cache: CacheId) -> Complete {
    let Some(attr) = summary.attrs.get(&id) else { return Complete::No };
    let outputs = outputs(summary, attr);
    let unread: BTreeSet<&Text> = summary.verified.get(&cache).map(|v| v.missing.iter().collect()).unwrap_or_default();
    let there = |path: &Text| {
        let push = summary.pushes.get(&(cache, path.clone()))?;
        Some(is_there(push) && !unread.contains(path))
    };
    let whole = !outputs.iter().any(|path| is_left_out(summary, path, cache));
    let done = match summary.status(attr) {
        // What an upstream cache holds is not queued. Reading back comes last: all else was looked at.
        Some(Status::Cached | Status::Valid) => {
            summary.verified.contains_key(&cache) && outputs.iter().all(|path| there(path).unwrap_or(true))
        }
        Some(Status::Built) => !outputs.is_empty() && outputs.iter().all(|path| there(path).unwrap_or(false)),
        _ => false,
    };
    if done {
        return if whole { Complete::Complete } else { Complete::Partial };
    }
    let some = closure_paths(summary, attr).iter().any(|path| there(path).unwrap_or(false));
    if some { Complete::Partial } else { Complete::No }
}

/// How much of a path that was asked for a cache that is pushed to has. Which of the others belong to its closure the
/// record does not say: any of them counts as a part.
#[must_use]
pub fn of_path(summary: &Summary, path: &Text, cache: CacheId) -> Complete {
    let verified = summary.verified.get(&cache);
    let unread = |path: &Text| verified.is_some_and(|verified| verified.missing.contains(path));
    let there = |path: &Text, push: &Push| is_there(push) && !unread(path);
    let done = match summary.pushes.get(&(cache, path.clone())) {
        Some(push) => there(path, push),
        // Other caches hold it.
        None => verified.is_some(),
    };
    let some = || of_cache(summary, cache).any(|((_, path), push)| there(path, push));
    match done {
        true if is_left_out(summary, path, cache) => Complete::Partial,
        true => Complete::Complete,
        false if some() => Complete::Partial,
        false => Complete::No,
    }
}

/// Why paths are missing: what most of them died of themselves, in the words that say most of it (`HTTP status 429, 9
/// tries` more than `HTTP status 429`).
#[must_use]
pub fn reason(totals: &Totals) -> Option<&Failure> {
    let sort = |why: &Failure| why.message.split(", ").next().unwrap_or_default().to_owned();
    let mut reasons: Vec<(String, Vec<&Failure>)> = Vec::new();
    for why in totals.missing.iter().filter_map(|(_, _, why)| why.as_ref()) {
        match reasons.iter_mut().find(|(known, _)| *known == sort(why)) {
            Some((_, same)) => same.push(why),
            None => reasons.push((sort(why), vec![why])),
        }
    }
    let own = |why: &&Failure| !matches!(why.class, Class::Dependency | Class::Cancelled);
    // Of equals the first.
    let most = reasons.into_iter().rev().max_by_key(|(_, same)| (same.iter().any(own), same.len()));
    most.and_then(|(_, same)| same.into_iter().rev().max_by_key(|why| why.message.len()))
}

fn of_cache(summary: &Summary, cache: CacheId) -> impl Iterator<Item = (&(CacheId, Text), &Push)> {
    summary.pushes.range((cache, Text::from(""))..).take_while(move |((c, _), _)| *c == cache)
}

/// Whether a path, or something that it refers to, is not pushed because the configuration leaves it out.
fn is_left_out(summary: &Summary, path: &Text, cache: CacheId) -> bool {
    summary.not_whole.get(&cache).is_some_and(|paths| paths.contains(path))
}

fn is_there(push: &Push) -> bool {
    matches!(push.ended, Some((_, Pushed::Uploaded { .. } | Pushed::Present)))
}

/// The known output paths that an attr asks for.
fn outputs(summary: &Summary, attr: &Attr) -> Vec<Text> {
    let Some((_, Evaluated::Drv { outputs, .. })) = &attr.evaluated else { return Vec::new() };
    let built = attr.planned.as_ref().and_then(|planned| summary.drvs.get(&planned.drv?));
    let known = outputs.iter().filter_map(|output| {
        // An opaque drv's paths are known from its attempt only.
        let later = || built?.outputs.iter().find(|o| o.name == output.name)?.path.clone();
        output.path.clone().or_else(later)
    });
    known.collect()
}

/// The output paths of all that had to be built for an attr.
fn closure_paths(summary: &Summary, attr: &Attr) -> Vec<Text> {
    let mut paths = outputs(summary, attr);
    let mut seen: BTreeSet<DrvId> = BTreeSet::new();
    let mut todo: Vec<DrvId> = attr.planned.as_ref().and_then(|planned| planned.drv).into_iter().collect();
    while let Some(id) = todo.pop() {
        let Some(drv) = summary.drvs.get(&id).filter(|_| seen.insert(id)) else { continue };
        paths.extend(drv.outputs.iter().filter_map(|output| output.path.clone()));
        todo.extend(&drv.inputs);
    }
    paths
}
