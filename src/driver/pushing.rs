//! Connects the pieces of a push: which paths (`push::closure`), in which order (`push::queue`), one upload
//! (`push::upload`), reading back (`push::verify`). One [`Target`] a cache; they know nothing of each other. What is
//! pushed is read from whichever store has it (`reading`); a cache that cannot take anything now is waited for (`sick`).

mod reading;
mod sick;
mod target;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use crate::event::{Class, Fact, Failure, Stage};
use crate::id::{CacheId, StorePath};
use crate::push::{Nar, PathInfo, Verified};
use crate::store::cache::{Cache, Sink};

use super::context::Context;
use reading::Walked;
use sick::Sick;
use target::Target;

pub(super) use reading::{Failed, Stores, Waiting, upload};
#[cfg(test)]
pub(super) use target::pushed;

/// How long caches are told at most that uploads were given up.
const ABANDON: Duration = Duration::from_secs(2);

/// Why paths are pushed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Why {
    /// Built in this run: no other cache can hold them.
    Built,
    /// An attr asks for them, and the store has them.
    Found,
    /// Somebody asked for just these.
    Asked,
}

/// What effects of a push answer.
pub(super) enum PushInput {
    /// A cache that could not be opened when the run began is open now, or still is not.
    Opened(Result<Arc<Cache>, Failure>),
    /// What has to be pushed for some outputs.
    Closure(Result<Walked, Failure>),
    /// Which of some paths the cache has.
    Checked { present: Vec<StorePath>, absent: Vec<StorePath> },
    /// A NAR is in the cache, or not.
    Uploaded(StorePath, Result<Nar, Failure>),
    /// A record is in the cache, or not.
    Finished(StorePath, Result<(), Failure>),
    /// What was read back before the end: the paths that are whole.
    ReadBack(BTreeSet<StorePath>),
    /// The end state was read back.
    Verified(Verified),
}

/// All caches that are pushed to.
#[derive(Default)]
pub(super) struct Pushing {
    targets: Vec<Target>,
    /// Those that cannot be pushed to at the moment.
    sick: Vec<Sick>,
    ended: bool,
}

impl Pushing {
    /// For those of these caches that are pushed to, and those that are sick.
    pub(super) fn new(ctx: &mut Context, caches: &[Arc<Cache>], sick: &[CacheId]) -> Self {
        let targets = caches.iter().filter(|cache| cache.push()).cloned();
        let targets: Vec<Target> = targets.map(|cache| Target::new(ctx, cache)).collect();
        let ended = targets.is_empty() && sick.is_empty();
        if !ended {
            ctx.bus.emit(Fact::StageStarted { stage: Stage::Push });
        }
        Self { targets, sick: sick.iter().map(|id| Sick::new(ctx, *id)).collect(), ended }
    }

    /// Whether anything is pushed at all.
    pub(super) fn is_wanted(&self) -> bool {
        !self.targets.is_empty() || !self.sick.is_empty()
    }

    /// Outputs that are valid in the store and are to be in every cache, with all that they refer to.
    pub(super) fn add(&mut self, ctx: &mut Context, outputs: &[StorePath], why: Why, upstream: &[Arc<Cache>]) {
        for target in &mut self.targets {
            target.add(ctx, outputs, why, upstream);
        }
        for sick in &mut self.sick {
            sick.add(ctx, outputs, why, upstream);
        }
    }

    /// An effect answered.
    pub(super) fn handle(&mut self, ctx: &mut Context, cache: CacheId, input: PushInput) {
        if let PushInput::Opened(opened) = input {
            if let Some(at) = self.sick.iter().position(|sick| sick.id == cache)
                && let Some(target) = self.sick[at].opened(ctx, opened)
            {
                self.sick.remove(at);
                self.targets.push(target);
            }
        } else if let Some(target) = self.targets.iter_mut().find(|target| target.cache.id() == cache) {
            target.handle(ctx, input);
        }
    }

    /// Nothing more will be added.
    pub(super) fn close(&mut self, ctx: &mut Context) {
        for target in &mut self.targets {
            target.end(ctx);
        }
        for sick in &mut self.sick {
            sick.close(ctx);
        }
    }

    /// Starts nothing more, and gives up what is under way.
    pub(super) fn stop(&mut self, ctx: &mut Context) {
        self.give_up(ctx, &stopped());
    }

    /// The time for pushing is over. What is built from now on is told as not pushed.
    pub(super) fn too_late(&mut self, ctx: &mut Context) {
        self.give_up(ctx, &Failure::new(Class::Timeout, "the time that --push-deadline gives was over"));
    }

    fn give_up(&mut self, ctx: &mut Context, why: &Failure) {
        for target in &mut self.targets {
            target.stop(ctx, why);
        }
        for sick in &mut self.sick {
            sick.stop(ctx, why);
        }
    }

    /// What is not in every cache, of what fits this: nothing that something else of it refers to.
    pub(super) fn left(&self, fits: impl Fn(&StorePath) -> bool) -> Vec<StorePath> {
        let mut left = BTreeSet::new();
        let mut below: BTreeSet<&StorePath> = BTreeSet::new();
        for target in &self.targets {
            for (path, _) in target.queue.not_there().filter(|(path, _)| fits(path)) {
                left.insert(path);
                below.extend(target.infos.get(path).into_iter().flat_map(PathInfo::others));
            }
        }
        let sick = self.sick.iter().flat_map(Sick::paths).filter(|path| fits(path));
        left.difference(&below).map(|path| (*path).clone()).chain(sick).collect()
    }

    /// Every path has its final word, and all was read back.
    pub(super) fn is_done(&self) -> bool {
        let given_up = self.sick.iter().all(|sick| sick.lost.is_some());
        given_up && self.targets.iter().all(|target| target.verified == Some(true))
    }

    /// Uploads that were begun and will not end are given up with the caches, as far as those take it now.
    pub(super) async fn abandon(&self) {
        let stopped = self.targets.iter().filter(|target| target.stopped.is_some());
        let closing = stopped.filter_map(|target| target.cache.sink()).map(Sink::close);
        let _ = tokio::time::timeout(ABANDON, futures_util::future::join_all(closing)).await;
    }

    /// The stage is over.
    pub(super) fn end(&mut self, ctx: &mut Context) {
        if !std::mem::replace(&mut self.ended, true) {
            ctx.bus.emit(Fact::StageEnded { stage: Stage::Push });
        }
    }
}

fn stopped() -> Failure {
    Failure::new(Class::Cancelled, "the run was stopped")
}

fn not_here() -> Failure {
    Failure::new(Class::NoOutput, "it is not in this store")
}
