//! A store as this run uses it: what is brought to it, built on it, and read from it.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use tokio::sync::{Mutex, Semaphore};

use super::{Holdings, Pool};
use crate::id::{BuilderId, StorePath};
use crate::nix_compat::daemon::{DaemonError, Trust};
use crate::store::any::Store;
use crate::store::error::StoreError;
use crate::store::roots::Roots;

/// Paths that come into one store at once. Each has a connection at both ends.
pub(super) const LANES: usize = 8;

/// How long a builder may take for what it need not think about.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);

/// How much longer for each path that it is asked about.
const EACH: Duration = Duration::from_millis(10);

/// A builder did not answer in time.
pub(super) fn no_answer(store: &Store, patience: Duration) -> StoreError {
    StoreError::Daemon { uri: store.uri().to_owned(), error: Box::new(silent(patience)), said: String::new() }
}

/// A daemon said nothing for so long.
pub(super) fn silent(patience: Duration) -> DaemonError {
    let source = std::io::Error::new(std::io::ErrorKind::TimedOut, format!("no answer for {} s", patience.as_secs()));
    DaemonError::Io { act: "asking a builder", source }
}

/// Asks a store about so many paths. A builder has a time for it.
pub async fn in_time<T>(
    store: &Store,
    paths: usize,
    asked: impl Future<Output = Result<T, StoreError>>,
) -> Result<T, StoreError> {
    match store {
        Store::Local(_) => asked.await,
        Store::Remote(_) => {
            let patience = PATIENCE + EACH * u32::try_from(paths).unwrap_or(u32::MAX);
            tokio::time::timeout(patience, asked).await.unwrap_or_else(|_| Err(no_answer(store, patience)))
        }
    }
}

/// The roots of this run in one store, shared by effects one after the other.
pub type SharedRoots = Arc<Mutex<Roots<Store>>>;

/// See the module's page.
#[derive(Debug)]
pub struct Site {
    /// Warm connections.
    pub pool: Arc<Pool>,
    /// What is kept from the garbage collector.
    pub roots: SharedRoots,
    /// What is known to be there.
    pub holdings: Holdings,
    /// Whether its daemon may fetch from caches.
    pub fetches: bool,
    pub(super) lanes: Semaphore,
}

impl Site {
    /// Nothing is known of it yet.
    #[must_use]
    pub fn new(pool: Arc<Pool>, roots: SharedRoots, fetches: bool) -> Self {
        Self { pool, roots, holdings: Holdings::default(), fetches, lanes: Semaphore::new(LANES) }
    }

    /// Holds these paths, then says which of them are valid. A builder has a time for it.
    pub async fn valid(&self, paths: &[StorePath]) -> Result<Vec<bool>, StoreError> {
        in_time(self.pool.store(), paths.len(), async { self.roots.lock().await.valid(paths).await }).await
    }

    /// Whether its daemon takes a derivation's own words, and paths that nobody has signed.
    #[must_use]
    pub fn is_trusting(&self) -> bool {
        self.pool.store().trust() != Trust::Untrusted
    }
}

/// The builders that can be read from: which of them hold a path.
#[derive(Debug, Clone, Default)]
pub struct Sites(Arc<RwLock<BTreeMap<BuilderId, Arc<Site>>>>);

impl Sites {
    /// A builder is up.
    pub fn insert(&self, builder: BuilderId, site: Arc<Site>) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).insert(builder, site);
    }

    /// A builder is gone, and what it holds with it.
    pub fn remove(&self, builder: BuilderId) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).remove(&builder);
    }

    /// A builder that is up.
    #[must_use]
    pub fn get(&self, builder: BuilderId) -> Option<Arc<Site>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).get(&builder).cloned()
    }

    /// All builders that are up.
    #[must_use]
    pub fn all(&self) -> Vec<(BuilderId, Arc<Site>)> {
        let sites = self.0.read().unwrap_or_else(PoisonError::into_inner);
        sites.iter().map(|(id, site)| (*id, site.clone())).collect()
    }

    /// The builders that are up and known to hold a path.
    #[must_use]
    pub fn holders(&self, path: &StorePath) -> Vec<(BuilderId, Arc<Site>)> {
        let sites = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let holders = sites.iter().filter(|(_, site)| site.holdings.holds(path));
        holders.map(|(id, site)| (*id, site.clone())).collect()
    }
}
