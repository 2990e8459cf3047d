//! What may be deleted from a cache, and in which order: pure, no I/O, no clock.
//!
//! What holds whatever the cache holds, and whenever the deletion is cut off (tested with random closures):
//! - a path that is kept keeps all that it refers to, and its NAR;
//! - records go before the records of what they refer to, and before their NARs, so that a reader never sees a record
//!   that lacks what it had before;
//! - nothing that was written within the time of grace goes: it may belong to a push that is still under way, whose
//!   roots come last.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::id::StorePath;
use crate::nix_compat::narinfo::NarInfo;
use crate::store::cache::list::Object;

/// A path of a cache.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Which.
    pub path: StorePath,
    /// What it refers to, but for itself.
    pub references: Vec<StorePath>,
    /// The name of its record.
    pub record: String,
    /// The name of its NAR.
    pub nar: String,
    /// When its record was written, in seconds since 1970.
    pub written: i64,
}

impl Entry {
    /// The path of a record that a cache lists.
    #[must_use]
    pub fn new(record: &Object, info: &NarInfo) -> Self {
        let path = info.store_path().clone();
        let references = info.references().iter().filter(|reference| **reference != path).cloned().collect();
        Self { references, record: record.name.clone(), nar: info.url().to_owned(), written: record.written, path }
    }
}

/// What is kept, always with all that it refers to.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Rules {
    /// These paths.
    pub roots: BTreeSet<StorePath>,
    /// What was written since then, in seconds since 1970.
    pub since: Option<i64>,
    /// Of the paths to which no other refers, so many of each name, the newest.
    pub last: Option<usize>,
    /// What was written after this, in seconds since 1970: the time of grace.
    pub grace: i64,
}

/// Why a path is kept; the first that applies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// It is one of the roots.
    Root,
    /// It was written since.
    Recent,
    /// It is one of the newest of its name.
    Last,
    /// It was written within the time of grace.
    Young,
    /// Something that is kept refers to it.
    Reference,
}

/// What to do.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Prune {
    /// What stays, and why.
    pub kept: BTreeMap<StorePath, Reason>,
    /// What goes, in the order in which the records are to be deleted.
    pub doomed: Vec<Entry>,
    /// The files that no record names once these are gone; to be deleted after all of them.
    pub nars: Vec<Object>,
}

/// Decides it for all paths of a cache and what lies in its `nar/`.
#[must_use]
pub fn prune(entries: &[Entry], nars: &[Object], rules: &Rules) -> Prune {
    let by_path: BTreeMap<&StorePath, &Entry> = entries.iter().map(|entry| (&entry.path, entry)).collect();
    let mut kept = first_kept(entries, rules);
    let mut work: VecDeque<StorePath> = kept.keys().cloned().collect();
    while let Some(path) = work.pop_front() {
        for reference in by_path.get(&path).into_iter().flat_map(|entry| &entry.references) {
            if by_path.contains_key(reference) && !kept.contains_key(reference) {
                kept.insert(reference.clone(), Reason::Reference);
                work.push_back(reference.clone());
            }
        }
    }
    let doomed: Vec<&Entry> = entries.iter().filter(|entry| !kept.contains_key(&entry.path)).collect();
    let left = entries.iter().filter(|entry| kept.contains_key(&entry.path));
    Prune { nars: unused(left, nars, rules.grace), doomed: referrers_first(&doomed), kept }
}

/// The files in `nar/` that none of these entries names and that are old enough.
#[must_use]
pub fn unused<'a>(left: impl IntoIterator<Item = &'a Entry>, nars: &[Object], grace: i64) -> Vec<Object> {
    let named: BTreeSet<&str> = left.into_iter().map(|entry| file_of(&entry.nar)).collect();
    nars.iter().filter(|nar| nar.written <= grace && !named.contains(nar.name.as_str())).cloned().collect()
}

/// Of entries whose records were deleted, those that entries of now need after all, because a push came between; in
/// the order in which they are to be put back: references first.
#[must_use]
pub fn needed_again(deleted: &[Entry], now: &[Entry]) -> Vec<Entry> {
    let there: BTreeSet<&StorePath> = now.iter().map(|entry| &entry.path).collect();
    let gone: BTreeMap<&StorePath, &Entry> =
        deleted.iter().filter(|entry| !there.contains(&entry.path)).map(|entry| (&entry.path, entry)).collect();
    let mut work: VecDeque<&StorePath> = now.iter().flat_map(|entry| &entry.references).collect();
    let mut needed: BTreeMap<&StorePath, &Entry> = BTreeMap::new();
    while let Some(path) = work.pop_front() {
        if let Some(entry) = gone.get(path)
            && needed.insert(path, entry).is_none()
        {
            work.extend(&entry.references);
        }
    }
    let mut order = referrers_first(&needed.into_values().collect::<Vec<_>>());
    order.reverse();
    order
}

/// The file that a `URL` of a record names.
fn file_of(url: &str) -> &str {
    url.split(['?', '#']).next().unwrap_or(url)
}

/// What the rules name by themselves.
fn first_kept(entries: &[Entry], rules: &Rules) -> BTreeMap<StorePath, Reason> {
    let last = rules.last.map(|most| newest(entries, most)).unwrap_or_default();
    let reason = |entry: &Entry| {
        if rules.roots.contains(&entry.path) {
            Some(Reason::Root)
        } else if rules.since.is_some_and(|since| entry.written >= since) {
            Some(Reason::Recent)
        } else if last.contains(&entry.path) {
            Some(Reason::Last)
        } else {
            (entry.written > rules.grace).then_some(Reason::Young)
        }
    };
    entries.iter().filter_map(|entry| Some((entry.path.clone(), reason(entry)?))).collect()
}

/// Of the paths to which no other refers, the newest of each name.
fn newest(entries: &[Entry], most: usize) -> BTreeSet<StorePath> {
    let referred: BTreeSet<&StorePath> = entries.iter().flat_map(|entry| &entry.references).collect();
    let mut by_name: BTreeMap<String, Vec<(i64, &StorePath)>> = BTreeMap::new();
    for entry in entries.iter().filter(|entry| !referred.contains(&entry.path)) {
        by_name.entry(without_version(entry.path.name())).or_default().push((entry.written, &entry.path));
    }
    let newest = by_name.into_values().flat_map(|mut same| {
        same.sort_unstable_by(|a, b| b.cmp(a));
        same.into_iter().take(most)
    });
    newest.map(|(_, path)| path.clone()).collect()
}

/// A name without the parts that begin with a digit: `linux-6.12.58-modules` → `linux-modules`.
fn without_version(name: &str) -> String {
    let parts = name.split('-').filter(|part| !part.starts_with(|c: char| c.is_ascii_digit()));
    parts.collect::<Vec<_>>().join("-")
}

/// In an order in which each goes before all of these that it refers to. What is on a ring, which no Nix writes, comes
/// last.
fn referrers_first(entries: &[&Entry]) -> Vec<Entry> {
    let place: BTreeMap<&StorePath, usize> = entries.iter().enumerate().map(|(at, entry)| (&entry.path, at)).collect();
    let below = |entry: &Entry| {
        let places: BTreeSet<usize> =
            entry.references.iter().filter_map(|reference| place.get(reference).copied()).collect();
        places
    };
    let mut users = vec![0usize; entries.len()];
    for entry in entries {
        below(entry).into_iter().for_each(|at| users[at] += 1);
    }
    let mut ready: VecDeque<usize> = (0..entries.len()).filter(|at| users[*at] == 0).collect();
    let mut order = Vec::with_capacity(entries.len());
    let mut seen = vec![false; entries.len()];
    while let Some(at) = ready.pop_front() {
        seen[at] = true;
        order.push(entries[at].clone());
        for below in below(entries[at]) {
            users[below] -= 1;
            if users[below] == 0 {
                ready.push_back(below);
            }
        }
    }
    order.extend(entries.iter().zip(seen).filter(|(_, seen)| !seen).map(|(entry, _)| (*entry).clone()));
    order
}

#[cfg(test)]
mod tests;
