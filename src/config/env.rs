//! The environment, read once. Every variable that drover obeys is named here.

use std::collections::BTreeMap;
use std::fmt;
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
/// Builders in Nix's syntax, like `--builders`.
pub(super) const DROVER_BUILDERS: &str = "DROVER_BUILDERS";
/// Seconds that drvs wait for a builder that is away, like `--builder-wait`.
pub(super) const DROVER_BUILDER_WAIT: &str = "DROVER_BUILDER_WAIT";
/// The private key to log in to builders with, where nothing names another.
pub(super) const DROVER_SSH_KEY: &str = "DROVER_SSH_KEY";
/// The trace that this process is a part of, as W3C's Trace Context has it.
pub(super) const TRACEPARENT: &str = "TRACEPARENT";
/// Lines of a `known_hosts` of ssh: builders and their public keys.
pub(super) const DROVER_SSH_KNOWN_HOSTS: &str = "DROVER_SSH_KNOWN_HOSTS";
/// More words for ssh, as Nix takes them.
pub(super) const NIX_SSHOPTS: &str = "NIX_SSHOPTS";
/// Logins to caches, as the tools of their makers read them, and where those keep their own files.
pub(super) const LOGINS: [&str; 11] = [
    "HOME",
    "XDG_CONFIG_HOME",
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AWS_PROFILE",
    "AWS_SHARED_CREDENTIALS_FILE",
    "AWS_CONFIG_FILE",
    "CACHIX_AUTH_TOKEN",
    "CACHIX_SIGNING_KEY",
    "NIKS3_AUTH_TOKEN_FILE",
];
/// A filter for developers' logs on stderr (`drover=debug`).
pub const DROVER_LOG: &str = "DROVER_LOG";

/// Bytes of a forge's event that are read at most.
const MAX_EVENT: u64 = 8 << 20;

/// The variables from which logins to caches are taken. `Debug` shows none of their values.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct LoginVars {
    vars: BTreeMap<&'static str, String>,
}

impl LoginVars {
    /// Those that are set, and their values.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.vars.iter().map(|(name, value)| (*name, value.as_str()))
    }
}

impl fmt::Debug for LoginVars {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.vars.keys()).finish()
    }
}

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

    /// The trace that this process is a part of, if whoever started it says so.
    #[must_use]
    pub fn trace_parent(&self) -> Option<&str> {
        self.get(TRACEPARENT)
    }

    /// What it says of logins to caches.
    #[must_use]
    pub fn logins(&self) -> LoginVars {
        LoginVars { vars: LOGINS.into_iter().filter_map(|name| Some((name, self.get(name)?.to_owned()))).collect() }
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

    /// What can be had again: `$XDG_CACHE_HOME/drover`, else `~/.cache/drover`.
    #[must_use]
    pub fn cache_dir(&self) -> Option<PathBuf> {
        if let Some(dir) = self.get("XDG_CACHE_HOME") {
            return Some(PathBuf::from(dir).join("drover"));
        }
        self.get("HOME").map(|home| PathBuf::from(home).join(".cache/drover"))
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

    /// Whether a CI system runs this for a pull request from another repository, whose author may not be one who may
    /// write to this one. In doubt it is.
    #[must_use]
    pub fn is_foreign_pull_request(&self) -> bool {
        let is = |name: &str, value: &str| self.get(name).is_some_and(|said| said.eq_ignore_ascii_case(value));
        let differ = |one: &str, other: &str| self.get(one).is_some_and(|one| self.get(other) != Some(one));
        // GitHub, Forgejo and Gitea. A `pull_request_target` runs with the rights of the repository, on whatever commit.
        let github = self.get("GITHUB_EVENT_NAME").is_some_and(|event| event.starts_with("pull_request"));
        if github && !self.event_is_of(self.get("GITHUB_REPOSITORY").unwrap_or_default()) {
            return true;
        }
        // GitLab, Azure Pipelines, Woodpecker, Buildkite, CircleCI.
        differ("CI_MERGE_REQUEST_SOURCE_PROJECT_ID", "CI_MERGE_REQUEST_PROJECT_ID")
            || is("SYSTEM_PULLREQUEST_ISFORK", "true")
            || is("CI_COMMIT_PULL_REQUEST_FROM_FORK", "true")
            || (self.get("BUILDKITE_PULL_REQUEST").is_some_and(|number| number != "false")
                && differ("BUILDKITE_PULL_REQUEST_REPO", "BUILDKITE_REPO"))
            || self.get("CIRCLE_PR_NUMBER").is_some()
    }

    /// The default branch, as the event that GitHub tells of says.
    pub(super) fn default_branch(&self) -> Option<String> {
        self.event()?.pointer("/repository/default_branch")?.as_str().map(str::to_owned)
    }

    /// The event that GitHub tells of.
    fn event(&self) -> Option<serde_json::Value> {
        let path = self.get("GITHUB_EVENT_PATH")?;
        let file = std::fs::File::open(path).ok()?;
        serde_json::from_reader(std::io::Read::take(file, MAX_EVENT)).ok()
    }

    /// Whether the event that GitHub tells of is a pull request from this repository itself.
    fn event_is_of(&self, repository: &str) -> bool {
        let head = self.event().and_then(|event| event.pointer("/pull_request/head/repo/full_name").cloned());
        head.as_ref().and_then(serde_json::Value::as_str) == Some(repository)
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

    #[test]
    fn pull_requests_of_forks_are_told_from_others() {
        let dir = tempfile::tempdir().unwrap();
        let event = |repository: &str| {
            let path = dir.path().join(repository.replace('/', "-"));
            let text = format!("{{\"pull_request\":{{\"head\":{{\"repo\":{{\"full_name\":\"{repository}\"}}}}}}}}");
            std::fs::write(&path, text).unwrap();
            path.display().to_string()
        };
        let (own, fork) = (event("me/infra"), event("you/infra"));
        let github = |name: &str, path: &str| {
            let vars = [("GITHUB_EVENT_NAME", name), ("GITHUB_REPOSITORY", "me/infra"), ("GITHUB_EVENT_PATH", path)];
            Env::of(vars).is_foreign_pull_request()
        };
        assert!(!github("push", "/nonexistent"));
        assert!(!github("pull_request", &own));
        assert!(github("pull_request", &fork));
        assert!(github("pull_request_target", &fork));
        assert!(github("pull_request", "/nonexistent"), "in doubt it is one");
        for (vars, foreign) in [
            (&[][..], false),
            (&[("CI_MERGE_REQUEST_SOURCE_PROJECT_ID", "1"), ("CI_MERGE_REQUEST_PROJECT_ID", "1")], false),
            (&[("CI_MERGE_REQUEST_SOURCE_PROJECT_ID", "2"), ("CI_MERGE_REQUEST_PROJECT_ID", "1")], true),
            (&[("SYSTEM_PULLREQUEST_ISFORK", "False")], false),
            (&[("SYSTEM_PULLREQUEST_ISFORK", "True")], true),
            (&[("CI_COMMIT_PULL_REQUEST_FROM_FORK", "true")], true),
            (&[("BUILDKITE_PULL_REQUEST", "false"), ("BUILDKITE_PULL_REQUEST_REPO", "x")], false),
            (&[("BUILDKITE_PULL_REQUEST", "7"), ("BUILDKITE_PULL_REQUEST_REPO", "x"), ("BUILDKITE_REPO", "y")], true),
            (&[("CIRCLE_PR_NUMBER", "7")], true),
        ] {
            assert_eq!(Env::of(vars.iter().copied()).is_foreign_pull_request(), foreign, "{vars:?}");
        }
    }
}
