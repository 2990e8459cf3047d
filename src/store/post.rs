//! A JSON document for a server that is no cache: a webhook, a collector.
//!
//! The URL and the token of a webhook are what lets anybody write there, so that neither is ever in an error.

use std::path::Path;
use std::time::Duration;

use reqwest::header::{CONTENT_TYPE, HeaderName};
use reqwest::{Client, Url};

use crate::error::chain;

/// Longest wait for a connection, and for the whole.
const CONNECT: Duration = Duration::from_secs(3);
const ANSWER: Duration = Duration::from_secs(10);

/// Why a document was not taken.
#[derive(Debug, thiserror::Error)]
pub enum PostError {
    /// Its URL is none.
    #[error("its URL is no http:// or https:// URL")]
    Url,
    /// Certificates cannot be read, or there are none.
    #[error("no TLS: {0}")]
    Tls(String),
    /// The server did not answer.
    #[error("{0}")]
    Unreachable(String),
    /// It answered with something else than success.
    #[error("HTTP {0}")]
    Refused(u16),
}

/// What is sent, and where.
pub struct Post<'a> {
    /// `https://…`; it may be a secret.
    pub url: &'a str,
    /// What is sent as `Authorization: Bearer`.
    pub token: Option<&'a str>,
    /// More headers.
    pub headers: &'a [(HeaderName, String)],
    /// The document.
    pub body: Vec<u8>,
    /// Certificates that are trusted, in the place of the system's.
    pub ca_file: Option<&'a Path>,
}

/// Sends a document, once.
///
/// # Errors
/// If the server did not take it within ten seconds.
pub async fn post(post: Post<'_>) -> Result<(), PostError> {
    let url = Url::parse(post.url).ok().filter(|url| matches!(url.scheme(), "http" | "https")).ok_or(PostError::Url)?;
    let client = client(&url, post.ca_file)?;
    let mut request = client.post(url).header(CONTENT_TYPE, "application/json").body(post.body);
    for (name, value) in post.headers {
        request = request.header(name, value);
    }
    if let Some(token) = post.token {
        request = request.bearer_auth(token);
    }
    // What reqwest says ends in the URL.
    let unreachable = |error: reqwest::Error| {
        let why = if error.is_timeout() { "timed out".to_owned() } else { chain(&error.without_url()) };
        PostError::Unreachable(why)
    };
    let answer = request.send().await.map_err(unreachable)?;
    match answer.status() {
        status if status.is_success() => Ok(()),
        status => Err(PostError::Refused(status.as_u16())),
    }
}

/// A client with rustls and ring, which is installed by hand for the whole process, once.
fn client(url: &Url, ca_file: Option<&Path>) -> Result<Client, PostError> {
    // An error means that a provider is installed already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let builder = Client::builder()
        .user_agent(concat!("drover/", env!("CARGO_PKG_VERSION")))
        .connect_timeout(CONNECT)
        .timeout(ANSWER)
        .redirect(reqwest::redirect::Policy::none());
    let builder = match ca_file {
        // A machine without certificates can still reach a server that needs none.
        _ if url.scheme() == "http" => builder.tls_certs_only([]),
        Some(file) => {
            let pem = std::fs::read(file).map_err(|error| PostError::Tls(format!("{}: {error}", file.display())))?;
            let certs = reqwest::Certificate::from_pem_bundle(&pem);
            builder.tls_certs_only(certs.map_err(|error| PostError::Tls(chain(&error)))?)
        }
        None => builder,
    };
    builder.build().map_err(|error| PostError::Tls(chain(&error)))
}
