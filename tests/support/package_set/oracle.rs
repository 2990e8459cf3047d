//! What has to be done for the roots of a package set, worked out from its shape alone. Nothing is in the store.

use std::collections::BTreeSet;

use super::cache::Cache;
use super::{OutputId, PackageSet};

/// What has to be done.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Todo {
    /// Drvs to build.
    pub build: BTreeSet<usize>,
    /// Outputs to fetch.
    pub fetch: BTreeSet<OutputId>,
    /// Outputs of drvs that are built anyway for another output, with what only they refer to: these may come from the
    /// cache or from the build.
    pub either: BTreeSet<OutputId>,
    /// Outputs of which a cache has to be asked; [`of_nix`] does not say.
    pub asked: BTreeSet<OutputId>,
}

/// What `nix build --dry-run` says. It looks at what each user wants of a drv by itself, and takes the cache's word: a
/// reference that is not there is "unknown" and a signature is nothing to look for.
pub fn of_nix(set: &PackageSet, cache: &Cache, roots: impl IntoIterator<Item = usize>) -> Todo {
    let mut todo = Todo::default();
    let mut open: Vec<(usize, Vec<OutputId>)> = roots.into_iter().map(|drv| (drv, set.installed(drv))).collect();
    let mut seen = BTreeSet::new();
    while let Some((drv, wanted)) = open.pop() {
        if !seen.insert((drv, wanted.clone())) {
            continue;
        }
        let present = wanted.iter().all(|id| cache.records.contains_key(id));
        if present && set.shape.nodes[drv].substitutes() {
            todo.fetch.extend(cache.closure(wanted).into_iter().filter(|id| cache.records.contains_key(id)));
        } else if todo.build.insert(drv) {
            let inputs = set.shape.nodes[drv].inputs.iter();
            open.extend(
                inputs.map(|(input, names)| (*input, names.iter().map(|name| set.output(*input, name)).collect())),
            );
        }
    }
    todo
}

/// What drover plans, results left where they are. A drv is built as soon as any output that anybody wants of it is not
/// there or not signed. Where something that a wanted output refers to is not, that is built too, and what refers to
/// it is fetched then: in these sets some drv below makes it.
pub fn of_drover(set: &PackageSet, cache: &Cache, roots: impl IntoIterator<Item = usize>) -> Todo {
    let results: BTreeSet<OutputId> = roots.into_iter().flat_map(|drv| set.installed(drv)).collect();
    let mut wanted = results;
    let mut used = BTreeSet::new();
    let mut todo = Todo::default();
    // Users come after what they need: when a drv is looked at, all that is wanted of it is known.
    for drv in (0..set.drvs.len()).rev() {
        let outputs = (0..set.drvs[drv].outputs.len()).map(|output| OutputId { drv, output });
        let wanted_here: Vec<OutputId> = outputs.filter(|id| wanted.contains(id)).collect();
        if set.shape.nodes[drv].substitutes() && wanted_here.iter().all(|id| cache.is_taken(*id)) {
            // Made by drvs below this one, which come later.
            wanted.extend(cache.gaps(wanted_here));
        } else if !wanted_here.is_empty() {
            todo.build.insert(drv);
            for need in set.needs(drv) {
                wanted.insert(need);
                used.insert(need);
            }
        }
    }
    let built: BTreeSet<OutputId> = set.outputs().filter(|id| todo.build.contains(&id.drv)).collect();
    todo.fetch = cache.closure_without(used.difference(&built).copied(), &built);
    let at_most = cache.closure(used.into_iter().filter(|id| cache.records.contains_key(id)));
    todo.either = at_most.difference(&todo.fetch).copied().collect();
    todo.asked = cache.closure(wanted.into_iter().filter(|id| set.shape.nodes[id.drv].substitutes()));
    todo
}
