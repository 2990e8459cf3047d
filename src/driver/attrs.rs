//! The attrs of a run: what each asks for and what it waits for. Pure bookkeeping.

use std::collections::{BTreeMap, BTreeSet};

use crate::eval::{DrvAnswer, Listed};
use crate::event::Status;
use crate::id::{AttrId, AttrPath, DrvId, Kind};

use super::endings::is_there;

/// One attr.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) path: AttrPath,
    pub(super) kind: Kind,
    /// Its derivation, once evaluated.
    pub(super) answer: Option<DrvAnswer>,
    /// The final word.
    pub(super) status: Option<Status>,
}

/// All attrs by number, and who waits for which drv.
#[derive(Debug, Default)]
pub(super) struct Attrs {
    entries: BTreeMap<AttrId, Entry>,
    waiting: BTreeMap<DrvId, Vec<AttrId>>,
    settled: BTreeSet<AttrId>,
}

impl Attrs {
    /// Takes in a listed attr.
    pub(super) fn add(&mut self, listed: &Listed) {
        let entry = Entry { path: listed.path.clone(), kind: listed.kind, answer: None, status: None };
        self.entries.insert(listed.attr, entry);
    }

    /// One attr.
    pub(super) fn get(&self, attr: AttrId) -> Option<&Entry> {
        self.entries.get(&attr)
    }

    /// One attr, to change.
    pub(super) fn get_mut(&mut self, attr: AttrId) -> Option<&mut Entry> {
        self.entries.get_mut(&attr)
    }

    /// All, in order.
    pub(super) fn iter(&self) -> impl Iterator<Item = (AttrId, &Entry)> {
        self.entries.iter().map(|(id, entry)| (*id, entry))
    }

    /// Nothing more is to be said of the attr, and nothing was done for it.
    pub(super) fn settle(&mut self, attr: AttrId) {
        self.settled.insert(attr);
    }

    /// The attr ends when this drv does.
    pub(super) fn wait_for(&mut self, attr: AttrId, drv: DrvId) {
        self.waiting.entry(drv).or_default().push(attr);
    }

    /// The attrs that waited for this drv.
    pub(super) fn ended_with(&mut self, drv: DrvId) -> Vec<AttrId> {
        self.waiting.remove(&drv).unwrap_or_default()
    }

    /// Those whose outputs exist, in order.
    pub(super) fn there(&self) -> Vec<AttrId> {
        let there = |entry: &Entry| entry.status.is_some_and(is_there);
        self.iter().filter(|(_, entry)| there(entry)).map(|(id, _)| id).collect()
    }

    /// Those without a final word.
    pub(super) fn open(&self) -> Vec<AttrId> {
        let open = self.iter().filter(|(id, entry)| entry.status.is_none() && !self.settled.contains(id));
        open.map(|(id, _)| id).collect()
    }
}
