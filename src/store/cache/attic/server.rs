//! Which Attic server a cache is on, and with which login: what the URL says, and the configuration of Attic's own
//! client, `$XDG_CONFIG_HOME/attic/config.toml`.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use reqwest::Url;
use serde::Deserialize;

use super::super::backend::Opening;
use super::super::error::CacheError;
use super::super::file::read_bounded;
use super::super::location::AtticPlace;
use super::super::login::{Auth, LoginEnv, LoginSource};

/// Bytes of the configuration that are read at most.
const MAX_FILE: usize = 1 << 20;

/// Where a cache is, and the login for that.
pub(super) struct Server {
    /// Ends in a slash.
    pub(super) endpoint: Url,
    pub(super) cache: String,
    pub(super) auth: Auth,
}

/// The configuration of Attic's own client.
#[derive(Deserialize, Default)]
#[serde(rename_all = "kebab-case")]
struct Config {
    default_server: Option<String>,
    #[serde(default)]
    servers: BTreeMap<String, Entry>,
}

/// One server of it.
#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Entry {
    endpoint: String,
    token: Option<String>,
    token_file: Option<PathBuf>,
}

impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Entry").field("endpoint", &self.endpoint).finish_non_exhaustive()
    }
}

impl Server {
    /// The login is that of the token file that drover.toml names, else of the URL, else of Attic's configuration,
    /// else of the netrc file.
    pub(super) fn find(
        place: &AtticPlace,
        opening: &Opening<'_>,
        warnings: &mut Vec<String>,
    ) -> Result<Self, CacheError> {
        let token_file = opening.config.token_file.as_deref();
        let file = config_file(&opening.context.login_env);
        let read = || read_config(file.as_ref(), opening.shown);
        let (endpoint, cache, of_url, of_config) = match place {
            AtticPlace::Named { server, cache } => {
                let entry = read()?.entry(server.as_deref()).map_err(|why| unusable(file.as_ref(), opening, why))?;
                let endpoint = endpoint(&entry.endpoint)
                    .ok_or_else(|| unusable(file.as_ref(), opening, format!("names no URL: '{}'", entry.endpoint)))?;
                (endpoint, cache.clone(), None, Some(entry))
            }
            AtticPlace::At { server, cache, login } => {
                let own = token_file.is_some() || login.is_some();
                let entry = if own { None } else { read()?.at(server) };
                (server.clone(), cache.clone(), login.as_ref(), entry)
            }
        };
        let auth = match of_config.filter(|_| token_file.is_none() && of_url.is_none()) {
            Some(Entry { token: Some(token), .. }) => {
                let source = LoginSource::Tool { tool: "Attic", path: file.clone().unwrap_or_default() };
                Some(Auth::token(&token, source).ok_or_else(|| {
                    unusable(file.as_ref(), opening, "holds a token that is none: a token is one word".to_owned())
                })?)
            }
            Some(Entry { token_file: Some(token_file), .. }) => Some(Auth::token_file(&token_file, opening.shown)?),
            _ => None,
        };
        let auth = match auth {
            Some(auth) => auth,
            None => {
                let (netrc, host) = (opening.context.netrc.as_deref(), endpoint.host_str().unwrap_or_default());
                Auth::find(token_file, of_url, netrc, host, opening.shown, warnings)?
            }
        };
        Ok(Self { endpoint, cache, auth })
    }
}

impl Config {
    /// The server of this name; without a name the default one, else the first.
    fn entry(mut self, name: Option<&str>) -> Result<Entry, String> {
        match name.or(self.default_server.as_deref()).map(str::to_owned) {
            Some(name) => self.servers.remove(&name).ok_or_else(|| format!("has no server '{name}'")),
            None => self.servers.pop_first().map(|(_, entry)| entry).ok_or_else(|| "names no server".to_owned()),
        }
    }

    /// The server at this place.
    fn at(self, server: &Url) -> Option<Entry> {
        self.servers.into_values().find(|entry| endpoint(&entry.endpoint).as_ref() == Some(server))
    }
}

/// Where Attic's own client keeps its configuration.
fn config_file(env: &LoginEnv) -> Option<PathBuf> {
    Some(env.config_home()?.join("attic").join("config.toml"))
}

/// What is in that file; nothing if there is none. Errors say where, never what.
fn read_config(file: Option<&PathBuf>, shown: &str) -> Result<Config, CacheError> {
    let Some(path) = file else { return Ok(Config::default()) };
    let fail = |why: String| CacheError::ToolConfig { url: shown.to_owned(), path: path.clone(), why };
    let Some(text) = read_bounded(path, MAX_FILE).map_err(|error| fail(format!("cannot be read: {error}")))? else {
        return Ok(Config::default());
    };
    let text = String::from_utf8(text).map_err(|_| fail("is no text".to_owned()))?;
    toml::from_str(&text).map_err(|error| {
        let line = error.span().map_or(1, |span| text.get(..span.start).unwrap_or_default().lines().count().max(1));
        fail(format!("is not what Attic writes (line {line})"))
    })
}

fn unusable(file: Option<&PathBuf>, opening: &Opening<'_>, why: String) -> CacheError {
    let path = file.cloned().unwrap_or_else(|| "attic/config.toml".into());
    CacheError::ToolConfig { url: opening.shown.to_owned(), path, why }
}

/// An endpoint with a slash at the end.
fn endpoint(text: &str) -> Option<Url> {
    let mut url = Url::parse(text).ok().filter(|url| matches!(url.scheme(), "http" | "https"))?;
    if !url.path().ends_with('/') {
        let path = format!("{}/", url.path());
        url.set_path(&path);
    }
    Some(url)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(text: &str) -> Config {
        toml::from_str(text).unwrap()
    }

    const TWO: &str = "[servers.b]\nendpoint = \"https://b\"\ntoken = \"tok-b\"\n\
                       [servers.a]\nendpoint = \"https://a/x/\"\ntoken-file = \"/run/token\"\n";

    #[test]
    fn servers_are_found_by_name_by_default_and_by_place() {
        let by = |name: Option<&str>| config(TWO).entry(name).map(|entry| entry.endpoint);
        assert_eq!(by(Some("b")), Ok("https://b".to_owned()));
        assert_eq!(by(None), Ok("https://a/x/".to_owned()));
        assert_eq!(by(Some("c")), Err("has no server 'c'".to_owned()));
        let default = config(&format!("default-server = \"b\"\n{TWO}")).entry(None).unwrap();
        assert_eq!(default.endpoint, "https://b");
        assert_eq!(config("").entry(None).err(), Some("names no server".to_owned()));
        let at = |url: &str| config(TWO).at(&Url::parse(url).unwrap()).map(|entry| entry.endpoint);
        assert_eq!(at("https://b/"), Some("https://b".to_owned()));
        assert_eq!(at("https://a/x/"), Some("https://a/x/".to_owned()));
        assert_eq!(at("https://a/"), None);
    }

    #[test]
    fn no_token_is_shown() {
        assert!(!format!("{:?}", config(TWO).servers).contains("tok-b"));
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("config.toml");
        std::fs::write(&file, "[servers.a]\nendpoint = \"https://a\"\ntoken = hunter2\n").unwrap();
        let error = read_config(Some(&file), "attic:c").err().unwrap().to_string();
        assert!(error.contains("line 3") && !error.contains("hunter2"), "{error}");
        assert!(read_config(Some(&dir.path().join("none")), "attic:c").unwrap().servers.is_empty());
    }
}
