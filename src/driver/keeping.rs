//! Outputs that were built on a builder and could not be pushed stay there for the next run, by roots that later runs
//! remove. Once, when all that can be pushed is.

use std::collections::BTreeMap;

use jiff::civil::Date;

use crate::event::Fact;
use crate::id::{BuilderId, StorePath};
use crate::store::remote::RemoteStore;

use super::context::Context;
use super::farm::Farm;
use super::input::Input;
use super::pushing::Pushing;

/// See the module's page.
#[derive(Default)]
pub(super) struct Keeping {
    begun: bool,
    /// Builders that have not answered.
    open: u32,
}

/// What became of it on one builder: the paths, and why there are no roots.
pub(super) struct Kept {
    builder: BuilderId,
    paths: Vec<StorePath>,
    until: Date,
    failure: Option<String>,
}

impl Keeping {
    /// Makes roots for what is not in every cache that it was to be pushed to.
    pub(super) fn begin(&mut self, ctx: &mut Context, pushing: &Pushing, farm: Option<&Farm>) {
        if std::mem::replace(&mut self.begun, true) {
            return;
        }
        let mut left: BTreeMap<BuilderId, Vec<StorePath>> = BTreeMap::new();
        for path in pushing.left(|path| !ctx.sites.holders(path).is_empty()) {
            if let Some((builder, _)) = ctx.sites.holders(&path).first() {
                left.entry(*builder).or_default().push(path);
            }
        }
        let until = ctx.bus.day().saturating_add(ctx.settings.farm.keep);
        for (builder, paths) in left {
            let Some(store) = farm.and_then(|farm| farm.store(builder)) else { continue };
            self.open += 1;
            ctx.tasks.start(async move { Input::Kept(keep(&store, builder, paths, until).await) });
        }
    }

    /// A builder has made roots, or cannot.
    pub(super) fn kept(&mut self, ctx: &mut Context, kept: Kept) {
        self.open = self.open.saturating_sub(1);
        let Kept { builder, paths, until, failure } = kept;
        let until = failure.is_none().then(|| until.to_string().into());
        let paths = paths.iter().map(|path| ctx.absolute(path)).collect();
        ctx.bus.emit(Fact::OutputsKept { builder, paths, until, reason: failure.map(Into::into) });
    }

    /// Every builder has answered.
    pub(super) fn is_done(&self) -> bool {
        self.begun && self.open == 0
    }
}

async fn keep(store: &RemoteStore, builder: BuilderId, paths: Vec<StorePath>, until: Date) -> Kept {
    let kept = store.keep(&paths, until).await;
    Kept { builder, paths, until, failure: kept.err().map(|error| crate::error::chain(&error)) }
}

/// Removes what earlier runs left on a builder and is due by now. Nobody waits for it, and the next run tries again.
pub(super) fn release(ctx: &mut Context, store: RemoteStore) {
    let today = ctx.bus.day();
    ctx.tasks.start(async move {
        if let Err(error) = store.release(today).await {
            tracing::debug!(%error, "{}: old roots are still there", store.name());
        }
        Input::Idle
    });
}
