//! Walks over the graph: closure, cycles, longest paths. Iterative throughout: real graphs are hundreds of drvs deep.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

use petgraph::algo::toposort;
use petgraph::visit::DfsPostOrder;

use super::dag::{Graph, drv, node};
use crate::id::DrvId;

/// The chain of drvs that takes longest.
#[derive(Debug, Clone, PartialEq)]
pub struct CriticalPath {
    /// The sum of its costs.
    pub seconds: f64,
    /// The drvs on it, inputs first.
    pub drvs: Vec<DrvId>,
}

impl Graph {
    /// These drvs and everything that they need, as far as loaded; each once, inputs first.
    #[must_use]
    pub fn closure(&self, roots: &[DrvId]) -> Vec<DrvId> {
        let mut order = Vec::new();
        let mut walk = DfsPostOrder::empty(&self.dag);
        for root in roots {
            walk.move_to(node(*root));
            while let Some(next) = walk.next(&self.dag) {
                order.push(drv(next));
            }
        }
        order
    }

    /// Some drvs that need one another in a ring, each needing the next and the last needing the first. A .drv names
    /// its inputs by hash, so this takes a forged store; everything here ends nonetheless.
    #[must_use]
    pub fn cycle(&self) -> Option<Vec<DrvId>> {
        let start = drv(toposort(&self.dag, None).err()?.node_id());
        let mut from: BTreeMap<DrvId, DrvId> = BTreeMap::new();
        let mut queue = VecDeque::from([start]);
        while let Some(at) = queue.pop_front() {
            for (input, _) in self.inputs(at) {
                if input == start {
                    return Some(ring(&from, start, at));
                }
                if let Entry::Vacant(new) = from.entry(input) {
                    new.insert(at);
                    queue.push_back(input);
                }
            }
        }
        None
    }

    /// For each drv, by index: its cost plus the longest path among its inputs. `cost` is in seconds, `None` for drvs
    /// with which nobody waits (nothing has to be done for them): a path ends there.
    #[must_use]
    pub fn longest_below(&self, cost: impl Fn(DrvId) -> Option<f64>) -> Vec<f64> {
        let mut longest = vec![0.0; self.len()];
        let all: Vec<DrvId> = self.dag.node_indices().map(drv).collect();
        for id in self.closure(&all) {
            if let Some(own) = cost(id) {
                let below = self.inputs(id).map(|(input, _)| longest[input.index()]).fold(0.0, f64::max);
                longest[id.index()] = own + below;
            }
        }
        longest
    }

    /// The longest path of all; `cost` as in [`Self::longest_below`]. Among equals the smallest id goes first. `None`
    /// if no drv has a cost.
    #[must_use]
    pub fn critical_path(&self, cost: impl Fn(DrvId) -> Option<f64>) -> Option<CriticalPath> {
        let longest = self.longest_below(&cost);
        let better = |a: &DrvId, b: &DrvId| {
            longest[a.index()].total_cmp(&longest[b.index()]).then_with(|| b.cmp(a)) // max_by, so the smaller id last
        };
        let costly = |id: &DrvId| cost(*id).is_some();
        let top = self.dag.node_indices().map(drv).filter(costly).max_by(better)?;
        let mut seen = BTreeSet::from([top]);
        let mut drvs = vec![top];
        let mut at = top;
        while let Some(next) = self.inputs(at).map(|(input, _)| input).filter(costly).max_by(better) {
            if !seen.insert(next) {
                break;
            }
            drvs.push(next);
            at = next;
        }
        drvs.reverse();
        Some(CriticalPath { seconds: longest[top.index()], drvs })
    }
}

/// The way from `start` to `last` along the links by which a walk came.
fn ring(from: &BTreeMap<DrvId, DrvId>, start: DrvId, last: DrvId) -> Vec<DrvId> {
    let mut members = vec![last];
    let mut at = last;
    while at != start {
        let Some(before) = from.get(&at) else { break };
        members.push(*before);
        at = *before;
    }
    members.reverse();
    members
}
