//! A bucket (`s3://BUCKET`): read like a cache on a server, with signed requests, and written by parts.
//!
//! | module | what it owns |
//! |---|---|
//! | `place` | the parameters of its URL |
//! | `credentials` | keys: environment, profiles |
//! | `sign` | Signature Version 4 |
//! | `upload` | large NARs in parts, several at once, and going on with what a killed run left |
//! | `listing` | what a bucket holds |
//! | `xml` | what S3 answers with |
//!
//! Source: the API reference of Amazon S3, and Nix's own `s3://` stores, whose parameters and file names these are.

mod credentials;
mod listing;
mod place;
mod sign;
mod upload;
mod xml;

use std::sync::Arc;

use reqwest::header::{CONTENT_TYPE, HeaderValue};
use reqwest::{Method, Url};
use tokio_util::bytes::Bytes;

pub use credentials::ProfileError;
pub(super) use place::PARAMS;
pub(super) use sign::Signer;

use super::OpenContext;
use super::answer::narinfo_name;
use super::api::{Api, Call, CallFailure, Reply};
use super::backend::Opening;
use super::budget::STREAM;
use super::error::CacheError;
use super::http::{Fetched, HttpCache};
use super::info::{self, CacheInfo};
use super::login::Auth;
use super::put::{NAR, NARINFO};
use super::retry::Patience;
use super::sink::{Codec, Nar, PutError, Sink, WORTH_ASKING};
use super::stream::NarStream;
use crate::event::{Class, Failure};
use crate::nix_compat::daemon::PathInfo;
use crate::nix_compat::hex;
use crate::nix_compat::narinfo::NarInfo;
use place::{Place, Way};
use upload::Uploads;

/// Paths that are sent at once: many small ones wait for answers, not for bytes.
const PARALLEL: usize = 32;

/// See the module's page.
#[derive(Debug)]
pub(super) struct S3Cache {
    http: Arc<HttpCache>,
    api: Api,
    place: Place,
    uploads: Uploads,
    /// About how many records it holds; `None` if it does not let itself be listed.
    records: Option<u64>,
}

impl S3Cache {
    /// Opens it, for reading and, if it is pushed to, for writing.
    pub(super) async fn open(bucket: &str, opening: &Opening<'_>) -> Result<(Self, CacheInfo), CacheError> {
        let mut cache = Self::at(bucket, &opening.params.own, opening.shown, (opening.context, opening.patience()))?;
        let (info, records) = tokio::join!(cache.info(opening), cache.estimate());
        cache.records = records;
        Ok((cache, info?))
    }

    /// Reads the parameters of its URL and finds the keys; asks nothing.
    pub(super) fn at(
        bucket: &str,
        params: &[(String, String)],
        shown: &str,
        (context, patience): (&OpenContext, Patience),
    ) -> Result<Self, CacheError> {
        let url = || shown.to_owned();
        let place = Place::read(bucket, params).map_err(|why| CacheError::Url { url: url(), why })?;
        let found = credentials::find(place.profile.as_deref(), &context.login_env);
        let found = found.map_err(|why| CacheError::Profile { url: url(), why })?;
        let signer = found.credentials.map(|keys| Arc::new(Signer::new(keys, place.region.clone())));
        let auth = Auth { header: None, signer, source: found.source };
        let http = HttpCache::new(place.base.clone(), auth.clone(), shown, context, patience)?;
        Ok(Self {
            http: Arc::new(http),
            api: Api::new(&place.base, auth, shown, context, patience)?,
            place,
            uploads: Uploads::default(),
            records: None,
        })
    }

    /// Writes a small file that is no part of a cache.
    pub(super) async fn put_file(&self, name: &str, bytes: Vec<u8>) -> Result<(), Failure> {
        self.put(name, "application/octet-stream", bytes.into(), self.api.patience).await?;
        Ok(())
    }

    /// Reads `nix-cache-info`. A bucket that is to be written to gets that very file back, or a new one where it has
    /// none, so that keys that may not write are found out before anything else is done.
    async fn info(&self, opening: &Opening<'_>) -> Result<CacheInfo, CacheError> {
        let (shown, write) = (opening.shown, opening.config.push);
        let url = || shown.to_owned();
        let patience = first(self.api.patience);
        let ours = &opening.context.store_dir;
        let text = match self.api.call(&self.call(Method::GET, info::NAME), patience).await {
            Ok(reply) => reply.text().into_owned().into_bytes(),
            Err(failed) if failed.code.as_deref() == Some("NoSuchBucket") => {
                let host = self.place.base.host_str().unwrap_or_default();
                let why = format!("there is no bucket '{}' at {host}", self.place.bucket);
                return Err(CacheError::Url { url: url(), why });
            }
            Err(CallFailure { status: Some(404 | 410), .. }) if write => {
                CacheInfo::new_file(ours.as_str()).into_bytes()
            }
            Err(CallFailure { status: Some(404 | 410), .. }) => return Err(CacheError::NotACache { url: url() }),
            Err(failed) => return Err(self.refused(shown, &failed, false)),
        };
        let info = CacheInfo::parse(&text).map_err(|why| CacheError::Url { url: url(), why })?;
        if write && info.store_dir.as_ref().is_none_or(|theirs| theirs == ours.as_str()) {
            let put = self.put(info::NAME, info::MIME, text.into(), patience).await;
            put.map_err(|failed| self.refused(shown, &failed, true))?;
        }
        Ok(info)
    }

    /// Why the bucket cannot be used.
    fn refused(&self, shown: &str, failed: &CallFailure, push: bool) -> CacheError {
        let (url, why) = (shown.to_owned(), failed.failure.message.to_string());
        let keys = failed.code.as_deref().is_some_and(is_of_keys);
        match failed.status {
            Some(status) if keys || matches!(status, 401 | 403) => {
                CacheError::Keys { url, why, login: self.api.source().clone(), push }
            }
            _ if failed.failure.class == Class::Network => CacheError::Unreachable { url, why },
            _ => CacheError::Sick { url, why },
        }
    }

    /// Where it is read from.
    pub(super) fn http(&self) -> &Arc<HttpCache> {
        &self.http
    }

    /// Paths that are best sent at once.
    pub(super) fn parallel(&self) -> usize {
        PARALLEL
    }

    /// See [`Sink::send`]. A NAR that fits into memory is named by the hash of its file, as Nix does; a larger one is sent
    /// while it is made, when that is not known yet, and is named by the hash of the NAR.
    pub(super) async fn send(&self, sink: &Sink, info: &PathInfo, nar: NarStream) -> Result<Nar, PutError> {
        let codec = sink.codec(info);
        match self.place.way(info.nar_size) {
            Way::Whole => self.send_whole(codec, nar).await,
            Way::Parts(parts) => self.send_in_parts(sink, info, nar, parts).await,
            Way::Spooled => self.send_spooled(codec, nar).await,
        }
    }

    /// Bytes that a NAR of this size takes in memory at most while it is sent.
    pub(super) fn memory(&self, nar_size: u64) -> u64 {
        match self.place.way(nar_size) {
            Way::Whole => u64::MAX,
            Way::Parts(parts) => parts.memory(),
            Way::Spooled => STREAM,
        }
    }

    async fn send_whole(&self, codec: Codec, mut nar: NarStream) -> Result<Nar, PutError> {
        let whole = nar.part(usize::MAX).await.unwrap_or_default();
        let packed = nar.end().await?;
        let name = Nar::file_name(&packed.file_hash, codec);
        let is_there = packed.file_size >= WORTH_ASKING && self.size(&name).await? == Some(packed.file_size);
        if !is_there {
            let hash = hex::encode(packed.file_hash.digest_as_bytes());
            self.put_hashed(&name, NAR, whole, &hash, self.api.patience).await?;
        }
        Ok(Nar::file(name, codec, packed, !is_there))
    }

    /// See [`Sink::register`].
    pub(super) async fn register(&self, sink: &Sink, info: &PathInfo, nar: &Nar) -> Result<NarInfo, PutError> {
        let record = sink.record(info, nar)?;
        let (name, body) = (narinfo_name(record.store_path()), record.to_canonical_bytes());
        self.put(&name, NARINFO, body.into(), self.api.patience).await?;
        Ok(record)
    }

    /// See [`Sink::close`].
    pub(super) async fn close(&self) {
        self.give_up_uploads().await;
    }

    /// The size of a file; `None` if it is not there.
    async fn size(&self, name: &str) -> Result<Option<u64>, PutError> {
        match self.http.fetch(Method::HEAD, name, 0, self.http.patience.attempts).await {
            Fetched::Found(file) => Ok(file.size()),
            Fetched::Missing => Ok(None),
            Fetched::Refused(failure, _) | Fetched::NoAnswer(failure) => Err(PutError::Server(failure)),
        }
    }

    /// A request for a file.
    fn call(&self, method: Method, name: &str) -> Call {
        Call::new(method, self.url(name, ""))
    }

    /// The address of a file or, with an empty name, of the bucket; `query` is escaped already.
    fn url(&self, name: &str, query: &str) -> Url {
        let mut url = self.place.base.clone();
        url.set_path(&format!("{}{}", url.path(), sign::escape(name, true)));
        url.set_query(Some(query).filter(|query| !query.is_empty()));
        url
    }

    async fn put(&self, name: &str, mime: &'static str, body: Bytes, patience: Patience) -> Result<Reply, CallFailure> {
        let hash = sha256(&body);
        self.put_hashed(name, mime, body, &hash, patience).await
    }

    /// Writes a file whose hash is known.
    async fn put_hashed(
        &self,
        name: &str,
        mime: &'static str,
        body: Bytes,
        hash: &str,
        patience: Patience,
    ) -> Result<Reply, CallFailure> {
        let call = self.call(Method::PUT, name).header(CONTENT_TYPE, HeaderValue::from_static(mime)).body(body);
        self.api.call(&hashed(self.stored(call), hash), patience).await
    }

    /// With the class of storage that the URL names.
    fn stored(&self, call: Call) -> Call {
        match &self.place.storage_class {
            Some(class) => call.header(STORAGE_CLASS, class.clone()),
            None => call,
        }
    }
}

const STORAGE_CLASS: reqwest::header::HeaderName = reqwest::header::HeaderName::from_static("x-amz-storage-class");

/// Whether an error of S3 says that the keys are of no use at all. `AccessDenied` is not among them: buckets say so also of
/// files that are not there, where the keys may not list the bucket.
pub(super) fn is_of_keys(code: &str) -> bool {
    const CODES: [&str; 7] = [
        "AccountProblem",
        "ExpiredToken",
        "InvalidAccessKeyId",
        "InvalidSecurity",
        "InvalidToken",
        "SignatureDoesNotMatch",
        "TokenRefreshRequired",
    ];
    CODES.contains(&code)
}

/// The hash of a body, for the signature: a server that gets other bytes refuses them.
fn hashed(call: Call, hash: &str) -> Call {
    match HeaderValue::from_str(hash) {
        Ok(hash) => call.header(sign::CONTENT_HASH, hash),
        Err(_) => call,
    }
}

fn sha256(bytes: &[u8]) -> String {
    use sha2::Digest as _;
    hex::encode(&sha2::Sha256::digest(bytes))
}

/// As long as one waits for the first answer of a bucket.
fn first(patience: Patience) -> Patience {
    Patience {
        push: patience.path,
        stall: patience.answer,
        rate_limited_attempts: patience.attempts.min(patience.rate_limited_attempts),
        ..patience
    }
}

impl From<CallFailure> for Failure {
    fn from(failed: CallFailure) -> Self {
        failed.failure
    }
}
