//! Results that were built elsewhere come into the local store, unless `--no-download` says that they stay.

use std::collections::{BTreeMap, BTreeSet};

use crate::build::{self, Brought, NotBrought};
use crate::event::{Class, Fact, Failure, Status};
use crate::id::{AttrId, BuilderId, DrvId, StorePath};
use crate::nix_compat::daemon::Trust;

use super::context::{Context, LOCAL};
use super::input::Input;
use super::planning::Planning;

/// How often a drv's outputs are looked for at others when whoever had them does not give them.
const OTHERS: u32 = 3;

/// See the module's page.
#[derive(Default)]
pub(super) struct Homecoming {
    /// Attrs that wait for the outputs of a drv, and how they end then.
    waiting: BTreeMap<DrvId, Vec<(AttrId, Status)>>,
    /// What is under way.
    paths: BTreeMap<DrvId, BTreeSet<StorePath>>,
    /// How often they were asked of somebody else.
    others: BTreeMap<DrvId, u32>,
}

/// Attrs whose results have come, or will not.
pub(super) struct Returned {
    pub(super) attrs: Vec<(AttrId, Status)>,
    /// Why an attr has failed by that.
    pub(super) failure: Option<Failure>,
    /// Builders that have some of it and do not answer.
    pub(super) suspects: Vec<BuilderId>,
}

impl Homecoming {
    /// Nothing is under way.
    pub(super) fn is_done(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Brings results of an attr home; false if they are here, or stay where they are.
    pub(super) fn begin(
        &mut self,
        ctx: &mut Context,
        planning: &Planning,
        drv: DrvId,
        outputs: Vec<StorePath>,
        (attr, status): (AttrId, Status),
    ) -> bool {
        if !ctx.is_farm || !ctx.settings.build.results_home || ctx.site.holdings.hold_all(&outputs) {
            return false;
        }
        let waiting = self.waiting.entry(drv).or_default();
        waiting.push((attr, status));
        let under_way = self.paths.entry(drv).or_default();
        let first = under_way.is_empty();
        let more = outputs.iter().filter(|path| under_way.insert((*path).clone())).count() > 0;
        if first || more {
            self.start(ctx, planning, drv);
        }
        true
    }

    fn start(&self, ctx: &mut Context, planning: &Planning, drv: DrvId) {
        let paths: Vec<StorePath> = self.paths.get(&drv).into_iter().flatten().cloned().collect();
        let holder = paths.iter().find_map(|path| ctx.sites.holders(path).first().map(|(id, _)| *id));
        ctx.bus.emit(Fact::ResultsReturning { drv, builder: holder.unwrap_or(LOCAL) });
        let (site, sources) = (ctx.site.clone(), planning.sources(ctx, &paths));
        ctx.tasks.start(async move {
            let brought = build::bring(&site, &paths, &sources, &|_| {}).await;
            Input::Returned(drv, paths, brought)
        });
    }

    /// Results have come, or not. `None` if more of them is under way; without attrs where somebody else who has them is
    /// asked now.
    pub(super) fn returned(
        &mut self,
        ctx: &mut Context,
        planning: &Planning,
        (drv, paths): (DrvId, &[StorePath]),
        brought: Result<Brought, NotBrought>,
    ) -> Option<Returned> {
        if self.paths.get(&drv)?.len() > paths.len() {
            return None;
        }
        let (brought, failure, suspects) = match brought {
            Ok(brought) => (brought, None, Vec::new()),
            Err(NotBrought { failure, suspects, .. }) => (Brought::default(), Some(failure), suspects),
        };
        let count = brought.copied.saturating_add(brought.fetched);
        let told = failure.clone();
        ctx.bus.emit(Fact::ResultsReturned { drv, paths: count, nar_size: brought.copied_size, failure: told });
        if failure.is_some() && self.others_have(ctx, drv, paths, &suspects) {
            self.start(ctx, planning, drv);
            return Some(Returned { attrs: Vec::new(), failure: None, suspects });
        }
        self.paths.remove(&drv);
        let attrs = self.waiting.remove(&drv)?;
        // A daemon that does not obey us takes only what is signed; the rest stays where it was built.
        let stays = |failure: &Failure| failure.class == Class::Signature && ctx.store.trust() == Trust::Untrusted;
        Some(Returned { attrs, failure: failure.filter(|failure| !stays(failure)), suspects })
    }

    /// Whether it was made elsewhere while one did not give it: then it need not be made once more.
    fn others_have(&mut self, ctx: &Context, drv: DrvId, paths: &[StorePath], suspects: &[BuilderId]) -> bool {
        let answers = |path| ctx.sites.holders(path).iter().any(|(id, _)| !suspects.contains(id));
        let asked = self.others.entry(drv).or_default();
        let ask = !suspects.is_empty() && *asked < OTHERS && paths.iter().all(answers);
        *asked += u32::from(ask);
        ask
    }
}

/// What is said before anything is built, where results may not come home.
pub(super) fn warn(ctx: &mut Context) {
    if ctx.is_farm && ctx.settings.build.results_home && ctx.store.trust() == Trust::Untrusted {
        ctx.bus.warn(
            "the local daemon does not trust this user: what other builders build stays there, unless it is signed by \
             a key that the daemon trusts",
            Some("trusted-users = USER    in the nix.conf of the daemon, or --no-download"),
        );
    }
}
