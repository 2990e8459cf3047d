//! The service: `/api/v1/cache/NAME/…`.

use std::sync::Arc;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Path, Query, State as From};
use axum::http::{HeaderMap, Method, Response, StatusCode, Uri};
use axum::response::IntoResponse as _;
use axum::routing::any;
use serde_json::{Value, json};

use super::check::{self, Record};
use super::{Fault, NAME, Shared, State, Upload, refuse};

/// Bytes of a body that it takes.
const MOST: usize = 1 << 20;

type Words = Query<std::collections::BTreeMap<String, String>>;

pub(super) fn router(shared: Arc<Shared>) -> Router {
    Router::new()
        .route("/api/v1/cache/{name}", any(call))
        .route("/api/v1/cache/{name}/{*rest}", any(call))
        .fallback(|uri: Uri| async move { (StatusCode::NOT_FOUND, format!("there is no {uri}")) })
        .layer(axum::extract::DefaultBodyLimit::max(64 << 20))
        .with_state(shared)
}

/// What a call is, of those that it knows.
enum Call {
    Cache,
    Bulk,
    Create,
    Presign { nar: String },
    Complete { nar: String },
    Abort { nar: String },
    Has { hash: String },
}

impl Call {
    fn read(method: &Method, rest: &str) -> Option<Self> {
        let parts: Vec<&str> = rest.split('/').filter(|part| !part.is_empty()).collect();
        let nar = |nar: &str| nar.to_owned();
        match (method.as_str(), parts.as_slice()) {
            ("GET", []) => Some(Self::Cache),
            ("POST", ["narinfo"]) => Some(Self::Bulk),
            ("POST", ["multipart-nar"]) => Some(Self::Create),
            ("POST", ["multipart-nar", id]) => Some(Self::Presign { nar: nar(id) }),
            ("POST", ["multipart-nar", id, "complete"]) => Some(Self::Complete { nar: nar(id) }),
            ("POST", ["multipart-nar", id, "abort"]) => Some(Self::Abort { nar: nar(id) }),
            ("HEAD", [file]) => Some(Self::Has { hash: file.strip_suffix(".narinfo")?.to_owned() }),
            _ => None,
        }
    }

    fn name(&self) -> &'static str {
        match self {
            Self::Cache => "cache",
            Self::Bulk => "bulk",
            Self::Create => "create",
            Self::Presign { .. } => "presign",
            Self::Complete { .. } => "complete",
            Self::Abort { .. } => "abort",
            Self::Has { .. } => "HEAD",
        }
    }
}

async fn call(
    From(shared): From<Arc<Shared>>,
    Path(path): Path<std::collections::BTreeMap<String, String>>,
    Query(words): Words,
    method: Method,
    headers: HeaderMap,
    body: Bytes,
) -> Response<Body> {
    let latency = shared.lock().latency;
    if !latency.is_zero() {
        tokio::time::sleep(latency).await;
    }
    let rest = path.get("rest").map(String::as_str).unwrap_or_default();
    let Some(call) = Call::read(&method, rest) else {
        return refuse(&mut shared.lock(), 404, format!("there is no {method} {rest}")).into_response();
    };
    let fault = take(&mut shared.lock(), call.name());
    match fault {
        Some(Fault::Status(code)) => return StatusCode::from_u16(code).unwrap().into_response(),
        Some(Fault::Busy(seconds)) => return busy(seconds),
        Some(Fault::Cut) => std::panic::resume_unwind(Box::new("cut")),
        Some(Fault::Hang) => std::future::pending().await,
        Some(Fault::DoneAndGone) | None => {}
    }
    let answer = answer(&shared, &call, path.get("name"), &words, &headers, &body);
    if fault.is_some() {
        // The server drops the connection of a handler that panics; this way it says nothing about it.
        std::panic::resume_unwind(Box::new("gone"));
    }
    answer
}

/// The next fault of this sort of call.
pub(super) fn take(state: &mut State, call: &str) -> Option<Fault> {
    let faults = state.faults.get_mut(call).filter(|faults| !faults.is_empty())?;
    Some(faults.remove(0))
}

/// As Cloudflare says it before Cachix.
pub(super) fn busy(seconds: u32) -> Response<Body> {
    let body = json!({ "type": "rate_limited", "status": 429, "retry_after": seconds }).to_string();
    let response = Response::builder().status(429).header("content-type", "application/problem+json");
    response.body(Body::from(body)).unwrap()
}

fn answer(
    shared: &Shared,
    call: &Call,
    cache: Option<&String>,
    words: &std::collections::BTreeMap<String, String>,
    headers: &HeaderMap,
    body: &Bytes,
) -> Response<Body> {
    let mut state = shared.lock();
    let state = &mut *state;
    if let Err(code) = allowed(state, headers, call) {
        state.log.push(format!("{} refused", call.name()));
        return (code, "Unauthenticated").into_response();
    }
    if cache.is_none_or(|name| name != NAME) {
        return (StatusCode::NOT_FOUND, "Binary cache doesn't exist").into_response();
    }
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if !body.is_empty() && !header("content-type").starts_with("application/json") {
        return refuse(state, 415, format!("the body of {} is no JSON", call.name())).into_response();
    }
    if body.len() > MOST {
        return (StatusCode::PAYLOAD_TOO_LARGE, "too much").into_response();
    }
    let result = match call {
        Call::Cache => Ok(describe(shared, state)),
        Call::Bulk => missing(state, body),
        Call::Create => create(state, words, body),
        Call::Presign { nar } => presign(shared, state, nar, words, body),
        Call::Complete { nar } => complete(shared, state, nar, words, body),
        Call::Abort { nar } => abort(state, nar, words),
        Call::Has { hash } => {
            state.log.push(format!("HEAD {hash}"));
            let code = if state.records.contains_key(hash) { 200 } else { 404 };
            return StatusCode::from_u16(code).unwrap().into_response();
        }
    };
    match result {
        Ok(Value::Null) => StatusCode::NO_CONTENT.into_response(),
        Ok(value) => axum::Json(value).into_response(),
        Err((code, why)) => {
            state.log.push(format!("{} refused: {why}", call.name()));
            refuse(state, code, why).into_response()
        }
    }
}

/// Whether the token may do this. Nobody may write without one, unless the cache is public and signed by its owner.
fn allowed(state: &State, headers: &HeaderMap, call: &Call) -> Result<(), StatusCode> {
    let said = headers.get("authorization").and_then(|value| value.to_str().ok()).unwrap_or_default();
    let token = said.strip_prefix("Bearer").map(str::trim).unwrap_or_default();
    let reads = matches!(call, Call::Cache | Call::Bulk | Call::Has { .. });
    match token {
        "" if state.public && (reads || state.keys.len() > 1) => Ok(()),
        "" => Err(StatusCode::UNAUTHORIZED),
        token if state.tokens.contains(token) && (reads || state.permission != "Read") => Ok(()),
        _ => Err(StatusCode::UNAUTHORIZED),
    }
}

fn describe(shared: &Shared, state: &mut State) -> Value {
    state.log.push("cache".to_owned());
    json!({
        "name": NAME, "uri": shared.uri, "isPublic": state.public, "publicSigningKeys": state.keys,
        "githubUsername": "acme", "permission": state.permission, "preferredCompressionMethod": "ZSTD",
    })
}

type Answer = Result<Value, (u16, String)>;

fn missing(state: &mut State, body: &Bytes) -> Answer {
    let hashes: Vec<String> = serde_json::from_slice(body).map_err(|error| (400, error.to_string()))?;
    if let Some(odd) = hashes.iter().find(|hash| !check::is_hash(hash)) {
        return Err((400, format!("'{odd}' is no hash of a store path")));
    }
    state.log.push(format!("bulk {}", hashes.len()));
    Ok(hashes.into_iter().filter(|hash| !state.records.contains_key(hash)).collect())
}

fn create(state: &mut State, words: &std::collections::BTreeMap<String, String>, body: &Bytes) -> Answer {
    let compression = words.get("compression").cloned().unwrap_or_default();
    if !matches!(compression.as_str(), "xz" | "zst") || !body.is_empty() {
        return Err((400, format!("compression is '{compression}', and there are {} bytes of body", body.len())));
    }
    state.next += 1;
    let (nar, id) = (format!("00000000-0000-4000-8000-{:012}", state.next), format!("upload+/{}=", state.next));
    state.uploads.insert(nar.clone(), Upload { id: id.clone(), compression, ..Upload::default() });
    state.log.push("create".to_owned());
    Ok(json!({ "narId": nar, "uploadId": id }))
}

/// An upload that is going on.
fn upload<'a>(
    state: &'a mut State,
    nar: &str,
    words: &std::collections::BTreeMap<String, String>,
) -> Result<&'a mut Upload, (u16, String)> {
    let upload = state.uploads.get_mut(nar).filter(|upload| Some(&upload.id) == words.get("uploadId"));
    let upload = upload.filter(|upload| !upload.aborted && !upload.complete);
    upload.ok_or((404, "there is no such upload".to_owned()))
}

fn presign(
    shared: &Shared,
    state: &mut State,
    nar: &str,
    words: &std::collections::BTreeMap<String, String>,
    body: &Bytes,
) -> Answer {
    let body: Value = serde_json::from_slice(body).map_err(|error| (400, error.to_string()))?;
    let number = words.get("partNumber").and_then(|text| text.parse().ok()).filter(|n| (1..=10_000).contains(n));
    let number: u32 = number.ok_or((400, "partNumber is not 1 to 10000".to_owned()))?;
    let md5 = body["contentMD5"].as_str().filter(|text| check::is_md5(text));
    let md5 = md5.ok_or((400, "contentMD5 is no MD5 in base64".to_owned()))?;
    upload(state, nar, words)?.promised.insert(number, md5.to_owned());
    state.log.push(format!("presign {number}"));
    Ok(json!({ "uploadUrl": format!("{}/bucket/{nar}?partNumber={number}&X-Amz-Signature=5ec4e7", shared.storage) }))
}

fn complete(
    shared: &Shared,
    state: &mut State,
    nar: &str,
    words: &std::collections::BTreeMap<String, String>,
    body: &Bytes,
) -> Answer {
    let body: Value = serde_json::from_slice(body).map_err(|error| (400, error.to_string()))?;
    let file = {
        let upload = upload(state, nar, words);
        // Whoever asks again after an answer got lost is not wrong.
        let upload = upload.map_err(|(code, why)| (code, format!("may be: {why}")))?;
        check::joined(upload, &body["parts"])?
    };
    let compression = state.uploads[nar].compression.clone();
    let record = Record::read(&body["narInfoCreate"], &file, &compression).map_err(|why| (400, why))?;
    let record = record.signed(state, &shared.store_dir).map_err(|why| (400, why))?;
    for reference in &record.references {
        // The real one would take it; then nobody could fetch this path.
        if *reference != record.base && !state.records.contains_key(&reference[..32]) {
            state.wrong.push(format!("{} came before {reference}", record.base));
        }
    }
    state.log.push(format!("complete {}", record.base));
    state.nars.insert(record.file.clone(), file);
    state.records.insert(record.base[..32].to_owned(), record.text);
    if let Some(upload) = state.uploads.get_mut(nar) {
        upload.complete = true;
    }
    if state.expires_after.is_some_and(|most| state.records.len() >= most) {
        state.tokens.clear();
    }
    Ok(Value::Null)
}

fn abort(state: &mut State, nar: &str, words: &std::collections::BTreeMap<String, String>) -> Answer {
    upload(state, nar, words)?.aborted = true;
    state.log.push("abort".to_owned());
    Ok(Value::Null)
}
