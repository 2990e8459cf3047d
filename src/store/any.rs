//! A store that connections can be opened to, wherever it is.

use std::time::Duration;

use super::error::StoreError;
use super::local::{LocalStore, Wishes};
use super::session::Session;
use crate::id::StoreDir;
use crate::nix_compat::daemon::Trust;

/// A cheap handle: clones are the same store.
#[derive(Debug, Clone)]
pub enum Store {
    /// That of this machine.
    Local(LocalStore),
}

impl Store {
    /// A new connection, with options set as wished.
    pub async fn connect_with(&self, wishes: &Wishes) -> Result<Session, StoreError> {
        match self {
            Self::Local(store) => store.connect_with(wishes).await,
        }
    }

    /// A new connection.
    pub async fn connect(&self) -> Result<Session, StoreError> {
        self.connect_with(&Wishes::default()).await
    }

    /// What the store lets us do.
    #[must_use]
    pub fn trust(&self) -> Trust {
        match self {
            Self::Local(store) => store.trust(),
        }
    }

    /// The directory of its paths, as they are written.
    #[must_use]
    pub fn store_dir(&self) -> &StoreDir {
        match self {
            Self::Local(store) => store.store_dir(),
        }
    }

    /// Its URI.
    #[must_use]
    pub fn uri(&self) -> &str {
        match self {
            Self::Local(store) => store.uri(),
        }
    }

    /// Waits until the daemons of closed connections have cleaned up.
    pub async fn settle(&self, patience: Duration) {
        match self {
            Self::Local(store) => store.settle(patience).await,
        }
    }
}
