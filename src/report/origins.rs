//! Where a change begins: drvs that had to be built although all that they need was there, so that something about them
//! is new, or no cache has it. All else that is built lies above them.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use crate::id::DrvId;
use crate::record::history::Origin;

use super::summary::{Drv, Summary};

/// Origins that are kept of a run, and those among which they are looked for.
const KEPT: usize = 5;
const LOOKED_AT: usize = 64;

/// Those under most attrs, of these those under most drvs.
#[must_use]
pub fn of(s: &Summary) -> Vec<Origin> {
    let to_build = |drv: &Drv| !drv.fetch;
    let mut users: BTreeMap<DrvId, Vec<DrvId>> = BTreeMap::new();
    for (id, drv) in s.drvs.iter().filter(|(_, drv)| to_build(drv)) {
        for input in drv.inputs.iter().filter(|input| s.drvs.get(input).is_some_and(to_build)) {
            users.entry(*input).or_default().push(*id);
        }
    }
    let attrs = attrs_above(s, &users);
    let begins = |drv: &Drv| drv.inputs.iter().all(|input| s.drvs.get(input).is_none_or(|drv| !to_build(drv)));
    let direct = |id: &DrvId| users.get(id).map_or(0, Vec::len);
    let mut found: Vec<(u32, DrvId)> = s
        .drvs
        .iter()
        .filter(|(_, drv)| to_build(drv) && begins(drv))
        .map(|(id, _)| (attrs.get(id).copied().unwrap_or_default(), *id))
        .collect();
    found.sort_by_key(|(attrs, id)| (Reverse(*attrs), Reverse(direct(id)), *id));
    found.truncate(LOOKED_AT);
    let origin = |(attrs, id)| Origin { name: s.drv_name(id), attrs, drvs: drvs_above(id, &users) };
    let mut origins: Vec<Origin> = found.into_iter().map(origin).collect();
    origins.sort_by_key(|origin| (Reverse(origin.attrs), Reverse(origin.drvs)));
    origins.truncate(KEPT);
    origins
}

/// How many attrs need each drv that has to be built.
fn attrs_above(s: &Summary, users: &BTreeMap<DrvId, Vec<DrvId>>) -> BTreeMap<DrvId, u32> {
    let roots: Vec<DrvId> =
        s.attrs.values().filter_map(|attr| attr.planned.as_ref()?.drv).filter(|drv| s.drvs.contains_key(drv)).collect();
    let words = roots.len().div_ceil(64);
    let mut above: BTreeMap<DrvId, Vec<u64>> = BTreeMap::new();
    for (n, root) in roots.into_iter().enumerate() {
        let bits = above.entry(root).or_insert_with(|| vec![0; words]);
        bits[n / 64] |= 1 << (n % 64);
    }
    // From users to what they use: a drv's turn comes when all its users had theirs.
    let mut missing: BTreeMap<DrvId, usize> = users.iter().map(|(id, users)| (*id, users.len())).collect();
    let mut ready: Vec<DrvId> = s.drvs.keys().copied().filter(|id| !missing.contains_key(id)).collect();
    while let Some(id) = ready.pop() {
        let bits = above.get(&id).cloned();
        let inputs: &[DrvId] = s.drvs.get(&id).filter(|drv| !drv.fetch).map_or(&[], |drv| &drv.inputs);
        for input in inputs {
            let Some(left) = missing.get_mut(input) else { continue };
            *left = left.saturating_sub(1);
            if *left == 0 {
                ready.push(*input);
            }
            if let Some(bits) = &bits {
                let below = above.entry(*input).or_insert_with(|| vec![0; words]);
                below.iter_mut().zip(bits).for_each(|(below, above)| *below |= above);
            }
        }
    }
    above.into_iter().map(|(id, bits)| (id, bits.iter().map(|word| word.count_ones()).sum())).collect()
}

/// How many drvs need one, directly or not.
fn drvs_above(id: DrvId, users: &BTreeMap<DrvId, Vec<DrvId>>) -> u32 {
    let mut seen = BTreeSet::new();
    let mut next = vec![id];
    while let Some(id) = next.pop() {
        let more = users.get(&id).into_iter().flatten();
        next.extend(more.copied().filter(|user| seen.insert(*user)));
    }
    u32::try_from(seen.len()).unwrap_or(u32::MAX)
}
