//! What given fetch items bring, and what follows when one fails.

use std::sync::Arc;

use super::facts::{Brought, Known, PathId};
use super::{Given, Node, Output, Planner, Standing};
use crate::graph::Graph;
use crate::id::{CacheId, DrvId, StorePath};

impl Planner {
    /// What a given fetch item was to bring could not be had, because these paths could not. They count as absent from
    /// now on, and the drv comes again: as a fetch, after what builds them, or as an item to build. Without any news in
    /// `culprits` it is built. So is a drv that was no item because its outputs were valid, on a builder that has gone.
    pub fn fetch_failed(&mut self, graph: &Graph, drv: DrvId, culprits: &[StorePath]) {
        let culprits: Vec<PathId> = culprits.iter().map(|path| self.facts.intern(path)).collect();
        for path in culprits {
            let users = self.facts.disprove(path);
            self.touch_all(users);
        }
        if self.node(drv).given == Given::Nothing {
            self.lose(drv);
        }
        let node = self.node(drv);
        let (given_at, fetched) = (node.given_at, node.outputs.iter().filter(|output| output.fetch));
        let (names, paths): (Vec<Arc<str>>, Vec<Option<PathId>>) =
            fetched.map(|output| (Arc::clone(&output.name), output.path)).unzip();
        if self.facts.generation() == given_at {
            // Nothing has come to light since it was given out, so it would fail again.
            for path in paths.into_iter().flatten() {
                let users = self.facts.disprove(path);
                self.touch_all(users);
            }
            // Even if it was not asked for anything that was present: somebody waits for an item.
            self.build(graph, drv);
        }
        let node = self.node(drv);
        node.given = Given::Nothing;
        node.outputs.iter_mut().for_each(|output| output.fetch = false);
        self.refetched.insert(drv, names);
        self.touch(drv);
        self.run(graph);
    }

    /// Nobody has what was wanted of a drv any more.
    fn lose(&mut self, drv: DrvId) {
        let wanted = self.node(drv).outputs.iter().filter(|output| output.wanted);
        let paths: Vec<PathId> = wanted.filter_map(|output| output.path).collect();
        for path in paths {
            let users = self.facts.lose(path);
            self.touch_all(users);
        }
    }

    /// The paths that a given fetch item has to bring, and the cache that has each.
    pub fn fetches(&self, drv: DrvId) -> impl Iterator<Item = (&StorePath, CacheId)> {
        let outputs = self.nodes.get(drv.index()).map_or(&[][..], |node| &node.outputs);
        outputs.iter().filter(|output| output.fetch).filter_map(|output| self.facts.present(output.path?))
    }

    /// Whether a given fetch item can no longer be what it was given as: some path below it has been disproved since.
    /// It is to be handed to [`Planner::fetch_failed`] without being tried.
    #[must_use]
    pub fn is_stale(&self, drv: DrvId) -> bool {
        let Some(node) = self.nodes.get(drv.index()) else { return false };
        let whole = |path: PathId| self.facts.known(path) == Known::Whole;
        let broken = |output: &Output| output.fetch && !output.path.is_some_and(whole);
        node.given_at != self.facts.generation() && node.outputs.iter().any(broken)
    }

    /// All that a given fetch item has to bring with it, references before referrers: each path, the cache that has it,
    /// and what it refers to.
    #[must_use]
    pub fn fetch_closure(&self, drv: DrvId) -> Vec<(StorePath, CacheId, Vec<StorePath>)> {
        let outputs = self.nodes.get(drv.index()).map_or(&[][..], |node| &node.outputs);
        let roots: Vec<PathId> =
            outputs.iter().filter(|output| output.fetch).filter_map(|output| output.path).collect();
        let with = |id: PathId| {
            let (path, cache) = self.facts.present(id)?;
            Some((path.clone(), cache, self.facts.references(id).cloned().collect()))
        };
        self.facts.closure(&roots).into_iter().filter_map(with).collect()
    }

    /// All that the given fetch items bring, each path once; exact once everything is decided.
    #[must_use]
    pub fn brought(&self) -> Vec<Brought> {
        let fetched = self.nodes.iter().filter(|node| node.given == Given::Fetch).flat_map(|node| &node.outputs);
        let roots: Vec<PathId> = fetched.filter(|output| output.fetch).filter_map(|output| output.path).collect();
        self.facts.closure(&roots).into_iter().filter_map(|id| self.facts.brought(id)).collect()
    }

    /// Drvs that need not be built because a cache has what is wanted of them and not valid.
    pub fn spared(&self) -> impl Iterator<Item = DrvId> {
        let by_cache = |node: &Node| {
            let mut wanted = node.outputs.iter().filter(|output| output.wanted);
            let standing = |output| self.output_standing(node, output);
            !node.must_build && wanted.any(|output| matches!(standing(output), Standing::Present | Standing::Lacking))
        };
        let nodes = (0_u32..).zip(&self.nodes);
        nodes.filter(move |(_, node)| by_cache(node)).map(|(at, _)| DrvId(at))
    }

    /// How many paths that somebody wants to know of a cache has, and the bytes of their NARs.
    #[must_use]
    pub fn in_caches(&self) -> (u32, u64) {
        self.facts.in_caches()
    }

    /// The cache that has a path, as far as is known.
    #[must_use]
    pub fn cache_of(&self, path: &StorePath) -> Option<CacheId> {
        Some(self.facts.present(self.facts.get(path)?)?.1)
    }
}
