//! Which caches a run has, and opening them.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::config::{CacheSettings, PushWhen, Settings};
use crate::error::{Error, Fault};
use crate::event::Fact;
use crate::id::CacheId;
use crate::nix_compat::daemon::Trust;
use crate::store::cache::{Cache, CacheConfig, OpenContext};
use crate::store::local::LocalStore;
use crate::store::settings::NixSettings;

use super::context::Context;

/// A cache that was opened, or its URL and why not.
pub(super) type Opened = Result<Arc<Cache>, (String, Error)>;

/// Nix's own caches come first in number, then the configured ones: `CacheId` is the place in this list.
fn configs(store: &LocalStore, settings: &Settings) -> Vec<CacheConfig> {
    let nix = store.settings();
    let pull = nix.substitute && !settings.offline;
    let lets = lets(store.receiver());
    // `trusted=1` is a word to the store that receives; from us it counts only where we are obeyed.
    let trusted = |url: &str| match store.trust() {
        Trust::Untrusted => (!lets.contains(plain(url))).then_some(false),
        Trust::Trusted | Trust::Unknown => None,
    };
    let from_nix = nix.substituters.iter().filter(|_| pull);
    let from_nix = from_nix.map(|url| CacheConfig { url: url.clone(), pull, ..CacheConfig::default() });
    let ours = settings.caches.iter().map(configured).map(|config| CacheConfig { pull: config.pull && pull, ..config });
    from_nix.chain(ours).map(|config| CacheConfig { trusted: trusted(&config.url), ..config }).collect()
}

fn configured(cache: &CacheSettings) -> CacheConfig {
    CacheConfig {
        name: cache.name.clone(),
        url: cache.url.clone(),
        // A bare URL of `--push-to` is pushed to and nothing else; what is in drover.toml is read, too.
        pull: cache.name.is_some(),
        push: cache.push != PushWhen::No,
        priority: cache.priority,
        secret_key_file: cache.secret_key.clone(),
        public_keys: cache.public_keys.clone(),
        ..CacheConfig::default()
    }
}

fn open_context(store: &LocalStore) -> OpenContext {
    let nix = store.settings();
    OpenContext {
        trusted_public_keys: store.receiver().trusted_public_keys.clone(),
        require_sigs: store.receiver().require_sigs,
        // Keys of drover.toml count where the store takes them from us: from a trusted client.
        accept_cache_keys: store.trust() == Trust::Trusted,
        netrc: Some(nix.netrc_file.clone().into()),
        ..OpenContext::new(store.store_dir().clone())
    }
}

fn numbered(store: &LocalStore, settings: &Settings) -> Vec<(CacheId, CacheConfig)> {
    let configs = configs(store, settings);
    configs.into_iter().enumerate().map(|(i, c)| (CacheId(u32::try_from(i).unwrap_or(u32::MAX)), c)).collect()
}

async fn open(id: CacheId, config: CacheConfig, context: Arc<OpenContext>) -> Opened {
    let url = config.url.clone();
    Cache::open(id, config, &context).await.map(Arc::new).map_err(|error| (url, Error::from(error)))
}

/// Opens those that are only read from, at once. Those that are pushed to are open by then.
pub(super) fn open_readable(
    store: &LocalStore,
    settings: &Settings,
) -> impl Future<Output = Vec<Opened>> + Send + 'static {
    let context = Arc::new(open_context(store));
    let caches = numbered(store, settings).into_iter().filter(|(_, config)| config.pull && !config.push);
    let opening: Vec<_> = caches.map(|(id, config)| open(id, config, context.clone())).collect();
    futures_util::future::join_all(opening)
}

/// Opens those that are pushed to; one that cannot be pushed to ends the run before anything is built.
pub(super) async fn open_pushed(store: &LocalStore, settings: &Settings) -> Result<Vec<Arc<Cache>>, Error> {
    let context = Arc::new(open_context(store));
    let mut open_caches = Vec::new();
    for (id, config) in numbered(store, settings).into_iter().filter(|(_, config)| config.push) {
        match open(id, config, context.clone()).await {
            Ok(cache) => open_caches.push(cache),
            Err((url, error)) => {
                // A cache that gave no answer may give one later; all else is a wrong word or a wrong credential.
                let network = url.contains("://") && !url.starts_with("file:") && error.fault == Fault::Unreachable;
                let fault = if network { Fault::Unreachable } else { Fault::Usage };
                return Err(Error { fault, message: format!("{error}\nnothing was built"), ..error });
            }
        }
    }
    Ok(open_caches)
}

/// What the store's daemon has to be told, so that it fetches from the caches that this user has. One that obeys us
/// (design §4) also learns of those of drover.toml; another only of those that it lets everybody name.
pub(super) fn overrides(store: &LocalStore, settings: &Settings) -> Vec<(String, String)> {
    let nix = store.settings();
    if settings.offline || !nix.substitute {
        return Vec::new();
    }
    match store.trust() {
        Trust::Unknown => Vec::new(),
        Trust::Untrusted => {
            let lets = lets(store.receiver());
            let allowed = nix.substituters.iter().filter(|url| lets.contains(plain(url)));
            let allowed: Vec<&str> = allowed.map(String::as_str).collect();
            let same = allowed.iter().eq(&store.receiver().substituters);
            if same { Vec::new() } else { vec![("substituters".to_owned(), allowed.join(" "))] }
        }
        Trust::Trusted => {
            let ours: Vec<&CacheSettings> = settings.caches.iter().filter(|cache| cache.name.is_some()).collect();
            let joined = |own: &[String], more: Vec<&str>| -> String {
                own.iter().map(String::as_str).chain(more).collect::<Vec<_>>().join(" ")
            };
            let urls = ours.iter().map(|cache| cache.url.as_str()).collect();
            let keys = ours.iter().flat_map(|cache| cache.public_keys.iter().map(String::as_str)).collect();
            vec![
                ("substituters".to_owned(), joined(&nix.substituters, urls)),
                ("trusted-public-keys".to_owned(), joined(&nix.trusted_public_keys, keys)),
                ("narinfo-cache-negative-ttl".to_owned(), "0".to_owned()),
            ]
        }
    }
}

/// A URL of a cache, so that two can be compared.
fn plain(url: &str) -> &str {
    url.trim_end_matches('/')
}

/// The caches that a daemon fetches from, or lets everybody name.
fn lets(daemon: &NixSettings) -> BTreeSet<&str> {
    daemon.substituters.iter().chain(&daemon.trusted_substituters).map(|url| plain(url)).collect()
}

/// The caches from which the store's daemon fetches by itself: all if it obeys us, else those of its own settings, and
/// of ours those that it lets everybody name.
pub(super) fn by_daemon(store: &LocalStore, settings: &Settings) -> BTreeSet<CacheId> {
    let lets = lets(store.receiver());
    let applies = |config: &CacheConfig| match store.trust() {
        Trust::Trusted => true,
        Trust::Unknown => config.name.is_none(),
        Trust::Untrusted => config.name.is_none() && lets.contains(plain(&config.url)),
    };
    numbered(store, settings).into_iter().filter(|(_, config)| applies(config)).map(|(id, _)| id).collect()
}

/// The caches to which pushing may fail.
pub(super) fn optional(store: &LocalStore, settings: &Settings) -> Vec<CacheId> {
    let optional: Vec<&str> =
        settings.caches.iter().filter(|cache| cache.push == PushWhen::Optional).map(|cache| &*cache.url).collect();
    let of = numbered(store, settings).into_iter().filter(|(_, config)| optional.contains(&&*config.url));
    of.map(|(id, _)| id).collect()
}

/// A cache that is ready.
pub(super) fn announce(ctx: &mut Context, cache: &Cache) {
    ctx.bus.emit(Fact::CacheReady {
        cache: cache.id(),
        name: cache.name().into(),
        url: cache.url().into(),
        pull: cache.pull(),
        push: cache.push(),
    });
    for warning in cache.warnings() {
        ctx.bus.warn(warning.as_str(), None);
    }
}
