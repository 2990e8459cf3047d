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

/// The pull request (at GitLab: merge request) that a CI system says it runs for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PullRequest {
    /// The branch that it is to be merged into.
    pub target: String,
    /// The commit that it is compared with, where the forge says so.
    pub base: Option<String>,
    /// The merge commit that the forge made of both sides, where that is what gets checked out: its first parent is
    /// the base.
    pub merge: Option<String>,
    /// How the history can be had that the base is in, at this forge; something to type, or to write.
    pub whole: &'static str,
}

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

    /// The pull request that this runs for, by the variables of GitHub, Forgejo, Gitea (`GITHUB_*`, which the others
    /// set as well) and GitLab (`CI_MERGE_REQUEST_*`).
    #[must_use]
    pub fn pull_request(&self) -> Option<PullRequest> {
        if let Some(target) = self.get("CI_MERGE_REQUEST_TARGET_BRANCH_NAME") {
            // Only a pipeline for the merged result has the first one; there it is a parent of what is checked out.
            let base =
                self.get("CI_MERGE_REQUEST_TARGET_BRANCH_SHA").or_else(|| self.get("CI_MERGE_REQUEST_DIFF_BASE_SHA"));
            return Some(PullRequest {
                target: target.to_owned(),
                base: base.map(str::to_owned),
                merge: None,
                whole: "GIT_DEPTH: 0    in the variables of the job",
            });
        }
        let target =
            ["GITHUB_BASE_REF", "FORGEJO_BASE_REF", "GITEA_BASE_REF"].into_iter().find_map(|name| self.get(name))?;
        let merged =
            self.get("GITHUB_REF").is_some_and(|name| name.starts_with("refs/pull/") && name.ends_with("/merge"));
        Some(PullRequest {
            target: target.to_owned(),
            base: None,
            merge: self.get("GITHUB_SHA").filter(|_| merged).map(str::to_owned),
            whole: "fetch-depth: 0    for actions/checkout",
        })
    }

    /// Whether this runs in a CI system: every forge sets `CI`.
    #[must_use]
    pub fn is_ci(&self) -> bool {
        self.get("CI").is_some_and(|value| value != "false" && value != "0")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_forge_says_what_a_pull_request_is_compared_with() {
        let of = |vars: &[(&'static str, &'static str)]| Env::of(vars.iter().copied()).pull_request();
        assert_eq!(of(&[("CI", "true"), ("GITHUB_REF", "refs/heads/main"), ("GITHUB_BASE_REF", "")]), None);
        let github =
            of(&[("GITHUB_BASE_REF", "main"), ("GITHUB_REF", "refs/pull/8/merge"), ("GITHUB_SHA", "abc")]).unwrap();
        assert_eq!((&*github.target, github.merge.as_deref(), github.base), ("main", Some("abc"), None));
        // Forgejo checks out the branch itself.
        let forgejo =
            of(&[("GITHUB_BASE_REF", "main"), ("GITHUB_REF", "refs/pull/8/head"), ("GITHUB_SHA", "abc")]).unwrap();
        assert_eq!((&*forgejo.target, forgejo.merge), ("main", None));
        let gitlab = [("CI_MERGE_REQUEST_TARGET_BRANCH_NAME", "main"), ("CI_MERGE_REQUEST_DIFF_BASE_SHA", "abc")];
        assert_eq!(of(&gitlab).unwrap().base.as_deref(), Some("abc"));
        let merged = of(&[gitlab[0], gitlab[1], ("CI_MERGE_REQUEST_TARGET_BRANCH_SHA", "def")]).unwrap();
        assert_eq!(merged.base.as_deref(), Some("def"));
    }
}
