//! Any store that connections can be opened to: the local one, or a builder's.

use std::path::PathBuf;
use std::time::Duration;

use super::error::StoreError;
use super::local::{LocalStore, Wishes};
use super::remote::RemoteStore;
use super::roots::Connect;
use super::session::Session;
use crate::id::{StoreDir, StorePath};
use crate::nix_compat::daemon::Trust;

/// A store that connections can be opened to. A cheap handle: clones are the same store.
#[derive(Debug, Clone)]
pub enum Store {
    /// This machine's.
    Local(LocalStore),
    /// A builder's.
    Remote(RemoteStore),
}

impl Store {
    /// Where the files of a path are, if they are on this machine and the path is there.
    #[must_use]
    pub fn files(&self, path: &StorePath) -> Option<PathBuf> {
        let Self::Local(local) = self else { return None };
        let files = local.physical_dir()?.join(path.to_basename());
        files.symlink_metadata().is_ok().then_some(files)
    }

    /// A new connection, with options set as its nix.conf says.
    pub async fn connect(&self) -> Result<Session, StoreError> {
        self.connect_with(&Wishes::default()).await
    }

    /// A new connection, with options set as wished.
    pub async fn connect_with(&self, wishes: &Wishes) -> Result<Session, StoreError> {
        match self {
            Self::Local(store) => store.connect_with(wishes).await,
            Self::Remote(store) => store.connect_with(wishes).await,
        }
    }

    /// What it lets us do.
    #[must_use]
    pub fn trust(&self) -> Trust {
        match self {
            Self::Local(store) => store.trust(),
            Self::Remote(store) => store.trust(),
        }
    }

    /// The directory of its paths, as they are written.
    #[must_use]
    pub fn store_dir(&self) -> &StoreDir {
        match self {
            Self::Local(store) => store.store_dir(),
            Self::Remote(store) => store.store_dir(),
        }
    }

    /// Its URI.
    #[must_use]
    pub fn uri(&self) -> &str {
        match self {
            Self::Local(store) => store.uri(),
            Self::Remote(store) => store.uri(),
        }
    }

    /// The caches that its own daemon fetches from; `None` where nobody has said so. A daemon that does not fetch at
    /// all has none.
    #[must_use]
    pub fn substituters(&self) -> Option<&[String]> {
        match self {
            Self::Local(store) if !store.receiver().substitute => Some(&[]),
            Self::Local(store) => Some(&store.receiver().substituters),
            Self::Remote(store) => match store.known() {
                Some(about) if about.shell && !about.substitutes => Some(&[]),
                Some(about) if about.shell => Some(&about.substituters),
                _ => None,
            },
        }
    }

    /// The keys whose signatures its daemon takes; `None` where nobody has said so.
    #[must_use]
    pub fn trusted_public_keys(&self) -> Option<&[String]> {
        match self {
            Self::Local(store) => Some(&store.receiver().trusted_public_keys),
            Self::Remote(store) => {
                store.known().filter(|about| about.shell).map(|about| about.trusted_public_keys.as_slice())
            }
        }
    }

    /// Waits until the daemons of closed connections have cleaned up.
    pub async fn settle(&self, patience: Duration) {
        match self {
            Self::Local(store) => store.settle(patience).await,
            Self::Remote(store) => store.settle(patience).await,
        }
    }
}

impl Connect for Store {
    fn connect(&self) -> impl Future<Output = Result<Session, StoreError>> + Send {
        Store::connect(self)
    }
}
