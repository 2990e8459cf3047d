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
    returns: Returns,
}

/// What is awaited, and what follows when it has come or has not. Pure.
#[derive(Default)]
pub(super) struct Returns {
    /// Attrs that wait for the outputs of a drv, and how they end then.
    waiting: BTreeMap<DrvId, Vec<(AttrId, Status)>>,
    /// What is under way.
    paths: BTreeMap<DrvId, BTreeSet<StorePath>>,
    /// How often they were asked of somebody else.
    others: BTreeMap<DrvId, u32>,
}

/// What follows when an attempt to bring results home has ended.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// More of it is under way.
    Wait,
    /// Somebody else who has it is asked.
    Others,
    /// These attrs end, or what they wait for is made again.
    Attrs(Vec<(AttrId, Status)>),
}

impl Returns {
    /// Nothing is under way.
    pub(super) fn is_done(&self) -> bool {
        self.waiting.is_empty()
    }

    /// An attr waits for outputs of a drv. Whether these have to be brought now.
    pub(super) fn expect(&mut self, drv: DrvId, outputs: Vec<StorePath>, attr: (AttrId, Status)) -> bool {
        self.waiting.entry(drv).or_default().push(attr);
        let under_way = self.paths.entry(drv).or_default();
        let first = under_way.is_empty();
        let more = outputs.into_iter().filter(|path| under_way.insert(path.clone())).count() > 0;
        first || more
    }

    /// What of a drv is under way.
    pub(super) fn paths(&self, drv: DrvId) -> Vec<StorePath> {
        self.paths.get(&drv).into_iter().flatten().cloned().collect()
    }

    /// An attempt to bring so many paths of a drv has ended. `others`: it failed because of who was asked, and somebody
    /// else has them.
    pub(super) fn ended(&mut self, drv: DrvId, paths: usize, others: bool) -> Next {
        if self.paths.get(&drv).is_none_or(|under_way| under_way.len() > paths) {
            return Next::Wait;
        }
        let asked = self.others.entry(drv).or_default();
        if others && *asked < OTHERS {
            *asked += 1;
            return Next::Others;
        }
        self.paths.remove(&drv);
        self.waiting.remove(&drv).map_or(Next::Wait, Next::Attrs)
    }
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
        self.returns.is_done()
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
        if self.returns.expect(drv, outputs, (attr, status)) {
            self.start(ctx, planning, drv);
        }
        true
    }

    fn start(&self, ctx: &mut Context, planning: &Planning, drv: DrvId) {
        let paths = self.returns.paths(drv);
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
        let (brought, failure, suspects) = match brought {
            Ok(brought) => (brought, None, Vec::new()),
            Err(NotBrought { failure, suspects, .. }) => (Brought::default(), Some(failure), suspects),
        };
        let others = failure.is_some() && others_have(ctx, paths, &suspects);
        let next = self.returns.ended(drv, paths.len(), others);
        if next == Next::Wait {
            return None;
        }
        let count = brought.copied.saturating_add(brought.fetched);
        let told = failure.clone();
        ctx.bus.emit(Fact::ResultsReturned { drv, paths: count, nar_size: brought.copied_size, failure: told });
        let Next::Attrs(attrs) = next else {
            self.start(ctx, planning, drv);
            return Some(Returned { attrs: Vec::new(), failure: None, suspects });
        };
        // A daemon that does not obey us takes only what is signed; the rest stays where it was built.
        let stays = |failure: &Failure| failure.class == Class::Signature && ctx.store.trust() == Trust::Untrusted;
        Some(Returned { attrs, failure: failure.filter(|failure| !stays(failure)), suspects })
    }
}

/// Whether it was made elsewhere while one did not give it: then it need not be made once more.
fn others_have(ctx: &Context, paths: &[StorePath], suspects: &[BuilderId]) -> bool {
    let answers = |path| ctx.sites.holders(path).iter().any(|(id, _)| !suspects.contains(id));
    !suspects.is_empty() && paths.iter().all(answers)
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
