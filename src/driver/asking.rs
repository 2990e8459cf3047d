//! Which outputs builders hold already: what is not valid in the local store is asked of all of them, while the caches
//! are asked. What one holds need not be built; what neither they nor a cache have, must be.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::diff::plan::{Found, Presence};
use crate::event::Fact;
use crate::id::{BuilderId, StorePath};

use super::context::Context;
use super::input::Input;

/// What is not known yet of one path.
struct Open {
    /// Who has still to answer.
    builders: BTreeSet<BuilderId>,
    /// What the caches say.
    caches: Option<Found>,
}

/// See the module's page.
#[derive(Default)]
pub(super) struct Asking {
    open: HashMap<StorePath, Open>,
    /// Paths for builders that are being dialled.
    waiting: BTreeMap<BuilderId, Vec<StorePath>>,
    /// Paths that were asked for, and those of them that are valid there.
    told: BTreeMap<BuilderId, (u32, u32)>,
}

impl Asking {
    /// Asks all builders for these paths; `dialling` will be asked once they are up. `caches`: what they say comes later
    /// by [`Asking::by_caches`]. Gives what is known at once.
    pub(super) fn ask(
        &mut self,
        ctx: &mut Context,
        dialling: &[BuilderId],
        paths: &[StorePath],
        caches: bool,
    ) -> Vec<Found> {
        let up: Vec<BuilderId> = ctx.sites.all().into_iter().map(|(id, _)| id).collect();
        for path in paths {
            let caches = (!caches).then(|| Found::new(path.clone(), Presence::Absent));
            let builders = up.iter().chain(dialling).copied().collect();
            self.open.insert(path.clone(), Open { builders, caches });
        }
        for id in dialling {
            self.waiting.entry(*id).or_default().extend(paths.iter().cloned());
        }
        for id in up {
            ask(ctx, id, paths.to_vec());
        }
        paths.iter().filter_map(|path| self.settle(path)).collect()
    }

    /// A builder is up: it is asked what waited for it.
    pub(super) fn is_up(&mut self, ctx: &mut Context, builder: BuilderId) {
        let paths = self.waiting.remove(&builder).unwrap_or_default();
        if !paths.is_empty() {
            ask(ctx, builder, paths);
        }
    }

    /// A builder will not be up within the time that anybody waits for it.
    pub(super) fn is_away(&mut self, builder: BuilderId) -> Vec<Found> {
        let paths = self.waiting.remove(&builder).unwrap_or_default();
        self.without(builder, &paths)
    }

    fn without(&mut self, builder: BuilderId, paths: &[StorePath]) -> Vec<Found> {
        for path in paths {
            if let Some(open) = self.open.get_mut(path) {
                open.builders.remove(&builder);
            }
        }
        paths.iter().filter_map(|path| self.settle(path)).collect()
    }

    /// A builder answered, or failed to.
    pub(super) fn by_builder(
        &mut self,
        ctx: &mut Context,
        builder: BuilderId,
        paths: &[StorePath],
        valid: Option<&[bool]>,
    ) -> Vec<Found> {
        let Some(valid) = valid else { return self.without(builder, paths) };
        let there: Vec<&StorePath> = paths.iter().zip(valid).filter(|(_, valid)| **valid).map(|(p, _)| p).collect();
        if let Some(site) = ctx.sites.get(builder) {
            site.holdings.note(there.iter().copied());
        }
        let small = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        let told = self.told.entry(builder).or_default();
        told.0 = told.0.saturating_add(small(paths.len()));
        told.1 = told.1.saturating_add(small(there.len()));
        ctx.bus.emit(Fact::BuilderAsked { builder, asked: told.0, valid: told.1 });
        let known = there.iter().filter(|path| self.open.remove(**path).is_some());
        let mut found: Vec<Found> = known.map(|path| Found::new((*path).clone(), Presence::Valid)).collect();
        found.extend(self.without(builder, paths));
        found
    }

    /// The caches answered. What they have is known with that; for the rest, builders are waited for.
    pub(super) fn by_caches(&mut self, found: Vec<Found>) -> Vec<Found> {
        let mut known = Vec::with_capacity(found.len());
        for found in found {
            match self.open.get_mut(&found.path) {
                None => known.push(found),
                Some(_) if matches!(found.presence, Presence::Present(_)) => {
                    self.open.remove(&found.path);
                    known.push(found);
                }
                Some(open) => {
                    let path = found.path.clone();
                    open.caches = Some(found);
                    known.extend(self.settle(&path));
                }
            }
        }
        known
    }

    /// What is known of a path once everybody has answered.
    fn settle(&mut self, path: &StorePath) -> Option<Found> {
        let open = self.open.get(path)?;
        if !open.builders.is_empty() || open.caches.is_none() {
            return None;
        }
        self.open.remove(path)?.caches
    }
}

/// Asks one builder, which keeps what it has.
pub(super) fn ask(ctx: &mut Context, builder: BuilderId, paths: Vec<StorePath>) {
    let Some(site) = ctx.sites.get(builder) else { return };
    ctx.tasks.start(async move {
        let valid = site.valid(&paths).await.ok();
        Input::BuilderAnswered(builder, paths, valid)
    });
}
