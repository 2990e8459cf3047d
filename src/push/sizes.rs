//! How big closures are: several at once, of which most paths are in all.

use std::collections::{HashMap, HashSet};

use crate::id::StorePath;
use crate::nix_compat::daemon::PathInfo;

/// Paths of the closure of some outputs, and bytes of their NARs; `None` where one of the paths is not among `infos`.
#[must_use]
pub fn sizes(groups: &[Vec<StorePath>], infos: &[PathInfo]) -> Vec<Option<(u32, u64)>> {
    let known: HashMap<&StorePath, &PathInfo> = infos.iter().map(|info| (&info.path, info)).collect();
    groups.iter().map(|roots| size(roots, &known)).collect()
}

fn size(roots: &[StorePath], known: &HashMap<&StorePath, &PathInfo>) -> Option<(u32, u64)> {
    let mut seen: HashSet<&StorePath> = roots.iter().collect();
    let mut open: Vec<&StorePath> = seen.iter().copied().collect();
    let (mut paths, mut bytes) = (0_u32, 0_u64);
    while let Some(path) = open.pop() {
        let info = known.get(path)?;
        paths = paths.saturating_add(1);
        bytes = bytes.saturating_add(info.nar_size);
        open.extend(info.others().filter(|other| seen.insert(other)));
    }
    (paths > 0).then_some((paths, bytes))
}

#[cfg(test)]
mod tests {
    use super::super::testing::{info, path};
    use super::*;

    #[test]
    fn what_closures_share_counts_for_each() {
        let infos = [info(1, &[]), info(2, &[1, 2]), info(4, &[1, 2]), info(8, &[16])];
        let groups = [vec![path(2)], vec![path(4), path(2)], vec![path(8)], vec![]];
        assert_eq!(sizes(&groups, &infos), [Some((2, 3)), Some((3, 7)), None, None]);
    }
}
