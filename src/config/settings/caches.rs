//! Caches that Nix does not already name.

use std::fmt;
use std::path::PathBuf;

use super::super::amount::size;
use super::super::branch;
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
    /// Yes, from the default branch; a failure is exit 5.
    Main,
}

impl PushWhen {
    /// Whether it is pushed to in this run, as far as is known without the branch: `Main` is not until somebody has
    /// made it `Yes`.
    #[must_use]
    pub fn is_now(self) -> bool {
        matches!(self, Self::Yes | Self::Optional)
    }
}

/// What is not pushed to a cache, though it may be needed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LeaveOut {
    /// Bytes of NAR; larger paths are not.
    pub larger_than: Option<u64>,
    /// Globs over the names of paths, without their hashes; each is one that can be read.
    pub names: Vec<String>,
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
    /// How NARs are compressed, `zstd` or `none`; `None`: the URL says, or the kind of cache.
    pub compression: Option<String>,
    /// What is not pushed to it.
    pub leave_out: LeaveOut,
    /// Where it was said.
    pub origin: Origin,
}

/// Kinds of caches that are not named by a scheme with `//`.
const KINDS: [&str; 4] = ["cachix:", "attic:", "niks3:", "nix:"];

/// Whether Nix itself knows caches that are named like this one.
#[must_use]
pub fn is_for_nix(url: &str) -> bool {
    !KINDS.iter().any(|kind| url.starts_with(kind))
}

impl fmt::Debug for CacheSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("CacheSettings");
        shown.field("name", &self.name).field("push", &self.push).field("origin", &self.origin).finish_non_exhaustive()
    }
}

/// The caches of the file, with `--push-to` said on top: a name of the file, or a URL of its own.
pub(super) fn caches(words: &Words, env: &Env, file: &File) -> Result<Vec<CacheSettings>> {
    let mut caches: Vec<CacheSettings> =
        file.cache.iter().map(|(name, table)| from_table(name, table)).collect::<Result<_>>()?;
    let from_env = env.get(DROVER_PUSH_TO).map(|list| list.split_whitespace().map(str::to_owned).collect());
    let (asked, origin) = match words.push_to.is_empty() {
        false => (words.push_to.clone(), Origin::Flag),
        true => (from_env.unwrap_or_default(), Origin::Env),
    };
    for word in asked {
        if let Some(cache) = caches.iter_mut().find(|cache| cache.name.as_deref() == Some(&word)) {
            cache.push = PushWhen::Yes;
            cache.origin = origin;
        } else if word.contains("://") || !is_for_nix(&word) {
            caches.push(pushed_to(word, origin));
        } else {
            return Err(unknown_cache(&word, file));
        }
    }
    if caches.iter().any(|cache| cache.push == PushWhen::Main) && branch::is_default(env, file.dir.as_deref()) {
        for cache in caches.iter_mut().filter(|cache| cache.push == PushWhen::Main) {
            cache.push = PushWhen::Yes;
        }
    }
    if words.no_push {
        for cache in &mut caches {
            cache.push = PushWhen::No;
        }
    }
    Ok(caches)
}

fn from_table(name: &str, table: &CacheTable) -> Result<CacheSettings> {
    Ok(CacheSettings {
        name: Some(name.to_owned()),
        url: table.url.clone(),
        push: match table.push {
            PushTable::No => PushWhen::No,
            PushTable::Yes => PushWhen::Yes,
            PushTable::Optional => PushWhen::Optional,
            PushTable::Main => PushWhen::Main,
        },
        secret_key: table.secret_key.clone(),
        token_file: table.token_file.clone(),
        public_keys: table.public_keys.clone(),
        priority: table.priority,
        compression: table.compression.clone(),
        leave_out: leave_out(name, table)?,
        origin: Origin::File,
    })
}

/// What the `skip-` keys say, which have to be a size and globs.
fn leave_out(name: &str, table: &CacheTable) -> Result<LeaveOut> {
    let larger_than = table.skip_larger_than.as_deref().map(|text| {
        let error = || Error::usage(format!("drover.toml: skip-larger-than = '{text}' of [cache.{name}] is no size"));
        size(text).ok_or_else(|| error().hint("skip-larger-than = \"2GiB\""))
    });
    for glob in &table.skip_names {
        if let Err(error) = globset::Glob::new(glob) {
            let message = format!("drover.toml: cannot read the glob '{glob}' of [cache.{name}]: {}", error.kind());
            return Err(Error::usage(message).hint("skip-names = [\"*-source\"]"));
        }
    }
    if !table.skip_licenses.is_empty() {
        let message = format!(
            "drover.toml: skip-licenses of [cache.{name}] cannot be done: only attrs say their licence, not what they need"
        );
        return Err(Error::usage(message).hint("skip-names = [\"steam-*\"]    leaves out by name"));
    }
    Ok(LeaveOut { larger_than: larger_than.transpose()?, names: table.skip_names.clone() })
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
        compression: None,
        leave_out: LeaveOut::default(),
        origin,
    }
}

fn unknown_cache(word: &str, file: &File) -> Error {
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

    #[test]
    fn all_keys_of_a_cache_are_read() {
        let file = "[cache.acme]\nurl = 'cachix:acme'\npush = 'main'\ncompression = 'none'\n\
            skip-larger-than = '2GiB'\nskip-names = ['*-source']\n";
        let cache = &resolve(Words::default(), &[], file).unwrap().caches[0];
        assert_eq!((cache.push, cache.compression.as_deref()), (PushWhen::Main, Some("none")));
        let left_out = LeaveOut { larger_than: Some(2 << 30), names: vec!["*-source".to_owned()] };
        assert_eq!(cache.leave_out, left_out);
        assert!(!is_for_nix(&cache.url));
        let with = |key: &str| resolve(Words::default(), &[], &format!("[cache.a]\nurl = 'file:///c'\n{key}\n"));
        let size = with("skip-larger-than = '2'").unwrap_err();
        assert_eq!(size.message, "drover.toml: skip-larger-than = '2' of [cache.a] is no size");
        // Nobody knows the licences of what attrs need, and half of a promise would publish what must not be.
        assert!(with("skip-licenses = ['unfree']").unwrap_err().message.contains("cannot be done"));
        assert!(with("skip-names = ['[']").unwrap_err().message.contains("cannot read the glob '['"));
        assert!(with("skip-licenses = ['unfree']").unwrap_err().message.contains("cannot be done"));
    }

    #[test]
    fn each_kind_of_cache_has_a_word() {
        for url in ["cachix:acme", "attic:ci:acme", "attic:https://h/acme", "niks3:https://h", "nix:ssh-ng://h"] {
            let words = Words { push_to: vec![url.to_owned()], ..Words::default() };
            assert_eq!(resolve(words, &[], "").unwrap().caches[0].url, url);
        }
    }
}
