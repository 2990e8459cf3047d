//! The service of a cache that is talked to in JSON (Attic, niks3): one login, bounded requests in flight, patience.
//!
//! A [`Call`] can be sent as often as it takes; statuses mean what they mean for a plain cache (see `http`). What the
//! service says about an error is told, short and on one line, never with the token in it. A token file is read anew
//! where the token is refused: whoever keeps it fresh may have written another one meanwhile.

use std::borrow::Cow;
use std::fs::File;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use reqwest::header::{AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use reqwest::{Body, Client, Method, Response, StatusCode, Url};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio_util::bytes::Bytes;

use super::error::CacheError;
use super::gate::Gate;
use super::http::{LONGEST_RETRY_AFTER, Outcome, S3_AGAIN, bad_status, broken, client, not_well};
use super::login::Auth;
use super::put::{self, told, watched};
use super::repeats::Repeats;
use super::retry::{Patience, Tries};
use super::sink::{Again, PutError};
use super::{LoginSource, OpenContext};
use crate::event::{Class, Failure};

/// Bytes of an answer that are read at most.
const ANSWER: usize = 64 << 20;

/// Bytes of the body of an error that are read.
const ERROR: usize = 64 << 10;

/// Characters of what a service says about an error that are told.
const WORDS: usize = 200;

/// Bytes of a body that are sent at a time.
const CHUNK: usize = 256 << 10;

/// A service.
pub(super) struct Api {
    client: Client,
    shown: String,
    auth: Auth,
    /// The token that the token file held when it was read anew.
    renewed: Mutex<Option<HeaderValue>>,
    pub(super) patience: Patience,
    gate: Gate,
    /// All patience for one call has been used up, and nothing was answered since.
    hopeless: AtomicBool,
    requests: AtomicU64,
    repeats: Repeats,
}

impl std::fmt::Debug for Api {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Api").field("url", &self.shown).finish_non_exhaustive()
    }
}

/// One request, which can be sent as often as it takes.
#[derive(Debug, Clone)]
pub(super) struct Call {
    method: Method,
    url: Url,
    headers: HeaderMap,
    body: Content,
    /// Whether the login goes along. URLs that are signed for one upload carry their own, and are for other hosts.
    login: bool,
}

/// The body of a request.
#[derive(Debug, Clone)]
enum Content {
    Bytes(Bytes),
    /// A file and its size in bytes.
    File(Arc<File>, u64),
}

impl Call {
    /// A request without a body, with the login.
    pub(super) fn new(method: Method, url: Url) -> Self {
        Self { method, url, headers: HeaderMap::new(), body: Content::Bytes(Bytes::new()), login: true }
    }

    /// An upload to a URL that was signed for it: without the login.
    pub(super) fn signed(url: Url, body: Bytes) -> Self {
        Self { login: false, ..Self::new(Method::PUT, url) }.body(body)
    }

    /// The same with a body of JSON.
    pub(super) fn json(self, body: &impl Serialize) -> Result<Self, CallFailure> {
        let body = serde_json::to_vec(body).map_err(|error| CallFailure::here(Class::Internal, error.to_string()))?;
        Ok(self.body(body.into()).header(CONTENT_TYPE, HeaderValue::from_static("application/json")))
    }

    /// The same with this body.
    pub(super) fn body(self, body: Bytes) -> Self {
        Self { body: Content::Bytes(body), ..self }
    }

    /// The same with a file of this size for a body.
    pub(super) fn file(self, file: Arc<File>, size: u64) -> Self {
        Self { body: Content::File(file, size), ..self }
    }

    /// The same with one more header.
    pub(super) fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.insert(name, value);
        self
    }
}

/// What a service answered to a call that went well.
#[derive(Debug)]
pub(super) struct Reply {
    pub(super) headers: HeaderMap,
    body: Vec<u8>,
}

impl Reply {
    /// Its body as text.
    pub(super) fn text(&self) -> Cow<'_, str> {
        String::from_utf8_lossy(&self.body)
    }

    /// Its body as JSON.
    pub(super) fn json<T: DeserializeOwned>(&self) -> Result<T, CallFailure> {
        serde_json::from_slice(&self.body)
            .map_err(|error| CallFailure::here(Class::Cache, format!("its answer is not what was expected: {error}")))
    }
}

/// Why a call came to nothing.
#[derive(Debug, Clone)]
pub(super) struct CallFailure {
    pub(super) failure: Failure,
    /// The status that says so for good; `None` if another time may be better.
    pub(super) status: Option<u16>,
    /// What S3 calls it, where that is who answered.
    pub(super) code: Option<String>,
}

impl CallFailure {
    /// A failure that no status tells, and that will not be better next time.
    pub(super) fn here(class: Class, message: impl Into<String>) -> Self {
        Self { failure: Failure::new(class, message.into()), status: Some(0), code: None }
    }
}

impl From<CallFailure> for PutError {
    fn from(failed: CallFailure) -> Self {
        Self::Server(failed.failure)
    }
}

/// What one attempt came to.
enum Tried {
    Done(Reply),
    Again { failure: Failure, throttled: bool, floor: Option<Duration> },
    Refused(CallFailure),
}

impl Api {
    /// A service that is reached with this login. `base` is any URL of it.
    pub(super) fn new(
        base: &Url,
        auth: Auth,
        shown: &str,
        context: &OpenContext,
        patience: Patience,
    ) -> Result<Self, CacheError> {
        Ok(Self {
            client: client(base, shown, context, patience.connect)?,
            shown: shown.to_owned(),
            auth,
            renewed: Mutex::default(),
            patience,
            gate: Gate::new(context.connections),
            hopeless: AtomicBool::new(false),
            requests: AtomicU64::new(0),
            repeats: context.repeats.clone(),
        })
    }

    /// Where the login comes from.
    pub(super) fn source(&self) -> &LoginSource {
        &self.auth.source
    }

    /// Why a cache cannot be used whose service answers like this when it is opened.
    pub(super) fn refusal(&self, failed: CallFailure, push: bool) -> CacheError {
        let url = self.shown.clone();
        match failed.status {
            Some(status @ (401 | 403 | 407)) => {
                CacheError::Denied { url, status, login: self.auth.source.clone(), push }
            }
            _ => not_well(url, &failed.failure, String::new()),
        }
    }

    /// Requests sent so far, attempts counted one by one.
    pub(super) fn requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }

    /// Sends a call with all the attempts that it takes. How long that may be is counted in waits, as for uploads to
    /// a plain cache. Once patience has come to its end, other calls are tried once each until one gets through.
    pub(super) async fn call(&self, call: &Call, patience: Patience) -> Result<Reply, CallFailure> {
        let mut tries = Tries::default();
        loop {
            let hopeless = self.hopeless.load(Ordering::Relaxed);
            let place = self.gate.enter().await;
            let login = self.login();
            let (failure, throttled, floor) = match self.try_once(call, patience.stall).await {
                Tried::Done(reply) => {
                    self.gate.answered();
                    self.hopeless.store(false, Ordering::Relaxed);
                    return Ok(reply);
                }
                Tried::Refused(CallFailure { status: Some(401), .. }) if call.login && self.renew(login.as_ref()) => {
                    continue;
                }
                Tried::Refused(failure) => return Err(failure),
                Tried::Again { failure, throttled, floor } => (failure, throttled, floor),
            };
            if throttled {
                self.gate.throttled(place);
            } else {
                drop(place);
            }
            let Some(wait) = tries.again(patience, throttled, floor, hopeless) else {
                self.hopeless.store(true, Ordering::Relaxed);
                let failure = told(&failure, tries.count(), tries.waited());
                return Err(CallFailure { failure, status: None, code: None });
            };
            let count = tries.count();
            tracing::debug!(cache = %self.shown, path = call.url.path(), count, why = %failure.message, "calling again");
            self.repeats.note(&self.shown, &failure, wait);
            tokio::time::sleep(wait).await;
        }
    }

    /// Sends a body that exists only once, as it comes: `length` bytes, of which `sent` counts those that were taken. What
    /// may go better the next time is [`PutError::Again`].
    pub(super) async fn stream(
        &self,
        call: &Call,
        body: Body,
        length: u64,
        sent: &AtomicU64,
    ) -> Result<Reply, PutError> {
        let login = self.login();
        let request = self.request(call).header(CONTENT_LENGTH, length).body(body);
        let again = |failure, throttled, floor| PutError::Again(Again { failure, throttled, floor });
        match self.exchange(call, request, sent, self.patience.stall).await {
            Tried::Done(reply) => Ok(reply),
            Tried::Refused(CallFailure { status: Some(401), failure, .. }) if self.renew(login.as_ref()) => {
                Err(again(failure, false, None))
            }
            Tried::Refused(failure) => Err(failure.into()),
            Tried::Again { failure, throttled, floor } => Err(again(failure, throttled, floor)),
        }
    }

    fn request(&self, call: &Call) -> reqwest::RequestBuilder {
        let request = self.client.request(call.method.clone(), call.url.clone()).headers(call.headers.clone());
        match self.login().filter(|_| call.login) {
            Some(login) => request.header(AUTHORIZATION, login),
            None => request,
        }
    }

    async fn try_once(&self, call: &Call, stall: Duration) -> Tried {
        let (request, sent) = (self.request(call), Arc::new(AtomicU64::new(0)));
        let request = match &call.body {
            Content::Bytes(none) if none.is_empty() && is_question(&call.method) => request,
            Content::Bytes(few) if few.len() <= CHUNK => request.body(few.clone()),
            Content::Bytes(bytes) => request.header(CONTENT_LENGTH, bytes.len()).body(in_chunks(bytes, &sent)),
            Content::File(file, size) => {
                let body = put::Content::File(Arc::clone(file), *size).body(Arc::clone(&sent));
                request.header(CONTENT_LENGTH, *size).body(body)
            }
        };
        self.exchange(call, request, &sent, stall).await
    }

    async fn exchange(
        &self,
        call: &Call,
        request: reqwest::RequestBuilder,
        sent: &AtomicU64,
        stall: Duration,
    ) -> Tried {
        self.requests.fetch_add(1, Ordering::Relaxed);
        let stalled = || Tried::Again {
            failure: Failure::new(Class::Network, format!("nothing moved for {} s", stall.as_secs())),
            throttled: false,
            floor: None,
        };
        let response = match watched(self.send(call, request), sent, stall).await {
            Some(Ok(response)) => response,
            Some(Err(error)) => return self.judged(call, broken(error), &[]),
            None => return stalled(),
        };
        let (status, headers) = (response.status(), response.headers().clone());
        let limit = if status.is_success() { ANSWER } else { ERROR };
        // An upload that went elsewhere has become a question on the way.
        if response.url() != &call.url && !is_question(&call.method) {
            let failure = Failure::new(Class::Cache, "it sends calls elsewhere (a redirect)");
            return Tried::Refused(CallFailure { failure, status: Some(status.as_u16()), code: None });
        }
        let body = match tokio::time::timeout(stall, read(response, limit)).await {
            Ok(Ok(body)) => body,
            Ok(Err(error)) => return self.judged(call, broken(error), &[]),
            Err(_) => return stalled(),
        };
        self.auth.heard(&headers, s3_code(&body));
        match status.is_success() {
            true if body.len() > limit => Tried::Refused(CallFailure::here(Class::Cache, "its answer is too long")),
            true => Tried::Done(Reply { headers, body }),
            false => self.judged(call, refused(call, status, &headers, &body), &body),
        }
    }

    async fn send(&self, call: &Call, request: reqwest::RequestBuilder) -> reqwest::Result<Response> {
        let mut request = request.build()?;
        if call.login {
            self.auth.sign(&mut request);
        }
        self.client.execute(request).await
    }

    /// What a failed attempt means for the call, with the words of the service.
    fn judged(&self, call: &Call, outcome: Outcome, body: &[u8]) -> Tried {
        let told = |failure: Failure| match self.words(call, body) {
            Some(words) => Failure { message: format!("{}: {words}", failure.message).into(), ..failure },
            None => failure,
        };
        match outcome {
            Outcome::Again { failure, throttled, floor, .. } => {
                Tried::Again { failure: told(failure), throttled, floor: floor.or_else(|| retry_after(body)) }
            }
            Outcome::Refused { failure, status } => {
                let code = s3_code(body).map(str::to_owned);
                Tried::Refused(CallFailure { failure: told(failure), status: Some(status), code })
            }
            Outcome::Found(_) | Outcome::Missing => {
                Tried::Refused(CallFailure::here(Class::Internal, "an answer was taken for a failure"))
            }
        }
    }

    /// What the service says about an error: the `message` of a JSON object, else its text. The token is not told.
    fn words(&self, call: &Call, body: &[u8]) -> Option<String> {
        let text = String::from_utf8_lossy(body);
        let json = serde_json::from_str::<serde_json::Value>(&text).ok();
        let said = json.as_ref().and_then(|json| ["message", "error"].iter().find_map(|name| json.get(name)?.as_str()));
        let of_s3 = s3_words(body);
        let said = said.or(of_s3.as_deref());
        // Pages and documents are for other readers; signed URLs may stand in them.
        let said = said.unwrap_or_else(|| if call.login && !text.contains('<') { &text } else { "" });
        let line: String = said.split_whitespace().collect::<Vec<_>>().join(" ");
        let line: String = line.chars().filter(|c| !c.is_control()).take(WORDS).collect();
        (!line.is_empty() && !self.is_told(&line)).then_some(line)
    }

    /// Whether a text holds the login.
    fn is_told(&self, text: &str) -> bool {
        let login = self.login();
        let secret = login.as_ref().and_then(|login| login.to_str().ok()?.split_once(' '));
        secret.is_some_and(|(_, secret)| text.contains(secret))
    }

    fn login(&self) -> Option<HeaderValue> {
        let renewed = self.renewed.lock().unwrap_or_else(PoisonError::into_inner).clone();
        renewed.or_else(|| self.auth.header.clone())
    }

    /// Reads the token file anew. Whether it holds another token than the one that was refused.
    fn renew(&self, refused: Option<&HeaderValue>) -> bool {
        let Some(token) = self.auth.source.read_again() else { return false };
        let is_new = refused != Some(&token);
        if is_new {
            *self.renewed.lock().unwrap_or_else(PoisonError::into_inner) = Some(token);
        }
        is_new
    }
}

/// Whether a request with this method changes nothing, and has no body.
fn is_question(method: &Method) -> bool {
    *method == Method::GET || *method == Method::HEAD
}

/// What a status that is no success means.
fn refused(call: &Call, status: StatusCode, headers: &HeaderMap, body: &[u8]) -> Outcome {
    let code = status.as_u16();
    let refuse = |text: String| Outcome::Refused { failure: Failure::new(Class::Cache, text), status: code };
    if let Some(why) = other_region(headers, code, body) {
        return refuse(why);
    }
    match s3_code(body) {
        Some(s3) if S3_AGAIN.contains(&s3) => match bad_status(StatusCode::SERVICE_UNAVAILABLE, headers) {
            Outcome::Again { floor, .. } => {
                let failure = Failure::new(Class::Cache, format!("HTTP status {code}, {s3}"));
                Outcome::Again { failure, throttled: true, floor, timed_out: false }
            }
            other => other,
        },
        // A URL that was signed for this upload is no login of ours.
        Some(s3) if !call.login && status.is_client_error() => refuse(format!("HTTP status {code}, {s3}")),
        None if !call.login && matches!(code, 401 | 403) => refuse(format!("HTTP status {code}")),
        _ => match code {
            507 => Outcome::Refused {
                failure: Failure::new(Class::DiskFull, "it is full (HTTP status 507)"),
                status: code,
            },
            300..=399 => refuse("it sends calls elsewhere (a redirect)".to_owned()),
            _ => bad_status(status, headers),
        },
    }
}

/// How long to wait as a JSON body says it, in seconds: what stands before a service (Cloudflare) has no header for it.
fn retry_after(body: &[u8]) -> Option<Duration> {
    let json: serde_json::Value = serde_json::from_slice(body).ok()?;
    let seconds = json.get("retry_after")?.as_f64().filter(|seconds| *seconds >= 0.0)?;
    Some(Duration::from_secs_f64(seconds.min(LONGEST_RETRY_AFTER.as_secs_f64())))
}

/// The code of an error of S3, which stores for such services may be.
fn s3_code(body: &[u8]) -> Option<&str> {
    let text = std::str::from_utf8(body).ok()?;
    let error = text.split_once("<Error>")?.1;
    Some(error.split_once("<Code>")?.1.split_once("</Code>")?.0.trim())
}

/// What S3 says about an error.
fn s3_words(body: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(body).ok()?;
    let error = text.split_once("<Error>")?.1;
    let message = error.split_once("<Message>").and_then(|(_, rest)| Some(rest.split_once("</Message>")?.0));
    Some(format!("{}: {}", s3_code(body)?, message.unwrap_or_default()))
}

/// The region of a bucket that was looked for in another one.
fn other_region(headers: &HeaderMap, code: u16, body: &[u8]) -> Option<String> {
    let wrong = code == 301 || s3_code(body) == Some("AuthorizationHeaderMalformed");
    let region = headers.get("x-amz-bucket-region").filter(|_| wrong)?.to_str().ok()?;
    Some(format!("the bucket is in another region (region={region})"))
}

/// The body of an answer, at most one byte more than `limit`, or all that came before that.
async fn read(mut response: Response, limit: usize) -> Result<Vec<u8>, reqwest::Error> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await? {
        let room = (limit + 1).saturating_sub(body.len());
        body.extend_from_slice(chunk.get(..room.min(chunk.len())).unwrap_or_default());
        if body.len() > limit {
            break;
        }
    }
    Ok(body)
}

/// A body that is sent piece by piece, so that a slow line is told from one that stands still.
fn in_chunks(body: &Bytes, sent: &Arc<AtomicU64>) -> Body {
    let start = (body.clone(), Arc::clone(sent));
    Body::wrap_stream(futures_util::stream::unfold(start, |(mut rest, sent)| async move {
        if rest.is_empty() {
            return None;
        }
        let chunk = rest.split_to(rest.len().min(CHUNK));
        sent.fetch_add(chunk.len() as u64, Ordering::Relaxed);
        Some((Ok::<_, std::io::Error>(chunk), (rest, sent)))
    }))
}
