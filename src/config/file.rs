//! `drover.toml`, beside flake.nix. An unknown key or a wrong type is an error with line, column and the nearest key.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::nearest;
use crate::error::Error;

/// The most that is read of a config file.
const MAX_BYTES: u64 = 1 << 20;

/// The whole file; every part is optional.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct File {
    /// `[attrs]`: what is taken when nobody asks for anything.
    pub attrs: AttrsTable,
    /// `[eval]`.
    pub eval: EvalTable,
    /// `[build]`.
    pub build: BuildTable,
    /// `[cache.NAME]`.
    pub cache: BTreeMap<String, CacheTable>,
    /// `[builder.NAME]`.
    pub builder: BTreeMap<String, BuilderTable>,
    /// `[skip]`.
    pub skip: SkipTable,
    /// `[share]`.
    pub share: ShareTable,
    /// `[quarantine.NAME]`.
    pub quarantine: BTreeMap<String, QuarantineTable>,
    /// `[goals]`.
    pub goals: GoalsTable,
    /// `[notify.NAME]`.
    pub notify: BTreeMap<String, NotifyTable>,
    /// The line of each key, from 1: `build.retries` → 7.
    #[serde(skip)]
    pub lines: BTreeMap<String, usize>,
    /// The directory that it is in.
    #[serde(skip)]
    pub dir: Option<PathBuf>,
    /// A stranger wrote it, and this is what counts of it.
    #[serde(skip)]
    pub stranger: Option<Stranger>,
}

/// What counts in the pull request of a fork, whose author may have written the file: the table `[attrs]`, and for all
/// else the file of the branch that the request is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stranger {
    /// That branch.
    pub target: String,
    /// Its file was at hand.
    pub at_hand: bool,
    /// How it could be had, where it is not; something to type, or to write.
    pub whole: &'static str,
}

/// `[attrs]`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct AttrsTable {
    /// Flake outputs, `["nixosConfigurations"]`.
    pub kinds: Option<Vec<String>>,
    /// Globs; only what matches one is taken.
    pub only: Vec<String>,
    /// Globs; what matches one is left out.
    pub exclude: Vec<String>,
    /// Systems, `["x86_64-linux"]`.
    pub systems: Option<Vec<String>>,
}

/// `[eval]`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct EvalTable {
    /// Evaluator processes.
    pub workers: Option<u32>,
    /// What the evaluation may take, `"8GiB"`.
    pub max_memory: Option<String>,
}

/// `[skip]`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct SkipTable {
    /// Globs of paths in the repository: a change of nothing but these is taken to affect no attr.
    pub paths: Vec<String>,
}

/// `[build]`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct BuildTable {
    /// Seconds a build may take.
    pub timeout: Option<u64>,
    /// Seconds a build may be silent.
    pub max_silent_time: Option<u64>,
    /// How often a build is tried again after a failure that trying again may mend.
    pub retries: Option<u32>,
    /// Bytes that a build may print; 0 is no limit.
    pub max_log_size: Option<u64>,
    /// Builds at once in the local store; 0: it builds nothing.
    pub max_jobs: Option<u32>,
    /// Seconds that a drv waits for a builder that is away.
    pub builder_wait: Option<u64>,
    /// Days that a builder keeps what could not be pushed.
    pub keep_days: Option<u32>,
}

/// `[builder.NAME]`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct BuilderTable {
    /// `ssh-ng://ci@big1`, `unix:///path`, with Nix's parameters.
    pub url: String,
    /// The host's public key, `ssh-ed25519 AAAA…`.
    pub host_key: Option<String>,
    /// Builds at once; 0: it is not used.
    pub max_jobs: Option<u32>,
    /// What it builds, `["x86_64-linux"]`.
    pub systems: Option<Vec<String>>,
    /// Features that drvs may require.
    pub features: Option<Vec<String>>,
    /// Features that every drv must require.
    #[serde(default)]
    pub mandatory_features: Vec<String>,
    /// How fast it is, beside others.
    pub speed: Option<f64>,
    /// File with the private key to log in with.
    pub ssh_key: Option<PathBuf>,
    /// The variable that holds that key itself.
    pub ssh_key_env: Option<String>,
}

/// `[cache.NAME]`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct CacheTable {
    /// `file:///…`, `https://…`, with Nix's parameters.
    pub url: String,
    /// Pushed to: `true`, `false`, `"optional"`, `"main"`.
    #[serde(default)]
    pub push: PushTable,
    /// Public keys that may have signed its paths.
    #[serde(default)]
    pub public_keys: Vec<String>,
    /// File with the secret key to sign with.
    pub secret_key: Option<PathBuf>,
    /// File with a token that is sent with every request.
    pub token_file: Option<PathBuf>,
    /// Lower is asked first.
    pub priority: Option<i32>,
    /// How NARs are compressed that are pushed, `"zstd"`, `"none"`.
    pub compression: Option<String>,
    /// Larger paths are not pushed, `"2GiB"` of NAR.
    pub skip_larger_than: Option<String>,
    /// Globs; paths whose names match one are not pushed.
    #[serde(default)]
    pub skip_names: Vec<String>,
    /// Licences of paths that are not to be pushed, `["unfree"]`: nobody can tell, so that it is refused with the reason.
    #[serde(default)]
    pub skip_licenses: Vec<String>,
}

/// `[share]`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct ShareTable {
    /// Where records of evaluations are shared, `file:///…`, `https://…`.
    pub url: Option<String>,
    /// Public keys that may have signed them.
    pub public_keys: Vec<String>,
    /// File with the secret key to sign with.
    pub secret_key: Option<PathBuf>,
    /// File with a token that is sent with every request.
    pub token_file: Option<PathBuf>,
}

/// `[goals]`: what is asked of runs.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct GoalsTable {
    /// The share of paths that caches are to have, `0.9`.
    pub hit_rate: Option<f64>,
    /// How long a run may take, `"10m"`.
    pub duration: Option<String>,
    /// The share of runs that are to end well, `0.95`.
    pub success_rate: Option<f64>,
    /// How long it may take until what failed for no fault of its own is built, `"2m"`.
    pub recovery: Option<String>,
    /// How long it may take until the first failure is told, `"3m"`.
    pub first_failure: Option<String>,
}

/// `[notify.NAME]`: somebody who is told when runs begin to fail, and when they no longer do.
#[derive(Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct NotifyTable {
    /// The URL of a webhook that takes what Slack's do.
    pub slack: Option<String>,
    /// The variable that holds it.
    pub slack_env: Option<String>,
    /// The file that holds it.
    pub slack_file: Option<PathBuf>,
    /// The URL of a webhook that takes drover's own document.
    pub webhook: Option<String>,
    /// The variable that holds it.
    pub webhook_env: Option<String>,
    /// The file that holds it.
    pub webhook_file: Option<PathBuf>,
    /// The variable with a token that is sent to it.
    pub token_env: Option<String>,
    /// The file with that token.
    pub token_file: Option<PathBuf>,
    /// A program with its arguments.
    pub command: Vec<String>,
    /// `["failure", "recovery"]`.
    pub on: Option<Vec<String>>,
    /// Only for runs of these branches.
    pub branches: Vec<String>,
}

impl std::fmt::Debug for NotifyTable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // URLs of webhooks are secrets.
        f.debug_struct("NotifyTable").field("on", &self.on).field("branches", &self.branches).finish_non_exhaustive()
    }
}

/// `[quarantine.NAME]`: attrs that may fail for a while.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct QuarantineTable {
    /// A glob of attrs, as `--only` takes it.
    pub attr: String,
    /// Why they may fail.
    pub reason: String,
    /// Where that is worked on.
    pub ticket: Option<String>,
    /// The first day on which failures count again, `"2026-12-24"`.
    pub expires: String,
}

/// `push = …`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum PushTable {
    /// Not pushed to.
    #[default]
    No,
    /// Pushed to; a failure is exit 5.
    Yes,
    /// Pushed to; a failure is a warning.
    Optional,
    /// Pushed to from the default branch only; a failure is exit 5.
    Main,
}

impl<'de> Deserialize<'de> for PushTable {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl serde::de::Visitor<'_> for Visitor {
            type Value = PushTable;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("true, false, \"optional\" or \"main\"")
            }
            fn visit_bool<E>(self, push: bool) -> Result<PushTable, E> {
                Ok(if push { PushTable::Yes } else { PushTable::No })
            }
            fn visit_str<E: serde::de::Error>(self, word: &str) -> Result<PushTable, E> {
                match word {
                    "optional" => Ok(PushTable::Optional),
                    "main" => Ok(PushTable::Main),
                    other => Err(E::invalid_value(serde::de::Unexpected::Str(other), &self)),
                }
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

/// Why a config file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// It is there and cannot be read.
    #[error("cannot read {}", .path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It is too large to be a config.
    #[error("{} has {bytes} bytes; a config has at most {MAX_BYTES}", .path.display())]
    Size {
        /// Which file.
        path: PathBuf,
        /// Its size.
        bytes: u64,
    },
    /// It does not say what a config says.
    #[error("{}:{line}:{column}: {message}", .path.display())]
    Parse {
        /// Which file.
        path: PathBuf,
        /// From 1.
        line: usize,
        /// From 1.
        column: usize,
        /// What is wrong there.
        message: String,
        /// What to write instead.
        hint: String,
    },
}

impl From<FileError> for Error {
    fn from(error: FileError) -> Self {
        let text = Self::usage(crate::error::chain(&error));
        match error {
            FileError::Parse { hint, .. } => text.hint(hint),
            FileError::Read { path, .. } | FileError::Size { path, .. } => {
                text.hint(format!("ls -l {}", path.display()))
            }
        }
    }
}

impl File {
    /// Reads `drover.toml` in this directory; a directory without one gives an empty config.
    pub fn in_dir(dir: &Path) -> Result<Self, FileError> {
        let path = dir.join("drover.toml");
        let read = |source| FileError::Read { path: path.clone(), source };
        match std::fs::metadata(&path) {
            Ok(meta) if meta.len() > MAX_BYTES => Err(FileError::Size { path, bytes: meta.len() }),
            Ok(_) => {
                let file = Self::parse(&std::fs::read_to_string(&path).map_err(read)?, &path)?;
                Ok(Self { dir: Some(dir.to_owned()), ..file })
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(read(error)),
        }
    }

    /// Whether it says nothing but which attrs are taken.
    #[must_use]
    pub fn is_only_attrs(&self) -> bool {
        let Self { attrs, lines, dir, .. } = self.clone();
        *self == Self { attrs, lines, dir, ..Self::default() }
    }

    /// What counts of it if a stranger may have written it: `[attrs]`, and else what is in `base`. Without that, nothing;
    /// builders stay so that it can be said which ones are passed over.
    #[must_use]
    pub fn of_stranger(self, base: Option<Self>, stranger: Stranger) -> Self {
        let builder = if base.is_none() { self.builder } else { BTreeMap::new() };
        let lines = self.lines;
        let base = base.unwrap_or_else(|| Self { builder, lines, ..Self::default() });
        Self { attrs: self.attrs, dir: self.dir, stranger: Some(stranger), ..base }
    }

    /// Reads this text; `path` is only named in errors.
    pub fn parse(text: &str, path: &Path) -> Result<Self, FileError> {
        let read = toml::from_str(text).map(|file| Self { lines: lines(text), ..file });
        read.map_err(|error| {
            let at = error.span().map_or(0, |span| span.start).min(text.len());
            let before = text.get(..at).unwrap_or_default();
            let line = text.lines().nth(before.matches('\n').count()).unwrap_or_default();
            let table = before.lines().rev().chain([line]).find(|line| line.starts_with('['));
            let (message, hint) =
                explained(error.message(), line, table.is_some_and(|name| name.starts_with("[builder.")));
            FileError::Parse {
                path: path.to_owned(),
                line: before.matches('\n').count() + 1,
                column: before.chars().rev().take_while(|&c| c != '\n').count() + 1,
                message,
                hint,
            }
        })
    }
}

/// The line of each key of a text that can be read.
fn lines(text: &str) -> BTreeMap<String, usize> {
    fn note(table: &toml::de::DeTable<'_>, before: &str, text: &str, lines: &mut BTreeMap<String, usize>) {
        for (key, value) in table {
            let name = format!("{before}{}", key.get_ref());
            let line = text.get(..key.span().start).unwrap_or_default().matches('\n').count() + 1;
            if let toml::de::DeValue::Table(inner) = value.get_ref() {
                note(inner, &format!("{name}."), text, lines);
            }
            lines.insert(name, line);
        }
    }
    let mut found = BTreeMap::new();
    if let Ok(table) = toml::de::DeTable::parse(text) {
        note(table.get_ref(), "", text, &mut found);
    }
    found
}

/// How every key is written.
const EXAMPLES: [(&str, &str); 50] = [
    ("kinds", "[\"nixosConfigurations\", \"checks\"]"),
    ("only", "[\"web*\"]"),
    ("exclude", "[\"*.installer\"]"),
    ("systems", "[\"x86_64-linux\"]"),
    ("workers", "4"),
    ("max-memory", "\"8GiB\""),
    ("timeout", "3600"),
    ("max-silent-time", "600"),
    ("retries", "2"),
    ("max-log-size", "67108864"),
    ("url", "\"file:///path\""),
    ("push", "true"),
    ("public-keys", "[\"NAME:BASE64\"]"),
    ("secret-key", "\"/path/of/key\""),
    ("token-file", "\"/path/of/token\""),
    ("priority", "40"),
    ("compression", "\"zstd\""),
    ("skip-larger-than", "\"2GiB\""),
    ("skip-names", "[\"*-source\", \"linux-firmware-*\"]"),
    ("skip-licenses", "[\"unfree\"]"),
    ("paths", "[\"docs/**\", \"*.md\"]"),
    ("host-key", "\"ssh-ed25519 AAAA…\""),
    ("max-jobs", "16"),
    ("features", "[\"kvm\", \"big-parallel\"]"),
    ("mandatory-features", "[\"gpu\"]"),
    ("speed", "2"),
    ("ssh-key", "\"/path/of/key\""),
    ("ssh-key-env", "\"DROVER_SSH_KEY\""),
    ("builder-wait", "120"),
    ("keep-days", "7"),
    ("slack", "\"https://hooks.example.org/services/…\""),
    ("slack-env", "\"SLACK_WEBHOOK\""),
    ("slack-file", "\"/path/of/url\""),
    ("webhook", "\"https://ops.example.org/drover\""),
    ("webhook-env", "\"DROVER_WEBHOOK\""),
    ("webhook-file", "\"/path/of/url\""),
    ("token-env", "\"DROVER_WEBHOOK_TOKEN\""),
    ("command", "[\"mail\", \"ops@example.org\"]"),
    ("attr", "\"checks.*.vm-*\""),
    ("reason", "\"needs nested kvm\""),
    ("ticket", "\"https://git.example.org/infra/17\""),
    ("expires", "\"2026-12-24\""),
    ("on", "[\"failure\", \"recovery\"]"),
    ("branches", "[\"main\"]"),
    ("hit-rate", "0.9"),
    ("success-rate", "0.95"),
    ("duration", "\"10m\""),
    ("recovery", "\"2m\""),
    ("first-failure", "\"3m\""),
    ("attrs", "{ exclude = [\"*.installer\"] }"),
];

/// How the URL of a builder is written.
const BUILDER: &str = "url = \"ssh-ng://ci@big1.acme.net\"";

/// What the parser says of a line, in words of the file and not of the program, and what to write instead.
fn explained(message: &str, line: &str, of_builder: bool) -> (String, String) {
    if let Some(rest) = message.strip_prefix("unknown field `") {
        let mut words = rest.split('`').step_by(2);
        let given = words.next().unwrap_or_default();
        let known: Vec<&str> = words.filter(|word| !word.is_empty()).collect();
        let hint = match nearest(given, known.iter().copied()) {
            Some(near) => format!("did you mean '{near}'?"),
            None => format!("here are known: {}", known.join(", ")),
        };
        return (format!("unknown key '{given}'"), hint);
    }
    let missing = message.strip_prefix("missing field `").map(|rest| rest.trim_end_matches('`'));
    let key = missing.unwrap_or_else(|| line.split('=').next().unwrap_or_default().trim());
    let hint = match EXAMPLES.iter().find(|(known, _)| *known == key) {
        Some(("url", _)) if of_builder => BUILDER.to_owned(),
        Some((key, example)) => format!("{key} = {example}"),
        None => "a table reads [attrs], a key reads exclude = [\"*.installer\"]".to_owned(),
    };
    if let Some(key) = missing {
        return (format!("the key '{key}' is missing"), hint);
    }
    let words = [
        ("invalid type: ", "this is a "),
        ("invalid value: ", "this is the "),
        ("expected u64", "not a whole number"),
        ("expected u32", "not a whole number"),
        ("expected i32", "not a whole number"),
        ("expected f64", "not a number"),
        ("expected a sequence", "not a list"),
        ("expected a string", "not a text"),
        ("expected true,", "not true,"),
    ];
    let message = words.iter().fold(message.replace('\n', ", "), |text, (theirs, ours)| text.replace(theirs, ours));
    (message, hint)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error_of(text: &str) -> Error {
        File::parse(text, Path::new("drover.toml")).unwrap_err().into()
    }

    #[test]
    fn a_full_file_is_read() {
        let file = File::parse(
            "[attrs]\nexclude = ['*.installer']\n[cache.acme]\nurl = 'file:///c'\npush = 'optional'\n[build]\nretries = 1\n",
            Path::new("drover.toml"),
        )
        .unwrap();
        assert_eq!(file.attrs.exclude, ["*.installer"]);
        assert_eq!(file.cache["acme"].push, PushTable::Optional);
        assert_eq!(file.build.retries, Some(1));
        assert_eq!((file.lines["cache.acme.push"], file.lines["build.retries"]), (5, 7));
    }

    #[test]
    fn an_unknown_key_names_its_place_and_the_nearest() {
        let error = error_of("[attrs]\nexclud = []\n");
        assert!(error.message.starts_with("drover.toml:2:1: unknown key 'exclud'"), "{}", error.message);
        assert_eq!(error.hint.as_deref(), Some("did you mean 'exclude'?"));
    }

    #[test]
    fn a_wrong_type_names_its_place() {
        let error = error_of("[build]\ntimeout = 'long'\n");
        assert_eq!(error.message, "drover.toml:2:11: this is a string \"long\", not a whole number");
        assert_eq!(error.hint.as_deref(), Some("timeout = 3600"));
    }
}
