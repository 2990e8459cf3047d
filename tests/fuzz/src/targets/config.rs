//! What people and their machines write: configuration, words, settings.

use std::io;
use std::path::Path;

use drover::config::{self, Env, File, amount, machines};
use drover::eval::What;
use drover::eval::glob::Glob;
use drover::id::{AttrPath, RunId, split_name};
use drover::store::cache::CacheConfig;
use drover::store::remote::{About, Load};
use drover::store::settings::{NixSettings, Version};

/// A drover.toml.
pub fn file(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    match File::parse(text, Path::new("drover.toml")) {
        Ok(file) => drop(file.is_only_attrs()),
        Err(error) => drop(drover::error::Error::from(error).to_string()),
    }
}

/// A machines file that may name itself and others.
pub fn machines(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let read = |path: &Path| match path.to_str() {
        Some("/again") => Ok(text.to_owned()),
        Some("/other") => Ok("ssh://a\n".to_owned()),
        _ => Err(io::Error::from(io::ErrorKind::NotFound)),
    };
    for entry in machines::entries("machines", text, &read) {
        match entry {
            Ok((place, machine)) => {
                let _ = (place.to_string(), machine.is_word("a"));
                assert!(machine.speed.is_none_or(|speed| speed > 0.0));
            }
            Err(error) => drop(error.to_string()),
        }
    }
}

/// `nix config show --json`, and `nix --version`.
pub fn nix_settings(bytes: &[u8]) {
    if let Ok(settings) = NixSettings::parse(bytes) {
        let _ = settings.systems();
    }
    let line = String::from_utf8_lossy(bytes);
    if let Some(version) = Version::parse(&line) {
        let _ = (version.is_supported(), version.untested());
    }
}

/// What a builder's shell prints.
pub fn builder_words(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let _ = About::parse(&text);
    let _ = Load::parse(&text);
}

/// What a forge says of the event that a run is for.
pub fn forge_event(bytes: &[u8]) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("event.json");
    std::fs::write(&path, bytes).unwrap();
    let vars = [
        ("GITHUB_ACTIONS", "true"),
        ("GITHUB_EVENT_NAME", "pull_request"),
        ("GITHUB_REPOSITORY", "acme/infra"),
        ("GITHUB_REF", "refs/pull/7/merge"),
        ("GITHUB_BASE_REF", "main"),
        ("GITHUB_EVENT_PATH", path.to_str().unwrap()),
    ];
    let env = Env::of(vars);
    let own = serde_json::from_slice::<serde_json::Value>(bytes)
        .is_ok_and(|event| event.pointer("/pull_request/head/repo/full_name").is_some_and(|name| name == "acme/infra"));
    assert!(own || env.is_foreign_pull_request(), "in doubt it is one");
    let _ = env.pull_request();
}

/// The small grammars of the command line.
pub fn words(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(path) = text.parse::<AttrPath>() {
        assert_eq!(path.to_string().parse::<AttrPath>(), Ok(path.clone()));
        let _ = (path.kind(), path.last());
        if let Ok(glob) = Glob::new(text, "--only") {
            let _ = glob.matches(&path);
        }
    }
    if let Ok(glob) = Glob::new(text, "--only") {
        let _ = glob.matches(&"packages.x86_64-linux.a".parse().unwrap());
    }
    let _ = (amount::size(text), amount::duration(text), split_name(text), text.parse::<RunId>());
    let words: Vec<&str> = text.split('\n').collect();
    let _ = What::parse(&words, |word| word == "infra");
    let _ = config::Address::parse(text).map(|address| address.short().len());
    let _ = config::Forge::of_remote(text);
    let config = CacheConfig { url: text.to_owned(), ..CacheConfig::default() };
    let _ = (config.shown_url(), config.secret_keys());
}
