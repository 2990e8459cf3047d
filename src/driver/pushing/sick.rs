//! A cache that was to be pushed to and answered, when the run began, that it cannot at the moment. It is opened again
//! from time to time, and once more at the end; until then what is for it waits.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::AbortHandle;

use crate::event::{Fact, Failure, Pushed};
use crate::id::{CacheId, StorePath};
use crate::store::cache::Cache;

use super::super::context::Context;
use super::super::input::Input;
use super::target::Target;
use super::{PushInput, Why};

/// Between two attempts to open it.
const PAUSE: Duration = Duration::from_secs(15);

/// See the module's page.
pub(super) struct Sick {
    pub(super) id: CacheId,
    /// What is for it.
    outputs: Vec<(Vec<StorePath>, Why)>,
    upstream: Vec<Arc<Cache>>,
    /// Nothing more will be added, and this attempt is the last one.
    closing: bool,
    opening: Option<AbortHandle>,
    /// Why it was given up.
    pub(super) lost: Option<Failure>,
}

impl Sick {
    /// It will be opened after a while.
    pub(super) fn new(ctx: &mut Context, id: CacheId) -> Self {
        ctx.bus.emit(ctx.caches.known(id));
        let mut sick =
            Self { id, outputs: Vec::new(), upstream: Vec::new(), closing: false, opening: None, lost: None };
        sick.open(ctx, PAUSE);
        sick
    }

    fn open(&mut self, ctx: &mut Context, after: Duration) {
        let (id, open) = (self.id, ctx.caches.open_again(self.id));
        self.opening = Some(ctx.tasks.start(async move {
            tokio::time::sleep(after).await;
            Input::Push(id, PushInput::Opened(open.await))
        }));
    }

    pub(super) fn add(&mut self, ctx: &mut Context, outputs: &[StorePath], why: Why, upstream: &[Arc<Cache>]) {
        if let Some(failure) = &self.lost {
            return Self::lose(ctx, self.id, outputs.iter(), failure);
        }
        self.outputs.push((outputs.to_vec(), why));
        self.upstream = upstream.to_vec();
    }

    /// It was tried again: now it can be pushed to, or it is given up, or neither.
    pub(super) fn opened(&mut self, ctx: &mut Context, opened: Result<Arc<Cache>, Failure>) -> Option<Target> {
        match opened {
            Ok(cache) => {
                super::super::caches::announce(ctx, &cache);
                let mut target = Target::new(ctx, cache);
                for (outputs, why) in std::mem::take(&mut self.outputs) {
                    target.add(ctx, &outputs, why, &self.upstream);
                }
                if self.closing {
                    target.end(ctx);
                }
                Some(target)
            }
            Err(failure) if self.closing => {
                self.give_up(ctx, &failure);
                None
            }
            Err(_) => {
                self.open(ctx, PAUSE);
                None
            }
        }
    }

    /// Nothing more will be added: it is tried once more, now.
    pub(super) fn close(&mut self, ctx: &mut Context) {
        if !std::mem::replace(&mut self.closing, true) {
            self.opening.take().iter().for_each(AbortHandle::abort);
            self.open(ctx, Duration::ZERO);
        }
    }

    pub(super) fn stop(&mut self, ctx: &mut Context, why: &Failure) {
        self.opening.take().iter().for_each(AbortHandle::abort);
        self.give_up(ctx, why);
    }

    fn give_up(&mut self, ctx: &mut Context, failure: &Failure) {
        if self.lost.is_none() {
            self.lost = Some(failure.clone());
            Self::lose(ctx, self.id, self.paths().iter(), failure);
        }
    }

    fn lose<'a>(ctx: &mut Context, cache: CacheId, paths: impl Iterator<Item = &'a StorePath>, failure: &Failure) {
        for path in paths {
            let path = ctx.absolute(path);
            ctx.bus.emit(Fact::PushEnded { cache, path, pushed: Pushed::Failed(failure.clone()) });
        }
    }

    /// What is for it, as far as that is known: not what it refers to.
    pub(super) fn paths(&self) -> BTreeSet<StorePath> {
        self.outputs.iter().flat_map(|(outputs, _)| outputs).cloned().collect()
    }
}
