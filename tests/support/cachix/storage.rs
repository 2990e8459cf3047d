//! The storage that signed URLs lead to, and the address that Nix reads from.

use std::sync::Arc;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Path, Query, State as From};
use axum::http::{HeaderMap, Method, Response, StatusCode, Uri};
use axum::response::IntoResponse as _;
use axum::routing::put;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::service::{busy, take};
use super::{Fault, Shared, check, refuse};

pub(super) fn uploads(shared: Arc<Shared>) -> Router {
    Router::new()
        .route("/bucket/{nar}", put(part))
        .layer(axum::extract::DefaultBodyLimit::max(1 << 30))
        .with_state(shared)
}

/// Takes one part, as S3 does: with the headers that its URL was signed for.
async fn part(
    From(shared): From<Arc<Shared>>,
    Path(nar): Path<String>,
    Query(words): Query<std::collections::BTreeMap<String, String>>,
    headers: HeaderMap,
    body: Bytes,
) -> Response<Body> {
    let latency = shared.lock().latency;
    if !latency.is_zero() {
        tokio::time::sleep(latency).await;
    }
    let number: u32 = words.get("partNumber").and_then(|text| text.parse().ok()).unwrap_or(0);
    let fault = {
        let mut state = shared.lock();
        take(&mut state, "put").or_else(|| take(&mut state, &format!("put {number}")))
    };
    match fault {
        Some(Fault::Status(code)) => return StatusCode::from_u16(code).unwrap().into_response(),
        Some(Fault::Busy(seconds)) => return busy(seconds),
        Some(Fault::Cut) => std::panic::resume_unwind(Box::new("cut")),
        Some(Fault::Hang) => std::future::pending().await,
        Some(Fault::DoneAndGone) | None => {}
    }
    let mut guard = shared.lock();
    let state = &mut *guard;
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if words.get("X-Amz-Signature").map(String::as_str) != Some("5ec4e7") {
        return refuse(state, 403, "<Error><Code>AccessDenied</Code></Error>").into_response();
    }
    if headers.contains_key("authorization") {
        return refuse(state, 400, "a token went to the storage").into_response();
    }
    let Some(promised) = state.uploads.get(&nar).and_then(|upload| upload.promised.get(&number)).cloned() else {
        return refuse(state, 404, "<Error><Code>NoSuchUpload</Code></Error>").into_response();
    };
    let md5 = STANDARD.encode(check::md5(&body));
    if header("content-md5") != promised || header("content-type") != "application/octet-stream" {
        return refuse(state, 403, "<Error><Code>SignatureDoesNotMatch</Code></Error>").into_response();
    }
    if md5 != promised {
        return refuse(state, 400, "<Error><Code>BadDigest</Code></Error>").into_response();
    }
    let etag = format!("\"{}\"", check::hex(&check::md5(&body)));
    state.log.push(format!("put {number}"));
    if let Some(upload) = state.uploads.get_mut(&nar) {
        upload.parts.insert(number, (etag.clone(), body.to_vec()));
    }
    if fault.is_some() {
        drop(guard);
        std::panic::resume_unwind(Box::new("gone"));
    }
    Response::builder().status(200).header("etag", etag).body(Body::empty()).unwrap()
}

pub(super) fn files(shared: Arc<Shared>) -> Router {
    Router::new().fallback(file).with_state(shared)
}

/// A plain binary cache.
async fn file(From(shared): From<Arc<Shared>>, method: Method, uri: Uri, headers: HeaderMap) -> Response<Body> {
    let latency = shared.lock().latency;
    if !latency.is_zero() {
        tokio::time::sleep(latency).await;
    }
    let mut state = shared.lock();
    let name = uri.path().trim_start_matches('/');
    state.log.push(format!("read {method} {name}"));
    let login = headers.get("authorization").and_then(|value| value.to_str().ok()).unwrap_or_default();
    let may = |token: &String| login == format!("Basic {}", STANDARD.encode(format!(":{token}")));
    if !state.public && !state.tokens.iter().any(may) {
        return StatusCode::UNAUTHORIZED.into_response();
    }
    let body = match name.strip_suffix(".narinfo") {
        Some(hash) => state.records.get(hash).cloned().map(String::into_bytes),
        None if name == "nix-cache-info" => {
            Some(format!("StoreDir: {}\nWantMassQuery: 1\nPriority: 41\n", shared.store_dir).into_bytes())
        }
        None => name.strip_prefix("nar/").and_then(|name| state.nars.get(name).cloned()),
    };
    match body {
        None => StatusCode::NOT_FOUND.into_response(),
        Some(body) if method == Method::HEAD => {
            Response::builder().header("content-length", body.len()).body(Body::empty()).unwrap()
        }
        Some(body) => Response::new(Body::from(body)),
    }
}
