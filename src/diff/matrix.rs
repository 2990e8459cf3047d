//! Packing what must be built into the rows of a CI matrix. Pure.
//!
//! A row is one machine of its own: it costs the seconds of its drvs, each once, and a drv that stands in two rows is
//! built twice. Three rules carry it.
//! - Attrs of one system that share a drv that must be built are one *cluster* and stay in one row, unless
//!   [`Limits::split`] gives up on that. So a drv is in two rows only for that reason, or because attrs of two systems
//!   need it; [`Packing::shared`] names each such drv.
//! - A row is of one system. Clusters that need different features of a machine are in different rows as well, unless
//!   the work of their system is not worth a second machine or there are too few rows.
//! - Within that, the longest row is as short as a greedy search makes it: never longer than 4/3 of what the best
//!   packing of the same clusters would give, as long as no rows of different features had to be joined.

mod bins;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use crate::id::System;

use bins::{Unit, lay};

/// One drv that must be built.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct DrvWork {
    /// What it is expected to take.
    pub seconds: f64,
    /// What a machine must offer to build it.
    pub features: Vec<String>,
}

/// One attr that something must be built for.
#[derive(Debug, Clone, PartialEq)]
pub struct AttrWork {
    /// The machine that it is for.
    pub system: System,
    /// Places in [`Work::drvs`]: all that must be built for it, itself included.
    pub drvs: BTreeSet<usize>,
}

/// All that must be built.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Work {
    /// The drvs.
    pub drvs: Vec<DrvWork>,
    /// The attrs. One without drvs gets no row.
    pub attrs: Vec<AttrWork>,
}

/// What a packing has to keep to.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Limits {
    /// Most rows.
    pub rows: usize,
    /// Seconds of work for which one more row is worth its start: work of one system gets at most so many rows as it
    /// has times this.
    pub least: f64,
    /// Attrs that share a drv may be in different rows where that makes the longest row shorter.
    pub split: bool,
}

/// One row.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// Its attrs, in order.
    pub attrs: Vec<usize>,
    /// What is built in it.
    pub drvs: BTreeSet<usize>,
    /// The machine that it needs.
    pub system: System,
    /// All that its drvs ask of the machine.
    pub features: BTreeSet<String>,
    /// The sum over its drvs.
    pub seconds: f64,
}

/// Rows, the longest first.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Packing {
    /// The rows; none if nothing must be built.
    pub rows: Vec<Row>,
    /// The drvs that are built in more than one row, and in which.
    pub shared: BTreeMap<usize, Vec<usize>>,
}

/// There is work for more systems than there may be rows.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("there is work for {} systems and there may be {rows} rows", systems.len())]
pub struct TooFewRows {
    /// The systems.
    pub systems: Vec<System>,
    /// [`Limits::rows`].
    pub rows: usize,
}

/// What may be in the same row.
struct Group {
    system: System,
    features: BTreeSet<String>,
    units: Vec<Unit>,
}

impl Group {
    /// The distinct drvs of all its units.
    fn seconds(&self, work: &Work) -> f64 {
        let drvs: BTreeSet<usize> = self.units.iter().flat_map(|unit| unit.drvs.iter().copied()).collect();
        seconds(work, &drvs)
    }
}

/// Packs the work.
pub fn pack(work: &Work, limits: Limits) -> Result<Packing, TooFewRows> {
    let mut groups = groups(work, limits.split);
    join_small(work, &mut groups, limits.least);
    join_to(work, &mut groups, limits.rows)?;
    let rows = allot(work, &groups, limits);
    let mut packed: Vec<Row> = Vec::new();
    for (group, rows) in groups.iter().zip(rows) {
        for bin in lay(work, &group.units, rows, limits.split) {
            let units = bin.into_iter().filter_map(|at| group.units.get(at));
            packed.push(row(work, group, units));
        }
    }
    packed.sort_by(|a, b| b.seconds.total_cmp(&a.seconds).then_with(|| a.attrs.cmp(&b.attrs)));
    let mut places: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for (at, row) in packed.iter().enumerate() {
        row.drvs.iter().for_each(|drv| places.entry(*drv).or_default().push(at));
    }
    places.retain(|_, rows| rows.len() > 1);
    Ok(Packing { rows: packed, shared: places })
}

fn row<'a>(work: &Work, group: &Group, units: impl Iterator<Item = &'a Unit>) -> Row {
    let (mut attrs, mut drvs) = (Vec::new(), BTreeSet::new());
    for unit in units {
        attrs.extend(unit.attrs.iter().copied());
        drvs.extend(unit.drvs.iter().copied());
    }
    attrs.sort_unstable();
    Row { attrs, system: group.system.clone(), features: features(work, &drvs), seconds: seconds(work, &drvs), drvs }
}

fn seconds(work: &Work, drvs: &BTreeSet<usize>) -> f64 {
    drvs.iter().filter_map(|drv| work.drvs.get(*drv)).map(|drv| drv.seconds).sum()
}

fn features(work: &Work, drvs: &BTreeSet<usize>) -> BTreeSet<String> {
    drvs.iter().filter_map(|drv| work.drvs.get(*drv)).flat_map(|drv| drv.features.iter().cloned()).collect()
}

/// Clusters by system and by what they ask of a machine; with `split`, attrs.
fn groups(work: &Work, split: bool) -> Vec<Group> {
    let mut systems: BTreeMap<&System, Vec<usize>> = BTreeMap::new();
    for (at, attr) in work.attrs.iter().enumerate().filter(|(_, attr)| !attr.drvs.is_empty()) {
        systems.entry(&attr.system).or_default().push(at);
    }
    let mut groups: BTreeMap<(&System, BTreeSet<String>), Vec<Unit>> = BTreeMap::new();
    for (system, attrs) in systems {
        let clusters = if split { attrs.into_iter().map(|attr| vec![attr]).collect() } else { clusters(work, &attrs) };
        for attrs in clusters {
            let drvs: BTreeSet<usize> = attrs.iter().flat_map(|attr| work.attrs[*attr].drvs.iter().copied()).collect();
            let unit = Unit { seconds: seconds(work, &drvs), attrs, drvs };
            groups.entry((system, features(work, &unit.drvs))).or_default().push(unit);
        }
    }
    groups.into_iter().map(|((system, features), units)| Group { system: system.clone(), features, units }).collect()
}

/// Attrs that hang together by drvs that must be built, each cluster in order.
fn clusters(work: &Work, attrs: &[usize]) -> Vec<Vec<usize>> {
    let mut parent: Vec<usize> = (0..attrs.len()).collect();
    let mut first: BTreeMap<usize, usize> = BTreeMap::new();
    for (at, attr) in attrs.iter().enumerate() {
        for drv in &work.attrs[*attr].drvs {
            let other = *first.entry(*drv).or_insert(at);
            let (a, b) = (find(&mut parent, at), find(&mut parent, other));
            parent[a.max(b)] = a.min(b);
        }
    }
    let mut clusters: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for (at, attr) in attrs.iter().enumerate() {
        clusters.entry(find(&mut parent, at)).or_default().push(*attr);
    }
    clusters.into_values().collect()
}

/// The first of the cluster that this one is in.
fn find(parent: &mut [usize], mut at: usize) -> usize {
    while parent[at] != at {
        parent[at] = parent[parent[at]];
        at = parent[at];
    }
    at
}

/// Where all the work of a system is not worth a second machine, features make no difference.
fn join_small(work: &Work, groups: &mut Vec<Group>, least: f64) {
    let systems: BTreeSet<System> = groups.iter().map(|group| group.system.clone()).collect();
    for system in systems {
        let of = |group: &&Group| group.system == system;
        if groups.iter().filter(of).map(|group| group.seconds(work)).sum::<f64>() < 2.0 * least {
            while let Some((a, b)) = two_smallest(work, groups, Some(&system)) {
                join(groups, a, b);
            }
        }
    }
}

/// Joins groups of one system, the smallest first, until each can have a row.
fn join_to(work: &Work, groups: &mut Vec<Group>, rows: usize) -> Result<(), TooFewRows> {
    while groups.len() > rows {
        let Some((a, b)) = two_smallest(work, groups, None) else {
            return Err(TooFewRows { systems: groups.iter().map(|group| group.system.clone()).collect(), rows });
        };
        join(groups, a, b);
    }
    Ok(())
}

/// The two groups of one system that have the least work together.
fn two_smallest(work: &Work, groups: &[Group], of: Option<&System>) -> Option<(usize, usize)> {
    let costs: Vec<f64> = groups.iter().map(|group| group.seconds(work)).collect();
    let mut best: Option<(f64, (usize, usize))> = None;
    for (a, left) in groups.iter().enumerate() {
        for (b, right) in groups.iter().enumerate().skip(a + 1) {
            let joins = left.system == right.system && of.is_none_or(|system| *system == left.system);
            let cost = costs[a] + costs[b];
            if joins && best.is_none_or(|(known, _)| cost < known) {
                best = Some((cost, (a, b)));
            }
        }
    }
    best.map(|(_, pair)| pair)
}

fn join(groups: &mut Vec<Group>, a: usize, b: usize) {
    let Group { features, units, .. } = groups.remove(b.max(a));
    let kept = &mut groups[a.min(b)];
    kept.features.extend(features);
    kept.units.extend(units);
}

/// How many rows each group gets. One more always goes to the group whose longest row is the longest of all; in the
/// end each gives back those that do not make the longest row of all any shorter.
fn allot(work: &Work, groups: &[Group], limits: Limits) -> Vec<usize> {
    let most: Vec<usize> = groups.iter().map(|group| most_rows(work, group, limits)).collect();
    let longest = |group: &Group, rows: usize| match limits.split {
        // Laying them anew for each number of rows takes too long where drvs overlap: nothing shorter can be hoped for.
        true => group.units.iter().map(|unit| unit.seconds).fold(group.seconds(work) / rows as f64, f64::max),
        false => bins::longest(work, &group.units, rows),
    };
    // More rows may by accident give a longer longest row; fewer may then be used.
    let mut known: Vec<Vec<f64>> = groups.iter().map(|group| vec![longest(group, 1)]).collect();
    let best = |known: &[f64]| known.iter().copied().fold(f64::INFINITY, f64::min);
    while known.iter().map(Vec::len).sum::<usize>() < limits.rows {
        let longest_group = (0..groups.len()).max_by(|a, b| best(&known[*a]).total_cmp(&best(&known[*b])));
        let Some(at) = longest_group.filter(|at| known[*at].len() < most[*at]) else { break };
        let next = longest(&groups[at], known[at].len() + 1);
        known[at].push(next);
    }
    let overall = known.iter().map(|known| best(known)).fold(0.0, f64::max);
    let enough =
        |known: &Vec<f64>| known.iter().position(|seconds| *seconds <= overall).map_or(known.len(), |at| at + 1);
    known.iter().map(enough).collect()
}

/// As many rows as there are units, and as the work is worth.
fn most_rows(work: &Work, group: &Group, limits: Limits) -> usize {
    let worth = group.seconds(work) / limits.least;
    let worth = if worth.is_finite() { worth as usize } else { usize::MAX };
    group.units.len().min(worth.max(1))
}
