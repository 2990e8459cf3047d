//! Writing to a cache on a server: one file at a time, tried again with patience, never believed before its status.

use std::fs::File;
use std::io::Write as _;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::StreamExt as _;
use reqwest::header::{CONTENT_LENGTH, CONTENT_TYPE};
use reqwest::{Body, Method, RequestBuilder, Response, Url};

use tokio_util::bytes::Bytes;

use super::answer::no_answer;
use super::http::{Fetched, File as HttpFile, HttpCache, Outcome, bad_status, broken};
use super::retry::{Patience, Tries};
use super::sink::PutError;
use super::stream::{NarStream, Packed};
use crate::event::{Class, Failure};

/// MIME types as Nix sends them.
pub(super) const NAR: &str = "application/x-nix-nar";
pub(super) const NARINFO: &str = "text/x-nix-narinfo";

/// Bytes of a file that are sent at a time.
const CHUNK: u64 = 256 * 1024;

/// Bytes of an answer to an upload that are read, so that its connection can be used again.
const ANSWER: usize = 64 * 1024;

/// What is written. Can be sent as often as it takes.
#[derive(Debug, Clone)]
pub(super) enum Content {
    Bytes(Vec<u8>),
    /// Pieces, and their size in bytes all together.
    Pieces(Arc<[Bytes]>, u64),
    /// A file and its size in bytes.
    File(Arc<File>, u64),
}

impl Content {
    fn len(&self) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::Pieces(_, size) | Self::File(_, size) => *size,
        }
    }

    /// From the start; `sent` grows with what is taken.
    pub(super) fn body(&self, sent: Arc<AtomicU64>) -> Body {
        match self {
            Self::Bytes(bytes) => Body::from(bytes.clone()),
            Self::Pieces(pieces, _) => {
                let pieces = Arc::clone(pieces);
                Body::wrap_stream(futures_util::stream::iter(0..pieces.len()).map(move |at| {
                    sent.fetch_add(1, Ordering::Relaxed);
                    Ok::<_, std::io::Error>(pieces.get(at).cloned().unwrap_or_default())
                }))
            }
            Self::File(file, size) => {
                let start = (Arc::clone(file), *size, 0);
                Body::wrap_stream(futures_util::stream::try_unfold(start, move |(file, size, at)| {
                    let sent = Arc::clone(&sent);
                    async move {
                        if at >= size {
                            return Ok::<_, std::io::Error>(None);
                        }
                        sent.store(at, Ordering::Relaxed);
                        let (source, length) = (Arc::clone(&file), (size - at).min(CHUNK));
                        let read = move || {
                            let mut chunk = vec![0; length as usize];
                            source.read_exact_at(&mut chunk, at).map(|()| chunk)
                        };
                        let chunk = tokio::task::spawn_blocking(read).await.map_err(std::io::Error::other)??;
                        Ok(Some((chunk, (file, size, at + length))))
                    }
                }))
            }
        }
    }
}

/// Why a file could not be written.
#[derive(Debug)]
pub(super) struct PutFailure {
    pub(super) failure: Failure,
    /// The status that says so for good; `None` if another time may be better.
    pub(super) refused: Option<u16>,
}

impl HttpCache {
    /// Whether a file of this size is there; no answer counts as "not".
    pub(super) async fn has(&self, name: &str, size: u64) -> bool {
        matches!(self.fetch(Method::HEAD, name, 0, 1).await, Fetched::Found(file) if file.may_have(size))
    }

    /// Writes a file, with all the attempts that it takes. How long that may be is counted in waits, so that a large
    /// file on a slow line has all the time that it needs. Once patience has come to its end, other files are tried
    /// once each until one gets through.
    pub(super) async fn put(
        &self,
        name: &str,
        mime: &'static str,
        content: &Content,
        patience: Patience,
    ) -> Result<(), PutFailure> {
        let Ok(url) = self.base.join(name) else {
            return Err(PutFailure {
                failure: no_answer(Class::Cache, format!("'{name}' is no URL")),
                refused: Some(0),
            });
        };
        let mut tries = Tries::default();
        loop {
            let hopeless = self.hopeless.load(Ordering::Relaxed);
            // Large NARs are few at a time anyway, and one would keep questions waiting.
            let place = match content {
                Content::Bytes(_) | Content::Pieces(..) => self.gate.enter().await,
                Content::File(..) => None,
            };
            let passing = (mime == NAR).then(|| self.link.passing());
            let outcome = self.put_once(&url, mime, content, patience.stall).await;
            if let Some(passing) = passing
                && matches!(outcome, Outcome::Found(_) | Outcome::Missing)
            {
                passing.took(content.len(), self.pace());
            }
            let (failure, throttled, floor) = match outcome {
                Outcome::Found(_) | Outcome::Missing => {
                    self.answered();
                    self.hopeless.store(false, Ordering::Relaxed);
                    return Ok(());
                }
                Outcome::Refused { failure, status } => return Err(PutFailure { failure, refused: Some(status) }),
                Outcome::Again { failure, throttled, floor, .. } => (failure, throttled, floor),
            };
            if throttled {
                self.gate.throttled(place);
            } else {
                drop(place);
            }
            let Some(wait) = tries.again(patience, throttled, floor, hopeless) else {
                self.hopeless.store(true, Ordering::Relaxed);
                let failure = told(&failure, tries.count(), tries.waited());
                return Err(PutFailure { failure, refused: None });
            };
            let count = tries.count();
            tracing::debug!(cache = %self.shown, path = url.path(), count, why = %failure.message, "writing again");
            self.repeats.note(&self.shown, &failure, wait);
            tokio::time::sleep(wait).await;
        }
    }

    async fn put_once(&self, url: &Url, mime: &'static str, content: &Content, stall: Duration) -> Outcome {
        let sent = Arc::new(AtomicU64::new(0));
        let request = self.client.put(url.clone()).header(CONTENT_TYPE, mime).header(CONTENT_LENGTH, content.len());
        self.put_body(url, request.body(content.body(Arc::clone(&sent))), &sent, stall).await
    }

    /// Sends one request that writes, whose body counts in `sent` what is taken.
    pub(super) async fn put_body(
        &self,
        url: &Url,
        request: RequestBuilder,
        sent: &AtomicU64,
        stall: Duration,
    ) -> Outcome {
        self.requests.fetch_add(1, Ordering::Relaxed);
        let sending = self.request(request);
        let mut response = match watched(sending, sent, stall).await {
            Some(Ok(response)) => response,
            Some(Err(error)) => return broken(error),
            None => {
                let failure = no_answer(Class::Network, format!("it took nothing for {} s", stall.as_secs()));
                return Outcome::Again { failure, throttled: false, floor: None, timed_out: true };
            }
        };
        let outcome = judged(&response, url);
        drain(&mut response, stall).await;
        outcome
    }
}

/// Writes a NAR into a temporary file without a name, so that nothing is left behind whatever happens.
pub(super) async fn spooled(mut spool: File, mut nar: NarStream) -> Result<(File, Packed), PutError> {
    let written = tokio::task::spawn_blocking(move || {
        while let Some(chunk) = nar.chunk_blocking() {
            spool.write_all(&chunk).map_err(no_room)?;
        }
        Ok::<_, std::io::Error>((spool, nar))
    });
    let (spool, nar) = written.await.map_err(std::io::Error::other)??;
    Ok((spool, nar.end().await?))
}

/// A full disk here is not a full cache.
pub(super) fn no_room(error: std::io::Error) -> std::io::Error {
    std::io::Error::new(error.kind(), format!("the directory for temporary files (TMPDIR): {error}"))
}

/// The answer, or nothing if no byte moves for so long.
pub(super) async fn watched<T>(sending: impl Future<Output = T>, sent: &AtomicU64, stall: Duration) -> Option<T> {
    let mut sending = std::pin::pin!(sending);
    loop {
        let before = sent.load(Ordering::Relaxed);
        match tokio::time::timeout(stall, &mut sending).await {
            Ok(answer) => return Some(answer),
            Err(_) if sent.load(Ordering::Relaxed) != before => {}
            Err(_) => return None,
        }
    }
}

/// What the status says. Those that Nix takes for success are; one that came from elsewhere (a redirect turns the
/// request into a mere question) is not.
fn judged(response: &Response, asked: &Url) -> Outcome {
    let status = response.status();
    match status.as_u16() {
        200 | 201 | 204 | 206 | 304 if response.url() == asked => Outcome::Found(HttpFile::default()),
        code @ (200 | 201 | 204 | 206 | 300..=399) => {
            let failure = no_answer(Class::Cache, "it sends uploads elsewhere (a redirect)");
            Outcome::Refused { failure, status: code }
        }
        507 => Outcome::Refused { failure: no_answer(Class::DiskFull, "it is full (HTTP status 507)"), status: 507 },
        413 => {
            let failure = no_answer(Class::Cache, "it takes no file of that size (HTTP status 413)");
            Outcome::Refused { failure, status: 413 }
        }
        _ => bad_status(status, response.headers()),
    }
}

async fn drain(response: &mut Response, stall: Duration) {
    let read = async {
        let mut read = 0;
        while let Ok(Some(chunk)) = response.chunk().await {
            read += chunk.len();
            if read > ANSWER {
                break;
            }
        }
    };
    let _ = tokio::time::timeout(stall, read).await;
}

/// `HTTP status 429, 9 tries, gave up after waiting 4m51s`.
pub(super) fn told(failure: &Failure, tries: u32, waited: Duration) -> Failure {
    let mut text = failure.message.to_string();
    if tries > 1 {
        text.push_str(&format!(", {tries} tries"));
    }
    match waited.as_secs() {
        0 => {}
        seconds => text.push_str(&format!(", gave up after waiting {}m{:02}s", seconds / 60, seconds % 60)),
    }
    Failure { message: text.into(), ..failure.clone() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn giving_up_is_told_with_its_numbers() {
        let failure = no_answer(Class::Cache, "HTTP status 429");
        assert_eq!(&*told(&failure, 1, Duration::ZERO).message, "HTTP status 429");
        let late = told(&failure, 9, Duration::from_secs(291));
        assert_eq!(&*late.message, "HTTP status 429, 9 tries, gave up after waiting 4m51s");
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_upload_is_no_stalled_one() {
        let sent = AtomicU64::new(0);
        let second = Duration::from_secs(1);
        let slow = async {
            for at in 1..10 {
                tokio::time::sleep(second / 2).await;
                sent.store(at, Ordering::Relaxed);
            }
        };
        assert_eq!(watched(slow, &sent, second).await, Some(()));
        assert_eq!(watched(std::future::pending::<()>(), &sent, second).await, None);
    }
}
