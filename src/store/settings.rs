//! What the Nix in force says about itself: its version, its directories, its settings. Asked once a run.
//!
//! Owns the meaning of Nix's settings. drover's own are in `config`.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use serde_json::Value;

use super::error::StoreError;
use crate::id::System;
use crate::process::Cmd;

/// The oldest Nix that drover works with.
pub const OLDEST: (u32, u32) = (2, 19);

/// The lines of Nix that drover is tested with.
const TESTED: [(u32, u32); 2] = [(2, 26), (2, 34)];

/// Whose Nix.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Flavor {
    /// NixOS/nix.
    Nix,
    /// Lix, whose versions start at 2.90.
    Lix,
    /// Determinate Nix.
    Determinate,
}

/// A version of Nix.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Version {
    /// Whose.
    pub flavor: Flavor,
    /// Major and minor.
    pub release: (u32, u32),
    /// As Nix prints it, `2.34.8`.
    pub text: String,
}

impl Version {
    /// From the first line of `nix --version`: `nix (Nix) 2.34.8`, `nix (Lix, like Nix) 2.93.3`,
    /// `nix (Determinate Nix 3.11.2) 2.31.1`.
    #[must_use]
    pub fn parse(line: &str) -> Option<Self> {
        let text = line.split_whitespace().last()?;
        let mut numbers = text.split(['.', 'p', '-', '_', '+']).map(str::parse::<u32>);
        let release = (numbers.next()?.ok()?, numbers.next()?.ok()?);
        let flavor = if line.contains("Lix") {
            Flavor::Lix
        } else if line.contains("Determinate") {
            Flavor::Determinate
        } else {
            Flavor::Nix
        };
        Some(Self { flavor, release, text: text.to_owned() })
    }

    /// Whether drover can work with it at all.
    #[must_use]
    pub fn is_supported(&self) -> bool {
        self.release >= OLDEST
    }

    /// One line for people where drover was never tested with it.
    #[must_use]
    pub fn untested(&self) -> Option<String> {
        if self.flavor == Flavor::Nix && TESTED.contains(&self.release) {
            return None;
        }
        Some(format!("{self} is untested; drover is tested with Nix 2.26 and 2.34"))
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self.flavor {
            Flavor::Nix => "Nix",
            Flavor::Lix => "Lix",
            Flavor::Determinate => "Determinate Nix",
        };
        write!(f, "{name} {}", self.text)
    }
}

/// What `nix -v --version` says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Installation {
    /// Its version.
    pub version: Version,
    /// Where its store paths are, before any `--store`: `/nix/store`.
    pub store_dir: String,
    /// Where its database is: `/nix/var/nix`.
    pub state_dir: String,
}

impl Installation {
    /// Asks this Nix; refuses one that is too old.
    pub async fn ask(nix: Cmd) -> Result<Self, StoreError> {
        let program = nix.to_string();
        let output = match small(nix).args(["-v", "--version"]).output().await {
            Ok(output) => output,
            Err(error) if error.is_not_found() => return Err(StoreError::NoNix { program }),
            Err(error) => return Err(StoreError::Command(error)),
        };
        let this = Self::parse(&String::from_utf8_lossy(&output))?;
        if !this.version.is_supported() {
            return Err(StoreError::TooOld { version: this.version.text });
        }
        Ok(this)
    }

    fn parse(text: &str) -> Result<Self, StoreError> {
        let first = text.lines().next().unwrap_or_default();
        let version = Version::parse(first).ok_or_else(|| StoreError::Output {
            command: "nix --version",
            what: format!("{first:?} has no version"),
        })?;
        // Versions differ in quoting.
        let value = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name))?;
            Some(line.trim().trim_matches('"').to_owned()).filter(|value| !value.is_empty())
        };
        Ok(Self {
            version,
            store_dir: value("Store directory:").unwrap_or_else(|| "/nix/store".to_owned()),
            state_dir: value("State directory:").unwrap_or_else(|| "/nix/var/nix".to_owned()),
        })
    }
}

/// `sandbox`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Sandbox {
    /// Builds run in one.
    On,
    /// They do not.
    Off,
    /// They do, unless a fixed-output derivation asks not to.
    Relaxed,
}

/// What nix.conf, its includes, the environment and the command line add up to.
#[derive(Debug, Clone, PartialEq)]
#[expect(missing_docs, reason = "named as in nix.conf")]
pub struct NixSettings {
    /// Builds at once; `auto` is the number of processors, and so is what this Nix left out.
    pub max_jobs: Option<u64>,
    /// Processors for one build; 0 is all.
    pub cores: u64,
    pub substituters: Vec<String>,
    pub trusted_substituters: Vec<String>,
    pub trusted_public_keys: Vec<String>,
    pub system: System,
    pub extra_platforms: Vec<System>,
    pub system_features: Vec<String>,
    /// Seconds; 0 is never.
    pub max_silent_time: u64,
    /// Seconds; 0 is never.
    pub timeout: u64,
    /// Bytes; 0 is without bound.
    pub max_build_log_size: u64,
    pub experimental_features: Vec<String>,
    pub require_sigs: bool,
    /// In the syntax of nix.conf.
    pub builders: String,
    pub builders_use_substitutes: bool,
    pub netrc_file: String,
    /// The certificates to trust; empty where Nix leaves that to its libraries.
    pub ssl_cert_file: String,
    pub secret_key_files: Vec<String>,
    pub always_allow_substitutes: bool,
    /// Whether caches are used at all.
    pub substitute: bool,
    pub fallback: bool,
    pub keep_failed: bool,
    pub sandbox: Sandbox,
    /// A store URI; `auto` unless something says otherwise.
    pub store: String,
    /// Every setting's value, whatever it is.
    pub all: BTreeMap<String, Value>,
}

/// With one thread that collects garbage, Nix starts 3 ms earlier.
pub(super) fn small(nix: Cmd) -> Cmd {
    nix.env("GC_MARKERS", "1")
}

impl NixSettings {
    /// Asks this Nix, whose version is not known yet: it was `nix show-config` before 2.20, and still is for Lix.
    pub async fn ask(nix: Cmd) -> Result<Self, StoreError> {
        let program = nix.to_string();
        let nix = small(nix).args(["--extra-experimental-features", "nix-command"]);
        let output = match nix.clone().args(["config", "show", "--json"]).output().await {
            Ok(output) => output,
            Err(error) if error.is_not_found() => return Err(StoreError::NoNix { program }),
            Err(error) => match nix.args(["show-config", "--json"]).output().await {
                Ok(output) => output,
                Err(_) => return Err(StoreError::Command(error)),
            },
        };
        Self::parse(&output)
    }

    /// The file with the certificates to trust, where Nix names one that there is (`ssl-cert-file`,
    /// `NIX_SSL_CERT_FILE`).
    #[must_use]
    pub fn ca_file(&self) -> Option<PathBuf> {
        let file = PathBuf::from(&self.ssl_cert_file);
        file.is_file().then_some(file)
    }

    /// From the JSON that Nix prints.
    pub fn parse(json: &[u8]) -> Result<Self, StoreError> {
        #[derive(serde::Deserialize)]
        struct Setting {
            #[serde(default)]
            value: Value,
        }
        let bad = |what| StoreError::Output { command: "nix config show --json", what };
        let all: BTreeMap<String, Setting> = serde_json::from_slice(json).map_err(|error| bad(error.to_string()))?;
        let all: BTreeMap<String, Value> = all.into_iter().map(|(name, setting)| (name, setting.value)).collect();
        let get = Getter(&all);
        Ok(Self {
            max_jobs: get.number("max-jobs"),
            cores: get.number("cores").unwrap_or(0),
            substituters: get.list("substituters"),
            trusted_substituters: get.list("trusted-substituters"),
            trusted_public_keys: get.list("trusted-public-keys"),
            system: get.text("system").map(System).ok_or_else(|| bad("there is no 'system'".to_owned()))?,
            extra_platforms: get.list("extra-platforms").into_iter().map(System).collect(),
            system_features: get.list("system-features"),
            max_silent_time: get.number("max-silent-time").unwrap_or(0),
            timeout: get.number("timeout").unwrap_or(0),
            max_build_log_size: get.number("max-build-log-size").unwrap_or(0),
            experimental_features: get.list("experimental-features"),
            require_sigs: get.bool("require-sigs").unwrap_or(true),
            builders: get.text("builders").unwrap_or_default(),
            builders_use_substitutes: get.bool("builders-use-substitutes").unwrap_or(false),
            netrc_file: get.text("netrc-file").unwrap_or_default(),
            ssl_cert_file: get.text("ssl-cert-file").unwrap_or_default(),
            secret_key_files: get.list("secret-key-files"),
            always_allow_substitutes: get.bool("always-allow-substitutes").unwrap_or(false),
            substitute: get.bool("substitute").unwrap_or(true),
            fallback: get.bool("fallback").unwrap_or(false),
            keep_failed: get.bool("keep-failed").unwrap_or(false),
            sandbox: match (get.bool("sandbox"), get.text("sandbox").as_deref()) {
                (Some(false), _) => Sandbox::Off,
                (None, Some("relaxed")) => Sandbox::Relaxed,
                _ => Sandbox::On,
            },
            store: get.text("store").filter(|store| !store.is_empty()).unwrap_or_else(|| "auto".to_owned()),
            all,
        })
    }

    /// All platforms that this machine says it builds for, its own first.
    #[must_use]
    pub fn systems(&self) -> Vec<System> {
        let mut systems = vec![self.system.clone()];
        systems.extend(self.extra_platforms.iter().filter(|other| **other != self.system).cloned());
        systems
    }
}

/// Typed looks into the settings. Versions write lists as arrays or as text.
struct Getter<'a>(&'a BTreeMap<String, Value>);

impl Getter<'_> {
    fn text(&self, name: &str) -> Option<String> {
        self.0.get(name)?.as_str().map(str::to_owned)
    }

    fn bool(&self, name: &str) -> Option<bool> {
        match self.0.get(name)? {
            Value::Bool(value) => Some(*value),
            Value::String(text) if text == "true" => Some(true),
            Value::String(text) if text == "false" => Some(false),
            _ => None,
        }
    }

    fn number(&self, name: &str) -> Option<u64> {
        match self.0.get(name)? {
            Value::Number(number) => number.as_u64(),
            Value::String(text) => text.parse().ok(),
            _ => None,
        }
    }

    fn list(&self, name: &str) -> Vec<String> {
        match self.0.get(name) {
            Some(Value::Array(items)) => items.iter().filter_map(|item| item.as_str()).map(str::to_owned).collect(),
            Some(Value::String(text)) => text.split_whitespace().map(str::to_owned).collect(),
            _ => Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_of_all_flavours() {
        for (line, flavor, release, supported, tested) in [
            ("nix (Nix) 2.34.8", Flavor::Nix, (2, 34), true, true),
            ("nix (Nix) 2.26.3", Flavor::Nix, (2, 26), true, true),
            ("nix (Nix) 2.8.0", Flavor::Nix, (2, 8), false, false),
            ("nix (Nix) 2.19.7", Flavor::Nix, (2, 19), true, false),
            ("nix (Nix) 2.36pre20260801_88b09c6", Flavor::Nix, (2, 36), true, false),
            ("nix (Lix, like Nix) 2.93.3", Flavor::Lix, (2, 93), true, false),
            ("nix (Determinate Nix 3.11.2) 2.34.1", Flavor::Determinate, (2, 34), true, false),
        ] {
            let version = Version::parse(line).unwrap();
            assert_eq!((version.flavor, version.release), (flavor, release), "{line}");
            assert_eq!(version.is_supported(), supported, "{line}");
            assert_eq!(version.untested().is_none(), tested, "{line}");
        }
        assert_eq!(Version::parse("bash: nix: command not found"), None);
    }

    #[test]
    fn directories_are_read_with_and_without_quotes() {
        let text = "nix (Nix) 2.34.8\nStore directory: /nix/store\nState directory: \"/nix/var/nix\"\n";
        let this = Installation::parse(text).unwrap();
        assert_eq!((this.store_dir.as_str(), this.state_dir.as_str()), ("/nix/store", "/nix/var/nix"));
    }

    #[test]
    fn settings_are_typed_and_unknown_ones_kept() {
        let json = br#"{"max-jobs":{"value":4},"cores":{"value":0},"system":{"value":"x86_64-linux"},
            "extra-platforms":{"value":["i686-linux"]},"sandbox":{"value":"relaxed"},"substituters":{"value":"a b"},
            "timeout":{"value":10},"new-thing":{"value":{"a":1}}}"#;
        let settings = NixSettings::parse(json).unwrap();
        assert_eq!((settings.max_jobs, settings.timeout, settings.sandbox), (Some(4), 10, Sandbox::Relaxed));
        assert_eq!(settings.systems(), [System::from("x86_64-linux"), System::from("i686-linux")]);
        assert_eq!(settings.substituters, ["a", "b"]);
        assert!(settings.all.contains_key("new-thing"));
        let auto = NixSettings::parse(br#"{"max-jobs":{"value":"auto"},"system":{"value":"x"}}"#).unwrap();
        assert_eq!(auto.max_jobs, None);
    }
}
