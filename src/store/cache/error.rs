//! Why a cache cannot be used at all. What it says about one path is an [`Answer`](super::Answer), never an error.

use std::path::PathBuf;

use super::keys::SecretKeyError;
use super::login::{LoginSource, TokenError};
use super::s3::ProfileError;
use crate::error::{self, Fault};
use crate::nix_compat::narinfo::KeyError;

/// A cache could not be opened, or not be written to. URLs in here carry no credentials and no parameters.
#[derive(Debug, thiserror::Error)]
pub enum CacheError {
    /// A kind of cache that drover does not speak.
    #[error(
        "cannot use cache '{url}': drover has no client for '{scheme}', only for file:, http:, https:, s3:, cachix:, attic: and niks3:"
    )]
    Scheme {
        /// The cache.
        url: String,
        /// The scheme of its URL; empty for a bare path.
        scheme: String,
    },
    /// The URL, or one of its parameters, cannot be read.
    #[error("cannot use cache '{url}': {why}")]
    Url {
        /// The cache.
        url: String,
        /// What is wrong.
        why: String,
    },
    /// There is no `nix-cache-info`.
    #[error("'{url}' is no binary cache: it has no nix-cache-info")]
    NotACache {
        /// The cache.
        url: String,
    },
    /// The cache is for a store in another directory.
    #[error("cannot use cache '{url}': it is for the store {theirs}, this store is {ours}")]
    StoreDir {
        /// The cache.
        url: String,
        /// Its store directory.
        theirs: String,
        /// The directory of the store in force.
        ours: String,
    },
    /// The server wants another login, or any.
    #[error("{}", denied(url, *status, login, *push))]
    Denied {
        /// The cache.
        url: String,
        /// 401, 403 or 407; 0 where nobody had to be asked.
        status: u16,
        /// What it was given.
        login: LoginSource,
        /// It was to be pushed to.
        push: bool,
    },
    /// The token file is of no use.
    #[error("cannot log in to cache '{url}'")]
    Token {
        /// The cache.
        url: String,
        /// Which file, and why.
        #[source]
        why: TokenError,
    },
    /// The keys for S3 are of no use.
    #[error("cannot log in to cache '{url}'")]
    Profile {
        /// The cache.
        url: String,
        /// Where they should be, and why.
        #[source]
        why: ProfileError,
    },
    /// The bucket wants other keys, or any.
    #[error("{url} {} for {}: {why}\n{login}", if login.is_some() { "refuses these keys" } else { "wants keys" }, if *push { "pushing" } else { "reading" })]
    Keys {
        /// The cache.
        url: String,
        /// What it says.
        why: String,
        /// What it was given.
        login: LoginSource,
        /// It was to be pushed to.
        push: bool,
    },
    /// What the client of a cache's maker wrote down is of no use.
    #[error("cannot use cache '{url}': '{}' {why}", path.display())]
    ToolConfig {
        /// The cache.
        url: String,
        /// The client's configuration.
        path: PathBuf,
        /// What is wrong with it: `has no server 'ci'`.
        why: String,
    },
    /// The server is there, and has no such cache.
    #[error("cannot use cache '{url}': the server has no cache '{name}'")]
    NoSuchCache {
        /// The cache.
        url: String,
        /// Its name on the server.
        name: String,
    },
    /// The cache gave no answer.
    #[error("cache '{url}' gave no answer: {}", why.trim_start_matches("error sending request: client error (Connect): "))]
    Unreachable {
        /// The cache.
        url: String,
        /// The last failure.
        why: String,
    },
    /// The server answers, but not as it should: it may be well again in a while.
    #[error("cache '{url}' is not well: {why}")]
    Sick {
        /// The cache.
        url: String,
        /// The last failure.
        why: String,
    },
    /// TLS cannot be set up on this machine.
    #[error("cannot set up TLS for cache '{url}': {why}")]
    Tls {
        /// The cache.
        url: String,
        /// Why.
        why: String,
    },
    /// A secret key is of no use.
    #[error("cannot use the signing key of cache '{url}'")]
    SecretKey {
        /// The cache.
        url: String,
        /// Which file, and why.
        #[source]
        source: SecretKeyError,
    },
    /// A public key is of no use.
    #[error("cannot use the public key '{key}'")]
    PublicKey {
        /// The key, which is no secret.
        key: String,
        /// Why.
        source: KeyError,
    },
    /// Drover cannot compress like that.
    #[error("cannot push to cache '{url}' with compression '{compression}'")]
    Compression {
        /// The cache.
        url: String,
        /// The name of the compression.
        compression: String,
    },
    /// The server takes no files.
    #[error("cannot push to cache '{url}': it takes no uploads (HTTP {status})\n{login}")]
    ReadOnly {
        /// The cache.
        url: String,
        /// 404, 405, 410 or 501.
        status: u16,
        /// What it was given.
        login: LoginSource,
    },
    /// Nothing can be written there.
    #[error("cannot write to cache '{url}'")]
    Write {
        /// The cache.
        url: String,
        /// Why.
        source: std::io::Error,
    },
    /// A file of a `file://` cache could not be read or written.
    #[error("cannot {act} '{}'", path.display())]
    Io {
        /// `read`, `create`, …
        act: &'static str,
        /// Which file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

fn denied(url: &str, status: u16, login: &LoginSource, push: bool) -> String {
    let host = url.split_once("://").map_or(url, |(_, rest)| rest);
    let purpose = if push { " for pushing" } else { "" };
    let status = if status == 0 { String::new() } else { format!(" (HTTP {status})") };
    match login.is_some() {
        true => format!("{host} refuses this {}{purpose}{status}\n{login}", login.noun()),
        false => format!("{host} wants a login{purpose}{status}\n{login}"),
    }
}

/// What to type to see what a cache answers.
#[must_use]
pub fn by_hand(url: &str) -> String {
    match url.split_once(':') {
        Some(("nix", store)) => format!("nix store info --store '{store}'"),
        Some(("cachix", name)) => format!("curl -v https://cachix.org/api/v1/cache/{name}"),
        Some(("attic" | "s3", _)) => "drover doctor    looks at it more closely".to_owned(),
        Some(("niks3", server)) => format!("curl -v {server}"),
        _ => format!("curl -v {url}/nix-cache-info"),
    }
}

/// What mends a refused login.
fn login_hint(url: &str, login: &LoginSource, push: bool) -> String {
    let place = url.split_once("://").map_or(url, |(_, rest)| rest);
    let right = if push { "write" } else { "read" };
    match login {
        LoginSource::None { netrc: Some(file) } => {
            let host = place.split(['/', ':']).next().unwrap_or(place);
            format!("echo 'machine {host} login USER password SECRET' >> {}", file.display())
        }
        LoginSource::None { netrc: None } => "token-file = FILE in its [cache.NAME] of drover.toml".to_owned(),
        LoginSource::Nowhere { .. } if url.starts_with("cachix:") => {
            "export CACHIX_AUTH_TOKEN=TOKEN    or token-file = FILE in drover.toml, or: cachix authtoken TOKEN"
                .to_owned()
        }
        login => format!("the {} needs \"{right}\" on {place}", login.noun()),
    }
}

impl CacheError {
    /// Whether the cache is fine for reading but takes nothing, or nothing from us.
    #[must_use]
    pub fn is_refusal(&self) -> bool {
        matches!(self, Self::Denied { .. } | Self::Keys { .. } | Self::ReadOnly { .. })
    }

    /// Whether it was given no login at all.
    #[must_use]
    pub fn has_no_login(&self) -> bool {
        matches!(self, Self::Denied { login, .. } | Self::Keys { login, .. } | Self::ReadOnly { login, .. } if !login.is_some())
    }
}

impl From<CacheError> for error::Error {
    fn from(error: CacheError) -> Self {
        let (fault, hint) = match &error {
            CacheError::Scheme { url, scheme } if scheme.is_empty() => {
                (Fault::Usage, Some(format!("write a directory as file://{url}")))
            }
            CacheError::Scheme { url, .. } => (
                Fault::Usage,
                Some(format!("nix:{url}    for what only Nix writes to; it is pushed to, and never read")),
            ),
            CacheError::Url { .. } => {
                (Fault::Usage, Some("a URL reads file:///path?secret-key=FILE or https://host".into()))
            }
            CacheError::NotACache { url } if url.starts_with("file:") => (
                Fault::Usage,
                Some("check the path; a cache that is pushed to (push = true) is created if it does not exist".into()),
            ),
            CacheError::NotACache { url } => {
                (Fault::Usage, Some(format!("check the URL: {url}/nix-cache-info must exist")))
            }
            CacheError::StoreDir { .. } => (
                Fault::Usage,
                Some(
                    "leave this cache out: its paths cannot be used in this store (nix config show substituters)"
                        .into(),
                ),
            ),
            CacheError::Denied { url, login, push, .. } => (Fault::Usage, Some(login_hint(url, login, *push))),
            CacheError::Token { why, .. } => {
                (Fault::Usage, Some(format!("ls -l {}    it holds one token and nothing else", why.path().display())))
            }
            CacheError::Keys { push, .. } => {
                let needs = if *push { "s3:PutObject, s3:GetObject" } else { "s3:GetObject" };
                let hint = format!(
                    "aws sts get-caller-identity    says who these keys are; they need {needs} and s3:ListBucket"
                );
                (Fault::Usage, Some(hint))
            }
            CacheError::Profile { .. } => (
                Fault::Usage,
                Some(
                    "export AWS_ACCESS_KEY_ID=… AWS_SECRET_ACCESS_KEY=…    or both in a profile: ~/.aws/credentials"
                        .into(),
                ),
            ),
            CacheError::ToolConfig { url, .. } if url.starts_with("cachix:") => (
                Fault::Usage,
                Some("cachix authtoken TOKEN    writes it; or move it away and export CACHIX_AUTH_TOKEN=TOKEN".into()),
            ),
            CacheError::ToolConfig { .. } => (
                Fault::Usage,
                Some(
                    "attic login NAME https://HOST TOKEN    writes it; or name the server: attic:https://HOST/CACHE"
                        .into(),
                ),
            ),
            CacheError::NoSuchCache { url, name } if url.starts_with("cachix:") => {
                (Fault::Usage, Some(format!("check its name; https://app.cachix.org/cache/{name} must exist")))
            }
            CacheError::NoSuchCache { name, .. } => {
                (Fault::Usage, Some(format!("check its name; attic cache create {name}    makes it")))
            }
            CacheError::Unreachable { url, .. } | CacheError::Sick { url, .. } => (
                Fault::Unreachable,
                Some(format!("{}    or go on without any cache: drover run --offline", by_hand(url))),
            ),
            CacheError::Tls { .. } => {
                (Fault::Usage, Some("set NIX_SSL_CERT_FILE to a file with the certificates to trust".into()))
            }
            CacheError::SecretKey { .. } => (
                Fault::Usage,
                Some("nix key generate-secret --key-name NAME-1 > FILE    makes one, for ?secret-key=FILE".into()),
            ),
            CacheError::PublicKey { .. } => (Fault::Usage, Some("a public key reads NAME:BASE64".into())),
            CacheError::Compression { .. } => (Fault::Usage, Some("use compression = \"zstd\" or \"none\"".into())),
            CacheError::ReadOnly { url, .. } => (
                Fault::Usage,
                Some(format!("curl -v -T FILE {url}/nix-cache-info    may be another URL is for uploads")),
            ),
            CacheError::Write { .. } => {
                (Fault::Usage, Some("ls -ld that directory: this user must be able to write there".into()))
            }
            CacheError::Io { path, .. } => {
                let dir = path.parent().unwrap_or(path);
                (Fault::Unreachable, Some(format!("ls -ld {}    a file:// cache is a directory", dir.display())))
            }
        };
        let edge = error::Error::from_chain(fault, &error);
        match hint {
            Some(hint) => edge.hint(hint),
            None => edge,
        }
    }
}
