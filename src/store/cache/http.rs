//! A cache on a server (`http://`, `https://`): many small requests in flight, tried again with patience.
//!
//! Statuses: 404 and 410 are "absent"; a 403 that looks like a bucket which may not be listed too, as in Nix; any
//! other 401, 403 and 407 is a refused login; 408, 429, 5xx and what S3 calls passing are tried again.

mod ask;
mod decode;
mod lanes;

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use futures_util::Stream;
use reqwest::header::{CONTENT_ENCODING, CONTENT_LENGTH, DATE, HeaderMap, RETRY_AFTER};
use reqwest::{Client, Method, RequestBuilder, Response, StatusCode, Url};
use tokio_util::bytes::Bytes;

use self::ask::Judge;
use self::decode::decode;
use self::lanes::Lanes;
use super::OpenContext;
use super::answer::no_answer;
use super::engine::Engine;
use super::error::CacheError;
use super::gate::{Door, Gate};
use super::info::{self, CacheInfo};
use super::link::Link;
use super::login::Auth;
use super::put::{Content, PutFailure};
use super::repeats::Repeats;
use super::retry::{Health, Pace, Patience};
use super::s3;
use super::upload::Manners;
use crate::event::{Class, Failure};
use crate::store::stopwatch::Stopwatch;

/// Longest wait that a server can ask for.
pub(super) const LONGEST_RETRY_AFTER: Duration = Duration::from_secs(120);

/// How often a request that the server never looked at is sent again at once.
const UNSEEN: u32 = 20;

/// A binary cache on a server.
pub(super) struct HttpCache {
    /// For what is read and written whole.
    pub(super) client: Client,
    /// For questions.
    lanes: Lanes,
    engine: Engine,
    judge: Judge,
    pub(super) base: Url,
    pub(super) shown: String,
    pub(super) auth: Auth,
    pub(super) patience: Patience,
    pub(super) gate: Gate,
    health: Health,
    /// The server does not know HEAD.
    headless: AtomicBool,
    pace: Pace,
    /// All patience for writing a file has been used up, and nothing was written since.
    pub(super) hopeless: AtomicBool,
    pub(super) manners: Manners,
    /// For NARs.
    pub(super) link: Link,
    pub(super) requests: AtomicU64,
    pub(super) repeats: Repeats,
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
pub(super) fn not_well(url: String, failure: &Failure, what: String) -> CacheError {
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
            lanes: Lanes::new(&base, shown, context, patience.connect)?,
            engine: context.engine.clone(),
            judge: Judge::default(),
            base,
            shown: shown.to_owned(),
            auth,
            patience,
            gate: Gate::new(context.connections),
            health: Health::default(),
            headless: AtomicBool::new(false),
            pace: Pace::default(),
            hopeless: AtomicBool::new(false),
            manners: Manners::default(),
            link: Link::default(),
            requests: AtomicU64::new(0),
            repeats: context.repeats.clone(),
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
        let (engine, shown, context) = (context.engine.clone(), shown.to_owned(), context.clone());
        // On that thread, since its connection is used for what is asked later.
        let ended = CacheError::Unreachable { url: shown.clone(), why: "opening it ended".to_owned() };
        let opened = engine.run(async move {
            let cache = Self::new(base, auth, &shown, &context, patience)?;
            let info = cache.open_here(&context, write).await?;
            Ok((cache, info))
        });
        opened.await.ok_or(ended)?
    }

    /// The same with what is known by then.
    async fn open_here(&self, context: &OpenContext, write: bool) -> Result<CacheInfo, CacheError> {
        let url = || self.shown.clone();
        let (text, new) = match self.fetch(Method::GET, info::NAME, info::MAX_SIZE, self.patience.attempts).await {
            Fetched::Found(file) => (file.body, false),
            Fetched::Missing if write => (CacheInfo::new_file(context.store_dir.as_str()).into_bytes(), true),
            Fetched::Missing => return Err(CacheError::NotACache { url: url() }),
            Fetched::Refused(_, status @ (401 | 403 | 407)) => {
                return Err(CacheError::Denied { url: url(), status, login: self.auth.source.clone(), push: write });
            }
            Fetched::Refused(failure, _) | Fetched::NoAnswer(failure) => {
                return Err(not_well(url(), &failure, String::new()));
            }
        };
        let info = CacheInfo::parse(&text).map_err(|why| CacheError::Url { url: url(), why })?;
        let fits = info.store_dir.as_ref().is_none_or(|theirs| theirs == context.store_dir.as_str());
        if write && fits {
            self.probe(text, new).await?;
        }
        Ok(info)
    }

    /// Whether files can be written. Statuses that say "never" are a refusal; all else may be better another time.
    async fn probe(&self, info: Vec<u8>, new: bool) -> Result<(), CacheError> {
        let url = self.shown.clone();
        match self.put(info::NAME, info::MIME, &Content::Bytes(info), self.patience.brief()).await {
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

    /// Whether it seems to be down.
    pub(super) fn is_down(&self) -> bool {
        self.health.is_down()
    }

    /// How long it takes to answer; zero while that is not known.
    pub(super) fn pace(&self) -> Duration {
        self.pace.get()
    }

    /// Begins to download a file; its bytes as they come, each within the time for an answer.
    pub(super) async fn stream(&self, name: &str) -> Result<impl Stream<Item = io::Result<Bytes>> + use<>, Failure> {
        let url = self.base.join(name).map_err(|_| no_answer(Class::Cache, format!("'{name}' is no URL")))?;
        self.requests.fetch_add(1, Ordering::Relaxed);
        let patience = self.patience.answer;
        let late = move || no_answer(Class::Network, format!("no answer within {} s", patience.as_secs()));
        let response = match tokio::time::timeout(patience, self.request(self.client.get(url))).await {
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

    /// Sends a request with the login.
    pub(super) async fn request(&self, request: RequestBuilder) -> reqwest::Result<Response> {
        self.auth.send(&self.client, &self.base, request).await
    }

    /// One file, with all the attempts that it takes.
    pub(super) async fn fetch(&self, method: Method, name: &str, limit: usize, attempts: u32) -> Fetched {
        self.fetch_by(&Door::default(), method, name, limit, attempts).await
    }

    /// The same, after those who came by the same door.
    async fn fetch_by(&self, door: &Door, method: Method, name: &str, limit: usize, attempts: u32) -> Fetched {
        let Ok(url) = self.base.join(name) else {
            return Fetched::Refused(no_answer(Class::Cache, format!("'{name}' is no URL")), 0);
        };
        let mut last = None;
        let tries = self.try_often(door, (&method, &url, limit), attempts, &mut last);
        if let Ok(fetched) = tokio::time::timeout(self.patience.path, tries).await {
            return fetched;
        }
        self.health.gave_up();
        let waited = self.patience.path.as_secs();
        Fetched::NoAnswer(last.unwrap_or_else(|| no_answer(Class::Network, format!("no answer within {waited} s"))))
    }

    async fn try_often(
        &self,
        door: &Door,
        (method, url, limit): (&Method, &Url, usize),
        attempts: u32,
        last: &mut Option<Failure>,
    ) -> Fetched {
        let mut attempt = 0;
        loop {
            let place = self.gate.enter_by(door).await;
            if attempt < attempts && attempts > 1 && self.health.is_down() {
                return Fetched::NoAnswer(last.take().unwrap_or_else(ask::down));
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
            let wait = self.patience.wait(attempt, throttled, floor);
            self.repeats.note(&self.shown, &failure, wait);
            *last = Some(failure);
            tokio::time::sleep(wait).await;
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
        let mut response = match self.question(method, &url).await {
            Ok(response) => response,
            Err(error) => return broken(error),
        };
        let status = response.status();
        if may_be_s3(status)
            && let Some(code) = s3_code(&mut response).await
        {
            self.auth.heard(response.headers(), Some(&code));
            if S3_AGAIN.contains(&&*code) {
                let failure = no_answer(Class::Cache, format!("HTTP status {}, {code}", status.as_u16()));
                let floor = retry_after(response.headers()).map(|floor| floor.min(LONGEST_RETRY_AFTER));
                return Outcome::Again { failure, throttled: true, floor, timed_out: false };
            }
            if s3::is_of_keys(&code) {
                let failure = no_answer(Class::Cache, format!("it refused the keys ({code})"));
                return Outcome::Refused { failure, status: status.as_u16() };
            }
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

    /// Sends a question. One that the server has not looked at (a connection that it wanted to close, a stream too
    /// many) is sent again at once; one that asks a server for the head of a file is put in another way where it knows
    /// no such questions.
    async fn question(&self, mut method: Method, url: &Url) -> reqwest::Result<Response> {
        let mut unseen = 0;
        loop {
            if method == Method::HEAD && self.headless.load(Ordering::Relaxed) {
                method = Method::GET;
            }
            let (seat, watch) = (self.lanes.take(), Stopwatch::start());
            let request = seat.client().request(method.clone(), url.clone());
            match self.auth.send(seat.client(), &self.base, request).await {
                Ok(response) => {
                    self.lanes.speaks(response.version());
                    self.pace.note(watch.elapsed());
                    let unknown = matches!(response.status().as_u16(), 405 | 501);
                    if !(unknown && method == Method::HEAD) {
                        return Ok(response);
                    }
                    self.headless.store(true, Ordering::Relaxed);
                }
                Err(error) => {
                    let refusal = refusal(&error);
                    if refusal == Some(Refusal::Closing) {
                        self.lanes.closes(&seat);
                    }
                    if refusal == Some(Refusal::TooMany) {
                        self.gate.throttled(None);
                    }
                    if refusal.is_none() || unseen >= UNSEEN {
                        return Err(error);
                    }
                    unseen += 1;
                }
            }
            self.requests.fetch_add(1, Ordering::Relaxed);
        }
    }
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
async fn s3_code(response: &mut Response) -> Option<String> {
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

/// Why a server did not look at a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Refusal {
    /// It closes the connection, in good order.
    Closing,
    /// There were too many on this connection.
    TooMany,
}

/// Whether the server says that it has not looked at the request (RFC 9113 §8.7): GOAWAY and REFUSED_STREAM.
fn refusal(error: &reqwest::Error) -> Option<Refusal> {
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref::<h2::Error>() {
            return match error.reason()? {
                h2::Reason::NO_ERROR if error.is_go_away() => Some(Refusal::Closing),
                h2::Reason::REFUSED_STREAM => Some(Refusal::TooMany),
                h2::Reason::ENHANCE_YOUR_CALM => Some(Refusal::TooMany),
                _ => None,
            };
        }
        cause = error.source();
    }
    None
}

/// The client for one cache.
pub(super) fn client(base: &Url, shown: &str, context: &OpenContext, connect: Duration) -> Result<Client, CacheError> {
    client_for(base, shown, context, connect, false)
}

/// The same: rustls with ring, installed by hand for the whole process, once. `shares`: the server is known to speak
/// HTTP/2, so that all requests wait for one connection.
fn client_for(
    base: &Url,
    shown: &str,
    context: &OpenContext,
    connect: Duration,
    shares: bool,
) -> Result<Client, CacheError> {
    // An error means that a provider is installed already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let tls = |why: String| CacheError::Tls { url: shown.to_owned(), why };
    let builder = || {
        let builder = Client::builder();
        let builder = if shares { builder.http2_prior_knowledge() } else { builder };
        builder
            .user_agent(concat!("drover/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(connect)
            .tcp_nodelay(true)
            .http2_adaptive_window(true)
            .referer(false)
    };
    let read = |file: &std::path::PathBuf| {
        let pem = std::fs::read(file).map_err(|source| CacheError::Io { act: "read", path: file.clone(), source })?;
        reqwest::Certificate::from_pem_bundle(&pem).map_err(|error| tls(crate::error::chain(&error)))
    };
    // A machine without certificates can still use a cache that needs none.
    let needs_none = base.scheme() == "http";
    let built = match context.ca_file.as_ref().map(read) {
        Some(Err(error)) if !needs_none => return Err(error),
        Some(certs) => builder().tls_certs_only(certs.unwrap_or_default()).build(),
        None => builder().build(),
    };
    match built {
        Err(_) if needs_none => builder().tls_certs_only([]).build(),
        other => other,
    }
    .map_err(|error| tls(crate::error::chain(&error)))
}

#[cfg(test)]
mod tests {
    use reqwest::header::HeaderValue;

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
}
