//! What a push reads, from whichever store has it: the local one, or that of a builder, so that nothing has to come home
//! only to be pushed.

use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::build::{Caches, Lent, Pool, in_time, path_info, read_nar};
use crate::diff::presence::{self, Fact as CacheFact};
use crate::event::Failure;
use crate::id::{BuilderId, StorePath};
use crate::nix_compat::narinfo::NarInfo;
use crate::push::{Closure, Nar, PathInfo, Source, UploadError};
use crate::store::cache::{Again, Cache, NarWriter, Sink};
use crate::store::error::StoreError;

use super::super::context::store_failure;

/// The stores that a push reads from, in the order in which they are asked.
#[derive(Debug, Clone)]
pub(in crate::driver) struct Stores(Vec<(BuilderId, Arc<Pool>)>);

impl Stores {
    /// These.
    pub(in crate::driver) fn new(stores: Vec<(BuilderId, Arc<Pool>)>) -> Self {
        Self(stores)
    }

    /// The same, this one before all others.
    pub(super) fn first_from(mut self, first: Option<BuilderId>) -> Self {
        self.0.sort_by_key(|(id, _)| Some(*id) != first);
        self
    }
}

/// What is known of paths before a walk asks.
#[derive(Debug, Default)]
pub(super) struct Known {
    /// Queued already.
    pub(super) queued: HashSet<StorePath>,
    /// Built in this run: nobody else can hold them.
    pub(super) built: HashSet<StorePath>,
}

/// What a walk found, and where.
pub(in crate::driver) struct Walked {
    pub(super) closure: Closure,
    pub(super) homes: BTreeMap<StorePath, BuilderId>,
}

/// Finds out what some outputs refer to. `below`: also what those refer to that only this very cache has, by its records.
pub(super) async fn walk(
    stores: Stores,
    roots: Vec<StorePath>,
    known: Arc<Mutex<Known>>,
    upstream: Vec<Arc<Cache>>,
    cache: &Cache,
    below: bool,
) -> Result<Walked, Failure> {
    let asked = stores.0.into_iter().map(|(id, pool)| Asked { id, pool, session: None, lost: None }).collect();
    let mut walk = Walk { asked, known, upstream, homes: BTreeMap::new(), below: below.then_some(cache) };
    let closure = crate::push::closure(roots, &mut walk).await;
    for asked in walk.asked {
        asked.session.into_iter().for_each(|session| asked.pool.give_back(session));
    }
    match closure {
        Ok(closure) => Ok(Walked { closure: in_cache_only(cache, closure).await, homes: walk.homes }),
        Err(error) => Err(store_failure(&error)),
    }
}

/// What came from this very cache, or was collected since, need not be in any store.
async fn in_cache_only(cache: &Cache, mut closure: Closure) -> Closure {
    let gone: Vec<StorePath> = closure.invalid.iter().cloned().collect();
    for (path, answer) in gone.iter().zip(cache.inspect(&gone).await) {
        if matches!(answer, Ok(Some(held)) if held.nar) {
            closure.invalid.remove(path);
            closure.held.insert(path.clone());
        }
    }
    closure
}

/// A store that a walk asks, over one connection.
struct Asked {
    id: BuilderId,
    pool: Arc<Pool>,
    session: Option<Lent>,
    /// Why it is asked no more.
    lost: Option<StoreError>,
}

impl Asked {
    async fn infos(&mut self, paths: &[StorePath]) -> Result<Vec<Option<PathInfo>>, StoreError> {
        let session = match &mut self.session {
            Some(session) => session,
            none => none.insert(self.pool.take(Caches::Off).await?),
        };
        let asked = async {
            let infos = session.path_infos(paths).await;
            infos.map_err(|error| session.explain(error))
        };
        let infos = in_time(self.pool.store(), paths.len(), asked).await;
        if infos.is_err() {
            // Nothing that comes late is taken for the answer to another question.
            self.session = None;
        }
        infos
    }
}

/// Whom a walk asks: the stores, and the caches that are read from.
struct Walk<'a> {
    asked: Vec<Asked>,
    known: Arc<Mutex<Known>>,
    upstream: Vec<Arc<Cache>>,
    homes: BTreeMap<StorePath, BuilderId>,
    /// The cache that is pushed to, if its own records are to be followed.
    below: Option<&'a Cache>,
}

impl Source for Walk<'_> {
    type Error = StoreError;

    async fn held(&mut self, paths: Vec<StorePath>) -> Result<Vec<bool>, StoreError> {
        let (mut stop, ask): (HashSet<StorePath>, Vec<StorePath>) = {
            let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
            let stop = paths.iter().filter(|path| known.queued.contains(*path)).cloned().collect();
            let fresh = |path: &&StorePath| !known.queued.contains(*path) && !known.built.contains(*path);
            (stop, paths.iter().filter(fresh).cloned().collect())
        };
        let facts = presence::cascade(&self.upstream, &ask).await;
        let present = facts.into_iter().filter(|(_, fact)| matches!(fact, CacheFact::Present { .. }));
        stop.extend(present.map(|(path, _)| path));
        Ok(paths.iter().map(|path| stop.contains(path)).collect())
    }

    /// Each store is asked for what those before it do not have. One that does not answer is passed over, unless some
    /// path is in no other: then nobody knows what it refers to.
    async fn infos(&mut self, paths: Vec<StorePath>) -> Result<Vec<Option<PathInfo>>, StoreError> {
        let mut found: BTreeMap<StorePath, PathInfo> = BTreeMap::new();
        let mut open = paths.clone();
        for asked in self.asked.iter_mut().filter(|asked| asked.lost.is_none()) {
            if open.is_empty() {
                break;
            }
            match asked.infos(&open).await {
                Ok(infos) => {
                    for info in infos.into_iter().flatten() {
                        self.homes.insert(info.path.clone(), asked.id);
                        found.insert(info.path.clone(), info);
                    }
                    open.retain(|path| !found.contains_key(path));
                }
                Err(error) => asked.lost = Some(error),
            }
        }
        if let Some(cache) = self.below.filter(|_| !open.is_empty()) {
            let held = open.iter().zip(cache.inspect(&open).await);
            let whole = held.filter_map(|(_, held)| held.ok().flatten().filter(|held| held.nar));
            found.extend(whole.filter_map(|held| path_info(&held.info)).map(|info| (info.path.clone(), info)));
            open.retain(|path| !found.contains_key(path));
        }
        if !open.is_empty()
            && let Some(error) = self.asked.iter_mut().find_map(|asked| asked.lost.take())
        {
            return Err(error);
        }
        Ok(paths.iter().map(|path| found.remove(path)).collect())
    }
}

/// Streams one NAR from a store to the cache. Where a store fails, or has a damaged copy, the next is tried; where the
/// cache may take it another time, it is made again then.
pub(in crate::driver) async fn upload(stores: &Stores, sink: &Sink, info: &PathInfo) -> Result<Nar, Failure> {
    if let Some(nar) = sink.without_nar() {
        return Ok(nar);
    }
    let mut waiting = Waiting::default();
    loop {
        match upload_once(stores, sink, info).await {
            Ok(nar) => return Ok(nar),
            Err(Failed::Store(failure) | Failed::Of(failure)) => return Err(failure),
            Err(Failed::Again(again)) => waiting.wait(sink, &again).await?,
        }
    }
}

/// Makes a path visible whose NAR was sent and whose references are there. Gives its record, unless the server writes
/// it. A cache may know the NAR no more by then: it is sent once more.
pub(in crate::driver) async fn finish(
    stores: &Stores,
    sink: &Sink,
    info: &PathInfo,
    nar: &Nar,
) -> Result<Option<NarInfo>, Failure> {
    match crate::push::finish(sink, info, nar).await {
        Err(error) if error.again().is_some() => {
            let nar = upload(stores, sink, info).await?;
            crate::push::finish(sink, info, &nar).await.map_err(|error| error.failure())
        }
        finished => finished.map_err(|error| error.failure()),
    }
}

/// How often a cache was given a path in vain, and how long it was waited for.
#[derive(Debug, Default)]
pub(in crate::driver) struct Waiting {
    tries: u32,
    waited: Duration,
}

impl Waiting {
    /// Waits until it may be given the path again; an error once patience has come to its end.
    pub(in crate::driver) async fn wait(&mut self, sink: &Sink, again: &Again) -> Result<(), Failure> {
        self.tries += 1;
        let wait = sink.wait(self.tries, self.waited, again)?;
        self.waited += wait;
        tokio::time::sleep(wait).await;
        Ok(())
    }
}

/// Why a path was not uploaded.
pub(in crate::driver) enum Failed {
    /// The store could not be read.
    Store(Failure),
    /// The cache did not take it, and may another time.
    Again(Again),
    /// Anything else.
    Of(Failure),
}

impl From<UploadError> for Failed {
    fn from(error: UploadError) -> Self {
        match error.again() {
            Some(again) => Self::Again(again.clone()),
            None if error.is_of_store() => Self::Store(error.failure()),
            None => Self::Of(error.failure()),
        }
    }
}

async fn upload_once(stores: &Stores, sink: &Sink, info: &PathInfo) -> Result<Nar, Failed> {
    let _room = sink.room(info).await;
    let mut last = None;
    for (_, pool) in &stores.0 {
        match upload_from(pool, sink, info).await {
            // What the first one says counts: it had the path.
            Err(Failed::Store(failure)) => last = last.or(Some(failure)),
            other => return other,
        }
    }
    Err(Failed::Store(last.unwrap_or_else(super::not_here)))
}

async fn upload_from(pool: &Pool, sink: &Sink, info: &PathInfo) -> Result<Nar, Failed> {
    if let Some(files) = pool.store().files(&info.path) {
        match crate::push::upload_files(sink, info, files).await.map_err(Failed::from) {
            // Its daemon may read what this user may not.
            Err(Failed::Store(_)) => {}
            other => return other,
        }
    }
    let lost = |error: StoreError| Failed::Store(store_failure(&error));
    let turn = pool.turn().await;
    let mut session = pool.take(Caches::Off).await.map_err(lost)?;
    let read = |mut writer: NarWriter| async move {
        read_nar(&mut session, info, &mut writer).await.map_err(std::io::Error::other)?;
        // Others may have the connection while the cache takes its time.
        pool.give_back(session);
        drop(turn);
        Ok(writer)
    };
    Ok(crate::push::upload(sink, info, read).await?)
}
