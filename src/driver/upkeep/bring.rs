//! Brings paths into a cache, each with all that it refers to, from stores and from other caches. The order is the
//! queue's; this does what it says.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use futures_util::StreamExt as _;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use tokio::sync::watch;

use crate::build::{Caches, Pool, path_info};
use crate::diff::presence::{self, Fact};
use crate::event::{Class, Failure};
use crate::id::{CacheId, StorePath};
use crate::nix_compat::narinfo::NarInfo;
use crate::push::queue::{Action, End, Input, Item, Limits};
use crate::push::{Closure, Nar, PathInfo, Queue, Source, finish};
use crate::store::cache::{Cache, NarWriter, Sink};
use crate::store::error::StoreError;

use super::super::context::{LOCAL, store_failure};
use super::super::pushing::{Failed, Stores, Waiting, upload};
use super::Progress;

/// Who has paths to give.
pub(super) enum Giver {
    /// A store, and what people call it.
    Store(String, Arc<Pool>),
    /// Caches, best priority first.
    Caches(Vec<Arc<Cache>>),
}

/// What is to be brought where.
pub(super) struct Bringing {
    /// The cache that gets it.
    pub(super) to: Arc<Cache>,
    /// How it is written to.
    pub(super) sink: Sink,
    /// Who has it; of several the first.
    pub(super) from: Vec<Giver>,
    /// What the cache has and is not to be counted on.
    pub(super) broken: BTreeSet<StorePath>,
    /// What one of these has need not be brought.
    pub(super) instead: Vec<Arc<Cache>>,
    /// Where it is told how far it is.
    pub(super) progress: watch::Sender<Progress>,
}

/// What became of it.
#[derive(Debug, Default)]
pub(super) struct Brought {
    /// The last word on each path that was to be brought.
    pub(super) ends: BTreeMap<StorePath, End>,
    /// Paths that nobody has.
    pub(super) nowhere: BTreeSet<StorePath>,
    /// Paths that were there already, or in a cache that will do as well; what they refer to was not looked at.
    pub(super) held: BTreeSet<StorePath>,
    /// Who gave each path.
    pub(super) from: BTreeMap<StorePath, String>,
    /// Bytes of files that were written.
    pub(super) bytes: u64,
    /// What was sent, to be read back.
    pub(super) sent: Vec<PathInfo>,
}

/// Where a path is taken from.
#[derive(Clone)]
enum Home {
    Store(String, Arc<Pool>),
    Cache(Arc<Cache>, Box<NarInfo>),
}

/// What an effect came to: the answer for the queue, and the NAR if one was sent.
type Effect<'a> = BoxFuture<'a, (Input, Option<Nar>)>;

impl Bringing {
    /// Finds out what it takes for these roots. Nothing is written yet.
    pub(super) async fn find(&self, roots: &BTreeSet<StorePath>) -> Result<Found, Failure> {
        let mut looking = Looking { bringing: self, homes: BTreeMap::new() };
        let closure = crate::push::closure(roots.iter().cloned(), &mut looking).await?;
        Ok(Found { closure, homes: looking.homes })
    }

    /// Brings what was found.
    pub(super) async fn carry(&self, found: Found) -> Brought {
        let Found { closure: Closure { push, held, invalid }, homes } = found;
        let mut brought = Brought { nowhere: invalid, held: held.clone(), ..Brought::default() };
        let infos: BTreeMap<StorePath, PathInfo> = push.iter().map(|info| (info.path.clone(), info.clone())).collect();
        let items = push.iter().map(|info| Item {
            path: info.path.clone(),
            references: info.others().cloned().collect(),
            nar_size: info.nar_size,
        });
        self.progress.send_modify(|progress| progress.of = infos.len());
        let mut inputs = vec![Input::NoMore, Input::Add(items.collect()), Input::Held(held.into_iter().collect())];
        let (uploads, ordered) = (self.sink.parallel(), self.sink.is_ordered());
        let mut queue = Queue::new(Limits { uploads, ordered, ..Limits::default() });
        let mut nars: BTreeMap<StorePath, Nar> = BTreeMap::new();
        let mut running: FuturesUnordered<Effect<'_>> = FuturesUnordered::new();
        while let Some(input) = inputs.pop() {
            let mut actions = Vec::new();
            queue.handle(input, &mut actions);
            for action in actions {
                match action {
                    Action::Check(paths) => running.push(Box::pin(self.check(paths))),
                    Action::Upload(path) => {
                        if let (Some(info), Some(home)) = (infos.get(&path), homes.get(&path)) {
                            running.push(Box::pin(self.send(info.clone(), home.clone())));
                        }
                    }
                    Action::Finish(path) => {
                        if let (Some(info), Some(nar), Some(home)) =
                            (infos.get(&path), nars.get(&path), homes.get(&path))
                        {
                            running.push(Box::pin(self.finish(info.clone(), nar.clone(), home.clone())));
                        }
                    }
                    Action::Ended(path, end) => {
                        if let (End::Pushed, Some(info)) = (&end, infos.get(&path)) {
                            brought.sent.push(info.clone());
                            brought.bytes += nars.get(&path).and_then(|nar| nar.file_size).unwrap_or(0);
                            brought.from.extend(homes.get(&path).map(|home| (path.clone(), home.name())));
                        }
                        let bytes = brought.bytes;
                        self.progress
                            .send_modify(|progress| (progress.done, progress.bytes) = (progress.done + 1, bytes));
                        brought.ends.insert(path, end);
                    }
                }
            }
            if inputs.is_empty()
                && let Some((input, nar)) = running.next().await
            {
                if let (Input::Uploaded(path), Some(nar)) = (&input, nar) {
                    nars.insert(path.clone(), nar);
                }
                inputs.push(input);
            }
        }
        self.sink.close().await;
        brought
    }

    /// Which of these paths the cache has, whole.
    async fn whole(&self, paths: &[StorePath]) -> Vec<bool> {
        let held = self.to.inspect(paths).await.into_iter();
        let whole = held
            .zip(paths)
            .map(|(held, path)| matches!(held, Ok(Some(held)) if held.nar) && !self.broken.contains(path));
        whole.collect()
    }

    async fn check(&self, paths: Vec<StorePath>) -> (Input, Option<Nar>) {
        let (mut present, mut absent) = (Vec::new(), Vec::new());
        let whole = self.whole(&paths).await;
        for (path, whole) in paths.into_iter().zip(whole) {
            if whole { present.push(path) } else { absent.push(path) }
        }
        (Input::Checked { present, absent }, None)
    }

    async fn send(&self, info: PathInfo, home: Home) -> (Input, Option<Nar>) {
        match home.send(&self.sink, &info).await {
            Ok(nar) => (Input::Uploaded(info.path), Some(nar)),
            Err(failure) => (Input::Failed(info.path, failure), None),
        }
    }

    /// Makes a path visible. A cache may know the NAR no more by then: it is sent once more.
    async fn finish(&self, info: PathInfo, nar: Nar, home: Home) -> (Input, Option<Nar>) {
        let finished = match finish(&self.sink, &info, &nar).await {
            Err(error) if error.again().is_some() => match home.send(&self.sink, &info).await {
                Ok(nar) => finish(&self.sink, &info, &nar).await.map_err(|error| error.failure()),
                Err(failure) => Err(failure),
            },
            finished => finished.map_err(|error| error.failure()),
        };
        match finished {
            Ok(_) => (Input::Finished(info.path), None),
            Err(failure) => (Input::Failed(info.path, failure), None),
        }
    }
}

/// What it takes, and who has it.
pub(super) struct Found {
    pub(super) closure: Closure,
    homes: BTreeMap<StorePath, Home>,
}

/// Whom the walk asks.
struct Looking<'a> {
    bringing: &'a Bringing,
    homes: BTreeMap<StorePath, Home>,
}

impl Source for Looking<'_> {
    type Error = Failure;

    async fn held(&mut self, paths: Vec<StorePath>) -> Result<Vec<bool>, Failure> {
        let mut held = self.bringing.whole(&paths).await;
        let open: Vec<StorePath> = paths
            .iter()
            .zip(&held)
            .filter(|(path, held)| !**held && !self.bringing.broken.contains(*path))
            .map(|(path, _)| path.clone())
            .collect();
        let facts = presence::cascade(&self.bringing.instead, &open).await;
        let there = facts.into_iter().filter(|(_, fact)| matches!(fact, Fact::Present { .. }));
        let there: BTreeSet<StorePath> = there.map(|(path, _)| path).collect();
        held.iter_mut().zip(&paths).for_each(|(held, path)| *held |= there.contains(path));
        Ok(held)
    }

    async fn infos(&mut self, paths: Vec<StorePath>) -> Result<Vec<Option<PathInfo>>, Failure> {
        let mut found: BTreeMap<StorePath, PathInfo> = BTreeMap::new();
        for (at, giver) in self.bringing.from.iter().enumerate() {
            let open: Vec<StorePath> = paths.iter().filter(|path| !found.contains_key(path)).cloned().collect();
            if open.is_empty() {
                break;
            }
            let infos = match giver.infos(&open).await {
                // One of several that is away has nothing to give.
                Err(failure) if at > 0 => {
                    tracing::debug!(why = %failure.message, "passed over");
                    continue;
                }
                infos => infos?,
            };
            for (info, home) in infos {
                self.homes.insert(info.path.clone(), home);
                found.insert(info.path.clone(), info);
            }
        }
        self.bringing.progress.send_modify(|progress| progress.done += found.len());
        Ok(paths.iter().map(|path| found.remove(path)).collect())
    }
}

impl Giver {
    async fn infos(&self, paths: &[StorePath]) -> Result<Vec<(PathInfo, Home)>, Failure> {
        match self {
            Self::Store(name, pool) => {
                let lost = |error: StoreError| store_failure(&error);
                let mut session = pool.take(Caches::Off).await.map_err(lost)?;
                let infos = session.path_infos(paths).await.map_err(|error| lost(session.explain(error)))?;
                pool.give_back(session);
                Ok(infos.into_iter().flatten().map(|info| (info, Home::Store(name.clone(), pool.clone()))).collect())
            }
            Self::Caches(caches) => {
                let of = |id: CacheId| caches.iter().find(|cache| cache.id() == id).cloned();
                let facts = presence::cascade(caches, paths).await.into_iter();
                let infos = facts.filter_map(|(_, fact)| match fact {
                    Fact::Present { cache, info } => Some((path_info(&info)?, Home::Cache(of(cache)?, info))),
                    Fact::Untrusted { .. } | Fact::Absent | Fact::NoAnswer { .. } => None,
                });
                Ok(infos.collect())
            }
        }
    }
}

impl Home {
    /// What people call it.
    fn name(&self) -> String {
        match self {
            Self::Store(name, _) => name.clone(),
            Self::Cache(cache, _) => cache.name().to_owned(),
        }
    }

    async fn send(&self, sink: &Sink, info: &PathInfo) -> Result<Nar, Failure> {
        match self {
            Self::Store(_, pool) => upload(&Stores::new(vec![(LOCAL, pool.clone())]), sink, info).await,
            Self::Cache(cache, record) => copy(cache, record, sink, info).await,
        }
    }
}

/// Copies the NAR of a path from one cache to another, as often as it takes.
async fn copy(from: &Cache, record: &NarInfo, to: &Sink, info: &PathInfo) -> Result<Nar, Failure> {
    if let Some(nar) = to.without_nar() {
        return Ok(nar);
    }
    let mut waiting = Waiting::default();
    loop {
        let room = to.room(info).await;
        let mut nar = from.nar(record).await?;
        let read = |mut to: NarWriter| async move { tokio::io::copy(&mut nar, &mut to).await.map(|_| to) };
        let sent = crate::push::upload(to, info, read).await;
        drop(room);
        match sent.map_err(Failed::from) {
            Ok(nar) => return Ok(nar),
            Err(Failed::Store(failure) | Failed::Of(failure)) => return Err(failure),
            Err(Failed::Again(again)) => waiting.wait(to, &again).await?,
        }
    }
}

/// Why a path did not come.
pub(super) fn why_not(end: &End) -> Option<Failure> {
    let failed = |message: String| Some(Failure::new(Class::Dependency, message));
    match end {
        End::Pushed | End::Present => None,
        End::Failed(failure) => Some(failure.clone()),
        End::Reference(root) => failed(format!("{} could not be brought", root.name())),
        End::Unknown(root) => failed(format!("it refers to {}, which nobody has", root.name())),
        End::Stopped => failed("it was stopped".to_owned()),
    }
}
