//! Spans of a run, sent to a collector over OTLP/HTTP. It takes a while at most, and what it comes to is a value.

use std::time::Duration;

use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, USER_AGENT};
use serde_json::Value;

use crate::config::{Collector, public_url};
use crate::error::{Error, Fault, Result, chain};

/// As long as it may take, all tries together.
const MOST: Duration = Duration::from_secs(10);

/// Tries of a request that is refused for now.
const TRIES: u32 = 3;

/// Between two of them.
const PAUSE: Duration = Duration::from_millis(500);

/// Sends the documents, one after the other.
///
/// # Errors
/// If the collector cannot be reached, refuses one of them, or takes too long.
pub async fn tell(collector: &Collector, documents: &[Value]) -> Result<()> {
    let all = async {
        let client = client()?;
        let headers = headers(collector)?;
        for document in documents {
            send(&client, collector, &headers, document).await?;
        }
        Ok(())
    };
    let late = || failed(collector, &format!("no answer within {}s", MOST.as_secs()));
    tokio::time::timeout(MOST, all).await.unwrap_or_else(|_| Err(late()))
}

async fn send(client: &reqwest::Client, collector: &Collector, headers: &HeaderMap, document: &Value) -> Result<()> {
    for last in (0..TRIES).map(|n| n + 1 == TRIES) {
        let request = client.post(&collector.url).headers(headers.clone()).body(document.to_string());
        let answer = request.send().await.map_err(|error| failed(collector, &chain(&error.without_url())))?;
        let status = answer.status();
        // OTLP/HTTP names those after which one is to try again.
        let for_now = matches!(status.as_u16(), 429 | 502 | 503 | 504);
        match status.is_success() {
            true => return Ok(()),
            false if for_now && !last => tokio::time::sleep(PAUSE).await,
            false => return Err(failed(collector, &format!("HTTP {}", status.as_u16()))),
        }
    }
    Ok(())
}

fn client() -> Result<reqwest::Client> {
    // An error means that a provider is installed already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder()
        .referer(false)
        .redirect(reqwest::redirect::Policy::none())
        .build()
        .or_else(|_| reqwest::Client::builder().tls_certs_only([]).build())
        .map_err(|error| Error::new(Fault::Unreachable, format!("cannot send spans: {}", chain(&error))))
}

fn headers(collector: &Collector) -> Result<HeaderMap> {
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(USER_AGENT, HeaderValue::from_static(concat!("drover/", env!("CARGO_PKG_VERSION"))));
    for (name, value) in &collector.headers {
        let name = HeaderName::try_from(name.as_str());
        let value = HeaderValue::try_from(value.as_str());
        let (Ok(name), Ok(mut value)) = (name, value) else {
            return Err(Error::usage("OTEL_EXPORTER_OTLP_HEADERS has what can be no header")
                .hint("OTEL_EXPORTER_OTLP_HEADERS=NAME=VALUE,NAME=VALUE"));
        };
        value.set_sensitive(true);
        headers.insert(name, value);
    }
    Ok(headers)
}

fn failed(collector: &Collector, why: &str) -> Error {
    let text = format!("cannot send spans to {}: {why}", public_url(&collector.url));
    Error::new(Fault::Unreachable, text).hint("drover report --otlp-endpoint URL")
}
