//! Copying what an attempt needs from the store that evaluators write to into the one that builds (`--eval-store`):
//! sources, and where the .drv itself is asked for, that with all below it.

use std::collections::{BTreeMap, BTreeSet};

use tokio::io::AsyncWriteExt as _;

use crate::id::StorePath;
use crate::nix_compat::daemon::PathInfo;
use crate::store::error::StoreError;
use crate::store::local::LocalStore;
use crate::store::session::Session;

/// Bytes of a NAR on their way from store to store.
const IN_FLIGHT: usize = 256 << 10;

/// Makes these paths valid at the other end of `to`, with all that they refer to.
pub(super) async fn import(from: &LocalStore, to: &mut Session, paths: &[StorePath]) -> Result<(), StoreError> {
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
