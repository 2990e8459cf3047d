//! A cache on a server (`http://`, `https://`): many small requests in flight, tried again with patience.
//!
//! Statuses: 404 and 410 are "absent"; a 403 that looks like a bucket which may not be listed too, as in Nix; any
//! other 401, 403 and 407 is a refused login; 408, 429, 5xx and what S3 calls passing are tried again.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use futures_util::stream::FuturesUnordered;
use futures_util::{Stream, StreamExt as _};
use reqwest::header::{AUTHORIZATION, CONTENT_ENCODING, CONTENT_LENGTH, DATE, HeaderMap, HeaderValue, RETRY_AFTER};
use reqwest::{Client, Method, StatusCode, Url};
use tokio_util::bytes::Bytes;

use super::answer::{Trust, narinfo_name, no_answer};
use super::answers::{Paths, Pieces};
use super::error::CacheError;
use super::info::{self, CacheInfo};
use super::login::Auth;
use super::put::{Content, PutFailure};
use super::retry::{Gate, Health, Patience};
use super::{Held, OpenContext};
use crate::event::{Class, Failure};
use crate::id::StorePath;
use crate::nix_compat::narinfo::MAX_NARINFO_SIZE;

/// Longest wait that a server can ask for.
const LONGEST_RETRY_AFTER: Duration = Duration::from_secs(120);

/// Futures of one batch that exist at once; the gate bounds what is really in flight.
const WINDOW: usize = 256;

/// A binary cache on a server.
pub(super) struct HttpCache {
    pub(super) client: Client,
    pub(super) base: Url,
    pub(super) shown: String,
    pub(super) auth: Auth,
    pub(super) patience: Patience,
    pub(super) gate: Gate,
    health: Health,
    /// All patience for writing a file has been used up, and nothing was written since.
    pub(super) hopeless: AtomicBool,
    pub(super) requests: AtomicU64,
}

impl std::fmt::Debug for HttpCache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HttpCache").field("url", &self.shown).finish_non_exhaustive()
    }
}

/// A file on the server.
#[derive(Default)]
pub(super) struct File {
    pub(super) body: Vec<u8>,
    /// Its size, where only that was asked for and the server says it.
    size: Option<u64>,
}

impl File {
    /// Its size, if the server says it. One that does not know may say 0.
    pub(super) fn size(&self) -> Option<u64> {
        self.size.filter(|size| *size > 0)
    }

    /// Whether it may have this size. Servers that do not know say nothing, or 0.
    pub(super) fn may_have(&self, size: u64) -> bool {
        self.size.is_none_or(|said| said == size || said == 0)
    }
}

/// What one request came to.
pub(super) enum Outcome {
    Found(File),
    Missing,
    /// May be better next time.
    Again {
        failure: Failure,
        throttled: bool,
        floor: Option<Duration>,
        timed_out: bool,
    },
    /// Will not be better next time.
    Refused {
        failure: Failure,
        status: u16,
    },
}

/// How a request ended after all its attempts.
pub(super) enum Fetched {
    Found(File),
    Missing,
    Refused(Failure, u16),
    NoAnswer(Failure),
}

/// Why a cache cannot be used now: it is not there, or it answers and cannot.
fn not_well(url: String, failure: &Failure, what: String) -> CacheError {
    let why = what + &failure.message;
    match failure.class {
        Class::Cache => CacheError::Sick { url, why },
        _ => CacheError::Unreachable { url, why },
    }
}

impl HttpCache {
    /// A server as it is, of which nothing is known yet.
    pub(super) fn new(
        base: Url,
        auth: Auth,
        shown: &str,
        context: &OpenContext,
        patience: Patience,
    ) -> Result<Self, CacheError> {
        Ok(Self {
            client: client(&base, shown, context, patience.connect)?,
            base,
            shown: shown.to_owned(),
            auth,
            patience,
            gate: Gate::new(context.connections),
            health: Health::default(),
            hopeless: AtomicBool::new(false),
            requests: AtomicU64::new(0),
        })
    }

    /// Connects and reads `nix-cache-info`. One that is to be written to gets that very file back, or a new one where
    /// it has none, so that a refused login is found out before anything else is done.
    pub(super) async fn open(
        base: Url,
        auth: Auth,
        shown: &str,
        context: &OpenContext,
        patience: Patience,
        write: bool,
    ) -> Result<(Self, CacheInfo), CacheError> {
        let cache = Self::new(base, auth, shown, context, patience)?;
        let url = || shown.to_owned();
        let (text, new) = match cache.fetch(Method::GET, info::NAME, info::MAX_SIZE, patience.attempts).await {
            Fetched::Found(file) => (file.body, false),
            Fetched::Missing if write => (CacheInfo::new_file(context.store_dir.as_str()).into_bytes(), true),
            Fetched::Missing => return Err(CacheError::NotACache { url: url() }),
            Fetched::Refused(_, status @ (401 | 403 | 407)) => {
                return Err(CacheError::Denied { url: url(), status, login: cache.auth.source, push: write });
            }
            Fetched::Refused(failure, _) | Fetched::NoAnswer(failure) => {
                return Err(not_well(url(), &failure, String::new()));
            }
        };
        let info = CacheInfo::parse(&text).map_err(|why| CacheError::Url { url: url(), why })?;
        let fits = info.store_dir.as_ref().is_none_or(|theirs| theirs == context.store_dir.as_str());
        if write && fits {
            cache.probe(text, new).await?;
        }
        Ok((cache, info))
    }

    /// Whether files can be written. Statuses that say "never" are a refusal; all else may be better another time.
    async fn probe(&self, info: Vec<u8>, new: bool) -> Result<(), CacheError> {
        let url = self.shown.clone();
        let patience = Patience {
            push: self.patience.path,
            stall: self.patience.answer,
            rate_limited_attempts: self.patience.attempts.min(self.patience.rate_limited_attempts),
            ..self.patience
        };
        match self.put(info::NAME, info::MIME, &Content::Bytes(info), patience).await {
            Ok(()) => Ok(()),
            Err(PutFailure { refused: Some(status @ (401 | 403 | 407)), .. }) => {
                Err(CacheError::Denied { url, status, login: self.auth.source.clone(), push: true })
            }
            // A server that has none and takes none is something else.
            Err(PutFailure { refused: Some(404 | 405 | 410 | 501), .. }) if new => Err(CacheError::NotACache { url }),
            Err(PutFailure { refused: Some(status @ (404 | 405 | 410 | 501)), .. }) => {
                Err(CacheError::ReadOnly { url, status, login: self.auth.source.clone() })
            }
            Err(PutFailure { failure, .. }) => Err(not_well(url, &failure, "it takes no uploads: ".to_owned())),
        }
    }

    /// Requests sent so far, attempts counted one by one.
    pub(super) fn requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }

    /// Answers for all paths, as they come. If the cache seems to be down, one path is asked first, once.
    pub(super) async fn ask(self: Arc<Self>, trust: Arc<Trust>, paths: Paths, pieces: Pieces) {
        let mut next = 0;
        if self.health.is_down()
            && let Some(first) = paths.first()
        {
            let record = self.record(first, 1).await;
            let _ = pieces.send(vec![(0, trust.answer(first, record))]);
            next = 1;
        }
        let read = |at: usize| {
            let running = self.record(&paths[at], self.patience.attempts);
            async move { (at, running.await) }
        };
        let records = futures_util::stream::iter((next..paths.len()).map(read)).buffer_unordered(WINDOW);
        let mut records = std::pin::pin!(records.ready_chunks(WINDOW));
        while let Some(records) = records.next().await {
            let (trust, paths, pieces) = (Arc::clone(&trust), Arc::clone(&paths), pieces.clone());
            // Signatures are checked beside the asking.
            tokio::task::spawn_blocking(move || {
                let judge = |(at, record)| (at, trust.answer(&paths[at], record));
                let _ = pieces.send(records.into_iter().map(judge).collect());
            });
        }
    }

    /// Reads the records of all paths, and asks for their NARs.
    pub(super) async fn inspect(&self, trust: &Trust, paths: &[StorePath]) -> Vec<Result<Option<Held>, Failure>> {
        in_order(paths.len(), |at| self.inspect_one(trust, &paths[at])).await
    }

    async fn inspect_one(&self, trust: &Trust, path: &StorePath) -> Result<Option<Held>, Failure> {
        let Some(body) = self.record(path, self.patience.attempts).await? else { return Ok(None) };
        let info = Box::new(trust.read(path, &body)?);
        let nar = match self.fetch(Method::HEAD, info.url(), 0, self.patience.attempts).await {
            Fetched::Found(file) => info.file_size().is_none_or(|size| file.may_have(size)),
            Fetched::Missing => false,
            Fetched::Refused(failure, _) | Fetched::NoAnswer(failure) => return Err(failure),
        };
        Ok(Some(Held { info, nar }))
    }

    /// Begins to download a file; its bytes as they come, each within the time for an answer.
    pub(super) async fn stream(&self, name: &str) -> Result<impl Stream<Item = io::Result<Bytes>> + use<>, Failure> {
        let url = self.base.join(name).map_err(|_| no_answer(Class::Cache, format!("'{name}' is no URL")))?;
        let mut request = self.client.get(url);
        // What a record names may be on another host, which has no business with this one's login.
        if let Some(auth) = self.auth.header.as_ref().filter(|_| same_host(&self.base, name)) {
            request = request.header(AUTHORIZATION, auth.clone());
        }
        self.requests.fetch_add(1, Ordering::Relaxed);
        let patience = self.patience.answer;
        let late = move || no_answer(Class::Network, format!("no answer within {} s", patience.as_secs()));
        let response = match tokio::time::timeout(patience, request.send()).await {
            Ok(Ok(response)) => response,
            Ok(Err(error)) => return Err(no_answer(Class::Network, crate::error::chain(&error.without_url()))),
            Err(_) => return Err(late()),
        };
        if !response.status().is_success() {
            return Err(no_answer(Class::Cache, format!("HTTP status {} for {name}", response.status().as_u16())));
        }
        Ok(futures_util::stream::unfold(Some(response), move |response| async move {
            let mut response = response?;
            match tokio::time::timeout(patience, response.chunk()).await {
                Ok(Ok(chunk)) => Some((Ok(chunk?), Some(response))),
                Ok(Err(error)) => Some((Err(io::Error::other(error.without_url())), None)),
                Err(_) => Some((Err(io::Error::from(io::ErrorKind::TimedOut)), None)),
            }
        }))
    }

    /// The body of a path's record.
    async fn record(&self, path: &StorePath, attempts: u32) -> Result<Option<Vec<u8>>, Failure> {
        match self.fetch(Method::GET, &narinfo_name(path), MAX_NARINFO_SIZE, attempts).await {
            Fetched::Found(file) => Ok(Some(file.body)),
            Fetched::Missing => Ok(None),
            Fetched::Refused(failure, _) | Fetched::NoAnswer(failure) => Err(failure),
        }
    }

    /// One file, with all the attempts that it takes.
    pub(super) async fn fetch(&self, method: Method, name: &str, limit: usize, attempts: u32) -> Fetched {
        let Ok(url) = self.base.join(name) else {
            return Fetched::Refused(no_answer(Class::Cache, format!("'{name}' is no URL")), 0);
        };
        let mut last = None;
        let tries = self.try_often(&method, &url, limit, attempts, &mut last);
        if let Ok(fetched) = tokio::time::timeout(self.patience.path, tries).await {
            return fetched;
        }
        self.health.gave_up();
        let waited = self.patience.path.as_secs();
        Fetched::NoAnswer(last.unwrap_or_else(|| no_answer(Class::Network, format!("no answer within {waited} s"))))
    }

    async fn try_often(
        &self,
        method: &Method,
        url: &Url,
        limit: usize,
        attempts: u32,
        last: &mut Option<Failure>,
    ) -> Fetched {
        let mut attempt = 0;
        loop {
            let place = self.gate.enter().await;
            if attempt < attempts && attempts > 1 && self.health.is_down() {
                let why = || no_answer(Class::Network, "it seems to be down: several requests got no answer");
                return Fetched::NoAnswer(last.take().unwrap_or_else(why));
            }
            attempt += 1;
            let (failure, throttled, floor) = match self.try_once(method.clone(), url.clone(), limit).await {
                Outcome::Found(file) => {
                    self.answered();
                    return Fetched::Found(file);
                }
                Outcome::Missing => {
                    self.answered();
                    return Fetched::Missing;
                }
                Outcome::Refused { failure, status } => return Fetched::Refused(failure, status),
                Outcome::Again { failure, throttled, floor, timed_out } => {
                    if timed_out {
                        self.health.timed_out();
                    }
                    (failure, throttled, floor)
                }
            };
            if throttled {
                self.gate.throttled(place);
            } else {
                drop(place);
            }
            if attempt >= attempts {
                self.health.gave_up();
                return Fetched::NoAnswer(failure);
            }
            tracing::debug!(cache = %self.shown, path = url.path(), attempt, why = %failure.message, "trying again");
            *last = Some(failure);
            tokio::time::sleep(self.patience.wait(attempt, throttled, floor)).await;
        }
    }

    pub(super) fn answered(&self) {
        self.gate.answered();
        self.health.answered();
    }

    async fn try_once(&self, method: Method, url: Url, limit: usize) -> Outcome {
        self.requests.fetch_add(1, Ordering::Relaxed);
        match tokio::time::timeout(self.patience.answer, self.exchange(method, url, limit)).await {
            Ok(outcome) => outcome,
            Err(_) => {
                let waited = self.patience.answer.as_secs();
                let failure = no_answer(Class::Network, format!("no answer within {waited} s"));
                Outcome::Again { failure, throttled: false, floor: None, timed_out: true }
            }
        }
    }

    async fn exchange(&self, method: Method, url: Url, limit: usize) -> Outcome {
        let only_size = method == Method::HEAD;
        let mut request = self.client.request(method, url);
        if let Some(auth) = &self.auth.header {
            request = request.header(AUTHORIZATION, auth.clone());
        }
        let mut response = match request.send().await {
            Ok(response) => response,
            Err(error) => return broken(error),
        };
        let status = response.status();
        if may_be_s3(status)
            && let Some(code) = s3_code(&mut response).await.filter(|code| S3_AGAIN.contains(&&**code))
        {
            let failure = no_answer(Class::Cache, format!("HTTP status {}, {code}", status.as_u16()));
            let floor = retry_after(response.headers()).map(|floor| floor.min(LONGEST_RETRY_AFTER));
            return Outcome::Again { failure, throttled: true, floor, timed_out: false };
        }
        match status {
            StatusCode::NOT_FOUND | StatusCode::GONE => return Outcome::Missing,
            StatusCode::FORBIDDEN if is_unlisted_bucket(response.headers()) => return Outcome::Missing,
            status if status.is_success() => {}
            status => return bad_status(status, response.headers()),
        }
        if only_size {
            let size = response.headers().get(CONTENT_LENGTH).and_then(|size| size.to_str().ok()?.parse().ok());
            return Outcome::Found(File { body: Vec::new(), size });
        }
        let encoding = response.headers().get(CONTENT_ENCODING).cloned();
        let mut body = Vec::new();
        loop {
            match response.chunk().await {
                Ok(Some(chunk)) if body.len() + chunk.len() > limit => return garbage("its answer is too long"),
                Ok(Some(chunk)) => body.extend_from_slice(&chunk),
                Ok(None) => break,
                Err(error) => return broken(error),
            }
        }
        match decode(encoding.as_ref(), body, limit) {
            Ok(body) => Outcome::Found(File { body, size: None }),
            Err(why) => garbage(&why),
        }
    }
}

/// Runs `start(0)` … `start(count - 1)`, a window at a time, and gives the results in that order.
async fn in_order<F: Future>(count: usize, start: impl Fn(usize) -> F) -> Vec<F::Output> {
    let numbered = |at: usize| {
        let running = start(at);
        async move { (at, running.await) }
    };
    let mut running: FuturesUnordered<_> = (0..count.min(WINDOW)).map(numbered).collect();
    let mut next = running.len();
    let mut results = Vec::with_capacity(count);
    while let Some(result) = running.next().await {
        results.push(result);
        if next < count {
            running.push(numbered(next));
            next += 1;
        }
    }
    results.sort_unstable_by_key(|(at, _)| *at);
    results.into_iter().map(|(_, result)| result).collect()
}

/// Whether a URL, which may be relative, stays with this server.
fn same_host(base: &Url, name: &str) -> bool {
    base.join(name).is_ok_and(|url| url.origin() == base.origin())
}

/// A bucket that may be read but not listed says 403 for what is not there.
fn is_unlisted_bucket(headers: &HeaderMap) -> bool {
    headers.contains_key("x-amz-request-id")
}

/// Errors of S3 that pass, whatever the status.
pub(super) const S3_AGAIN: [&str; 6] =
    ["SlowDown", "InternalError", "RequestTimeout", "RequestTimeTooSkewed", "Throttling", "ThrottlingException"];

/// Most bytes of an error's body that are read.
const ERROR_SIZE: usize = 8 << 10;

fn may_be_s3(status: StatusCode) -> bool {
    matches!(status.as_u16(), 400 | 403 | 500 | 503)
}

/// The code of an error of S3: `<Error>…<Code>SlowDown</Code>…`. `None` where the body is something else.
async fn s3_code(response: &mut reqwest::Response) -> Option<String> {
    let mut body = Vec::new();
    while let Ok(Some(chunk)) = response.chunk().await {
        body.extend_from_slice(&chunk[..chunk.len().min(ERROR_SIZE - body.len())]);
        if body.len() == ERROR_SIZE {
            break;
        }
    }
    let text = String::from_utf8_lossy(&body);
    let error = text.split_once("<Error>")?.1;
    Some(error.split_once("<Code>")?.1.split_once("</Code>")?.0.trim().to_owned())
}

fn garbage(why: &str) -> Outcome {
    Outcome::Refused { failure: no_answer(Class::Cache, why), status: 200 }
}

/// A transport error. The URL, which may say more than people should see, is left out.
pub(super) fn broken(error: reqwest::Error) -> Outcome {
    let timed_out = error.is_timeout();
    let failure = no_answer(Class::Network, crate::error::chain(&error.without_url()));
    Outcome::Again { failure, throttled: false, floor: None, timed_out }
}

pub(super) fn bad_status(status: StatusCode, headers: &HeaderMap) -> Outcome {
    let code = status.as_u16();
    let failure = |text: String| no_answer(Class::Cache, text);
    match code {
        401 | 403 | 407 => {
            Outcome::Refused { failure: failure(format!("it refused the login (HTTP status {code})")), status: code }
        }
        408 | 429 => again(code, headers),
        501 | 505 | 511 => Outcome::Refused { failure: failure(format!("HTTP status {code}")), status: code },
        500..=599 => again(code, headers),
        _ => Outcome::Refused { failure: failure(format!("HTTP status {code}")), status: code },
    }
}

fn again(code: u16, headers: &HeaderMap) -> Outcome {
    let floor = retry_after(headers).map(|floor| floor.min(LONGEST_RETRY_AFTER));
    let failure = no_answer(Class::Cache, format!("HTTP status {code}"));
    Outcome::Again { failure, throttled: matches!(code, 429 | 503), floor, timed_out: false }
}

/// `Retry-After` in seconds, or as a date, which is compared with the server's own clock.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = |text: &str| jiff::fmt::rfc2822::parse(text).ok().map(|date| date.timestamp().as_second());
    let until = date(text)? - date(headers.get(DATE)?.to_str().ok()?)?;
    u64::try_from(until).ok().map(Duration::from_secs)
}

/// Undoes a `Content-Encoding`; caches may store their records compressed (`narinfo-compression`).
fn decode(encoding: Option<&HeaderValue>, body: Vec<u8>, limit: usize) -> Result<Vec<u8>, String> {
    use std::io::Read as _;
    match encoding.map(HeaderValue::as_bytes) {
        None | Some(b"" | b"identity") => Ok(body),
        Some(b"zstd") => {
            let mut plain = Vec::new();
            zstd::Decoder::new(body.as_slice())
                .and_then(|decoder| decoder.take(limit as u64 + 1).read_to_end(&mut plain))
                .map_err(|error| format!("its answer is no zstd: {error}"))?;
            if plain.len() > limit { Err("its answer is too long".to_owned()) } else { Ok(plain) }
        }
        Some(other) => Err(format!("its answer is compressed with '{}'", String::from_utf8_lossy(other))),
    }
}

/// The client for one cache: rustls with ring, installed by hand for the whole process, once.
pub(super) fn client(base: &Url, shown: &str, context: &OpenContext, connect: Duration) -> Result<Client, CacheError> {
    // An error means that a provider is installed already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let tls = |why: String| CacheError::Tls { url: shown.to_owned(), why };
    let builder = || {
        Client::builder()
            .user_agent(concat!("drover/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(connect)
            .tcp_nodelay(true)
            .http2_adaptive_window(true)
            .referer(false)
    };
    let built = match &context.ca_file {
        Some(file) => {
            let pem =
                std::fs::read(file).map_err(|source| CacheError::Io { act: "read", path: file.clone(), source })?;
            let certs =
                reqwest::Certificate::from_pem_bundle(&pem).map_err(|error| tls(crate::error::chain(&error)))?;
            builder().tls_certs_only(certs).build()
        }
        None => builder().build(),
    };
    match built {
        // A machine without certificates can still use a cache that needs none.
        Err(_) if base.scheme() == "http" => builder().tls_certs_only([]).build(),
        other => other,
    }
    .map_err(|error| tls(crate::error::chain(&error)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.parse().unwrap(), HeaderValue::from_static(value))).collect()
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        assert_eq!(retry_after(&headers(&[("retry-after", " 7 ")])), Some(Duration::from_secs(7)));
        let dated = [("retry-after", "Sat, 21 Nov 2026 11:00:30 GMT"), ("date", "Sat, 21 Nov 2026 11:00:00 GMT")];
        assert_eq!(retry_after(&headers(&dated)), Some(Duration::from_secs(30)));
        assert_eq!(retry_after(&headers(&dated[..1])), None);
        assert_eq!(retry_after(&headers(&[("retry-after", "soon")])), None);
    }

    #[test]
    fn encodings_are_undone_within_bounds() {
        let encode = |name: &'static str| Some(HeaderValue::from_static(name));
        let zipped = zstd::encode_all([7u8; 5000].as_slice(), 3).unwrap();
        assert_eq!(decode(encode("zstd").as_ref(), zipped.clone(), 5000).unwrap(), [7u8; 5000]);
        assert!(decode(encode("zstd").as_ref(), zipped, 4999).is_err());
        assert!(decode(encode("zstd").as_ref(), b"nonsense".to_vec(), 100).is_err());
        assert!(decode(encode("br").as_ref(), Vec::new(), 100).unwrap_err().contains("'br'"));
        assert_eq!(decode(None, b"x".to_vec(), 100).unwrap(), b"x");
    }
}
