//! A place that several machines share, for small files that are no store paths: a directory, a server that takes PUT,
//! or a bucket.
//! It may be one that holds a binary cache, too: all names lie below `drover/`.
//!
//! Nothing depends on it: it is asked with little patience, and that it does not answer is for a warning.

use std::path::{Path, PathBuf};
use std::time::Duration;

use reqwest::Method;

use super::error::CacheError;
use super::file::{self, FileCache};
use super::http::{Fetched, HttpCache};
use super::location::{Location, Place};
use super::login::Auth;
use super::put::Content;
use super::retry::Patience;
use super::s3::S3Cache;
use super::{OpenContext, answer::no_answer};
use crate::event::{Class, Failure};

/// How patient drover is: twice, and then on without it.
const PATIENCE: Patience = Patience {
    attempts: 2,
    delay: Duration::from_millis(100),
    delay_rate_limited: Duration::from_millis(500),
    max_delay: Duration::from_secs(1),
    connect: Duration::from_secs(2),
    answer: Duration::from_secs(5),
    path: Duration::from_secs(8),
    stall: Duration::from_secs(5),
    push: Duration::from_secs(2),
    rest: Duration::ZERO,
    rate_limited_attempts: 3,
};

/// Longest wait for a directory, which may be on another machine.
const DIRECTORY: Duration = Duration::from_secs(5);

/// A place to share files.
#[derive(Debug)]
pub struct Share {
    place: Backend,
    shown: String,
    warnings: Vec<String>,
}

#[derive(Debug)]
enum Backend {
    Directory(PathBuf),
    Server(Box<HttpCache>),
    Bucket(Box<S3Cache>),
}

impl Share {
    /// Reads the URL and finds the login; asks nothing.
    pub fn open(url: &str, token_file: Option<&Path>, context: &OpenContext) -> Result<Self, CacheError> {
        let Location { place, params, shown } = Location::parse(url)?;
        let mut warnings = Vec::new();
        let place = match place {
            Place::File(dir) => Backend::Directory(dir),
            Place::Http(base, login) => {
                let host = base.host_str().unwrap_or_default();
                let auth =
                    Auth::find(token_file, login.as_ref(), context.netrc.as_deref(), host, &shown, &mut warnings)?;
                Backend::Server(Box::new(HttpCache::new(base, auth, &shown, context, PATIENCE)?))
            }
            Place::S3(bucket) => {
                Backend::Bucket(Box::new(S3Cache::at(&bucket, &params.own, &shown, (context, PATIENCE))?))
            }
            _ => {
                let scheme = shown.split(':').next().unwrap_or_default().to_owned();
                return Err(CacheError::Scheme { url: shown, scheme });
            }
        };
        Ok(Self { place, shown, warnings })
    }

    /// What a person should know, one line each.
    #[must_use]
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// Where it is, without login and parameters.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.shown
    }

    /// Where a file is, without login and parameters.
    #[must_use]
    pub fn url_of(&self, name: &str) -> String {
        format!("{}/{}", self.shown, below(name))
    }

    /// Reads a file of at most `limit` bytes; `None` if it is not there.
    pub async fn get(&self, name: &str, limit: usize) -> Result<Option<Vec<u8>>, Failure> {
        match &self.place {
            Backend::Directory(dir) => {
                let path = dir.join(below(name));
                blocking(move || file::read_bounded(&path, limit)).await
            }
            Backend::Server(http) => fetched(http, name, limit).await,
            Backend::Bucket(bucket) => fetched(bucket.http(), name, limit).await,
        }
    }

    /// Writes a file; who reads at the same time sees the old or the new one.
    pub async fn put(&self, name: &str, bytes: Vec<u8>) -> Result<(), Failure> {
        match &self.place {
            Backend::Directory(dir) => {
                let path = dir.join(below(name));
                blocking(move || {
                    let folder = path.parent().unwrap_or(Path::new("/"));
                    std::fs::create_dir_all(folder)?;
                    FileCache::at(folder).put(Path::new(path.file_name().unwrap_or_default()), &bytes)
                })
                .await
            }
            Backend::Server(http) => {
                let (name, content) = (below(name), Content::Bytes(bytes));
                let put = http.put(&name, "application/octet-stream", &content, PATIENCE);
                put.await.map_err(|error| error.failure)
            }
            Backend::Bucket(bucket) => bucket.put_file(&below(name), bytes).await,
        }
    }
}

async fn fetched(http: &HttpCache, name: &str, limit: usize) -> Result<Option<Vec<u8>>, Failure> {
    match http.fetch(Method::GET, &below(name), limit, PATIENCE.attempts).await {
        Fetched::Found(file) => Ok(Some(file.body)),
        Fetched::Missing => Ok(None),
        Fetched::Refused(failure, _) | Fetched::NoAnswer(failure) => Err(failure),
    }
}

/// The name of a file in a place that may hold other things.
fn below(name: &str) -> String {
    format!("drover/{name}")
}

/// Works in a directory, for so long as one may take.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> std::io::Result<T> + Send + 'static) -> Result<T, Failure> {
    match tokio::time::timeout(DIRECTORY, tokio::task::spawn_blocking(work)).await {
        Ok(Ok(Ok(done))) => Ok(done),
        Ok(Ok(Err(error))) => Err(no_answer(Class::Cache, crate::error::without_numbers(&error.to_string()))),
        Ok(Err(error)) => Err(no_answer(Class::Internal, error.to_string())),
        Err(_) => Err(no_answer(Class::Network, format!("no answer within {} s", DIRECTORY.as_secs()))),
    }
}
