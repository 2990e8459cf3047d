//! Which evaluation a record is one of: the source, and all that its answers depend on besides. Two machines that would
//! get the same answers agree on the fingerprint, wherever they keep the source.

use std::collections::BTreeMap;

use serde_json::Value;

use super::super::expr;
use super::super::flake::Locked;
use super::{FORMAT, digest};

/// The settings of Nix that can change what a pure evaluation of a locked source answers: its drvs, its errors or its
/// warnings. No other setting does: they say how things are built, fetched and kept, or what an impure evaluation sees.
pub const SETTINGS: [&str; 17] = [
    "abort-on-warn",
    "accept-flake-config",
    "allow-import-from-derivation",
    "allow-unsafe-native-code-during-evaluation",
    "allowed-uris",
    "eval-system",
    "experimental-features",
    "lint-absolute-path-literals",
    "lint-short-path-literals",
    "lint-url-literals",
    "max-call-depth",
    "plugin-files",
    "pure-eval",
    "restrict-eval",
    "system",
    "trust-tarballs-from-git-forges",
    "warn-short-path-literals",
];

/// Features that every evaluator gets, whatever the configuration says.
const ALWAYS: [&str; 2] = ["flakes", "nix-command"];

/// What, besides the source, an answer depends on. The caller gathers it: this module reads no environment.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Context {
    /// The version of Nix.
    pub nix: String,
    /// The settings that matter; see [`Context::settings`].
    pub settings: String,
    /// Arguments that change what is evaluated, as they were typed.
    pub arguments: String,
    /// The store directory, `/nix/store`.
    pub store_dir: String,
    /// All else that locking depends on, on this machine: every setting, the store's URI. No part of a fingerprint.
    pub local: String,
}

impl Context {
    /// From all settings (of `nix config show --json`) to those that matter. Lists are sets to Nix: their order does
    /// not count.
    #[must_use]
    pub fn settings(all: &BTreeMap<String, Value>) -> String {
        let said = SETTINGS.iter().filter_map(|name| {
            let mut words = words(all.get(*name)?);
            if *name == "experimental-features" {
                words.extend(ALWAYS.map(str::to_owned));
            }
            words.sort();
            words.dedup();
            Some(format!("{name} = {}\n", words.join(" ")))
        });
        said.collect()
    }
}

/// The words of a setting. Versions write lists as arrays or as text.
fn words(value: &Value) -> Vec<String> {
    match value {
        Value::String(text) => text.split_whitespace().map(str::to_owned).collect(),
        Value::Array(items) => items.iter().flat_map(words).collect(),
        Value::Null => Vec::new(),
        other => vec![other.to_string()],
    }
}

/// A source by what it is, not by where it lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// All parts, each with its name.
    parts: Vec<String>,
}

impl Source {
    /// A locked source; `None` if it has no commit.
    ///
    /// Of a git repository the commit says all that evaluation sees: the tree, the lock in it, the time. Only the count
    /// of its ancestors is missing in a shallow clone. Of other sources the tree's hash is a part, too.
    #[must_use]
    pub fn of(locked: &Locked) -> Option<Self> {
        let rev = locked.rev.as_deref()?;
        let mut source = Self::commit(rev, &locked.dir, locked.rev_count.is_some());
        source.parts.extend(locked.parameters.iter().map(|parameter| format!("parameter {parameter}")));
        if locked.kind != "git" {
            let modified = locked.last_modified.map_or_else(String::new, |time| time.to_string());
            source.parts.extend([
                format!("kind {}", locked.kind),
                format!("tree {}", locked.nar_hash),
                format!("modified {modified}"),
                format!("locks {}", locked.locks),
            ]);
        }
        Some(source)
    }

    /// A commit of a git repository, with flake.nix in `dir` below its root. `counted`: its ancestors are all there, so
    /// that `self.revCount` is known.
    #[must_use]
    pub fn commit(rev: &str, dir: &str, counted: bool) -> Self {
        Self { parts: vec![format!("commit {rev}"), format!("dir {dir}"), format!("counted {counted}")] }
    }
}

/// A commit of the git repository that a locked source comes from, evaluated in the same way; `None` if it comes from
/// none. That needs neither Nix nor the commit itself.
#[must_use]
pub fn beside(locked: &Locked, rev: &str, counted: bool) -> Option<Source> {
    if locked.kind != "git" {
        return None;
    }
    let mut source = Source::commit(rev, &locked.dir, counted);
    source.parts.extend(locked.parameters.iter().map(|parameter| format!("parameter {parameter}")));
    Some(source)
}

/// The fingerprint of an evaluation: 64 hex digits.
#[must_use]
pub fn fingerprint(source: &Source, context: &Context) -> String {
    let format = FORMAT.to_string();
    let fixed = [&format, expr::EVAL, &context.nix, &context.settings, &context.arguments, &context.store_dir];
    let parts: Vec<&str> = fixed.into_iter().chain(source.parts.iter().map(String::as_str)).collect();
    digest(&parts)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// As `nix config show --json` says it, value by value.
    fn settings() -> BTreeMap<String, Value> {
        let settings = json!({
            "abort-on-warn": false, "accept-flake-config": false, "allow-import-from-derivation": true,
            "allow-unsafe-native-code-during-evaluation": false, "allowed-uris": [], "eval-system": "",
            "experimental-features": ["fetch-tree"], "lint-absolute-path-literals": "ignore",
            "lint-short-path-literals": "ignore", "lint-url-literals": "ignore", "max-call-depth": 10000,
            "plugin-files": [], "pure-eval": false, "restrict-eval": false, "system": "x86_64-linux",
            "trust-tarballs-from-git-forges": true, "warn-short-path-literals": false,
            "cores": 0, "max-jobs": 4, "substituters": ["https://a"], "netrc-file": "/etc/nix/netrc",
            "trusted-public-keys": [], "sandbox": true, "builders": "", "store": "auto", "nix-path": [],
            "access-tokens": {}, "extra-platforms": [], "http-connections": 25,
        });
        serde_json::from_value(settings).unwrap()
    }

    fn of(settings: &BTreeMap<String, Value>) -> String {
        let context = Context { nix: "2.34.8".into(), settings: Context::settings(settings), ..Context::default() };
        fingerprint(&Source::commit("1", "", true), &context)
    }

    #[test]
    fn the_settings_of_the_list_matter_and_no_others() {
        let base = settings();
        let all = of(&base);
        let mut mattered = Vec::new();
        for name in base.keys() {
            let mut changed = base.clone();
            changed.insert(name.clone(), json!("something-else"));
            if of(&changed) != all {
                mattered.push(name.as_str());
            }
        }
        assert_eq!(mattered, SETTINGS);
    }

    #[test]
    fn lists_are_sets_however_they_are_written() {
        let with = |value: Value| {
            let mut settings = settings();
            settings.insert("experimental-features".into(), value);
            of(&settings)
        };
        let base = with(json!(["fetch-tree"]));
        assert_eq!(with(json!("nix-command fetch-tree flakes")), base);
        assert_eq!(with(json!(["flakes", "fetch-tree", "fetch-tree"])), base);
        assert_ne!(with(json!(["fetch-tree", "ca-derivations"])), base);
    }

    #[test]
    fn all_else_that_an_answer_depends_on_is_a_part() {
        let context = || Context { nix: "2.34.8".into(), store_dir: "/nix/store".into(), ..Context::default() };
        let commit = |rev: &str, dir: &str, counted| Source::commit(rev, dir, counted);
        let base = fingerprint(&commit("1", "", true), &context());
        let others = [
            fingerprint(&commit("2", "", true), &context()),
            fingerprint(&commit("1", "sub", true), &context()),
            fingerprint(&commit("1", "", false), &context()),
            fingerprint(&commit("1", "", true), &Context { nix: "2.26.3".into(), ..context() }),
            fingerprint(&commit("1", "", true), &Context { store_dir: "/s".into(), ..context() }),
            fingerprint(&commit("1", "", true), &Context { arguments: "--arg a 1".into(), ..context() }),
            fingerprint(&commit("1", "", true), &Context { settings: "system = x".into(), ..context() }),
        ];
        let different: std::collections::BTreeSet<&String> = others.iter().chain([&base]).collect();
        assert_eq!(different.len(), others.len() + 1);
        let elsewhere = Context { local: "another machine".into(), ..context() };
        assert_eq!(fingerprint(&commit("1", "", true), &elsewhere), base);
    }
}
