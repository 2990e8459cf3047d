//! What is below a present path: what it lacks, what has to come with it, and what follows when it turns out not to be
//! there.

use std::collections::{BTreeSet, HashSet};

use super::{Brought, Facts, Known, PathId, count};
use crate::diff::plan::Presence;
use crate::id::{DrvId, StorePath};

impl Facts {
    /// A path that was thought present is not to be had; gives the drvs for which something has changed.
    pub(in crate::diff::plan) fn disprove(&mut self, id: PathId) -> Vec<DrvId> {
        match self.fact(id).answer {
            Some(Presence::Present(_)) => self.deny_and_tell(id),
            Some(Presence::Valid | Presence::Untrusted | Presence::Absent | Presence::NoAnswer) | None => Vec::new(),
        }
    }

    /// The same of a path that was valid: whoever had it has gone.
    pub(in crate::diff::plan) fn lose(&mut self, id: PathId) -> Vec<DrvId> {
        self.deny_and_tell(id)
    }

    fn deny_and_tell(&mut self, id: PathId) -> Vec<DrvId> {
        let known = self.known(id);
        if !self.deny(id) {
            return Vec::new();
        }
        if known == Known::Nothing {
            return if self.fact(id).of_interest { self.resolved(id) } else { Vec::new() };
        }
        let mut users = Vec::new();
        let mut seen = HashSet::from([id]);
        let mut work = vec![id];
        while let Some(id) = work.pop() {
            users.extend(&self.fact(id).users);
            for referrer in self.fact(id).referrers.clone() {
                let fact = self.fact_mut(referrer);
                fact.lacking = true;
                if fact.open == 0 && seen.insert(referrer) {
                    work.push(referrer);
                }
            }
        }
        users
    }

    /// Makes a present or valid path an absent one; false if it is neither.
    fn deny(&mut self, id: PathId) -> bool {
        let fact = self.fact(id);
        let Some(presence @ (Presence::Present(_) | Presence::Valid)) = fact.answer else { return false };
        let is_present = presence != Presence::Valid;
        let (of_interest, unresolved) = (fact.of_interest, is_present && (!fact.counted || fact.open > 0));
        if of_interest {
            *count(&mut self.totals, presence) -= 1;
            self.totals.absent += 1;
            self.unresolved = self.unresolved.saturating_sub(u32::from(unresolved));
        }
        let fact = self.fact_mut(id);
        (fact.answer, fact.open, fact.not_valid) = (Some(Presence::Absent), 0, true);
        self.generation += 1;
        true
    }

    /// Once nothing is open any more: records that refer to each other in a ring, which no Nix writes, are as good as
    /// none. Gives the drvs for which something has changed.
    pub(in crate::diff::plan) fn break_rings(&mut self) -> Vec<DrvId> {
        if self.open > 0 || self.unresolved == 0 {
            return Vec::new();
        }
        let mut graph = petgraph::graphmap::DiGraphMap::<PathId, ()>::new();
        #[expect(clippy::cast_possible_truncation, reason = "as in intern")]
        let ids = (0..self.facts.len()).map(|at| PathId(at as u32));
        for id in ids.filter(|id| self.fact(*id).open > 0) {
            let open = self.fact(id).references.iter().filter(|reference| self.known(**reference) == Known::Nothing);
            graph.extend(open.map(|reference| (id, *reference)));
        }
        let mut users = Vec::new();
        for ring in petgraph::algo::tarjan_scc(&graph).into_iter().filter(|ring| ring.len() > 1) {
            for id in &ring {
                self.deny(*id);
            }
            for id in ring {
                users.extend(self.resolved(id));
            }
        }
        users
    }

    /// What a lacking path needs that is neither valid nor in a cache.
    pub(in crate::diff::plan) fn lacks(&self, id: PathId) -> BTreeSet<PathId> {
        let mut lacks = BTreeSet::new();
        let mut seen = HashSet::from([id]);
        let mut work = vec![id];
        while let Some(id) = work.pop() {
            for reference in &self.fact(id).references {
                match self.known(*reference) {
                    Known::Missing => {
                        lacks.insert(*reference);
                    }
                    Known::Lacking if seen.insert(*reference) => work.push(*reference),
                    Known::Lacking | Known::Nothing | Known::Valid | Known::Whole => {}
                }
            }
        }
        lacks
    }

    /// Whether this is one of these paths.
    pub(in crate::diff::plan) fn is_one_of(&self, path: &StorePath, ids: &BTreeSet<PathId>) -> Option<PathId> {
        self.get(path).filter(|id| ids.contains(id))
    }

    /// The present paths among these and below them, references before referrers.
    pub(in crate::diff::plan) fn closure(&self, roots: &[PathId]) -> Vec<PathId> {
        let mut order = Vec::new();
        let mut seen = HashSet::new();
        // A path is left after all below it.
        let mut work: Vec<(PathId, bool)> = roots.iter().rev().map(|root| (*root, false)).collect();
        while let Some((id, leave)) = work.pop() {
            if leave {
                order.push(id);
                continue;
            }
            if self.present(id).is_some() && seen.insert(id) {
                work.push((id, true));
                work.extend(self.fact(id).references.iter().map(|reference| (*reference, false)));
            }
        }
        order
    }

    /// What a path refers to, but for itself.
    pub(in crate::diff::plan) fn references(&self, id: PathId) -> impl Iterator<Item = &StorePath> {
        self.fact(id).references.iter().map(|reference| &self.fact(*reference).path)
    }

    /// What a cache says of a present path.
    pub(in crate::diff::plan) fn brought(&self, id: PathId) -> Option<Brought> {
        let (path, cache) = self.present(id)?;
        let fact = self.fact(id);
        Some(Brought { path: path.clone(), cache, nar_size: fact.nar_size, file_size: fact.file_size })
    }
}
