//! A cache of an Attic server (`attic:[SERVER:]CACHE`, `attic:https://HOST/CACHE`).
//!
//! The server compresses, cuts into pieces and signs by itself; it gets each NAR as it is, in one request, and shows
//! the path as soon as it has all of it. So a path is sent only after all that it refers to. It answers for many paths
//! at once, to those who may push. It is read as a plain cache is, at the place that it names; a record there is made
//! for each question from what it holds, so there is none without its NAR.
//!
//! Source of the protocol: the JSON messages of Attic's own client and server, version 1 (`/_api/v1`).

mod server;
mod upload;

use std::collections::BTreeSet;
use std::sync::Arc;

use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};
use reqwest::{Method, Url};
use serde::{Deserialize, Serialize};

use super::answer::Trust;
use super::api::{Api, Call, CallFailure, Reply};
use super::backend::Opening;
use super::error::CacheError;
use super::http::HttpCache;
use super::info::CacheInfo;
use super::location::AtticPlace;
use super::retry::Patience;
use super::{Held, LoginSource};
use crate::event::{Class, Failure};
use crate::id::{StoreDir, StorePath};
use crate::nix_compat::narinfo::nixbase32;

use server::Server;

/// Parameters of its URL besides those of all caches.
pub(super) const PARAMS: &[&str] = &[];

/// Paths that one question names at most. The server takes 2 MiB of JSON, and its database takes so many at once.
const QUESTION: usize = 16_000;

/// Questions at once.
const QUESTIONS: usize = 4;

/// Uploads at once. The server has several requests to its database for each, and cuts large NARs into thousands of
/// pieces; its own client sends 5 at once.
const UPLOADS: usize = 16;

/// See the module's page.
#[derive(Debug)]
pub(super) struct AtticCache {
    api: Api,
    /// Where its calls go; ends in a slash.
    endpoint: Url,
    cache: String,
    store_dir: StoreDir,
    http: Arc<HttpCache>,
    /// Whether it answers for many paths at once: whether the login may push.
    is_bulk: bool,
}

/// What the server says of a cache. All of it may be missing.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct About {
    /// Where the plain cache is.
    substituter_endpoint: Option<String>,
    /// Where all other calls go.
    api_endpoint: Option<String>,
    /// The directory of the stores that it is for.
    store_dir: Option<String>,
    priority: Option<i32>,
}

#[derive(Serialize)]
struct Question<'a> {
    cache: &'a str,
    store_path_hashes: &'a [String],
}

#[derive(Deserialize)]
struct Missing {
    missing_paths: BTreeSet<String>,
}

impl AtticCache {
    /// Asks the server what it says of the cache, and whether the login may push; reads the `nix-cache-info`.
    pub(super) async fn open(
        place: &AtticPlace,
        opening: &Opening<'_>,
        warnings: &mut Vec<String>,
    ) -> Result<(Self, CacheInfo), CacheError> {
        let Server { endpoint, cache, auth } = Server::find(place, opening, warnings)?;
        let patience = opening.patience();
        let api = Api::new(&endpoint, auth.clone(), opening.shown, opening.context, patience)?;
        let denied = |failure| api.refusal(failure, opening.config.push);
        let about = about(&api, &endpoint, &cache).await.map_err(|failure| match failure.status {
            Some(404) => CacheError::NoSuchCache { url: opening.shown.to_owned(), name: cache.clone() },
            _ => denied(failure),
        })?;
        let bad = |why: String| CacheError::Url { url: opening.shown.to_owned(), why };
        let elsewhere = |url: Option<&String>| url.map(|url| moved(&endpoint, url)).transpose().map_err(bad);
        let calls = elsewhere(about.api_endpoint.as_ref())?.unwrap_or_else(|| endpoint.clone());
        let plain = match elsewhere(about.substituter_endpoint.as_ref())? {
            Some(plain) => plain,
            None => endpoint.join(&format!("{cache}/")).map_err(|error| bad(error.to_string()))?,
        };
        let is_bulk = match missing(&api, &calls, &cache, &[], patience.brief()).await {
            Ok(_) => true,
            Err(failure) if opening.config.push => return Err(denied(failure)),
            Err(_) => false,
        };
        // The server says itself that this is its place, too.
        let read = HttpCache::open(plain, auth, opening.shown, opening.context, patience, false).await;
        let (http, info) = read?;
        let info = CacheInfo {
            store_dir: info.store_dir.or(about.store_dir),
            priority: info.priority.or(about.priority),
            ..info
        };
        let store_dir = opening.context.store_dir.clone();
        Ok((Self { api, endpoint: calls, cache, store_dir, http: Arc::new(http), is_bulk }, info))
    }

    /// Where it is read from.
    pub(super) fn http(&self) -> &Arc<HttpCache> {
        &self.http
    }

    /// Where its login comes from.
    pub(super) fn login(&self) -> &LoginSource {
        self.api.source()
    }

    /// Requests sent so far, those of reading included.
    pub(super) fn requests(&self) -> u64 {
        self.api.requests() + self.http.requests()
    }

    /// Whether one question tells of all paths what it lacks.
    pub(super) fn is_bulk(&self) -> bool {
        self.is_bulk
    }

    /// Paths that are best sent at once.
    pub(super) fn parallel(&self) -> usize {
        UPLOADS
    }

    /// Which of these paths it lacks.
    pub(super) async fn missing(&self, paths: &[StorePath]) -> Result<Vec<bool>, Failure> {
        let hashes: Vec<String> = paths.iter().map(|path| nixbase32::encode(path.digest())).collect();
        let questions: Vec<Vec<String>> = hashes.chunks(QUESTION).map(<[String]>::to_vec).collect();
        let asked = stream::iter(questions)
            .map(async |some| missing(&self.api, &self.endpoint, &self.cache, &some, self.api.patience).await);
        let answers = asked.buffer_unordered(QUESTIONS).try_collect::<Vec<_>>().await;
        let lacks: BTreeSet<String> = answers.map_err(|failed| failed.failure)?.into_iter().flatten().collect();
        Ok(hashes.iter().map(|hash| lacks.contains(hash)).collect())
    }

    /// Reads records. Their NARs are not asked for: the server has them, and may answer such a question by sending it
    /// on to a store that only takes downloads.
    pub(super) async fn inspect(&self, trust: &Arc<Trust>, paths: &[StorePath]) -> Vec<Result<Option<Held>, Failure>> {
        self.http.records(trust, paths).await
    }
}

async fn about(api: &Api, endpoint: &Url, cache: &str) -> Result<About, CallFailure> {
    let url = join(endpoint, &format!("_api/v1/cache-config/{cache}"))?;
    api.call(&Call::new(Method::GET, url), api.patience.brief()).await?.json()
}

/// Those of the hash parts that the cache lacks. A server that takes no question of that size gets smaller ones.
async fn missing(
    api: &Api,
    endpoint: &Url,
    cache: &str,
    hashes: &[String],
    patience: Patience,
) -> Result<BTreeSet<String>, CallFailure> {
    let url = join(endpoint, "_api/v1/get-missing-paths")?;
    let ask = async |some: &[String]| -> Result<Reply, CallFailure> {
        let question = Question { cache, store_path_hashes: some };
        api.call(&Call::new(Method::POST, url.clone()).json(&question)?, patience).await
    };
    let (mut lacks, mut rest, mut size) = (BTreeSet::new(), hashes, hashes.len());
    loop {
        let (some, after) = rest.split_at(size.min(rest.len()));
        match ask(some).await {
            Ok(reply) => lacks.extend(reply.json::<Missing>()?.missing_paths),
            Err(CallFailure { status: Some(413), .. }) if some.len() > 1 => {
                size = some.len() / 2;
                continue;
            }
            Err(failure) => return Err(failure),
        }
        rest = after;
        if rest.is_empty() {
            return Ok(lacks);
        }
    }
}

fn join(endpoint: &Url, path: &str) -> Result<Url, CallFailure> {
    endpoint.join(path).map_err(|error| CallFailure::here(Class::Cache, format!("'{path}' is no URL: {error}")))
}

/// A place that the server names, with a slash at the end. Not one that would send the login in the clear where it was
/// not before.
pub(super) fn moved(from: &Url, to: &str) -> Result<Url, String> {
    let mut url = Url::parse(to).map_err(|error| format!("the server names a place that is no URL: {error}"))?;
    if !matches!(url.scheme(), "http" | "https") || url.scheme() == "http" && from.scheme() == "https" {
        return Err(format!("the server names a place that is not safe: {}://…", url.scheme()));
    }
    if !url.path().ends_with('/') {
        let path = format!("{}/", url.path());
        url.set_path(&path);
    }
    Ok(url)
}
