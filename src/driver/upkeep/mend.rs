//! Mends a cache: what is broken or missing is brought again from the local store and from other caches, which is
//! checked against their own hashes on the way. What nobody has stays as it is.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::id::StorePath;
use crate::push::findings::Fault;
use crate::store::cache::{Cache, narinfo_name};

use super::Scene;
use super::bring::{Bringing, Giver, why_not};
use super::verify::Known;

/// What came of it.
#[derive(Debug, Default)]
pub(super) struct Mended {
    /// Who gave each path that was brought.
    pub(super) from: BTreeMap<StorePath, String>,
    /// Why others were not.
    pub(super) why_not: BTreeMap<StorePath, String>,
}

/// Brings what is broken again.
pub(super) async fn mend(scene: &Scene, cache: &Arc<Cache>, known: &Known, others: &[Arc<Cache>]) -> Mended {
    let mut mended = Mended::default();
    let Some(sink) = cache.sink().cloned() else { return mended };
    let (broken, missing) = to_bring(scene, known);
    scene.tell(format!("mending {}", cache.name()), 0);
    let bringing = Bringing {
        to: cache.clone(),
        sink,
        from: vec![Giver::Store(scene.pool()), Giver::Caches(others.to_vec())],
        broken: broken.clone(),
        instead: others.to_vec(),
        progress: scene.progress.clone(),
    };
    let roots: BTreeSet<StorePath> = broken.union(&missing).cloned().collect();
    let found = match bringing.find(&roots).await {
        Ok(found) => found,
        Err(failure) => {
            mended.why_not = roots.into_iter().map(|path| (path, failure.message.to_string())).collect();
            return mended;
        }
    };
    let coming: BTreeSet<&StorePath> = found.closure.push.iter().map(|info| &info.path).collect();
    let stale = stale_nars(known, &coming);
    // Only of a directory. A server is left with it, and what is read back says so.
    if cache.is_listable()
        && let Err(failure) = cache.remove(&stale).await
    {
        mended.why_not = roots.into_iter().map(|path| (path, failure.message.to_string())).collect();
        return mended;
    }
    let brought = bringing.carry(found).await;
    mended.from = brought.from;
    let ends = brought.ends.iter().filter_map(|(path, end)| Some((path.clone(), why_not(end)?.message.to_string())));
    mended.why_not = ends.collect();
    mended
}

/// The broken paths, and those that are missing below others.
fn to_bring(scene: &Scene, known: &Known) -> (BTreeSet<StorePath>, BTreeSet<StorePath>) {
    let dir = scene.store.store_dir();
    let (mut broken, mut missing) = (BTreeSet::new(), BTreeSet::new());
    for (record, faults) in &known.broken {
        let references = faults.iter().filter_map(|fault| match fault {
            Fault::Reference(path) => Some(path.clone()),
            _ => None,
        });
        let before = missing.len();
        missing.extend(references);
        // One that only lacks something below it is itself as it should be.
        if missing.len() == before || faults.iter().any(|fault| !matches!(fault, Fault::Reference(_))) {
            broken.extend(known.path_of(record, dir).or_else(|| in_store(scene, record)));
        }
    }
    (broken, missing)
}

/// The path of this record among those of the local store, if its files are on this machine.
fn in_store(scene: &Scene, record: &str) -> Option<StorePath> {
    let entries = std::fs::read_dir(scene.store.physical_dir()?).ok()?.flatten();
    let mut paths = entries.filter_map(|entry| StorePath::from_basename(entry.file_name().as_encoded_bytes()).ok());
    paths.find(|path| narinfo_name(path) == record)
}

/// The damaged NARs of paths that are brought again: a file of the same name and size would be taken for whole.
fn stale_nars(known: &Known, coming: &BTreeSet<&StorePath>) -> Vec<String> {
    let damaged = known
        .broken
        .iter()
        .filter(|(_, faults)| faults.iter().any(|fault| matches!(fault, Fault::NarDamaged(_) | Fault::NarSize { .. })));
    let seen = damaged.filter_map(|(record, _)| known.seen.iter().find(|seen| seen.record == *record));
    let infos = seen.filter_map(|seen| seen.info.as_ref().ok());
    infos.filter(|info| coming.contains(info.store_path())).map(|info| info.url().to_owned()).collect()
}
