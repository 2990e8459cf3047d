//! NARs on their way to a server that takes files (`PUT`).
//!
//! Small ones are sent in one piece, from memory, under the hash of the file, as Nix does. Larger ones are sent while
//! they are compressed; the hash of such a file is known only at its end, so that it is named by its NAR. A server that
//! must know a file's size first gets them from a temporary file.
//!
//! A file goes in one request: one that was broken off begins anew, since HTTP knows no way to go on with it.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use reqwest::header::CONTENT_TYPE;
use reqwest::{Body, Method};
use tokio::sync::oneshot;

use super::answer::{narinfo_name, no_answer};
use super::http::{Fetched, HttpCache, Outcome};
use super::put::{Content, NAR, NARINFO, no_room, spooled, told};
use super::sink::{Again, Codec, Nar, PutError, WHOLE, WORTH_ASKING};
use super::stream::{NarStream, Packed, StreamError};
use crate::event::{Class, Failure};
use crate::nix_compat::daemon::PathInfo;
use crate::nix_compat::narinfo::NarInfo;

/// What a server is known not to do.
#[derive(Debug, Default)]
pub(super) struct Manners {
    /// It must know the size of a file first.
    wants_length: AtomicBool,
    /// Files that are there and are not what their names say: they are written anew.
    broken: Mutex<Vec<String>>,
}

impl HttpCache {
    /// Brings a NAR onto the server.
    pub(super) async fn send(&self, codec: Codec, info: &PathInfo, nar: NarStream) -> Result<Nar, PutError> {
        if info.nar_size <= WHOLE {
            let (pieces, packed) = in_memory(nar).await?;
            let content = Content::Pieces(pieces.into(), packed.file_size);
            self.send_content(codec, content, packed).await
        } else if self.manners.wants_length.load(Ordering::Relaxed) {
            let spool = tempfile::tempfile().map_err(no_room)?;
            let (spool, packed) = spooled(spool, nar).await?;
            self.send_content(codec, Content::File(Arc::new(spool), packed.file_size), packed).await
        } else {
            self.send_stream(codec, info, nar).await
        }
    }

    /// Named by its content, so whatever has that name and is whole will do. A small one is not asked for: it is sent in
    /// the time of the question.
    async fn send_content(&self, codec: Codec, content: Content, packed: Packed) -> Result<Nar, PutError> {
        let url = Nar::file_name(&packed.file_hash, codec);
        let new = packed.file_size < WORTH_ASKING || !self.has(&url, packed.file_size).await;
        if new {
            let put = self.put(&url, NAR, &content, self.patience).await;
            put.map_err(|failed| PutError::Server(failed.failure))?;
        }
        Ok(Nar::file(url, codec, packed, new))
    }

    async fn send_stream(&self, codec: Codec, info: &PathInfo, nar: NarStream) -> Result<Nar, PutError> {
        let name = Nar::stream_name(info, codec);
        if let Some(file) = self.stored(&name).await {
            // It is packed all the same: its record needs the hash and the size.
            let packed = nar.end().await?;
            if file.may_have(packed.file_size) {
                return Ok(Nar::file(name, codec, packed, false));
            }
            self.broken().push(name);
            let failure = no_answer(Class::Cache, "it has half a file of that name");
            return Err(PutError::Again(Again { failure, throttled: false, floor: None }));
        }
        let url = self
            .base
            .join(&name)
            .map_err(|_| PutError::Server(no_answer(Class::Cache, format!("'{name}' is no URL"))))?;
        let (sent, (tell, mut ended)) = (Arc::new(AtomicU64::new(0)), oneshot::channel());
        let request = self.client.put(url.clone()).header(CONTENT_TYPE, NAR).body(body(nar, Arc::clone(&sent), tell));
        let passing = self.link.passing();
        let outcome = self.put_body(&url, request, &sent, self.patience.stall).await;
        let ended = match &outcome {
            Outcome::Found(_) | Outcome::Missing => (&mut ended).await.ok(),
            // It may have said no before it had seen all.
            Outcome::Refused { .. } | Outcome::Again { .. } => ended.try_recv().ok(),
        };
        let again = match (ended, outcome) {
            // What the store did wrong is no fault of the server.
            (Some(Err(error)), _) => return Err(error.into()),
            (Some(Ok(packed)), Outcome::Found(_) | Outcome::Missing) => {
                passing.took(packed.file_size, self.pace());
                self.answered();
                self.hopeless.store(false, Ordering::Relaxed);
                self.broken().retain(|broken| *broken != name);
                return Ok(Nar::file(name, codec, packed, true));
            }
            (None, Outcome::Found(_) | Outcome::Missing) => {
                let failure = no_answer(Class::Cache, "it answered before the whole file was sent");
                Again { failure, throttled: false, floor: None }
            }
            (_, Outcome::Refused { failure, status: 400 | 411 | 501 | 505 }) => {
                self.manners.wants_length.store(true, Ordering::Relaxed);
                Again { failure, throttled: false, floor: None }
            }
            (_, Outcome::Refused { failure, .. }) => return Err(PutError::Server(failure)),
            (_, Outcome::Again { failure, throttled, floor, .. }) => Again { failure, throttled, floor },
        };
        Err(PutError::Again(again))
    }

    /// A file of this name, unless it is known to be broken; no answer counts as "not there".
    async fn stored(&self, name: &str) -> Option<super::http::File> {
        if self.broken().iter().any(|broken| broken == name) {
            return None;
        }
        match self.fetch(Method::HEAD, name, 0, 1).await {
            Fetched::Found(file) => Some(file),
            _ => None,
        }
    }

    fn broken(&self) -> std::sync::MutexGuard<'_, Vec<String>> {
        self.manners.broken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// See [`Sink::wait`](super::Sink::wait). Once patience has come to its end, other files are tried once each until
    /// one gets through.
    pub(super) fn wait(&self, tries: u32, waited: Duration, again: &Again) -> Result<Duration, Failure> {
        let patience = self.patience;
        let wait = patience.wait(tries, again.throttled, again.floor);
        let most = if again.throttled { patience.rate_limited_attempts } else { patience.attempts };
        let late = waited.saturating_add(wait) > patience.push;
        if tries >= most || late || (tries > 1 && self.hopeless.load(Ordering::Relaxed)) {
            self.hopeless.store(true, Ordering::Relaxed);
            return Err(told(&again.failure, tries, waited));
        }
        self.repeats.note(&self.shown, &again.failure, wait);
        Ok(wait)
    }

    /// Writes a record, whole or not at all; a record of the same path is replaced.
    pub(super) async fn register(&self, record: &NarInfo) -> Result<(), PutError> {
        let (name, content) = (narinfo_name(record.store_path()), Content::Bytes(record.to_canonical_bytes()));
        let put = self.put(&name, NARINFO, &content, self.patience).await;
        put.map_err(|failed| PutError::Server(failed.failure))
    }
}

/// The stream as the body of a request. It breaks off if the NAR was not what it was to be, so that the server never
/// takes it for whole; how it ended is told apart from that.
fn body(nar: NarStream, sent: Arc<AtomicU64>, tell: oneshot::Sender<Result<Packed, StreamError>>) -> Body {
    let start = Some((nar, tell));
    Body::wrap_stream(futures_util::stream::unfold(start, move |state| {
        let sent = Arc::clone(&sent);
        async move {
            let (mut nar, tell) = state?;
            if let Some(chunk) = nar.chunk().await {
                sent.fetch_add(chunk.len() as u64, Ordering::Relaxed);
                return Some((Ok(chunk), Some((nar, tell))));
            }
            let ended = nar.end().await;
            let broken = ended.is_err();
            // Nobody listens if the request was given up.
            let _ = tell.send(ended);
            broken.then(|| (Err(io::Error::from(io::ErrorKind::InvalidData)), None))
        }
    }))
}

async fn in_memory(mut nar: NarStream) -> Result<(Vec<tokio_util::bytes::Bytes>, Packed), PutError> {
    let mut pieces = Vec::new();
    while let Some(chunk) = nar.chunk().await {
        pieces.push(chunk);
    }
    Ok((pieces, nar.end().await?))
}
