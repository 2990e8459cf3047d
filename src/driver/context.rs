//! What every part of the driver may use: the event stream, the effects, the store, the settings.

use std::sync::Arc;

use tokio::sync::{Mutex, mpsc};

use crate::build::{News, Pool};
use crate::config::Settings;
use crate::diff::plan_file::PlanFile;
use crate::eval::Import;
use crate::event::{Failure, OutputPath};
use crate::id::{AttemptId, BuilderId, StoreDir, StorePath};
use crate::record::RunDir;
use crate::store::error::StoreError;
use crate::store::local::LocalStore;
use crate::store::roots::Roots;

use super::bus::Bus;
use super::caches::CacheList;
use super::pushing::Stores;
use super::tasks::Tasks;

/// The roots of this run in the local store, shared by effects one after the other.
pub(super) type SharedRoots = Arc<Mutex<Roots<LocalStore>>>;

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
    /// The roots in the store of the evaluators.
    pub(super) eval_roots: SharedRoots,
    pub(super) settings: Arc<Settings>,
    /// All caches, open or not.
    pub(super) caches: Arc<CacheList>,
    pub(super) dir: RunDir,
    /// Where attempts tell what happens to them.
    pub(super) news: mpsc::UnboundedSender<(AttemptId, News)>,
    /// Where evaluations beside that of the run ask for what they import from derivations.
    pub(super) imports: mpsc::UnboundedSender<Import>,
}

impl Context {
    /// The store directory, `/nix/store`.
    pub(super) fn store_dir(&self) -> &StoreDir {
        self.store.store_dir()
    }

    /// The stores that paths can be read from, the local one first.
    pub(super) fn stores(&self) -> Stores {
        Stores::new(vec![(BuilderId(0), self.pool.clone())])
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
    Failure { class: crate::event::Class::BuilderLost, message: crate::error::chain(error).into(), position: None }
}
