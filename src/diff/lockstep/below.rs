//! Which causes are below a pair, and by which way. Causes that say the same are told as one.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::said::Said;
use super::words::{Reached, Why};
use super::{CauseKind, Lockstep, PairNo};
use crate::id::StorePath;

/// Causes that are told of a pair, the nearest; and derivations of each.
const MOST: usize = 48;

/// Whether there are causes below a pair. Each pair is looked at once, whoever asks.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Below {
    /// Some.
    any: bool,
    /// Some that are not merely the revision.
    others: bool,
}

/// All causes below some pairs, the nearest first.
#[derive(Debug, Default)]
struct Walk {
    /// How far, which pair differs by itself, and which pair led there; a root leads to itself.
    causes: Vec<(u32, PairNo, PairNo)>,
    /// For each pair the one that led there first.
    via: Vec<Option<PairNo>>,
}

impl Lockstep {
    pub(super) fn why_of(&mut self, pair: PairNo) -> Why {
        let revision_only = self.revision_only(pair);
        let mut causes = self.reached(&[pair], MOST);
        let more = causes.len() > MOST || self.cut;
        causes.truncate(MOST);
        let same_outputs = self.same_outputs(self.pairs[pair].base, self.pairs[pair].head);
        Why { causes, more, cut: self.cut, revision_only, same_outputs }
    }

    /// Whether there are causes, and all are of kind [`CauseKind::Revision`].
    pub(super) fn revision_only(&mut self, pair: PairNo) -> bool {
        self.look_below(pair);
        let below = self.pairs[pair].below.unwrap_or_default();
        below.any && !below.others && !self.cut
    }

    /// The causes below these pairs, the nearest first, with so many of the derivations of each.
    pub(super) fn reached(&mut self, roots: &[PairNo], drvs: usize) -> Vec<Reached> {
        let walk = self.walk(roots);
        let mut places: BTreeMap<usize, usize> = BTreeMap::new();
        let mut all: Vec<Reached> = Vec::new();
        for (_, no, via) in &walk.causes {
            let Some(cause) = self.pairs[*no].cause.clone() else { continue };
            let fold = self.fold(*no);
            let place = *places.entry(fold).or_insert(all.len());
            if place == all.len() {
                let chain = self.chain(&walk, *no, *via);
                all.push(Reached { cause, chain, fold, drvs: Vec::new(), count: 0 });
            }
            let both = self.both(*no);
            let reached = &mut all[place];
            reached.count += 1;
            if reached.drvs.len() < drvs {
                reached.drvs.push(both);
            }
        }
        all
    }

    /// The number that a pair's cause shares with all that say the same.
    fn fold(&mut self, pair: PairNo) -> usize {
        if let (None, Some(cause)) = (self.pairs[pair].fold, &self.pairs[pair].cause) {
            let next = self.folds.len();
            self.pairs[pair].fold = Some(*self.folds.entry(Said::of(cause)).or_insert(next));
        }
        self.pairs[pair].fold.unwrap_or_default()
    }

    /// Goes down from these pairs, level by level.
    fn walk(&self, roots: &[PairNo]) -> Walk {
        let mut walk = Walk { causes: Vec::new(), via: vec![None; self.pairs.len()] };
        let mut told = vec![false; self.pairs.len()];
        // Numbers depend on hashes; names are the same wherever the store is.
        let named = |pair: PairNo| (self.drvs[self.pairs[pair].head].name(), pair);
        let mut level: BTreeSet<(&str, PairNo)> = roots.iter().map(|root| named(*root)).collect();
        for (_, root) in &level {
            walk.via[*root] = Some(*root);
            told[*root] = true;
            walk.causes.extend(self.pairs[*root].cause.as_ref().map(|_| (0, *root, *root)));
        }
        let mut distance = 0;
        while !level.is_empty() {
            distance += 1;
            let mut next = BTreeSet::new();
            for (_, at) in level {
                let pair = &self.pairs[at];
                for input in &pair.inputs {
                    if walk.via[*input].is_none() {
                        walk.via[*input] = Some(at);
                        next.insert(named(*input));
                    }
                    if self.pairs[*input].cause.is_some() && !told[*input] && !pair.absorbed.contains(input) {
                        told[*input] = true;
                        walk.causes.push((distance, *input, at));
                    }
                }
            }
            level = next;
        }
        walk.causes.sort_by_cached_key(|(distance, pair, _)| (*distance, named(*pair)));
        walk
    }

    /// The way to a cause, from the root down.
    fn chain(&self, walk: &Walk, cause: PairNo, via: PairNo) -> Vec<(StorePath, StorePath)> {
        let mut chain = vec![self.both(cause)];
        let mut at = (via != cause).then_some(via);
        // Each was led to by one that was there before, so this ends at a root.
        while let Some(pair) = at {
            chain.push(self.both(pair));
            at = walk.via[pair].filter(|via| *via != pair);
        }
        chain.reverse();
        chain
    }

    fn both(&self, pair: PairNo) -> (StorePath, StorePath) {
        let of = |drv: usize| self.drvs[drv].path.clone();
        (of(self.pairs[pair].base), of(self.pairs[pair].head))
    }

    /// Looks at a pair and all below it, inputs first. Where forged .drvs need one another, the way back counts as
    /// nothing.
    fn look_below(&mut self, pair: PairNo) {
        let mut stack = vec![(pair, 0)];
        let mut open = BTreeSet::from([pair]);
        while let Some((at, next)) = stack.pop() {
            if self.pairs[at].below.is_some() {
                continue;
            }
            if let Some(input) = self.pairs[at].inputs.get(next).copied() {
                stack.push((at, next + 1));
                if self.pairs[input].below.is_none() && open.insert(input) {
                    stack.push((input, 0));
                }
                continue;
            }
            let kind = self.pairs[at].cause.as_ref().map(|cause: &Arc<_>| cause.kind);
            let own = Below { any: kind.is_some(), others: kind.is_some_and(|kind| kind != CauseKind::Revision) };
            let inputs = self.pairs[at].inputs.iter().filter_map(|input| self.pairs[*input].below);
            let below =
                inputs.fold(own, |own, input| Below { any: own.any || input.any, others: own.others || input.others });
            self.pairs[at].below = Some(below);
        }
    }
}
