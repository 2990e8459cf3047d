//! AWS Signature Version 4: each request carries a keyed hash of what it asks, where and when.
//!
//! Source: "Signature Version 4 signing process" of the AWS documentation, and its test vectors. The body's hash is
//! signed too wherever the body is at hand; a body that is made while it is sent goes as `UNSIGNED-PAYLOAD`, which
//! servers take over TLS.

use std::sync::atomic::{AtomicI64, Ordering};

use hmac::{Hmac, Mac as _};
use jiff::{SignedDuration, Timestamp};
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderName, HeaderValue};
use reqwest::{Request, Url};
use sha2::{Digest as _, Sha256};

use super::super::location::decode_percent;
use super::credentials::Credentials;
use crate::nix_compat::hex;

/// The hash of the body, in hex.
pub(in super::super) const CONTENT_HASH: HeaderName = HeaderName::from_static("x-amz-content-sha256");
const DATE: HeaderName = HeaderName::from_static("x-amz-date");
const SESSION: HeaderName = HeaderName::from_static("x-amz-security-token");

/// Stands for the hash of a body that is not known when its request is signed.
const UNSIGNED: &str = "UNSIGNED-PAYLOAD";

const ALGORITHM: &str = "AWS4-HMAC-SHA256";

/// Signs requests to one bucket.
#[derive(Debug)]
pub(in super::super) struct Signer {
    credentials: Credentials,
    region: String,
    /// Seconds that the server's clock is ahead of ours, once that is known.
    skew: AtomicI64,
}

impl Signer {
    pub(super) fn new(credentials: Credentials, region: String) -> Self {
        Self { credentials, region, skew: AtomicI64::new(0) }
    }

    /// The server says that it is this late, in seconds since 1970: from now on requests are signed for its clock.
    pub(in super::super) fn set_clock(&self, theirs: i64) {
        self.skew.store(theirs.saturating_sub(now().as_second()), Ordering::Relaxed);
    }

    /// Seconds that the server's clock is ahead of this machine's, as far as that is known.
    pub(super) fn skew(&self) -> i64 {
        self.skew.load(Ordering::Relaxed)
    }

    /// Signs a request as it is; a header with the hash of its body is believed. One that can be no part of a request,
    /// because a key holds a line feed, stays unsigned, and the server refuses it.
    pub(in super::super) fn sign(&self, request: &mut Request) {
        let skew = SignedDuration::from_secs(self.skew());
        let _ = self.sign_at(request, now().saturating_add(skew).unwrap_or(Timestamp::MAX));
    }

    fn sign_at(&self, request: &mut Request, now: Timestamp) -> Option<()> {
        let date = now.strftime("%Y%m%dT%H%M%SZ").to_string();
        let payload = payload(request);
        let headers = request.headers_mut();
        headers.insert(CONTENT_HASH, HeaderValue::from_str(&payload).ok()?);
        headers.insert(DATE, HeaderValue::from_str(&date).ok()?);
        if let Some(session) = &self.credentials.session {
            headers.insert(SESSION, secret(session)?);
        }
        let (names, canonical) = canonical(request, &payload)?;
        let day = date.get(..8)?;
        let scope = format!("{day}/{}/s3/aws4_request", self.region);
        let text = format!("{ALGORITHM}\n{date}\n{scope}\n{}", hex::encode(&Sha256::digest(canonical)));
        let signature = hex::encode(&keyed(&self.key(day), text.as_bytes()));
        let key_id = &self.credentials.key_id;
        let login = format!("{ALGORITHM} Credential={key_id}/{scope}, SignedHeaders={names}, Signature={signature}");
        request.headers_mut().insert(AUTHORIZATION, secret(&login)?);
        Some(())
    }

    /// The key for one day, one region and S3.
    fn key(&self, day: &str) -> [u8; 32] {
        let first = keyed(format!("AWS4{}", self.credentials.secret).as_bytes(), day.as_bytes());
        [self.region.as_str(), "s3", "aws4_request"].iter().fold(first, |key, part| keyed(&key, part.as_bytes()))
    }
}

#[expect(clippy::disallowed_methods, reason = "a signature is good for some minutes of the time that it names")]
fn now() -> Timestamp {
    Timestamp::now()
}

fn secret(text: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_str(text).ok()?;
    value.set_sensitive(true);
    Some(value)
}

/// HMAC-SHA-256, for which every key is long enough.
fn keyed(key: &[u8], text: &[u8]) -> [u8; 32] {
    match Hmac::<Sha256>::new_from_slice(key) {
        Ok(mut mac) => {
            mac.update(text);
            mac.finalize().into_bytes().into()
        }
        Err(_) => [0; 32],
    }
}

fn payload(request: &Request) -> String {
    if let Some(known) = request.headers().get(CONTENT_HASH).and_then(|value| value.to_str().ok()) {
        return known.to_owned();
    }
    match request.body().map(reqwest::Body::as_bytes) {
        None => hex::encode(&Sha256::digest([])),
        Some(Some(bytes)) => hex::encode(&Sha256::digest(bytes)),
        Some(None) => UNSIGNED.to_owned(),
    }
}

/// The names of the signed headers (the host and all of AWS's own), and the request in the form that is signed.
fn canonical(request: &Request, payload: &str) -> Option<(String, String)> {
    let url = request.url();
    let mut headers = vec![("host".to_owned(), host(url)?)];
    headers.extend(amazon(request.headers())?);
    headers.sort();
    let names: Vec<&str> = headers.iter().map(|(name, _)| name.as_str()).collect();
    let names = names.join(";");
    let lines: String = headers.iter().map(|(name, value)| format!("{name}:{}\n", value.trim())).collect();
    let (method, path, query) = (request.method(), escape(&decode_percent(url.path()), true), query(url));
    let text = format!("{method}\n{path}\n{query}\n{lines}\n{names}\n{payload}");
    Some((names, text))
}

/// As the `Host` header says it.
fn host(url: &Url) -> Option<String> {
    let host = url.host_str()?;
    Some(url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}")))
}

fn amazon(headers: &HeaderMap) -> Option<Vec<(String, String)>> {
    let ours = headers.iter().filter(|(name, _)| name.as_str().starts_with("x-amz-"));
    ours.map(|(name, value)| Some((name.as_str().to_owned(), value.to_str().ok()?.to_owned()))).collect()
}

/// The parameters in their order, each escaped anew.
fn query(url: &Url) -> String {
    let pairs = url.query().unwrap_or_default().split('&').filter(|pair| !pair.is_empty());
    let mut pairs: Vec<(String, String)> = pairs
        .map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            (escape(&decode_percent(name), false), escape(&decode_percent(value), false))
        })
        .collect();
    pairs.sort();
    let pairs: Vec<String> = pairs.into_iter().map(|(name, value)| format!("{name}={value}")).collect();
    pairs.join("&")
}

/// Escapes all but the unreserved characters of RFC 3986, and slashes where they stay.
pub(super) fn escape(text: &str, keep_slash: bool) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => encoded.push(char::from(byte)),
            b'/' if keep_slash => encoded.push('/'),
            _ => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;
    use reqwest::Method;

    /// The example keys of the documentation ("Signature Calculations for the Authorization Header").
    fn signer() -> Signer {
        let (key_id, secret) = ("AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY");
        let credentials = Credentials { key_id: key_id.into(), secret: secret.into(), session: None };
        Signer::new(credentials, "us-east-1".into())
    }

    fn signed(signer: &Signer, path: &str, more: &[(&'static str, &'static str)]) -> Request {
        let url = format!("https://examplebucket.s3.amazonaws.com{path}");
        let mut request = Request::new(Method::GET, url.parse().unwrap());
        for (name, value) in more {
            request.headers_mut().insert(*name, HeaderValue::from_static(value));
        }
        signer.sign_at(&mut request, "2013-05-24T00:00:00Z".parse().unwrap()).unwrap();
        request
    }

    fn signature(request: &Request) -> String {
        let login = request.headers()[AUTHORIZATION].to_str().unwrap();
        login.rsplit_once("Signature=").unwrap().1.to_owned()
    }

    #[test]
    fn the_examples_of_the_documentation_are_signed_as_there() {
        // GET Bucket Lifecycle, and GET Bucket (List Objects).
        let lifecycle = signed(&signer(), "/?lifecycle", &[]);
        assert_eq!(signature(&lifecycle), "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543");
        let list = signed(&signer(), "/?prefix=J&max-keys=2", &[]);
        assert_eq!(signature(&list), "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7");
        let login = list.headers()[AUTHORIZATION].to_str().unwrap();
        let scope = "AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request";
        let names = "host;x-amz-content-sha256;x-amz-date";
        assert!(login.starts_with(&format!("AWS4-HMAC-SHA256 Credential={scope}, SignedHeaders={names}, ")), "{login}");
    }

    #[test]
    fn each_part_of_a_request_counts() {
        let plain = signature(&signed(&signer(), "/a", &[]));
        assert_ne!(plain, signature(&signed(&signer(), "/b", &[])));
        assert_ne!(plain, signature(&signed(&signer(), "/a?x=1", &[])));
        assert_ne!(plain, signature(&signed(&signer(), "/a", &[("x-amz-storage-class", "STANDARD_IA")])));
        assert_eq!(plain, signature(&signed(&signer(), "/a", &[("content-type", "text/plain")])));
        assert_eq!(signature(&signed(&signer(), "/a?x=1&y", &[])), signature(&signed(&signer(), "/a?y&x=1", &[])));
    }

    #[test]
    fn a_session_goes_along_and_nothing_is_shown() {
        let mut signer = signer();
        signer.credentials.session = Some("t0ken".into());
        let request = signed(&signer, "/a", &[]);
        assert_eq!(request.headers()[SESSION], "t0ken");
        assert!(request.headers()[AUTHORIZATION].to_str().unwrap().contains("x-amz-security-token"));
        let shown = format!("{signer:?} {request:?}");
        assert!(!shown.contains("t0ken") && !shown.contains("EXAMPLE"), "{shown}");
    }

    #[test]
    fn bodies_are_signed_where_they_are_at_hand() {
        let mut request = Request::new(Method::PUT, "https://b.example/k".parse().unwrap());
        let hash = |request: &mut Request| {
            request.headers_mut().remove(CONTENT_HASH);
            signer().sign(request);
            request.headers()[CONTENT_HASH].to_str().unwrap().to_owned()
        };
        assert_eq!(hash(&mut request), hex::encode(&Sha256::digest([])));
        *request.body_mut() = Some("body".into());
        assert_eq!(hash(&mut request), hex::encode(&Sha256::digest("body")));
        let stream = futures_util::stream::iter([Ok::<_, std::io::Error>("body")]);
        *request.body_mut() = Some(reqwest::Body::wrap_stream(stream));
        assert_eq!(hash(&mut request), UNSIGNED);
    }
}
