//! Reads back what was pushed: is it really there, whole, signed, and with all that it refers to?

use std::collections::{BTreeMap, BTreeSet};

use futures_util::StreamExt as _;
use sha2::{Digest as _, Sha256};
use tokio::io::AsyncReadExt as _;

use crate::event::{Fact, Failure};
use crate::id::{CacheId, StoreDir, StorePath};
use crate::nix_compat::daemon::PathInfo;
use crate::nix_compat::narinfo::{NarInfo, NixHash, TrustedPublicKey};
use crate::store::cache::{Cache, Held};

/// NARs that are downloaded at once to be hashed.
const DOWNLOADS: usize = 4;

/// Bytes of a NAR that are hashed at a time.
const CHUNK: usize = 256 * 1024;

/// What a cache really holds of what was pushed to it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Verified {
    /// Paths that are there.
    pub present: BTreeSet<StorePath>,
    /// Paths that are not, or not whole, and why.
    pub missing: BTreeMap<StorePath, String>,
}

impl Verified {
    /// The same as an event.
    #[must_use]
    pub fn fact(&self, cache: CacheId, store_dir: &StoreDir) -> Fact {
        let missing = self.missing.keys().map(|path| store_dir.render_path(path).into()).collect();
        Fact::PushVerified { cache, present: u32::try_from(self.present.len()).unwrap_or(u32::MAX), missing }
    }
}

/// Reads the records of uploaded paths anew, each of which was finished before: which of them are whole. A record must
/// name the NAR hash that the store says, our keys must have signed it, and its NAR must be there with the right size.
/// Of the others it is said why they are not.
pub async fn read_back(cache: &Cache, uploaded: &[PathInfo]) -> Verified {
    let keys: Vec<TrustedPublicKey> =
        cache.sink().map(|sink| sink.keys().iter().map(|key| key.public_key()).collect()).unwrap_or_default();
    let paths: Vec<_> = uploaded.iter().map(|info| info.path.clone()).collect();
    let mut read = Verified::default();
    for (info, answer) in uploaded.iter().zip(cache.inspect(&paths).await) {
        match has_nar(answer).and_then(|record| is_ours(info, &record, &keys)) {
            Ok(()) => read.present.insert(info.path.clone()),
            Err(why) => read.missing.insert(info.path.clone(), why).is_some(),
        };
    }
    read
}

/// What is whole in the end. Reads back all of `uploaded` but what is `read` already. Of a path of `already`, which was
/// there before, another build and other signatures are fine, but its NAR must be there. What an uploaded path refers
/// to must be in this cache or `held` by other caches.
pub async fn verify(
    cache: &Cache,
    uploaded: &[PathInfo],
    read: BTreeSet<StorePath>,
    already: &BTreeSet<StorePath>,
    held: &BTreeSet<StorePath>,
) -> Verified {
    let rest: Vec<PathInfo> = uploaded.iter().filter(|info| !read.contains(&info.path)).cloned().collect();
    let Verified { present: mut there, mut missing } = read_back(cache, &rest).await;
    there.extend(read);
    let mut before = already.clone();
    let references = uploaded.iter().flat_map(PathInfo::others).filter(|path| !held.contains(*path));
    before.extend(references.filter(|path| !there.contains(*path) && !missing.contains_key(*path)).cloned());
    let before: Vec<_> = before.into_iter().filter(|path| !there.contains(path)).collect();
    for (path, answer) in before.iter().zip(cache.inspect(&before).await) {
        match has_nar(answer) {
            Ok(_) => there.insert(path.clone()),
            Err(why) if already.contains(path) => missing.insert(path.clone(), why).is_some(),
            Err(_) => false,
        };
    }
    lose_referrers(uploaded, held, &mut there, &mut missing);
    let uploaded = uploaded.iter().map(|info| &info.path);
    let present = uploaded.chain(already).filter(|path| there.contains(*path)).cloned().collect();
    Verified { present, missing }
}

/// Downloads the NARs of what was uploaded, and hashes them. Those that are not what their records say are not there.
pub async fn verify_nars(cache: &Cache, uploaded: &[PathInfo], held: &BTreeSet<StorePath>, verified: &mut Verified) {
    let there = uploaded.iter().filter(|info| verified.present.contains(&info.path)).map(|info| info.path.clone());
    let there: Vec<StorePath> = there.collect();
    let answers = cache.inspect(&there).await;
    let checks = there.into_iter().zip(answers).map(|(path, answer): (StorePath, _)| async move {
        let record = match has_nar(answer) {
            Ok(record) => record,
            Err(why) => return (path, Err(why)),
        };
        (path, is_whole(cache, &record).await)
    });
    let mut checks = futures_util::stream::iter(checks).buffer_unordered(DOWNLOADS);
    while let Some((path, whole)) = checks.next().await {
        if let Err(why) = whole {
            verified.present.remove(&path);
            verified.missing.insert(path, why);
        }
    }
    drop(checks);
    lose_referrers(uploaded, held, &mut verified.present, &mut verified.missing);
}

/// Whether the NAR that a record names is the one that it names.
async fn is_whole(cache: &Cache, record: &NarInfo) -> Result<(), String> {
    let mut nar = cache.nar(record).await.map_err(|failure| failure.message.to_string())?;
    let (mut hash, mut size, mut chunk) = (Sha256::new(), 0u64, vec![0; CHUNK]);
    loop {
        match nar.read(&mut chunk).await {
            Ok(0) => break,
            Ok(read) => {
                hash.update(chunk.get(..read).unwrap_or_default());
                size = size.saturating_add(read as u64);
            }
            Err(error) => return Err(format!("its NAR cannot be read: {error}")),
        }
    }
    let right = NixHash::Sha256(hash.finalize().into()) == *record.nar_hash() && size == record.nar_size();
    if right { Ok(()) } else { Err("its NAR in the cache is not what its record says".to_owned()) }
}

/// What refers to a path that is nowhere is not whole either, nor is what refers to that.
fn lose_referrers(
    uploaded: &[PathInfo],
    held: &BTreeSet<StorePath>,
    there: &mut BTreeSet<StorePath>,
    missing: &mut BTreeMap<StorePath, String>,
) {
    loop {
        let lost = |info: &&PathInfo| {
            let gone = info.others().find(|reference| !there.contains(*reference) && !held.contains(*reference))?;
            Some((info.path.clone(), format!("it refers to {}, which is not whole in any cache", gone.to_basename())))
        };
        let lost: Vec<_> =
            uploaded.iter().filter(|info| there.contains(&info.path)).filter_map(|info| lost(&info)).collect();
        if lost.is_empty() {
            return;
        }
        for (path, why) in lost {
            there.remove(&path);
            missing.insert(path, why);
        }
    }
}

/// The record, if its NAR is there too.
fn has_nar(answer: Result<Option<Held>, Failure>) -> Result<Box<NarInfo>, String> {
    match answer {
        Ok(Some(Held { info, nar: true })) => Ok(info),
        Ok(Some(Held { info, nar: false })) => Err(format!("its NAR {} is not there, or not whole", info.url())),
        Ok(None) => Err("the cache does not have it".to_owned()),
        Err(failure) => Err(failure.message.to_string()),
    }
}

fn is_ours(info: &PathInfo, record: &NarInfo, keys: &[TrustedPublicKey]) -> Result<(), String> {
    if *record.nar_hash() != NixHash::Sha256(info.nar_hash) || record.nar_size() != info.nar_size {
        return Err("the cache has another build of it".to_owned());
    }
    let signed = keys.iter().all(|key| record.has_valid_signature(record.store_dir(), std::slice::from_ref(key)));
    if signed { Ok(()) } else { Err("it is not signed with our key".to_owned()) }
}
