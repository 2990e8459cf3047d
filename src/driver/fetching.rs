//! Fetches under way. First the daemon is asked to bring a drv's outputs with all that they refer to; if that fails, or
//! if some cache is none of the daemon's, each path is looked after by itself, so that it is known what nobody has.

use std::collections::{BTreeMap, BTreeSet};

use tokio::task::AbortHandle;

use crate::build::{self, FetchError};
use crate::event::{Class, Fact, Failure};
use crate::id::{CacheId, DrvId, StorePath};

use super::context::Context;
use super::input::Input;
use super::planning::Planning;

/// See the module's page.
#[derive(Default)]
pub(super) struct Fetching {
    under_way: BTreeMap<DrvId, AbortHandle>,
    /// What could not be had, until the planner is told.
    culprits: BTreeMap<DrvId, Vec<StorePath>>,
    /// Caches of whose broken promises was warned.
    warned: BTreeSet<CacheId>,
}

impl Fetching {
    /// Begins to fetch what is planned to be fetched of a drv.
    pub(super) fn start(&mut self, ctx: &mut Context, planning: &Planning, drv: DrvId) {
        ctx.bus.emit(Fact::FetchStarted { drv });
        if planning.daemon_has_all_caches(ctx) && !planning.is_stale(drv) {
            let (pool, paths) = (ctx.pool.clone(), planning.fetches(drv));
            let effect = async move { Input::Fetched(drv, build::fetch(&pool, &paths).await) };
            self.under_way.insert(drv, ctx.tasks.start(effect));
        } else {
            self.start_each(ctx, planning, drv);
        }
    }

    fn start_each(&mut self, ctx: &mut Context, planning: &Planning, drv: DrvId) {
        if planning.is_stale(drv) {
            let message = "something that it needs turned out to be gone";
            let failure = Failure::new(Class::Cache, message);
            let error = FetchError { failure, culprits: Some(Vec::new()) };
            self.under_way.insert(drv, ctx.tasks.start(async move { Input::Fetched(drv, Err(error)) }));
            return;
        }
        let (pool, closure) = (ctx.pool.clone(), planning.fetch_closure(drv));
        let (caches, list) = (planning.open_caches().unwrap_or_default(), ctx.caches.clone());
        let effect = async move {
            let fetched = build::fetch_each(&pool, &caches, list.by_daemon(), &closure).await;
            Input::Fetched(drv, fetched)
        };
        self.under_way.insert(drv, ctx.tasks.start(effect));
    }

    /// Stops a fetch; false if there is none.
    pub(super) fn stop(&mut self, drv: DrvId) -> bool {
        self.under_way.get(&drv).map(AbortHandle::abort).is_some()
    }

    /// A fetch ended. Gives how, unless it goes on path by path.
    pub(super) fn ended(
        &mut self,
        ctx: &mut Context,
        planning: &Planning,
        drv: DrvId,
        result: Result<(), FetchError>,
    ) -> Option<Option<Failure>> {
        self.under_way.remove(&drv)?;
        let failure = match result {
            Ok(()) => None,
            Err(FetchError { failure, culprits: None }) if failure.class != Class::Cancelled => {
                tracing::debug!(why = %failure.message, "a fetch failed, looking for what is missing");
                self.start_each(ctx, planning, drv);
                return None;
            }
            Err(FetchError { failure, culprits }) => {
                let culprits = culprits.unwrap_or_default();
                self.warn(ctx, planning, &culprits, &failure);
                self.culprits.insert(drv, culprits);
                Some(failure)
            }
        };
        ctx.bus.emit(Fact::FetchEnded { drv, failure: failure.clone() });
        Some(failure)
    }

    /// Whoever wanted to bring what it was to bring found this to be nowhere.
    pub(super) fn blame(&mut self, drv: DrvId, culprits: &[StorePath]) {
        self.culprits.entry(drv).or_default().extend(culprits.iter().cloned());
    }

    /// What was found out about a failed fetch, once.
    pub(super) fn culprits(&mut self, drv: DrvId) -> Vec<StorePath> {
        self.culprits.remove(&drv).unwrap_or_default()
    }

    /// One warning a cache.
    fn warn(&mut self, ctx: &mut Context, planning: &Planning, culprits: &[StorePath], failure: &Failure) {
        for (path, cache) in culprits.iter().filter_map(|path| Some((path, planning.cache_of(path)?))) {
            if self.warned.insert(cache) {
                let name = planning.cache_name(cache);
                let message = format!("cache {name} did not bring {}: {}", path.name(), failure.message);
                ctx.bus.warn(message, Some("what it does not bring is built"));
            }
        }
    }
}
