//! Warm connections to one store. One operation at a time runs on each, so there are as many as things at once.

use std::ops::{Deref, DerefMut};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::{Semaphore, SemaphorePermit};

use super::site::{PATIENCE, no_answer};
use crate::store::any::Store;
use crate::store::error::StoreError;
use crate::store::local::Wishes;
use crate::store::session::Session;

/// More connections than this are only opened when they are needed.
const MOST_WARM: u32 = 16;

/// Connections over which NARs are read for pushing at once.
const READERS: usize = 8;

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
}

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
    store: Store,
    wishes: Wishes,
    idle: Mutex<Vec<Lent>>,
    turns: Semaphore,
}

impl Pool {
    /// No connection yet; each new one is opened with these wishes.
    #[must_use]
    pub fn new(store: Store, wishes: Wishes) -> Self {
        Self { store, wishes, idle: Mutex::new(Vec::new()), turns: Semaphore::new(READERS) }
    }

    /// The store that it connects to.
    #[must_use]
    pub fn store(&self) -> &Store {
        &self.store
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Lent>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for a turn to read a large amount from the store. `None` cannot happen: turns never end.
    pub async fn turn(&self) -> Option<SemaphorePermit<'_>> {
        self.turns.acquire().await.ok()
    }

    /// A warm connection, or a new one.
    pub async fn take(&self, caches: Caches) -> Result<Lent, StoreError> {
        let warm = {
            let mut idle = self.idle();
            let at = idle.iter().rposition(|lent| lent.caches == caches);
            at.map(|at| idle.swap_remove(at))
        };
        match warm {
            Some(lent) => Ok(lent),
            None => self.open(caches).await,
        }
    }

    async fn open(&self, caches: Caches) -> Result<Lent, StoreError> {
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
        Ok(Lent { session, caches })
    }

    /// Opens connections for building ahead of need, one after the other, until there are so many. If one cannot be
    /// opened, whoever needs it says so.
    pub async fn warm_up(&self, count: u32) {
        for _ in 0..count.min(MOST_WARM) {
            match self.open(Caches::Off).await {
                Ok(lent) => self.give_back(lent),
                Err(_) => return,
            }
        }
    }

    /// Closes all connections of which nobody makes use.
    pub fn forget(&self) {
        self.idle().clear();
    }

    /// Gives a connection back. One on which anything went wrong in mid-message is closed: a stale word in it would
    /// be taken for the answer to the next request. What ended it may have ended the others, so they are closed, too,
    /// rather than found out about one after the other.
    pub fn give_back(&self, lent: Lent) {
        match lent.is_usable() {
            true => self.idle().push(lent),
            false => self.forget(),
        }
    }
}
