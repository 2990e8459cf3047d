//! Copying what an attempt needs from where derivations are, if that is not the store that builds: another store
//! (`--eval-store`) or a file (`--plan`). What is needed is sources, and where the .drv itself is asked for, that with
//! all below it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tokio::io::AsyncWriteExt as _;

use crate::id::StorePath;
use crate::nix_compat::daemon::PathInfo;
use crate::nix_compat::drv::Derivation;
use crate::store::bundle::{Bundle, BundleError};
use crate::store::error::StoreError;
use crate::store::local::LocalStore;
use crate::store::session::Session;

use super::{Caches, Pool};

/// Bytes of a NAR on their way from store to store.
const IN_FLIGHT: usize = 256 << 10;

/// Where derivations are, if not in the store that builds.
#[derive(Debug, Clone)]
pub enum Origin {
    /// In another store.
    Store(LocalStore),
    /// In a file; what is in neither it nor the store has to come from a cache.
    Bundle(Arc<Bundle>),
}

/// Something cannot be brought into the store that builds.
#[derive(Debug, thiserror::Error)]
pub(super) enum ImportError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Bundle(#[from] BundleError),
    #[error("cannot take what the plan file brings")]
    Refused(#[source] StoreError),
    /// Neither the file nor the store nor a cache of Nix's own has it.
    #[error("{} is not in the plan file {}, since a cache had it when the plan was made", .path.name(), .file)]
    Elsewhere { path: StorePath, file: String },
}

impl Origin {
    /// Reads one derivation.
    pub(super) async fn read_drv(&self, path: &StorePath) -> Result<Derivation, ImportError> {
        match self {
            Self::Store(store) => match store.read_drvs(vec![path.clone()]).await.pop() {
                Some(drv) => Ok(drv?),
                None => Err(StoreError::NoDrv(path.clone()).into()),
            },
            Self::Bundle(bundle) => match bundle.drv(path) {
                Some(drv) => Ok(drv?),
                None => Err(elsewhere(bundle, path)),
            },
        }
    }

    /// Makes these paths valid at the other end of `to`, with all that they refer to.
    pub(super) async fn import(&self, pool: &Pool, to: &mut Session, paths: &[StorePath]) -> Result<(), ImportError> {
        match self {
            Self::Store(store) => Ok(import(store, to, paths).await?),
            Self::Bundle(bundle) => unpack(bundle, pool, to, paths).await,
        }
    }
}

fn elsewhere(bundle: &Bundle, path: &StorePath) -> ImportError {
    ImportError::Elsewhere { path: path.clone(), file: bundle.file().display().to_string() }
}

/// The same from a file. The daemon verifies content addresses and signatures also where it trusts this client: a file
/// says nothing about who made it.
async fn unpack(bundle: &Bundle, pool: &Pool, to: &mut Session, paths: &[StorePath]) -> Result<(), ImportError> {
    let mut needed: BTreeMap<usize, &PathInfo> = BTreeMap::new();
    let mut level = missing(to, paths).await?;
    while !level.is_empty() {
        let mut below = BTreeSet::new();
        for path in &level {
            match bundle.place(path).zip(bundle.info(path)) {
                Some((place, info)) => {
                    below.extend(info.others().cloned());
                    needed.insert(place, info);
                }
                None => fetch(bundle, pool, path).await?,
            }
        }
        let new = |path: &StorePath| bundle.place(path).is_none_or(|place| !needed.contains_key(&place));
        let new: Vec<StorePath> = below.into_iter().filter(new).collect();
        level = missing(to, &new).await?;
    }
    // A file has references first.
    for info in needed.into_values() {
        let Some(mut nar) = bundle.nar(&info.path) else { return Err(elsewhere(bundle, &info.path)) };
        let added = to.add_to_store_nar(info, true, &mut nar, &mut |_| {}).await;
        added.map_err(|error| match error.is_fatal() {
            true => ImportError::Store(to.explain(error)),
            false => ImportError::Refused(to.explain(error)),
        })?;
    }
    Ok(())
}

/// Sources are left out of a file where a cache of Nix's own has them.
async fn fetch(bundle: &Bundle, pool: &Pool, path: &StorePath) -> Result<(), ImportError> {
    // Connections for building do not look into caches.
    let mut session = pool.take(Caches::On).await?;
    let fetched = session.ensure_path(path, &mut |_| {}).await;
    pool.give_back(session);
    fetched.map_err(|_| elsewhere(bundle, path))
}

/// The same from another store.
async fn import(from: &LocalStore, to: &mut Session, paths: &[StorePath]) -> Result<(), StoreError> {
    let missing = missing(to, paths).await?;
    if missing.is_empty() {
        return Ok(());
    }
    let mut source = from.connect().await?;
    let mut infos: BTreeMap<StorePath, PathInfo> = BTreeMap::new();
    let mut level = missing;
    while !level.is_empty() {
        source.add_temp_roots(&level).await.map_err(|error| source.explain(error))?;
        let found = source.path_infos(&level).await.map_err(|error| source.explain(error))?;
        let mut below = BTreeSet::new();
        for info in found.into_iter().flatten() {
            below.extend(info.others().cloned());
            infos.insert(info.path.clone(), info);
        }
        let new: Vec<StorePath> = below.into_iter().filter(|path| !infos.contains_key(path)).collect();
        level = self::missing(to, &new).await?;
    }
    for info in PathInfo::references_first(infos.into_values().collect()) {
        copy_one(&mut source, to, &info).await?;
    }
    Ok(())
}

/// Makes these paths valid in another store, with all that they refer to.
pub async fn copy(from: &LocalStore, to: &LocalStore, paths: &[StorePath]) -> Result<(), StoreError> {
    let mut session = to.connect().await?;
    import(from, &mut session, paths).await
}

/// Those of these paths that are not valid there; the others stay so as long as the connection does.
async fn missing(to: &mut Session, paths: &[StorePath]) -> Result<Vec<StorePath>, StoreError> {
    let valid = to.hold_valid(paths).await.map_err(|error| to.explain(error))?;
    Ok(paths.iter().zip(valid).filter(|(_, valid)| !valid).map(|(path, _)| path.clone()).collect())
}

/// One path, whose references are valid there.
async fn copy_one(from: &mut Session, to: &mut Session, info: &PathInfo) -> Result<(), StoreError> {
    let (mut sink, mut nar) = tokio::io::duplex(IN_FLIGHT);
    let read = async {
        let read = from.nar_from_path(&info.path, info.nar_size, &mut sink).await;
        // Its end is the end of the stream.
        let _ = sink.shutdown().await;
        drop(sink);
        read
    };
    let mut silent = |_| {};
    let (read, added) = tokio::join!(read, to.add_to_store_nar(info, false, &mut nar, &mut silent));
    added.map_err(|error| to.explain(error))?;
    read.map_err(|error| from.explain(error))
}
