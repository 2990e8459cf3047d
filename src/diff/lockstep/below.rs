//! Which causes are below a pair, and by which way. Each pair is looked at once, whoever asks.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::words::{Reached, Why};
use super::{CauseKind, Lockstep, PairNo};

/// Causes that are kept for each pair, the nearest.
const MOST: usize = 48;

/// What is below a pair.
#[derive(Debug, Clone, Default)]
pub(super) struct Below {
    /// How far, which pair differs by itself, and the next pair on the way there; the nearest first.
    causes: Vec<(u32, PairNo, PairNo)>,
    /// There are more.
    more: bool,
    /// Some cause is not merely the revision.
    others: bool,
}

impl Lockstep {
    pub(super) fn why_of(&mut self, pair: PairNo) -> Why {
        self.look_below(pair);
        let Some(below) = self.pairs[pair].below.clone() else { return Why::default() };
        let reached = |(_, cause, _): &(u32, PairNo, PairNo)| {
            Some(Reached { cause: Arc::clone(self.pairs[*cause].cause.as_ref()?), chain: self.chain(pair, *cause) })
        };
        let causes: Vec<Reached> = below.causes.iter().filter_map(reached).collect();
        let revision_only = !below.others && !causes.is_empty() && !self.cut;
        let same_outputs = self.same_outputs(self.pairs[pair].base, self.pairs[pair].head);
        Why { causes, more: below.more || self.cut, revision_only, same_outputs }
    }

    /// The way from a pair to a cause below it.
    fn chain(&self, from: PairNo, cause: PairNo) -> Vec<(crate::id::StorePath, crate::id::StorePath)> {
        let mut chain = Vec::new();
        let mut at = Some(from);
        // Ways lead to pairs that were looked at earlier, so they end.
        while let Some(pair) = at {
            let (base, head) = (self.pairs[pair].base, self.pairs[pair].head);
            chain.push((self.drvs[base].path.clone(), self.drvs[head].path.clone()));
            let next =
                self.pairs[pair].below.as_ref().and_then(|below| below.causes.iter().find(|(_, to, _)| *to == cause));
            at = next.map(|(_, _, via)| *via).filter(|via| *via != pair);
        }
        chain
    }

    /// Looks at a pair and all below it, inputs first. Where forged .drvs need one another, the way back counts as
    /// nothing.
    fn look_below(&mut self, pair: PairNo) {
        let mut stack = vec![(pair, 0)];
        let mut open = std::collections::BTreeSet::from([pair]);
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
            self.pairs[at].below = Some(self.folded(at));
        }
    }

    /// What is below a pair, from what is below its inputs.
    fn folded(&self, no: PairNo) -> Below {
        let pair = &self.pairs[no];
        let mut nearest: BTreeMap<PairNo, (u32, PairNo)> = BTreeMap::new();
        let mut folded = Below::default();
        if let Some(cause) = &pair.cause {
            nearest.insert(no, (0, no));
            folded.others = cause.kind != CauseKind::Revision;
        }
        for input in &pair.inputs {
            let Some(below) = &self.pairs[*input].below else { continue };
            let absorbed = pair.absorbed.contains(input);
            folded.more |= below.more;
            folded.others |= below.others;
            for (distance, cause, _) in &below.causes {
                if absorbed && cause == input {
                    continue;
                }
                let way = (distance + 1, *input);
                let known = nearest.entry(*cause).or_insert(way);
                *known = way.min(*known);
            }
        }
        let causes = nearest.into_iter().map(|(cause, (distance, via))| (distance, cause, via));
        folded.causes = causes.collect();
        folded.causes.sort_unstable();
        folded.more |= folded.causes.len() > MOST;
        folded.causes.truncate(MOST);
        folded
    }
}
