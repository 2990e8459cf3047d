//! Who has a path that is missing somewhere: stores of this machine, a plan's file, builders, caches.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

use crate::event::{Class, Failure};
use crate::id::{BuilderId, StorePath};
use crate::nix_compat::daemon::PathInfo;
use crate::nix_compat::narinfo::NarInfo;
use crate::store::bundle::Bundle;
use crate::store::cache::{Answer, Cache};
use crate::store::error::StoreError;

use super::fetch::path_info;
use super::{Caches, Pool, Site, Sites};

/// Who may be asked.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    /// Stores of this machine, in the order in which they are asked.
    pub stores: Vec<Arc<Pool>>,
    /// A plan's file.
    pub bundle: Option<Arc<Bundle>>,
    /// The builders.
    pub sites: Sites,
    /// The caches that are read from, in their order.
    pub caches: Arc<Vec<Arc<Cache>>>,
    /// Paths that a cache is known to have.
    pub cached: Arc<HashSet<StorePath>>,
}

/// One that has a path.
#[derive(Debug, Clone)]
pub(super) enum Source {
    /// A store of this machine.
    Store(usize, Arc<Pool>),
    /// A builder.
    Site(BuilderId, Arc<Site>),
    Bundle(Arc<Bundle>),
    Cache(Arc<Cache>, Box<NarInfo>),
}

/// What a source is called, so that one that failed is not asked again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum SourceId {
    Store(usize),
    Site(BuilderId),
    Bundle,
    Caches,
}

impl Source {
    pub(super) fn id(&self) -> SourceId {
        match self {
            Self::Store(at, _) => SourceId::Store(*at),
            Self::Site(builder, _) => SourceId::Site(*builder),
            Self::Bundle(_) => SourceId::Bundle,
            Self::Cache(..) => SourceId::Caches,
        }
    }

    fn pool(&self) -> Option<&Arc<Pool>> {
        match self {
            Self::Store(_, pool) => Some(pool),
            Self::Site(_, site) => Some(&site.pool),
            Self::Bundle(_) | Self::Cache(..) => None,
        }
    }
}

/// What was found of some paths.
pub(super) type Found = BTreeMap<StorePath, (Source, PathInfo)>;

/// Where to look for one path.
#[derive(Debug, Default)]
pub(super) struct Search {
    /// Do not ask these.
    pub(super) without: BTreeSet<SourceId>,
    /// Builders that may have it although nobody has said so: they have what refers to it.
    pub(super) near: BTreeSet<BuilderId>,
}

impl Sources {
    /// Looks for paths in stores, in the file and on builders; caches are not asked. `to` is where they are missing.
    pub(super) async fn look(&self, to: &Site, paths: &[StorePath], search: &Search) -> Found {
        let mut found = Found::new();
        for (at, pool) in self.stores.iter().enumerate() {
            // Whoever lacks something need not be asked for it.
            if !Arc::ptr_eq(pool, &to.pool) {
                self.ask(Source::Store(at, pool.clone()), paths, search, &mut found).await;
            }
        }
        if let Some(bundle) = self.bundle.as_ref().filter(|_| !search.without.contains(&SourceId::Bundle)) {
            for path in paths.iter().filter(|path| !found.contains_key(*path)).collect::<Vec<_>>() {
                if let Some(info) = bundle.info(path) {
                    found.insert(path.clone(), (Source::Bundle(bundle.clone()), info.clone()));
                }
            }
        }
        for (builder, site) in self.sites.all() {
            let may = |path: &&StorePath| site.holdings.holds(path) || search.near.contains(&builder);
            let asked: Vec<StorePath> = paths.iter().filter(may).cloned().collect();
            if !Arc::ptr_eq(&site.pool, &to.pool) {
                self.ask(Source::Site(builder, site), &asked, search, &mut found).await;
            }
        }
        found
    }

    /// Asks one store for what is not found yet. One that does not answer has nothing.
    async fn ask(&self, source: Source, paths: &[StorePath], search: &Search, found: &mut Found) {
        let open: Vec<StorePath> = paths.iter().filter(|path| !found.contains_key(*path)).cloned().collect();
        let Some(pool) = source.pool().filter(|_| !open.is_empty() && !search.without.contains(&source.id())) else {
            return;
        };
        match infos(pool, &open).await {
            Ok(infos) => {
                found.extend(infos.into_iter().flatten().map(|info| (info.path.clone(), (source.clone(), info))));
            }
            Err(error) => tracing::debug!(%error, "a store does not say what it has"),
        }
    }

    /// Looks for paths in caches, the first of them first.
    pub(super) async fn look_in_caches(&self, paths: &[StorePath], search: &Search) -> Found {
        let mut found = Found::new();
        if search.without.contains(&SourceId::Caches) {
            return found;
        }
        for cache in self.caches.iter() {
            let open: Vec<StorePath> = paths.iter().filter(|path| !found.contains_key(*path)).cloned().collect();
            if open.is_empty() {
                break;
            }
            for (path, answer) in open.iter().zip(cache.ask(&open).await) {
                if let Answer::Present(record) = answer
                    && let Some(info) = path_info(&record)
                {
                    found.insert(path.clone(), (Source::Cache(cache.clone(), record), info));
                }
            }
        }
        found
    }
}

/// What a store knows of paths; it keeps them for as long as the connection lives.
async fn infos(pool: &Pool, paths: &[StorePath]) -> Result<Vec<Option<PathInfo>>, StoreError> {
    let mut session = pool.take(Caches::Off).await?;
    let asked = async {
        session.add_temp_roots(paths).await?;
        session.path_infos(paths).await
    };
    let asked = asked.await;
    let infos = asked.map_err(|error| session.explain(error));
    pool.give_back(session);
    infos
}

impl Sources {
    /// Nobody has it.
    pub(super) fn nowhere(&self, path: &StorePath) -> Failure {
        let message = match &self.bundle {
            Some(bundle) => {
                let file = bundle.file().display();
                format!("{} is not in the plan file {file}, since a cache had it when the plan was made", path.name())
            }
            None => format!("{} is in no store and no cache", path.name()),
        };
        Failure::new(Class::Cache, message)
    }
}
