//! What every part of the driver may use: the event stream, the effects, the store, the settings.

use std::sync::Arc;

use tokio::sync::mpsc;

pub(super) use crate::build::SharedRoots;
use crate::build::{News, Origin, Pool, Site, Sites, Sources};
use crate::config::Settings;
use crate::diff::plan_file::PlanFile;
use crate::eval::Import;
use crate::event::{Failure, Moment, OutputPath};
use crate::id::{AttemptId, BuilderId, StoreDir, StorePath};
use crate::record::RunDir;
use crate::store::error::StoreError;
use crate::store::local::LocalStore;

use super::bus::Bus;
use super::caches::CacheList;
use super::farm::FarmInput;
use super::pushing::Stores;
use super::tasks::Tasks;

/// See the module's page.
pub(super) struct Context {
    pub(super) bus: Bus,
    pub(super) tasks: Tasks,
    pub(super) store: LocalStore,
    /// Where evaluators leave derivations; most often the same.
    pub(super) eval_store: LocalStore,
    /// A plan that derivations are read from first.
    pub(super) plan: Option<Arc<PlanFile>>,
    pub(super) pool: Arc<Pool>,
    pub(super) roots: SharedRoots,
    /// The local store as a place that paths are brought to; its pool and roots are the ones above.
    pub(super) site: Arc<Site>,
    /// The store of the evaluators as such; most often the same.
    pub(super) eval_site: Arc<Site>,
    /// The other builders, as far as they are up.
    pub(super) sites: Sites,
    /// There are builders besides the local store.
    pub(super) is_farm: bool,
    /// Where derivations are read.
    pub(super) origin: Origin,
    /// The roots in the store of the evaluators.
    pub(super) eval_roots: SharedRoots,
    pub(super) settings: Arc<Settings>,
    /// All caches, open or not.
    pub(super) caches: Arc<CacheList>,
    pub(super) dir: RunDir,
    /// Where attempts tell what happens to them.
    pub(super) news: mpsc::UnboundedSender<(AttemptId, News)>,
    /// Where watches tell what happens to builders.
    pub(super) farm_inputs: mpsc::UnboundedSender<(BuilderId, FarmInput)>,
    /// Where evaluations beside that of the run ask for what they import from derivations.
    pub(super) imports: mpsc::UnboundedSender<Import>,
    /// When it is told again which requests had to be made again.
    pub(super) next_repeats: Moment,
}

/// The number of the local store as a builder.
pub(super) const LOCAL: BuilderId = BuilderId(0);

impl Context {
    /// A builder as a place that paths are brought to; `None` if it is not up.
    pub(super) fn site_of(&self, builder: BuilderId) -> Option<Arc<Site>> {
        if builder == LOCAL { Some(self.site.clone()) } else { self.sites.get(builder) }
    }

    /// Whether derivations and sources are somewhere else than in the local store.
    pub(super) fn evaluates_elsewhere(&self) -> bool {
        self.plan.is_some() || !Arc::ptr_eq(&self.site, &self.eval_site)
    }

    /// Who may have paths that are missing somewhere, besides caches.
    pub(super) fn sources(&self) -> Sources {
        let mut stores = vec![self.pool.clone()];
        if !Arc::ptr_eq(&self.site, &self.eval_site) {
            stores.push(self.eval_site.pool.clone());
        }
        let bundle = self.plan.as_ref().map(|plan| plan.bundle.clone());
        Sources { stores, bundle, sites: self.sites.clone(), ..Sources::default() }
    }

    /// Closes the connections to the stores of this machine, so that their daemons clean up while last words are written.
    /// Nothing is held from now on.
    pub(super) async fn hang_up(&self) {
        for (pool, roots) in [(&self.pool, &self.roots), (&self.eval_site.pool, &self.eval_roots)] {
            pool.forget();
            roots.lock().await.let_go();
        }
    }

    /// The store directory, `/nix/store`.
    pub(super) fn store_dir(&self) -> &StoreDir {
        self.store.store_dir()
    }

    /// The stores that paths can be read from, the local one first.
    pub(super) fn stores(&self) -> Stores {
        let others = self.sites.all().into_iter().map(|(id, site)| (id, site.pool.clone()));
        Stores::new(std::iter::once((LOCAL, self.pool.clone())).chain(others).collect())
    }

    /// A path as people and events know it.
    pub(super) fn absolute(&self, path: &StorePath) -> Arc<str> {
        path.to_absolute_path_in(self.store_dir()).into()
    }

    /// An output as events know it.
    pub(super) fn output(&self, name: &str, path: Option<&StorePath>) -> OutputPath {
        OutputPath { name: name.into(), path: path.map(|path| self.absolute(path)) }
    }
}

/// A failed operation on the local store, as events know it.
pub(super) fn store_failure(error: &StoreError) -> Failure {
    Failure::new(crate::event::Class::BuilderLost, crate::error::chain(error))
}
