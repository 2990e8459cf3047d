//! Facts about store paths: what is asked, what was answered, what that refers to, who wants to know. Owns the
//! questions and the totals; does not know what a drv is.
//!
//! A path that a cache has is of use only with all that it refers to. So its references are asked too, and a present
//! path is *resolved* when all of them are: then it is whole, or lacks something that is neither valid nor present.

mod closure;

use std::collections::BTreeSet;

use super::{Found, Presence, Question, Totals};
use crate::id::{CacheId, DrvId, PathMap, StorePath};

/// Number of a path in the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct PathId(u32);

/// How a path stands, together with what it refers to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Known {
    /// Not all has been answered.
    Nothing,
    /// In a store where it counts.
    Valid,
    /// In a cache, with all that it refers to in a cache or valid.
    Whole,
    /// In a cache, but something that it refers to, perhaps not directly, is neither in a cache nor valid.
    Lacking,
    /// Neither.
    Missing,
}

#[derive(Debug)]
struct Fact {
    path: StorePath,
    answer: Option<Presence>,
    /// Drvs of which this is a wanted output; more than one for fixed outputs that several recipes make.
    users: Vec<DrvId>,
    /// Somebody wants to know: a drv, or a present path that refers to it.
    of_interest: bool,
    /// Somebody lets caches answer.
    caches: bool,
    /// Asked: not yet, the store alone, the caches too.
    asked: Asked,
    /// The store has said that it is not valid there.
    not_valid: bool,
    /// Of a present path: what it refers to, but for itself.
    references: Box<[PathId]>,
    /// Present paths of interest that refer to it.
    referrers: Vec<PathId>,
    /// References that were not resolved when they were counted, and are not yet.
    open: u32,
    counted: bool,
    lacking: bool,
    nar_size: u64,
    file_size: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Asked {
    No,
    Store,
    Caches,
}

/// A path that a fetch brings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Brought {
    /// Which path.
    pub path: StorePath,
    /// The cache that has it.
    pub cache: CacheId,
    /// Bytes of its NAR.
    pub nar_size: u64,
    /// Bytes to download; 0 if the cache does not say.
    pub file_size: u64,
}

/// What is to be done about a path of which somebody wants to know.
enum Step {
    /// See to it that it is asked; whether caches may answer.
    Interest(PathId, bool),
    /// It is present: look how its references stand. After the interest in them.
    Count(PathId),
}

/// The table of paths.
#[derive(Debug, Default)]
pub(super) struct Facts {
    facts: Vec<Fact>,
    /// For look-ups only; never iterated.
    index: PathMap<PathId>,
    to_ask: Vec<PathId>,
    /// Paths that are asked and not answered.
    open: u32,
    /// Present paths of interest that are not resolved.
    unresolved: u32,
    /// Grows with each path that is disproved.
    generation: u32,
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
            answer: None,
            users: Vec::new(),
            of_interest: false,
            caches: false,
            asked: Asked::No,
            not_valid: false,
            references: Box::default(),
            referrers: Vec::new(),
            open: 0,
            counted: false,
            lacking: false,
            nar_size: 0,
            file_size: 0,
        });
        id
    }

    pub(super) fn get(&self, path: &StorePath) -> Option<PathId> {
        self.index.get(path).copied()
    }

    fn fact(&self, id: PathId) -> &Fact {
        &self.facts[id.0 as usize]
    }

    fn fact_mut(&mut self, id: PathId) -> &mut Fact {
        &mut self.facts[id.0 as usize]
    }

    pub(super) fn known(&self, id: PathId) -> Known {
        let fact = self.fact(id);
        match fact.answer {
            None => Known::Nothing,
            Some(Presence::Valid) => Known::Valid,
            Some(Presence::Present(_)) if !fact.counted || fact.open > 0 => Known::Nothing,
            Some(Presence::Present(_)) if fact.lacking => Known::Lacking,
            Some(Presence::Present(_)) => Known::Whole,
            Some(Presence::Untrusted | Presence::Absent | Presence::NoAnswer) => Known::Missing,
        }
    }

    /// Whether the store does not have it, whatever caches say or will say.
    pub(super) fn is_not_valid(&self, id: PathId) -> bool {
        self.fact(id).not_valid
    }

    /// The drvs of which it is a wanted output.
    pub(super) fn users(&self, id: PathId) -> &[DrvId] {
        &self.fact(id).users
    }

    /// Whether somebody wants to know of it and its answer is not there.
    pub(super) fn is_asked(&self, id: PathId) -> bool {
        let fact = self.fact(id);
        fact.asked != Asked::No && fact.answer.is_none()
    }

    /// Whether it is answered or asked.
    pub(super) fn is_known_of(&self, id: PathId) -> bool {
        let fact = self.fact(id);
        fact.asked != Asked::No || fact.answer.is_some()
    }

    /// Whether somebody who wants to know of it lets caches answer.
    pub(super) fn lets_caches(&self, id: PathId) -> bool {
        self.fact(id).caches
    }

    /// The path and its cache, if a cache is where it is.
    pub(super) fn present(&self, id: PathId) -> Option<(&StorePath, CacheId)> {
        let fact = self.fact(id);
        match fact.answer {
            Some(Presence::Present(cache)) => Some((&fact.path, cache)),
            Some(Presence::Valid | Presence::Untrusted | Presence::Absent | Presence::NoAnswer) | None => None,
        }
    }

    /// How many paths of interest a cache has, and the bytes of their NARs.
    pub(super) fn in_caches(&self) -> (u32, u64) {
        let present = |fact: &&Fact| fact.of_interest && matches!(fact.answer, Some(Presence::Present(_)));
        let present = self.facts.iter().filter(present);
        present.fold((0, 0), |(paths, bytes), fact| (paths + 1, fact.nar_size.saturating_add(bytes)))
    }

    /// Changes whenever a resolved path may stand otherwise than before.
    pub(super) fn generation(&self) -> u32 {
        self.generation
    }

    /// A drv wants this path. To be called once for each drv and path. Gives the drvs for which something is known now.
    pub(super) fn want(&mut self, id: PathId, drv: DrvId, caches: bool) -> Vec<DrvId> {
        self.fact_mut(id).users.push(drv);
        self.follow(vec![Step::Interest(id, caches)])
    }

    /// Does these steps and whatever they bring up; gives the drvs for which something is known now.
    fn follow(&mut self, mut steps: Vec<Step>) -> Vec<DrvId> {
        let mut users = Vec::new();
        while let Some(step) = steps.pop() {
            match step {
                Step::Interest(id, caches) => self.interest(id, caches, &mut steps),
                Step::Count(id) => {
                    if self.count_references(id) {
                        users.extend(self.resolved(id));
                    }
                }
            }
        }
        users
    }

    fn interest(&mut self, id: PathId, caches: bool, steps: &mut Vec<Step>) {
        let fact = self.fact_mut(id);
        fact.caches |= caches;
        let new = !std::mem::replace(&mut fact.of_interest, true);
        let (answer, asked) = (fact.answer, fact.asked);
        if new {
            self.totals.paths += 1;
            if let Some(presence) = answer {
                *count(&mut self.totals, presence) += 1;
                self.look_below(id, steps);
            }
        }
        // What only the store was asked, for somebody who does not let caches answer, is asked again.
        let again = answer == Some(Presence::Absent) && asked == Asked::Store && caches;
        if again {
            self.fact_mut(id).answer = None;
            self.totals.absent = self.totals.absent.saturating_sub(1);
        }
        if again || answer.is_none() && asked == Asked::No {
            self.ask(id);
        }
    }

    fn ask(&mut self, id: PathId) {
        let fact = self.fact_mut(id);
        fact.asked = if fact.caches { Asked::Caches } else { Asked::Store };
        self.open += 1;
        self.to_ask.push(id);
    }

    /// A path of interest has been answered: if it is present, so are its references of interest.
    fn look_below(&mut self, id: PathId, steps: &mut Vec<Step>) {
        if matches!(self.fact(id).answer, Some(Presence::Present(_))) {
            self.unresolved += 1;
            steps.push(Step::Count(id));
            steps.extend(self.fact(id).references.iter().map(|reference| Step::Interest(*reference, true)));
        }
    }

    /// Whether nothing that it refers to is open.
    fn count_references(&mut self, id: PathId) -> bool {
        let references = self.fact(id).references.clone();
        let (mut open, mut lacking) = (0, false);
        for reference in &references {
            match self.known(*reference) {
                Known::Nothing => open += 1,
                Known::Missing | Known::Lacking => lacking = true,
                Known::Valid | Known::Whole => {}
            }
            self.fact_mut(*reference).referrers.push(id);
        }
        let fact = self.fact_mut(id);
        (fact.counted, fact.open, fact.lacking) = (true, open, lacking);
        open == 0
    }

    /// A path is resolved: those that refer to it may be, too. Each path comes here once for each answer.
    fn resolved(&mut self, id: PathId) -> Vec<DrvId> {
        let mut users = Vec::new();
        let mut work = vec![id];
        while let Some(id) = work.pop() {
            let bad = matches!(self.known(id), Known::Missing | Known::Lacking);
            let fact = self.fact(id);
            users.extend(&fact.users);
            if matches!(fact.answer, Some(Presence::Present(_))) {
                self.unresolved = self.unresolved.saturating_sub(1);
            }
            for referrer in self.fact(id).referrers.clone() {
                let fact = self.fact_mut(referrer);
                // Those that are not open have come after it was resolved.
                if fact.open > 0 {
                    fact.open -= 1;
                    fact.lacking |= bad;
                    if fact.open == 0 {
                        work.push(referrer);
                    }
                }
            }
        }
        users
    }

    /// Takes an answer; gives the drvs for which something is known now. The first answer stands.
    pub(super) fn learn(&mut self, found: &Found) -> Vec<DrvId> {
        let id = self.intern(&found.path);
        let Fact { answer: None, asked, caches, .. } = *self.fact(id) else { return Vec::new() };
        if asked != Asked::No {
            self.open = self.open.saturating_sub(1);
        }
        self.fact_mut(id).not_valid = found.presence != Presence::Valid;
        if asked == Asked::Store && caches && found.presence == Presence::Absent {
            // Meanwhile somebody came who lets caches answer.
            self.ask(id);
            return Vec::new();
        }
        if matches!(found.presence, Presence::Present(_)) {
            let references: BTreeSet<PathId> = found.references.iter().map(|path| self.intern(path)).collect();
            self.fact_mut(id).references = references.into_iter().filter(|reference| *reference != id).collect();
        }
        let fact = self.fact_mut(id);
        fact.answer = Some(found.presence);
        (fact.nar_size, fact.file_size) = (found.nar_size, found.file_size);
        if !fact.of_interest {
            return Vec::new();
        }
        *count(&mut self.totals, found.presence) += 1;
        let mut steps = Vec::new();
        self.look_below(id, &mut steps);
        if steps.is_empty() { self.resolved(id) } else { self.follow(steps) }
    }

    /// The paths that have to be asked and were not given out; those answered meanwhile are left out.
    pub(super) fn questions(&mut self) -> Vec<Question> {
        let ids = std::mem::take(&mut self.to_ask);
        let mut questions = Vec::new();
        for id in ids {
            let fact = self.fact_mut(id);
            if fact.answer.is_none() {
                fact.asked = if fact.caches { Asked::Caches } else { Asked::Store };
                questions.push(Question { path: fact.path.clone(), caches: fact.caches });
            }
        }
        questions
    }

    /// Whether every path of interest is answered.
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
