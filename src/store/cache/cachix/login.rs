//! The login and the signing key for a cache of Cachix, where Cachix's own client has them, and the place of the service.
//!
//! Source: the client looks into its variables first and then into `cachix/cachix.dhall` of the user's configuration.

use std::fmt;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::Url;
use reqwest::header::HeaderValue;

use super::super::backend::Opening;
use super::super::error::CacheError;
use super::super::file::read_bounded;
use super::super::keys::SecretKey;
use super::super::login::{Auth, LoginSource};
use super::super::netrc::Login;
use super::config::Config;

/// Where the service is, unless somebody says otherwise.
const HOST: &str = "https://cachix.org";

/// Bytes of the configuration that are read at most.
const MAX_FILE: usize = 1 << 20;

/// The variable that holds a token.
const TOKEN: &str = "CACHIX_AUTH_TOKEN";

/// The variable that holds a signing key.
const KEY: &str = "CACHIX_SIGNING_KEY";

/// What there is for one cache.
pub(super) struct Access {
    /// The token for the service; an empty one if there is none, as its own client sends it.
    pub(super) auth: Auth,
    /// The service, with a slash at its end.
    pub(super) host: Url,
    /// Keys that sign what is pushed, and where they are from; none: the service signs.
    pub(super) keys: Vec<(SecretKey, String)>,
}

impl fmt::Debug for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Access").field("auth", &self.auth).field("keys", &self.keys).finish_non_exhaustive()
    }
}

impl Access {
    /// The token is that of the token file that drover.toml names, else of the variable, else of the configuration.
    /// The keys are those of secret-key files, else the one of the variable, else the one of the configuration.
    pub(super) fn find(name: &str, opening: &Opening<'_>) -> Result<Self, CacheError> {
        let env = &opening.context.login_env;
        let file = env.config_home().map(|dir| dir.join("cachix").join("cachix.dhall"));
        let config = read(file.as_deref(), opening.shown)?;
        let path = file.unwrap_or_default();
        let host = own_host(opening).or(config.host.as_deref()).unwrap_or(HOST);
        let host = service(host).ok_or_else(|| CacheError::Url {
            url: opening.shown.to_owned(),
            why: format!("its service is no http:// or https:// URL: '{}'", host.split('@').next_back().unwrap_or("")),
        })?;
        let auth = match (&opening.config.token_file, env.get(TOKEN), &config.token) {
            (Some(file), _, _) => Auth::token_file(file, opening.shown)?,
            (None, Some(token), _) => found(token, LoginSource::Variable(TOKEN), opening)?,
            (None, None, Some(token)) => {
                found(token, LoginSource::Tool { tool: "Cachix", path: path.clone() }, opening)?
            }
            (None, None, None) => nobody(&path),
        };
        let mut keys = Vec::new();
        if opening.config.push {
            let files = opening.config.secret_keys()?;
            keys.extend(files.into_iter().map(|key| (key, "its secret-key file".to_owned())));
            let of_client = || match (env.get(KEY), config.keys.get(name)) {
                (Some(key), _) => Some((key, KEY.to_owned())),
                (None, Some(key)) => Some((key.as_str(), path.display().to_string())),
                (None, None) => None,
            };
            if let Some((text, from)) = of_client().filter(|_| keys.is_empty()) {
                keys.push((signing_key(text, name).ok_or_else(|| no_key(opening, &from))?, from));
            }
        }
        Ok(Self { auth, host, keys })
    }

    /// The login for the address where the cache is read: none where everybody may, else the one that Nix would send
    /// there, which is the token for a password.
    pub(super) fn for_reading(&self, is_public: bool) -> Auth {
        let token = self.auth.header.as_ref().and_then(|header| header.to_str().ok()?.strip_prefix("Bearer "));
        let login = token.filter(|token| !is_public && !token.is_empty());
        let login = login.map(|token| Login { user: String::new(), password: token.to_owned() });
        Auth::basic(login.as_ref(), self.auth.source.clone())
    }
}

/// `host=` in the URL of the cache.
fn own_host<'a>(opening: &'a Opening<'_>) -> Option<&'a str> {
    opening.params.own.iter().rev().find(|(name, _)| name == "host").map(|(_, host)| host.as_str())
}

/// The URL of a service, with a slash at its end.
fn service(text: &str) -> Option<Url> {
    let mut url = Url::parse(text).ok().filter(|url| matches!(url.scheme(), "http" | "https"))?;
    if !url.path().ends_with('/') {
        url.set_path(&format!("{}/", url.path()));
    }
    url.set_query(None);
    url.set_fragment(None);
    Some(url)
}

/// What is in the configuration of the client; nothing if there is none.
fn read(file: Option<&Path>, shown: &str) -> Result<Config, CacheError> {
    let Some(path) = file else { return Ok(Config::default()) };
    let fail = |why: String| CacheError::ToolConfig { url: shown.to_owned(), path: path.to_owned(), why };
    let Some(bytes) = read_bounded(path, MAX_FILE).map_err(|error| fail(format!("cannot be read: {error}")))? else {
        return Ok(Config::default());
    };
    let text = String::from_utf8(bytes).map_err(|_| fail("is no text".to_owned()))?;
    Config::parse(&text).map_err(|why| fail(format!("cannot be read: {why}")))
}

fn found(token: &str, source: LoginSource, opening: &Opening<'_>) -> Result<Auth, CacheError> {
    let why = format!("what stands for a token is none: a token is one word ({source})");
    let url = opening.shown.to_owned();
    Auth::token(token, source).ok_or(CacheError::Url { url, why })
}

/// An empty token, as the client sends it where it has none.
fn nobody(path: &Path) -> Auth {
    let looked = format!("no token-file, no {TOKEN}, none in {}", path.display());
    Auth { header: Some(HeaderValue::from_static("Bearer ")), signer: None, source: LoginSource::Nowhere { looked } }
}

/// A signing key as the client has it: the 64 bytes in base64, without a name; or with one, as Nix has them.
fn signing_key(text: &str, cache: &str) -> Option<SecretKey> {
    let text = text.trim();
    if text.contains(':') {
        return SecretKey::parse(text).ok();
    }
    // The client is lenient about what is no base64 in it.
    let bytes = STANDARD.decode(text.split_whitespace().collect::<String>()).ok()?;
    SecretKey::parse(&format!("{cache}.cachix.org-1:{}", STANDARD.encode(bytes))).ok()
}

fn no_key(opening: &Opening<'_>, from: &str) -> CacheError {
    let why = format!("the signing key in {from} is none: 64 bytes in base64, as `cachix generate-keypair` makes it");
    CacheError::Url { url: opening.shown.to_owned(), why }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ed25519_dalek::SigningKey;

    #[test]
    fn keys_have_a_name_or_none() {
        let payload = STANDARD.encode(SigningKey::from_bytes(&[7; 32]).to_keypair_bytes());
        let bare = signing_key(&format!(" {payload}\n"), "acme").unwrap();
        assert_eq!(bare.name(), "acme.cachix.org-1");
        let named = signing_key(&format!("mine-1:{payload}"), "acme").unwrap();
        assert_eq!((named.name(), named.public_key().key), ("mine-1", bare.public_key().key));
        for odd in ["", "hunter2", "mine-1:hunter2", &payload[..40]] {
            assert!(signing_key(odd, "acme").is_none(), "{odd}");
        }
    }

    #[test]
    fn services_are_servers() {
        assert_eq!(service("https://cachix.org").unwrap().as_str(), "https://cachix.org/");
        assert_eq!(service("http://h:1/x?y#z").unwrap().as_str(), "http://h:1/x/");
        assert!(service("cachix.org").is_none() && service("file:///x").is_none());
    }
}
