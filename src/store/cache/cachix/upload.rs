//! NARs on their way to Cachix: parts that go to signed URLs, several at once, while the rest is still compressed.
//!
//! Nobody sees one before `complete`, which makes the record, too. It is said only once all that the path refers to is
//! there; the service itself would not mind, and Nix would find paths that it cannot have.
//!
//! An upload of a large NAR that was broken off is gone on with: the ledger has its two names and, of each part that the
//! storage took, the MD5 and the ETag, and compressing the same NAR gives the same parts. The service does not tell
//! which uploads it has, and how long it keeps them nobody outside knows. Where it knows one no more, which may come out
//! as late as at `complete`, the NAR is sent anew.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures_util::FutureExt as _;
use futures_util::stream::{self, FuturesUnordered, StreamExt as _};
use md5::{Digest as _, Md5};
use reqwest::header::{CONTENT_TYPE, ETAG, HeaderName, HeaderValue};
use reqwest::{Method, Url};
use tokio::task::{JoinError, spawn_blocking};
use tokio_util::bytes::Bytes;

use super::super::answer::narinfo_name;
use super::super::api::{Api, Call, CallFailure, Reply};
use super::super::budget::Parts;
use super::super::ledger::{self, Entry};
use super::super::retry::Patience;
use super::super::sink::{Again, PutError, WORTH_KEEPING};
use super::super::stream::{NarStream, Packed};
use super::message::{Complete, Created, NarInfoCreate, Part, Sent, Signed};
use crate::event::Class;
use crate::id::StorePath;
use crate::nix_compat::daemon::PathInfo;

/// Bytes of a part. The storage takes no less than 5 MiB, unless it is the last.
const PART: u64 = 8 << 20;

/// Parts that one upload may have.
const MOST_PARTS: u64 = 10_000;

/// Uploads that are given up at once.
const AT_ONCE: usize = 4;

/// Uploads to one cache.
pub(super) struct Uploads {
    api: Api,
    /// `…/cache/NAME/`.
    base: Url,
    /// Those that this run has begun and that are neither complete nor given up, with the bytes that came through.
    begun: Mutex<BTreeMap<Begun, u64>>,
}

impl std::fmt::Debug for Uploads {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Uploads").field("api", &self.api).finish_non_exhaustive()
    }
}

/// An upload by the two names that the service has for it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Begun {
    nar: String,
    id: String,
}

/// One NAR on its way.
#[derive(Debug)]
struct Upload<'a> {
    uploads: &'a Uploads,
    begun: Begun,
    /// What the ledger says of it; `None`: it is not large enough, or nothing is kept.
    entry: Option<Entry>,
    /// The parts that an earlier run has sent; `None` if this one has begun it.
    left: Option<BTreeMap<u32, ledger::Part>>,
}

/// An upload that is whole and not complete yet.
#[derive(Debug)]
pub struct Ticket {
    begun: Begun,
    entry: Option<Entry>,
    /// An earlier run has begun it.
    taken_up: bool,
    parts: Vec<Sent>,
    packed: Packed,
}

/// How a NAR of this size is cut.
pub(super) fn parts(nar_size: u64) -> Parts {
    Parts::of(PART.max(nar_size / (MOST_PARTS - MOST_PARTS / 10)))
}

impl Uploads {
    pub(super) fn new(api: Api, base: Url) -> Self {
        Self { api, base, begun: Mutex::default() }
    }

    /// The service.
    pub(super) fn api(&self) -> &Api {
        &self.api
    }

    /// A URL below that of the cache.
    pub(super) fn url(&self, name: &str) -> Result<Url, CallFailure> {
        self.base.join(name).map_err(|_| CallFailure::here(Class::Internal, format!("'{name}' is no part of a URL")))
    }

    async fn call(&self, call: &Call) -> Result<Reply, CallFailure> {
        self.api.call(call, self.api.patience).await
    }

    /// Sends a NAR. What has come of it is given up where it fails, unless it is worth keeping.
    pub(super) async fn send(
        &self,
        info: &PathInfo,
        entry: Option<Entry>,
        mut nar: NarStream,
    ) -> Result<Ticket, PutError> {
        let upload = self.begin(entry).await?;
        let sent = match upload.send_all(parts(info.nar_size), &mut nar).await {
            Ok(parts) => parts,
            Err(failed) => return Err(upload.broken(failed).await),
        };
        match nar.end().await {
            Ok(packed) => {
                let Upload { begun, entry, left, .. } = upload;
                Ok(Ticket { begun, entry, taken_up: left.is_some(), parts: sent, packed })
            }
            // Only now is it known that the NAR was not the right one.
            Err(error) => {
                upload.entry.iter().for_each(Entry::end);
                self.abort(upload.begun).await;
                Err(error.into())
            }
        }
    }

    /// Goes on with the upload that the ledger knows of, or begins one.
    async fn begin(&self, entry: Option<Entry>) -> Result<Upload<'_>, CallFailure> {
        if let Some(ledger::Begun { id, parts }) = entry.as_ref().and_then(Entry::begun)
            && let Some((nar, id)) = id.split_once(' ')
        {
            tracing::debug!(parts = parts.len(), "going on with an upload");
            let begun = Begun { nar: nar.to_owned(), id: id.to_owned() };
            return Ok(Upload { uploads: self, begun, entry, left: Some(parts) });
        }
        let mut url = self.url("multipart-nar")?;
        url.query_pairs_mut().append_pair("compression", "zst");
        let Created { nar_id, upload_id } = self.call(&Call::new(Method::POST, url)).await?.json()?;
        entry.iter().for_each(|entry| entry.begin(&format!("{nar_id} {upload_id}")));
        let begun = Begun { nar: nar_id, id: upload_id };
        self.begun().insert(begun.clone(), 0);
        Ok(Upload { uploads: self, begun, entry, left: None })
    }

    async fn signed(&self, begun: &Begun, number: u32, md5: &str) -> Result<Url, CallFailure> {
        let mut url = self.url(&format!("multipart-nar/{}", begun.nar))?;
        url.query_pairs_mut().append_pair("uploadId", &begun.id).append_pair("partNumber", &number.to_string());
        let call = Call::new(Method::POST, url).json(&Part { md5 })?;
        let Signed { upload_url } = self.call(&call).await?.json()?;
        // The URL itself is not told.
        Url::parse(&upload_url).map_err(|_| CallFailure::here(Class::Cache, "it names no URL to upload a part to"))
    }

    /// Makes a path visible. An answer may get lost on its way, so that what is asked again is refused: then the record
    /// says whether it was made.
    pub(super) async fn complete(
        &self,
        info: &PathInfo,
        ticket: &Ticket,
        signature: Option<String>,
    ) -> Result<(), PutError> {
        let mut url = self.url(&format!("multipart-nar/{}/complete", ticket.begun.nar))?;
        url.query_pairs_mut().append_pair("uploadId", &ticket.begun.id);
        let nar_info_create = NarInfoCreate::new(info, &ticket.packed, signature);
        let call = Call::new(Method::POST, url).json(&Complete { parts: &ticket.parts, nar_info_create })?;
        if let Err(failed) = self.call(&call).await
            && !self.has(&info.path).await.unwrap_or(false)
        {
            return Err(if ticket.taken_up { gone(failed, ticket.entry.as_ref()) } else { failed.into() });
        }
        ticket.entry.iter().for_each(Entry::end);
        self.begun().remove(&ticket.begun);
        Ok(())
    }

    /// Whether there is a record of a path.
    pub(super) async fn has(&self, path: &StorePath) -> Result<bool, CallFailure> {
        match self.call(&Call::new(Method::HEAD, self.url(&narinfo_name(path))?)).await {
            Ok(_) => Ok(true),
            Err(CallFailure { status: Some(404 | 410), .. }) => Ok(false),
            Err(failed) => Err(failed),
        }
    }

    /// Gives an upload up. That it cannot be is nobody's concern: the storage forgets it after some days.
    async fn abort(&self, upload: Begun) {
        let call = self.url(&format!("multipart-nar/{}/abort", upload.nar)).map(|mut url| {
            url.query_pairs_mut().append_pair("uploadId", &upload.id);
            Call::new(Method::POST, url)
        });
        self.begun().remove(&upload);
        if let Ok(call) = call {
            let patience = self.api.patience.brief();
            let _ = self.api.call(&call, Patience { attempts: 1, ..patience }).await;
        }
    }

    /// Gives up all that was begun and is not complete, but for what the next run had better go on with.
    pub(super) async fn close(&self) {
        let left = std::mem::take(&mut *self.begun()).into_iter().filter(|(_, sent)| *sent < WORTH_KEEPING);
        stream::iter(left).for_each_concurrent(AT_ONCE, |(upload, _)| self.abort(upload).boxed()).await;
    }

    fn begun(&self) -> MutexGuard<'_, BTreeMap<Begun, u64>> {
        self.begun.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Upload<'_> {
    /// Cuts the NAR into parts and sends them; the next one is read and gets its URL while others are on their way.
    async fn send_all(&self, Parts { size, at_once }: Parts, nar: &mut NarStream) -> Result<Vec<Sent>, CallFailure> {
        let size = usize::try_from(size).unwrap_or(usize::MAX);
        let (mut sending, mut sent) = (FuturesUnordered::new(), Vec::new());
        for number in 1.. {
            let mut reading = std::pin::pin!(nar.part(size));
            let next = loop {
                tokio::select! {
                    biased;
                    Some(part) = sending.next(), if !sending.is_empty() => sent.push(part?),
                    next = &mut reading, if sending.len() < at_once => break next,
                }
            };
            let Some(part) = next else { break };
            sending.push(self.send_part(number, part));
        }
        while let Some(part) = sending.next().await {
            sent.push(part?);
        }
        sent.sort_by_key(|part: &Sent| part.part_number);
        Ok(sent)
    }

    /// Sends one part, unless it is there.
    async fn send_part(&self, number: u32, part: Bytes) -> Result<Sent, CallFailure> {
        let (bytes, size) = (part.clone(), part.len() as u64);
        let lost = |error: JoinError| CallFailure::here(Class::Internal, error.to_string());
        let md5 = spawn_blocking(move || STANDARD.encode(Md5::digest(&bytes))).await.map_err(lost)?;
        let left = self.left.as_ref().and_then(|left| left.get(&number));
        if let Some(left) = left.filter(|left| left.size == size && left.digest == md5) {
            return Ok(Sent { part_number: number, e_tag: left.tag.clone() });
        }
        let e_tag = self.put(number, part, &md5).await?;
        if let Some(entry) = &self.entry {
            entry.part(number, &ledger::Part { size, digest: md5, tag: e_tag.clone() });
            if let Some(sent) = self.uploads.begun().get_mut(&self.begun) {
                *sent += size;
            }
        }
        Ok(Sent { part_number: number, e_tag })
    }

    /// Gives the storage a part, and gives its ETag. A signed URL is good for a while only; where the storage takes it no
    /// more, there is another.
    async fn put(&self, number: u32, part: Bytes, md5: &str) -> Result<String, CallFailure> {
        let header =
            HeaderValue::from_str(md5).map_err(|_| CallFailure::here(Class::Internal, "an MD5 is no header"))?;
        let upload = || async {
            let call = Call::signed(self.uploads.signed(&self.begun, number, md5).await?, part.clone())
                .header(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"))
                .header(HeaderName::from_static("content-md5"), header.clone());
            self.uploads.call(&call).await
        };
        let reply = match upload().await {
            Err(CallFailure { status: Some(400 | 401 | 403), .. }) => upload().await?,
            reply => reply?,
        };
        let e_tag = reply.headers.get(ETAG).and_then(|tag| tag.to_str().ok()).map(str::to_owned);
        e_tag.ok_or_else(|| CallFailure::here(Class::Cache, "its storage did not name the part that it took (no ETag)"))
    }

    /// The parts did not come through: what becomes of them, and of the path.
    async fn broken(self, failed: CallFailure) -> PutError {
        if self.left.is_some() {
            return gone(failed, self.entry.as_ref());
        }
        let sent = self.uploads.begun().get(&self.begun).copied().unwrap_or_default();
        if sent < WORTH_KEEPING {
            self.entry.iter().for_each(Entry::end);
            self.uploads.abort(self.begun).await;
        }
        failed.into()
    }
}

/// What failed with an upload that an earlier run has begun: where the service may know it no more, the NAR is to be sent
/// anew.
fn gone(failed: CallFailure, entry: Option<&Entry>) -> PutError {
    match (failed.status, entry) {
        (Some(400 | 404 | 409 | 410 | 422), Some(entry)) => {
            entry.end();
            PutError::Again(Again { failure: failed.failure, throttled: false, floor: None })
        }
        _ => failed.into(),
    }
}
