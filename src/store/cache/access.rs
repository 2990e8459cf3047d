//! Looks at one cache as a run would, and says what of it works. For people who ask, not for runs.

use super::error::CacheError;
use super::keys::SecretKey;
use super::login::LoginSource;
use super::{Cache, CacheConfig, OpenContext, Sink};
use crate::id::CacheId;

/// What works of a cache.
#[derive(Debug)]
pub struct Access {
    /// Where its login comes from; `None` if it needs none (a directory) or if that could not be found out.
    pub login: Option<LoginSource>,
    /// It can be read from.
    pub read: Result<(), CacheError>,
    /// It can be written to; `None` if it is not pushed to.
    pub write: Option<Result<(), CacheError>>,
    /// The public halves of the keys that sign what is pushed, `NAME:BASE64`. Empty if it is not signed.
    pub signs: Vec<String>,
    /// What a person should know besides, one line each.
    pub warnings: Vec<String>,
}

/// Opens a cache for reading and, if the configuration says that it is pushed to, for writing: a directory is created
/// if need be, a server gets its own `nix-cache-info` back.
pub async fn check(config: &CacheConfig, context: &OpenContext) -> Access {
    let open = |push| Cache::open(CacheId(0), CacheConfig { push, ..config.clone() }, context);
    // Writing first: it makes the directory that is then read.
    let written = if config.push { Some(open(true).await) } else { None };
    let read = open(false).await;
    let opened = written.as_ref().and_then(|cache| cache.as_ref().ok()).or(read.as_ref().ok());
    let public = |sink: &Sink| sink.keys().iter().map(SecretKey::public_text).collect();
    Access {
        login: opened.and_then(|cache| cache.login().cloned()),
        signs: opened.and_then(Cache::sink).map(public).unwrap_or_default(),
        warnings: opened.map(|cache| cache.warnings().to_vec()).unwrap_or_default(),
        read: read.map(drop),
        write: written.map(|cache| cache.map(drop)),
    }
}
