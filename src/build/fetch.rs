//! Fetching outputs from caches into a store: by the store's own daemon where that is possible, else by drover, which
//! downloads and adds them (design §4, who fetches).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;

use crate::event::{Class, Failure};
use crate::id::{CacheId, StorePath};
use crate::nix_compat::daemon::PathInfo;
use crate::nix_compat::narinfo::{CAHash, NarInfo, NixHash, NixSignature};
use crate::store::cache::{Answer, Cache};

use super::{Caches, Pool};

/// Paths that are fetched at once, one by one.
const AT_ONCE: usize = 8;

/// A path to fetch, which cache has it, and what it refers to.
pub type Piece = (StorePath, CacheId, Vec<StorePath>);

/// Why a fetch failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FetchError {
    /// For people.
    pub failure: Failure,
    /// The paths that could not be had; `None` if nobody has looked which those are.
    pub culprits: Option<Vec<StorePath>>,
}

/// Has the daemon substitute these paths with their closures. Only for caches that the daemon applies itself.
pub async fn fetch(pool: &Pool, paths: &[StorePath]) -> Result<(), FetchError> {
    let error = |failure| FetchError { failure, culprits: None };
    let mut connection = pool.take(Caches::On).await.map_err(|lost| error(failure(Class::BuilderLost, &lost)))?;
    for path in paths {
        if let Err(refused) = connection.ensure_path(path, &mut |_| {}).await {
            let class = if refused.remote().is_some() { Class::Cache } else { Class::BuilderLost };
            pool.give_back(connection);
            return Err(error(failure(class, &refused)));
        }
    }
    pool.give_back(connection);
    Ok(())
}

/// Fetches a closure path by path, references before referrers. `by_daemon`: the caches that the daemon applies; what
/// it does not bring, drover downloads from whichever of `caches` has it. Goes on after a failure, so that it is known
/// of which paths nobody has a good copy.
pub async fn fetch_each(
    pool: &Pool,
    caches: &[Arc<Cache>],
    by_daemon: &BTreeSet<CacheId>,
    closure: &[Piece],
) -> Result<(), FetchError> {
    let mut open = Open::new(closure);
    let mut running = FuturesUnordered::new();
    let mut failures: BTreeMap<StorePath, Failure> = BTreeMap::new();
    loop {
        while running.len() < AT_ONCE
            && let Some((path, cache, whole)) = open.next()
        {
            let daemon = by_daemon.contains(cache);
            running.push(async move {
                // Without its references a path cannot be added, but it can be known whether it could be had.
                let had = if whole { bring(pool, caches, path, daemon).await } else { look(caches, path).await };
                (path, whole, had)
            });
        }
        match running.next().await {
            Some((path, whole, had)) => {
                open.done(path, whole && had.is_ok());
                if let Err(failure) = had {
                    failures.insert(path.clone(), failure);
                }
            }
            None => break,
        }
    }
    match failures.values().next().cloned() {
        None => Ok(()),
        Some(failure) => Err(FetchError { failure, culprits: Some(failures.into_keys().collect()) }),
    }
}

/// Which paths of a closure can be fetched next.
struct Open<'a> {
    /// How many references of a path are still open, and whether those before were had.
    waiting: BTreeMap<&'a StorePath, (usize, bool)>,
    users: BTreeMap<&'a StorePath, Vec<&'a StorePath>>,
    caches: BTreeMap<&'a StorePath, &'a CacheId>,
    ready: Vec<&'a StorePath>,
}

impl<'a> Open<'a> {
    fn new(closure: &'a [Piece]) -> Self {
        let caches: BTreeMap<_, _> = closure.iter().map(|(path, cache, _)| (path, cache)).collect();
        let mut users: BTreeMap<&StorePath, Vec<&StorePath>> = BTreeMap::new();
        let mut waiting = BTreeMap::new();
        for (path, _, references) in closure {
            let inside = references.iter().filter(|reference| *reference != path && caches.contains_key(reference));
            let mut count = 0;
            for reference in inside {
                users.entry(reference).or_default().push(path);
                count += 1;
            }
            waiting.insert(path, (count, true));
        }
        let ready: Vec<&StorePath> =
            closure.iter().map(|(path, ..)| path).filter(|p| waiting[p].0 == 0).rev().collect();
        Self { waiting, users, caches, ready }
    }

    /// The next path, its cache, and whether all that it refers to has been had.
    fn next(&mut self) -> Option<(&'a StorePath, &'a CacheId, bool)> {
        let path = self.ready.pop()?;
        Some((path, self.caches[path], self.waiting[path].1))
    }

    fn done(&mut self, path: &StorePath, had: bool) {
        for user in self.users.get(path).cloned().unwrap_or_default() {
            let Some((count, whole)) = self.waiting.get_mut(user) else { continue };
            *count -= 1;
            *whole &= had;
            if *count == 0 {
                self.ready.push(user);
            }
        }
    }
}

/// Brings one path whose references are valid.
async fn bring(pool: &Pool, caches: &[Arc<Cache>], path: &StorePath, by_daemon: bool) -> Result<(), Failure> {
    let mut connection = pool.take(Caches::On).await.map_err(|error| failure(Class::BuilderLost, &error))?;
    let mut last = None;
    if by_daemon {
        match connection.ensure_path(path, &mut |_| {}).await {
            Ok(()) => {
                pool.give_back(connection);
                return Ok(());
            }
            Err(error) if error.remote().is_some() => last = Some(failure(Class::Cache, &error)),
            Err(error) => return Err(failure(Class::BuilderLost, &error)),
        }
    } else if matches!(connection.hold_valid(std::slice::from_ref(path)).await.as_deref(), Ok([true])) {
        pool.give_back(connection);
        return Ok(());
    }
    for cache in caches {
        match cache.ask(std::slice::from_ref(path)).await.pop() {
            Some(Answer::Present(info)) => match download(&mut connection, cache, &info).await {
                Ok(()) => {
                    pool.give_back(connection);
                    return Ok(());
                }
                Err(why) => last = Some(why),
            },
            Some(Answer::NoAnswer(why)) => last = Some(why),
            Some(Answer::Untrusted(_) | Answer::Absent) | None => {}
        }
        if !connection.is_usable() {
            break;
        }
    }
    pool.give_back(connection);
    let nobody = || Failure::new(Class::Cache, format!("{} is in no cache", path.name()));
    Err(last.unwrap_or_else(nobody))
}

/// Whether a cache has a path and its NAR.
async fn look(caches: &[Arc<Cache>], path: &StorePath) -> Result<(), Failure> {
    for cache in caches {
        if let Some(Ok(Some(held))) = cache.inspect(std::slice::from_ref(path)).await.pop()
            && held.nar
        {
            return Ok(());
        }
    }
    let message = format!("the NAR of {} is in no cache", path.name());
    Err(Failure::new(Class::Cache, message))
}

/// Downloads a path and adds it with its signatures. The daemon checks its hash, and its signatures unless it trusts
/// this client; these have been checked before by the same keys.
async fn download(
    connection: &mut crate::store::session::Session,
    cache: &Cache,
    info: &NarInfo,
) -> Result<(), Failure> {
    let Some(path_info) = path_info(info) else {
        let message = format!("the record of {} names no SHA-256 of its NAR", info.store_path().name());
        return Err(Failure::new(Class::Cache, message));
    };
    let mut nar = cache.nar(info).await?;
    let added = connection.add_to_store_nar(&path_info, false, &mut nar, &mut |_| {}).await;
    added.map_err(|error| failure(if error.is_fatal() { Class::BuilderLost } else { Class::Cache }, &error))
}

/// What the store is told of a path that a cache has.
#[must_use]
pub fn path_info(info: &NarInfo) -> Option<PathInfo> {
    let NixHash::Sha256(nar_hash) = info.nar_hash() else { return None };
    Some(PathInfo {
        path: info.store_path().clone(),
        nar_hash: *nar_hash,
        nar_size: info.nar_size(),
        registration_time: 0,
        ultimate: false,
        references: info.references().iter().cloned().collect(),
        deriver: info.deriver().cloned(),
        signatures: info.signatures().iter().map(NixSignature::to_nix_string).collect(),
        ca: info.content_address().map(CAHash::to_nix_string),
    })
}

fn failure(class: Class, error: &(dyn std::error::Error + 'static)) -> Failure {
    Failure::new(class, crate::error::chain(error))
}
