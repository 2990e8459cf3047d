//! A cache of Cachix (`cachix:NAME`): read at an address of its own, as a plain cache; written through a service.
//!
//! The service answers for many paths at once, and hands out URLs to which NARs are uploaded in parts. It signs what
//! comes without a signature. It does not mind the order in which paths come, so drover does: a path is made visible
//! only after all that it refers to.
//!
//! Source of the protocol: what Cachix's own client says and hears (`/api/v1/cache/NAME`). It has no word for content
//! addresses, so paths that have one are signed like all others.

mod config;
mod login;
mod message;
mod upload;

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};
use reqwest::{Method, Url};

use super::api::{Api, Call, CallFailure};
use super::backend::Opening;
use super::error::CacheError;
use super::http::HttpCache;
use super::info::CacheInfo;
use super::keys::SecretKey;
use super::sink::{Nar, PutError, Sink};
use super::stream::NarStream;
use crate::event::Failure;
use crate::id::StorePath;
use crate::nix_compat::daemon::PathInfo;
use crate::nix_compat::narinfo::{Compression, NarInfo, TrustedPublicKey};

use login::Access;
use message::{About, hash_part};
pub(super) use upload::Ticket;
use upload::Uploads;

/// Parameters of its URL besides those of all caches: the URL of the service.
pub(super) const PARAMS: &[&str] = &["host"];

/// Paths that one question names. The service takes 1 MiB, which is three times as many.
const QUESTION: usize = 8192;

/// Questions at once.
const QUESTIONS: usize = 4;

/// Paths that are sent at once. Small ones take four requests each, one after the other.
const PATHS: usize = 48;

/// See the module's page.
#[derive(Debug)]
pub(super) struct CachixCache {
    uploads: Uploads,
    http: Arc<HttpCache>,
    /// Signs what is pushed; `None`: the service does.
    key: Option<SecretKey>,
    /// Whether it answers for many paths at once, as far as is known.
    is_bulk: AtomicBool,
}

impl CachixCache {
    /// Asks the service about the cache, and what the token may do; reads its `nix-cache-info`.
    pub(super) async fn open(name: &str, opening: &Opening<'_>) -> Result<(Self, CacheInfo), CacheError> {
        let (shown, context, push) = (opening.shown, opening.context, opening.config.push);
        let access = Access::find(name, opening)?;
        // Without a token whoever has the cache's own key may push, as the client has it.
        if push && access.keys.is_empty() && !access.auth.source.is_some() {
            let login = access.auth.source;
            return Err(CacheError::Denied { url: shown.to_owned(), status: 0, login, push });
        }
        let url = |text: &str| {
            let why = |error| CacheError::Url { url: shown.to_owned(), why: format!("it has no URL: {error}") };
            access.host.join(text).map_err(why)
        };
        let api = Api::new(&access.host, access.auth.clone(), shown, context, opening.patience())?;
        let asked = Call::new(Method::GET, url(&format!("api/v1/cache/{name}"))?);
        let about = match api.call(&asked, api.patience.brief()).await.and_then(|reply| reply.json::<About>()) {
            Ok(about) => about,
            Err(CallFailure { status: Some(404), .. }) => {
                return Err(CacheError::NoSuchCache { url: shown.to_owned(), name: name.to_owned() });
            }
            Err(failed) => return Err(api.refusal(failed, push)),
        };
        if push {
            may_push(&access, &about, opening)?;
        }
        let key = access.keys.iter().find(|(key, _)| about.is_signed_by(key)).map(|(key, _)| key.clone());
        if let (None, Some((_, from))) = (&key, access.keys.first()) {
            let why = format!("the signing key from {from} is none of those that its readers trust");
            return Err(CacheError::Url { url: shown.to_owned(), why });
        }
        let read = Url::parse(&format!("{}/", about.uri.trim_end_matches('/')))
            .map_err(|error| CacheError::Url { url: shown.to_owned(), why: format!("its uri is no URL: {error}") })?;
        let (patience, auth) = (opening.patience(), access.for_reading(about.is_public));
        let (http, info) = HttpCache::open(read, auth, shown, context, patience, false).await?;
        let uploads = Uploads::new(api, url(&format!("api/v1/cache/{name}/"))?);
        Ok((Self { uploads, http: Arc::new(http), key, is_bulk: AtomicBool::new(true) }, info))
    }

    /// Where it is read from.
    pub(super) fn http(&self) -> &Arc<HttpCache> {
        &self.http
    }

    /// Requests sent so far, attempts counted one by one.
    pub(super) fn requests(&self) -> u64 {
        self.http.requests() + self.uploads.api().requests()
    }

    /// Whether one question tells of all paths what it lacks.
    pub(super) fn is_bulk(&self) -> bool {
        self.is_bulk.load(Ordering::Relaxed)
    }

    /// Which of these paths it lacks. Where it does not answer for many at once, not even a few, each is asked for.
    pub(super) async fn missing(&self, paths: &[StorePath]) -> Result<Vec<bool>, Failure> {
        if self.is_bulk() {
            let questions: Vec<_> = paths.chunks(QUESTION).map(|paths| self.question(paths)).collect();
            match stream::iter(questions).buffered(QUESTIONS).try_concat().await {
                Err(CallFailure { status: Some(401 | 403 | 404 | 405 | 501), .. }) => {
                    self.is_bulk.store(false, Ordering::Relaxed);
                }
                answer => return answer.map_err(|failed| failed.failure),
            }
        }
        let each: Vec<BoxFuture<'_, _>> = paths.iter().map(|path| self.uploads.has(path).boxed()).collect();
        let has: Vec<bool> =
            stream::iter(each).buffered(PATHS).try_collect().await.map_err(|failed: CallFailure| failed.failure)?;
        Ok(has.into_iter().map(|has| !has).collect())
    }

    /// The same of a few paths by one question; by two if the service finds it too long.
    fn question<'a>(&'a self, paths: &'a [StorePath]) -> BoxFuture<'a, Result<Vec<bool>, CallFailure>> {
        async move {
            let hashes: Vec<String> = paths.iter().map(hash_part).collect();
            let call = Call::new(Method::POST, self.uploads.url("narinfo")?).json(&hashes)?;
            let api = self.uploads.api();
            match api.call(&call, api.patience).await {
                Ok(reply) => {
                    let missing: HashSet<String> = reply.json()?;
                    Ok(hashes.iter().map(|hash| missing.contains(hash)).collect())
                }
                Err(CallFailure { status: Some(413), .. }) if paths.len() > 1 => {
                    let (some, others) = paths.split_at(paths.len() / 2);
                    Ok([self.question(some).await?, self.question(others).await?].concat())
                }
                Err(failed) => Err(failed),
            }
        }
        .boxed()
    }

    /// Paths that are best sent at once.
    pub(super) fn parallel(&self) -> usize {
        PATHS
    }

    /// Bytes that a NAR of this size takes in memory at most while it is sent.
    pub(super) fn memory(&self, nar_size: u64) -> u64 {
        upload::parts(nar_size).memory()
    }

    /// See [`Sink::send`].
    pub(super) async fn send(&self, sink: &Sink, info: &PathInfo, nar: NarStream) -> Result<Nar, PutError> {
        let codec = sink.codec(info);
        let entry = sink.entry(info, upload::parts(info.nar_size).size);
        let ticket = self.uploads.send(info, entry, nar).await?;
        Ok(Nar::kept(codec, None, Some(super::sink::Ticket::Cachix(Arc::new(ticket)))))
    }

    /// See [`Sink::register`].
    pub(super) async fn register(&self, sink: &Sink, info: &PathInfo, nar: &Nar) -> Result<Option<NarInfo>, PutError> {
        let Some(super::sink::Ticket::Cachix(ticket)) = &nar.ticket else {
            return Err(std::io::Error::other("this upload was begun with another cache").into());
        };
        let signature = match &self.key {
            Some(key) => {
                // Of the record only what is signed is needed, which is neither the file nor its name.
                let file = Nar { url: "nar".to_owned(), compression: Compression::None, ..nar.clone() };
                Some(key.sign(&sink.record(info, &file)?.fingerprint(sink.store_dir())).encoded)
            }
            None => None,
        };
        self.uploads.complete(info, ticket, signature).await?;
        Ok(None)
    }

    /// See [`Sink::close`].
    pub(super) async fn close(&self) {
        self.uploads.close().await;
    }
}

impl About {
    /// Whether readers of the cache trust this key.
    fn is_signed_by(&self, key: &SecretKey) -> bool {
        let ours = key.public_key().key;
        self.public_signing_keys.iter().any(|text| TrustedPublicKey::parse(text).is_ok_and(|key| key.key == ours))
    }
}

/// Whether the token is one that may push, and whether what is asked for can be.
fn may_push(access: &Access, about: &About, opening: &Opening<'_>) -> Result<(), CacheError> {
    let (login, url) = (access.auth.source.clone(), opening.shown.to_owned());
    if login.is_some() && about.permission.as_deref() == Some("Read") {
        return Err(CacheError::Denied { url, status: 0, login, push: true });
    }
    match opening.config.compression.as_deref().or(opening.params.compression.as_deref()) {
        None | Some("zstd") => Ok(()),
        Some(other) => Err(CacheError::Compression { url, compression: other.to_owned() }),
    }
}
