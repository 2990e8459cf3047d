//! Where a cache is and how it is used: its URL, taken apart as Nix does.
//!
//! Parameters after `?` are Nix's own store settings. Those that mean something to drover are read; those that only
//! mean something to Nix are accepted; others are reported once and ignored, as Nix does.

use std::path::PathBuf;
use std::time::Duration;

use reqwest::Url;

use super::error::CacheError;
use super::netrc::Login;
use super::{attic, cachix, niks3, s3};

/// Where a cache is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Place {
    /// A directory.
    File(PathBuf),
    /// A server; the URL ends in a slash and has neither login nor parameters.
    Http(Url, Option<Login>),
    /// A bucket: `s3://BUCKET`.
    S3(String),
    /// A cache of Cachix: `cachix:NAME`.
    Cachix(String),
    /// A cache of an Attic server.
    Attic(AtticPlace),
    /// A niks3 server: `niks3:https://HOST`; the URL ends in a slash and has neither login nor parameters.
    Niks3(Url, Option<Login>),
    /// A store that `nix copy` is handed: `nix:STORE-URL`, with all its parameters.
    Copy(String),
}

/// Where a cache of an Attic server is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum AtticPlace {
    /// `attic:[SERVER:]CACHE`, the server as Attic's own configuration names it.
    Named { server: Option<String>, cache: String },
    /// `attic:https://HOST/CACHE`: the server's URL, which ends in a slash, and the name of the cache.
    At { server: Url, cache: String, login: Option<Login> },
}

/// What the parameters of a cache's URL say; `None` where they say nothing.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Params {
    pub(super) priority: Option<i32>,
    pub(super) trusted: Option<bool>,
    pub(super) want_mass_query: Option<bool>,
    pub(super) compression: Option<String>,
    pub(super) compression_level: Option<i32>,
    pub(super) parallel_compression: Option<bool>,
    pub(super) secret_keys: Vec<PathBuf>,
    pub(super) store_dir: Option<String>,
    pub(super) retry_attempts: Option<u32>,
    pub(super) retry_delay: Option<Duration>,
    pub(super) retry_delay_rate_limited: Option<Duration>,
    pub(super) retry_max_delay: Option<Duration>,
    /// Parameters that the module of this kind of cache reads.
    pub(super) own: Vec<(String, String)>,
    /// Names of parameters that nobody knows.
    pub(super) unknown: Vec<String>,
    /// Names of parameters that Nix knows and that change what a cache holds, but that drover does not do.
    pub(super) not_done: Vec<String>,
}

/// A cache's URL, read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Location {
    pub(super) place: Place,
    pub(super) params: Params,
    /// The URL for people: without login and parameters, without a trailing slash.
    pub(super) shown: String,
}

/// Parameters that Nix knows and that make no difference to drover.
const ONLY_NIX: [&str; 10] = [
    "path-info-cache-size",
    "system-features",
    "local-nar-cache",
    "log-compression",
    "real",
    "root",
    "state",
    "log",
    "tls-certificate",
    "tls-private-key",
];

/// Parameters that make Nix write more than drover does.
const NOT_DONE: [&str; 4] = ["write-nar-listing", "index-debug-info", "narinfo-compression", "ls-compression"];

impl Location {
    /// Reads the URL of a cache.
    pub(super) fn parse(text: &str) -> Result<Self, CacheError> {
        if text.starts_with('/') || text.starts_with('.') || !text.contains(':') {
            return Err(CacheError::Scheme { url: without_params(text), scheme: String::new() });
        }
        if let Some(store) = text.strip_prefix("nix:") {
            return Ok(Self::copied(store));
        }
        let mut url = Url::parse(text)
            .map_err(|error| CacheError::Url { url: guess_shown(text), why: format!("it is no URL: {error}") })?;
        let params = take_params(&mut url);
        url.set_fragment(None);
        let inner = inner(&url)?;
        let (kind, mut at) = inner.map_or((None, url.clone()), |inner| (Some(url.scheme().to_owned()), inner));
        let login = take_login(&mut at);
        let kind_prefix = kind.as_ref().map(|kind| format!("{kind}:")).unwrap_or_default();
        let shown = format!("{kind_prefix}{}", at.as_str().trim_end_matches('/'));
        let fail = |why: &str| CacheError::Url { url: shown.clone(), why: why.to_owned() };
        let params = read_params(&params, own_params(url.scheme())).map_err(|why| fail(&why))?;
        let place = match url.scheme() {
            "file" => {
                let path = at.to_file_path().map_err(|()| fail("a file:// URL needs an absolute path: file:///DIR"))?;
                Place::File(path)
            }
            "http" | "https" => Place::Http(as_directory(at), login),
            "s3" => Place::S3(named_host(&at).ok_or_else(|| fail("it is written s3://BUCKET"))?),
            "cachix" => Place::Cachix(one_name(at.path()).ok_or_else(|| fail("it is written cachix:NAME"))?),
            "attic" => {
                let place = if kind.is_some() { attic_at(at, login) } else { attic_named(at.path()) };
                Place::Attic(
                    place.ok_or_else(|| fail("it is written attic:[SERVER:]CACHE or attic:https://HOST/CACHE"))?,
                )
            }
            "niks3" if kind.is_some() => Place::Niks3(as_directory(at), login),
            "niks3" => return Err(fail("it is written niks3:https://HOST")),
            scheme => return Err(CacheError::Scheme { scheme: scheme.to_owned(), url: shown }),
        };
        Ok(Self { place, params, shown })
    }

    /// Nix's own store URL: its parameters are Nix's business.
    fn copied(store: &str) -> Self {
        let shown = format!("nix:{}", guess_shown(store));
        Self { place: Place::Copy(store.to_owned()), params: Params::default(), shown }
    }
}

/// The URL within a URL: `attic:https://…`; nothing for others. One without a host is an error.
fn inner(url: &Url) -> Result<Option<Url>, CacheError> {
    let is_server = url.path().starts_with("http://") || url.path().starts_with("https://");
    if !matches!(url.scheme(), "attic" | "niks3") || !is_server {
        return Ok(None);
    }
    let fail = |error| CacheError::Url { url: guess_shown(url.as_str()), why: format!("it is no URL: {error}") };
    Url::parse(url.path()).map(Some).map_err(fail)
}

/// With a slash at the end, so that names are joined below it.
fn as_directory(mut url: Url) -> Url {
    if !url.path().ends_with('/') {
        url.set_path(&format!("{}/", url.path()));
    }
    url
}

/// The host of a URL that has nothing but a host.
fn named_host(url: &Url) -> Option<String> {
    let host = url.host_str().filter(|host| !host.is_empty())?;
    matches!(url.path(), "" | "/").then(|| host.to_owned())
}

/// A name of one part.
fn one_name(text: &str) -> Option<String> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    (!text.is_empty() && text.bytes().all(plain)).then(|| text.to_owned())
}

fn attic_named(text: &str) -> Option<AtticPlace> {
    let (server, cache) = match text.split_once(':') {
        Some((server, cache)) => (Some(one_name(server)?), cache),
        None => (None, text),
    };
    Some(AtticPlace::Named { server, cache: one_name(cache)? })
}

fn attic_at(mut url: Url, login: Option<Login>) -> Option<AtticPlace> {
    let path = url.path().trim_end_matches('/').to_owned();
    let (above, cache) = path.rsplit_once('/')?;
    let cache = one_name(cache)?;
    url.set_path(&format!("{above}/"));
    Some(AtticPlace::At { server: url, cache, login })
}

/// Parameters that only one kind of cache has.
fn own_params(scheme: &str) -> &'static [&'static str] {
    match scheme {
        "s3" => s3::PARAMS,
        "cachix" => cachix::PARAMS,
        "attic" => attic::PARAMS,
        "niks3" => niks3::PARAMS,
        _ => &[],
    }
}

/// A cache's URL for people, also one that cannot be read: nothing that may hold a login or a parameter.
pub(super) fn shown(text: &str) -> String {
    Location::parse(text).map_or_else(|_| guess_shown(text), |location| location.shown)
}

/// What can safely be shown of a text that is no URL: nothing that may hold a login or a parameter.
fn guess_shown(text: &str) -> String {
    let text = without_params(text);
    match text.rsplit_once('@') {
        Some((_, host)) => format!("…@{host}"),
        None => text,
    }
}

fn without_params(text: &str) -> String {
    text.split(['?', '#']).next().unwrap_or_default().to_owned()
}

/// Removes the parameters from the URL. A `+` is a plus, not a space, as in Nix.
fn take_params(url: &mut Url) -> Vec<(String, String)> {
    let query = url.query().unwrap_or_default().replace('+', "%2B");
    url.set_query(Some(&query));
    let pairs = url.query_pairs().map(|(name, value)| (name.into_owned(), value.into_owned())).collect();
    url.set_query(None);
    pairs
}

/// Removes user and password from the URL.
fn take_login(url: &mut Url) -> Option<Login> {
    if url.username().is_empty() && url.password().is_none() {
        return None;
    }
    let decode = |text: &str| decode_percent(text);
    let login = Login { user: decode(url.username()), password: decode(url.password().unwrap_or_default()) };
    // Both fail only for URLs that have no host, which have no login either.
    let _ = url.set_username("");
    let _ = url.set_password(None);
    Some(login)
}

/// Decodes `%41`; what is no such escape stays as it is.
pub(super) fn decode_percent(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        let escape = (first == b'%')
            .then(|| after.get(..2))
            .flatten()
            .and_then(|hex| std::str::from_utf8(hex).ok())
            .and_then(|hex| u8::from_str_radix(hex, 16).ok());
        match escape {
            Some(byte) => {
                bytes.push(byte);
                rest = after.get(2..).unwrap_or_default();
            }
            None => {
                bytes.push(first);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn read_params(pairs: &[(String, String)], own: &[&str]) -> Result<Params, String> {
    let mut params = Params::default();
    for (name, value) in pairs {
        let value = value.as_str();
        match name.as_str() {
            _ if own.contains(&name.as_str()) => params.own.push((name.clone(), value.to_owned())),
            "priority" => params.priority = Some(number(name, value)?),
            "trusted" => params.trusted = Some(truth(name, value)?),
            "want-mass-query" => params.want_mass_query = Some(truth(name, value)?),
            "compression" => params.compression = Some(value.to_owned()),
            "compression-level" => params.compression_level = Some(number(name, value)?),
            "parallel-compression" => params.parallel_compression = Some(truth(name, value)?),
            "secret-key" => params.secret_keys.push(PathBuf::from(value)),
            "secret-keys" => {
                params.secret_keys.extend(value.split(',').filter(|path| !path.is_empty()).map(PathBuf::from));
            }
            "store" => params.store_dir = Some(value.to_owned()),
            "retry-attempts" => params.retry_attempts = Some(number(name, value)?),
            "retry-delay" => params.retry_delay = Some(millis(name, value)?),
            "retry-delay-rate-limited" => params.retry_delay_rate_limited = Some(millis(name, value)?),
            "retry-max-delay" => params.retry_max_delay = Some(millis(name, value)?),
            _ if ONLY_NIX.contains(&name.as_str()) => {}
            _ if NOT_DONE.contains(&name.as_str()) => {
                if !matches!(value, "false" | "0" | "no" | "" | "none") {
                    params.not_done.push(name.clone());
                }
            }
            _ => params.unknown.push(name.clone()),
        }
    }
    Ok(params)
}

fn number<T: std::str::FromStr>(name: &str, value: &str) -> Result<T, String> {
    value.parse().map_err(|_| format!("its parameter '{name}' is no number: '{value}'"))
}

fn millis(name: &str, value: &str) -> Result<Duration, String> {
    number(name, value).map(Duration::from_millis)
}

fn truth(name: &str, value: &str) -> Result<bool, String> {
    match value {
        "true" | "yes" | "1" => Ok(true),
        "false" | "no" | "0" => Ok(false),
        _ => Err(format!("its parameter '{name}' is neither true nor false: '{value}'")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nix_parameters_are_read() {
        let location = Location::parse(
            "file:///var/cache%20dir?priority=-3&trusted=1&compression=zstd&compression-level=9&secret-key=/run/a+b%2Fkey\
             &want-mass-query=true&write-nar-listing=1&local-nar-cache=/x&colour=blue",
        )
        .unwrap();
        assert_eq!(location.place, Place::File("/var/cache dir".into()));
        assert_eq!(location.params.priority, Some(-3));
        assert_eq!(location.params.trusted, Some(true));
        assert_eq!(location.params.want_mass_query, Some(true));
        assert_eq!(location.params.compression.as_deref(), Some("zstd"));
        assert_eq!(location.params.compression_level, Some(9));
        assert_eq!(location.params.secret_keys, [PathBuf::from("/run/a+b/key")]);
        assert_eq!(location.params.not_done, ["write-nar-listing"]);
        assert_eq!(location.params.unknown, ["colour"]);
    }

    #[test]
    fn logins_leave_the_url() {
        let location = Location::parse("https://me:s%40crt@cache.example/a/b?secret-key=/k#x").unwrap();
        let Place::Http(url, login) = &location.place else { panic!("{location:?}") };
        assert_eq!(url.as_str(), "https://cache.example/a/b/");
        assert_eq!(*login, Some(Login { user: "me".into(), password: "s@crt".into() }));
        assert_eq!(location.shown, "https://cache.example/a/b");
        assert!(!format!("{location:?}").contains("crt"));
    }

    #[test]
    fn servers_of_other_kinds_are_named_in_their_own_way() {
        let url = |text: &str| Url::parse(text).unwrap();
        let login = || Some(Login { user: "me".into(), password: "s@crt".into() });
        let at = AtticPlace::At { server: url("https://h/x/"), cache: "c".into(), login: login() };
        let named = |server: Option<&str>| AtticPlace::Named { server: server.map(str::to_owned), cache: "c".into() };
        for (text, place, shown) in [
            ("s3://b.c?region=x&priority=3", Place::S3("b.c".into()), "s3://b.c"),
            ("cachix:acme?priority=3", Place::Cachix("acme".into()), "cachix:acme"),
            ("attic:c", Place::Attic(named(None)), "attic:c"),
            ("attic:s:c", Place::Attic(named(Some("s"))), "attic:s:c"),
            ("attic:https://me:s%40crt@h/x/c", Place::Attic(at), "attic:https://h/x/c"),
            ("niks3:https://me:s%40crt@h", Place::Niks3(url("https://h/"), login()), "niks3:https://h"),
            ("nix:ssh-ng://h?a=b", Place::Copy("ssh-ng://h?a=b".into()), "nix:ssh-ng://h"),
        ] {
            let location = Location::parse(text).unwrap();
            assert_eq!((location.place, location.shown.as_str()), (place, shown));
        }
    }

    #[test]
    fn others_are_refused_by_name() {
        for (url, expected) in [
            ("gopher://bucket?region=x", "no client for 'gopher'"),
            ("s3://bucket/prefix", "s3://BUCKET"),
            ("cachix://acme", "cachix:NAME"),
            ("attic:a:b:c", "attic:[SERVER:]CACHE"),
            ("niks3:acme", "niks3:https://HOST"),
            ("niks3:https://me:hunter2@", "it is no URL"),
            ("ssh-ng://user:pw@host", "no client for 'ssh-ng'"),
            ("/var/cache", "cannot use cache '/var/cache'"),
            ("https://h?priority=high", "its parameter 'priority' is no number"),
            ("https://h?trusted=maybe", "neither true nor false"),
            ("https://me:hunter2@", "it is no URL"),
            ("file://relative/dir", "absolute path"),
        ] {
            let error = Location::parse(url).unwrap_err().to_string();
            assert!(error.contains(expected), "{url}: {error}");
            assert!(!error.contains("pw") && !error.contains("hunter2"), "{error}");
        }
    }
}
