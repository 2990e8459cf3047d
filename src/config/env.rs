//! The environment, read once. Every variable that drover obeys is named here.

use std::collections::BTreeMap;
use std::path::PathBuf;

/// The variables of the process, as they were at the start.
#[derive(Debug, Clone, Default)]
pub struct Env {
    vars: BTreeMap<String, String>,
}

/// Where run records, logs and eval records are kept.
pub(super) const DROVER_STATE_DIR: &str = "DROVER_STATE_DIR";
/// Caches to push to, separated by spaces, like repeated `--push-to`.
pub(super) const DROVER_PUSH_TO: &str = "DROVER_PUSH_TO";
/// How many drvs the local store builds at once, like `--max-jobs`.
pub(super) const DROVER_MAX_JOBS: &str = "DROVER_MAX_JOBS";
/// How many evaluator processes, like `--eval-workers`.
pub(super) const DROVER_EVAL_WORKERS: &str = "DROVER_EVAL_WORKERS";
/// A filter for developers' logs on stderr (`drover=debug`).
pub const DROVER_LOG: &str = "DROVER_LOG";

impl Env {
    /// What the process was started with. Values that are not UTF-8 are left out: no variable that drover reads may
    /// hold one.
    #[must_use]
    pub fn of_process() -> Self {
        let vars = std::env::vars_os();
        Self { vars: vars.filter_map(|(k, v)| Some((k.into_string().ok()?, v.into_string().ok()?))).collect() }
    }

    /// An environment for tests.
    #[must_use]
    pub fn of<'a>(vars: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        Self { vars: vars.into_iter().map(|(k, v)| (k.to_owned(), v.to_owned())).collect() }
    }

    /// The value of a variable that is set and not empty.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.vars.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    /// `DROVER_STATE_DIR`, else `$XDG_STATE_HOME/drover`, else `~/.local/state/drover`.
    #[must_use]
    pub fn state_dir(&self) -> Option<PathBuf> {
        if let Some(dir) = self.get(DROVER_STATE_DIR) {
            return Some(PathBuf::from(dir));
        }
        if let Some(dir) = self.get("XDG_STATE_HOME") {
            return Some(PathBuf::from(dir).join("drover"));
        }
        self.get("HOME").map(|home| PathBuf::from(home).join(".local/state/drover"))
    }

    /// Whether this runs in a CI system: every forge sets `CI`.
    #[must_use]
    pub fn is_ci(&self) -> bool {
        self.get("CI").is_some_and(|value| value != "false" && value != "0")
    }
}
