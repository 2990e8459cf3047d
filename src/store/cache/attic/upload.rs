//! Sending one NAR to Attic: in one request, as it is made, with what is known of the path before it.
//!
//! The server registers the path when it has the whole body, so the last piece of it is held back until the NAR has
//! proved to be the right one. Small NARs are kept in memory until the server has answered, so that they can be sent
//! again; a large one is made once more. A NAR has no parts in this protocol: one whose push was killed begins anew, and
//! the server sees by itself which pieces of it it has.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Poll;

use reqwest::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use reqwest::{Body, Method};
use serde::Serialize;
use tokio::sync::mpsc;
use tokio_util::bytes::{Bytes, BytesMut};

use super::super::api::{Call, CallFailure};
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
            self.stream(&call, preamble, info.nar_size, nar).await?;
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

    /// Sends a NAR while it is made. Nothing of it is kept: where that did not go well, it is made once more.
    async fn stream(&self, call: &Call, preamble: Bytes, size: u64, nar: NarStream) -> Result<(), PutError> {
        let length = size.saturating_add(preamble.len() as u64);
        let (to, pieces) = mpsc::channel(AHEAD);
        let sent = Arc::new(AtomicU64::new(0));
        let sending = self.api.stream(call, body(pieces, Arc::clone(&sent)), length, &sent);
        let mut sending = std::pin::pin!(sending);
        tokio::select! {
            made = make(preamble, nar, to) => {
                made?;
                sending.await
            }
            answer = &mut sending => answer,
        }
        .map(drop)
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

/// Gives the pieces of the body away; the last one only if the NAR was the right one. That nobody takes them any more is
/// told by the answer.
async fn make(preamble: Bytes, mut nar: NarStream, to: mpsc::Sender<Bytes>) -> Result<(), PutError> {
    let mut held = preamble;
    while let Some(piece) = nar.chunk().await {
        if to.send(std::mem::replace(&mut held, piece)).await.is_err() {
            return std::future::pending().await;
        }
    }
    nar.end().await?;
    let _ = to.send(held).await;
    Ok(())
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
