//! The kinds of caches: which module does the work for which URL.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use tokio::task::spawn_blocking;

use super::answer::{Answer, Trust, no_answer};
use super::answers::{self, Paths, Pieces};
use super::attic::AtticCache;
use super::cachix::CachixCache;
use super::copy::CopyStore;
use super::error::CacheError;
use super::file::FileCache;
use super::http::HttpCache;
use super::info::CacheInfo;
use super::location::{Location, Params, Place};
use super::login::Auth;
use super::netrc::Login;
use super::niks3::Niks3Cache;
use super::retry::Patience;
use super::s3::S3Cache;
use super::{CacheConfig, Held, LoginSource, OpenContext};
use crate::event::{Class, Failure};
use crate::id::StorePath;

/// A cache of one kind. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) enum Backend {
    File(Arc<FileCache>),
    Http(Arc<HttpCache>),
    S3(Arc<S3Cache>),
    Cachix(Arc<CachixCache>),
    Attic(Arc<AtticCache>),
    Niks3(Arc<Niks3Cache>),
    Copy(Arc<CopyStore>),
}

/// How a cache is read: most kinds are servers that hold the files of a plain cache.
pub(super) enum Reader<'a> {
    File(&'a Arc<FileCache>),
    Http(&'a Arc<HttpCache>),
    Copy(&'a Arc<CopyStore>),
}

/// What every kind is given to open a cache.
#[derive(Debug)]
pub(super) struct Opening<'a> {
    pub(super) config: &'a CacheConfig,
    pub(super) context: &'a OpenContext,
    pub(super) params: &'a Params,
    /// Its URL for people.
    pub(super) shown: &'a str,
}

impl Opening<'_> {
    /// How patient to be with it.
    pub(super) fn patience(&self) -> Patience {
        let (base, params) = (self.context.patience, self.params);
        Patience {
            attempts: params.retry_attempts.unwrap_or(base.attempts).max(1),
            delay: params.retry_delay.unwrap_or(base.delay),
            delay_rate_limited: params.retry_delay_rate_limited.unwrap_or(base.delay_rate_limited),
            max_delay: params.retry_max_delay.unwrap_or(base.max_delay),
            rate_limited_attempts: params.retry_attempts.unwrap_or(base.rate_limited_attempts).max(1),
            ..base
        }
    }

    fn file(&self, dir: &Path, warnings: &mut Vec<String>) -> Result<(Backend, CacheInfo), CacheError> {
        if self.config.token_file.is_some() {
            warnings.push(format!("cache '{}': a directory needs no token-file", self.shown));
        }
        let (cache, info) = FileCache::open(dir, self.shown, &self.context.store_dir, self.config.push)?;
        Ok((Backend::File(Arc::new(cache)), info))
    }

    async fn http(
        &self,
        base: &reqwest::Url,
        login: Option<&Login>,
        warnings: &mut Vec<String>,
    ) -> Result<(Backend, CacheInfo), CacheError> {
        let host = base.host_str().unwrap_or_default();
        let (token, netrc) = (self.config.token_file.as_deref(), self.context.netrc.as_deref());
        let auth = Auth::find(token, login, netrc, host, self.shown, warnings)?;
        let (patience, write) = (self.patience(), self.config.push);
        let (cache, info) = HttpCache::open(base.clone(), auth, self.shown, self.context, patience, write).await?;
        Ok((Backend::Http(Arc::new(cache)), info))
    }
}

impl Backend {
    /// Opens a cache of whatever kind its URL says.
    pub(super) async fn open(
        location: &Location,
        config: &CacheConfig,
        context: &OpenContext,
        warnings: &mut Vec<String>,
    ) -> Result<(Self, CacheInfo), CacheError> {
        let opening = Opening { config, context, params: &location.params, shown: &location.shown };
        match &location.place {
            Place::File(dir) => opening.file(dir, warnings),
            Place::Http(base, login) => opening.http(base, login.as_ref(), warnings).await,
            Place::S3(bucket) => {
                let (cache, info) = S3Cache::open(bucket, &opening).await?;
                Ok((Self::S3(Arc::new(cache)), info))
            }
            Place::Cachix(name) => {
                let (cache, info) = CachixCache::open(name, &opening).await?;
                Ok((Self::Cachix(Arc::new(cache)), info))
            }
            Place::Attic(place) => {
                let (cache, info) = AtticCache::open(place, &opening, warnings).await?;
                Ok((Self::Attic(Arc::new(cache)), info))
            }
            Place::Niks3(server, login) => {
                let (cache, info) = Niks3Cache::open((server, login.as_ref()), &opening, warnings).await?;
                Ok((Self::Niks3(Arc::new(cache)), info))
            }
            Place::Copy(store) => {
                let (cache, info) = CopyStore::open(store, &opening).await?;
                Ok((Self::Copy(Arc::new(cache)), info))
            }
        }
    }

    /// How it is read.
    pub(super) fn reader(&self) -> Reader<'_> {
        match self {
            Self::File(file) => Reader::File(file),
            Self::Http(http) => Reader::Http(http),
            Self::S3(s3) => Reader::Http(s3.http()),
            Self::Cachix(cachix) => Reader::Http(cachix.http()),
            Self::Attic(attic) => Reader::Http(attic.http()),
            Self::Niks3(niks3) => Reader::Http(niks3.http()),
            Self::Copy(copy) => Reader::Copy(copy),
        }
    }

    /// Where its login comes from; `None` where it needs none.
    pub(super) fn login(&self) -> Option<&LoginSource> {
        match (self, self.reader()) {
            (Self::Attic(attic), _) => Some(attic.login()),
            (Self::Niks3(niks3), _) => Some(niks3.login()),
            (_, Reader::Http(http)) => Some(&http.auth.source),
            (_, Reader::File(_) | Reader::Copy(_)) => None,
        }
    }

    /// See [`Cache::pace`](super::Cache::pace).
    pub(super) fn pace(&self) -> Duration {
        match self.reader() {
            Reader::File(_) | Reader::Copy(_) => Duration::ZERO,
            Reader::Http(http) => http.pace(),
        }
    }

    /// See [`Cache::is_down`](super::Cache::is_down).
    pub(super) fn is_down(&self) -> bool {
        match self.reader() {
            Reader::File(_) | Reader::Copy(_) => false,
            Reader::Http(http) => http.is_down(),
        }
    }

    /// Requests sent so far, attempts counted one by one.
    pub(super) fn requests(&self) -> u64 {
        match (self, self.reader()) {
            (Self::Attic(attic), _) => attic.requests(),
            (Self::Niks3(niks3), _) => niks3.requests(),
            (Self::Cachix(cachix), _) => cachix.requests(),
            (_, Reader::Http(http)) => http.requests(),
            (_, Reader::File(_) | Reader::Copy(_)) => 0,
        }
    }

    /// Whether whatever writes there sees to signatures by itself.
    pub(super) fn signs(&self) -> bool {
        match self {
            Self::Cachix(_) | Self::Attic(_) | Self::Copy(_) => true,
            Self::Niks3(niks3) => niks3.signs(),
            Self::File(_) | Self::Http(_) | Self::S3(_) => false,
        }
    }

    /// See [`Cache::answers`](super::Cache::answers).
    pub(super) fn ask(&self, trust: Arc<Trust>, asked: Paths, pieces: Pieces) -> BoxFuture<'static, ()> {
        match self.reader() {
            Reader::File(file) => {
                let file = Arc::clone(file);
                answers::at_once(pieces, move || file.ask(&trust, &asked)).boxed()
            }
            Reader::Http(http) => Arc::clone(http).ask(trust, asked, pieces).boxed(),
            // It is never read from.
            Reader::Copy(_) => answers::at_once(pieces, move || vec![Answer::Absent; asked.len()]).boxed(),
        }
    }

    /// See [`Cache::inspect`](super::Cache::inspect).
    pub(super) async fn inspect(&self, trust: &Arc<Trust>, paths: &[StorePath]) -> Vec<Result<Option<Held>, Failure>> {
        if let Self::Attic(attic) = self {
            return attic.inspect(trust, paths).await;
        }
        match self.reader() {
            Reader::File(file) => {
                let (file, trust, asked) = (Arc::clone(file), Arc::clone(trust), paths.to_vec());
                match spawn_blocking(move || file.inspect(&trust, &asked)).await {
                    Ok(held) => held,
                    Err(error) => vec![Err(no_answer(Class::Internal, error.to_string())); paths.len()],
                }
            }
            Reader::Http(http) => http.inspect(trust, paths).await,
            Reader::Copy(copy) => copy.inspect(paths).await,
        }
    }

    /// Whether [`missing`](Self::missing) costs a few requests however many paths are asked for.
    pub(super) fn is_bulk(&self) -> bool {
        match self {
            Self::File(_) => true,
            Self::Http(_) | Self::Niks3(_) => false,
            Self::S3(s3) => s3.is_bulk(),
            Self::Cachix(cachix) => cachix.is_bulk(),
            Self::Attic(attic) => attic.is_bulk(),
            Self::Copy(copy) => copy.is_bulk(),
        }
    }

    /// Which of these paths it lacks. One about which it gives no answer counts as lacking, since it can be pushed
    /// again; a failure is one of all.
    pub(super) async fn missing(&self, trust: &Arc<Trust>, paths: &[StorePath]) -> Result<Vec<bool>, Failure> {
        match self {
            Self::File(_) | Self::Http(_) => {
                // A record without its NAR is as good as none.
                let lacks = |held| !matches!(held, Ok(Some(Held { nar: true, .. })));
                Ok(self.inspect(trust, paths).await.into_iter().map(lacks).collect())
            }
            Self::S3(s3) => s3.missing(paths).await,
            Self::Cachix(cachix) => cachix.missing(paths).await,
            Self::Attic(attic) => attic.missing(paths).await,
            Self::Niks3(niks3) => niks3.missing(trust, paths).await,
            Self::Copy(copy) => copy.missing(paths).await,
        }
    }
}
