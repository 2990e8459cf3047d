//! What recorded runs say of caches.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use crate::error::Result;
use crate::event::Pushed;
use crate::record::{self, Run};
use crate::report::summary::Summary;

use super::super::push::results;

/// The runs on record, the newest first; those whose record cannot be read are none.
pub(super) fn runs(state_dir: &Path) -> Result<Vec<(Run, Summary)>> {
    let read = |run: Run| {
        let events = record::read(&run.dir.events()).ok()?.events;
        Some((run, Summary::of(&events)))
    };
    Ok(record::list(state_dir)?.into_iter().filter_map(read).collect())
}

/// What runs since then, in seconds since 1970, wanted or built.
pub(super) fn wanted_since(runs: &[(Run, Summary)], since: i64) -> Vec<String> {
    let began = |summary: &Summary| summary.header.as_ref().map(|header| header.started.as_second());
    let runs = runs.iter().filter(|(_, summary)| began(summary).is_some_and(|began| began >= since));
    runs.flat_map(|(_, summary)| results(summary)).collect()
}

/// What runs brought to each cache, or found in it, by its URL.
pub(super) fn pushed(runs: &[(Run, Summary)]) -> BTreeMap<String, BTreeSet<String>> {
    let mut pushed: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (_, summary) in runs {
        for ((id, path), push) in &summary.pushes {
            let there = matches!(push.ended, Some((_, Pushed::Uploaded { .. } | Pushed::Present)));
            if let Some(cache) = summary.caches.get(id).filter(|_| there) {
                pushed.entry(cache.url.to_string()).or_default().insert(path.to_string());
            }
        }
    }
    pushed
}
