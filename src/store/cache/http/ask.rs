//! Questions about many paths: their records are read on the engine's thread, and their signatures checked beside it, by all processors.

use std::sync::{Arc, Mutex, PoisonError};

use futures_util::{FutureExt as _, StreamExt as _, stream};
use rayon::prelude::*;
use reqwest::Method;

use super::{Fetched, HttpCache};
use crate::event::{Class, Failure};
use crate::id::StorePath;
use crate::nix_compat::narinfo::MAX_NARINFO_SIZE;
use crate::store::cache::Held;
use crate::store::cache::answer::{Answer, Trust, narinfo_name, no_answer};
use crate::store::cache::answers::{Paths, Pieces};
use crate::store::cache::gate::Door;

/// Questions of one batch that exist at once; the gate bounds what is really in flight.
const WINDOW: usize = 256;

/// Paths that a cache is asked for to find out whether it answers at all: as many as make it count as down.
const TESTS: usize = 3;

/// Records that are judged by one processor: with fewer it takes longer to share them out.
const FEW: usize = 8;

/// What one record came to.
type Record = Result<Option<Vec<u8>>, Failure>;

impl HttpCache {
    /// Answers for all paths, as they come. If the cache seems to be down, one path is asked first, once, or none.
    pub(in super::super) fn ask(
        self: Arc<Self>,
        trust: Arc<Trust>,
        paths: Paths,
        pieces: Pieces,
    ) -> impl Future<Output = ()> + Send {
        let engine = self.engine.clone();
        let unheard = Unheard { answers: self.health.answers(), cache: Some(self.clone()), paths: paths.clone() };
        let asked = engine.run(async move { self.ask_here(&trust, &paths, &pieces).await });
        async move {
            asked.await;
            unheard.ended();
        }
    }

    /// Asks for some paths without any patience but for the answer itself, which says whether it is down.
    async fn find_out(&self, paths: &[StorePath]) {
        let door = Door::default();
        let asked = paths.iter().take(TESTS).map(|path| self.record(&door, path, 1));
        futures_util::future::join_all(asked).await;
        self.health.tested();
    }

    async fn ask_here(&self, trust: &Arc<Trust>, paths: &Paths, pieces: &Pieces) {
        let mut next = 0;
        if self.health.is_down() {
            if let Some(first) = paths.first()
                && self.health.may_probe(&self.patience)
            {
                let record = self.record(&Door::default(), first, 1).await;
                let _ = pieces.send(vec![(0, trust.answer(first, record))]);
                next = 1;
            }
            if self.health.is_down() {
                let silence = || Answer::NoAnswer(down());
                let _ = pieces.send((next..paths.len()).map(|at| (at, silence())).collect());
                return;
            }
        }
        let door = Door::default();
        let read = |at: usize| self.record(&door, &paths[at], self.patience.attempts).map(move |record| (at, record));
        let records = stream::iter((next..paths.len()).map(read)).buffer_unordered(WINDOW);
        let mut records = std::pin::pin!(records.ready_chunks(WINDOW));
        while let Some(records) = records.next().await {
            let work = Work { records, trust: trust.clone(), paths: paths.clone(), pieces: pieces.clone() };
            self.judge.judge(work);
        }
    }

    /// Reads the records of all paths, and asks for their NARs.
    pub(in super::super) async fn inspect(
        self: &Arc<Self>,
        trust: &Trust,
        paths: &[StorePath],
    ) -> Vec<Result<Option<Held>, Failure>> {
        self.look(trust, paths, true).await
    }

    /// Reads the records of all paths of a server that has no record without its NAR.
    pub(in super::super) async fn records(
        self: &Arc<Self>,
        trust: &Trust,
        paths: &[StorePath],
    ) -> Vec<Result<Option<Held>, Failure>> {
        self.look(trust, paths, false).await
    }

    async fn look(
        self: &Arc<Self>,
        trust: &Trust,
        paths: &[StorePath],
        nars: bool,
    ) -> Vec<Result<Option<Held>, Failure>> {
        let (cache, trust, paths, count) = (Arc::clone(self), trust.clone(), paths.to_vec(), paths.len());
        let held = self.engine.run(async move {
            let look = |path| cache.look_at(&trust, path, nars);
            stream::iter(paths.into_iter().map(look)).buffered(WINDOW).collect().await
        });
        held.await.unwrap_or_else(|| vec![Err(no_answer(Class::Internal, "asking it ended before it answered")); count])
    }

    async fn look_at(&self, trust: &Trust, path: StorePath, nars: bool) -> Result<Option<Held>, Failure> {
        let record = self.record(&Door::default(), &path, self.patience.attempts).await?;
        let Some(body) = record else { return Ok(None) };
        let info = Box::new(trust.read(&path, &body)?);
        if !nars {
            return Ok(Some(Held { info, nar: true }));
        }
        let nar = match self.fetch(Method::HEAD, info.url(), 0, self.patience.attempts).await {
            Fetched::Found(file) => info.file_size().is_none_or(|size| file.may_have(size)),
            Fetched::Missing => false,
            Fetched::Refused(failure, _) | Fetched::NoAnswer(failure) => return Err(failure),
        };
        Ok(Some(Held { info, nar }))
    }

    /// The body of a path's record.
    async fn record(&self, door: &Door, path: &StorePath, attempts: u32) -> Record {
        match self.fetch_by(door, Method::GET, &narinfo_name(path), MAX_NARINFO_SIZE, attempts).await {
            Fetched::Found(file) => Ok(Some(file.body)),
            Fetched::Missing => Ok(None),
            Fetched::Refused(failure, _) | Fetched::NoAnswer(failure) => Err(failure),
        }
    }
}

/// A question to a cache whose answer may not be waited for, because a better cache has all that is wanted. One that is
/// never waited for would never be known to be down: if it has not said a word by then, that is found out beside.
struct Unheard {
    /// `None`: the question has come to its end.
    cache: Option<Arc<HttpCache>>,
    /// Answers that there had been before.
    answers: u64,
    paths: Paths,
}

impl Unheard {
    /// The question has come to its end.
    fn ended(mut self) {
        self.cache = None;
    }
}

impl Drop for Unheard {
    fn drop(&mut self) {
        let Some(cache) = self.cache.take().filter(|cache| cache.health.is_in_doubt(self.answers)) else { return };
        let (engine, paths) = (cache.engine.clone(), self.paths.clone());
        engine.leave(async move { cache.find_out(&paths).await });
    }
}

/// Why nothing more is asked.
pub(super) fn down() -> Failure {
    no_answer(Class::Network, "it seems to be down: several requests got no answer")
}

/// Records of one question that were read.
struct Work {
    records: Vec<(usize, Record)>,
    trust: Arc<Trust>,
    paths: Paths,
    pieces: Pieces,
}

impl Work {
    fn answer(self) {
        let judge = |(at, record)| (at, self.trust.answer(&self.paths[at], record));
        let records = self.records.into_par_iter().with_min_len(FEW);
        // Nobody may be listening any more.
        let _ = self.pieces.send(records.map(judge).collect());
    }
}

/// Turns records into answers beside the thread that reads them, while there are any, on all processors.
#[derive(Default)]
pub(super) struct Judge {
    queue: Arc<Mutex<Queue>>,
}

#[derive(Default)]
struct Queue {
    waiting: Vec<Work>,
    /// Somebody is at it.
    busy: bool,
}

impl Judge {
    fn judge(&self, work: Work) {
        let queue = Arc::clone(&self.queue);
        {
            let mut queue = queue.lock().unwrap_or_else(PoisonError::into_inner);
            queue.waiting.push(work);
            if std::mem::replace(&mut queue.busy, true) {
                return;
            }
        }
        tokio::task::spawn_blocking(move || {
            loop {
                let work = {
                    let mut queue = queue.lock().unwrap_or_else(PoisonError::into_inner);
                    queue.busy = !queue.waiting.is_empty();
                    std::mem::take(&mut queue.waiting)
                };
                if work.is_empty() {
                    return;
                }
                work.into_par_iter().for_each(Work::answer);
            }
        });
    }
}
