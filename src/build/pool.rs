//! Warm connections to one store. One operation at a time runs on each, so there are as many as things at once.

use std::ops::{Deref, DerefMut, RangeInclusive};
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, Semaphore, SemaphorePermit, oneshot};
use tokio::task::JoinSet;

use super::site::{PATIENCE, no_answer};
use crate::store::any::Store;
use crate::store::error::StoreError;
use crate::store::local::Wishes;
use crate::store::session::Session;
use crate::store::stopwatch::Stopwatch;

/// More connections than this are only opened when they are needed.
const MOST_WARM: u32 = 16;

/// Connections over which NARs are read for pushing at once.
const READERS: usize = 8;

/// A new connection is a process to start over there and a handshake. Where others are in use, whoever needs one waits
/// for as long as the last one took to open, within these bounds: who opens one as soon as the wait has cost as much
/// never pays more than twice what the better of both would have cost (the "ski rental" rule).
const SOON: RangeInclusive<Duration> = Duration::from_millis(20)..=Duration::from_millis(100);

/// So many are opened at once by those who need one: to start many processes makes each of them late.
const DOORS: usize = 2;

/// Whether the daemon may look in caches on a connection.
///
/// What is built has all its inputs, and no cache has it, or none that the store believes: a daemon that looks again
/// loses a round trip for each derivation, and some seconds where the cache is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Caches {
    /// It may not.
    Off,
    /// It may.
    On,
}

/// A connection in use. To be given back, or closed.
#[derive(Debug)]
pub struct Lent {
    session: Session,
    caches: Caches,
    _part: Part,
}

/// Counts, for as long as it is held, as one of the connections that exist or are being opened.
type Part = Arc<()>;

impl Lent {
    /// See [`Session::close`].
    pub async fn close(self) {
        self.session.close().await;
    }
}

impl Deref for Lent {
    type Target = Session;

    fn deref(&self) -> &Session {
        &self.session
    }
}

impl DerefMut for Lent {
    fn deref_mut(&mut self) -> &mut Session {
        &mut self.session
    }
}

/// Connections of which nobody makes use at the moment.
#[derive(Debug)]
pub struct Pool {
    shared: Arc<Shared>,
    /// A new connection that somebody no longer waits for is finished all the same: the next one has it.
    opening: Mutex<JoinSet<()>>,
    turns: Semaphore,
}

/// What is used by those who open connections.
#[derive(Debug)]
struct Shared {
    store: Store,
    wishes: Wishes,
    idle: Mutex<Vec<Lent>>,
    /// Told when there is one more.
    more: Notify,
    /// Of each kind, by [`Caches`]; each connection holds a part.
    parts: [Part; 2],
    doors: Arc<Semaphore>,
    /// How long the last one took to open.
    took: Mutex<Duration>,
}

impl Pool {
    /// No connection yet; each new one is opened with these wishes.
    #[must_use]
    pub fn new(store: Store, wishes: Wishes) -> Self {
        let (idle, more, parts) = (Mutex::default(), Notify::new(), <[Part; 2]>::default());
        let doors = Arc::new(Semaphore::new(DOORS));
        let shared = Arc::new(Shared { store, wishes, idle, more, parts, doors, took: Mutex::default() });
        Self { shared, opening: Mutex::default(), turns: Semaphore::new(READERS) }
    }

    /// The store that it connects to.
    #[must_use]
    pub fn store(&self) -> &Store {
        &self.shared.store
    }

    /// Waits for a turn to read a large amount from the store. `None` cannot happen: turns never end.
    pub async fn turn(&self) -> Option<SemaphorePermit<'_>> {
        self.turns.acquire().await.ok()
    }

    /// A warm connection; or whatever is there first, one that somebody gives back or a new one.
    pub async fn take(&self, caches: Caches) -> Result<Lent, StoreError> {
        loop {
            tokio::select! {
                biased;
                lent = self.shared.next(caches) => return Ok(lent),
                // If it was opened, and somebody else was quicker to take it, there is a next one.
                opened = self.one_more(caches) => opened?,
            }
        }
    }

    /// Opens one more for whoever comes first, if none is given back soon.
    async fn one_more(&self, caches: Caches) -> Result<(), StoreError> {
        if self.shared.has_any(caches) {
            tokio::time::sleep(self.shared.soon()).await;
        }
        let door = self.shared.doors.clone().acquire_owned().await;
        let (tell, told) = oneshot::channel();
        let shared = self.shared.clone();
        let opening = async move {
            let opened = shared.open(caches).await.map(|lent| shared.give_back(lent));
            drop(door);
            // Whoever wanted it may have got another one meanwhile.
            let _ = tell.send(opened);
        };
        {
            let mut all = lock(&self.opening);
            while all.try_join_next().is_some() {}
            all.spawn(opening);
        }
        // It is only cut off with the pool.
        told.await.unwrap_or(Ok(()))
    }

    /// Opens connections for building ahead of need, one after the other, until there are so many. If one cannot be
    /// opened, whoever needs it says so.
    pub async fn warm_up(&self, count: u32) {
        for _ in 0..count.min(MOST_WARM) {
            match self.shared.open(Caches::Off).await {
                Ok(lent) => self.give_back(lent),
                Err(_) => return,
            }
        }
    }

    /// Closes all connections of which nobody makes use.
    pub fn forget(&self) {
        lock(&self.shared.idle).clear();
    }

    /// Gives a connection back. One on which anything went wrong in mid-message is closed: a stale word in it would
    /// be taken for the answer to the next request. What ended it may have ended the others, so those of which nobody
    /// makes use are closed, too, rather than found out about one after the other.
    pub fn give_back(&self, lent: Lent) {
        self.shared.give_back(lent);
    }
}

impl Shared {
    /// Whether there are connections of a kind, in use or about to be opened.
    fn has_any(&self, caches: Caches) -> bool {
        Arc::strong_count(&self.parts[caches as usize]) > 1
    }

    /// See [`SOON`].
    fn soon(&self) -> Duration {
        (*lock(&self.took)).clamp(*SOON.start(), *SOON.end())
    }

    /// The next one of a kind that nobody makes use of.
    async fn next(&self, caches: Caches) -> Lent {
        loop {
            let mut more = pin!(self.more.notified());
            more.as_mut().enable();
            if let Some(lent) = self.idle(caches) {
                return lent;
            }
            more.await;
        }
    }

    fn idle(&self, caches: Caches) -> Option<Lent> {
        let mut idle = lock(&self.idle);
        let at = idle.iter().rposition(|lent| lent.caches == caches)?;
        Some(idle.swap_remove(at))
    }

    fn give_back(&self, lent: Lent) {
        if lent.is_usable() {
            lock(&self.idle).push(lent);
            self.more.notify_waiters();
        } else {
            lock(&self.idle).clear();
        }
    }

    async fn open(&self, caches: Caches) -> Result<Lent, StoreError> {
        tracing::debug!(store = %self.store.uri(), ?caches, "a new connection");
        let _part = self.parts[caches as usize].clone();
        let begun = Stopwatch::start();
        let opening = async {
            match caches {
                Caches::On => self.store.connect_with(&self.wishes).await,
                Caches::Off => {
                    let wishes = Wishes { substitute: Some(false), ..self.wishes.clone() };
                    self.store.connect_with(&wishes).await
                }
            }
        };
        let session = match &self.store {
            Store::Local(_) => opening.await?,
            // A daemon of another machine may hang.
            Store::Remote(_) => {
                let opened = tokio::time::timeout(PATIENCE, opening).await;
                opened.unwrap_or_else(|_| Err(no_answer(&self.store, PATIENCE)))?
            }
        };
        *lock(&self.took) = begun.elapsed();
        Ok(Lent { session, caches, _part })
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
