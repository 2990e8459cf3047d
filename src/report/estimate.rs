//! How long it will take: the drvs that are left, played on the builders there are, the longest chain first. Only
//! from measured durations; what has none is counted, never guessed.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use crate::event::Moment;
use crate::id::{BuilderId, DrvId, System};

use super::summary::Summary;

/// What is left to build.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Estimate {
    /// Seconds until all is built. A lower bound while `unknown` is not 0.
    pub seconds: f64,
    /// Drvs to build without a measured duration; they count as 0 s.
    pub unknown: usize,
    /// Drvs to build with one.
    pub known: usize,
    /// The chain of drvs that takes longest, the first to be built first.
    pub chain: Vec<DrvId>,
    /// Seconds of that chain.
    pub chain_seconds: f64,
}

/// The estimate for all drvs that have not ended; `None` if nothing is known of any of them, or nothing is left.
#[must_use]
pub fn remaining(summary: &Summary, now: Moment) -> Option<Estimate> {
    let mut left = Left::new(summary, now);
    if left.known == 0 {
        return None;
    }
    let chain = left.chain();
    let chain_seconds = chain.first().and_then(|i| left.rank.get(*i)).map_or(0.0, |rank| rank.0 as f64 / 1e6);
    let seconds = left.play(summary).max(chain_seconds);
    let chain = chain.into_iter().map(|i| left.ids[i]).collect();
    Some(Estimate { seconds, unknown: left.unknown, known: left.known, chain, chain_seconds })
}

/// The drvs that are left, by index.
struct Left {
    ids: Vec<DrvId>,
    /// What each still takes.
    cost: Vec<Moment>,
    system: Vec<System>,
    /// Where it runs already.
    at: Vec<Option<BuilderId>>,
    users: Vec<Vec<usize>>,
    missing: Vec<usize>,
    /// The cost of the longest chain from each on, itself included.
    rank: Vec<Moment>,
    known: usize,
    unknown: usize,
}

impl Left {
    fn new(s: &Summary, now: Moment) -> Self {
        let ids: Vec<DrvId> = s.drvs.iter().filter(|(_, drv)| drv.ended.is_none()).map(|(id, _)| *id).collect();
        let index: BTreeMap<DrvId, usize> = ids.iter().enumerate().map(|(i, id)| (*id, i)).collect();
        let n = ids.len();
        let mut left = Self {
            ids,
            cost: Vec::with_capacity(n),
            system: Vec::with_capacity(n),
            at: Vec::with_capacity(n),
            users: vec![Vec::new(); n],
            missing: vec![0; n],
            rank: Vec::new(),
            known: 0,
            unknown: 0,
        };
        for (i, drv) in left.ids.iter().filter_map(|id| s.drvs.get(id)).enumerate() {
            let running =
                drv.attempts.last().and_then(|id| s.attempts.get(id)).filter(|attempt| attempt.ended.is_none());
            let spent = running.map_or(0.0, |attempt| attempt.seconds(now));
            let expected = drv.expected.filter(|_| !drv.fetch);
            left.known += usize::from(expected.is_some());
            left.unknown += usize::from(expected.is_none() && !drv.fetch);
            left.cost.push(Moment::from_seconds((expected.unwrap_or(0.0) - spent).max(0.0)));
            left.system.push(drv.system.clone());
            left.at.push(running.map(|attempt| attempt.builder));
            for input in drv.inputs.iter().filter_map(|input| index.get(input)) {
                left.users[*input].push(i);
                left.missing[i] += 1;
            }
        }
        left.rank = left.ranks();
        left
    }

    /// Ranks from the end backwards; what runs in a circle keeps rank 0.
    fn ranks(&self) -> Vec<Moment> {
        let mut order = Vec::with_capacity(self.ids.len());
        let mut missing = self.missing.clone();
        let mut ready: Vec<usize> = (0..missing.len()).filter(|i| missing[*i] == 0).collect();
        while let Some(i) = ready.pop() {
            order.push(i);
            for &user in &self.users[i] {
                missing[user] -= 1;
                if missing[user] == 0 {
                    ready.push(user);
                }
            }
        }
        let mut rank = vec![Moment(0); self.ids.len()];
        for i in order.into_iter().rev() {
            let after = self.users[i].iter().map(|user| rank[*user].0).max().unwrap_or(0);
            rank[i] = Moment(after.saturating_add(self.cost[i].0));
        }
        rank
    }

    /// The chain with the highest rank.
    fn chain(&self) -> Vec<usize> {
        let first = (0..self.ids.len()).filter(|i| self.missing[*i] == 0).max_by_key(|i| (self.rank[*i], Reverse(*i)));
        let mut chain: Vec<usize> = first.into_iter().collect();
        while let Some(last) = chain.last() {
            let next = self.users[*last].iter().max_by_key(|user| (self.rank[**user], Reverse(**user)));
            match next {
                Some(next) if chain.len() < self.ids.len() => chain.push(*next),
                _ => break,
            }
        }
        chain
    }

    /// Plays the rest on the builders, the highest rank first, and gives the seconds that it takes.
    fn play(&mut self, s: &Summary) -> f64 {
        let mut free: BTreeMap<BuilderId, u32> = s.builders.iter().map(|(id, builder)| (*id, builder.slots)).collect();
        let mut running: BinaryHeap<Reverse<(Moment, usize)>> = BinaryHeap::new();
        let mut ready: BTreeMap<System, BinaryHeap<(Moment, Reverse<usize>)>> = BTreeMap::new();
        for i in 0..self.ids.len() {
            if let Some(builder) = self.at[i] {
                free.entry(builder).and_modify(|slots| *slots = slots.saturating_sub(1));
                running.push(Reverse((self.cost[i], i)));
            } else if self.missing[i] == 0 {
                ready.entry(self.system[i].clone()).or_default().push((self.rank[i], Reverse(i)));
            }
        }
        let mut now = Moment(0);
        loop {
            self.start(s, now, &mut free, &mut ready, &mut running);
            let Some(Reverse((at, i))) = running.pop() else { break };
            now = now.max(at);
            if let Some(slots) = self.at[i].and_then(|builder| free.get_mut(&builder)) {
                *slots += 1;
            }
            for user in std::mem::take(&mut self.users[i]) {
                self.missing[user] = self.missing[user].saturating_sub(1);
                if self.missing[user] == 0 && self.at[user].is_none() {
                    ready.entry(self.system[user].clone()).or_default().push((self.rank[user], Reverse(user)));
                }
            }
        }
        now.seconds()
    }

    /// Starts all that finds a slot.
    fn start(
        &mut self,
        s: &Summary,
        now: Moment,
        free: &mut BTreeMap<BuilderId, u32>,
        ready: &mut BTreeMap<System, BinaryHeap<(Moment, Reverse<usize>)>>,
        running: &mut BinaryHeap<Reverse<(Moment, usize)>>,
    ) {
        for (system, queue) in ready {
            while !queue.is_empty() {
                let slot = free.iter_mut().find(|(id, slots)| {
                    let able =
                        |systems: &[System]| system.0 == "builtin" || systems.is_empty() || systems.contains(system);
                    **slots > 0 && s.builders.get(id).is_some_and(|builder| able(&builder.systems))
                });
                let Some((builder, slots)) = slot else { break };
                let Some((_, Reverse(i))) = queue.pop() else { break };
                *slots -= 1;
                self.at[i] = Some(*builder);
                running.push(Reverse((Moment(now.0.saturating_add(self.cost[i].0)), i)));
            }
        }
    }
}

/// Names of a chain: its most expensive drvs and the last, which goes by the attr's name where it is one's result.
#[must_use]
pub fn chain_names(summary: &Summary, chain: &[DrvId]) -> Vec<String> {
    const SHOWN: usize = 4;
    let Some((last, rest)) = chain.split_last() else { return Vec::new() };
    let cost = |drv: &DrvId| summary.drvs.get(drv).and_then(|drv| drv.expected).unwrap_or(0.0);
    let mut long: Vec<usize> = (0..rest.len()).collect();
    long.sort_by(|a, b| cost(&rest[*b]).total_cmp(&cost(&rest[*a])));
    long.truncate(SHOWN - 1);
    long.sort_unstable();
    let mut names: Vec<String> = long.into_iter().map(|i| summary.drv_name(rest[i])).collect();
    let attr = summary.attrs.values().find(|attr| attr.planned.as_ref().is_some_and(|p| p.drv == Some(*last)));
    names.push(attr.map_or_else(|| summary.drv_name(*last), |attr| attr.name.to_string()));
    names
}
