//! Caches that Nix does not already name.

use std::fmt;
use std::path::PathBuf;

use super::super::env::DROVER_PUSH_TO;
use super::super::file::{CacheTable, PushTable};
use super::super::near::nearest;
use super::super::{Env, File};
use super::{Origin, Words};
use crate::error::{Error, Result};

/// Whether a cache is pushed to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PushWhen {
    /// Never.
    No,
    /// Yes; a failure is exit 5.
    Yes,
    /// Yes; a failure is a warning.
    Optional,
}

/// One cache that Nix does not already name. Its URL may hold a login, which `Debug` does not show.
#[derive(Clone, PartialEq, Eq)]
pub struct CacheSettings {
    /// `NAME` of `[cache.NAME]`.
    pub name: Option<String>,
    /// Its URL.
    pub url: String,
    /// Pushed to?
    pub push: PushWhen,
    /// File with the secret key.
    pub secret_key: Option<PathBuf>,
    /// File with a token that is sent with every request.
    pub token_file: Option<PathBuf>,
    /// Keys that may have signed its paths.
    pub public_keys: Vec<String>,
    /// Lower is asked first.
    pub priority: Option<i32>,
    /// Where it was said.
    pub origin: Origin,
}

impl fmt::Debug for CacheSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("CacheSettings");
        shown.field("name", &self.name).field("push", &self.push).field("origin", &self.origin).finish_non_exhaustive()
    }
}

/// The caches of the file, with `--push-to` said on top: a name of the file, or a URL of its own.
pub(super) fn caches(words: &Words, env: &Env, file: &File) -> Result<Vec<CacheSettings>> {
    let mut caches: Vec<_> = file.cache.iter().map(|(name, table)| from_table(name, table)).collect();
    let from_env = env.get(DROVER_PUSH_TO).map(|list| list.split_whitespace().map(str::to_owned).collect());
    let (asked, origin) = match words.push_to.is_empty() {
        false => (words.push_to.clone(), Origin::Flag),
        true => (from_env.unwrap_or_default(), Origin::Env),
    };
    for word in asked {
        if let Some(cache) = caches.iter_mut().find(|cache| cache.name.as_deref() == Some(&word)) {
            cache.push = PushWhen::Yes;
            cache.origin = origin;
        } else if word.contains("://") {
            caches.push(pushed_to(word, origin));
        } else {
            return Err(unknown_cache(&word, file));
        }
    }
    if words.no_push {
        for cache in &mut caches {
            cache.push = PushWhen::No;
        }
    }
    Ok(caches)
}

fn from_table(name: &str, table: &CacheTable) -> CacheSettings {
    CacheSettings {
        name: Some(name.to_owned()),
        url: table.url.clone(),
        push: match table.push {
            PushTable::No => PushWhen::No,
            PushTable::Yes => PushWhen::Yes,
            PushTable::Optional => PushWhen::Optional,
        },
        secret_key: table.secret_key.clone(),
        token_file: table.token_file.clone(),
        public_keys: table.public_keys.clone(),
        priority: table.priority,
        origin: Origin::File,
    }
}

fn pushed_to(url: String, origin: Origin) -> CacheSettings {
    CacheSettings {
        name: None,
        url,
        push: PushWhen::Yes,
        secret_key: None,
        token_file: None,
        public_keys: Vec::new(),
        priority: None,
        origin,
    }
}

fn unknown_cache(word: &str, file: &File) -> Error {
    if let Some(kind) =
        ["cachix", "attic", "niks3", "nix"].into_iter().find(|kind| word.starts_with(&format!("{kind}:")))
    {
        return Error::usage(format!("cannot push to '{word}': '{kind}' caches are not supported yet"))
            .hint("drover run --push-to 'file:///path?secret-key=FILE'    or --no-push");
    }
    let error = Error::usage(format!("--push-to '{word}' is neither a URL nor a cache of drover.toml"));
    error.hint(match nearest(word, file.cache.keys().map(String::as_str)) {
        Some(near) => format!("did you mean '{near}'?    drover run --push-to {near}"),
        None => format!("a URL has a scheme: --push-to file://{}", if word.starts_with('/') { word } else { "/path" }),
    })
}

#[cfg(test)]
mod tests {
    use super::super::testing::resolve;
    use super::*;

    #[test]
    fn push_to_takes_a_name_or_a_url_and_helps_with_others() {
        let file = "[cache.acme]\nurl = 'file:///c'\n";
        let push = |word: &str| Words { push_to: vec![word.to_owned()], ..Words::default() };
        assert_eq!(resolve(push("acme"), &[], file).unwrap().caches[0].push, PushWhen::Yes);
        assert_eq!(resolve(push("file:///d"), &[], file).unwrap().caches[1].url, "file:///d");
        assert_eq!(
            resolve(push("acne"), &[], file).unwrap_err().hint.as_deref(),
            Some("did you mean 'acme'?    drover run --push-to acme")
        );
        assert!(resolve(push("/tmp/c"), &[], "").unwrap_err().hint.unwrap().contains("file:///tmp/c"));
    }

    #[test]
    fn no_push_wins() {
        let words = Words { push_to: vec!["file:///d".into()], no_push: true, ..Words::default() };
        assert_eq!(resolve(words, &[], "").unwrap().caches[0].push, PushWhen::No);
    }
}
