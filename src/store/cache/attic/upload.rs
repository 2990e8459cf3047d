//! Sending one NAR to Attic: in one request, as it is made, with what is known of the path before it.
//!
//! The server registers the path when it has the whole body, so the last piece of it is held back until the NAR has
//! proved to be the right one. What has been sent is kept (small NARs in memory, others in a temporary file) until the
//! server has answered, so that it can be sent again. A NAR has no parts in this protocol: one whose push was
//! killed begins anew, and the server sees by itself which pieces of it it has.

use std::fs::File;
use std::io::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Poll;

use reqwest::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use reqwest::{Body, Method};
use serde::Serialize;
use tokio::sync::mpsc;
use tokio_util::bytes::{Bytes, BytesMut};
use tokio_util::sync::CancellationToken;

use super::super::api::{Call, CallFailure};
use super::super::put::no_room;
use super::super::sink::{Nar, PutError};
use super::super::stream::NarStream;
use super::{AtticCache, join};
use crate::event::Class;
use crate::nix_compat::daemon::PathInfo;
use crate::nix_compat::narinfo::{Compression, NixHash, nixbase32};

/// From this size on (bytes of NAR) it is sent while it is made.
const BIG: u64 = 1 << 20;

/// From this size on (bytes) what is known of a path goes before the NAR, not into a header.
const LONG: usize = 4096;

/// Pieces that wait to be sent.
const AHEAD: usize = 4;

const HEADER: HeaderName = HeaderName::from_static("x-attic-nar-info");
const PREAMBLE: HeaderName = HeaderName::from_static("x-attic-nar-info-preamble-size");

/// What the server wants to know of a path.
#[derive(Serialize)]
struct About<'a> {
    cache: &'a str,
    store_path_hash: String,
    store_path: String,
    references: Vec<String>,
    system: Option<&'a str>,
    deriver: Option<&'a str>,
    sigs: Vec<&'a str>,
    ca: Option<&'a str>,
    nar_hash: String,
    nar_size: u64,
}

impl AtticCache {
    /// See [`Sink::send`](super::super::sink::Sink::send).
    pub(in super::super) async fn send(&self, info: &PathInfo, nar: NarStream) -> Result<Nar, PutError> {
        let (call, preamble) = self.upload(info)?;
        if info.nar_size < BIG {
            let body = whole(preamble, nar).await?;
            self.api.call(&call.body(body), self.api.patience).await?;
        } else {
            self.stream(call, preamble, info.nar_size, nar).await?;
        }
        let hash = nixbase32::encode(info.path.digest());
        Ok(Nar {
            url: format!("nar/{hash}.nar"),
            compression: Compression::None,
            file_hash: None,
            file_size: Some(info.nar_size),
            new: true,
            ticket: None,
        })
    }

    /// The request for a path, and what goes before its NAR.
    fn upload(&self, info: &PathInfo) -> Result<(Call, Bytes), CallFailure> {
        let about = About {
            cache: &self.cache,
            store_path_hash: nixbase32::encode(info.path.digest()),
            store_path: info.path.to_absolute_path_in(&self.store_dir),
            references: info.references.iter().map(|path| path.to_basename()).collect(),
            // Its own client says neither.
            system: None,
            deriver: None,
            sigs: info.signatures.iter().map(String::as_str).collect(),
            ca: info.ca.as_deref().filter(|ca| !ca.is_empty()),
            nar_hash: NixHash::Sha256(info.nar_hash).to_nix_base16_string(),
            nar_size: info.nar_size,
        };
        let text =
            serde_json::to_string(&about).map_err(|error| CallFailure::here(Class::Internal, error.to_string()))?;
        let call = Call::new(Method::PUT, join(&self.endpoint, "_api/v1/upload-path")?)
            .header(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
        match HeaderValue::from_str(&text) {
            Ok(value) if text.len() < LONG => Ok((call.header(HEADER, value), Bytes::new())),
            _ => Ok((call.header(PREAMBLE, HeaderValue::from(text.len())), Bytes::from(text))),
        }
    }

    /// Sends a NAR while it is made; again from the temporary file if that does not go well.
    async fn stream(&self, call: Call, preamble: Bytes, size: u64, nar: NarStream) -> Result<(), PutError> {
        let length = size.saturating_add(preamble.len() as u64);
        let file = Arc::new(tempfile::tempfile().map_err(no_room)?);
        let (to, pieces) = mpsc::channel(AHEAD);
        let (sent, answered) = (Arc::new(AtomicU64::new(0)), CancellationToken::new());
        let sending = self.api.stream(&call, body(pieces, Arc::clone(&sent)), length, &sent);
        let making = make(preamble, nar, Arc::clone(&file), to, answered.clone());
        let (mut making, mut sending) = (std::pin::pin!(making), std::pin::pin!(sending));
        let answer = tokio::select! {
            made = &mut making => {
                made?;
                sending.await
            }
            answer = &mut sending => {
                answered.cancel();
                // What is sent again takes the rest of the NAR.
                if answer.as_ref().is_err_and(|failed| self.may_be_sent_again(failed)) {
                    making.await?;
                }
                answer
            }
        };
        match answer {
            Err(failed) if self.may_be_sent_again(&failed) => {
                tracing::debug!(why = %failed.failure.message, "sending a NAR again");
                self.api.call(&call.clone().file(file, length), self.api.patience).await?;
                Ok(())
            }
            answer => Ok(answer.map(drop)?),
        }
    }

    /// Whether it may go better the next time.
    fn may_be_sent_again(&self, failed: &CallFailure) -> bool {
        failed.status.is_none() || failed.status == Some(401) && self.api.may_renew()
    }
}

/// The pieces as the body of a request; `sent` grows with what is taken.
fn body(mut pieces: mpsc::Receiver<Bytes>, sent: Arc<AtomicU64>) -> Body {
    Body::wrap_stream(futures_util::stream::poll_fn(move |cx| {
        let piece = std::task::ready!(pieces.poll_recv(cx));
        sent.fetch_add(piece.as_ref().map_or(0, |piece| piece.len() as u64), Ordering::Relaxed);
        Poll::Ready(piece.map(Ok::<_, std::io::Error>))
    }))
}

/// Writes the whole body into the file, and gives its pieces away until there is an answer; the last one only if the
/// NAR was the right one.
async fn make(
    preamble: Bytes,
    mut nar: NarStream,
    file: Arc<File>,
    to: mpsc::Sender<Bytes>,
    answered: CancellationToken,
) -> Result<(), PutError> {
    let mut held = keep(&file, preamble).await?;
    while let Some(piece) = nar.chunk().await {
        let next = keep(&file, piece).await?;
        answered.run_until_cancelled(to.send(std::mem::replace(&mut held, next))).await;
    }
    nar.end().await?;
    answered.run_until_cancelled(to.send(held)).await;
    Ok(())
}

/// Writes a piece at the end of the file.
async fn keep(file: &Arc<File>, piece: Bytes) -> Result<Bytes, PutError> {
    let file = Arc::clone(file);
    let write = move || (&*file).write_all(&piece).map(|()| piece);
    Ok(tokio::task::spawn_blocking(write).await.map_err(std::io::Error::other)?.map_err(no_room)?)
}

/// The body of a small NAR, once it has proved to be the right one.
async fn whole(preamble: Bytes, mut nar: NarStream) -> Result<Bytes, PutError> {
    let mut body = BytesMut::from(&*preamble);
    while let Some(piece) = nar.chunk().await {
        body.extend_from_slice(&piece);
    }
    nar.end().await?;
    Ok(body.freeze())
}
