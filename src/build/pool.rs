//! Warm connections to one store. One operation at a time runs on each, so there are as many as things at once.

use std::sync::{Mutex, PoisonError};

use crate::store::error::StoreError;
use crate::store::local::{LocalStore, Wishes};
use crate::store::session::Session;

/// More connections than this are only opened when they are needed.
const MOST_WARM: u32 = 16;

/// Connections of which nobody makes use at the moment.
#[derive(Debug)]
pub struct Pool {
    store: LocalStore,
    /// Where evaluators leave derivations, if that is another store.
    origin: Option<LocalStore>,
    wishes: Wishes,
    idle: Mutex<Vec<Session>>,
}

impl Pool {
    /// No connection yet; each new one is opened with these wishes.
    #[must_use]
    pub fn new(store: LocalStore, wishes: Wishes) -> Self {
        Self { store, origin: None, wishes, idle: Mutex::new(Vec::new()) }
    }

    /// The same, for derivations that are in another store.
    #[must_use]
    pub fn with_origin(self, origin: Option<LocalStore>) -> Self {
        Self { origin, ..self }
    }

    /// Where derivations are, if that is another store.
    #[must_use]
    pub fn origin(&self) -> Option<&LocalStore> {
        self.origin.as_ref()
    }

    /// The store that it connects to.
    #[must_use]
    pub fn store(&self) -> &LocalStore {
        &self.store
    }

    /// A warm connection, or a new one.
    pub async fn take(&self) -> Result<Session, StoreError> {
        let warm = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        match warm {
            Some(connection) => Ok(connection),
            None => self.store.connect_with(&self.wishes).await,
        }
    }

    /// Opens connections ahead of need, one after the other, until there are so many. If one cannot be opened, whoever
    /// needs it says so.
    pub async fn warm_up(&self, count: u32) {
        for _ in 0..count.min(MOST_WARM) {
            match self.store.connect_with(&self.wishes).await {
                Ok(session) => self.give_back(session),
                Err(_) => return,
            }
        }
    }

    /// Gives a connection back. One on which anything went wrong in mid-message is closed: a stale word in it would
    /// be taken for the answer to the next request.
    pub fn give_back(&self, connection: Session) {
        if connection.is_usable() {
            self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(connection);
        }
    }
}
