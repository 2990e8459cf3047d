//! What became of a store path in an earlier run, as its record says: whether it was built, found, pushed, fetched.

use crate::event::{DrvOutcome, Evaluated, Pushed, Stage, Status, Text};
use crate::id::CacheId;

use super::failure;
use super::summary::{Attr, Summary};

/// What a run says of a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Past {
    /// The run, as it is shown.
    pub run: String,
    /// How the run came by it.
    pub had: Had,
    /// Names of the caches that were pushed to.
    pub pushed_to: Vec<String>,
    /// What became of it in each of these, where that was told.
    pub pushes: Vec<Push>,
    /// The pushing came to its end.
    pub push_ended: bool,
}

/// How a run came by a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Had {
    /// It was built.
    Built,
    /// It was in the store.
    Valid,
    /// A cache had it; its name, where that was told.
    Cached(Option<String>),
    /// It was to be built, and was not; the drv whose own failure that was.
    NotBuilt(String),
    /// Only its push is on record.
    Pushed,
}

/// What became of a path in a cache.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Push {
    /// The name of the cache.
    pub cache: String,
    /// How it ended.
    pub end: PushEnd,
}

/// How the push of a path ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PushEnd {
    /// It was read back, or had been there before.
    There,
    /// It was written, and then it was not there.
    Missing,
    /// It was given up.
    Failed(String),
}

/// What a run says of an absolute store path; `None` if it does not know it. `run` is its id as shown.
#[must_use]
pub fn of(summary: &Summary, run: &str, path: &str) -> Option<Past> {
    let pushes = pushes(summary, path);
    let had = had(summary, path).or((!pushes.is_empty()).then_some(Had::Pushed))?;
    let pushed_to = summary.caches.values().filter(|cache| cache.push).map(|cache| cache.name.to_string()).collect();
    let push_ended = summary.stages.get(&Stage::Push).is_some_and(|span| span.end.is_some());
    let push_ended = push_ended && summary.cancelled.is_none() && summary.error.is_none();
    Some(Past { run: run.to_owned(), had, pushed_to, pushes, push_ended })
}

fn had(summary: &Summary, path: &str) -> Option<Had> {
    let is = |output: Option<&Text>| output.is_some_and(|output| &**output == path);
    let drv = summary.drvs.values().find(|drv| drv.outputs.iter().any(|output| is(output.path.as_ref())));
    if let Some((_, outcome)) = drv.and_then(|drv| drv.ended.as_ref()) {
        match outcome {
            DrvOutcome::Built => return Some(Had::Built),
            DrvOutcome::Valid => return Some(Had::Valid),
            DrvOutcome::Fetched => return Some(Had::Cached(cache_of(summary, path))),
            DrvOutcome::Failed(failed) => return Some(Had::NotBuilt(failure::cause(failed))),
            DrvOutcome::DependencyFailed { root } => return Some(Had::NotBuilt(summary.drv_name(*root))),
            DrvOutcome::Cancelled => {}
        }
    }
    if let Some(cache) = cache_of(summary, path) {
        return Some(Had::Cached(Some(cache)));
    }
    let of_path = |attr: &&Attr| match &attr.evaluated {
        Some((_, Evaluated::Drv { outputs, .. })) => outputs.iter().any(|output| is(output.path.as_ref())),
        _ => false,
    };
    let attr = summary.attrs.values().find(of_path)?;
    match summary.status(attr)? {
        Status::Valid => Some(Had::Valid),
        Status::Cached | Status::ToFetch => Some(Had::Cached(None)),
        _ => None,
    }
}

/// The cache that a fetch was to bring a path from.
fn cache_of(summary: &Summary, path: &str) -> Option<String> {
    let fetch = summary.fetches.iter().find(|fetch| &*fetch.path == path)?;
    Some(name(summary, fetch.cache))
}

fn name(summary: &Summary, cache: CacheId) -> String {
    summary.caches.get(&cache).map_or_else(|| "a cache".to_owned(), |cache| cache.name.to_string())
}

fn pushes(summary: &Summary, path: &str) -> Vec<Push> {
    let of_path = summary.pushes.iter().filter(|((_, pushed), _)| &**pushed == path);
    let told = of_path.map(|((cache, _), push)| {
        let missing =
            summary.verified.get(cache).is_some_and(|verified| verified.missing.iter().any(|gone| &**gone == path));
        let end = match &push.ended {
            Some((_, Pushed::Failed(failed))) => PushEnd::Failed(failure::cause(failed)),
            _ if missing => PushEnd::Missing,
            Some(_) if summary.verified.contains_key(cache) => PushEnd::There,
            Some((_, Pushed::Present)) => PushEnd::There,
            Some((_, Pushed::Uploaded { .. })) => PushEnd::Failed("it was not read back".to_owned()),
            None => PushEnd::Failed("the run ended before".to_owned()),
        };
        Push { cache: name(summary, *cache), end }
    });
    told.collect()
}
