//! What is really where: the ground truth of a simulated run, which nobody in it sees but by asking.

use std::collections::{BTreeMap, BTreeSet};

use super::world::{Start, World};
use crate::id::{BuilderId, StorePath};

/// The stores of builders, and caches.
#[derive(Debug, Clone)]
pub(super) struct Stores {
    /// Who makes a path.
    pub(super) maker: BTreeMap<StorePath, usize>,
    pub(super) valid: BTreeSet<(BuilderId, StorePath)>,
    pub(super) caches: Vec<BTreeSet<StorePath>>,
    /// Builders that answer.
    pub(super) alive: BTreeSet<BuilderId>,
}

impl Stores {
    /// As all is when a run begins.
    pub(super) fn new(world: &World) -> Self {
        let all = (0..world.made.len()).flat_map(|made| world.paths(made).into_iter().map(move |path| (path, made)));
        let mut stores = Self {
            maker: all.collect(),
            valid: BTreeSet::new(),
            caches: vec![BTreeSet::new(); world.caches.len()],
            alive: BTreeSet::new(),
        };
        stores.wake(world);
        for made in 0..world.made.len() {
            let paths = world.paths(made);
            match world.made[made].start {
                Start::Nowhere => {}
                Start::On(at) => {
                    let id = world.builders[at % world.builders.len()].id;
                    let closure = stores.closure(world, paths);
                    stores.valid.extend(closure.into_iter().map(|path| (id, path)));
                }
                Start::In(at) => {
                    let closure = stores.closure(world, paths);
                    stores.caches[at].extend(closure);
                }
                Start::Bare(at) => stores.caches[at].extend(paths),
            }
        }
        stores
    }

    /// All builders answer.
    pub(super) fn wake(&mut self, world: &World) {
        self.alive = world.builders.iter().map(|builder| builder.id).collect();
    }

    /// Some paths and all that they refer to.
    pub(super) fn closure(&self, world: &World, paths: Vec<StorePath>) -> BTreeSet<StorePath> {
        let mut open = paths;
        let mut closure = BTreeSet::new();
        while let Some(path) = open.pop() {
            if closure.insert(path.clone()) {
                open.extend(world.references(self.maker[&path]));
            }
        }
        closure
    }

    /// Whether a builder that answers has a path.
    pub(super) fn has(&self, builder: BuilderId, path: &StorePath) -> bool {
        self.alive.contains(&builder) && self.valid.contains(&(builder, path.clone()))
    }

    /// Who answers and has it.
    pub(super) fn holders<'a>(&'a self, path: &'a StorePath) -> impl Iterator<Item = BuilderId> + 'a {
        self.alive.iter().copied().filter(|id| self.has(*id, path))
    }

    /// The first cache that is read from and says that it has a path.
    pub(super) fn promised(&self, world: &World, path: &StorePath) -> Option<usize> {
        (0..self.caches.len())
            .find(|at| world.caches[*at].pull && !world.caches[*at].mute && self.caches[*at].contains(path))
    }

    /// The same, and it brings it.
    pub(super) fn brings(&self, world: &World, path: &StorePath) -> bool {
        self.promised(world, path).is_some() && !world.made[self.maker[path]].lie
    }

    /// A builder's store is another one.
    pub(super) fn wipe(&mut self, builder: BuilderId) {
        self.valid.retain(|(id, _)| *id != builder);
    }

    /// A path comes to a builder. Gives what it refers to and is not there.
    pub(super) fn put(&mut self, world: &World, builder: BuilderId, path: &StorePath) -> Option<StorePath> {
        let references = world.references(self.maker[path]);
        self.valid.insert((builder, path.clone()));
        references.into_iter().find(|reference| !self.valid.contains(&(builder, reference.clone())))
    }
}
