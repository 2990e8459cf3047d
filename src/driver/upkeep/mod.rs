//! `drover cache …`: what a cache holds, whether that is sound, bringing more into it and taking some of it away.
//!
//! None of it is a run: nothing is evaluated or built, and what is done shows in the cache. What is decided is decided
//! elsewhere (`push::prune`, `push::findings`, `push::queue`); here it is read, asked and done. Each of these works is one
//! future that leaves the cache whole wherever it is dropped, so that Ctrl-C needs no more than that.

mod bring;
mod given;
mod mend;
pub mod prune;
pub mod status;
pub mod verify;
pub mod warm;

use std::path::PathBuf;
use std::sync::Arc;

use tokio::sync::watch;

use crate::build::Pool;
use crate::config::{Settings, nearest};
use crate::error::{Error, Result};
use crate::id::CacheId;
use crate::nix_compat::narinfo::TrustedPublicKey;
use crate::push::findings::Keys;
use crate::store::any::Store;
use crate::store::cache::{Cache, CacheConfig};
use crate::store::local::{LocalStore, Wishes};

use super::caches::CacheList;
use super::clock::Clock;
use super::signals::Signals;
use super::start::store_options;

/// What all of these works are given.
pub struct Request {
    /// Caches, store, files.
    pub settings: Settings,
    /// When the process started.
    pub clock: Clock,
    /// `NIX_DAEMON_SOCKET_PATH`.
    pub daemon_socket: Option<PathBuf>,
    /// Where what is being done is told.
    pub progress: watch::Sender<Progress>,
}

/// What is being done.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Progress {
    /// In a few words, `reading the NARs of acme`. Empty: nothing that takes long.
    pub what: String,
    /// So many are done.
    pub done: usize,
    /// Of so many; 0 if that is not known.
    pub of: usize,
    /// Bytes that were read or written.
    pub bytes: u64,
}

/// Where all of it happens.
struct Scene {
    store: LocalStore,
    list: CacheList,
    settings: Settings,
    clock: Clock,
    progress: watch::Sender<Progress>,
}

impl Scene {
    async fn new(request: Request) -> Result<(Self, Signals)> {
        let Request { settings, clock, daemon_socket, progress } = request;
        let signals = Signals::listen()?;
        let store = LocalStore::open(store_options(&settings, daemon_socket)).await?;
        let list = CacheList::new(&store, &settings)?;
        Ok((Self { store, list, settings, clock, progress }, signals))
    }

    /// Begins with something that takes long.
    fn tell(&self, what: String, of: usize) {
        self.progress.send_replace(Progress { what, of, ..Progress::default() });
    }

    /// The cache that a person means: by its name in drover.toml, its URL, or its host where Nix names it.
    fn named(&self, word: &str) -> Result<CacheConfig> {
        let known: Vec<&CacheConfig> = self.list.configs().collect();
        let host = |config: &CacheConfig| {
            let url = config.shown_url();
            url.split_once("://").map(|(_, rest)| rest.trim_end_matches('/').to_owned())
        };
        let of_name = known.iter().find(|config| config.name.as_deref() == Some(word));
        let of_url = || known.iter().find(|config| config.url == word || config.shown_url() == word);
        let of_host = || known.iter().find(|config| config.name.is_none() && host(config).as_deref() == Some(word));
        if let Some(config) = of_name.or_else(of_url).or_else(of_host) {
            return Ok((*config).clone());
        }
        if word.contains(':') {
            return Ok(CacheConfig { url: word.to_owned(), pull: true, ..CacheConfig::default() });
        }
        let names = known.iter().filter_map(|config| config.name.as_deref());
        let error = Error::usage(format!("'{word}' is neither a URL nor a cache of drover.toml"));
        Err(error.hint(match nearest(word, names) {
            Some(near) => format!("did you mean '{near}'?"),
            None => format!("a URL has a scheme: file://{}", if word.starts_with('/') { word } else { "/path" }),
        }))
    }

    /// Opens a cache to read it, or also to write to it.
    async fn open(&self, config: &CacheConfig, write: bool) -> Result<Arc<Cache>> {
        // Its number is that of no other that is asked beside it.
        let id = CacheId(u32::MAX);
        let config = CacheConfig { pull: true, push: write, ..config.clone() };
        Ok(Arc::new(Cache::open(id, config, self.list.context()).await?))
    }

    /// The caches that are read from besides this one, as far as they can be opened; and what to say of the others.
    async fn others(&self, but: &Cache) -> (Vec<Arc<Cache>>, Vec<String>) {
        if self.settings.offline {
            return (Vec::new(), Vec::new());
        }
        let mut notes = Vec::new();
        let mut open = Vec::new();
        for opened in self.list.open_all_readable().await {
            match opened {
                Ok(cache) if cache.url() == but.url() => {}
                Ok(cache) => open.push(cache),
                Err((url, error)) => notes.push(format!("cache {url} is not asked: {error}")),
            }
        }
        open.sort_by_key(|cache| (cache.priority(), cache.id()));
        (open, notes)
    }

    /// The keys that signatures of a cache are checked with. One that cannot be read is none.
    fn keys(&self, config: &CacheConfig) -> Keys {
        let secret = CacheConfig { push: true, ..config.clone() }.secret_keys().unwrap_or_default();
        let own: Vec<TrustedPublicKey> = secret.iter().map(crate::store::cache::SecretKey::public_key).collect();
        let said = config.public_keys.iter().filter_map(|key| TrustedPublicKey::parse(key).ok());
        let own: Vec<TrustedPublicKey> = own.into_iter().chain(said).collect();
        let trusted = &self.list.context().trusted_public_keys;
        let trusted = trusted.iter().filter_map(|key| TrustedPublicKey::parse(key).ok());
        let is_own = !own.is_empty();
        Keys { known: own.into_iter().chain(trusted).collect(), own: is_own }
    }

    /// Connections to the local store, whose daemon looks in no cache.
    fn pool(&self) -> Arc<Pool> {
        let wishes = Wishes { substitute: Some(false), ..Wishes::default() };
        Arc::new(Pool::new(Store::Local(self.store.clone()), wishes))
    }
}

/// Does it unless somebody stops it: then `None`, at once.
async fn unless_stopped<T>(signals: &mut Signals, work: impl Future<Output = T>) -> Option<T> {
    tokio::select! {
        biased;
        _ = signals.next() => None,
        done = work => Some(done),
    }
}
