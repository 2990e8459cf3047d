//! What the store's daemon does for this user (design §4, who fetches and trust): what it is told, which caches it
//! fetches from, whose word it takes.

use std::collections::BTreeSet;

use crate::config::{CacheSettings, Settings, is_for_nix};
use crate::nix_compat::daemon::Trust;
use crate::store::any::Store;
use crate::store::cache::CacheConfig;
use crate::store::local::{LocalStore, Wishes};
use crate::store::settings::NixSettings;

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
            let ours: Vec<&CacheSettings> = settings.caches.iter().filter(told_of).collect();
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

/// Whether daemons are told of a cache of drover.toml: not of one that asks for a token, which no daemon sends, and not of
/// a kind that Nix does not know.
fn told_of(cache: &&CacheSettings) -> bool {
    cache.name.is_some() && cache.token_file.is_none() && is_for_nix(&cache.url)
}

/// What the daemons of builders are told, where they obey us: to fetch also from the caches of this run that they can
/// reach, with their keys.
pub(super) fn remote_wishes(settings: &Settings, nix: &NixSettings) -> Wishes {
    let ours: Vec<&CacheSettings> = settings.caches.iter().filter(told_of).collect();
    let reachable = |url: &&str| url.starts_with("http://") || url.starts_with("https://") || url.starts_with("s3://");
    let urls = nix.substituters.iter().map(String::as_str).chain(ours.iter().map(|cache| cache.url.as_str()));
    let urls: Vec<&str> = urls.filter(reachable).collect();
    let keys = nix.trusted_public_keys.iter().map(String::as_str);
    let keys = keys.chain(ours.iter().flat_map(|cache| cache.public_keys.iter().map(String::as_str)));
    let keys: Vec<&str> = keys.collect();
    let mut overrides = vec![("narinfo-cache-negative-ttl".to_owned(), "0".to_owned())];
    if nix.substitute && !settings.offline {
        overrides.push(("extra-substituters".to_owned(), urls.join(" ")));
        overrides.push(("extra-trusted-public-keys".to_owned(), keys.join(" ")));
    }
    Wishes { overrides, ..Wishes::default() }
}

/// The same for one of them: one that does not obey us is told nothing.
pub(super) fn told(store: &Store, wishes: Wishes) -> Wishes {
    match store.trust() {
        Trust::Trusted => wishes,
        Trust::Untrusted | Trust::Unknown => Wishes { overrides: Vec::new(), ..wishes },
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

/// Whether the store's daemon fetches from this cache by itself: from all if it obeys us, else from those of its own
/// settings, and of ours those that it lets everybody name. No daemon sends the token that some caches ask for, or knows kinds of
/// caches that Nix does not.
pub(super) fn daemon_applies(store: &LocalStore, config: &CacheConfig) -> bool {
    let nix_s = config.name.is_none();
    config.token_file.is_none()
        && is_for_nix(&config.url)
        && match store.trust() {
            Trust::Trusted => true,
            Trust::Unknown => nix_s,
            Trust::Untrusted => nix_s && lets(store.receiver()).contains(plain(&config.url)),
        }
}

/// What a `trusted=1` in a cache's URL counts: it is a word to the store that receives, so from us only where we are
/// obeyed. `None` leaves it to the URL.
pub(super) fn word(store: &LocalStore, url: &str) -> Option<bool> {
    match store.trust() {
        Trust::Untrusted => (!lets(store.receiver()).contains(plain(url))).then_some(false),
        Trust::Trusted | Trust::Unknown => None,
    }
}
