//! Facts about store paths: what is asked, what was answered, who wants to know. Owns the questions and the totals;
//! does not know what a drv is.

use std::collections::HashMap;

use super::{Presence, Question, Totals};
use crate::id::{CacheId, DrvId, StorePath};

/// Number of a path in the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct PathId(u32);

/// What is known of a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Known {
    /// Nobody has said anything yet.
    Nothing,
    /// This.
    Answer(Presence),
}

#[derive(Debug)]
struct Fact {
    path: StorePath,
    known: Known,
    /// Drvs of which this is a wanted output; more than one for fixed outputs that several recipes make.
    users: Vec<DrvId>,
    /// Some user lets caches answer.
    caches: bool,
    asked: bool,
}

/// The table of paths.
#[derive(Debug, Default)]
pub(super) struct Facts {
    facts: Vec<Fact>,
    /// For look-ups only; never iterated.
    index: HashMap<StorePath, PathId>,
    to_ask: Vec<PathId>,
    open: u32,
    pub(super) totals: Totals,
}

impl Facts {
    pub(super) fn intern(&mut self, path: &StorePath) -> PathId {
        if let Some(known) = self.index.get(path) {
            return *known;
        }
        #[expect(clippy::cast_possible_truncation, reason = "paths of drvs and answers, far below 2^32")]
        let id = PathId(self.facts.len() as u32);
        self.index.insert(path.clone(), id);
        self.facts.push(Fact {
            path: path.clone(),
            known: Known::Nothing,
            users: Vec::new(),
            caches: false,
            asked: false,
        });
        id
    }

    fn fact(&mut self, id: PathId) -> &mut Fact {
        &mut self.facts[id.0 as usize]
    }

    pub(super) fn known(&self, id: PathId) -> Known {
        self.facts[id.0 as usize].known
    }

    /// The path and its cache, if a cache is where it is.
    pub(super) fn present(&self, id: PathId) -> Option<(&StorePath, CacheId)> {
        let fact = &self.facts[id.0 as usize];
        match fact.known {
            Known::Answer(Presence::Present(cache)) => Some((&fact.path, cache)),
            Known::Answer(Presence::Valid | Presence::Untrusted | Presence::Absent | Presence::NoAnswer)
            | Known::Nothing => None,
        }
    }

    /// A drv wants this path. To be called once for each drv and path.
    pub(super) fn want(&mut self, id: PathId, drv: DrvId, caches: bool) {
        let fact = &mut self.facts[id.0 as usize];
        fact.caches |= caches;
        fact.users.push(drv);
        if fact.users.len() > 1 {
            return;
        }
        self.totals.paths += 1;
        match fact.known {
            Known::Answer(presence) => *count(&mut self.totals, presence) += 1,
            Known::Nothing if !fact.asked => {
                fact.asked = true;
                self.open += 1;
                self.to_ask.push(id);
            }
            Known::Nothing => {}
        }
    }

    /// Takes an answer; gives the drvs that want the path. The first answer stands.
    pub(super) fn learn(&mut self, path: StorePath, presence: Presence) -> Vec<DrvId> {
        let id = self.intern(&path);
        let fact = self.fact(id);
        if fact.known != Known::Nothing {
            return Vec::new();
        }
        fact.known = Known::Answer(presence);
        let (users, asked) = (fact.users.clone(), fact.asked);
        if asked {
            self.open = self.open.saturating_sub(1);
        }
        if !users.is_empty() {
            *count(&mut self.totals, presence) += 1;
        }
        users
    }

    /// A path that was thought present is not to be had; gives the drvs that want it.
    pub(super) fn disprove(&mut self, id: PathId) -> Vec<DrvId> {
        let fact = self.fact(id);
        let Known::Answer(presence @ Presence::Present(_)) = fact.known else { return Vec::new() };
        fact.known = Known::Answer(Presence::Absent);
        let users = fact.users.clone();
        if !users.is_empty() {
            *count(&mut self.totals, presence) -= 1;
            self.totals.absent += 1;
        }
        users
    }

    /// The paths that have to be asked and were not given out; those answered meanwhile are left out.
    pub(super) fn questions(&mut self) -> Vec<Question> {
        let ids = std::mem::take(&mut self.to_ask);
        let facts = ids.iter().map(|id| &self.facts[id.0 as usize]);
        facts
            .filter(|fact| fact.known == Known::Nothing)
            .map(|fact| Question { path: fact.path.clone(), caches: fact.caches })
            .collect()
    }

    /// Whether every wanted path is answered.
    pub(super) fn is_idle(&self) -> bool {
        self.open == 0
    }
}

fn count(totals: &mut Totals, presence: Presence) -> &mut u32 {
    match presence {
        Presence::Valid => &mut totals.valid,
        Presence::Present(_) => &mut totals.present,
        Presence::Untrusted => &mut totals.untrusted,
        Presence::Absent => &mut totals.absent,
        Presence::NoAnswer => &mut totals.no_answer,
    }
}
