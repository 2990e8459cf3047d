//! How drover logs in to a cache on a server, and where it has that from. What is in a login is never shown: no
//! `Debug`, no error and no event has more than its source.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::header::{AUTHORIZATION, DATE, HeaderMap, HeaderValue};
use reqwest::{Client, Request, RequestBuilder, Response, Url};

use super::error::CacheError;
use super::netrc::{self, Login};
use super::s3::Signer;

/// Bytes of a token file that are read at most.
const MAX_TOKEN: u64 = 64 * 1024;

/// Where a login comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LoginSource {
    /// There is none. The netrc file, if there is one to look into, has no entry for the host.
    None {
        /// The file that Nix's `netrc-file` names.
        netrc: Option<PathBuf>,
    },
    /// The cache's URL has a user and a password.
    Url,
    /// This netrc file.
    Netrc(PathBuf),
    /// The `token-file` of drover.toml.
    TokenFile(PathBuf),
    /// This variable of the environment.
    Variable(&'static str),
    /// A profile of the AWS tools.
    Profile {
        /// Which one.
        name: String,
        /// The file that it is in.
        path: PathBuf,
    },
    /// What the client of a cache's maker wrote down.
    Tool {
        /// The client: `Attic`.
        tool: &'static str,
        /// Its configuration.
        path: PathBuf,
    },
    /// There is none where the tools for this kind of cache have theirs.
    Nowhere {
        /// Where that is: `neither … nor …`.
        looked: String,
    },
}

impl LoginSource {
    /// Whether there is a login at all.
    #[must_use]
    pub fn is_some(&self) -> bool {
        !matches!(self, Self::None { .. } | Self::Nowhere { .. })
    }

    /// The token that its file holds now; `None` where it is no token file, or one that is of no use any more.
    pub(super) fn read_again(&self) -> Option<HeaderValue> {
        match self {
            Self::TokenFile(file) => read_token(file).ok().map(|token| token.0),
            _ => None,
        }
    }

    /// What it is called.
    pub(super) fn noun(&self) -> &'static str {
        if matches!(self, Self::TokenFile(_) | Self::Tool { .. }) { "token" } else { "login" }
    }
}

impl fmt::Display for LoginSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None { netrc: None } => f.write_str("no login found: none in its URL, and no token-file"),
            Self::None { netrc: Some(file) } => {
                write!(f, "no login found: none in its URL, no token-file, none for its host in {}", file.display())
            }
            Self::Url => f.write_str("login from: the URL"),
            Self::Netrc(file) => write!(f, "login from: netrc file {}", file.display()),
            Self::Variable(name) => write!(f, "login from: {name}"),
            Self::Profile { name, path } => write!(f, "login from: profile '{name}' in {}", path.display()),
            Self::Tool { tool, path } => write!(f, "token from: {tool}'s configuration {}", path.display()),
            Self::Nowhere { looked } => write!(f, "no login found: {looked}"),
            Self::TokenFile(file) => write!(f, "token from: token-file {}", file.display()),
        }
    }
}

/// What the environment of the process says of logins: variables that the tools of caches' makers read. `Debug` shows
/// none of their values.
#[derive(Clone, Default)]
pub struct LoginEnv(BTreeMap<String, String>);

impl LoginEnv {
    /// The value of a variable; `None` where it is unset or empty.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    /// Where tools keep their configuration: `$XDG_CONFIG_HOME`, else `~/.config`.
    #[must_use]
    pub fn config_home(&self) -> Option<PathBuf> {
        let home = || Some(PathBuf::from(self.get("HOME")?).join(".config"));
        self.get("XDG_CONFIG_HOME").map(PathBuf::from).or_else(home)
    }
}

impl<'a> FromIterator<(&'a str, &'a str)> for LoginEnv {
    fn from_iter<T: IntoIterator<Item = (&'a str, &'a str)>>(vars: T) -> Self {
        Self(vars.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect())
    }
}

impl fmt::Debug for LoginEnv {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

/// What goes along with every request.
#[derive(Debug, Clone)]
pub(super) struct Auth {
    /// Marked as sensitive, so that no `Debug` shows it.
    pub(super) header: Option<HeaderValue>,
    /// Signs each request by itself, where the server wants that (S3).
    pub(super) signer: Option<Arc<Signer>>,
    pub(super) source: LoginSource,
}

impl Auth {
    /// Puts the login into a request that is complete otherwise: what is signed must not change any more.
    pub(super) fn authorize(&self, request: &mut Request) {
        if let Some(header) = &self.header {
            request.headers_mut().insert(AUTHORIZATION, header.clone());
        }
        self.sign(request);
    }

    /// Signs a request, where the server wants that.
    pub(super) fn sign(&self, request: &mut Request) {
        if let Some(signer) = &self.signer {
            signer.sign(request);
        }
    }

    /// Looks at an answer: a server that does not take a signature because of our clock says what its own is.
    pub(super) fn heard(&self, headers: &HeaderMap, code: Option<&str>) {
        let date = headers.get(DATE).and_then(|date| jiff::fmt::rfc2822::parse(date.to_str().ok()?).ok());
        if let (Some(signer), Some("RequestTimeTooSkewed"), Some(date)) = (&self.signer, code, date) {
            signer.set_clock(date.timestamp().as_second());
        }
    }

    /// Sends a request with the login, if it goes to the server that the login is for.
    pub(super) async fn send(&self, client: &Client, base: &Url, request: RequestBuilder) -> reqwest::Result<Response> {
        let mut request = request.build()?;
        // What a record names may be on another host, which has no business with this one's login.
        if request.url().origin() == base.origin() {
            self.authorize(&mut request);
        }
        client.execute(request).await
    }

    /// The token in this file, for the cache that people know as `url`.
    pub(super) fn token_file(file: &Path, url: &str) -> Result<Self, CacheError> {
        let token = read_token(file).map_err(|why| CacheError::Token { url: url.to_owned(), why })?;
        Ok(Self { header: Some(token.0), signer: None, source: LoginSource::TokenFile(file.to_owned()) })
    }

    /// This token; `None` if it is none.
    pub(super) fn token(token: &str, source: LoginSource) -> Option<Self> {
        let token = Some(token.trim()).filter(|token| !token.is_empty() && !token.contains(char::is_whitespace))?;
        Some(Self { header: Some(secret(&format!("Bearer {token}"))?), signer: None, source })
    }

    /// This user and password, or nothing.
    pub(super) fn basic(login: Option<&Login>, source: LoginSource) -> Self {
        Self { header: login.and_then(basic), signer: None, source }
    }

    /// The token file, else the login of the URL, else the one of the netrc file. A netrc file that cannot be read
    /// is worth a warning.
    pub(super) fn find(
        token_file: Option<&Path>,
        of_url: Option<&Login>,
        netrc: Option<&Path>,
        host: &str,
        url: &str,
        warnings: &mut Vec<String>,
    ) -> Result<Self, CacheError> {
        if let Some(file) = token_file {
            return Self::token_file(file, url);
        }
        if let Some(login) = of_url {
            return Ok(Self { header: basic(login), signer: None, source: LoginSource::Url });
        }
        let found = netrc.and_then(|file| match netrc::login(file, host) {
            Ok(login) => Some((file, login?)),
            Err(error) => {
                warnings.push(format!("cannot read the netrc file '{}': {error}", file.display()));
                None
            }
        });
        Ok(match found {
            Some((file, login)) => {
                Self { header: basic(&login), signer: None, source: LoginSource::Netrc(file.to_owned()) }
            }
            None => Self { header: None, signer: None, source: LoginSource::None { netrc: netrc.map(Path::to_owned) } },
        })
    }
}

/// Why a token file is of no use. Says nothing of what is in it.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// It cannot be read.
    #[error("cannot read '{}'", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Nothing is in it.
    #[error("'{}' is empty", path.display())]
    Empty {
        /// The file.
        path: PathBuf,
    },
    /// It holds more than one word.
    #[error("'{}' holds no token: a token is one word without blanks", path.display())]
    Format {
        /// The file.
        path: PathBuf,
    },
}

impl TokenError {
    /// Which file.
    pub(super) fn path(&self) -> &Path {
        match self {
            Self::Read { path, .. } | Self::Empty { path } | Self::Format { path } => path,
        }
    }
}

/// `Bearer TOKEN`.
pub(super) struct Token(HeaderValue);

/// Reads a token file; white space around the token is ignored.
pub(super) fn read_token(path: &Path) -> Result<Token, TokenError> {
    use std::io::Read as _;
    let mut text = String::new();
    std::fs::File::open(path)
        .and_then(|file| file.take(MAX_TOKEN).read_to_string(&mut text))
        .map_err(|source| TokenError::Read { path: path.to_owned(), source })?;
    let token = text.trim();
    if token.is_empty() {
        return Err(TokenError::Empty { path: path.to_owned() });
    }
    let header = Some(token).filter(|token| !token.contains(char::is_whitespace));
    let header = header.and_then(|token| secret(&format!("Bearer {token}")));
    header.map(Token).ok_or_else(|| TokenError::Format { path: path.to_owned() })
}

fn basic(login: &Login) -> Option<HeaderValue> {
    secret(&format!("Basic {}", STANDARD.encode(format!("{}:{}", login.user, login.password))))
}

fn secret(text: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_str(text).ok()?;
    value.set_sensitive(true);
    Some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_login_wins_and_is_never_shown() {
        let dir = tempfile::tempdir().unwrap();
        let (netrc, token) = (dir.path().join("netrc"), dir.path().join("token"));
        std::fs::write(&netrc, "machine h login me password pw\n").unwrap();
        std::fs::write(&token, "\n t0ken \n").unwrap();
        let url = Login { user: "you".into(), password: "hunter2".into() };
        let find = |token: Option<&Path>, url: Option<&Login>, host: &str| {
            let auth = Auth::find(token, url, Some(&netrc), host, "http://h", &mut Vec::new()).unwrap();
            assert!(auth.header.iter().all(HeaderValue::is_sensitive));
            // The directory has a random name, in which any two letters may stand.
            let shown = format!("{auth:?} {}", auth.source).replace(&*dir.path().to_string_lossy(), "DIR");
            for secret in ["t0ken", "hunter2", "pw", "eW91"] {
                assert!(!shown.replace("netrc", "").contains(secret), "{shown}");
            }
            (auth.header.map(|header| header.as_bytes().to_owned()), auth.source)
        };
        let bytes = |text: &str| Some(text.as_bytes().to_owned());
        assert_eq!(find(Some(&token), Some(&url), "h"), (bytes("Bearer t0ken"), LoginSource::TokenFile(token.clone())));
        assert_eq!(find(None, Some(&url), "h"), (bytes("Basic eW91Omh1bnRlcjI="), LoginSource::Url));
        assert_eq!(find(None, None, "h"), (bytes("Basic bWU6cHc="), LoginSource::Netrc(netrc.clone())));
        assert_eq!(find(None, None, "other"), (None, LoginSource::None { netrc: Some(netrc.clone()) }));
    }

    #[test]
    fn token_files_hold_one_word() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        let why = |text: &str| {
            std::fs::write(&path, text).unwrap();
            read_token(&path).err().map(|error| error.to_string())
        };
        assert_eq!(why("abc\n"), None);
        assert!(why(" \n").unwrap().ends_with("is empty"));
        for odd in ["two words", "line\nline", "\u{7}bell"] {
            let why = why(odd).unwrap();
            assert!(why.contains("holds no token") && !why.contains(odd), "{why}");
        }
        assert!(matches!(read_token(&dir.path().join("none")), Err(TokenError::Read { .. })));
    }
}
