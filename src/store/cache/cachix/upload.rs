//! One NAR on its way to Cachix: parts that go to signed URLs, several at once, while the rest is still compressed.
//!
//! Nobody sees it before `complete`, which makes the record, too. It is said only once all that the path refers to is
//! there; the service itself would not mind, and Nix would find paths that it cannot have.

use std::sync::{Mutex, PoisonError};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures_util::FutureExt as _;
use futures_util::stream::{self, FuturesUnordered, StreamExt as _};
use md5::{Digest as _, Md5};
use reqwest::header::{CONTENT_TYPE, ETAG, HeaderName, HeaderValue};
use reqwest::{Method, Url};
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::task::spawn_blocking;
use tokio_util::bytes::Bytes;

use super::super::answer::narinfo_name;
use super::super::api::{Api, Call, CallFailure, Reply};
use super::super::retry::Patience;
use super::super::sink::PutError;
use super::super::stream::{NarStream, Packed};
use super::message::{Complete, Created, NarInfoCreate, Part, Sent, Signed};
use crate::event::Class;
use crate::id::StorePath;
use crate::nix_compat::daemon::PathInfo;

/// Bytes of a part. The storage takes no less than 5 MiB, unless it is the last.
const PART: u64 = 8 << 20;

/// Parts that one upload may have.
const MOST_PARTS: u64 = 10_000;

/// Parts of one path at once.
const AT_ONCE: usize = 4;

/// Bytes of parts of all paths together.
const ROOM: u64 = 96 << 20;

/// What the room is counted in.
const UNIT: u64 = 1 << 10;

/// Uploads to one cache.
pub(super) struct Uploads {
    api: Api,
    /// `…/cache/NAME/`.
    base: Url,
    room: Semaphore,
    /// Those that were begun and are neither complete nor given up.
    begun: Mutex<Vec<Begun>>,
}

impl std::fmt::Debug for Uploads {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Uploads").field("api", &self.api).finish_non_exhaustive()
    }
}

/// An upload by the two names that the service has for it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Begun {
    nar: String,
    id: String,
}

/// An upload that is whole and not complete yet.
#[derive(Debug)]
pub struct Ticket {
    begun: Begun,
    parts: Vec<Sent>,
    packed: Packed,
}

impl Uploads {
    pub(super) fn new(api: Api, base: Url) -> Self {
        let room = Semaphore::new(usize::try_from(ROOM / UNIT).unwrap_or(usize::MAX >> 4));
        Self { api, base, room, begun: Mutex::default() }
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

    /// Sends a NAR. What has come of it is given up where it fails.
    pub(super) async fn send(&self, info: &PathInfo, mut nar: NarStream) -> Result<Ticket, PutError> {
        let mut url = self.url("multipart-nar")?;
        url.query_pairs_mut().append_pair("compression", "zst");
        let Created { nar_id, upload_id } = self.call(&Call::new(Method::POST, url)).await?.json()?;
        let begun = Begun { nar: nar_id, id: upload_id };
        self.begun().push(begun.clone());
        let sent = match self.parts(info, &begun, &mut nar).await {
            // Only now is it known whether the NAR was the right one.
            Ok(parts) => nar.end().await.map(|packed| (parts, packed)).map_err(PutError::from),
            Err(error) => Err(error),
        };
        match sent {
            Ok((parts, packed)) => Ok(Ticket { begun, parts, packed }),
            Err(error) => {
                self.abort(begun).await;
                Err(error)
            }
        }
    }

    /// Cuts it into parts and sends them; the next one is read and gets its URL while others are on their way.
    async fn parts(&self, info: &PathInfo, begun: &Begun, nar: &mut NarStream) -> Result<Vec<Sent>, PutError> {
        let size = PART.max(info.nar_size / (MOST_PARTS - MOST_PARTS / 10));
        // What does not compress grows a little.
        let expected = size.min(info.nar_size + info.nar_size / 64 + 64 * UNIT);
        let (mut sending, mut sent) = (FuturesUnordered::new(), Vec::new());
        for number in 1.. {
            let mut reading = std::pin::pin!(self.next(nar, size, expected));
            let next = loop {
                tokio::select! {
                    biased;
                    Some(part) = sending.next(), if !sending.is_empty() => sent.push(part?),
                    next = &mut reading, if sending.len() < AT_ONCE => break next,
                }
            };
            let Some((part, room)) = next else { break };
            sending.push(self.part(begun, number, part, room));
        }
        while let Some(part) = sending.next().await {
            sent.push(part?);
        }
        sent.sort_by_key(|part: &Sent| part.part_number);
        Ok(sent)
    }

    /// The next part of at most `size` bytes, of which so many are expected, as soon as there is room for it.
    async fn next(
        &self,
        nar: &mut NarStream,
        size: u64,
        expected: u64,
    ) -> Option<(Bytes, Option<SemaphorePermit<'_>>)> {
        let units = u32::try_from((expected / UNIT).min(ROOM / UNIT)).unwrap_or(1).max(1);
        let room = self.room.acquire_many(units).await.ok();
        let part = nar.part(usize::try_from(size).unwrap_or(usize::MAX)).await?;
        Some((part, room))
    }

    /// Sends one part. A signed URL is good for a while only; where the storage takes it no more, there is another.
    async fn part(
        &self,
        begun: &Begun,
        number: u32,
        part: Bytes,
        _room: Option<SemaphorePermit<'_>>,
    ) -> Result<Sent, PutError> {
        let bytes = part.clone();
        let md5 = spawn_blocking(move || STANDARD.encode(Md5::digest(&bytes))).await.map_err(std::io::Error::other)?;
        let header = HeaderValue::from_str(&md5).map_err(std::io::Error::other)?;
        let upload = || async {
            let call = Call::signed(self.signed(begun, number, &md5).await?, part.clone())
                .header(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"))
                .header(HeaderName::from_static("content-md5"), header.clone());
            self.call(&call).await
        };
        let reply = match upload().await {
            Err(CallFailure { status: Some(400 | 401 | 403), .. }) => upload().await?,
            reply => reply?,
        };
        let e_tag = reply.headers.get(ETAG).and_then(|tag| tag.to_str().ok());
        let no_tag = || CallFailure::here(Class::Cache, "its storage did not name the part that it took (no ETag)");
        Ok(Sent { part_number: number, e_tag: e_tag.ok_or_else(no_tag)?.to_owned() })
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
            return Err(failed.into());
        }
        self.begun().retain(|begun| *begun != ticket.begun);
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
        self.begun().retain(|begun| *begun != upload);
        if let Ok(call) = call {
            let patience = self.api.patience.brief();
            let _ = self.api.call(&call, Patience { attempts: 1, ..patience }).await;
        }
    }

    /// Gives up all that was begun and is not complete.
    pub(super) async fn close(&self) {
        let left = std::mem::take(&mut *self.begun());
        stream::iter(left).for_each_concurrent(AT_ONCE, |upload| self.abort(upload).boxed()).await;
    }

    fn begun(&self) -> std::sync::MutexGuard<'_, Vec<Begun>> {
        self.begun.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
