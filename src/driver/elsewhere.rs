//! What `drover push` is asked for and the local store does not have: the builders are dialled and asked for it.

use std::collections::BTreeSet;

use crate::event::Failure;
use crate::id::{BuilderId, StorePath};
use crate::store::remote::RemoteStore;

use super::context::Context;
use super::farm::{Farm, FarmInput};
use super::input::{Asked, Input};
use super::{asking, start};

/// See the module's page.
#[derive(Default)]
pub(super) struct Elsewhere {
    /// The local store has answered.
    looked: bool,
    /// Paths that it does not have.
    missing: Vec<StorePath>,
    farm: Option<Farm>,
    /// Builders that are up and have still to answer.
    asked: BTreeSet<BuilderId>,
}

impl Elsewhere {
    /// Asks the local store.
    pub(super) fn look(&mut self, ctx: &mut Context, paths: &[StorePath]) {
        let (roots, paths) = (ctx.roots.clone(), paths.to_vec());
        ctx.tasks.start(async move {
            let valid = roots.lock().await.valid(&paths).await;
            let asked = paths.into_iter().map(|path| Asked { path, caches: false });
            let answers = valid.map(|valid| asked.zip(valid).collect());
            Input::Valid(answers.map_err(|error| super::context::store_failure(&error)))
        });
    }

    /// It answered. If it cannot be reached, the push of each path says so.
    pub(super) fn looked(&mut self, ctx: &mut Context, answers: Result<Vec<(Asked, bool)>, Failure>) {
        self.looked = true;
        let missing = answers.into_iter().flatten().filter(|(_, valid)| !valid);
        self.missing = missing.map(|(asked, _)| asked.path).collect();
        if self.missing.is_empty() {
            return;
        }
        let named = match start::named(&ctx.settings, &ctx.store) {
            Ok(named) => named,
            Err(error) => return ctx.bus.warn(error.message, error.hint.as_deref()),
        };
        if named.iter().any(|builder| !builder.is_local()) {
            ctx.is_farm = true;
            let (mut farm, _) = Farm::new(ctx, named);
            farm.dial(ctx);
            self.farm = Some(farm);
        }
    }

    /// Something happened to a builder.
    pub(super) fn heard(&mut self, ctx: &mut Context, builder: BuilderId, input: FarmInput) {
        let Some(farm) = &mut self.farm else { return };
        let heard = farm.handle(ctx, builder, input);
        if let Some(failure) = heard.lost {
            farm.lose(ctx, builder, failure, 0);
            self.asked.remove(&builder);
        }
        if heard.up {
            self.asked.insert(builder);
            asking::ask(ctx, builder, self.missing.clone());
        }
    }

    /// A builder said which of the missing paths it has.
    pub(super) fn answered(
        &mut self,
        ctx: &Context,
        builder: BuilderId,
        paths: &[StorePath],
        valid: Option<Vec<bool>>,
    ) {
        self.asked.remove(&builder);
        if let (Some(site), Some(valid)) = (ctx.sites.get(builder), valid) {
            let there = paths.iter().zip(valid).filter(|(_, valid)| *valid);
            site.holdings.note(there.map(|(path, _)| path));
        }
    }

    /// It is known who has what.
    pub(super) fn is_done(&self) -> bool {
        let dialling = self.farm.as_ref().is_some_and(|farm| !farm.dialling().is_empty());
        self.looked && !dialling && self.asked.is_empty()
    }

    /// The builders, if they were dialled.
    pub(super) fn farm(&self) -> Option<&Farm> {
        self.farm.as_ref()
    }

    /// Takes all builders' ssh, to be waited for when nothing uses them any more.
    pub(super) fn close(self) -> Vec<RemoteStore> {
        self.farm.map(Farm::close).unwrap_or_default()
    }
}
