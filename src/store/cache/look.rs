//! One look at a cache, for people who want to know what is wrong with it: one request, no patience, nothing written.
//!
//! Says more than [`Cache::open`](super::Cache::open): what kind of failure it was, whether a login was found, and what
//! the server's clock says.

use std::path::{Path, PathBuf};

use reqwest::Url;
use reqwest::header::{AUTHORIZATION, DATE, HeaderValue};

use super::error::CacheError;
use super::file::FileCache;
use super::http;
use super::info::{self, CacheInfo};
use super::location::{Location, Place};
use super::login::{Auth, LoginSource};
use super::{Cache, CacheConfig, OpenContext};
use crate::error::chain;
use crate::id::{CacheId, StoreDir, StorePath};

/// Records of a directory that are read at most.
const SAMPLE: usize = 32;

/// What one look at a cache found.
#[derive(Debug)]
pub struct Look {
    /// The URL without login and parameters.
    pub shown: String,
    /// Its host; `None` for a directory.
    pub host: Option<String>,
    /// Its directory; `None` for a server.
    pub dir: Option<PathBuf>,
    /// Key files that its URL names.
    pub secret_keys: Vec<PathBuf>,
    /// Its URL says that its paths need no signature.
    pub trusted: bool,
    /// Where the login that was sent is from; `None` for a directory.
    pub login: Option<LoginSource>,
    /// The server's clock, in seconds since 1970.
    pub date: Option<i64>,
    /// Some paths that a directory has records of.
    pub sample: Vec<StorePath>,
    /// What it says about itself, or why it does not.
    pub info: Result<CacheInfo, Trouble>,
}

/// Why a cache says nothing about itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trouble {
    /// The host has no address.
    NoSuchHost,
    /// Nobody listens.
    Refused,
    /// Nobody answered in time.
    TimedOut,
    /// The connection could not be made safe.
    Tls(String),
    /// Anything else on the way.
    Broken(String),
    /// An HTTP status that is no answer.
    Status(u16),
    /// There is no `nix-cache-info`.
    NotACache,
    /// `nix-cache-info` cannot be read.
    Garbage(String),
}

/// Looks once, at most as long as an answer may take. An error is a URL or a token file that cannot be used.
pub async fn look(config: &CacheConfig, context: &OpenContext) -> Result<Look, CacheError> {
    let location = Location::parse(&config.url)?;
    let mut look = Look {
        shown: location.shown.clone(),
        host: None,
        dir: None,
        secret_keys: location.params.secret_keys.clone(),
        trusted: location.params.trusted.unwrap_or(false),
        login: None,
        date: None,
        sample: Vec::new(),
        info: Err(Trouble::NotACache),
    };
    match location.place {
        Place::File(dir) => {
            look.dir = Some(dir.clone());
            let (shown, store_dir) = (look.shown.clone(), context.store_dir.clone());
            // A directory may be on another machine, and block.
            let read = tokio::task::spawn_blocking(move || read(&dir, &shown, &store_dir)).await;
            match read {
                Ok((info, sample)) => (look.info, look.sample) = (info, sample),
                Err(error) => look.info = Err(Trouble::Broken(error.to_string())),
            }
        }
        Place::Http(base, login) => {
            let host = base.host_str().unwrap_or_default().to_owned();
            // That a netrc file cannot be read is told by who looks at that.
            let auth = Auth::find(
                config.token_file.as_deref(),
                login.as_ref(),
                context.netrc.as_deref(),
                &host,
                &look.shown,
                &mut Vec::new(),
            )?;
            look.login = Some(auth.source);
            look.host = Some(host);
            let asked = ask(&base, &look.shown, auth.header, context);
            let asked = tokio::time::timeout(context.patience.answer, asked);
            (look.info, look.date) = asked.await.unwrap_or((Err(Trouble::TimedOut), None));
        }
        Place::S3(_) | Place::Cachix(_) | Place::Attic(_) | Place::Niks3(..) => {
            (look.info, look.login) = opened(config, context).await?;
        }
        Place::Copy(_) => return Err(CacheError::Url { url: look.shown, why: "only Nix reads it".to_owned() }),
    }
    Ok(look)
}

/// What a service or a bucket says about itself, and where its login is from: it is opened for reading.
async fn opened(
    config: &CacheConfig,
    context: &OpenContext,
) -> Result<(Result<CacheInfo, Trouble>, Option<LoginSource>), CacheError> {
    let opened = Cache::open(CacheId(0), CacheConfig { push: false, ..config.clone() }, context).await;
    match opened {
        Ok(cache) => {
            let (priority, want_mass_query) = (Some(cache.priority()), cache.want_mass_query());
            Ok((Ok(CacheInfo { store_dir: None, want_mass_query, priority }), cache.login().cloned()))
        }
        Err(CacheError::Keys { login, .. }) => Ok((Err(Trouble::Status(403)), Some(login))),
        Err(CacheError::Denied { login, status, .. }) => Ok((Err(Trouble::Status(status)), Some(login))),
        Err(CacheError::NotACache { .. }) => Ok((Err(Trouble::NotACache), None)),
        Err(CacheError::Unreachable { why, .. } | CacheError::Sick { why, .. }) => {
            Ok((Err(Trouble::Broken(why)), None))
        }
        Err(error) => Err(error),
    }
}

/// The body of `nix-cache-info` and the server's clock.
async fn ask(
    base: &Url,
    shown: &str,
    login: Option<HeaderValue>,
    context: &OpenContext,
) -> (Result<CacheInfo, Trouble>, Option<i64>) {
    let client = match http::client(base, shown, context, context.patience.answer) {
        Ok(client) => client,
        Err(CacheError::Tls { why, .. }) => return (Err(Trouble::Tls(why)), None),
        Err(error) => return (Err(Trouble::Tls(chain(&error))), None),
    };
    let Ok(url) = base.join(info::NAME) else { return (Err(Trouble::NotACache), None) };
    let mut request = client.get(url);
    if let Some(login) = login {
        request = request.header(AUTHORIZATION, login);
    }
    let mut response = match request.send().await {
        Ok(response) => response,
        Err(error) => return (Err(broken(error)), None),
    };
    let date = response.headers().get(DATE).and_then(|date| date.to_str().ok());
    let date = date.and_then(|date| jiff::fmt::rfc2822::parse(date).ok()).map(|date| date.timestamp().as_second());
    let status = response.status();
    match status.as_u16() {
        404 | 410 => return (Err(Trouble::NotACache), date),
        code if !status.is_success() => return (Err(Trouble::Status(code)), date),
        _ => {}
    }
    let mut body = Vec::new();
    loop {
        match response.chunk().await {
            Ok(Some(chunk)) if body.len() + chunk.len() > info::MAX_SIZE => {
                return (Err(Trouble::Garbage("it is too long".to_owned())), date);
            }
            Ok(Some(chunk)) => body.extend_from_slice(&chunk),
            Ok(None) => return (CacheInfo::parse(&body).map_err(Trouble::Garbage), date),
            Err(error) => return (Err(broken(error)), date),
        }
    }
}

/// What a transport error comes down to. The URL, which may say more than people should see, is left out.
fn broken(error: reqwest::Error) -> Trouble {
    let error = error.without_url();
    let timed_out = error.is_timeout();
    let mut source: Option<&(dyn std::error::Error + 'static)> = Some(&error);
    while let Some(cause) = source {
        if let Some(io) = cause.downcast_ref::<std::io::Error>() {
            match io.kind() {
                std::io::ErrorKind::ConnectionRefused => return Trouble::Refused,
                std::io::ErrorKind::TimedOut => return Trouble::TimedOut,
                _ => {}
            }
        }
        source = cause.source();
    }
    let text = chain(&error);
    let text = text.trim_start_matches("error sending request: ").trim_start_matches("client error (Connect): ");
    let tls = ["certificate", "tls", "TLS", "handshake", "UnknownIssuer"];
    if timed_out {
        Trouble::TimedOut
    } else if text.contains("dns error") {
        Trouble::NoSuchHost
    } else if tls.iter().any(|word| text.contains(word)) {
        Trouble::Tls(text.to_owned())
    } else {
        Trouble::Broken(text.to_owned())
    }
}

/// What a directory says about itself, and some paths of it.
fn read(dir: &Path, shown: &str, store_dir: &StoreDir) -> (Result<CacheInfo, Trouble>, Vec<StorePath>) {
    let info = match FileCache::open(dir, shown, store_dir, false) {
        Ok((_, info)) => Ok(info),
        Err(CacheError::NotACache { .. }) => Err(Trouble::NotACache),
        Err(error) => Err(Trouble::Broken(chain(&error))),
    };
    (info, sample(dir, store_dir))
}

/// Paths of the first records that a directory lists.
fn sample(dir: &Path, store_dir: &StoreDir) -> Vec<StorePath> {
    use std::io::Read as _;
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let records = entries.map(|entry| entry.path()).filter(|path| path.extension().is_some_and(|e| e == "narinfo"));
    let path = |record: PathBuf| {
        let mut text = String::new();
        std::fs::File::open(record).ok()?.take(16 * 1024).read_to_string(&mut text).ok()?;
        let line = text.lines().find_map(|line| line.strip_prefix("StorePath: "))?;
        let base = line.trim().strip_prefix(store_dir.as_str())?.strip_prefix('/')?;
        StorePath::from_basename(base.as_bytes()).ok()
    };
    records.take(SAMPLE).filter_map(path).collect()
}
